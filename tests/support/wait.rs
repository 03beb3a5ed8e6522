//! Waiting for something to become true, with a deadline.

use std::time::{Duration, Instant};

/// How long a server may take to come up on a busy machine.
pub const STARTUP: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// Asks again and again until the probe answers `Some`; panics with `what` when time is up.
pub async fn eventually<T>(within: Duration, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Like [`eventually`], for a probe that answers yes or no.
pub async fn eventually_true(within: Duration, what: &str, mut probe: impl AsyncFnMut() -> bool) {
    eventually(within, what, async || probe().await.then_some(())).await;
}
