//! Brings one batch of sources to their targets, and tells what it found.
//!
//! Owns the decision about a target that exists and differs: our own stale copy, a conflict that a
//! policy decides, or somebody's entry that stays.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OnceCell;

use crate::engine::apply::Order;
use crate::engine::assignment::Assignment;
use crate::engine::classify::{Classified, classify};
use crate::engine::control::{Advance, Control};
use crate::engine::equality;
use crate::engine::huge;
use crate::engine::journal::{self, Run};
use crate::engine::pass::Tally;
use crate::engine::stop::Stop;
use crate::engine::suppose::{Likely, Supposition};
use crate::engine::verify::wait_for_replicas;
use crate::keyspace::Writer;
use crate::keyspace::compare::Comparison;
use crate::keyspace::conditional::Outcome;
use crate::keyspace::copy::Copied;
use crate::keyspace::supposed::Spare;
use crate::migrations::Rename;
use crate::model::entry::Entry;
use crate::model::key::RedisKey;
use crate::model::mapping::UnmigratedReason;
use crate::model::policy::ConflictPolicy;
use crate::model::report::ApplyReport;

/// Times that a target is compared anew because it changed in our hands.
const ATTEMPTS: usize = 3;

type Pair = (RedisKey, RedisKey);

impl Tally for ApplyReport {
    fn merge(&mut self, other: Self) {
        self.merge(other);
    }

    fn advance(&self) -> Advance {
        Advance { processed: self.processed(), skipped: self.already_migrated + self.ended, conflicts: self.conflicts }
    }
}

/// What happens to a target that differs from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDifference {
    /// Replace it by its source, if it still is what was compared.
    Replace,
    /// Keep and count it.
    Keep,
}

/// The decision for a run: the mark of another tool makes targets the truth; a run that began over no
/// target made them all itself; otherwise the policy decides.
#[must_use]
pub(super) fn on_difference(run: &Run, policy: ConflictPolicy, mark_is_unproven: bool) -> OnDifference {
    let is_ours = run.may_refresh() || policy == ConflictPolicy::PreferSource;
    if is_ours && !mark_is_unproven { OnDifference::Replace } else { OnDifference::Keep }
}

/// Settles batches.
pub(super) struct Settler<'a> {
    pub(super) writer: &'a Writer,
    pub(super) assignment: &'a Assignment,
    pub(super) rename: &'a dyn Rename,
    pub(super) control: &'a Control,
    pub(super) on_difference: OnDifference,
    /// Whether the plan saw heavy entries, and huge ones among them; only then sizes are asked for.
    pub(super) has_heavy: bool,
    pub(super) has_huge: bool,
    /// Whether later in-place migrations were told that something is written which has not gone through them.
    pub(super) reopening: &'a Reopening,
}

impl Settler<'_> {
    /// Brings a batch of sources to their targets.
    pub(super) async fn settle(&self, mut keys: Vec<RedisKey>, order: Order) -> Result<ApplyReport, Stop> {
        let mut report = ApplyReport::default();
        if order == Order::CopyFirst {
            // The targets that it makes itself would be read as well, at twice the price of a source.
            keys.retain(|key| self.rename.may_be_source(&self.assignment.scope, key));
        }
        let (mut supposition, sources) =
            Supposition::of(self.writer, self.assignment, self.rename, self.control, keys).await?;
        for left in self.settle_supposed(sources, order, &mut report).await? {
            supposition.leave(left);
        }
        self.settle_read(supposition.rest_with_lasting().await?, order, &mut report).await?;
        Ok(report)
    }

    /// Does what can be done in one step with sources that are what their names say; gives the others.
    async fn settle_supposed(
        &self,
        mut sources: Vec<Likely>,
        order: Order,
        report: &mut ApplyReport,
    ) -> Result<Vec<Likely>, Stop> {
        let spare = if self.has_heavy { Spare::Heavy } else { Spare::None };
        let mut open = Vec::new();
        if order == Order::CopyFirst {
            let supposed: Vec<_> = sources.iter().map(Likely::supposed).collect();
            if !supposed.is_empty() {
                self.before_writing().await?;
            }
            let copied = self.writer.copy_supposed(&supposed, spare).await?;
            let mut existing = Vec::new();
            for (likely, copied) in sources.into_iter().zip(copied) {
                match copied {
                    Some(Copied::Made) => report.copied += 1,
                    Some(Copied::SourceGone) => report.ended += 1,
                    Some(Copied::TargetExists) => existing.push(likely),
                    None => open.push(likely),
                }
            }
            sources = existing;
        }
        let supposed: Vec<_> = sources.iter().map(Likely::supposed).collect();
        let compared = self.writer.compare_supposed(&supposed, spare).await?;
        for (likely, comparison) in sources.into_iter().zip(compared) {
            match comparison {
                Some(Comparison::Equal { expires }) => report.count_equal(expires),
                Some(Comparison::SourceGone) => report.ended += 1,
                Some(Comparison::TargetMissing | Comparison::Different { .. }) | None => open.push(likely),
            }
        }
        Ok(open)
    }

    /// Brings sources that were read to their targets.
    async fn settle_read(&self, classified: Classified, order: Order, report: &mut ApplyReport) -> Result<(), Stop> {
        report.lasting.current += classified.current_lasting;
        for (key, reason) in classified.unmigrated {
            report.unmigrated.count(key, reason);
        }
        let pairs = classified.sources.into_iter().map(|source| (source.key, source.target)).collect();
        let (pairs, huge) = huge::split_if(self.has_huge, self.writer, pairs).await?;
        let to_compare = match order {
            Order::CopyFirst => self.copy(&pairs, report).await?,
            Order::CompareFirst => pairs,
        };
        self.resolve(to_compare, report).await?;
        self.settle_huge(huge, order, report).await
    }

    /// Takes the stamps off later in-place migrations before the first write, not after it: whoever is killed in between
    /// leaves nothing that they were never told of.
    pub(super) async fn before_writing(&self) -> Result<(), Stop> {
        self.reopening.tell(self.writer, self.assignment).await
    }

    /// Copies; gives the pairs whose target exists.
    async fn copy(&self, pairs: &[Pair], report: &mut ApplyReport) -> Result<Vec<Pair>, Stop> {
        let mut existing = Vec::new();
        if !pairs.is_empty() {
            self.before_writing().await?;
        }
        for (pair, copied) in pairs.iter().zip(self.writer.copy(pairs).await?) {
            match copied {
                Copied::Made => report.copied += 1,
                Copied::SourceGone => report.ended += 1,
                Copied::TargetExists => existing.push(pair.clone()),
            }
        }
        Ok(existing)
    }

    /// Compares until every pair is dealt with; what keeps changing in our hands counts as a conflict.
    async fn resolve(&self, mut pairs: Vec<Pair>, report: &mut ApplyReport) -> Result<(), Stop> {
        for _ in 0..ATTEMPTS {
            if pairs.is_empty() {
                return Ok(());
            }
            pairs = self.resolve_once(pairs, report).await?;
        }
        for pair in pairs {
            report.conflicts += 1;
            report.conflict_sample.offer(pair);
        }
        Ok(())
    }

    /// Gives the pairs that have to be compared again.
    async fn resolve_once(&self, pairs: Vec<Pair>, report: &mut ApplyReport) -> Result<Vec<Pair>, Stop> {
        let mut missing = Vec::new();
        let mut again = Vec::new();
        for (pair, comparison) in pairs.iter().zip(equality::compare(self.writer, self.assignment, &pairs).await?) {
            match comparison {
                Comparison::Equal { expires } => report.count_equal(expires),
                Comparison::SourceGone => report.ended += 1,
                Comparison::TargetMissing => missing.push(pair.clone()),
                Comparison::Different { source, target } => match self.replace(pair, &target).await? {
                    Replaced::Done => report.replaced += 1,
                    Replaced::Refused => self.count_kept(pair, &source, &target, report),
                    Replaced::Again => again.push(pair.clone()),
                },
            }
        }
        again.extend(self.copy(&missing, report).await?);
        Ok(again)
    }

    async fn replace(&self, (source, target): &Pair, found: &Entry) -> Result<Replaced, Stop> {
        if self.on_difference == OnDifference::Keep || !self.may_replace(target).await? {
            return Ok(Replaced::Refused);
        }
        let payload = self.writer.payloads(std::slice::from_ref(source)).await?.into_iter().flatten().next();
        let Some(payload) = payload else { return Ok(Replaced::Again) };
        self.before_writing().await?;
        Ok(match self.writer.replace_if_unchanged(target, found, &payload).await? {
            Outcome::Done => Replaced::Done,
            Outcome::Changed | Outcome::Gone => Replaced::Again,
        })
    }

    pub(super) fn count_kept(&self, pair: &Pair, source: &Entry, target: &Entry, report: &mut ApplyReport) {
        report.count_conflict(pair.clone(), target.expiry);
        report.lost_expiry += u64::from(equality::has_lost_expiry(self.assignment, source, &pair.1, target));
    }

    /// A target that is itself a source, or may be somebody's legacy entry, is never overwritten. One that
    /// holds another type or another id is no stale copy of ours; only an explicit policy replaces it.
    pub(super) async fn may_replace(&self, target: &RedisKey) -> Result<bool, Stop> {
        let classified = classify(self.writer, self.assignment, self.rename, vec![target.clone()]).await?;
        let is_foreign = match classified.unmigrated.first() {
            None => !classified.sources.is_empty(),
            Some((_, UnmigratedReason::WrongType | UnmigratedReason::WrongContent)) => {
                self.assignment.conflict_policy != ConflictPolicy::PreferSource
            }
            Some((
                _,
                UnmigratedReason::Ambiguous
                | UnmigratedReason::BracedTenant
                | UnmigratedReason::AmbiguousTarget
                | UnmigratedReason::DocumentedNameOnly
                | UnmigratedReason::NoSingleTenant
                | UnmigratedReason::OtherLayout
                | UnmigratedReason::NotATime
                | UnmigratedReason::OtherEntity,
            )) => true,
        };
        Ok(!is_foreign)
    }
}

/// What later in-place migrations are told before the first write of a pass.
#[derive(Default)]
pub(super) struct Reopening {
    told: OnceCell<()>,
    /// A stamp was taken off, and replicas may not know yet.
    is_unacknowledged: AtomicBool,
}

impl Reopening {
    /// Whether anything was to be written.
    pub(super) fn was_needed(&self) -> bool {
        self.told.initialized()
    }

    /// Takes the stamps off their marks, once, and lets replicas know it: a failover must not bring one back.
    async fn tell(&self, writer: &Writer, assignment: &Assignment) -> Result<(), Stop> {
        self.told
            .get_or_try_init(async || {
                journal::note_reopening(writer, assignment).await?;
                if journal::reopen_successors(writer, assignment).await? {
                    self.is_unacknowledged.store(true, Ordering::SeqCst);
                }
                // A try before this one may have failed to wait.
                if self.is_unacknowledged.load(Ordering::SeqCst) {
                    wait_for_replicas(writer, assignment).await?;
                }
                Ok::<_, Stop>(())
            })
            .await?;
        Ok(())
    }
}

enum Replaced {
    Done,
    Refused,
    Again,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides_about_a_difference() {
        use ConflictPolicy::{Fail, PreferSource, PreferTarget};
        let run = |targets_before| Run { token: String::new(), targets_before, sourceless_before: 0 };
        for policy in [Fail, PreferSource, PreferTarget] {
            assert_eq!(on_difference(&run(0), policy, false), OnDifference::Replace, "{policy:?}");
            assert_eq!(on_difference(&run(0), policy, true), OnDifference::Keep, "{policy:?}");
            assert_eq!(on_difference(&run(1), policy, true), OnDifference::Keep, "{policy:?}");
        }
        assert_eq!(on_difference(&run(1), Fail, false), OnDifference::Keep);
        assert_eq!(on_difference(&run(1), PreferTarget, false), OnDifference::Keep);
        assert_eq!(on_difference(&run(1), PreferSource, false), OnDifference::Replace);
    }
}
