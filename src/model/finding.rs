//! Results of preflight checks.
//!
//! Owns the closed list of findings and how severe each is; errors block apply.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// Good to know.
    Note,
    /// Think about it before going on.
    Warning,
    /// Apply refuses.
    Error,
}

/// Which check found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FindingCode {
    /// The server is older than what the copies need.
    RedisVersion,
    /// A cluster does not answer for all of its slots.
    ClusterState,
    /// A primary that owns no slots is called failed, so nobody sees what it holds.
    FailedPrimary,
    /// Slots are being moved between primaries.
    OpenSlots,
    /// Cluster mode is configured and the server has none, or the reverse.
    ClusterMode,
    /// A memory limit with an eviction policy under which copies push out originals.
    EvictionPolicy,
    /// The copies may not fit into the memory that is left.
    Memory,
    /// Fewer replicas than asked for.
    Replicas,
    /// The last snapshot or append-only write failed, so Redis may refuse writes.
    Persistence,
    /// The user lacks a permission that apply needs.
    Permissions,
    /// A check could not be made, since the user may not ask.
    CheckNotPermitted,
    /// Entries above the size that can be copied in one piece.
    HugeEntries,
    /// Tenant ids whose keys do not share one slot.
    ScatteredTenant,
    /// Tenants with braced ids, whose legacy and current names collide.
    BracedTenant,
    /// Ids for which a target's name could be read as another entity's.
    AmbiguousTarget,
    /// Targets behind another tool's mark that lost the expiry of their source.
    LostExpiry,
    /// Targets that have no source any more, though the run began with one.
    SourcesGone,
    /// A TLS certificate ends soon.
    Certificate,
    /// Targets that only a server's memory holds when their originals are removed.
    NotOnDisk,
    /// Connections of an earlier holder could not be closed.
    StaleConnections,
}

/// One result of a preflight check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check found it.
    pub code: FindingCode,
    /// How much it weighs.
    pub severity: Severity,
    /// What was found and what to do about it, without values or credentials.
    pub message: String,
    /// Whether a person accepted it by name, so that it blocks nothing.
    pub accepted: bool,
}

impl Finding {
    /// A finding that blocks apply.
    pub fn error(code: FindingCode, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message)
    }

    /// A finding to think about.
    pub fn warning(code: FindingCode, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message)
    }

    /// A finding that is good to know.
    pub fn note(code: FindingCode, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Note, message)
    }

    fn new(code: FindingCode, severity: Severity, message: impl Into<String>) -> Self {
        Self { code, severity, message: message.into(), accepted: false }
    }

    /// Whether it blocks its step: an error that nobody accepted.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.severity == Severity::Error && !self.accepted
    }
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
