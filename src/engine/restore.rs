//! Copies named sources whose targets are missing behind our mark.
//!
//! Owns the one way to copy after the mark: by name, since what is missing may have been deleted by the
//! application. Never replaces anything.

use crate::engine::assignment::Assignment;
use crate::engine::classify::classify;
use crate::engine::control::Control;
use crate::engine::disk;
use crate::engine::huge;
use crate::engine::journal;
use crate::engine::stop::Stop;
use crate::engine::verify::{keep_reopened, wait_for_replicas};
use crate::keyspace::Writer;
use crate::keyspace::copy::Copied;
use crate::migrations::{Rename, Rule};
use crate::model::key::RedisKey;

/// Sources that are copied in one batch.
const BATCH: usize = 500;

/// What became of the named sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Sources that were copied.
    pub copied: u64,
    /// Sources whose target exists; it was not touched.
    pub target_exists: u64,
    /// Names of no source: no such key, or none that the migration moves.
    pub no_source: Vec<RedisKey>,
}

/// Copies each named source whose target is missing, then waits for replicas. Later in-place migrations have to be
/// proven again, since what is copied has not gone through them.
///
/// # Errors
/// [`Stop::ReplicasMissing`], or the fault that stayed.
pub async fn restore(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    sources: &[RedisKey],
) -> Result<RestoreReport, Stop> {
    disk::forget_clocks(writer, assignment).await?;

    let mut report = RestoreReport::default();
    for batch in sources.chunks(BATCH) {
        control.check()?;
        control.pace(batch.len()).await?;
        match assignment.rule() {
            Rule::Rename(rename) => restore_batch(writer, assignment, control, rename, batch, &mut report).await?,
            // It has no sources.
            Rule::InPlace(_) => report.no_source.extend(batch.iter().cloned()),
        }
    }
    wait_for_replicas(writer, assignment).await?;
    if report.copied > 0 {
        keep_reopened(writer, assignment).await?;
    }
    Ok(report)
}

async fn restore_batch(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    rename: &dyn Rename,
    batch: &[RedisKey],
    report: &mut RestoreReport,
) -> Result<(), Stop> {
    let classified = classify(writer, assignment, rename, batch.to_vec()).await?;
    let pairs: Vec<_> = classified.sources.into_iter().map(|source| (source.key, source.target)).collect();
    let targets: Vec<RedisKey> = pairs.iter().map(|(_, target)| target.clone()).collect();
    if writer.exist(&targets).await?.contains(&false) && journal::reopen_successors(writer, assignment).await? {
        wait_for_replicas(writer, assignment).await?;
    }
    let (ordinary, huge) = huge::split(writer, pairs.clone()).await?;
    let mut copied = writer.copy(&ordinary).await?;
    for pair in &huge {
        copied.push(huge::copy_missing(writer, control, pair).await?);
    }
    for (key, copied) in ordinary.iter().chain(&huge).map(|(source, _)| source).zip(copied) {
        match copied {
            Copied::Made => report.copied += 1,
            Copied::TargetExists => report.target_exists += 1,
            Copied::SourceGone => report.no_source.push(key.clone()),
        }
    }
    let is_source = |key: &RedisKey| pairs.iter().any(|(source, _)| source == key);
    report.no_source.extend(batch.iter().filter(|key| !is_source(key)).cloned());
    Ok(())
}
