//! Verify: compares every source with its target by value. Before the mark this is the proof on which
//! the mark is written; after it, it counts what is diverged and writes nothing to entries.

use crate::engine::apply::unless_conflicts;
use crate::engine::assignment::Assignment;
use crate::engine::classify::{Source, classify};
use crate::engine::control::{Advance, Control};
use crate::engine::journal::{self, Run};
use crate::engine::pass::{self, Tally};
use crate::engine::settle::{Settler, on_difference};
use crate::engine::stop::Stop;
use crate::keyspace::compare::Comparison;
use crate::keyspace::{Fault, FaultClass, Keyspace, Writer};
use crate::migrations::state_keys::STAGING_PREFIX;
use crate::model::key::RedisKey;
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
/// [`Stop::SourceChanging`] when passes keep finding differences, [`Stop::Conflicts`],
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
    let settler = Settler { writer, assignment, control, on_difference };
    let mut changed = 0;
    for _ in 0..ROUNDS {
        // What can't be learned now shows as a change afterwards.
        let before = match writer.relearn().await {
            Ok(now) => now,
            Err(_) => writer.topology().await,
        };
        let meter = control.meter(Step::Verify, Some(plan.seen.total_sources()));
        let report: ApplyReport =
            pass::complete(writer, assignment, control, &meter, |keys| settler.compare_first(keys)).await?;
        let report = unless_conflicts(report, assignment.conflict_policy, plan.seen.mark_is_unproven)?;
        changed = report.written();
        if changed == 0 {
            wait_for_replicas(writer, assignment).await?;
            journal::seal(writer, assignment, run).await?;
            wait_for_replicas(writer, assignment).await?;
            if before.lost_nothing_until(&*writer.topology().await) {
                let plan_hash = plan.hash.to_string();
                return Ok(Proof { report: proven(report), token: run.token.clone(), plan_hash });
            }
        }
    }
    Err(match changed {
        0 => Fault::new(FaultClass::Moved).into(),
        changed => Stop::SourceChanging { changed },
    })
}

/// Writes the mark on the strength of a proof, then waits for replicas to hold it.
///
/// # Errors
/// [`Stop::RunLost`] if another run began meanwhile, or the mark was lost with a primary; whatever kept
/// Redis from answering.
pub async fn mark(
    writer: &Writer,
    assignment: &Assignment,
    proof: Proof,
    now: UnixMillis,
) -> Result<VerifyReport, Stop> {
    let mut fields = vec![("status", "applied".to_owned()), ("applied_at", now.to_string())];
    fields.extend(journal::stamp(assignment, &proof.plan_hash, now));
    fields.extend(journal::owner_fields(writer, assignment).await?);
    let mark = assignment.mark_key();
    // A refusal may follow an answer that got lost: our own success.
    writer.write_mark(&mark, &assignment.run_key(), &proof.token, &fields).await?;
    if !stands(writer, &mark, &fields).await? {
        return Err(Stop::RunLost);
    }
    wait_for_replicas(writer, assignment).await?;
    // Had the mark's primary been replaced before it was acknowledged, the mark would be gone.
    if stands(writer, &mark, &fields).await? { Ok(proof.report) } else { Err(Stop::RunLost) }
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
    pass::complete(keyspace, assignment, control, &meter, |keys| compare_batch(keyspace, assignment, control, keys))
        .await
}

/// Stamps another tool's mark after a complete pass found no source without a target.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn stamp(writer: &Writer, assignment: &Assignment, plan: &Plan, now: UnixMillis) -> Result<(), Stop> {
    wait_for_replicas(writer, assignment).await?;
    writer.stamp_mark(&assignment.mark_key(), &journal::stamp(assignment, plan.hash.as_str(), now)).await?;
    Ok(())
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

async fn compare_batch(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    keys: Vec<RedisKey>,
) -> Result<VerifyReport, Stop> {
    let classified = classify(keyspace, assignment, keys).await?;
    control.pace(classified.sources.len()).await?;
    let pairs: Vec<_> = classified.sources.iter().map(Source::pair).collect();
    let mut report = VerifyReport::default();
    for (key, reason) in classified.unmigrated {
        report.unmigrated.count(key, reason);
    }
    for ((source, _), comparison) in pairs.iter().zip(keyspace.compare(&pairs).await?) {
        match (comparison.difference(), comparison) {
            (Some(difference), _) => {
                report.different += 1;
                report.sample.offer((source.clone(), difference));
            }
            (None, Comparison::Equal) => report.equal += 1,
            (None, _) => report.ended += 1,
        }
    }
    Ok(report)
}

/// A pass that wrote nothing compared everything; what it kept differs by decision.
fn proven(report: ApplyReport) -> VerifyReport {
    VerifyReport {
        equal: report.already_migrated,
        different: report.conflicts,
        ended: report.ended,
        unmigrated: report.unmigrated,
        ..VerifyReport::default()
    }
}
