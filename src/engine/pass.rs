//! One complete pass over the keyspace.
//!
//! Owns the meaning of complete: every slot was covered by a look at a primary that stood still.
//! What a look found counts only then; looks that do not count are repeated.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::{join, join_all};
use futures::{SinkExt, Stream, StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::control::{Advance, Control, IN_FLIGHT, Meter};
use crate::engine::gaps;
use crate::engine::stop::Stop;
use crate::engine::throttle::{self, Door};
use crate::keyspace::scan::{self, Look};
use crate::keyspace::{Fault, FaultClass, Keyspace};
use crate::model::admission::{HeldBy, strains};
use crate::model::key::RedisKey;
use crate::model::phase::Step;
use crate::model::slot::SlotSet;

/// Most of a look's time that was spent on waiting if a fault ended it: batches are sent again that long.
const FAULT_WAIT: Duration = Duration::from_secs(30);

/// Pages of a scan that wait to be worked on.
const PAGES_AHEAD: usize = 2;

const PAUSE: Duration = Duration::from_millis(500);

/// What a batch found, additive.
pub(super) trait Tally: Default + Send {
    fn merge(&mut self, other: Self);
    fn advance(&self) -> Advance;
}

/// Works on every key that starts with one of `prefixes`, and adds up what the batches found.
pub(super) async fn complete<T, W, F>(
    keyspace: &Keyspace,
    prefixes: &[Vec<u8>],
    control: &Control,
    meter: &Meter<'_>,
    work: W,
) -> Result<T, Stop>
where
    T: Tally,
    W: Fn(Vec<RedisKey>) -> F + Sync,
    F: Future<Output = Result<T, Stop>> + Send,
{
    let mut covered = SlotSet::empty();
    let mut total = T::default();
    let mut counted = Advance::default();
    let mut waited = Duration::ZERO;
    let mut no_strays = false;
    // Primaries that may hold strays though their slots are covered: a move may be broken off after they were looked at.
    let mut suspects = BTreeSet::new();
    let mut had_strays = false;
    while covered != SlotSet::full() || !no_strays {
        control.check()?;
        let began = Instant::now();
        let (looks, unlearned) = match control.unless_stopped(keyspace.relearn()).await? {
            Ok(topology) => {
                suspects.extend(topology.with_open_slots().cloned());
                (scan::looks(&topology, &covered, &suspects), None)
            }
            Err(fault) if fault.class.is_passing() => (Vec::new(), Some(fault)),
            Err(fault) => return Err(fault.into()),
        };
        waited += began.elapsed();
        let _observed = throttle::observe(keyspace, control, meter).await;
        let began = Instant::now();
        let cease = control.stop_signal().child_token();
        let looked =
            join_all(looks.iter().map(|look| look_once(keyspace, prefixes, control, meter, &cease, look, &work))).await;
        let mut faulted = false;
        let (mut stray, mut unseen) = (None, None);
        let before = covered.clone();
        let topology = keyspace.topology().await;
        no_strays = unlearned.is_none() && topology.silent.is_empty();
        for (look, looked) in looks.iter().zip(looked) {
            match looked? {
                Looked::Counts(tally, advance) => {
                    total.merge(tally);
                    counted.add(advance);
                    covered = covered.union(&look.wanted);
                    if look.primary.open.is_empty() {
                        suspects.remove(&look.primary.node_id);
                    }
                    stray = stray.or(look.stray(&topology).map(|slot| (&look.primary.address, slot)));
                }
                Looked::Spoiled(fault) => {
                    faulted |= fault.is_some();
                    if look.is_for_strays() {
                        no_strays = false;
                        unseen = unseen.or(Some((&look.primary.address, fault)));
                    }
                }
            }
        }
        suspects.extend(topology.with_open_slots().cloned());
        // A look at one that became a replica, or was removed, is not possible any more.
        suspects = suspects.iter().filter_map(|id| topology.heir(id)).collect();
        no_strays &= suspects.is_empty();
        let strays_gone = stray.is_none() && had_strays;
        if stray.is_some() || had_strays {
            // Strays come back to an owner that was looked at already, so nothing counts while there are any, and not
            // the look that sees them gone.
            (total, covered, no_strays) = (T::default(), SlotSet::empty(), false);
            meter.retract(std::mem::take(&mut counted));
            faulted |= stray.is_some();
            had_strays = stray.is_some();
        }
        waited = match (covered == before, faulted) {
            (false, _) => Duration::ZERO,
            (true, true) => waited + began.elapsed().min(FAULT_WAIT),
            // Work that turned out not to count is no waiting, however long it took.
            (true, false) => waited,
        };
        if covered != SlotSet::full() || !no_strays {
            if waited > control.coverage_patience {
                return Err(match (unlearned, stray) {
                    (Some(fault), _) => fault.into(),
                    (None, Some((node, slot))) => gaps::strayed(&topology, node, slot),
                    (None, None) if strays_gone => gaps::strays_gone(),
                    (None, None) if covered == SlotSet::full() => gaps::unseen(&topology, unseen),
                    (None, None) => gaps::incomplete(&topology, &covered),
                });
            }
            control.pause(PAUSE).await?;
            waited += PAUSE;
        }
    }
    Ok(total)
}

/// What became of one look.
enum Looked<T> {
    /// It saw every key of its slots; what the meter was told of them.
    Counts(T, Advance),
    /// A fault that may pass ended it; without one its primary did not stand still, or other looks ended it.
    Spoiled(Option<Fault>),
}

/// One look, worked through. What time alone can't cure ends the other looks too, by `all`.
async fn look_once<T, W, F>(
    keyspace: &Keyspace,
    prefixes: &[Vec<u8>],
    control: &Control,
    meter: &Meter<'_>,
    all: &CancellationToken,
    look: &Look,
    work: &W,
) -> Result<Looked<T>, Stop>
where
    T: Tally,
    W: Fn(Vec<RedisKey>) -> F + Sync,
    F: Future<Output = Result<T, Stop>> + Send,
{
    let door = Door::new(control);
    let cease = all.child_token();
    let (ahead, read) = mpsc::channel(PAGES_AHEAD);
    let scan = keyspace.scan(look, prefixes).map_err(Stop::from).take_until(cease.cancelled());
    let results = read
        .map_ok(|page: Vec<RedisKey>| {
            // As large as batches may be when each one's turn comes.
            let mut rest = page.into_iter();
            stream::iter(std::iter::from_fn(move || {
                let batch: Vec<RedisKey> = rest.by_ref().take(control.batch_size()).collect();
                (!batch.is_empty()).then_some(Ok(batch))
            }))
        })
        .try_flatten()
        .take_until(cease.cancelled())
        .map_ok(|batch: Vec<RedisKey>| async {
            // A look that ceased does not count.
            let Some(_inside) = door.pass(&cease).await else { return Ok(T::default()) };
            let tally = work(batch).await?;
            meter.advance(tally.advance());
            Ok(tally)
        })
        .try_buffer_unordered(IN_FLIGHT as usize);
    // Pages are read while batches are worked on; the reading ends with who wants them.
    let reading = read_ahead(keyspace, look, scan, ahead);
    let ((), worked) = join(reading, work_off(results, control, meter.step(), &cease, all)).await;
    let Worked { found, counted, ended, waits_for_memory } = worked;
    let ended = match ended {
        Ok(()) => judge(keyspace, control, all, look).await,
        Err(stop) => Err(stop),
    };
    if ended.is_err() && waits_for_memory {
        // The next observation waits until there is room.
        meter.retract(counted);
        return Ok(Looked::Spoiled(None));
    }

    let fault = match ended {
        Ok(true) if !all.is_cancelled() => return Ok(Looked::Counts(found, counted)),
        Ok(_) => None,
        Err(Stop::Fault(fault)) if fault.class.is_passing() => Some(fault),
        Err(stop) => return Err(stop),
    };
    meter.retract(counted);
    Ok(Looked::Spoiled(fault))
}

/// Whether a look that came to its end covered its slots. Who waits for a silent primary hears a stop, and the end of
/// the other looks.
async fn judge(keyspace: &Keyspace, control: &Control, all: &CancellationToken, look: &Look) -> Result<bool, Stop> {
    tokio::select! {
        biased;
        () = all.cancelled() => control.check().map(|()| false),
        covered = keyspace.covered(look) => Ok(covered?),
    }
}

/// What the batches of one look gave.
struct Worked<T> {
    found: T,
    counted: Advance,
    ended: Result<(), Stop>,
    waits_for_memory: bool,
}

/// Adds up what batches give. After the first that fails no new one is begun, and those under way are finished.
async fn work_off<T: Tally>(
    results: impl Stream<Item = Result<T, Stop>>,
    control: &Control,
    during: Step,
    cease: &CancellationToken,
    all: &CancellationToken,
) -> Worked<T> {
    let mut results = pin!(results);
    let mut worked =
        Worked { found: T::default(), counted: Advance::default(), ended: Ok(()), waits_for_memory: false };
    while let Some(result) = results.next().await {
        match result {
            Ok(tally) => {
                worked.counted.add(tally.advance());
                worked.found.merge(tally);
            }
            Err(stop) => {
                cease.cancel();
                // Asked once: what is under way may end after there is room again.
                let is_short = waits_for_memory(control, during, &stop).await;
                worked.waits_for_memory |= is_short;
                if !is_short && !is_passing(&stop) {
                    all.cancel();
                }
                worked.ended = worked.ended.and(Err(stop));
            }
        }
    }
    worked
}

fn is_passing(stop: &Stop) -> bool {
    matches!(stop, Stop::Fault(fault) if fault.class.is_passing())
}

/// Only a step that is held while memory is short can wait until there is more.
async fn waits_for_memory(control: &Control, during: Step, stop: &Stop) -> bool {
    strains(during).contains(&HeldBy::Memory)
        && matches!(stop, Stop::Fault(fault) if fault.class == FaultClass::OutOfMemory)
        && control.throttle().refused().await
}

/// Reads pages for as long as somebody wants them, and until it is certain that their primary holds keys which nobody
/// looks for there.
async fn read_ahead(
    keyspace: &Keyspace,
    look: &Look,
    pages: impl Stream<Item = Result<Vec<RedisKey>, Stop>>,
    mut ahead: mpsc::Sender<Result<Vec<RedisKey>, Stop>>,
) {
    let mut pages = pin!(pages);
    while let Some(page) = pages.next().await {
        let checked = match page {
            Ok(page) => refuse_strays(keyspace, look).await.map(|()| page),
            Err(stop) => Err(stop),
        };
        if ahead.send(checked).await.is_err() {
            return;
        }
    }
}

/// Asks nobody while there is no sign of strays.
async fn refuse_strays(keyspace: &Keyspace, look: &Look) -> Result<(), Stop> {
    if look.certain_stray(&*keyspace.topology().await).is_none() {
        return Ok(());
    }

    let topology = keyspace.relearn().await?;
    match look.certain_stray(&topology) {
        Some(slot) => Err(gaps::strayed(&topology, &look.primary.address, slot)),
        None => Ok(()),
    }
}
