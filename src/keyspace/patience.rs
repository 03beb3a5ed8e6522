//! Retries: how long, and how often, what may pass by itself is tried again.
//!
//! Owns the one patience that all of them have. Whether a fault may pass is said with its class.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{Instant, sleep};

use crate::keyspace::fault::Fault;

/// How long something is retried before its fault is handed up; long enough for a failover.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pauses between attempts, without an end.
pub(super) fn backoff() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Attempts at what is asked of nodes, rather than of the owners of slots.
pub(super) struct Retries<P> {
    began: Instant,
    pauses: P,
}

impl<P: Iterator<Item = Duration>> Retries<P> {
    /// Waits before another attempt. Returns whether there is to be one: the fault may pass, and did not yet stay for
    /// too long.
    pub(super) async fn pause_after(&mut self, fault: &Fault) -> bool {
        if !fault.class.is_passing() || self.began.elapsed() > PATIENCE {
            return false;
        }
        sleep(self.pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        true
    }
}

/// Begins with the first attempt.
pub(super) fn retries() -> Retries<impl Iterator<Item = Duration> + Send> {
    Retries { began: Instant::now(), pauses: backoff() }
}
