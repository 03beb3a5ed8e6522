//! Why a step ended without being done.
//!
//! Owns the closed list; whoever drives the engine turns each into its own words (a condition, an exit
//! code). None of these ever stands beside a mark.

use thiserror::Error;

use crate::keyspace::replicas::Unacknowledged;
use crate::keyspace::{Fault, FaultClass};
use crate::model::acceptance::how_to_accept;
use crate::model::count::Sample;
use crate::model::finding::{Finding, FindingCode};
use crate::model::key::RedisKey;
use crate::model::report::ApplyReport;

/// Why a step ended without being done.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for it; the batch under way was finished.
    #[error("stopped as asked, after the batch under way; start again to go on")]
    Interrupted,
    /// The lock was lost; nothing is sent any more.
    #[error("the lock was lost; another worker may hold it now")]
    LeaseLost,
    /// Redis did not answer, or refused.
    #[error("{0}")]
    Fault(Fault),
    /// Slots stayed open, unowned or on the move, so their keys could not be proven seen.
    #[error("{missing} slots could not be covered: {example}")]
    Incomplete {
        /// How many slots.
        missing: u32,
        /// What is known of the first of them, and what to do.
        example: String,
    },
    /// Every slot was covered, but some primary may hold keys of slots that it does not own.
    #[error("every slot was covered, but keys may lie where nobody looks for them: {example}")]
    Unseen {
        /// Where, why nobody knows, and what to do.
        example: String,
    },
    /// A finding blocks the step.
    #[error("{}", first_message(.0))]
    PreflightFailed(Vec<Finding>),
    /// Targets exist that differ from their sources.
    #[error("{} targets exist and differ from their sources; nothing was overwritten: compare them, then choose a conflict policy", .0.conflicts)]
    Conflicts(Box<ApplyReport>),
    /// Sources keep changing while they are compared.
    #[error("sources keep changing ({changed} in the last pass); stop the old version of the application")]
    SourceChanging {
        /// Entries that differed in the last pass.
        changed: u64,
    },
    /// Targets stand for sources that were deleted after they were copied.
    #[error(
        "{}; stop the application, remove those that should be gone, and start again; or, where they should stay, {}",
        sources_gone(*entries),
        how_to_accept(FindingCode::SourcesGone)
    )]
    SourcesGone {
        /// How many more entries without a source there are than when the run began.
        entries: u64,
        /// Entries without a source, those of before among them.
        sample: Sample<RedisKey>,
    },
    /// Replicas did not acknowledge.
    #[error("{}", replicas_message(.0))]
    ReplicasMissing(Vec<Unacknowledged>),
    /// Another run took over the run hash.
    #[error("another run of this migration has begun; this one ends")]
    RunLost,
    /// Another tool's mark stands over sources without targets.
    #[error(
        "another tool marked this migration applied, but {missing} entries are not migrated; approve the plan to migrate them (deleted ones among them would return)"
    )]
    MarkUnproven {
        /// Entries that are not migrated.
        missing: u64,
    },
    /// Cleanup was asked for before the migration was proven.
    #[error("the migration is not verified; nothing was removed")]
    NotVerified,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        if fault.class == FaultClass::LeaseEnded { Self::LeaseLost } else { Self::Fault(fault) }
    }
}

fn first_message(findings: &[Finding]) -> String {
    match findings {
        [] => "a finding blocks apply".to_owned(),
        [only] => only.message.clone(),
        [first, rest @ ..] => format!("{} (and {} more findings)", first.message, rest.len()),
    }
}

/// What is known of targets without a source, whether somebody accepted it or not.
pub(super) fn sources_gone(entries: u64) -> String {
    format!(
        "{entries} entries in current form have lost their source since this run began, or were written by the new \
         version or by hand"
    )
}

fn replicas_message(short: &[Unacknowledged]) -> String {
    match short.first() {
        None => "replicas did not acknowledge".to_owned(),
        Some(first) => format!(
            "{} of {} replicas of {} acknowledged; bring replicas back or lower minReplicas",
            first.acknowledged, first.required, first.node
        ),
    }
}
