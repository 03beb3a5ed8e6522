//! Looks that do not count: what they wrote stands all the same.

use std::collections::BTreeSet;
use std::time::Duration;

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::lost_expiry;
use outpost_migrate_redis::model::policy::Limits;
use redis::cmd;

use crate::support::command_stats::calls_at;
use crate::support::engine::{Bench, MARK, Reins, run_on_owner};
use crate::support::generator::now_ms;
use crate::support::load::load;
use crate::support::redis_client::{Endpoint, slot};
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::Options;
use crate::support::snapshot::{present, snapshot};
use crate::support::value::{Bytes, Entry, Value};
use crate::support::wait::eventually_true;

const PATIENCE: Duration = Duration::from_secs(60);

fn paced(keys_per_second: u32) -> Reins {
    let limits = Limits { keys_per_second: Some(keys_per_second), ..Limits::default() };
    Reins::new(limits).patience(PATIENCE)
}

/// A slot of this primary that holds no key.
async fn empty_slot(cluster: &Cluster, owner: usize) -> u16 {
    let used: BTreeSet<u16> = snapshot(&cluster.endpoint()).await.keys().map(|key| slot(key)).collect();
    for candidate in (0..16_384).step_by(7).filter(|candidate| !used.contains(candidate)) {
        if cluster.owner(candidate).await == owner {
            return candidate;
        }
    }
    panic!("every slot of node {owner} holds keys");
}

/// Once `began` holds, keeps a slot open until the look at its primary has ended and another has begun.
async fn spoil_look(cluster: &Cluster, owner: usize, began: impl AsyncFn() -> bool) {
    let (moving, other) = (empty_slot(cluster, owner).await, (owner + 1) % 3);
    let scans = async || calls_at(&mut cluster.connection(owner).await, "scan").await;
    eventually_true(PATIENCE, "the look has written", async || began().await).await;

    let before = scans().await;
    cluster.open_slot(moving, owner, other).await;
    eventually_true(PATIENCE, "the primary is looked at again", async || scans().await > before).await;
    for node in [owner, other] {
        cluster.stabilize_slot(moving, node).await;
    }
}

#[tokio::test]
async fn an_expiry_that_such_a_look_put_back_is_counted() {
    const ENTRIES: usize = 300;
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let end = now_ms() + 3_600_000;
    let deleted = || Value::hash([("deleted_at", "2026-11-01T00:00:00Z")]);
    let sources = (0..ENTRIES).map(|number| Entry::new(format!("tenant:gone_{number}"), deleted()).expiring(end));
    let targets = (0..ENTRIES).map(|number| Entry::new(format!("tenant:{{gone_{number}}}:tenant"), deleted()));
    load(&bench.redis, sources.chain(targets)).await;
    let owner = cluster.owner(slot(b"tenant:gone_0")).await;
    let mut theirs = Vec::new();
    for number in 0..ENTRIES {
        if cluster.owner(slot(format!("tenant:gone_{number}").as_bytes())).await == owner {
            theirs.push(format!("tenant:{{gone_{number}}}:tenant").into_bytes());
        }
    }

    let put_back = async |targets: &[Bytes]| {
        let there = snapshot(&bench.redis).await;
        targets.iter().filter(|target| there[*target].expiry_ms == Some(end)).count()
    };
    let held = bench.hold().await;
    let reins = paced(60);
    let spoiling = async {
        spoil_look(&cluster, owner, async || {
            let count = put_back(&theirs).await;
            assert!(count < theirs.len(), "the fault did not hit");
            count > 5
        })
        .await;
        reins.pace(None);
    };
    let putting_back = lost_expiry::put_back(&held.writer, &bench.assignment, &reins.control);
    let (counted, ()) = tokio::join!(putting_back, spoiling);
    held.release().await;

    let all: Vec<Bytes> = (0..ENTRIES).map(|number| format!("tenant:{{gone_{number}}}:tenant").into_bytes()).collect();
    assert_eq!(put_back(&all).await, ENTRIES);
    assert_eq!(counted.expect("a count"), ENTRIES as u64, "each is counted once");
}

const LATER: [&str; 2] = ["002_timestamps", "003_entity"];

fn mark_of(migration: &str) -> Bytes {
    format!("outpost:migration:{migration}").into_bytes()
}

async fn stamped(redis: &Endpoint) -> Vec<&'static str> {
    let state = snapshot(redis).await;
    let is_stamped = |name: &&str| state[&mark_of(name)].value.field("verified_at").is_some();
    LATER.into_iter().filter(is_stamped).collect()
}

/// The first of these sources that a scan of their primary comes across.
async fn first_scanned(cluster: &Cluster, node: usize, sources: &[String]) -> String {
    let scan = cmd("SCAN").arg(0).arg("MATCH").arg("tenant:t*").arg("COUNT").arg(10_000).take();
    let (_, keys): (Bytes, Vec<String>) = scan.query_async(&mut cluster.connection(node).await).await.expect("SCAN");
    keys.into_iter().find(|key| sources.contains(key)).expect("a source")
}

#[tokio::test]
async fn a_copy_that_such_a_look_made_goes_through_later_migrations() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let redis = cluster.endpoint();
    let ids: Vec<String> = (0..300).map(|number| format!("t{number}")).collect();
    let sources: Vec<String> = ids.iter().map(|id| format!("tenant:{id}")).collect();
    let created = "2025-01-19T22:17:29.5Z";
    let tenant =
        |id: &String| Entry::new(format!("tenant:{id}"), Value::hash([("id", id.as_str()), ("created_at", created)]));
    load(&redis, ids.iter().map(tenant)).await;
    let bench = Bench::new(&redis);
    for migration in ["001_hash_tags"].into_iter().chain(LATER) {
        Bench::new(&redis).migration(migration).migrate(&Control::unattended()).await.expect("a mark");
    }
    run_on_owner(&redis, MARK, cmd("DEL").arg(MARK)).await;

    // A plan that saw everything in its place; then one target goes missing, and the comparison puts it there again.
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    assert_eq!(plan.seen.to_copy(), 0);
    let owner = cluster.owner(slot(b"tenant:t0")).await;
    let late = first_scanned(&cluster, owner, &sources).await;
    let target = format!("tenant:{{{}}}:tenant", &late["tenant:".len()..]).into_bytes();
    run_on_owner(&redis, &target, cmd("DEL").arg(&target)).await;
    let reins = paced(60);
    let spoiling = async {
        spoil_look(&cluster, owner, async || present(&redis, [target.as_slice()].into_iter()).await == 1).await;
        reins.pace(None);
    };
    let (proof, ()) = tokio::join!(held.prove(&reins.control, &plan, &run), spoiling);
    let proof = proof.expect("a proof");
    assert_eq!(stamped(&redis).await, [""; 0], "told before the copy");

    // A failover brings a stamp back that was taken off.
    let second = mark_of(LATER[0]);
    run_on_owner(&redis, &second, cmd("HSET").arg(&second).arg("verified_at").arg("2026-01-01T00:00:00Z")).await;
    held.mark(proof).await.expect("a mark");
    held.release().await;

    assert_eq!(snapshot(&redis).await[&target].value.field("created_at"), Some(created.as_bytes()), "it is unchanged");
    assert_eq!(stamped(&redis).await, [""; 0], "a later mark tells of what it never saw");
}
