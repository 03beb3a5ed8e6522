//! What another client of the same server feels while apply runs, and whether `keysPerSecond` is kept.
//!
//! Owns the other client: it asks at a steady rate whatever the answers do, and counts from when each request was
//! due, so that a pause is felt by every request that fell into it. Its twin asks an idle server of its own at the
//! same time: what that one feels is the machine's doing, since all processes here share its cores.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::keys::Keys;
use crate::limits;
use crate::raw::Lane;
use crate::report::{Line, Report};
use crate::steps::{Order, Walk, unix_now};
use crate::support::redis_server::{Options, Standalone};

const PER_SECOND: u32 = 1000;

/// Own keys of the other client.
const KEYS: usize = 1000;

/// How long a paced apply is watched.
const WATCHED: f64 = 10.0;

/// Rates of the paced runs.
const PACES: [u32; 2] = [2_000, 8_000];

/// The limit on round trips that is tried.
const MAX_LATENCY_MS: u64 = 2;

/// A run hash is left by an apply that was not proven.
const STATE_KEYS: usize = 1;

/// Without a limit and with each, each beside the idle server.
pub async fn measure(keys: &Keys, report: &mut Report) {
    let aside = Standalone::start(Options::default()).await;
    let ports = [keys.ports[0], aside.port()];
    // Another part may have left the keyspace migrated.
    keys.reload().await;
    let idle = felt(ports, || thread::sleep(Duration::from_secs(3)));
    tell(report, "idle", &idle, f64::MIN..f64::MAX);
    // What a client without any regard does to others, to measure ours by.
    let raw = felt(ports, || {
        limits::copy(keys);
    });
    tell(report, "COPY by raw pipelines", &raw, f64::MIN..f64::MAX);
    let paced = PACES.map(|pace| (format!("apply, keysPerSecond {pace}"), Some(pace), None));
    let settings = [("apply without limits".to_owned(), None, None)]
        .into_iter()
        .chain([(format!("apply, maxLatency {MAX_LATENCY_MS} ms"), None, Some(MAX_LATENCY_MS))])
        .chain(paced);
    for (name, pace, max_latency_ms) in settings {
        keys.reload().await;
        let mut order = Order::new(&keys.redis, Walk::Apply);
        order.keys_per_second = pace;
        order.max_latency_ms = max_latency_ms;
        order.seconds = (pace.is_some() || max_latency_ms.is_some()).then_some(WATCHED);
        let mut costs = Vec::new();
        let during = felt(ports, || costs = order.run());
        let Some(cost) = costs.first() else { continue };
        tell(report, &name, &during, cost.began..cost.began + cost.seconds);
        let Some(pace) = pace else { continue };
        // Counted on the server, not by our own words: what is there beyond the sources.
        let foreign = KEYS + STATE_KEYS;
        let copied = keys.size().saturating_sub(keys.pairs.len() + foreign);
        if copied < keys.pairs.len() {
            let rate = copied as f64 / cost.seconds;
            report.push(Line::new("pace", name, rate, "keys/s").of("keysPerSecond", f64::from(pace)).peak(cost.peak));
        } else {
            report.notes.push(format!("{name}: all was copied before the time was over; use more entries"));
        }
    }
}

/// How long one request waited.
struct Wait {
    /// When it was due, in seconds since 1970.
    due: f64,
    milliseconds: f64,
}

/// What the two clients felt at the same time.
pub struct Felt {
    /// The one that shares the server with the work.
    shared: Vec<Wait>,
    /// The one whose server has nothing else to do.
    aside: Vec<Wait>,
}

impl Felt {
    /// The longest wait of each, in milliseconds.
    pub fn worst(&self) -> [f64; 2] {
        [&self.shared, &self.aside].map(|waits| waits.iter().map(|wait| wait.milliseconds).fold(0.0, f64::max))
    }
}

/// Reports the waits of requests that were due while what is measured ran; starting and planning are not.
fn tell(report: &mut Report, when: &str, felt: &Felt, due: Range<f64>) {
    let [shared, aside] = [&felt.shared, &felt.aside].map(|waits| {
        let during = waits.iter().filter(|wait| due.contains(&wait.due));
        let mut milliseconds: Vec<f64> = during.map(|wait| wait.milliseconds).collect();
        assert!(!milliseconds.is_empty(), "{when}: over before anybody could feel it; use more entries");
        milliseconds.sort_by(f64::total_cmp);
        milliseconds
    });
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        let at = |milliseconds: &[f64]| milliseconds[((milliseconds.len() - 1) as f64 * share) as usize];
        report
            .push(Line::new("latency", format!("{when}: {name}"), at(&shared), "ms").beside("idle server", at(&aside)));
    }
}

/// How long the other clients wait for each answer while something else is done: of the server at the first port, and
/// of the idle one at the second.
pub fn felt(ports: [u16; 2], meanwhile: impl FnOnce()) -> Felt {
    let over = AtomicBool::new(false);
    let [shared, aside] = ports.map(prepared);
    thread::scope(|scope| {
        let [shared, aside] = [shared, aside].map(|lane| scope.spawn(|| ask_until(lane, &over)));
        meanwhile();
        over.store(true, Ordering::Relaxed);
        let waits = |client: thread::ScopedJoinHandle<'_, Vec<Wait>>| client.join().expect("another client");
        Felt { shared: waits(shared), aside: waits(aside) }
    })
}

/// All of one slot, that of the huge entries' targets, for a node of a cluster answers for its own slots alone.
fn key(number: usize) -> String {
    format!("other:{{tenant:huge}}:{}", number % KEYS)
}

/// A connection to a server that has the other client's keys.
fn prepared(port: u16) -> Lane {
    let mut lane = Lane::open(port);
    (0..KEYS).for_each(|number| {
        lane.ask(&[b"HSET", key(number).as_bytes(), b"field", b"value"]);
    });
    lane
}

fn ask_until(mut lane: Lane, over: &AtomicBool) -> Vec<Wait> {
    let mut waits = Vec::new();
    let began = Instant::now();
    for number in 0_u32.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let due = began + Duration::from_secs(1) * number / PER_SECOND;
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        let key = key(number as usize);
        if number % 2 == 0 {
            lane.ask(&[b"HGET", key.as_bytes(), b"field"]);
        } else {
            lane.ask(&[b"HSET", key.as_bytes(), b"field", b"value"]);
        }
        let waited = due.elapsed().as_secs_f64();
        waits.push(Wait { due: unix_now() - waited, milliseconds: waited * 1000.0 });
    }
    waits
}
