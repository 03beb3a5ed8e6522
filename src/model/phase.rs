//! Where a migration stands and how far it is to go.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The last step reached or under way. Trouble is never a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing has begun.
    #[default]
    Pending,
    /// Reading the keyspace.
    Planning,
    /// The plan is in status; nothing is written.
    Planned,
    /// Copying entries to their targets.
    Applying,
    /// Everything is copied; the gate is still closed.
    Applied,
    /// Comparing every entry by value.
    Verifying,
    /// Proven and marked; the target is the truth now.
    Verified,
    /// Removing originals that equal their targets.
    CleaningUp,
    /// Cleanup ended.
    CleanedUp,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Planning,
        Self::Planned,
        Self::Applying,
        Self::Applied,
        Self::Verifying,
        Self::Verified,
        Self::CleaningUp,
        Self::CleanedUp,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How far a migration is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum TargetPhase {
    /// A dry run: nothing is written to the keyspace.
    Planned,
    /// Entries are copied; the gate stays closed.
    Applied,
    /// Entries are copied, compared and marked.
    #[default]
    Verified,
    /// Originals are removed too.
    CleanedUp,
}

impl TargetPhase {
    /// Every target phase, in order.
    pub const ALL: [Self; 4] = [Self::Planned, Self::Applied, Self::Verified, Self::CleanedUp];

    /// The phase in which this target is reached.
    #[must_use]
    pub fn phase(self) -> Phase {
        match self {
            Self::Planned => Phase::Planned,
            Self::Applied => Phase::Applied,
            Self::Verified => Phase::Verified,
            Self::CleanedUp => Phase::CleanedUp,
        }
    }
}

impl fmt::Display for TargetPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One piece of work of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Read and count; write nothing.
    Plan,
    /// Copy entries to their targets.
    Apply,
    /// Compare every entry by value, then write the mark.
    Verify,
    /// Remove originals that equal their targets.
    Cleanup,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 4] = [Self::Plan, Self::Apply, Self::Verify, Self::Cleanup];

    /// The step's name as the command line, the lock and metrics use it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Verify => "verify",
            Self::Cleanup => "cleanup",
        }
    }

    /// The phase while the step is under way.
    #[must_use]
    pub fn phase_during(self) -> Phase {
        match self {
            Self::Plan => Phase::Planning,
            Self::Apply => Phase::Applying,
            Self::Verify => Phase::Verifying,
            Self::Cleanup => Phase::CleaningUp,
        }
    }

    /// The phase once the step is done.
    #[must_use]
    pub fn phase_after(self) -> Phase {
        match self {
            Self::Plan => Phase::Planned,
            Self::Apply => Phase::Applied,
            Self::Verify => Phase::Verified,
            Self::Cleanup => Phase::CleanedUp,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
