//! `operator`: how the operator is started.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::api::allowed_hosts::{AllowedHosts, BadHostPattern};
use crate::migrations::Registry;
use crate::operator::settings::Settings;

/// Options of `operator`.
#[derive(Debug, Args)]
pub struct OperatorArgs {
    /// Serve resources of this namespace; may be given more than once. Without it: all namespaces
    #[arg(long = "namespace", value_name = "NAMESPACE", env = "WATCH_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Let resources name this Redis host only, or hosts under `*.suffix`; may be given more than once
    #[arg(long = "allowed-redis-host", value_name = "HOST", env = "ALLOWED_REDIS_HOSTS", value_delimiter = ',')]
    allowed_redis_hosts: Vec<String>,
    /// Serve probes and metrics here
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", env = "LISTEN_ADDRESS")]
    address: SocketAddr,
    /// Seconds that a lock of ours stands unless renewed: how long a dead replica blocks the others
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..=3600))]
    lease_seconds: u64,
    /// Name of this replica in locks and events
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    holder: Option<String>,
}

impl OperatorArgs {
    /// The settings that the operator runs by.
    ///
    /// # Errors
    /// A host pattern that could never match.
    pub fn settings(self) -> Result<Settings, BadHostPattern> {
        Ok(Settings {
            namespaces: self.namespaces.into_iter().filter(|name| !name.is_empty() && name != "*").collect(),
            allowed_hosts: AllowedHosts::new(self.allowed_redis_hosts)?,
            holder: self.holder.unwrap_or_else(host_and_process),
            lease: Duration::from_secs(self.lease_seconds),
            address: self.address,
            registry: Registry::outpost(),
        })
    }
}

fn host_and_process() -> String {
    format!("{}/{}", gethostname::gethostname().to_string_lossy(), std::process::id())
}
