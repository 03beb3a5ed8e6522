//! Sees to it that targets are on disk before their originals go, where no replica acknowledges them.
//!
//! Owns the waiting, and from when on a snapshot counts. Starts a snapshot only when it was asked for: a fork takes
//! memory, and at its limit Redis may be killed for it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::assignment::Assignment;
use crate::engine::control::Control;
use crate::engine::stop::Stop;
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::topology::{Primary, Topology};
use crate::keyspace::{Fault, FaultClass, Keyspace, Writer};
use crate::migrations::Rule;
use crate::migrations::state_keys::STAGING_PREFIX;
use crate::model::durability::{self, Disk, DiskFacts, Moment, Wait};
use crate::model::estimate::Estimate;
use crate::model::finding::{Finding, Severity};
use crate::model::mark::{Mark, Stamp};

/// How often a primary is asked while it is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// Returns what cleanup will find, before anything is copied. Nothing of it blocks apply.
pub(super) async fn foreseen(
    keyspace: &Keyspace,
    assignment: &Assignment,
    needed: &BTreeMap<NodeAddress, Estimate>,
) -> Result<Vec<Finding>, Stop> {
    match assignment.rule() {
        Rule::Rename(_) => {}
        // It leaves no originals.
        Rule::InPlace(_) => return Ok(Vec::new()),
    }
    let mut findings = expected(keyspace, assignment, |_| Moment::AHEAD, needed).await?;
    for finding in &mut findings {
        finding.severity = finding.severity.min(Severity::Warning);
    }
    Ok(findings)
}

/// Returns what cleanup will find now, by the mark of what it is to clean up.
pub(super) async fn findings(
    keyspace: &Keyspace,
    assignment: &Assignment,
    stamp: &Stamp,
) -> Result<Vec<Finding>, Stop> {
    let since = |facts: &DiskFacts| since(&stamp.server_clocks, facts);
    let mut findings = expected(keyspace, assignment, since, &BTreeMap::new()).await?;
    assignment.terms.accepted.mark(&mut findings);
    Ok(findings)
}

async fn expected(
    keyspace: &Keyspace,
    assignment: &Assignment,
    since: impl Fn(&DiskFacts) -> Moment,
    needed: &BTreeMap<NodeAddress, Estimate>,
) -> Result<Vec<Finding>, Stop> {
    let mut findings = Vec::new();
    for primary in alone(assignment, &*keyspace.topology().await) {
        let mut facts = keyspace.disk_facts(primary).await?;
        // The copies, or the barrier at least, are changes too.
        let to_come = needed.get(&primary.address).map_or(0, Estimate::count);
        facts.changes = facts.changes.saturating_add(to_come).max(1);
        if facts.append_only && facts.append_only_flaw().is_none() {
            // Synced within a second or two, as far as is told: nothing that anybody has to know before.
            continue;
        }
        let wait = Wait::new(since(&facts), assignment.terms.save);
        findings.extend(durability::finding(&facts.node, &facts.judge(&wait)));
    }
    Ok(findings)
}

/// Waits until what the mark proves is on the disk of each primary that no replica acknowledges. Returns what was
/// found and does not block. `clocks` are those of the mark; where one is missing, it is noted there first, so that
/// neither a disturbance nor another attempt begins to wait anew.
///
/// # Errors
/// [`Stop::PreflightFailed`] where it won't come, or can't be known, and nobody accepted that.
pub(super) async fn wait_until_on_disk(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    clocks: &mut Clocks,
) -> Result<Vec<Finding>, Stop> {
    let topology = writer.topology().await;
    if alone(assignment, &topology).next().is_some() {
        note_clocks(writer, assignment, clocks).await?;
    }

    let mut findings = Vec::new();
    for primary in alone(assignment, &topology) {
        let waited = wait_for(writer, assignment, control, clocks, primary).await;
        control.waits_for(None);
        findings.extend(waited?);
    }
    Ok(findings)
}

/// Adds the present moment of each primary of which the mark tells none: it is another run of it, it owns other slots,
/// or the mark is of an earlier version.
async fn note_clocks(writer: &Writer, assignment: &Assignment, clocks: &mut Clocks) -> Result<(), Stop> {
    let now: Clocks = writer.moments().await?.into_iter().collect();
    if now.keys().all(|incarnation| clocks.contains_key(incarnation)) {
        return Ok(());
    }

    // Of primaries that are no more none comes back.
    clocks.retain(|incarnation, _| now.contains_key(incarnation));
    for (incarnation, moment) in now {
        clocks.entry(incarnation).or_insert(moment);
    }
    writer.stamp_mark(&assignment.mark_key(), &[field(clocks)]).await?;
    Ok(())
}

async fn wait_for(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    clocks: &Clocks,
    primary: &Primary,
) -> Result<Option<Finding>, Stop> {
    let first = writer.disk_facts(primary).await?;
    let mut wait = Wait::new(since(clocks, &first), assignment.terms.save);
    let (mut has_trace, mut tells_synced) = (false, true);
    loop {
        control.check()?;
        let facts = writer.disk_facts(primary).await?;
        if facts.incarnation != first.incarnation {
            // What another run of the server says, it says of another memory.
            return Err(Fault::of(FaultClass::Moved, &primary.address).into());
        }

        wait.note(&facts);
        if tells_synced && facts.append_only && !facts.append_failing && !facts.rewriting {
            match writer.wait_for_append_only_file(primary, LOOK, STAGING_PREFIX).await? {
                Some(true) => return Ok(None),
                Some(false) => {}
                None => tells_synced = false,
            }
        }

        match facts.judge(&wait) {
            Disk::Holds => return Ok(None),
            Disk::WillHold(what) => {
                has_trace = false;
                control.waits_for(Some(&what));
                if facts.is_to_be_asked(&wait) {
                    writer.ask_for_snapshot(primary).await?;
                    wait.asks += 1;
                }
                control.pause(LOOK).await?;
            }
            // A server to which nothing happens takes no snapshot; one that came too early left nothing to save.
            Disk::Unsure(_) if facts.changes == 0 && !facts.append_only && !has_trace => {
                writer.leave_a_trace(primary, STAGING_PREFIX).await?;
                has_trace = true;
            }
            disk @ (Disk::Unsure(_) | Disk::Volatile) => return unless_it_blocks(assignment, &facts, &disk),
        }
    }
}

fn unless_it_blocks(assignment: &Assignment, facts: &DiskFacts, disk: &Disk) -> Result<Option<Finding>, Stop> {
    let mut findings: Vec<Finding> = durability::finding(&facts.node, disk).into_iter().collect();
    assignment.terms.accepted.mark(&mut findings);
    if findings.iter().any(Finding::blocks) { Err(Stop::PreflightFailed(findings)) } else { Ok(findings.pop()) }
}

/// The primaries whose targets no replica acknowledges, of several. One alone needs no look: there copies come before
/// deletes in one history, and whatever a restart or a replica brings back is a beginning of it, with the original or
/// with its target.
fn alone<'a>(assignment: &'a Assignment, topology: &'a Topology) -> impl Iterator<Item = &'a Primary> {
    let is_one_history = topology.primaries.len() == 1 && topology.bystanders.is_empty();
    let unacknowledged = |primary: &&Primary| assignment.min_replicas.required(primary.replicas) == 0;
    topology.primaries.iter().filter(move |primary| !is_one_history && unacknowledged(primary))
}

/// From when on a primary's snapshot holds the targets: when they were proven, if this run of the server owned the same
/// slots then; else only from now on.
fn since(clocks: &Clocks, facts: &DiskFacts) -> Moment {
    clocks.get(&facts.incarnation).copied().or(facts.moment()).unwrap_or(Moment::AHEAD)
}

/// When each primary held everything, by what tells that run of it from others.
pub(super) type Clocks = BTreeMap<String, Moment>;

/// Returns the field of a mark that tells when, by each primary's own clock, everything was in its memory.
///
/// # Errors
/// Whatever kept a primary from answering.
pub(super) async fn server_clocks(keyspace: &Keyspace) -> Result<(&'static str, String), Stop> {
    Ok(field(&keyspace.moments().await?.into_iter().collect()))
}

fn field(clocks: &Clocks) -> (&'static str, String) {
    let text: Vec<String> = clocks.iter().map(|(incarnation, moment)| format!("{incarnation}={moment}")).collect();
    (Stamp::SERVER_CLOCKS, text.join(" "))
}

/// Takes the clocks off a mark, since targets are about to be written behind it that no snapshot since then may hold.
///
/// # Errors
/// Whatever kept Redis from answering.
pub(super) async fn forget_clocks(writer: &Writer, assignment: &Assignment) -> Result<(), Stop> {
    let key = assignment.mark_key();
    match Mark::from_fields(&writer.hash(&key).await?) {
        Mark::Stamped(stamp) if !stamp.server_clocks.is_empty() => {
            writer.stamp_mark(&key, &[field(&Clocks::new())]).await?;
        }
        Mark::Stamped(_) | Mark::Absent | Mark::Unstamped | Mark::NotApplicable => {}
    }
    Ok(())
}
