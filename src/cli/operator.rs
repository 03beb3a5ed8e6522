//! `operator`: how the operator is started.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::api::allowed_hosts::AllowedHosts;
use crate::cli::failure::{ExitCode, Failure};
use crate::cli::session;
use crate::config::ConfigurationFlags;
use crate::migrations::Registry;
use crate::operator;
use crate::operator::settings::{Namespaces, Settings, every_address};

/// Options of `operator`.
#[derive(Debug, Args)]
pub struct OperatorArgs {
    /// Serve resources of this namespace; may be given more than once. Without it, or with *: all namespaces
    #[arg(long = "namespace", value_name = "NAMESPACE", env = "WATCH_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Let resources name this Redis host only, or hosts under `*.suffix`; may be given more than once
    #[arg(long = "allowed-redis-host", value_name = "HOST", env = "ALLOWED_REDIS_HOSTS", value_delimiter = ',')]
    allowed_redis_hosts: Vec<String>,
    /// Serve probes and metrics here. Default: port 8080 of every address, IPv6 and IPv4
    #[arg(long, value_name = "ADDRESS", env = "LISTEN_ADDRESS")]
    address: Option<SocketAddr>,
    /// Seconds that a lock of ours stands unless renewed: how long a dead replica blocks the others
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..=3600))]
    lease_seconds: u64,
    /// Name of this replica in locks and events
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    holder: Option<String>,
}

/// Runs the operator until it is stopped.
pub(super) async fn run(
    args: OperatorArgs,
    flags: &ConfigurationFlags,
    stop: CancellationToken,
) -> Result<ExitCode, Failure> {
    if let Some(flag) = flags.first_typed() {
        let message = format!("{flag}: the operator takes this from each resource's spec: leave it out");
        return Err(Failure::new(ExitCode::Usage, message));
    }
    let settings = args.settings()?;
    operator::start(settings, stop).await.map_err(|error| Failure::new(ExitCode::Usage, error))?;
    Ok(ExitCode::Done)
}

impl OperatorArgs {
    /// The settings that the operator runs by.
    fn settings(self) -> Result<Settings, Failure> {
        let usage = |message: String| Failure::new(ExitCode::Usage, message);
        Ok(Settings {
            namespaces: Namespaces::parse(&self.namespaces).map_err(|error| usage(error.to_string()))?,
            allowed_hosts: AllowedHosts::new(self.allowed_redis_hosts).map_err(|error| usage(error.to_string()))?,
            holder: self.holder.unwrap_or_else(session::holder),
            lease: Duration::from_secs(self.lease_seconds),
            addresses: self.address.map_or_else(every_address, |address| vec![address]),
            registry: Registry::outpost(),
        })
    }
}
