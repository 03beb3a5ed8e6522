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
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::control::{Advance, Control, IN_FLIGHT, Meter};
use crate::engine::stop::Stop;
use crate::engine::throttle::{self, Door};
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::scan::{self, Look};
use crate::keyspace::topology::Topology;
use crate::keyspace::{FaultClass, Keyspace};
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
        let mut stray = None;
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
                other => {
                    faulted |= matches!(other, Looked::Faulted);
                    no_strays &= !look.is_for_strays();
                }
            }
        }
        suspects.extend(topology.with_open_slots().cloned());
        no_strays &= suspects.is_empty();
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
                    (None, Some((node, slot))) => strayed(&topology, node, slot),
                    (None, None) => incomplete(&topology, &covered),
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
        Ok(()) => judge(keyspace, control, all, look).await,
        Err(stop) => Err(stop),
    };
    let faulted = ended.is_err();
    if faulted && waits_for_memory {
        // The next observation waits until there is room.
        meter.retract(counted);
        return Ok(Looked::Moved);
    }
    match ended {
        Ok(true) if !all.is_cancelled() => return Ok(Looked::Counts(found, counted)),
        Err(stop) if !is_passing(&stop) => return Err(stop),
        Ok(_) | Err(_) => meter.retract(counted),
    }
    Ok(if faulted { Looked::Faulted } else { Looked::Moved })
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

fn strayed(topology: &Topology, node: &NodeAddress, slot: u16) -> Stop {
    let owner = topology.owner(slot).map_or("<id of its owner>", |owner| &owner.node_id);
    let example = format!(
        "{node} holds keys of slot {slot}, which it does not own, as after a move that was broken off; there, CLUSTER \
         SETSLOT {slot} IMPORTING {owner} makes redis-cli --cluster fix move them"
    );
    Stop::Incomplete { missing: 1, example }
}

/// Which slots are missing, what is known of the first of them, and what to do.
pub(super) fn incomplete(topology: &Topology, covered: &SlotSet) -> Stop {
    let missing = SlotSet::full().difference(covered);
    let open = topology.open();
    let causes = [missing.intersection(&open), missing.intersection(&topology.unowned()), missing.clone()];
    let first = causes.iter().find_map(|slots| slots.iter().next()).unwrap_or_default();
    let example = match (topology.silent.first(), topology.owner(first)) {
        (Some(silent), _) => format!(
            "the primary {silent}, so nobody knows what is half-moved to it; bring it back, or remove it with CLUSTER \
             FORGET if it is gone for good"
        ),
        (None, _) if open.contains(first) => {
            let at: Vec<String> = topology.moving(first).map(ToString::to_string).collect();
            format!(
                "slot {first} is half-moved (open at {}); finish the move or take it back, as with redis-cli --cluster \
                 fix",
                at.join(" and ")
            )
        }
        (None, None) => format!("slot {first} has no primary that answers; bring it back"),
        (None, Some(_)) => format!("slot {first} keeps changing hands; let the resharding end first"),
    };
    Stop::Incomplete { missing: missing.len(), example }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::topology::{Primary, Silent};

    fn primary(slots: SlotSet, open: SlotSet) -> Primary {
        let address = NodeAddress { host: "h".into(), port: 1 };
        let (node_id, run_id) = (String::new(), String::new());
        Primary { address, node_id, run_id, history: String::new(), config_epoch: 0, slots, open, replicas: 0 }
    }

    #[test]
    fn what_is_missing_has_a_cause_and_a_way_out() {
        let covered = SlotSet::full().difference(&(5..=6).collect());
        let whole = Topology::new(vec![primary(SlotSet::full(), SlotSet::empty())]);
        let (mut moving, mut unasked) = (whole.clone(), whole.clone());
        moving.bystanders.push(primary(SlotSet::empty(), (6..=6).collect()));
        unasked.silent.push(Silent { node_id: "x".into(), address: None, fault: None });
        let cases = [
            (whole, "slot 5 keeps changing hands; let the resharding end first"),
            (Topology::new(Vec::new()), "slot 5 has no primary that answers; bring it back"),
            (
                moving,
                "slot 6 is half-moved (open at h:1); finish the move or take it back, as with redis-cli --cluster fix",
            ),
            (
                unasked,
                "the primary with the id x can't be asked (nobody knows its address), so nobody knows what is \
                 half-moved to it; bring it back, or remove it with CLUSTER FORGET if it is gone for good",
            ),
        ];
        for (topology, message) in cases {
            let expected = format!("2 slots could not be covered: {message}");
            assert_eq!(incomplete(&topology, &covered).to_string(), expected);
        }
    }
}
