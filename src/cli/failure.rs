//! Exit codes, and how every failure becomes one line with the next step and its code.

use std::fmt::{self, Display};

use crate::config::ConfigurationError;
use crate::engine::Stop;
use crate::engine::lock::Holder;
use crate::keyspace::{Fault, FaultClass};
use crate::model::time::human_seconds;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done, or current.
    Done = 0,
    /// Pending, not verified, declined, or conflicts.
    NotDone = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Redis can't be reached, or refused us.
    Redis = 3,
    /// Somebody else holds the lock.
    Locked = 4,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command was not done: one line for people, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How the process ends.
    pub code: ExitCode,
    message: String,
}

impl Failure {
    /// A failure with its message: what is wrong, where, and what to do.
    pub fn new(code: ExitCode, message: impl Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// Somebody else has the lock.
    pub(super) fn locked(holder: &Holder) -> Self {
        let remaining = match holder.remaining_millis {
            Some(millis) => format!("ends in {} unless renewed", human_seconds(millis.div_ceil(1000))),
            None => "never ends by itself".to_owned(),
        };
        let message = format!(
            "the lock {} is held by {holder} and {remaining}: wait for it, or see `outpost-migrate-redis unlock`",
            holder.key
        );
        Self::new(ExitCode::Locked, message)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigurationError> for Failure {
    fn from(error: ConfigurationError) -> Self {
        Self::new(ExitCode::Usage, error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        if fault.class == FaultClass::ClusterMode {
            let message = format!("{fault}: give --redis-cluster, or --redis-cluster=false (REDIS_CLUSTER_ENABLED)");
            return Self::new(ExitCode::Usage, message);
        }
        Self::new(ExitCode::Redis, fault)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        let (code, next) = match stop {
            Stop::Fault(fault) => return fault.into(),
            Stop::Interrupted => (ExitCode::NotDone, Some("what is done already is skipped then")),
            Stop::LeaseLost => (ExitCode::Locked, Some("see `outpost-migrate-redis status`, then start again")),
            Stop::RunLost => (ExitCode::Locked, None),
            Stop::Incomplete { .. } | Stop::Unseen { .. } => (ExitCode::Redis, None),
            Stop::Conflicts(_) => (ExitCode::NotDone, Some("see --conflict-policy")),
            Stop::PreflightFailed(_)
            | Stop::SourceChanging { .. }
            | Stop::SourcesGone { .. }
            | Stop::MarkUnproven { .. } => (ExitCode::NotDone, None),
            Stop::ReplicasMissing(_) => (ExitCode::NotDone, Some("see --min-replicas")),
            Stop::NotVerified => (ExitCode::NotDone, Some("`outpost-migrate-redis apply` proves it first")),
        };
        match next {
            Some(next) => Self::new(code, format!("{stop}; {next}")),
            None => Self::new(code, stop),
        }
    }
}
