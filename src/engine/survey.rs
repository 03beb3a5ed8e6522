//! What Redis says about a migration before any work: Redis outranks whatever was remembered.

use crate::engine::assignment::Assignment;
use crate::engine::journal::{self, Owner, RunRecord};
use crate::engine::stop::Stop;
use crate::keyspace::{Keyspace, Writer};
use crate::migrations::Applicability;
use crate::model::mark::Mark;
use crate::model::time::UnixMillis;

/// What Redis says about a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The migration's mark.
    pub mark: Mark,
    /// Name of the migration before it, if that has no mark yet.
    pub predecessor_pending: Option<&'static str>,
    /// Why the migration never applies to this keyspace, if so.
    pub not_applicable: Option<&'static str>,
    /// The run hash.
    pub run: RunRecord,
    /// Who owns the migration: by the run hash, or by the mark, which outlives it.
    pub owner: Option<Owner>,
}

impl Survey {
    /// Who owns the migration, if it is not `me`.
    #[must_use]
    pub fn other_owner(&self, me: &Owner) -> Option<&Owner> {
        self.owner.as_ref().filter(|owner| owner.uid != me.uid)
    }
}

/// Looks at marks and run hash; writes nothing.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn survey(keyspace: &Keyspace, assignment: &Assignment) -> Result<Survey, Stop> {
    let mark = Mark::from_fields(&keyspace.hash(&assignment.mark_key()).await?);
    let not_applicable = match assignment.migration.is_applicable(&assignment.scope) {
        Applicability::Applicable => None,
        Applicability::NotApplicable(reason) => Some(reason),
    };
    let run = journal::read_run(keyspace, assignment).await?;
    Ok(Survey {
        owner: run.owner.clone().or(owner_by_mark(&mark)),
        predecessor_pending: predecessor_pending(keyspace, assignment).await?,
        mark,
        not_applicable,
        run,
    })
}

fn owner_by_mark(mark: &Mark) -> Option<Owner> {
    match mark {
        Mark::Stamped(stamp) => stamp.owner.clone().map(|(uid, resource)| Owner { uid, resource }),
        Mark::Absent | Mark::Unstamped | Mark::NotApplicable => None,
    }
}

async fn predecessor_pending(keyspace: &Keyspace, assignment: &Assignment) -> Result<Option<&'static str>, Stop> {
    let Some(predecessor) = assignment.registry.predecessor(assignment.migration.as_ref()) else { return Ok(None) };
    if matches!(predecessor.is_applicable(&assignment.scope), Applicability::NotApplicable(_)) {
        return Ok(None);
    }
    let fields = keyspace.hash(&assignment.state_keys().mark(predecessor.name())).await?;
    // Another tool's mark is enough here: it says that the application has moved on to the current keys.
    Ok(match Mark::from_fields(&fields) {
        Mark::Absent => Some(predecessor.name()),
        Mark::Unstamped | Mark::Stamped(_) | Mark::NotApplicable => None,
    })
}

/// Marks a migration that never applies to this keyspace, unless a mark stands already.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn mark_not_applicable(
    writer: &Writer,
    assignment: &Assignment,
    reason: &str,
    now: UnixMillis,
) -> Result<(), Stop> {
    let fields = [
        ("status", "not_applicable".to_owned()),
        ("reason", reason.to_owned()),
        ("checked_at", now.to_string()),
        ("tool_version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    writer.write_mark_if_absent(&assignment.mark_key(), &fields).await?;
    Ok(())
}
