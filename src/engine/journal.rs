//! A run's own state in Redis: its token, how it began, who owns the migration.
//!
//! Owns the fields of the run hash and of our stamp on the mark.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::assignment::Assignment;
use crate::engine::lock::Lease;
use crate::engine::stop::Stop;
use crate::keyspace::{Keyspace, Writer};
use crate::migrations::Rule;
use crate::model::mark::Mark;
use crate::model::plan::Seen;
use crate::model::time::UnixMillis;

/// How long a run hash outlives the last write of its run. Within it, a run that began over no target
/// may refresh its own copies; after it, they count as somebody's.
pub const RUN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Who owns a migration of a keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The resource's UID.
    pub uid: String,
    /// Its namespace and name.
    pub resource: String,
}

/// What the run hash says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRecord {
    /// Targets that existed when the run began; absent if no run is under way.
    pub targets_before: Option<u64>,
    /// Keys in current form without a source that never expire, when the run began; absent in runs of older versions.
    pub sourceless_before: Option<u64>,
    /// Whether it has written what later migrations have not seen.
    pub reopened: bool,
    /// Parameters under which it began.
    pub parameters: Option<String>,
    /// Who owns the migration.
    pub owner: Option<Owner>,
}

impl RunRecord {
    /// Targets that existed when a run under these parameters began, if one is under way.
    fn targets_before(&self, assignment: &Assignment) -> Option<u64> {
        let is_same = self.parameters.as_ref() == Some(&assignment.terms.parameters);
        self.targets_before.filter(|_| is_same)
    }

    /// Whether a run is under way that found no target when it began.
    #[must_use]
    pub fn began_over_nothing(&self, assignment: &Assignment) -> bool {
        self.targets_before(assignment) == Some(0)
    }
}

/// A run under way, in this hold of the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The token on which the mark depends.
    pub token: String,
    /// Targets that existed when the run began.
    pub targets_before: u64,
    /// Keys in current form without a source that never expire, when the run began.
    pub sourceless_before: u64,
}

impl Run {
    /// Whether a target that differs can only be a stale copy of our own.
    #[must_use]
    pub fn may_refresh(&self) -> bool {
        self.targets_before == 0
    }
}

/// Reads the run hash.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn read_run(keyspace: &Keyspace, assignment: &Assignment) -> Result<RunRecord, Stop> {
    let fields = keyspace.hash(&assignment.run_key()).await?;
    Ok(parse_run(&fields))
}

fn parse_run(fields: &BTreeMap<Vec<u8>, Vec<u8>>) -> RunRecord {
    let text = |name: &str| fields.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
    let count = |name: &str| text(name).and_then(|count| count.parse().ok());
    let owner = match (text("owner_uid"), text("owner")) {
        (Some(uid), Some(resource)) => Some(Owner { uid, resource }),
        _ => None,
    };
    RunRecord {
        targets_before: count("targets_before"),
        sourceless_before: count("sourceless_before"),
        reopened: text("reopened").is_some(),
        parameters: text("parameters"),
        owner,
    }
}

/// Writes the owner into the run hash, under the lock. An earlier holder's token goes: its mark, were it
/// still on its way, is refused from now on.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn claim(writer: &Writer, assignment: &Assignment, owner: &Owner, mark: &Mark) -> Result<(), Stop> {
    let fields = [("owner_uid", owner.uid.clone()), ("owner", owner.resource.clone())];
    writer.claim_run(&assignment.run_key(), RUN_LIFE, &fields).await?;
    // The run hash ends by itself; while originals soak, the mark remembers whose they are.
    match mark {
        Mark::Stamped(_) => writer.stamp_mark(&assignment.mark_key(), &fields).await.map(|_| ()).map_err(Stop::from),
        Mark::Absent | Mark::Unstamped | Mark::NotApplicable => Ok(()),
    }
}

/// The owner's fields for the mark, if the run has an owner.
pub(super) async fn owner_fields(
    keyspace: &Keyspace,
    assignment: &Assignment,
) -> Result<Vec<(&'static str, String)>, Stop> {
    let owner = read_run(keyspace, assignment).await?.owner;
    Ok(owner.map(|owner| vec![("owner_uid", owner.uid), ("owner", owner.resource)]).unwrap_or_default())
}

/// Keeps the run hash alive as long as the lock is held: a run may take longer than the hash would last.
pub fn keep_alive(lease: &Lease, assignment: &Assignment) {
    lease.keep_alive(assignment.run_key(), RUN_LIFE);
}

/// Seals a run before its mark is written: from now on its targets count as somebody's. Were the mark lost
/// after the application began to live on them, no later run would take them for stale copies of its own.
pub(super) async fn seal(writer: &Writer, assignment: &Assignment, run: &Run) -> Result<(), Stop> {
    let sealed = [("targets_before", run.targets_before.max(1).to_string())];
    Ok(writer.write_run(&assignment.run_key(), RUN_LIFE, &sealed).await?)
}

/// Takes the stamps off the marks of later in-place migrations: what is copied now has not gone through them. Returns
/// whether there was any.
///
/// # Errors
/// Whatever kept Redis from answering.
pub(super) async fn reopen_successors(writer: &Writer, assignment: &Assignment) -> Result<bool, Stop> {
    let mut any = false;
    for later in assignment.registry.successors(assignment.migration.as_ref()) {
        match later.rule() {
            Rule::InPlace(_) => any |= writer.unstamp_mark(&assignment.state_keys().mark(later.name())).await?,
            Rule::Rename(_) => {}
        }
    }
    Ok(any)
}

/// Notes in the run hash that this run writes what later migrations have not seen.
pub(super) async fn note_reopening(writer: &Writer, assignment: &Assignment) -> Result<(), Stop> {
    let noted = [("reopened", "true".to_owned())];
    Ok(writer.write_run(&assignment.run_key(), RUN_LIFE, &noted).await?)
}

/// Begins a run over what a plan saw, or takes up the one under way if it was begun under the same parameters.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn begin_run(
    writer: &Writer,
    assignment: &Assignment,
    token: &str,
    seen: &Seen,
    now: UnixMillis,
) -> Result<Run, Stop> {
    let record = read_run(writer, assignment).await?;
    let under_way = record.targets_before(assignment);
    let targets_before = under_way.unwrap_or(seen.targets_before());
    let sourceless_before = under_way.and(record.sourceless_before).unwrap_or(seen.lasting.sourceless());

    let fields = [
        ("token", token.to_owned()),
        ("started_at", now.to_string()),
        ("targets_before", targets_before.to_string()),
        ("sourceless_before", sourceless_before.to_string()),
        ("parameters", assignment.terms.parameters.clone()),
    ];
    writer.write_run(&assignment.run_key(), RUN_LIFE, &fields).await?;
    Ok(Run { token: token.to_owned(), targets_before, sourceless_before })
}

/// The stamp that a proven migration's mark carries.
pub(super) fn stamp(assignment: &Assignment, plan_hash: &str, now: UnixMillis) -> Vec<(&'static str, String)> {
    vec![
        ("verified_at", now.to_string()),
        ("parameters", assignment.terms.parameters.clone()),
        ("plan_hash", plan_hash.to_owned()),
        tool_version(),
    ]
}

/// Which version wrote a mark.
pub(super) fn tool_version() -> (&'static str, String) {
    ("tool_version", env!("CARGO_PKG_VERSION").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_alone_is_no_run() {
        let fields = BTreeMap::from([(b"owner_uid".to_vec(), b"u".to_vec()), (b"owner".to_vec(), b"ns/name".to_vec())]);
        let record = parse_run(&fields);
        assert_eq!(record.targets_before, None);
        assert_eq!(record.owner, Some(Owner { uid: "u".into(), resource: "ns/name".into() }));
        assert_eq!(parse_run(&BTreeMap::new()), RunRecord::default());
    }
}
