//! How the operator is started.

use std::net::SocketAddr;
use std::time::Duration;

use crate::api::allowed_hosts::AllowedHosts;
use crate::migrations::Registry;

/// What the operator is told when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespaces whose resources are served; empty: all.
    pub namespaces: Vec<String>,
    /// Redis hosts that resources may name.
    pub allowed_hosts: AllowedHosts,
    /// Who we are in locks and events: the pod's name.
    pub holder: String,
    /// How long a lock of ours stands unless renewed.
    pub lease: Duration,
    /// Where probes and metrics are served.
    pub address: SocketAddr,
    /// The migrations known.
    pub registry: Registry,
}
