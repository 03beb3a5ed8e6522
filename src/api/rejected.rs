//! Why no request can be made of a resource.
//!
//! Owns the messages: each says what is wrong, where, and what to do.

use super::conditions::Reason;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why no request can be made of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No migration has that name here.
    #[error(
        "spec.migration names {name:?}, which this version of the operator does not know; known are: {}. \
         Create a RedisMigration with one of these names, or upgrade the operator",
        known.join(", ")
    )]
    UnknownMigration {
        /// The name in the spec.
        name: String,
        /// The names that would do.
        known: Vec<&'static str>,
    },
    /// A field holds what this version does not know.
    #[error(
        "{field}: {problem}. This is version {VERSION} of the operator; upgrade it, or write a value that it knows"
    )]
    Undecodable {
        /// Path of the field.
        field: String,
        /// What the decoder says.
        problem: String,
    },
    /// A newer operator worked on it.
    #[error(
        "{field} was written by a newer operator; this is version {VERSION}, which leaves the resource alone. Upgrade \
         the operator"
    )]
    NewerStatus {
        /// The field by which it is known.
        field: String,
    },
    /// A field can't be followed.
    #[error("{field}: {problem}")]
    InvalidSpec {
        /// Path of the field.
        field: &'static str,
        /// What is wrong with it and what to write instead.
        problem: String,
    },
    /// The operator may not connect to that host.
    #[error(
        "spec.redis.host: this operator may not connect to {host:?}; allowed are: {allowed}. Create a RedisMigration \
         with an allowed host, or ask who installed the operator to add this one to allowedRedisHosts"
    )]
    HostNotAllowed {
        /// The resolved host.
        host: String,
        /// The allow-list.
        allowed: String,
    },
}

impl Rejected {
    /// The reason that the condition gives.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::UnknownMigration { .. } => Reason::UnknownMigration,
            Self::NewerStatus { .. } => Reason::PlanVersionUnknown,
            Self::Undecodable { .. } | Self::InvalidSpec { .. } | Self::HostNotAllowed { .. } => Reason::InvalidSpec,
        }
    }

    /// Whether another version of the operator may be able to follow it.
    #[must_use]
    pub fn may_be_followed_elsewhere(&self) -> bool {
        match self {
            Self::UnknownMigration { .. } | Self::Undecodable { .. } | Self::NewerStatus { .. } => true,
            Self::InvalidSpec { .. } | Self::HostNotAllowed { .. } => false,
        }
    }

    pub(super) fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::InvalidSpec { field, problem: problem.into() }
    }
}
