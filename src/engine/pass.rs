//! One complete pass over the keyspace.
//!
//! Owns the meaning of complete: every slot was covered by a look at a primary that stood still.
//! What a look found counts only then; looks that do not count are repeated.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::{join, join_all};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::control::{Advance, Control, IN_FLIGHT, Meter};
use crate::engine::stop::Stop;
use crate::engine::throttle::{self, Door};
use crate::keyspace::scan::Look;
use crate::keyspace::topology::Topology;
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
    let mut waited = Duration::ZERO;
    while covered != SlotSet::full() {
        control.check()?;
        let began = Instant::now();
        let looks = passing_as_none(keyspace.looks(&covered).await)?.unwrap_or_default();
        waited += began.elapsed();
        let _observed = throttle::observe(keyspace, control, meter).await;
        let began = Instant::now();
        let cease = control.stop_signal().child_token();
        let looked =
            join_all(looks.iter().map(|look| look_once(keyspace, prefixes, control, meter, &cease, look, &work))).await;
        let mut faulted = false;
        let before = covered.clone();
        for (look, looked) in looks.iter().zip(looked) {
            match looked? {
                Looked::Counts(tally) => {
                    total.merge(tally);
                    covered = covered.union(&look.wanted);
                }
                Looked::Moved => {}
                Looked::Faulted => faulted = true,
            }
        }
        waited = match (covered == before, faulted) {
            (false, _) => Duration::ZERO,
            (true, true) => waited + began.elapsed().min(FAULT_WAIT),
            // Work that turned out not to count is no waiting, however long it took.
            (true, false) => waited,
        };
        if covered != SlotSet::full() {
            if waited > control.coverage_patience {
                return Err(incomplete(keyspace.topology().await.as_ref(), &covered));
            }
            control.pause(PAUSE).await?;
            waited += PAUSE;
        }
    }
    Ok(total)
}

/// What became of one look.
enum Looked<T> {
    /// It saw every key of its slots.
    Counts(T),
    /// Its primary did not stand still, or other looks ended it.
    Moved,
    /// A fault that may pass ended it.
    Faulted,
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
    let (ahead, pages) = mpsc::channel(PAGES_AHEAD);
    let scan = keyspace.scan(look, prefixes).map_err(Stop::from).take_until(cease.cancelled());
    let results = pages
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
    let (_, worked) = join(scan.map(Ok).forward(ahead), work_off(results, control, meter.step(), &cease, all)).await;
    let Worked { found, counted, ended, waits_for_memory } = worked;
    let ended = match ended {
        Ok(()) => control.check().and(keyspace.covered(look).await.map_err(Stop::from)),
        Err(stop) => Err(stop),
    };
    let faulted = ended.is_err();
    if faulted && waits_for_memory {
        // The next observation waits until there is room.
        meter.retract(counted);
        return Ok(Looked::Moved);
    }
    match ended {
        Ok(true) if !all.is_cancelled() => return Ok(Looked::Counts(found)),
        Err(stop) if !is_passing(&stop) => return Err(stop),
        Ok(_) | Err(_) => meter.retract(counted),
    }
    Ok(if faulted { Looked::Faulted } else { Looked::Moved })
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

fn passing_as_none<T>(result: Result<T, Fault>) -> Result<Option<T>, Stop> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.class.is_passing() => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

fn incomplete(topology: &Topology, covered: &SlotSet) -> Stop {
    let missing = SlotSet::full().difference(covered);
    let open = topology.open();
    let causes = [missing.intersection(&open), missing.intersection(&topology.unowned()), missing.clone()];
    let first = causes.iter().find_map(|slots| slots.iter().next()).unwrap_or_default();
    let state = match topology.owner(first) {
        _ if open.contains(first) => "is half-moved",
        None => "has no primary that answers",
        Some(_) => "keeps changing hands",
    };
    Stop::Incomplete { missing: missing.len(), example: format!("slot {first} {state}") }
}
