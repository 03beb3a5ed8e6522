//! One server, or a cluster, for cases that hold on both.

use super::redis_client::Endpoint;
use super::redis_cluster::Cluster;
use super::redis_server::{Options, Standalone};

/// One server, or a cluster; gone when dropped.
pub enum Redis {
    Standalone(Standalone),
    Cluster(Cluster),
}

impl Redis {
    /// One server, or a cluster of three primaries with so many replicas each.
    pub async fn either(is_cluster: bool, replicas_per: usize) -> Self {
        Self::of(if is_cluster { 3 } else { 1 }, replicas_per, Options::default()).await
    }

    /// One server where there is one primary, else a cluster of so many.
    pub async fn of(primaries: usize, replicas_per: usize, options: Options) -> Self {
        match primaries {
            1 => Self::Standalone(Standalone::start(options).await),
            _ => Self::Cluster(Cluster::start(primaries, replicas_per, options).await),
        }
    }

    /// How to reach it.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::Standalone(server) => server.endpoint(),
            Self::Cluster(cluster) => cluster.endpoint(),
        }
    }
}
