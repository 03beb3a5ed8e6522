//! Verify: compares every source with its target by value, or looks for entries that an in-place migration would
//! still change. Before the mark this is the proof on which
//! the mark is written; after it, it counts what is diverged and writes nothing to entries.

use std::sync::Arc;

use crate::engine::apply::{Manner, Order, unless_conflicts, work_through};
use crate::engine::assignment::Assignment;
use crate::engine::classify::Source;
use crate::engine::control::{Advance, Control};
use crate::engine::disk;
use crate::engine::equality;
use crate::engine::huge;
use crate::engine::in_place::judge;
use crate::engine::journal::{self, Run};
use crate::engine::lost_expiry;
use crate::engine::pass::{self, Tally};
use crate::engine::settle::{OnDifference, Reopening, on_difference};
use crate::engine::sourceless;
use crate::engine::stop::{Stop, sources_gone};
use crate::engine::suppose::{Likely, Supposition};
use crate::keyspace::compare::Comparison;
use crate::keyspace::supposed::Spare;
use crate::keyspace::topology::Topology;
use crate::keyspace::{Fault, FaultClass, Keyspace, Writer};
use crate::migrations::state_keys::STAGING_PREFIX;
use crate::migrations::{InPlace, Rename, Rule};
use crate::model::acceptance::AcceptedFindings;
use crate::model::change;
use crate::model::count::Sample;
use crate::model::difference::Difference;
use crate::model::finding::{Finding, FindingCode};
use crate::model::key::RedisKey;
use crate::model::mapping::UnmigratedReason;
use crate::model::mark::{Mark, Stamp};
use crate::model::phase::Step;
use crate::model::plan::Plan;
use crate::model::policy::REPLICA_PATIENCE;
use crate::model::report::{ApplyReport, VerifyReport};
use crate::model::time::UnixMillis;

/// Passes that may each find and mend differences before sources count as changing.
const ROUNDS: usize = 3;

/// Proof that a complete comparison, in this hold of the lock, found every entry at its target and
/// that replicas hold it. Only [`prove`] makes one, and only [`mark`] takes one.
#[derive(Debug)]
pub struct Proof {
    report: VerifyReport,
    token: String,
    plan_hash: String,
    /// Whether something was written that later in-place migrations have not seen.
    has_written: bool,
    /// The primaries before the comparison: what it found is there as long as they lost nothing.
    before: Arc<Topology>,
}

impl Proof {
    /// What the comparison found.
    #[must_use]
    pub fn report(&self) -> &VerifyReport {
        &self.report
    }
}

/// Compares everything by value until a pass finds nothing to mend, then waits for replicas. A primary
/// that was replaced in between may have lost what was compared, so that pass does not count.
///
/// # Errors
/// [`Stop::SourceChanging`] when passes keep finding differences, [`Stop::SourcesGone`], [`Stop::Conflicts`],
/// [`Stop::ReplicasMissing`], [`FaultClass::Moved`] when slots keep changing hands, or what
/// kept a pass from being complete.
pub async fn prove(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    plan: &Plan,
    run: &Run,
) -> Result<Proof, Stop> {
    let on_difference = on_difference(run, assignment.conflict_policy, plan.seen.mark_is_unproven);
    let total = Some(plan.seen.total_sources());
    // What the run hash notes of it may be lost in the same failover as what later marks were told.
    let mut has_written = plan.seen.to_copy() > 0
        || (plan.seen.conflicts > 0 && on_difference == OnDifference::Replace)
        || journal::read_run(writer, assignment).await?.reopened;
    // What is changed in place goes through no later migration anew.
    let renames = matches!(assignment.rule(), Rule::Rename(_));
    let (mut changed, mut lost) = (0, 0);
    for _ in 0..ROUNDS {
        let before = learned_now(writer, control).await?;
        let meter = control.meter(Step::Verify, total);
        let reopening = Reopening::default();
        let manner = Manner { on_difference, order: Order::CompareFirst, reopening: &reopening };
        let report = work_through(writer, assignment, control, &meter, plan, manner).await?;
        let report = unless_conflicts(report, assignment.conflict_policy, plan.seen.mark_is_unproven)?;
        changed = report.written() + report.unsettled;
        // A look that did not count is not in the report, but what it wrote stands.
        has_written |= reopening.was_needed();
        // Behind another tool's mark targets are the truth, and what was deleted there is no business of sources.
        let is_run_of_ours = !plan.seen.mark_is_unproven;
        lost = if is_run_of_ours { report.lasting.sourceless().saturating_sub(run.sourceless_before) } else { 0 };
        if changed == 0 && lost > 0 && !assignment.terms.accepted.contains(FindingCode::SourcesGone) {
            refuse_lost_sources(writer, assignment, control, run).await?;
        } else if changed == 0 {
            wait_for_replicas(writer, assignment).await?;
            journal::seal(writer, assignment, run).await?;
            wait_for_replicas(writer, assignment).await?;
            if writer.lost_nothing_since(&before).await? {
                let plan_hash = plan.hash.to_string();
                let token = run.token.clone();
                let report = proven(report, lost, &assignment.terms.accepted);
                return Ok(Proof { report, token, plan_hash, has_written: has_written && renames, before });
            }
        }
    }
    Err(match (changed, lost) {
        (0, 0) => Fault::new(FaultClass::Moved).into(),
        (0, entries) => Stop::SourcesGone { entries, sample: Sample::default() },
        (changed, _) => Stop::SourceChanging { changed },
    })
}

/// What can't be learned now shows as a change afterwards.
async fn learned_now(writer: &Writer, control: &Control) -> Result<Arc<Topology>, Stop> {
    match control.unless_stopped(writer.relearn()).await? {
        Ok(now) => Ok(now),
        Err(_) => Ok(writer.topology().await),
    }
}

/// Looks once more, from targets to sources: what a comparison found on its way may have come and gone.
async fn refuse_lost_sources(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    run: &Run,
) -> Result<(), Stop> {
    let found = sourceless::find(writer, assignment, control, &control.meter(Step::Verify, None)).await?;
    match found.entries.saturating_sub(run.sourceless_before) {
        0 => Ok(()),
        entries => Err(Stop::SourcesGone { entries, sample: found.sample }),
    }
}

/// Writes the mark on the strength of a proof, then waits for replicas to hold it.
///
/// # Errors
/// [`Stop::RunLost`] if another run began meanwhile, or the mark was lost with a primary; [`FaultClass::Moved`] if a
/// primary was replaced since the comparison; whatever kept Redis from answering.
pub async fn mark(
    writer: &Writer,
    assignment: &Assignment,
    proof: Proof,
    now: UnixMillis,
) -> Result<VerifyReport, Stop> {
    if proof.has_written {
        keep_reopened(writer, assignment).await?;
    }

    let mark = assignment.mark_key();
    let applied_at = match Mark::from_fields(&writer.hash(&mark).await?) {
        // Done again: it was applied when it was applied.
        Mark::Stamped(stamp) => stamp.applied_at.unwrap_or(now),
        Mark::Absent | Mark::Unstamped | Mark::NotApplicable => now,
    };
    let mut fields = vec![("status", "applied".to_owned()), ("applied_at", applied_at.to_string())];
    fields.extend(journal::stamp(assignment, &proof.plan_hash, now));
    fields.extend([disk::server_clocks(writer).await?, keys_apart(&proof.report)]);
    fields.extend(journal::owner_fields(writer, assignment).await?);
    // The clocks were waited for, and a primary that comes back may have lost what was compared.
    if !writer.lost_nothing_since(&proof.before).await? {
        return Err(Fault::new(FaultClass::Moved).into());
    }

    // A refusal may follow an answer that got lost: our own success.
    writer.write_mark(&mark, &assignment.run_key(), &proof.token, &fields).await?;
    if !stands(writer, &mark, &fields).await? {
        return Err(Stop::RunLost);
    }
    wait_for_replicas(writer, assignment).await?;
    // Had the mark's primary been replaced before it was acknowledged, the mark would be gone.
    if stands(writer, &mark, &fields).await? { Ok(proof.report) } else { Err(Stop::RunLost) }
}

/// Later migrations have not seen what was copied, whatever their marks say: a failover may have brought back a stamp
/// that was taken off before the copy, so they are read again until replicas hold marks without any.
pub(super) async fn keep_reopened(writer: &Writer, assignment: &Assignment) -> Result<(), Stop> {
    for _ in 0..ROUNDS {
        if !journal::reopen_successors(writer, assignment).await? {
            return Ok(());
        }
        wait_for_replicas(writer, assignment).await?;
    }
    Err(Fault::new(FaultClass::Moved).into())
}

/// The field of a mark that tells cleanup whether any original has to stay for what lies under it.
fn keys_apart(report: &VerifyReport) -> (&'static str, String) {
    let count = report.unmigrated.by_reason.get(&UnmigratedReason::BracedTenant).copied().unwrap_or(0);
    (Stamp::KEYS_APART, count.to_string())
}

async fn stands(writer: &Writer, mark: &RedisKey, fields: &[(&str, String)]) -> Result<bool, Stop> {
    let written = writer.hash(mark).await?;
    let is_ours =
        |(name, value): &(&str, String)| written.get(name.as_bytes()).is_some_and(|it| it == value.as_bytes());
    Ok(fields.iter().all(is_ours))
}

/// Compares everything by value and counts; writes nothing.
///
/// # Errors
/// What kept the pass from being complete.
pub async fn compare(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    total: Option<u64>,
) -> Result<VerifyReport, Stop> {
    let meter = control.meter(Step::Verify, total);
    pass::complete(keyspace, &assignment.prefixes(), control, &meter, |keys| {
        compare_batch(keyspace, assignment, control, keys)
    })
    .await
}

/// Proves another tool's mark by one complete comparison, and stamps it if every entry was migrated: if what it
/// returns tells of no unapplied entry, the mark is stamped. What differs otherwise is part of the answer. Expiries that
/// the other tool dropped are put back before, where a person accepted that.
///
/// # Errors
/// [`Stop::RunLost`] if the mark does not stand any more, [`FaultClass::Moved`] when slots keep changing hands,
/// or what kept the pass from being complete.
pub async fn prove_mark(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    plan_hash: &str,
    sources_known: Option<u64>,
    now: UnixMillis,
) -> Result<VerifyReport, Stop> {
    let expiries_put_back = lost_expiry::put_back_if_accepted(writer, assignment, control).await?;

    for _ in 0..ROUNDS {
        let before = learned_now(writer, control).await?;
        let compared = compare(writer, assignment, control, sources_known).await?;
        let report = VerifyReport { expiries_put_back, ..compared };
        if report.unapplied > 0 {
            return Ok(report);
        }
        wait_for_replicas(writer, assignment).await?;
        let mut stamp = journal::stamp(assignment, plan_hash, now);
        stamp.extend([disk::server_clocks(writer).await?, keys_apart(&report)]);
        // Both wait for a primary that is away, and one that comes back may have lost what was compared.
        if writer.lost_nothing_since(&before).await? {
            if !writer.stamp_mark(&assignment.mark_key(), &stamp).await? {
                return Err(Stop::RunLost);
            }
            wait_for_replicas(writer, assignment).await?;
            return Ok(report);
        }
    }
    Err(Fault::new(FaultClass::Moved).into())
}

pub(super) async fn wait_for_replicas(writer: &Writer, assignment: &Assignment) -> Result<(), Stop> {
    let short = writer.wait_for_replicas(assignment.min_replicas, REPLICA_PATIENCE, STAGING_PREFIX).await?;
    if short.is_empty() { Ok(()) } else { Err(Stop::ReplicasMissing(short)) }
}

impl Tally for VerifyReport {
    fn merge(&mut self, other: Self) {
        self.merge(other);
    }

    fn advance(&self) -> Advance {
        Advance { processed: self.processed(), skipped: 0, conflicts: self.different }
    }
}

/// Compares one batch and counts.
pub(super) async fn compare_batch(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    keys: Vec<RedisKey>,
) -> Result<VerifyReport, Stop> {
    match assignment.rule() {
        Rule::Rename(rename) => compare_targets(keyspace, assignment, control, rename, keys).await,
        Rule::InPlace(in_place) => compare_forms(keyspace, assignment, control, in_place, keys).await,
    }
}

async fn compare_targets(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    rename: &dyn Rename,
    keys: Vec<RedisKey>,
) -> Result<VerifyReport, Stop> {
    let mut report = VerifyReport::default();
    let (mut supposition, sources) = Supposition::of(keyspace, assignment, rename, control, keys).await?;
    let supposed: Vec<_> = sources.iter().map(Likely::supposed).collect();
    let compared = keyspace.compare_supposed(&supposed, Spare::Heavy).await?;
    for (likely, comparison) in sources.into_iter().zip(compared) {
        match comparison {
            Some(Comparison::Equal { .. }) => report.equal += 1,
            Some(Comparison::SourceGone) => report.ended += 1,
            Some(Comparison::TargetMissing | Comparison::Different { .. }) | None => supposition.leave(likely),
        }
    }
    let classified = supposition.rest().await?;
    let pairs: Vec<_> = classified.sources.iter().map(Source::pair).collect();
    for (key, reason) in classified.unmigrated {
        report.unmigrated.count(key, reason);
    }
    for ((source, target), comparison) in pairs.iter().zip(huge::compare(keyspace, assignment, &pairs).await?) {
        if let Comparison::Different { source: original, target: found } = &comparison {
            report.lost_expiry += u64::from(equality::has_lost_expiry(assignment, original, target, found));
        }
        match (equality::difference(assignment, target, &comparison), comparison) {
            (Some(difference), _) => {
                report.different += 1;
                if difference == Difference::Missing {
                    report.unapplied += 1;
                    report.unapplied_sample.offer(source.clone());
                }
                report.sample.offer((source.clone(), difference));
            }
            (None, Comparison::SourceGone) => report.ended += 1,
            (None, _) => report.equal += 1,
        }
    }
    Ok(report)
}

/// An entry is as it should be if the migration would change nothing any more.
async fn compare_forms(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    in_place: &dyn InPlace,
    keys: Vec<RedisKey>,
) -> Result<VerifyReport, Stop> {
    let judged = judge(keyspace, assignment, in_place, keys).await?;
    control.pace(judged.to_change.len() + judged.current.len()).await?;
    let mut report = VerifyReport { equal: judged.current.len() as u64, ..VerifyReport::default() };
    for (key, fields, _) in judged.to_change {
        report.different += 1;
        report.unapplied += 1;
        report.unapplied_sample.offer(key.clone());
        report.sample.offer((key, Difference::Unchanged(change::names(&fields))));
    }
    for (key, reason) in judged.unmigrated {
        report.unmigrated.count(key, reason);
    }
    Ok(report)
}

/// A pass that wrote nothing compared everything; what it kept differs by decision, and what lost its source was accepted.
fn proven(report: ApplyReport, lost: u64, accepted: &AcceptedFindings) -> VerifyReport {
    let mut findings = match lost {
        0 => Vec::new(),
        entries => vec![Finding::error(FindingCode::SourcesGone, sources_gone(entries))],
    };
    accepted.mark(&mut findings);
    VerifyReport {
        equal: report.already_migrated,
        different: report.conflicts,
        lost_expiry: report.lost_expiry,
        ended: report.ended,
        unmigrated: report.unmigrated,
        findings,
        ..VerifyReport::default()
    }
}
