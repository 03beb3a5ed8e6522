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
use crate::keyspace::{Keyspace, Writer};
use crate::migrations::Rule;
use crate::migrations::state_keys::STAGING_PREFIX;
use crate::model::durability::{self, Disk, DiskFacts};
use crate::model::estimate::Estimate;
use crate::model::finding::{Finding, Severity};
use crate::model::mark::Stamp;

/// How often a primary is asked while it is waited for.
const LOOK: Duration = Duration::from_millis(500);

/// A snapshot that is asked for sooner after what it must hold could not be told from one that began before.
const APART_SECONDS: i64 = 2;

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
    let mut findings = expected(keyspace, assignment, |_| i64::MAX, needed).await?;
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
    let since = |facts: &DiskFacts| since(stamp, facts);
    let mut findings = expected(keyspace, assignment, since, &BTreeMap::new()).await?;
    assignment.terms.accepted.mark(&mut findings);
    Ok(findings)
}

async fn expected(
    keyspace: &Keyspace,
    assignment: &Assignment,
    since: impl Fn(&DiskFacts) -> i64,
    needed: &BTreeMap<NodeAddress, Estimate>,
) -> Result<Vec<Finding>, Stop> {
    let mut findings = Vec::new();
    for primary in alone(assignment, &*keyspace.topology().await) {
        let mut facts = keyspace.disk_facts(primary).await?;
        // The copies, or the barrier at least, are changes too.
        let to_come = needed.get(&primary.address).map_or(0, Estimate::count);
        facts.changes = facts.changes.saturating_add(to_come).max(1);
        if facts.append_only && !facts.append_failing {
            // Synced within a second or two: nothing that anybody has to know before.
            continue;
        }
        findings.extend(durability::finding(&facts.node, &facts.judge(since(&facts), None, assignment.terms.save)));
    }
    Ok(findings)
}

/// Waits until what the mark proves is on the disk of each primary that no replica acknowledges. Returns what was
/// found and does not block.
///
/// # Errors
/// [`Stop::PreflightFailed`] where it won't come, or can't be known, and nobody accepted that.
pub(super) async fn wait_until_on_disk(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    stamp: &Stamp,
) -> Result<Vec<Finding>, Stop> {
    let mut findings = Vec::new();
    for primary in alone(assignment, &*writer.topology().await) {
        let waited = wait_for(writer, assignment, control, stamp, primary).await;
        control.waits_for(None);
        findings.extend(waited?);
    }
    Ok(findings)
}

async fn wait_for(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    stamp: &Stamp,
    primary: &Primary,
) -> Result<Option<Finding>, Stop> {
    let facts = writer.disk_facts(primary).await?;
    let since = since(stamp, &facts);

    let (mut idle_since, mut was_asked, mut has_trace) = (None, false, false);
    loop {
        control.check()?;
        let facts = writer.disk_facts(primary).await?;
        if !facts.sync_pending && !facts.rewriting {
            idle_since = idle_since.or(facts.clock);
        }
        let was_refused = was_asked && facts.snapshot_failing && !facts.snapshot_running;
        let may_ask = assignment.terms.save && !was_refused;
        match facts.judge(since, idle_since, may_ask) {
            Disk::Holds => return Ok(None),
            Disk::WillHold(what) => {
                has_trace = false;
                control.waits_for(Some(&what));
                let is_apart = facts.clock.is_some_and(|clock| clock / 1000 > since.saturating_add(APART_SECONDS));
                if may_ask && is_apart && !facts.append_only && !facts.snapshot_running {
                    writer.ask_for_snapshot(primary).await?;
                    was_asked = true;
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

/// From which second of its clock on a primary's snapshot holds the targets: when they were proven, if this run of the
/// server owned the same slots then; else only from now on.
fn since(stamp: &Stamp, facts: &DiskFacts) -> i64 {
    let now = facts.clock.map_or(i64::MAX, |clock| clock / 1000 + 1);
    stamp.server_clocks.get(&facts.incarnation).copied().unwrap_or(now)
}

/// Returns the field of a mark that tells when, by each primary's own clock, everything was in its memory.
///
/// # Errors
/// Whatever kept a primary from answering.
pub(super) async fn server_clocks(keyspace: &Keyspace) -> Result<(&'static str, String), Stop> {
    let clocks = keyspace.clocks().await?;
    let text: Vec<String> = clocks.iter().map(|(incarnation, second)| format!("{incarnation}={second}")).collect();
    Ok((Stamp::SERVER_CLOCKS, text.join(" ")))
}
