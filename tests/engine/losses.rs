//! The engine against primaries without replicas that come back with an old snapshot: what a comparison found is gone.

use std::time::Duration;

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::verify;

use crate::support::engine::{Bench, Expected, Held, MARK, assert_no_lock, entries, hset, now};
use crate::support::load::load;
use crate::support::process::Signal;
use crate::support::redis_client::slot;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::Options;
use crate::support::wait::eventually_true;

/// Saves what a primary holds now: it comes back with that, and with nothing younger.
async fn save(cluster: &Cluster, node: usize) {
    redis::cmd("SAVE").exec_async(&mut cluster.connection(node).await).await.expect("SAVE");
}

async fn lose_what_is_younger_than_its_snapshot(cluster: &Cluster, node: usize) {
    cluster.kill_node(node);
    cluster.node(node).restart().await;
}

/// A primary that owns neither the mark's slot nor is one of `others`.
async fn beside_the_mark(cluster: &Cluster, others: &[usize]) -> usize {
    let of_mark = cluster.owner(slot(MARK)).await;
    (0..3).find(|node| *node != of_mark && !others.contains(node)).expect("another primary")
}

#[tokio::test]
async fn no_mark_is_written_over_what_a_primary_lost_behind_the_comparison() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let mut bench = Bench::new(&cluster.endpoint());
    bench.life = Duration::from_secs(300);
    let expected = Expected::load(&bench.redis, 100).await;
    let loser = beside_the_mark(&cluster, &[]).await;
    let held = bench.hold().await;
    save(&cluster, loser).await;
    let control = Control::unattended();
    let (plan, run) = held.begin(&control).await.expect("a plan");
    held.apply(&control, &plan, &run).await.expect("a copy");
    let proof = held.prove(&control, &plan, &run).await.expect("a proof");

    lose_what_is_younger_than_its_snapshot(&cluster, loser).await;
    let marked = held.mark(proof).await;

    cluster.wait_settled().await;
    held.release().await;
    expected.assert_halfway(&bench.redis).await;
    bench.assert_no_mark().await;
    println!("stopped: {}", marked.map(|_| ()).expect_err("a stop"));
    bench.migrate(&control).await.expect("a mark once it is copied again");
    expected.assert_migrated(&bench).await;
    assert_no_lock(&bench.snapshot().await.1);
}

/// Three primaries of which one has a replica, the last node; that primary and another one, neither the mark's.
async fn with_one_replica() -> (Cluster, usize, usize) {
    let cluster = Cluster::start_with_empty(3, 0, Options::default()).await;
    let followed = beside_the_mark(&cluster, &[]).await;
    let loser = beside_the_mark(&cluster, &[followed]).await;
    let mut replicate = redis::cmd("CLUSTER");
    replicate.arg("REPLICATE").arg(cluster.id(followed));
    replicate.exec_async(&mut cluster.connection(REPLICA).await).await.expect("CLUSTER REPLICATE");
    cluster.wait_settled().await;
    (cluster, followed, loser)
}

/// The node that is made a replica.
const REPLICA: usize = 3;

/// Waits until a connection of the writer's is blocked at a node, in what `command` names.
async fn wait_blocked(cluster: &Cluster, node: usize, held: &Held<'_>, command: &str) {
    let mut connection = cluster.connection(node).await;
    eventually_true(Duration::from_secs(30), &format!("{command} is waited for"), async || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.expect("CLIENT LIST");
        let is_blocked = |line: &&str| line.contains(held.lease.token()) && line.contains(" flags=b ");
        list.lines().filter(is_blocked).any(|line| line.contains(&format!(" cmd={command} ")))
    })
    .await;
}

/// One primary's replica is slow; another primary loses its targets while that is waited for.
#[tokio::test]
async fn another_tools_mark_is_not_stamped_over_what_was_lost_while_a_replica_was_waited_for() {
    let (cluster, followed, loser) = with_one_replica().await;
    let mut bench = Bench::new(&cluster.endpoint());
    bench.life = Duration::from_secs(300);
    let expected = Expected::load(&bench.redis, 100).await;
    let held = bench.hold().await;
    save(&cluster, loser).await;
    load(&bench.redis, entries(&expected.targets)).await;
    hset(&bench.redis, MARK, "status", "applied").await;
    let plan = bench.plan().await.expect("a plan");
    assert_eq!(plan.seen.to_copy(), 0);

    cluster.signal(REPLICA, Signal::STOP);
    let control = Control::unattended();
    let proving = verify::prove_mark(&held.writer, &bench.assignment, &control, plan.hash.as_str(), None, now());
    let losing = async {
        wait_blocked(&cluster, followed, &held, "wait").await;
        lose_what_is_younger_than_its_snapshot(&cluster, loser).await;
        cluster.signal(REPLICA, Signal::CONT);
    };
    let (proven, ()) = tokio::join!(proving, losing);

    cluster.wait_settled().await;
    held.release().await;
    expected.assert_halfway(&bench.redis).await;
    let mark = bench.mark().await.expect("their mark");
    assert!(mark.value.field("verified_at").is_none(), "a stamp over a loss");
    assert!(proven.expect("what is missing").unapplied > 0);
}

/// As above, behind the second of the two waits that come before a mark: a pass more mends the loss.
#[tokio::test]
async fn what_was_lost_while_a_replica_was_waited_for_is_copied_again_before_the_mark() {
    let (cluster, followed, loser) = with_one_replica().await;
    let mut bench = Bench::new(&cluster.endpoint());
    bench.life = Duration::from_secs(300);
    let expected = Expected::load(&bench.redis, 100).await;
    let held = bench.hold().await;
    save(&cluster, loser).await;
    let control = Control::unattended();
    let (plan, run) = held.begin(&control).await.expect("a plan");
    held.apply(&control, &plan, &run).await.expect("a copy");

    cluster.signal(REPLICA, Signal::STOP);
    let of_mark = cluster.owner(slot(MARK)).await;
    let losing = async {
        wait_blocked(&cluster, followed, &held, "wait").await;
        // What comes between the two waits is held up.
        let mut pausing = cluster.connection(of_mark).await;
        let mut pause = redis::cmd("CLIENT");
        pause.arg("PAUSE").arg(60_000).arg("WRITE").exec_async(&mut pausing).await.expect("CLIENT PAUSE");
        cluster.signal(REPLICA, Signal::CONT);
        wait_blocked(&cluster, of_mark, &held, "evalsha").await;
        cluster.signal(REPLICA, Signal::STOP);
        redis::cmd("CLIENT").arg("UNPAUSE").exec_async(&mut pausing).await.expect("CLIENT UNPAUSE");
        wait_blocked(&cluster, followed, &held, "wait").await;
        lose_what_is_younger_than_its_snapshot(&cluster, loser).await;
        cluster.signal(REPLICA, Signal::CONT);
    };
    let (proof, ()) = tokio::join!(held.prove(&control, &plan, &run), losing);

    held.mark(proof.expect("a proof")).await.expect("a mark");
    cluster.wait_settled().await;
    held.release().await;
    expected.assert_migrated(&bench).await;
}
