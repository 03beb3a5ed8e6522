//! The engine against a real Redis Cluster of three primaries and three replicas.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::keyspace::conditional::Outcome;
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::policy::{Limits, MinReplicas, REPLICA_PATIENCE};
use rand::RngExt;
use rstest::rstest;

use crate::support::engine::{Bench, Expected, Reins, assert_no_lock, assert_settled, hset, is_state};
use crate::support::events::Events;
use crate::support::fixture::read_fixture;
use crate::support::generator::{Generator, now_ms, unmigrated};
use crate::support::load::load;
use crate::support::process::Signal;
use crate::support::redis_client::slot;
use crate::support::redis_cluster::{Cluster, wait_replicated};
use crate::support::redis_server::Options;
use crate::support::value::{Entry, Keyspace, Value};
use crate::support::wait::eventually_true;

async fn start() -> Cluster {
    Cluster::start(3, 1, Options::default()).await
}

async fn without_replicas() -> Cluster {
    Cluster::start(3, 0, Options::default()).await
}

async fn walk(layout: KeyLayout, tenants: usize) {
    let cluster = start().await;
    let bench = Bench::with_layout(&cluster.endpoint(), layout);
    let expected = Expected::load_for(&bench.redis, tenants, layout).await;

    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!(walk.plan.seen.total_sources(), expected.sources());
    assert_eq!(walk.plan.seen.unmigrated.total(), unmigrated().len() as u64);
    assert_eq!(walk.apply.processed(), expected.sources());
    assert_eq!((walk.verify.equal, walk.verify.different), (expected.sources(), 0));
    expected.assert_migrated(&bench).await;

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept(), report.gone), (expected.sources(), 0, 0));
    let (data, state) = bench.snapshot().await;
    expected.cleaned_up().assert_same(&data, "cleaned up");
    assert_settled(&state);
}

#[tokio::test]
async fn six_thousand_tenants_walk_from_plan_to_cleanup() {
    walk(KeyLayout::Outpost, 6000).await;
}

#[tokio::test]
async fn the_documented_layout_walks_too() {
    walk(KeyLayout::TenantTag, 500).await;
}

#[tokio::test]
async fn walks_over_a_keyspace_that_outpost_wrote() {
    let cluster = without_replicas().await;
    let bench = Bench::new(&cluster.endpoint());
    let fixture = read_fixture("tests/fixtures/outpost-v0.5-keyspace.jsonl");
    let expected = Expected::load_entries(&bench.redis, fixture, KeyLayout::Outpost).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    expected.assert_migrated(&bench).await;
    bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn a_second_run_writes_no_data() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;
    bench.try_prove(&Control::unattended()).await.expect("a proof");
    let events = Events::listen(&bench.redis).await;
    let report = bench.try_prove(&Control::unattended()).await.expect("a proof");
    events.assert_only(is_state).await;
    assert_eq!((report.written(), report.already_migrated), (0, expected.sources()));
}

#[tokio::test]
async fn tombstones_that_end_meanwhile_are_no_failure() {
    let cluster = without_replicas().await;
    let bench = Bench::new(&cluster.endpoint());
    let now = now_ms();
    let mut entries: Vec<Entry> = Generator::new(5, 100).entries().collect();
    for number in 0..600 {
        let value = Value::hash([("deleted_at", "2026-11-01T00:00:00Z")]);
        entries.push(Entry::new(format!("tenant:gone_{number}"), value).expiring(now + 1_500 + number * 3));
    }
    let expected = Expected::load_entries(&bench.redis, entries, KeyLayout::Outpost).await;
    let reins = Reins::paced(500);
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    let report = held.apply(&reins.control, &plan, &run).await.expect("a copy");
    assert!(report.copied > 100, "some were copied");
    assert_eq!(report.conflicts, 0);
    let proof = held.prove(&Control::unattended(), &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;
    let (data, state) = bench.snapshot().await;
    assert_settled(&state);
    let at = now_ms();
    let lives = |keyspace: &Keyspace| keyspace.filter(|_, held| held.expiry_ms.is_none_or(|end| end > at + 60_000));
    lives(&expected.migrated()).assert_same(&lives(&data), "all that did not end");
    assert!(data.filter(|_, held| held.expiry_ms.is_none()).keys().all(|key| !key.starts_with(b"tenant:{gone")));
}

#[tokio::test]
async fn slots_that_move_meanwhile_hide_nothing() {
    let cluster = without_replicas().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 400).await;
    let reins = Reins::paced(400);
    let moving = async {
        expected.wait_halfway(&bench.redis).await;
        // A source's slot, a target's slot, and the mark's.
        let keys = [&b"tenant:tenant_1"[..], b"tenant:{tenant_2}:tenant", b"outpost:migration:001_hash_tags"];
        for key in keys {
            let slot = slot(key);
            let from = cluster.owner(slot).await;
            cluster.move_slot(slot, from, (from + 1) % 3).await;
        }
        expected.assert_halfway(&bench.redis).await;
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), moving);
    let walk = result.expect("a mark");
    assert_eq!(walk.verify.equal, expected.sources());
    expected.assert_migrated(&bench).await;
}

#[rstest]
#[case::of_a_source(b"tenant:tenant_1")]
#[case::of_a_target(b"tenant:{tenant_1}:tenant")]
#[tokio::test]
async fn a_half_moved_slot_keeps_a_run_from_its_mark(#[case] key: &[u8]) {
    let cluster = without_replicas().await;
    let bench = Bench::new(&cluster.endpoint());
    let generated: Vec<Entry> = Generator::new(42, 300).entries().collect();
    let tagged = (0..20).map(|number| {
        // More keys of the same slot, so that half of them is on either side.
        let id = format!("x{number}{{tenant:tenant_1}}");
        Entry::new(format!("tenant:{id}"), Value::hash([("id", id)]))
    });
    let entries = generated.into_iter().chain(tagged).collect();
    let expected = Expected::load_entries(&bench.redis, entries, KeyLayout::Outpost).await;
    let slot = slot(key);
    let from = cluster.owner(slot).await;
    let to = (from + 1) % 3;
    cluster.open_slot(slot, from, to).await;

    let reins = Reins::new(Limits::default()).patience(Duration::from_secs(2));
    let began = Instant::now();
    let stop = bench.migrate(&reins.control).await.map(|_| ()).expect_err("a stop");
    assert!(matches!(&stop, Stop::Incomplete { missing: 1, example } if example.contains(&slot.to_string())), "{stop}");
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    bench.assert_no_mark().await;
    assert_no_lock(&bench.snapshot().await.1);

    cluster.close_slot(slot, from, to).await;
    bench.migrate(&reins.control).await.expect("a mark once it is closed");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_slot_that_opens_during_apply_is_waited_for() {
    let cluster = without_replicas().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;
    let slot = slot(b"tenant:tenant_1");
    let from = cluster.owner(slot).await;
    let to = (from + 1) % 3;
    // The looks take longer than the patience, which counts waiting only.
    let reins = Reins::paced(250).patience(Duration::from_secs(2));
    let moving = async {
        expected.wait_halfway(&bench.redis).await;
        cluster.open_slot(slot, from, to).await;
        expected.assert_halfway(&bench.redis).await;
        cluster.close_slot(slot, from, to).await;
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), moving);
    let walk = result.expect("a mark");
    assert_eq!(walk.apply.processed(), expected.sources());
    expected.assert_migrated(&bench).await;
}

/// Waits until every replica has what was loaded, so that a failover loses none of it.
async fn replicated(cluster: &Cluster) {
    for primary in cluster.primaries().await {
        let mut connection = cluster.connection(primary).await;
        redis::cmd("PUBLISH").arg("c").arg("m").exec_async(&mut connection).await.expect("PUBLISH");
        wait_replicated(&mut connection, 1).await;
    }
}

#[tokio::test]
async fn a_killed_primary_costs_no_key() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 400).await;
    replicated(&cluster).await;
    let reins = Reins::paced(400);
    let failing = async {
        expected.wait_halfway(&bench.redis).await;
        cluster.kill_node(1);
        cluster.wait_promoted(1).await;
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), failing);
    if let Err(stop) = &result {
        println!("stopped: {stop}");
        bench.assert_no_mark().await;
        // A lock that was held by the dead primary may have to end by itself.
        eventually_true(Duration::from_secs(20), "the lock ends", async || {
            bench.snapshot().await.1.keys().all(|key| !key.ends_with(b"lock"))
        })
        .await;
        bench.migrate(&Control::unattended()).await.expect("a rerun's mark");
    }
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_failover_without_loss_costs_no_key() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 400).await;
    replicated(&cluster).await;
    let reins = Reins::paced(400);
    let failing = async {
        expected.wait_halfway(&bench.redis).await;
        expected.assert_halfway(&bench.redis).await;
        cluster.failover(3).await;
        cluster.failover(4).await;
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), failing);
    let walk = result.expect("a mark");
    assert_eq!(walk.verify.equal, expected.sources());
    expected.assert_migrated(&bench).await;
    bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn a_silent_replica_keeps_a_run_from_its_mark() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 50).await;
    replicated(&cluster).await;
    cluster.signal(4, Signal::STOP);
    let began = Instant::now();
    let stop = bench.migrate(&Control::unattended()).await.map(|_| ()).expect_err("a stop");
    let Stop::ReplicasMissing(short) = &stop else { panic!("{stop:?}") };
    assert_eq!((short.len(), short[0].node.port, short[0].acknowledged), (1, cluster.port(1), 0));
    assert!(began.elapsed() < REPLICA_PATIENCE + Duration::from_secs(5));
    cluster.signal(4, Signal::CONT);
    bench.assert_no_mark().await;
    assert_no_lock(&bench.snapshot().await.1);
    bench.migrate(&Control::unattended()).await.expect("a mark once it is back");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn more_replicas_than_there_are_can_not_acknowledge() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint()).min_replicas(MinReplicas::Exactly(2));
    Expected::load(&bench.redis, 20).await;
    let plan = bench.plan().await.expect("a plan");
    assert!(plan.errors().any(|finding| finding.code == FindingCode::Replicas && finding.severity == Severity::Error));
    let stop = bench.migrate(&Control::unattended()).await.map(|_| ()).expect_err("a stop");
    assert!(matches!(&stop, Stop::PreflightFailed(_)), "{stop:?}");
    let held = bench.hold().await;
    let short = held.writer.wait_for_replicas(
        MinReplicas::Exactly(2),
        Duration::from_millis(300),
        "outpost:migration:staging:",
    );
    assert_eq!(short.await.expect("an answer").len(), 3);
    held.release().await;
    bench.assert_no_mark().await;
}

#[tokio::test]
async fn replicas_of_a_dead_primary_have_not_acknowledged() {
    let cluster = without_replicas().await;
    let bench = Bench::new(&cluster.endpoint());
    let held = bench.hold().await;
    cluster.kill_node(2);
    let answer =
        held.writer.wait_for_replicas(MinReplicas::OneIfAny, Duration::from_millis(300), "outpost:migration:staging:");
    assert!(answer.await.is_err(), "a dead primary acknowledged");
}

/// What comes right before the mark waits for a failover as everything else does.
#[tokio::test]
async fn a_failover_right_before_the_barrier_is_waited_for() {
    let cluster = start().await;
    let mut bench = Bench::new(&cluster.endpoint());
    bench.life = Duration::from_secs(60);
    Expected::load(&bench.redis, 20).await;
    let held = bench.hold().await;
    wait_replicated(&mut cluster.connection(2).await, 1).await;
    cluster.kill_node(2);

    let short =
        held.writer.wait_for_replicas(MinReplicas::OneIfAny, REPLICA_PATIENCE, "outpost:migration:staging:").await;
    assert_eq!(short, Ok(Vec::new()), "once its replica is promoted");
    held.release().await;
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    rand::rng().fill(&mut bytes[..]);
    bytes
}

/// Ids of tenants whose sources and targets all lie on one primary of three.
fn tenants_on(primary: usize) -> impl Iterator<Item = String> {
    let node = |key: String| usize::from(slot(key.as_bytes())) * 3 / 16_384;
    (0..)
        .map(|number| format!("t{number}"))
        .filter(move |id| node(format!("tenant:{id}")) == primary && node(format!("tenant:{{{id}}}:tenant")) == primary)
}

#[tokio::test]
async fn what_a_failover_loses_after_the_comparison_is_noticed() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let tenant = |id: String, size: usize| {
        Entry::new(
            format!("tenant:{id}"),
            Value::hash([(&b"id"[..], id.as_bytes()), (b"metadata", &random_bytes(size))]),
        )
    };
    let few = tenants_on(1).take(50).map(|id| tenant(id, 10));
    let many = tenants_on(2).take(2000).map(|id| tenant(id, 10));
    let expected = Expected::load_entries(&bench.redis, few.chain(many).collect(), KeyLayout::Outpost).await;
    replicated(&cluster).await;
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    // Stopped and cut off: what is written from here on does not wait for it in the kernel's buffers either.
    cluster.signal(4, Signal::STOP);
    let mut primary = cluster.connection(1).await;
    let cut: usize = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("replica")
        .query_async(&mut primary)
        .await
        .expect("CLIENT KILL");
    assert_eq!(cut, 1, "replicas of the second primary");
    held.apply(&Control::unattended(), &plan, &run).await.expect("a copy");

    let reins = Reins::paced(500);
    let mut progress = reins.progress.clone();
    let failing = async {
        // By then everything on the other primary has been compared.
        progress.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.processed > 1000)).await.expect("progress");
        cluster.kill_node(1);
        cluster.signal(4, Signal::CONT);
        // Once its link is down, it has read all that will ever come.
        eventually_true(Duration::from_secs(10), "the replica misses its primary", async || {
            let info = cluster.node(4).info("replication").await.expect("INFO");
            info("master_link_status").as_deref() == Some("down")
        })
        .await;
        let mut connection = cluster.connection(4).await;
        let keys: usize = redis::cmd("DBSIZE").query_async(&mut connection).await.expect("DBSIZE");
        assert!((50..100).contains(&keys), "the failover lost nothing: {keys} keys");
        cluster.failover(4).await;
    };
    let (proof, ()) = tokio::join!(held.prove(&reins.control, &plan, &run), failing);
    match proof {
        Ok(proof) => {
            held.mark(proof).await.expect("a mark");
            held.release().await;
            expected.migrated().assert_same(&bench.snapshot().await.0, "the mark is true");
        }
        Err(stop) => {
            println!("stopped: {stop}");
            bench.assert_no_mark().await;
        }
    }
}

#[tokio::test]
async fn a_slow_replica_holds_what_was_marked() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let tenant = |id: String| {
        let metadata = random_bytes(400_000);
        Entry::new(format!("tenant:{id}"), Value::hash([(&b"id"[..], id.as_bytes()), (b"metadata", &metadata)]))
    };
    let entries = tenants_on(1).take(50).map(tenant).collect();
    let expected = Expected::load_entries(&bench.redis, entries, KeyLayout::Outpost).await;
    replicated(&cluster).await;

    let control = Control::unattended();
    // A replica that is stopped nearly all the time, so that the writes of a moment ago are not yet there.
    let slow = async {
        loop {
            cluster.signal(4, Signal::STOP);
            tokio::time::sleep(Duration::from_millis(290)).await;
            cluster.signal(4, Signal::CONT);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held = bench.hold().await;
    let walk = tokio::select! {
        walk = held.migrate(&control) => walk,
        () = slow => unreachable!("it goes on for ever"),
    };
    // The mark stands: from here on whatever its primary had alone would be lost.
    cluster.kill_node(1);
    cluster.signal(4, Signal::CONT);
    assert_eq!(walk.expect("a mark").verify.equal, expected.sources());
    cluster.wait_promoted(1).await;
    held.release().await;
    let (data, _) = bench.snapshot().await;
    expected.migrated().assert_same(&data, "what the slow replica holds");
}

#[tokio::test]
async fn a_primary_that_hangs_holds_up_no_other() {
    // Long enough that the cluster does not call itself down meanwhile.
    let cluster = Cluster::start(3, 0, Options { node_timeout: Duration::from_secs(30), ..Options::default() }).await;
    let bench = Bench::new(&cluster.endpoint());
    let keyspace = Arc::new(bench.keyspace().await);
    let on = |node: usize| [RedisKey::from(format!("tenant:{}", tenants_on(node).next().expect("an id")))];
    let mut connection = cluster.connection(2).await;
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal").exec_async(&mut connection).await.expect("CLIENT KILL");
    cluster.signal(2, Signal::STOP);
    let hanging = tokio::spawn({
        let (keyspace, keys) = (Arc::clone(&keyspace), on(2));
        async move { keyspace.exist(&keys).await }
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let asked = Instant::now();
        keyspace.exist(&on(0)).await.expect("an answer of another primary");
        assert!(asked.elapsed() < Duration::from_secs(1), "held up for {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!hanging.is_finished(), "the fault did not hit");
    cluster.signal(2, Signal::CONT);
    hanging.await.expect("a task").expect("an answer in the end");
}

#[tokio::test]
async fn cleanup_goes_on_through_failovers_and_moves() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    replicated(&cluster).await;
    let reins = Reins::paced(250);
    let left = async || {
        let (data, _) = bench.snapshot().await;
        expected.pairs.keys().filter(|source| data.contains_key(*source)).count()
    };
    let failing = async {
        let all = expected.pairs.len();
        eventually_true(Duration::from_secs(30), "cleanup has begun", async || left().await < all * 4 / 5).await;
        cluster.failover(3).await;
        let slot = slot(b"tenant:tenant_1");
        let from = cluster.owner(slot).await;
        let to = cluster.primaries().await.into_iter().find(|node| *node != from).expect("another primary");
        cluster.move_slot(slot, from, to).await;
        assert!(left().await > 0, "the fault did not hit");
    };
    let (result, ()) = tokio::join!(bench.cleanup(&reins.control), failing);
    let report = result.expect("a cleanup");
    assert_eq!(report.kept(), 0);
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn cleanup_deletes_nothing_that_no_replica_holds() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 50).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    cluster.signal(4, Signal::STOP);
    let stop = bench.cleanup(&Control::unattended()).await.expect_err("a stop");
    assert!(matches!(stop, Stop::ReplicasMissing(_)), "{stop:?}");
    cluster.signal(4, Signal::CONT);
    expected.migrated().assert_same(&bench.snapshot().await.0, "nothing was deleted");
}

/// A tenant and a summary that are too big for a script, and not too big for one copy.
fn big_entries() -> Vec<Entry> {
    let fields = (0..5000).map(|number| (format!("f{number}"), format!("v{number}")));
    let tenant = Value::hash(fields.chain([("id".to_owned(), "big".to_owned())]));
    let lines =
        (0..3000).map(|number| (format!("des_{number}"), format!(r#"{{"id":"des_{number}","type":"webhook"}}"#)));
    let wide = Value::hash([(&b"id"[..], b"wide".to_vec()), (b"metadata", random_bytes(700_000))]);
    vec![
        Entry::new("tenant:big", tenant),
        Entry::new("tenant:big:destinations", Value::hash(lines)),
        Entry::new("tenant:wide", wide),
    ]
}

#[tokio::test]
async fn big_entries_are_copied_refreshed_and_removed() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load_entries(&bench.redis, big_entries(), KeyLayout::Outpost).await;
    assert_eq!(expected.pairs.len(), 3);
    let held = bench.hold().await;
    let control = Control::unattended();
    let (plan, run) = held.begin(&control).await.expect("a plan");
    held.apply(&control, &plan, &run).await.expect("a copy");
    for key in [&b"tenant:big"[..], b"tenant:wide"] {
        hset(&bench.redis, key, "updated_at", "late").await;
    }
    let proof = held.prove(&control, &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;
    let (data, _) = bench.snapshot().await;
    for (source, target) in &expected.pairs {
        assert_eq!(data[source], data[target]);
    }
    assert!(data[&b"tenant:{wide}:tenant"[..]].value.field("updated_at").is_some());
    let report = bench.cleanup(&control).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (3, 0));
}

#[tokio::test]
async fn an_entry_of_many_bytes_is_copied_in_pieces() {
    let cluster = without_replicas().await;
    let bench = Bench::new(&cluster.endpoint());
    let huge = Value::hash([(&b"id"[..], b"huge".to_vec()), (b"metadata", random_bytes(1_200_000))]);
    let expected =
        Expected::load_entries(&bench.redis, vec![Entry::new("tenant:huge", huge)], KeyLayout::Outpost).await;
    let plan = bench.plan().await.expect("a plan");
    assert_eq!((plan.seen.huge, plan.errors().count()), (1, 0));
    bench.migrate(&Control::unattended()).await.expect("a mark");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_primary_that_stays_away_ends_a_run_without_a_mark() {
    let cluster = Cluster::start(3, 0, Options { persistent: true, ..Options::default() }).await;
    let mut bench = Bench::new(&cluster.endpoint());
    bench.life = Duration::from_secs(300);
    let expected = Expected::load(&bench.redis, 300).await;
    let reins = Reins::paced(300).patience(Duration::from_secs(2));
    let held = bench.hold().await;
    let failing = async {
        expected.wait_halfway(&bench.redis).await;
        cluster.kill_node(2);
        Instant::now()
    };
    let working = async { (held.migrate(&reins.control).await, Instant::now()) };
    let ((result, ended), killed) = tokio::join!(working, failing);
    let stop = result.map(|_| ()).expect_err("a stop");
    println!("stopped after {:?}: {stop:?}", ended.duration_since(killed));
    assert!(ended.duration_since(killed) < Duration::from_secs(60));
    cluster.restart(2).await;
    held.release().await;
    expected.assert_halfway(&bench.redis).await;
    bench.assert_no_mark().await;
    assert_no_lock(&bench.snapshot().await.1);
    bench.migrate(&Control::unattended()).await.expect("a mark once it is back");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_slot_that_moves_during_the_comparison_costs_one_more() {
    let cluster = without_replicas().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 200).await;
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    held.apply(&Control::unattended(), &plan, &run).await.expect("a copy");
    let reins = Reins::paced(600);
    let mut progress = reins.progress.clone();
    let moving = async {
        progress.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.processed > 200)).await.expect("progress");
        let slot = slot(b"tenant:{tenant_2}:tenant");
        let from = cluster.owner(slot).await;
        cluster.move_slot(slot, from, (from + 1) % 3).await;
        assert!(
            progress.borrow().as_ref().is_some_and(|seen| seen.processed < expected.sources()),
            "the fault did not hit"
        );
    };
    let (proof, ()) = tokio::join!(held.prove(&reins.control, &plan, &run), moving);
    let report = held.mark(proof.expect("a proof")).await.expect("a mark");
    assert_eq!(report.equal, expected.sources());
    held.release().await;
    expected.assert_migrated(&bench).await;
}

/// What a node was asked to do besides the work itself.
#[derive(Debug)]
struct Asked {
    connections: u64,
    scripts: u64,
    /// Times that it described the whole cluster.
    topologies: u64,
}

impl Asked {
    async fn of(cluster: &Cluster, node: usize) -> Self {
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or_default();
        let connections = cluster.node(node).info("stats").await.expect("INFO")("total_connections_received");
        let stats = cluster.node(node).info("commandstats").await.expect("INFO");
        let calls = |command: &str| {
            let line = stats(&format!("cmdstat_{command}"));
            number(line.and_then(|line| Some(line.strip_prefix("calls=")?.split(',').next()?.to_owned())))
        };
        let (scripts, topologies) = (calls("script|load"), calls("cluster|nodes"));
        Self { connections: number(connections), scripts, topologies }
    }
}

/// What is no hash is watched over a connection that nobody else uses meanwhile.
#[tokio::test]
async fn a_thousand_strings_take_few_connections_and_few_scripts() {
    let cluster = without_replicas().await;
    let bench = Bench::with_layout(&cluster.endpoint(), KeyLayout::TenantTag);
    let tenants = (0..10).map(|id| Entry::new(format!("tenant:t{id}"), Value::hash([("id", format!("t{id}"))])));
    let text = |number: u32| Entry::new(format!("tenant:t{}:text{number}", number % 10), Value::String(b"x".to_vec()));
    load(&bench.redis, tenants.chain((0..1000).map(text))).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let before = [Asked::of(&cluster, 0).await, Asked::of(&cluster, 1).await, Asked::of(&cluster, 2).await];

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!((report.removed, report.kept()), (1010, 0));
    for (node, before) in before.into_iter().enumerate() {
        let after = Asked::of(&cluster, node).await;
        let (connections, scripts) = (after.connections - before.connections, after.scripts - before.scripts);
        let topologies = after.topologies - before.topologies;
        println!("node {node}: {connections} connections, {scripts} scripts, {topologies} times asked for the cluster");
        assert!(connections < 30, "node {node} accepted {connections} connections");
        assert!(scripts < 100, "node {node} was sent {scripts} scripts");
        assert!(topologies < 100, "node {node} described the cluster {topologies} times");
    }
}

/// A connection that was idle and is gone is replaced, and nothing else is read anew for it.
#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced() {
    let cluster = without_replicas().await;
    let bench = Bench::new(&cluster.endpoint());
    let keys = [RedisKey::from("tenant:one"), RedisKey::from("tenant:two{tenant:one}")];
    load(&bench.redis, keys.iter().map(|key| Entry::new(key.as_bytes(), Value::String(b"x".to_vec())))).await;
    let held = bench.hold().await;
    let entries = held.writer.entries(&keys).await.expect("entries");
    let mut expected: Vec<_> =
        keys.iter().cloned().zip(entries.into_iter().map(|entry| entry.expect("text"))).collect();
    let still = held.writer.disturbances();
    let second = expected.split_off(1);
    assert_eq!(held.writer.unlink_if_unchanged(&expected, still).await, Ok(vec![Outcome::Done]));
    let mut owner = cluster.connection(cluster.owner(slot(keys[0].as_bytes())).await).await;
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut owner).await.expect("CLIENT LIST");
    // The writer's first connection is the one that the others share.
    let writers = list.lines().filter(|line| line.contains(held.lease.token()));
    let idle: Vec<&str> = writers.skip(1).filter_map(|line| line.split(' ').next()?.strip_prefix("id=")).collect();
    assert_eq!(idle.len(), 1, "one connection is kept for the next: {list}");
    redis::cmd("CLIENT").arg("KILL").arg("ID").arg(idle[0]).exec_async(&mut owner).await.expect("CLIENT KILL");

    assert_eq!(held.writer.unlink_if_unchanged(&second, still).await, Ok(vec![Outcome::Done]));
    held.release().await;
}
