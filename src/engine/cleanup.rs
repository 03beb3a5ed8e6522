//! Cleanup: removes originals that equal their targets, after the migration was proven.
//!
//! Owns the order that makes removal safe: replicas acknowledge, source and target are compared, the
//! original is unlinked only if it still is what was compared. A disturbance in between (a broken
//! connection, another primary) starts that order over. Originals that show whose other keys are go before those
//! beside them, or stay with them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::engine::assignment::Assignment;
use crate::engine::classify::{Classified, Source};
use crate::engine::control::{Advance, Control, Meter};
use crate::engine::disk::{self, Clocks};
use crate::engine::equality;
use crate::engine::huge::{self, Policy, Removed};
use crate::engine::pass::{self, Tally};
use crate::engine::signs;
use crate::engine::stop::Stop;
use crate::engine::suppose::{Likely, Supposition};
use crate::engine::verify::wait_for_replicas;
use crate::keyspace::conditional::Outcome;
use crate::keyspace::{Fault, FaultClass, Keyspace, Writer};
use crate::migrations::{Rename, Rule};
use crate::model::entry::Entry;
use crate::model::finding::Finding;
use crate::model::key::RedisKey;
use crate::model::mark::{Mark, Stamp};
use crate::model::phase::Step;
use crate::model::policy::DivergedPolicy;
use crate::model::report::CleanupReport;
use crate::model::slot::slot_of;
use crate::model::time::UnixMillis;

/// Removes originals; `total` is how many there are, for the progress.
///
/// # Errors
/// [`Stop::NotVerified`] without our stamp on the mark, [`Stop::ReplicasMissing`], or what kept the
/// pass from being complete.
pub async fn cleanup(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    total: Option<u64>,
    now: UnixMillis,
) -> Result<CleanupReport, Stop> {
    let stamp = check_mark(writer, assignment).await?;
    let report = match assignment.rule() {
        Rule::Rename(rename) => Box::pin(remove_originals(writer, assignment, control, rename, stamp, total)).await?,
        // It left nothing behind.
        Rule::InPlace(_) => CleanupReport::default(),
    };
    let ended = [("cleaned_up_at", now.to_string()), (Stamp::REMOVED, String::new())];
    if !writer.stamp_mark(&assignment.mark_key(), &ended).await? {
        return Err(Stop::NotVerified);
    }
    Ok(report)
}

async fn remove_originals(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    rename: &dyn Rename,
    stamp: Stamp,
    total: Option<u64>,
) -> Result<CleanupReport, Stop> {
    // Nobody counted before this was known; a fresh keyspace has none.
    let may_be_signs = stamp.verified_at.is_some() && stamp.keys_apart != Some(0);
    let meter = control.meter(Step::Cleanup, total);
    let free_signs = if may_be_signs { signs::find(writer, assignment, control, rename, &meter).await? } else { None };
    let remover = Remover {
        writer,
        assignment,
        rename,
        // A fresh keyspace's mark says of no entry that it ever had a target.
        was_copied: stamp.verified_at.is_some(),
        acknowledged: Mutex::new(Acknowledged { clocks: stamp.server_clocks.clone(), ..Acknowledged::default() }),
        stamp,
        control,
        removed: AtomicU64::new(0),
        free_signs,
        noted: Mutex::new(Instant::now()),
    };
    let ended = remover.remove_everything(&meter).await;
    if ended.is_err() {
        // The next attempt goes on counting from here. It may be the lock that was lost, or Redis.
        let _ = tokio::time::timeout(FAREWELL, remover.note_removed()).await;
    }

    let mut report: CleanupReport = ended?;
    report.removed = remover.removed.into_inner();
    report.removed_before = remover.stamp.removed.unwrap_or(0);
    report.findings = remover.acknowledged.into_inner().findings;
    Ok(report)
}

/// What cleanup will find about the servers, for who is to decide on it.
///
/// # Errors
/// [`Stop::NotVerified`] without our stamp on the mark, or what kept Redis from answering.
pub async fn findings(keyspace: &Keyspace, assignment: &Assignment) -> Result<Vec<Finding>, Stop> {
    let stamp = check_mark(keyspace, assignment).await?;
    disk::findings(keyspace, assignment, &stamp).await
}

/// Our mark, for these parameters, must stand: it says that targets are the truth.
async fn check_mark(writer: &Keyspace, assignment: &Assignment) -> Result<Stamp, Stop> {
    match Mark::from_fields(&writer.hash(&assignment.mark_key()).await?) {
        Mark::Stamped(stamp) if stamp.is_for(&assignment.terms.parameters) => Ok(stamp),
        Mark::Stamped(_) | Mark::Absent | Mark::Unstamped | Mark::NotApplicable => Err(Stop::NotVerified),
    }
}

impl Tally for CleanupReport {
    fn merge(&mut self, other: Self) {
        self.merge(other);
    }

    fn advance(&self) -> Advance {
        Advance { processed: self.processed(), skipped: self.kept() + self.gone, conflicts: 0 }
    }
}

struct Remover<'a> {
    writer: &'a Writer,
    assignment: &'a Assignment,
    rename: &'a dyn Rename,
    /// Whether every entry was at its target once: then a missing target was deleted by the application.
    was_copied: bool,
    stamp: Stamp,
    control: &'a Control,
    acknowledged: Mutex<Acknowledged>,
    /// Originals removed, also by looks that did not count: what is gone is not seen again.
    removed: AtomicU64,
    /// Originals that show whose other keys are and under which nothing of theirs lies, so that they go first; `None`
    /// where no such original is.
    free_signs: Option<BTreeSet<RedisKey>>,
    /// When their number was last noted in Redis.
    noted: Mutex<Instant>,
}

/// How it stood when replicas, or disks, last held everything.
#[derive(Default)]
struct Acknowledged {
    /// The count of disturbances then.
    at: Option<u64>,
    /// What was found and did not block.
    findings: Vec<Finding>,
    /// From when on a snapshot of each primary counts.
    clocks: Clocks,
}

/// How long a cleanup that failed still tries to note what it removed.
const FAREWELL: Duration = Duration::from_secs(2);

/// A cleanup that is killed forgets what it removed within this time.
const NOTE_PAUSE: Duration = Duration::from_secs(1);

impl Remover<'_> {
    /// Removes signs before the originals beside them: where only the latter were gone, a cleanup that was cut off would
    /// leave a sign over keys that nothing shows to be somebody else's.
    async fn remove_everything(&self, meter: &Meter<'_>) -> Result<CleanupReport, Stop> {
        let mut report = match self.free_signs.as_ref().filter(|free| !free.is_empty()) {
            Some(free) => Box::pin(self.remove_free_signs(free, meter)).await?,
            None => CleanupReport::default(),
        };
        let remove = |keys| self.remove(keys);
        report.merge(pass::complete(self.writer, &self.assignment.prefixes(), self.control, meter, remove).await?);
        Ok(report)
    }

    async fn remove_free_signs(&self, free: &BTreeSet<RedisKey>, meter: &Meter<'_>) -> Result<CleanupReport, Stop> {
        // A cleanup that takes over from here must not go by snapshots that hold a sign still.
        disk::forget_clocks(self.writer, self.assignment).await?;
        let remove = |keys| self.remove_signs(free, keys);
        let report = pass::complete(self.writer, &self.assignment.prefixes(), self.control, meter, remove).await?;

        // Neither a failover nor a restart may bring one back once the originals beside it are gone: before the next
        // removal replicas, or disks, have to hold all that was done until now.
        let mut acknowledged = self.acknowledged.lock().await;
        acknowledged.at = None;
        acknowledged.clocks.clear();
        Ok(report)
    }

    async fn remove_signs(&self, free: &BTreeSet<RedisKey>, mut keys: Vec<RedisKey>) -> Result<CleanupReport, Stop> {
        keys.retain(|key| free.contains(key));
        let mut report = CleanupReport::default();
        if !keys.is_empty() {
            self.remove_all(keys, &mut report).await?;
        }
        Ok(report)
    }

    async fn remove(&self, mut keys: Vec<RedisKey>) -> Result<CleanupReport, Stop> {
        keys.retain(|key| self.rename.may_be_source(&self.assignment.scope, key));
        let mut report = CleanupReport::default();
        if let Some(free) = &self.free_signs {
            self.keep_signs(free, &mut keys, &mut report).await?;
        }
        self.remove_all(keys, &mut report).await?;
        Ok(report)
    }

    /// Leaves signs out: the free ones had their turn, the others stay.
    async fn keep_signs(
        &self,
        free: &BTreeSet<RedisKey>,
        keys: &mut Vec<RedisKey>,
        report: &mut CleanupReport,
    ) -> Result<(), Stop> {
        let signs = signs::among(self.writer, self.assignment, self.rename, keys.iter()).await?;
        keys.retain(|key| !signs.contains(key));
        for sign in signs.difference(free) {
            report.kept_as_signs += 1;
            report.kept_sample.offer(sign.clone());
        }
        Ok(())
    }

    /// Leaves out originals whose targets lie under a sign that stands: they show that these are not the sign's.
    async fn keep_beside_signs<T>(
        &self,
        originals: Vec<T>,
        source: impl Fn(&T) -> &Source,
        report: &mut CleanupReport,
    ) -> Result<Vec<T>, Stop> {
        if self.free_signs.is_none() || originals.is_empty() {
            return Ok(originals);
        }

        let targets = originals.iter().map(|original| &source(original).target);
        let are_beside = signs::stand_over(self.writer, self.assignment, self.rename, targets).await?;
        let mut others = Vec::with_capacity(originals.len());
        for (original, is_beside) in originals.into_iter().zip(are_beside) {
            if is_beside {
                report.kept_as_signs += 1;
                report.kept_sample.offer(source(&original).key.clone());
            } else {
                others.push(original);
            }
        }
        Ok(others)
    }

    async fn remove_all(&self, keys: Vec<RedisKey>, report: &mut CleanupReport) -> Result<(), Stop> {
        let (mut supposition, sources) =
            Supposition::of(self.writer, self.assignment, self.rename, self.control, keys).await?;
        let sources = self.keep_beside_signs(sources, |likely| &likely.source, report).await?;
        for left in self.remove_supposed(sources, report).await? {
            supposition.leave(left);
        }
        self.remove_read(supposition.rest().await?, report).await?;
        self.note_now_and_then().await
    }

    /// Removes the originals of which one step can tell that they are what their names say and equal their targets;
    /// gives the others.
    async fn remove_supposed(&self, sources: Vec<Likely>, report: &mut CleanupReport) -> Result<Vec<Likely>, Stop> {
        if sources.is_empty() {
            // Nothing has to be on disk for its sake.
            return Ok(sources);
        }

        let targets = sources.iter().map(|likely| &likely.source.target).collect();
        let undisturbed = self.acknowledge(targets).await?;
        let supposed: Vec<_> = sources.iter().map(Likely::supposed).collect();
        let outcomes = self.writer.unlink_supposed(&supposed, undisturbed).await?;
        let mut open = Vec::new();
        for (likely, outcome) in sources.into_iter().zip(outcomes) {
            match outcome {
                Some(Outcome::Done) => self.count_removed(report),
                Some(Outcome::Gone) => report.gone += 1,
                Some(Outcome::Changed) | None => open.push(likely),
            }
        }
        Ok(open)
    }

    /// Removes what may go of the sources that were read.
    async fn remove_read(&self, classified: Classified, report: &mut CleanupReport) -> Result<(), Stop> {
        let sources = self.keep_beside_signs(classified.sources, |source| source, report).await?;
        let pairs: Vec<_> = sources.into_iter().map(|source| (source.key, source.target)).collect();
        if pairs.is_empty() {
            return Ok(());
        }

        let (pairs, huge) = huge::split(self.writer, pairs).await?;
        let undisturbed = self.acknowledge(pairs.iter().map(|(_, target)| target).collect()).await?;
        let pairs = self.remove_equal(pairs, undisturbed, report).await?;
        let doomed = self.condemn(&pairs, report).await?;
        let outcomes = self.writer.unlink_if_unchanged(&doomed, undisturbed).await?;
        for ((key, _), outcome) in doomed.iter().zip(outcomes) {
            match outcome {
                Outcome::Done => self.count_removed(report),
                Outcome::Gone => report.gone += 1,
                Outcome::Changed => {
                    report.kept_changed += 1;
                    report.kept_sample.offer(key.clone());
                }
            }
        }
        self.remove_huge(huge, report).await
    }

    /// Removes huge originals, one after another.
    async fn remove_huge(&self, pairs: Vec<(RedisKey, RedisKey)>, report: &mut CleanupReport) -> Result<(), Stop> {
        for (source, target) in pairs {
            self.control.check()?;
            let undisturbed = self.acknowledge(vec![&target]).await?;
            let policy = Policy { diverged: self.assignment.diverged_policy, was_copied: self.was_copied };
            match huge::remove(self.writer, self.assignment, policy, (&source, &target), undisturbed).await? {
                Removed::Done => self.count_removed(report),
                Removed::Gone => report.gone += 1,
                Removed::Changed => {
                    report.kept_changed += 1;
                    report.kept_sample.offer(source);
                }
                Removed::Diverged => {
                    report.kept_diverged += 1;
                    report.kept_sample.offer(source);
                }
            }
        }
        Ok(())
    }

    async fn note_now_and_then(&self) -> Result<(), Stop> {
        let is_due = {
            let mut noted = self.noted.lock().await;
            let is_due = noted.elapsed() >= NOTE_PAUSE;
            if is_due {
                *noted = Instant::now();
            }
            is_due
        };
        if is_due { self.note_removed().await } else { Ok(()) }
    }

    /// Notes in Redis how many originals were removed, so that a further attempt goes on counting.
    async fn note_removed(&self) -> Result<(), Stop> {
        let removed = self.stamp.removed.unwrap_or(0) + self.removed.load(Ordering::Relaxed);
        self.writer.stamp_mark(&self.assignment.mark_key(), &[(Stamp::REMOVED, removed.to_string())]).await?;
        Ok(())
    }

    fn count_removed(&self, report: &mut CleanupReport) {
        report.removed += 1;
        self.removed.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes the originals of which one step can tell that they equal their targets; gives the other pairs.
    async fn remove_equal(
        &self,
        pairs: Vec<(RedisKey, RedisKey)>,
        undisturbed: u64,
        report: &mut CleanupReport,
    ) -> Result<Vec<(RedisKey, RedisKey)>, Stop> {
        let outcomes = self.writer.unlink_equal(&pairs, undisturbed).await?;
        let mut open = Vec::new();
        for (pair, outcome) in pairs.into_iter().zip(outcomes) {
            match outcome {
                Some(Outcome::Done) => self.count_removed(report),
                Some(Outcome::Gone) => report.gone += 1,
                Some(Outcome::Changed) | None => open.push(pair),
            }
        }
        Ok(open)
    }

    /// Sees to it that replicas, or the disk where there are none, hold everything since the last disturbance; returns
    /// the count of disturbances at which they did. Refuses `targets` of a half-moved slot: they may be at a node that
    /// was neither waited for nor asked about its disk. The look starts over until that slot is closed.
    async fn acknowledge(&self, targets: Vec<&RedisKey>) -> Result<u64, Stop> {
        let mut acknowledged = self.acknowledged.lock().await;
        let now = self.writer.disturbances();
        if acknowledged.at != Some(now) {
            wait_for_replicas(self.writer, self.assignment).await?;
            acknowledged.findings =
                disk::wait_until_on_disk(self.writer, self.assignment, self.control, &mut acknowledged.clocks).await?;
            check_mark(self.writer, self.assignment).await?;

            // Waiting itself may have been disturbed; then the look starts over.
            acknowledged.at = Some(now);
        }

        // A slot that opens behind this is another disturbance.
        let open = self.writer.topology().await.open();
        if !open.is_empty() && targets.into_iter().any(|target| open.contains(slot_of(target))) {
            return Err(Fault::new(FaultClass::TryAgain).into());
        }
        Ok(now)
    }

    /// The originals that may go, each with the value it must still have then.
    async fn condemn(
        &self,
        pairs: &[(RedisKey, RedisKey)],
        report: &mut CleanupReport,
    ) -> Result<Vec<(RedisKey, Entry)>, Stop> {
        let keys: Vec<RedisKey> = pairs.iter().flat_map(|(source, target)| [source.clone(), target.clone()]).collect();
        let mut entries = self.writer.entries(&keys).await?.into_iter();
        let mut doomed = Vec::new();
        for (source, target_key) in pairs {
            let (original, target) = (entries.next().flatten(), entries.next().flatten());
            match (original, target, self.assignment.diverged_policy) {
                (None, _, _) => report.gone += 1,
                (Some(original), Some(target), _)
                    if equality::is_explained(self.assignment, &original, target_key, &target) =>
                {
                    doomed.push((source.clone(), original));
                }
                (Some(original), target, DivergedPolicy::Delete) if self.was_copied || target.is_some() => {
                    doomed.push((source.clone(), original));
                }
                (Some(_), _, DivergedPolicy::Keep | DivergedPolicy::Delete) => {
                    report.kept_diverged += 1;
                    report.kept_sample.offer(source.clone());
                }
            }
        }
        Ok(doomed)
    }
}
