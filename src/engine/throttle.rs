//! Observes every primary during a pass and says how much may be asked of them right now.
//!
//! Owns the looking and when it happens; what follows from what was seen is decided in the model. A primary that
//! can't be asked holds nobody: the work itself finds out about it.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::engine::control::{Control, Meter};
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::vitals::Observer;
use crate::keyspace::{Fault, Keyspace};
use crate::model::admission::{Admission, Effort, Held, HeldBy, Vitals, Window, hold, strains};
use crate::model::phase::Step;
use crate::model::policy::Limits;
use crate::model::progress::Progress;

/// How often a round trip is taken where latency has a limit.
const BEAT: Duration = Duration::from_millis(25);

/// Round trips of which the worst counts.
const BEATS: u32 = 4;

/// How often memory and replicas are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// So many faults in a row mean that nothing is known of a primary any more.
const FAULTS: u32 = 3;

/// What is known of all primaries, and what follows.
pub(super) struct Throttle {
    board: Mutex<Board>,
    admission: watch::Sender<Admission>,
    progress: watch::Sender<Option<Progress>>,
    posted: Notify,
}

#[derive(Default)]
struct Board {
    /// The observation that may write here; later ones outrank it.
    observation: u64,
    readings: BTreeMap<NodeAddress, Reading>,
    /// A primary has refused copies for want of memory: it has to have clearly more before they go on.
    refused: bool,
}

/// What one look at one primary gave.
struct Reading {
    admission: Admission,
    vitals: Option<Vitals>,
}

impl Throttle {
    pub(super) fn new(progress: watch::Sender<Option<Progress>>) -> Self {
        let (admission, _) = watch::channel(Admission::Go(Effort::FULL));
        Self { board: Mutex::default(), admission, progress, posted: Notify::new() }
    }

    /// How much may be asked of each primary, where full work is `full`.
    pub(super) fn window(&self, full: Window) -> Window {
        match &*self.admission.borrow() {
            Admission::Go(effort) => effort.window(full),
            Admission::Hold(_) => full,
        }
    }

    /// Waits while something holds the work back.
    pub(super) async fn opened(&self) {
        let mut admission = self.admission.subscribe();
        while matches!(*admission.borrow_and_update(), Admission::Hold(_)) {
            changed(&mut admission).await;
        }
    }

    /// What the work waits for.
    fn held(&self) -> Option<Held> {
        match &*self.admission.borrow() {
            Admission::Go(_) => None,
            Admission::Hold(held) => Some(held.clone()),
        }
    }

    /// A primary refused a copy for want of memory. Gives whether its memory is seen, so that waiting for it can
    /// end; if so, the next observation begins with waiting. A limit may be younger than the last look.
    pub(super) async fn refused(&self) -> bool {
        for _ in 0..FAULTS {
            if self.is_short_of_memory() {
                return true;
            }
            sleep(LOOK).await;
        }
        self.is_short_of_memory()
    }

    fn is_short_of_memory(&self) -> bool {
        let mut board = self.board();
        let is_seen = board.readings.values().any(|reading| reading.vitals.is_some_and(|vitals| vitals.max_memory > 0));
        board.refused |= is_seen;
        is_seen
    }

    /// Forgets what earlier observations saw, and begins another.
    fn begin(&self) -> u64 {
        let mut board = self.board();
        board.observation += 1;
        board.readings.clear();
        self.publish(&board);
        board.observation
    }

    fn post(&self, observation: u64, node: &NodeAddress, reading: Reading) {
        let mut board = self.board();
        if board.observation == observation {
            board.readings.insert(node.clone(), reading);
            self.publish(&board);
            self.posted.notify_one();
        }
    }

    fn publish(&self, board: &Board) {
        let all = board.readings.values().map(|reading| reading.admission.clone());
        let admission = all.fold(Admission::Go(Effort::FULL), Admission::and);
        self.admission.send_if_modified(|before| {
            let is_news = *before != admission;
            *before = admission;
            is_news
        });
        let lag = board.readings.values().filter_map(|reading| Some(reading.vitals?.behind)).max();
        let held = self.held();
        self.progress.send_if_modified(|progress| {
            let Some(progress) = progress else { return false };
            let is_news = progress.held != held || progress.replica_lag_bytes != lag;
            if held.is_some() {
                progress.keys_per_second = 0;
            }
            progress.held = held;
            progress.replica_lag_bytes = lag;
            is_news
        });
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An observation; it ends when this is dropped.
pub(super) struct Observation {
    throttle: Arc<Throttle>,
    _tasks: JoinSet<()>,
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.throttle.begin();
    }
}

/// Observes every primary that is known now.
pub(super) async fn observe(keyspace: &Keyspace, control: &Control, meter: &Meter<'_>) -> Observation {
    let throttle = Arc::clone(control.throttle());
    let observation = throttle.begin();
    let refused = std::mem::take(&mut throttle.board().refused);
    let mut tasks = JoinSet::new();
    let observers = keyspace.observers().await;
    let count = observers.len();
    for observer in observers {
        let watch = Watch {
            observer,
            step: meter.step(),
            observation,
            throttle: Arc::clone(&throttle),
            effort: Effort::FULL,
            worst: Duration::ZERO,
            beats: 0,
            vitals: None,
            held: refused.then_some(HeldBy::Memory),
            hold: None,
            faults: 0,
        };
        tasks.spawn(watch.keep(control.limits()));
    }
    // Nothing is asked of a primary before it was looked at; one that can't be is known by its silence.
    let seen = async {
        while throttle.board().readings.len() < count && !control.stop_signal().is_cancelled() {
            throttle.posted.notified().await;
        }
    };
    let _ = tokio::time::timeout(LOOK * 4, seen).await;
    Observation { throttle, _tasks: tasks }
}

/// One primary under observation.
struct Watch {
    observer: Observer,
    step: Step,
    observation: u64,
    throttle: Arc<Throttle>,
    effort: Effort,
    worst: Duration,
    beats: u32,
    vitals: Option<Vitals>,
    /// What held it at the look before.
    held: Option<HeldBy>,
    hold: Option<Held>,
    faults: u32,
}

impl Watch {
    async fn keep(mut self, mut limits: watch::Receiver<Limits>) {
        let strains_it = !strains(self.step).is_empty();
        let mut looked = None::<Instant>;
        loop {
            let max_latency = limits.borrow_and_update().max_latency;
            if max_latency.is_none() && !strains_it {
                self.effort = Effort::FULL;
                self.post();
                changed(&mut limits).await;
                continue;
            }
            let looks_due = strains_it && looked.is_none_or(|at| at.elapsed() >= LOOK);
            if looks_due {
                looked = Some(Instant::now());
            }
            let seen = self.look(max_latency, looks_due).await;
            self.faults = if seen.is_ok() { 0 } else { self.faults + 1 };
            if self.faults >= FAULTS {
                // A primary that is gone must not hold those who would notice it.
                (self.effort, self.vitals, self.held, self.hold) = (Effort::FULL, None, None, None);
            }
            self.post();
            let beat = if max_latency.is_some() && self.faults == 0 { BEAT } else { LOOK };
            tokio::select! {
                () = sleep(beat) => {}
                () = changed(&mut limits) => {}
            }
        }
    }

    async fn look(&mut self, max_latency: Option<Duration>, looks_due: bool) -> Result<(), Fault> {
        match max_latency {
            None => self.effort = Effort::FULL,
            Some(limit) => {
                let took = self.observer.round_trip(limit * 2).await?;
                self.worst = self.worst.max(took);
                self.beats += 1;
                // Too slow is acted on at once; that it is calm again shows only after a while.
                if self.beats >= BEATS || took >= limit * 2 {
                    self.effort = self.effort.after(self.worst, Some(limit));
                    (self.worst, self.beats) = (Duration::ZERO, 0);
                }
            }
        }
        if looks_due {
            let now = self.observer.vitals().await?;
            let node = self.observer.node().to_string();
            self.hold = now.and_then(|now| hold(self.step, &node, self.vitals, now, self.held));
            (self.held, self.vitals) = (self.hold.as_ref().map(|held| held.by), now);
        }
        Ok(())
    }

    fn post(&self) {
        let admission = match &self.hold {
            Some(held) => Admission::Hold(held.clone()),
            None => Admission::Go(self.effort),
        };
        let reading = Reading { admission, vitals: self.vitals };
        self.throttle.post(self.observation, self.observer.node(), reading);
    }
}

/// Waits for another value; for ever, if none can come any more.
pub(super) async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// The way to one primary, which as many batches pass at a time as may.
pub(super) struct Door {
    throttle: Arc<Throttle>,
    full: Window,
    inside: AtomicU32,
    left: Notify,
}

/// A batch that passed a door.
pub(super) struct Inside<'a>(&'a Door);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_waiters();
    }
}

impl Door {
    pub(super) fn new(control: &Control) -> Self {
        Self {
            throttle: Arc::clone(control.throttle()),
            full: control.full_window(),
            inside: AtomicU32::new(0),
            left: Notify::new(),
        }
    }

    /// Waits until a batch may pass; `None` if the work ceased before.
    pub(super) async fn pass(&self, cease: &CancellationToken) -> Option<Inside<'_>> {
        let mut admission = self.throttle.admission.subscribe();
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // From here on nothing that changes is missed.
            left.as_mut().enable();
            let bound = match &*admission.borrow_and_update() {
                Admission::Go(effort) => effort.window(self.full).in_flight,
                Admission::Hold(_) => 0,
            };
            if cease.is_cancelled() {
                return None;
            }
            let enters = |inside: u32| (inside < bound).then_some(inside + 1);
            if self.inside.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enters).is_ok() {
                return Some(Inside(self));
            }
            tokio::select! {
                () = cease.cancelled() => return None,
                () = &mut left => {}
                () = changed(&mut admission) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeAddress {
        NodeAddress { host: name.to_owned(), port: 1 }
    }

    fn held() -> Held {
        Held { by: HeldBy::Memory, node: "a:1".into(), bytes: 95, go_below: 93, limit: 100 }
    }

    fn reading(admission: Admission, behind: u64) -> Reading {
        Reading { admission, vitals: Some(Vitals { behind, ..Vitals::default() }) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_stays_shut_while_one_primary_holds() {
        let (progress, seen) = watch::channel(None);
        let control = Control::new(CancellationToken::new(), Limits::default(), progress);
        let _meter = control.meter(Step::Apply, None);
        let throttle = control.throttle();
        let door = Door::new(&control);
        let cease = CancellationToken::new();
        let observation = throttle.begin();
        throttle.post(observation, &node("a"), reading(Admission::Hold(held()), 5));
        throttle.post(observation, &node("b"), reading(Admission::Go(Effort::FULL), 9));
        let progress = seen.borrow().clone().expect("progress");
        assert_eq!((progress.held, progress.replica_lag_bytes), (Some(held()), Some(9)));
        let waits = tokio::time::timeout(Duration::from_secs(3600), door.pass(&cease)).await;
        assert!(waits.is_err(), "nobody passes");

        let opens = async { throttle.post(observation, &node("a"), reading(Admission::Go(Effort::FULL), 0)) };
        let (inside, ()) = tokio::join!(door.pass(&cease), opens);
        assert!(inside.is_some());
        assert_eq!(seen.borrow().clone().expect("progress").held, None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_batches_pass_than_may() {
        let control = Control::unattended();
        let door = Door::new(&control);
        let cease = CancellationToken::new();
        let mut inside = Vec::new();
        for _ in 0..door.full.in_flight {
            inside.push(door.pass(&cease).await.expect("room"));
        }
        assert!(tokio::time::timeout(Duration::from_secs(9), door.pass(&cease)).await.is_err(), "full");
        let leaves = async { drop(inside.pop()) };
        let (next, ()) = tokio::join!(door.pass(&cease), leaves);
        assert!(next.is_some(), "who leaves makes room");
        let (none, ()) = tokio::join!(door.pass(&cease), async { cease.cancel() });
        assert!(none.is_none(), "who waits when the work ceases goes away");
    }

    #[test]
    fn an_observation_that_is_over_says_nothing() {
        let throttle = Throttle::new(watch::channel(None).0);
        let first = throttle.begin();
        throttle.post(first, &node("a"), reading(Admission::Hold(held()), 0));
        assert!(throttle.held().is_some());
        throttle.begin();
        assert_eq!(throttle.held(), None);
        throttle.post(first, &node("a"), reading(Admission::Hold(held()), 0));
        assert_eq!(throttle.held(), None);
    }
}
