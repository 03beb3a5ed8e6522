//! Puts back the expiry that an earlier tool dropped when it copied.
//!
//! Owns what is put back where: a target that never expires, of a source that does, and that otherwise holds what its
//! source became. Whatever else differs is the application's and stays. Refuses to be silent: a person asked for it.

use crate::engine::assignment::Assignment;
use crate::engine::classify::classify;
use crate::engine::control::{Advance, Control};
use crate::engine::disk;
use crate::engine::equality;
use crate::engine::pass::{self, Tally};
use crate::engine::stop::Stop;
use crate::engine::verify::wait_for_replicas;
use crate::keyspace::Writer;
use crate::keyspace::compare::Comparison;
use crate::keyspace::conditional::Outcome;
use crate::migrations::{Rename, Rule};
use crate::model::entry::{Entry, Expiry};
use crate::model::key::RedisKey;
use crate::model::phase::Step;

/// Targets that got their expiry back.
#[derive(Debug, Default)]
struct PutBack(u64);

impl Tally for PutBack {
    fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }

    fn advance(&self) -> Advance {
        Advance::default()
    }
}

/// Puts back every expiry that was dropped, then waits for replicas. Returns how many.
///
/// # Errors
/// What kept the pass from being complete, or [`Stop::ReplicasMissing`].
pub async fn put_back(writer: &Writer, assignment: &Assignment, control: &Control) -> Result<u64, Stop> {
    let Rule::Rename(rename) = assignment.rule() else { return Ok(0) };
    disk::forget_clocks(writer, assignment).await?;

    let meter = control.meter(Step::Verify, None);
    let work = |keys| put_back_batch(writer, assignment, control, rename, keys);
    let PutBack(count) = pass::complete(writer, &assignment.prefixes(), control, &meter, work).await?;
    wait_for_replicas(writer, assignment).await?;
    Ok(count)
}

async fn put_back_batch(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    rename: &dyn Rename,
    mut keys: Vec<RedisKey>,
) -> Result<PutBack, Stop> {
    keys.retain(|key| rename.may_be_source(&assignment.scope, key));
    let sources = classify(writer, assignment, rename, keys).await?.sources;
    control.pace(sources.len()).await?;

    let pairs: Vec<_> = sources.into_iter().map(|source| (source.key, source.target)).collect();
    let compared = equality::compare(writer, assignment, &pairs).await?;
    let dropped: Vec<(RedisKey, Entry, i64)> = pairs
        .into_iter()
        .zip(compared)
        .filter_map(|((_, target), comparison)| {
            let Comparison::Different { source, target: found } = comparison else { return None };
            let Expiry::At(at) = source.expiry else { return None };
            equality::has_lost_expiry(assignment, &source, &target, &found).then_some((target, found, at))
        })
        .collect();

    let outcomes = writer.expire_if_unchanged(&dropped).await?;
    Ok(PutBack(outcomes.into_iter().filter(|outcome| *outcome == Outcome::Done).count() as u64))
}
