//! Choices that people make about a run.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens to a target key that exists and differs from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ConflictPolicy {
    /// Nothing is overwritten; all conflicts are counted, a sample is named, and the run stops before the mark.
    #[default]
    Fail,
    /// The target is replaced by its source.
    PreferSource,
    /// The target is kept and counted; it does not block the mark.
    PreferTarget,
}

/// What cleanup does with an original whose target no longer equals it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DivergedPolicy {
    /// The original stays and is counted.
    #[default]
    Keep,
    /// The original is removed if it still has the value just read.
    Delete,
}

/// How hard a run may work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// At most this many source keys are processed a second, over all primaries together.
    pub keys_per_second: Option<u32>,
    /// The longest round trip that another client should feel; work in flight shrinks to keep it.
    pub max_latency: Option<Duration>,
}

/// Bounds of a limit on round trips: below is out of reach of networks, above is no limit.
pub const SHORTEST_LATENCY: Duration = Duration::from_millis(1);
/// See [`SHORTEST_LATENCY`].
pub const LONGEST_LATENCY: Duration = Duration::from_secs(10);

/// How many replicas of each primary must acknowledge before the mark and before deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinReplicas {
    /// One where a primary has replicas, else none.
    #[default]
    OneIfAny,
    /// This many on every primary.
    Exactly(u32),
}

impl fmt::Display for MinReplicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneIfAny => f.write_str("1 if any"),
            Self::Exactly(count) => write!(f, "{count}"),
        }
    }
}

impl MinReplicas {
    /// How many acknowledgements a primary owes that should have `replicas` replicas, dead ones included.
    #[must_use]
    pub fn required(self, replicas: u32) -> u32 {
        match self {
            Self::OneIfAny => replicas.min(1),
            Self::Exactly(count) => count,
        }
    }
}

/// How long `WAIT` waits for replicas before the run pauses with a reason.
pub const REPLICA_PATIENCE: Duration = Duration::from_secs(5);
