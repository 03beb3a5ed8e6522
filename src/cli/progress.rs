//! Shows how far a step is: a bar on a terminal, a line every few seconds elsewhere, or events.
//!
//! Owns how progress looks. Reads the engine's stream and never holds it up.

use std::future::Future;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};

use crate::cli::screen::{Screen, number};
use crate::model::progress::Progress;
use crate::model::time::human_seconds;

const BAR_TICK: Duration = Duration::from_millis(100);
const LINE_TICK: Duration = Duration::from_secs(5);
const EVENT_TICK: Duration = Duration::from_secs(1);

const MIB: u64 = 1024 * 1024;

/// Acknowledgements come once a second, so that healthy replicas are a little behind.
const WORTH_TELLING: u64 = 8 * MIB;

/// Progress as an event.
#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "the names of the JSON")]
struct ProgressEvent<'a> {
    event: &'static str,
    migration: &'a str,
    #[serde(flatten)]
    progress: &'a Progress,
    percent: Option<u8>,
    eta_seconds: Option<u64>,
}

/// Does some work and shows its progress meanwhile.
pub(super) async fn shown<T>(
    screen: Screen,
    migration: &str,
    progress: watch::Receiver<Option<Progress>>,
    work: impl Future<Output = T>,
) -> T {
    let bar = screen.may_draw().then(new_bar);
    let tick = match (screen.is_json(), &bar) {
        (true, _) => EVENT_TICK,
        (false, Some(_)) => BAR_TICK,
        (false, None) => LINE_TICK,
    };
    let mut ticks = interval_at(Instant::now() + tick, tick);
    let mut work = Box::pin(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick() => {
                let now = progress.borrow().clone();
                if let Some(now) = now {
                    show(screen, bar.as_ref(), migration, &now);
                }
            }
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done
}

fn show(screen: Screen, bar: Option<&ProgressBar>, migration: &str, now: &Progress) {
    if screen.is_json() {
        let (percent, eta_seconds) = (now.percent(), now.eta_seconds());
        let event = ProgressEvent { event: "progress", migration, progress: now, percent, eta_seconds };
        // Who reads the events may be gone; the work goes on.
        let _ = screen.event(&event);
    } else if let Some(bar) = bar {
        draw(bar, migration, now);
    } else {
        tracing::info!("{}", line(migration, now));
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(ProgressStyle::default_spinner());
    bar
}

fn draw(bar: &ProgressBar, migration: &str, now: &Progress) {
    let template = if now.total.is_some() { "{prefix} [{bar:30}] {msg}" } else { "{prefix} {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    if let Some(total) = now.total {
        bar.set_length(total.max(now.processed));
    }
    bar.set_prefix(format!("{} {migration}", now.step));
    bar.set_message(figures(now));
    bar.set_position(now.processed);
}

/// `apply 001_hash_tags: 45% (4,500 of 10,000), 12,000 keys/s, 4m30s left`.
fn line(migration: &str, now: &Progress) -> String {
    format!("{} {migration}: {}", now.step, figures(now))
}

fn figures(now: &Progress) -> String {
    let mut text = match (now.percent(), now.total) {
        (Some(percent), Some(total)) => format!("{percent}% ({} of {})", number(now.processed), number(total)),
        _ => format!("{} entries", number(now.processed)),
    };
    if now.conflicts > 0 {
        text.push_str(&format!(", {} conflicts", number(now.conflicts)));
    }
    if let Some(held) = &now.held {
        text.push_str(&format!(", waiting: {held}"));
        return text;
    }
    if let Some(what) = &now.waits_for {
        text.push_str(&format!(", waiting for {what}"));
        return text;
    }
    text.push_str(&format!(", {} keys/s", number(now.keys_per_second)));
    if let Some(seconds) = now.eta_seconds().filter(|seconds| *seconds > 0) {
        text.push_str(&format!(", {} left", human_seconds(seconds)));
    }
    if let Some(lag) = now.replica_lag_bytes.filter(|lag| *lag >= WORTH_TELLING) {
        text.push_str(&format!(", replicas {} MiB behind", lag / MIB));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::admission::{Held, HeldBy};
    use crate::model::phase::Step;

    #[test]
    fn a_line_tells_share_rate_and_time_left() {
        let now = Progress { processed: 4500, keys_per_second: 100, ..Progress::begin(Step::Apply, Some(10_000)) };
        assert_eq!(line("001_hash_tags", &now), "apply 001_hash_tags: 45% (4,500 of 10,000), 100 keys/s, 55s left");
        let reading = Progress { processed: 7, ..Progress::begin(Step::Plan, None) };
        assert_eq!(line("001_hash_tags", &reading), "plan 001_hash_tags: 7 entries, 0 keys/s");
    }

    #[test]
    fn a_line_tells_what_is_waited_for() {
        let begun = Progress::begin(Step::Apply, Some(100));
        let lagging = Progress { replica_lag_bytes: Some(20 * MIB), ..begun.clone() };
        assert_eq!(line("m", &lagging), "apply m: 0% (0 of 100), 0 keys/s, replicas 20 MiB behind");
        let held =
            Held { by: HeldBy::Memory, node: "r:6379".into(), bytes: 96 * MIB, go_below: 93 * MIB, limit: 100 * MIB };
        let waiting = Progress { held: Some(held), ..begun };
        assert_eq!(
            line("m", &waiting),
            "apply m: 0% (0 of 100), waiting: r:6379 uses 96.0 of 100.0 MiB; raise its maxmemory or free memory, \
             copying goes on by itself below 93.0 MiB"
        );
    }
}
