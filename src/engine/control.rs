//! The strings by which a run is held: stop signal, pace, progress.
//!
//! Owns the only waiting that is done for others' sake, and the counting behind the progress stream.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::engine::pace::Pacer;
use crate::engine::stop::Stop;
use crate::engine::throttle::{Throttle, changed};
use crate::model::admission::Window;
use crate::model::phase::Step;
use crate::model::policy::Limits;
use crate::model::progress::Progress;

/// Over how long the rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// How long a pass waits for slots to become coverable before it says which are missing.
pub const COVERAGE_PATIENCE: Duration = Duration::from_secs(60);

/// Batches of one primary that are worked on at the same time, if nothing holds them back.
pub(super) const IN_FLIGHT: u32 = 4;

/// Keys in one batch, if nothing holds it back.
const FULL_BATCH: usize = 500;

/// What a run is controlled by.
pub struct Control {
    stop: CancellationToken,
    limits: watch::Receiver<Limits>,
    began: Instant,
    pacer: Mutex<Pacer>,
    throttle: Arc<Throttle>,
    progress: watch::Sender<Option<Progress>>,
    /// How long a pass waits for slots to become coverable.
    pub coverage_patience: Duration,
}

impl Control {
    /// Control by a stop signal and limits; progress goes to `progress`.
    #[must_use]
    pub fn new(stop: CancellationToken, limits: Limits, progress: watch::Sender<Option<Progress>>) -> Self {
        Self::limited(stop, watch::channel(limits).1, progress)
    }

    /// Control by a stop signal and limits that may change while the work is under way.
    #[must_use]
    pub fn limited(
        stop: CancellationToken,
        limits: watch::Receiver<Limits>,
        progress: watch::Sender<Option<Progress>>,
    ) -> Self {
        let pacer = Mutex::new(Pacer::new(limits.borrow().keys_per_second));
        Self {
            stop,
            limits,
            began: Instant::now(),
            pacer,
            throttle: Arc::new(Throttle::new(progress.clone())),
            progress,
            coverage_patience: COVERAGE_PATIENCE,
        }
    }

    /// Control that never slows and reports to nobody.
    #[must_use]
    pub fn of(stop: CancellationToken) -> Self {
        Self::new(stop, Limits::default(), watch::channel(None).0)
    }

    /// Control that never stops, never slows and reports to nobody.
    #[must_use]
    pub fn unattended() -> Self {
        Self::of(CancellationToken::new())
    }

    /// Counts a step from its beginning.
    #[must_use]
    pub(super) fn meter(&self, step: Step, total: Option<u64>) -> Meter<'_> {
        self.progress.send_replace(Some(Progress::begin(step, total)));
        Meter { progress: &self.progress, step, total, counts: Counts::default(), samples: Mutex::default() }
    }

    pub(super) fn stop_signal(&self) -> &CancellationToken {
        &self.stop
    }

    pub(super) fn check(&self) -> Result<(), Stop> {
        if self.stop.is_cancelled() { Err(Stop::Interrupted) } else { Ok(()) }
    }

    /// Waits until `keys` more keys may be worked on: in their turn, and while nothing holds the work back, since
    /// what waited for its turn would else add to the harm.
    pub(super) async fn pace(&self, keys: usize) -> Result<(), Stop> {
        let mut limits = self.limits.clone();
        let place = self.pacer(&mut limits).line_up(self.began.elapsed(), keys as u64);
        self.take_turn(&mut limits, place).await?;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Stop::Interrupted),
            () = self.throttle.opened() => Ok(()),
        }
    }

    async fn take_turn(&self, limits: &mut watch::Receiver<Limits>, place: u64) -> Result<(), Stop> {
        loop {
            let moment = self.pacer(limits).moment(place);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Stop::Interrupted),
                () = changed(limits) => {}
                () = sleep_until(self.began + moment) => return Ok(()),
            }
        }
    }

    /// The line of those who wait, at the rate that holds now.
    fn pacer(&self, limits: &mut watch::Receiver<Limits>) -> MutexGuard<'_, Pacer> {
        let rate = limits.borrow_and_update().keys_per_second;
        let mut pacer = self.pacer.lock().unwrap_or_else(PoisonError::into_inner);
        pacer.set_rate(self.began.elapsed(), rate);
        pacer
    }

    /// Says in the progress what the step waits for, or that it waits no more.
    pub(super) fn waits_for(&self, what: Option<&str>) {
        self.progress.send_if_modified(|progress| {
            let Some(progress) = progress else { return false };
            let is_news = progress.waits_for.as_deref() != what;
            progress.waits_for = what.map(str::to_owned);
            is_news
        });
    }

    /// Waits, unless stopped.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), Stop> {
        self.unless_stopped(tokio::time::sleep(pause)).await
    }

    /// Waits for `work`, which may be dropped at any moment, unless stopped.
    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Stop::Interrupted),
            done = work => Ok(done),
        }
    }

    /// Largest batch that keeps the pace smooth.
    #[must_use]
    pub(super) fn batch_size(&self) -> usize {
        self.throttle.window(self.full_window()).batch
    }

    /// Full work, at the pace that holds now.
    pub(super) fn full_window(&self) -> Window {
        let batch = match self.limits.borrow().keys_per_second {
            None => FULL_BATCH,
            Some(rate) => (usize::try_from(rate).unwrap_or(FULL_BATCH) / 10).clamp(1, FULL_BATCH),
        };
        Window { in_flight: IN_FLIGHT, batch }
    }

    pub(super) fn limits(&self) -> watch::Receiver<Limits> {
        self.limits.clone()
    }

    pub(super) fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }
}

/// Counts of what was dealt with.
#[derive(Debug, Default)]
struct Counts {
    processed: AtomicU64,
    skipped: AtomicU64,
    conflicts: AtomicU64,
}

/// What one batch adds to the progress.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Advance {
    pub(super) processed: u64,
    pub(super) skipped: u64,
    pub(super) conflicts: u64,
}

impl Advance {
    pub(super) fn add(&mut self, other: Self) {
        self.processed += other.processed;
        self.skipped += other.skipped;
        self.conflicts += other.conflicts;
    }
}

/// Counts a step and publishes its progress.
pub(super) struct Meter<'a> {
    progress: &'a watch::Sender<Option<Progress>>,
    step: Step,
    total: Option<u64>,
    counts: Counts,
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl Meter<'_> {
    /// Which step it counts.
    pub(super) fn step(&self) -> Step {
        self.step
    }

    pub(super) fn advance(&self, by: Advance) {
        let processed = self.counts.processed.fetch_add(by.processed, Ordering::Relaxed) + by.processed;
        self.counts.skipped.fetch_add(by.skipped, Ordering::Relaxed);
        self.counts.conflicts.fetch_add(by.conflicts, Ordering::Relaxed);
        self.publish(processed);
    }

    /// Takes back what a look counted that turned out not to count.
    pub(super) fn retract(&self, by: Advance) {
        self.counts.processed.fetch_sub(by.processed, Ordering::Relaxed);
        self.counts.skipped.fetch_sub(by.skipped, Ordering::Relaxed);
        self.counts.conflicts.fetch_sub(by.conflicts, Ordering::Relaxed);
    }

    fn publish(&self, processed: u64) {
        let keys_per_second = self.rate(processed);
        self.progress.send_modify(|progress| {
            let before = progress.take().unwrap_or_else(|| Progress::begin(self.step, self.total));
            *progress = Some(Progress {
                step: self.step,
                processed,
                total: self.total,
                skipped: self.counts.skipped.load(Ordering::Relaxed),
                failed: 0,
                conflicts: self.counts.conflicts.load(Ordering::Relaxed),
                keys_per_second,
                ..before
            });
        });
    }

    fn rate(&self, processed: u64) -> u64 {
        let now = Instant::now();
        let Ok(mut samples) = self.samples.lock() else { return 0 };
        while samples.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_WINDOW) && samples.len() > 1 {
            samples.pop_front();
        }
        if samples.back().is_none_or(|(at, _)| now.duration_since(*at) > RATE_WINDOW / 50) {
            samples.push_back((now, processed));
        }
        let Some((since, before)) = samples.front() else { return 0 };
        let millis = now.duration_since(*since).as_millis().max(1);
        let rate = u128::from(processed.saturating_sub(*before)) * 1000 / millis;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pace_holds_over_many_batches() {
        let limits = Limits { keys_per_second: Some(1000), ..Limits::default() };
        let control = Control::new(CancellationToken::new(), limits, watch::channel(None).0);
        let began = Instant::now();
        for _ in 0..51 {
            assert!(control.pace(100).await.is_ok());
        }
        assert_eq!(began.elapsed().as_millis(), 5000);
    }

    #[tokio::test]
    async fn a_stop_ends_the_waiting() {
        let stop = CancellationToken::new();
        let control = Control::new(
            stop.clone(),
            Limits { keys_per_second: Some(1), ..Limits::default() },
            watch::channel(None).0,
        );
        assert!(control.pace(1000).await.is_ok());
        stop.cancel();
        assert_eq!(control.pace(1).await, Err(Stop::Interrupted));
    }

    #[tokio::test(start_paused = true)]
    async fn another_pace_holds_for_those_who_wait_already() {
        let (limits, told) = watch::channel(Limits { keys_per_second: Some(10), ..Limits::default() });
        let control = Control::limited(CancellationToken::new(), told, watch::channel(None).0);
        let began = Instant::now();
        assert!(control.pace(1000).await.is_ok());
        let changes = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            limits.send_replace(Limits { keys_per_second: Some(900), ..Limits::default() });
        };
        let (waited, ()) = tokio::join!(control.pace(1), changes);
        assert!(waited.is_ok());
        assert_eq!(began.elapsed().as_secs(), 11, "100 keys went in ten seconds, 900 in one");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_holds_within_five_percent_over_ten_seconds() {
        for rate in [7_u32, 999, 20_000, 250_000] {
            let limits = Limits { keys_per_second: Some(rate), ..Limits::default() };
            let control = Control::new(CancellationToken::new(), limits, watch::channel(None).0);
            let (began, batch) = (Instant::now(), control.batch_size());
            let mut keys = 0;
            while began.elapsed() < Duration::from_secs(10) {
                assert!(control.pace(batch).await.is_ok());
                // The work itself takes some time too.
                tokio::time::sleep(Duration::from_micros(500)).await;
                keys += batch;
            }
            let wanted = usize::try_from(rate).expect("a number") * 10;
            assert!(keys.abs_diff(wanted) <= wanted / 20 + batch, "{keys} instead of {wanted}");
        }
    }

    #[test]
    fn progress_counts_and_retracts() {
        let (sender, receiver) = watch::channel(None);
        let control = Control::new(CancellationToken::new(), Limits::default(), sender);
        let meter = control.meter(Step::Apply, Some(10));
        let five = Advance { processed: 5, skipped: 2, conflicts: 1 };
        meter.advance(five);
        meter.retract(five);
        meter.advance(Advance { processed: 3, ..Advance::default() });
        let seen = receiver.borrow().clone().expect("progress");
        assert_eq!((seen.processed, seen.skipped, seen.total), (3, 0, Some(10)));
    }
}
