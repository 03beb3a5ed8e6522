//! Deals with the huge entries of a batch: too big for one piece, so they are copied, compared and removed one
//! after another, in pieces.
//!
//! Owns their split from ordinary entries and the decisions about them, which are the same as for those.

use crate::engine::apply::Order;
use crate::engine::assignment::Assignment;
use crate::engine::control::Control;
use crate::engine::equality;
use crate::engine::settle::{OnDifference, Settler};
use crate::engine::stop::Stop;
use crate::keyspace::compare::Comparison;
use crate::keyspace::copy::Copied;
use crate::keyspace::pieces::HUGE_BYTES;
use crate::keyspace::staging::{Over, Staged};
use crate::keyspace::{Fault, FaultClass, Keyspace, Writer};
use crate::model::entry::{Expiry, Value};
use crate::model::finding::{Finding, FindingCode};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answer, Probe};
use crate::model::policy::DivergedPolicy;
use crate::model::report::ApplyReport;

type Pair = (RedisKey, RedisKey);

/// Times that one entry is looked at anew because it changed in our hands.
const ATTEMPTS: usize = 3;

/// Ordinary pairs, then those of which either side is huge. What can't be read in pieces counts as ordinary: plan
/// refuses to copy it if it is huge.
pub(super) async fn split(keyspace: &Keyspace, pairs: Vec<Pair>) -> Result<(Vec<Pair>, Vec<Pair>), Fault> {
    let keys: Vec<RedisKey> = pairs.iter().flat_map(|(source, target)| [source.clone(), target.clone()]).collect();
    let sizes = keyspace.memory_usage(&keys).await?;
    let (mut ordinary, mut huge) = (Vec::new(), Vec::new());
    for (pair, sizes) in pairs.into_iter().zip(sizes.chunks(2)) {
        let is_huge = sizes.iter().any(|&bytes| bytes > HUGE_BYTES) && keyspace.is_divisible(&pair.0).await?;
        if is_huge { huge.push(pair) } else { ordinary.push(pair) }
    }
    Ok((ordinary, huge))
}

/// As [`split`], where there is any huge entry.
pub(super) async fn split_if(
    has_huge: bool,
    keyspace: &Keyspace,
    pairs: Vec<Pair>,
) -> Result<(Vec<Pair>, Vec<Pair>), Fault> {
    if has_huge { split(keyspace, pairs).await } else { Ok((pairs, Vec::new())) }
}

/// Compares pairs of any size, in their order; where none is huge, without asking for sizes.
pub(super) async fn compare_any(
    has_huge: bool,
    keyspace: &Keyspace,
    assignment: &Assignment,
    pairs: &[Pair],
) -> Result<Vec<Comparison>, Fault> {
    if has_huge {
        compare(keyspace, assignment, pairs).await
    } else {
        equality::compare(keyspace, assignment, pairs).await
    }
}

/// Compares pairs of any size, in their order.
pub(super) async fn compare(
    keyspace: &Keyspace,
    assignment: &Assignment,
    pairs: &[Pair],
) -> Result<Vec<Comparison>, Fault> {
    let (ordinary, huge) = split(keyspace, pairs.to_vec()).await?;
    let mut compared = equality::compare(keyspace, assignment, &ordinary).await?.into_iter();
    let mut huge = huge.into_iter().peekable();
    let mut results = Vec::with_capacity(pairs.len());
    for pair in pairs {
        results.push(match huge.next_if_eq(pair) {
            Some((source, target)) => compare_one(keyspace, assignment, &source, &target).await?,
            None => compared.next().ok_or(Fault::new(FaultClass::UnexpectedAnswer))?,
        });
    }
    Ok(results)
}

/// As [`equality::compare`]. What differs is known by its members alone; with the fields that later migrations read,
/// that is enough to tell whether they explain it.
async fn compare_one(
    keyspace: &Keyspace,
    assignment: &Assignment,
    source: &RedisKey,
    target: &RedisKey,
) -> Result<Comparison, Fault> {
    let mut comparison = keyspace.compare_in_pieces(source, target).await?;
    if let Comparison::Different { source: ours, target: theirs } = &mut comparison {
        for rule in assignment.changes_after_copy() {
            for (key, value) in [(source, &mut ours.value), (target, &mut theirs.value)] {
                if let Value::Hash(held) = value {
                    let probe = Probe::Fields { key: key.clone(), fields: rule.fields() };
                    let answers = keyspace.probe(std::slice::from_ref(&probe)).await?;
                    let Some(Answer::Fields(values)) = answers.into_iter().next() else { continue };
                    let named = rule.fields().iter().zip(values);
                    held.extend(named.filter_map(|(name, value)| Some((name.as_bytes().to_vec(), value?))));
                }
            }
        }
        if equality::is_explained(assignment, ours, target, theirs) {
            return Ok(Comparison::Equal { expires: ours.expiry != Expiry::Never });
        }
    }
    Ok(comparison)
}

/// Copies one source unless its target exists.
pub(super) async fn copy_missing(writer: &Writer, control: &Control, (source, target): &Pair) -> Result<Copied, Stop> {
    match copy(writer, control, source, target, Over::Nothing).await? {
        Staged::Made => Ok(Copied::Made),
        Staged::SourceGone => Ok(Copied::SourceGone),
        Staged::TargetExists => Ok(Copied::TargetExists),
        _ => Err(Stop::SourceChanging { changed: 1 }),
    }
}

/// Says of a huge entry that it can't be copied. Its name is not for everybody who may see a finding.
pub(super) fn refusal(reason: &str) -> String {
    format!("an entry takes more than 1 MiB of memory and can't be copied: {reason}; `redis-cli --memkeys` finds it")
}

/// What is neither done nor to be tried again ends the step.
async fn copy(
    writer: &Writer,
    control: &Control,
    source: &RedisKey,
    target: &RedisKey,
    over: Over,
) -> Result<Staged, Stop> {
    let go_on = || control.check().is_ok();
    match writer.copy_in_pieces(source, target, over, &go_on).await? {
        Staged::Interrupted => Err(Stop::Interrupted),
        Staged::Impossible(reason) => {
            Err(Stop::PreflightFailed(vec![Finding::error(FindingCode::HugeEntries, refusal(reason))]))
        }
        other => Ok(other),
    }
}

impl Settler<'_> {
    /// Brings huge sources to their targets, one after another; what keeps changing is left for the next pass.
    pub(super) async fn settle_huge(
        &self,
        pairs: Vec<Pair>,
        order: Order,
        report: &mut ApplyReport,
    ) -> Result<(), Stop> {
        for pair in pairs {
            self.control.check()?;
            let mut is_settled = order == Order::CopyFirst && self.copy_huge(&pair, report).await?;
            for _ in 0..ATTEMPTS {
                is_settled = is_settled || self.resolve_huge(&pair, report).await?;
            }
            report.unsettled += u64::from(!is_settled);
        }
        Ok(())
    }

    async fn copy_huge(&self, (source, target): &Pair, report: &mut ApplyReport) -> Result<bool, Stop> {
        self.before_writing().await?;
        match copy(self.writer, self.control, source, target, Over::Nothing).await? {
            Staged::Made => report.copied += 1,
            Staged::SourceGone => report.ended += 1,
            _ => return Ok(false),
        }
        Ok(true)
    }

    async fn resolve_huge(&self, pair: &Pair, report: &mut ApplyReport) -> Result<bool, Stop> {
        let (source, target) = pair;
        match compare_one(self.writer, self.assignment, source, target).await? {
            Comparison::Equal { expires } => report.count_equal(expires),
            Comparison::SourceGone => report.ended += 1,
            Comparison::TargetMissing => return self.copy_huge(pair, report).await,
            Comparison::Different { source: ours, target: theirs } => {
                if self.on_difference == OnDifference::Keep || !self.may_replace(target).await? {
                    self.count_kept(pair, &ours, &theirs, report);
                    return Ok(true);
                }
                self.before_writing().await?;
                match copy(self.writer, self.control, source, target, Over::Stale).await? {
                    Staged::Made => report.replaced += 1,
                    Staged::SourceGone => report.ended += 1,
                    _ => return Ok(false),
                }
            }
        }
        Ok(true)
    }
}

/// What became of a huge original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    Done,
    Gone,
    Changed,
    Diverged,
}

/// What decides about originals whose target is diverged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) diverged: DivergedPolicy,
    pub(super) was_copied: bool,
}

/// Unlinks one original, if it equals its target or its loss was asked for, and nobody touched it since it was
/// compared.
pub(super) async fn remove(
    writer: &Writer,
    assignment: &Assignment,
    policy: Policy,
    (source, target): (&RedisKey, &RedisKey),
    undisturbed: u64,
) -> Result<Removed, Stop> {
    let watched = writer.watch(source, target).await?;
    let may_go = match (compare_one(writer, assignment, source, target).await?, policy.diverged) {
        (Comparison::SourceGone, _) => return Ok(Removed::Gone),
        (Comparison::Equal { .. }, _) | (Comparison::Different { .. }, DivergedPolicy::Delete) => true,
        (Comparison::TargetMissing, DivergedPolicy::Delete) => policy.was_copied,
        (Comparison::Different { .. } | Comparison::TargetMissing, DivergedPolicy::Keep) => false,
    };
    if !may_go {
        return Ok(Removed::Diverged);
    }
    let done = writer.unlink_watched(watched, source, undisturbed).await?;
    Ok(if done { Removed::Done } else { Removed::Changed })
}

/// Gives a target its source's expiry, if that is all in which they differ and nobody touched the target since it was
/// compared.
pub(super) async fn put_back_expiry(
    writer: &Writer,
    assignment: &Assignment,
    (source, target): &Pair,
) -> Result<bool, Stop> {
    let watched = writer.watch(target, source).await?;
    let Comparison::Different { source: ours, target: theirs } =
        compare_one(writer, assignment, source, target).await?
    else {
        return Ok(false);
    };
    match ours.expiry {
        Expiry::At(at) if equality::has_lost_expiry(assignment, &ours, target, &theirs) => {
            Ok(writer.expire_watched(watched, target, at).await?)
        }
        Expiry::At(_) | Expiry::Never => Ok(false),
    }
}
