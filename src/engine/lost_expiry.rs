//! Puts back the expiry that an earlier tool dropped when it copied.
//!
//! Owns what is put back where: a target that never expires, of a source that does, and that otherwise holds what its
//! source became. Whatever else differs is the application's and stays. Refuses to be silent: a person asked for it, and
//! is told of every one, also of those that a look which does not count put back.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::assignment::Assignment;
use crate::engine::control::{Advance, Control};
use crate::engine::disk;
use crate::engine::equality;
use crate::engine::huge;
use crate::engine::pass::{self, Tally};
use crate::engine::stop::Stop;
use crate::engine::suppose::{Likely, Supposition};
use crate::engine::verify::wait_for_replicas;
use crate::keyspace::Writer;
use crate::keyspace::compare::Comparison;
use crate::keyspace::conditional::Outcome;
use crate::keyspace::supposed::Spare;
use crate::migrations::{Rename, Rule};
use crate::model::entry::{Entry, Expiry};
use crate::model::finding::FindingCode;
use crate::model::key::RedisKey;
use crate::model::phase::Step;

/// A look finds nothing to add up: what it put back is counted at once.
#[derive(Debug, Default)]
struct Nothing;

impl Tally for Nothing {
    fn merge(&mut self, _: Self) {}

    fn advance(&self) -> Advance {
        Advance::default()
    }
}

/// As [`put_back`] where a person accepted that, behind another tool's mark; else nothing is done.
pub(super) async fn put_back_if_accepted(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
) -> Result<u64, Stop> {
    if !assignment.terms.accepted.contains(FindingCode::LostExpiry) {
        return Ok(0);
    }
    put_back(writer, assignment, control).await
}

/// Puts back every expiry that was dropped, then waits for replicas. Returns how many.
///
/// # Errors
/// What kept the pass from being complete, or [`Stop::ReplicasMissing`].
pub async fn put_back(writer: &Writer, assignment: &Assignment, control: &Control) -> Result<u64, Stop> {
    let Rule::Rename(rename) = assignment.rule() else { return Ok(0) };
    disk::forget_clocks(writer, assignment).await?;

    let mender = Mender { writer, assignment, control, rename, count: AtomicU64::new(0) };
    let meter = control.meter(Step::Verify, None);

    let work = |keys| mender.put_back(keys);
    let Nothing = pass::complete(writer, &assignment.prefixes(), control, &meter, work).await?;
    wait_for_replicas(writer, assignment).await?;
    Ok(mender.count.into_inner())
}

struct Mender<'a> {
    writer: &'a Writer,
    assignment: &'a Assignment,
    control: &'a Control,
    rename: &'a dyn Rename,
    /// Targets that got their expiry back.
    count: AtomicU64,
}

impl Mender<'_> {
    async fn put_back(&self, mut keys: Vec<RedisKey>) -> Result<Nothing, Stop> {
        keys.retain(|key| self.rename.may_be_source(&self.assignment.scope, key));
        let pairs = self.not_seen_equal(keys).await?;

        let (ordinary, huge) = huge::split(self.writer, pairs).await?;
        self.put_back_ordinary(ordinary).await?;
        for pair in &huge {
            self.control.check()?;
            let is_done = huge::put_back_expiry(self.writer, self.assignment, pair).await?;
            self.count.fetch_add(u64::from(is_done), Ordering::Relaxed);
        }
        Ok(Nothing)
    }

    /// The pairs that one step could not tell to be equal.
    async fn not_seen_equal(&self, keys: Vec<RedisKey>) -> Result<Vec<(RedisKey, RedisKey)>, Stop> {
        let (mut supposition, sources) =
            Supposition::of(self.writer, self.assignment, self.rename, self.control, keys).await?;
        let supposed: Vec<_> = sources.iter().map(Likely::supposed).collect();
        let compared = self.writer.compare_supposed(&supposed, Spare::Heavy).await?;
        for (likely, comparison) in sources.into_iter().zip(compared) {
            match comparison {
                Some(Comparison::Equal { .. } | Comparison::SourceGone | Comparison::TargetMissing) => {}
                Some(Comparison::Different { .. }) | None => supposition.leave(likely),
            }
        }
        Ok(supposition.rest().await?.sources.into_iter().map(|source| (source.key, source.target)).collect())
    }

    async fn put_back_ordinary(&self, pairs: Vec<(RedisKey, RedisKey)>) -> Result<(), Stop> {
        let compared = equality::compare(self.writer, self.assignment, &pairs).await?;
        let dropped: Vec<(RedisKey, Entry, i64)> = pairs
            .into_iter()
            .zip(compared)
            .filter_map(|((_, target), comparison)| {
                let Comparison::Different { source, target: found } = comparison else { return None };
                let Expiry::At(at) = source.expiry else { return None };
                equality::has_lost_expiry(self.assignment, &source, &target, &found).then_some((target, found, at))
            })
            .collect();

        let outcomes = self.writer.expire_if_unchanged(&dropped).await;
        let done = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Outcome::Done))).count();
        self.count.fetch_add(done as u64, Ordering::Relaxed);

        // A fault ends the look only now: the others were given theirs.
        for outcome in outcomes {
            outcome?;
        }
        Ok(())
    }
}
