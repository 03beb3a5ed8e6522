//! What holds a run back for the sake of Redis' other clients, against real servers.

use std::time::{Duration, Instant};

use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::keyspace::FaultClass;
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::admission::HeldBy;
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use outpost_migrate_redis::model::policy::Limits;
use outpost_migrate_redis::model::progress::Progress;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::support::engine::{Bench, Expected, Reins};
use crate::support::process::Signal;
use crate::support::redis_cluster::{Cluster, wait_replicated};
use crate::support::redis_server::{Options, Standalone};
use crate::support::wait::eventually_true;

const SOON: Duration = Duration::from_secs(20);

async fn config_set(connection: &mut MultiplexedConnection, name: &str, value: &str) {
    redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(connection).await.expect("CONFIG SET");
}

async fn info(connection: &mut MultiplexedConnection, section: &str, name: &str) -> u64 {
    let info: String = redis::cmd("INFO").arg(section).query_async(connection).await.expect("INFO");
    let value = info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':')).expect("a field");
    value.parse().expect("a number")
}

async fn wait_held(progress: &watch::Receiver<Option<Progress>>, by: HeldBy) {
    let is_held =
        |now: &Option<Progress>| now.as_ref().and_then(|now| now.held.as_ref()).is_some_and(|held| held.by == by);
    let mut progress = progress.clone();
    tokio::time::timeout(SOON, progress.wait_for(is_held)).await.expect("it waits in time").expect("progress");
}

/// Keys in one server, without those of a run.
async fn size(connection: &mut MultiplexedConnection) -> u64 {
    redis::cmd("DBSIZE").query_async(connection).await.expect("DBSIZE")
}

#[tokio::test]
async fn the_pace_is_that_of_the_limit_and_changes_on_the_way() {
    const SLOW: u32 = 300;
    const FAST: u32 = 1500;
    let redis = Standalone::start(Options::default()).await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 9000).await;
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    let limits = watch::Sender::new(Limits { keys_per_second: Some(SLOW), ..Limits::default() });
    let reins = Reins::limited(limits.clone());
    let mut connection = redis.connection().await;
    let counted = async {
        let first = size(&mut connection).await;
        eventually_true(SOON, "it copies", async || size(&mut connection.clone()).await > first + 100).await;
        let mut measured = async |seconds: u64| {
            let (before, began) = (size(&mut connection).await, Instant::now());
            // Measured windows.
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let copied = size(&mut connection).await - before;
            u32::try_from(u128::from(copied) * 1000 / began.elapsed().as_millis()).expect("a rate")
        };
        let slow = measured(10).await;
        limits.send_replace(Limits { keys_per_second: Some(FAST), ..Limits::default() });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let fast = measured(4).await;
        limits.send_replace(Limits::default());
        (slow, fast)
    };
    let (applied, (slow, fast)) = tokio::join!(held.apply(&reins.control, &plan, &run), counted);
    assert_eq!(applied.expect("copies").processed(), expected.sources());
    println!("{slow} keys/s at {SLOW}, {fast} at {FAST}");
    assert!(slow.abs_diff(SLOW) <= SLOW / 20, "{slow} keys/s instead of {SLOW}");
    assert!(fast.abs_diff(FAST) <= FAST / 10, "{fast} keys/s instead of {FAST}");
    let proof = held.prove(&Control::unattended(), &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;
    expected.assert_migrated(&bench).await;
}

/// Keeps a server busy, one command of tens of milliseconds after the other, until it is dropped.
async fn busy(redis: &Standalone) -> AbortOnDropHandle<()> {
    let mut connection = redis.connection().await;
    redis::cmd("HSET").arg("busy").arg("field").arg("value").exec_async(&mut connection).await.expect("HSET");
    let work = "for number = 1, 40000 do redis.call('HGETALL', KEYS[1]) end";
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            redis::cmd("EVAL").arg(work).arg(1).arg("busy").exec_async(&mut connection).await.expect("EVAL");
        }
    }))
}

#[tokio::test]
async fn a_run_gives_way_while_round_trips_are_long() {
    let redis = Standalone::start(Options::default()).await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 9000).await;
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    let limits = watch::Sender::new(Limits { max_latency: Some(Duration::from_millis(5)), ..Limits::default() });
    let reins = Reins::limited(limits.clone());
    let mut connection = redis.connection().await;
    let work = busy(&redis).await;
    let counted = async {
        let first = size(&mut connection).await;
        eventually_true(SOON, "it copies", async || size(&mut connection.clone()).await > first + 100).await;
        let mut measured = async || {
            let before = size(&mut connection).await;
            // A measured window.
            tokio::time::sleep(Duration::from_secs(3)).await;
            size(&mut connection).await - before
        };
        let with_limit = measured().await;
        limits.send_replace(Limits::default());
        let without = measured().await;
        drop(work);
        (with_limit, without)
    };
    let (applied, (with_limit, without)) = tokio::join!(held.apply(&reins.control, &plan, &run), counted);
    assert_eq!(applied.expect("copies").processed(), expected.sources());
    println!("{with_limit} keys with the limit, {without} without, on a server as busy");
    assert!(with_limit > 0, "so much is always asked for");
    assert!(without > with_limit * 2, "{with_limit} keys with the limit, {without} without");
    let proof = held.prove(&Control::unattended(), &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;
}

#[tokio::test]
async fn a_primary_short_of_memory_pauses_the_copies_until_it_has_room() {
    let redis = Standalone::start(Options::default()).await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 1000).await;
    let reins = Reins::paced(2000);
    let mut connection = redis.connection().await;
    let squeeze = async {
        expected.wait_halfway(&bench.redis).await;
        let used = info(&mut connection, "memory", "used_memory").await;
        config_set(&mut connection, "maxmemory", &(used + used / 100).to_string()).await;
        wait_held(&reins.progress, HeldBy::Memory).await;
        // Batches under way end.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let there = expected.targets_there(&bench.redis).await;
        assert!(there < expected.targets.len(), "it was over before");
        // A measured window: nothing is copied.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(expected.targets_there(&bench.redis).await, there);
        bench.assert_no_mark().await;
        config_set(&mut connection, "maxmemory", "0").await;
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), squeeze);
    let walk = result.expect("a mark");
    assert_eq!(walk.apply.processed(), expected.sources());
    expected.assert_migrated(&bench).await;
}

/// Cleanup frees memory, so there is nothing to wait for; what it lacks before Redis 7.0 is told at once.
#[tokio::test]
async fn a_cleanup_that_memory_keeps_from_asking_replicas_says_so() {
    let cluster = Cluster::start(3, 1, Options { server: Some("redis-6.2.14"), ..Options::default() }).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let held = bench.hold().await;
    let mut connection = cluster.connection(1).await;
    config_set(&mut connection, "maxmemory", "1mb").await;
    let cleaned = tokio::time::timeout(SOON, held.cleanup(&Control::unattended())).await.expect("an end in time");
    let stop = cleaned.expect_err("no replica was asked");
    assert!(matches!(&stop, Stop::Fault(fault) if fault.class == FaultClass::OutOfMemory), "{stop:?}");
    assert!(stop.to_string().contains("before Redis 7.0"), "{stop}");
    config_set(&mut connection, "maxmemory", "0").await;
    let report = held.cleanup(&Control::unattended()).await.expect("a cleanup");
    held.release().await;
    assert_eq!(report.removed, expected.sources());
}

#[tokio::test]
async fn the_plan_names_the_primary_that_is_too_small_and_what_copies_take() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 3000).await;
    let mut connection = cluster.connection(1).await;
    let used = info(&mut connection, "memory", "used_memory").await;
    // Room for the copies of one primary alone would do; there is a little less.
    let estimated = bench.plan().await.expect("a plan").seen.estimated_bytes;
    config_set(&mut connection, "maxmemory", &(used + estimated / 3 / 2).to_string()).await;
    let plan = bench.plan().await.expect("a plan");
    let findings: Vec<_> = plan.seen.findings.iter().filter(|it| it.code == FindingCode::Memory).collect();
    let [finding] = findings[..] else { panic!("{findings:?}") };
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.message.starts_with(&format!("127.0.0.1:{}", cluster.port(1))), "{}", finding.message);

    config_set(&mut connection, "maxmemory", "0").await;
    let mut before = 0;
    let mut after = 0;
    for node in 0..3 {
        before += info(&mut cluster.connection(node).await, "memory", "used_memory_dataset").await;
    }
    bench.migrate(&Control::unattended()).await.expect("a mark");
    for node in 0..3 {
        after += info(&mut cluster.connection(node).await, "memory", "used_memory_dataset").await;
    }
    let took = after - before;
    println!("estimated {estimated} bytes, took {took}");
    assert!(estimated > took * 8 / 10 && estimated < took * 14 / 10, "estimated {estimated}, took {took}");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_replica_that_takes_nothing_pauses_the_run_before_it_is_dropped() {
    let cluster = Cluster::start(3, 1, Options { node_timeout: Duration::from_secs(30), ..Options::default() }).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load_entries(&bench.redis, bulky(), KeyLayout::Outpost).await;
    let mut primary = cluster.connection(0).await;
    wait_replicated(&mut primary, 1).await;
    config_set(&mut primary, "repl-backlog-size", "16384").await;
    config_set(&mut primary, "client-output-buffer-limit", "replica 8388608 8388608 60").await;
    let replica = cluster.replicas_of(0).await[0];
    let syncs = info(&mut primary, "stats", "sync_full").await;
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    let reins = Reins::paced(3000);
    let stopped = async {
        let first = size(&mut primary).await;
        eventually_true(SOON, "it copies", async || size(&mut primary.clone()).await > first + 100).await;
        cluster.signal(replica, Signal::STOP);
        wait_held(&reins.progress, HeldBy::Replicas).await;
        // Batches under way end, at their pace.
        let mut there = 0;
        while there != size(&mut primary).await {
            there = size(&mut primary).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // A measured window: nothing is copied, and the replica stays attached.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(size(&mut primary).await, there);
        assert_eq!(info(&mut primary, "replication", "connected_slaves").await, 1);
        assert!(reins.progress.borrow().as_ref().is_some_and(|now| now.replica_lag_bytes > Some(1 << 20)));
        cluster.signal(replica, Signal::CONT);
    };
    let (applied, ()) = tokio::join!(held.apply(&reins.control, &plan, &run), stopped);
    assert_eq!(applied.expect("it goes on by itself").processed(), expected.sources());
    let proof = held.prove(&Control::unattended(), &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;
    expected.assert_migrated(&bench).await;
    assert_eq!(info(&mut primary, "stats", "sync_full").await, syncs, "the replica was never dropped");
}

/// Entries of some KiB, so that replication has something to carry.
fn bulky() -> Vec<crate::support::value::Entry> {
    let mut state = 1_u64;
    // Nothing that compresses.
    let mut filling = || -> String {
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + u8::try_from(state >> 33 & 63).expect("small"))
        };
        (0..4096).map(|_| letter()).collect()
    };
    let mut tenant = |number: usize| {
        let id = format!("bulky_{number}");
        let filling = filling();
        let value = crate::support::value::Value::hash([
            ("id", id.as_str()),
            ("created_at", "2026-11-01T00:00:00Z"),
            ("metadata", filling.as_str()),
        ]);
        crate::support::value::Entry::new(format!("tenant:{id}"), value)
    };
    (0..24_000).map(&mut tenant).collect()
}
