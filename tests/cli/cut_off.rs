//! Holders that are cut off while a part of a cluster is out of reach: what can be done is done, the rest is told.

use std::time::Duration;

use crate::schema::load_with_canaries;
use crate::shell::{CommandLine, Done, Started};
use crate::support::engine::{Bench, Expected, LOCKS};
use crate::support::process::Signal;
use crate::support::redis_client::{Endpoint, slot};
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::Options;
use crate::support::wait::{STARTUP, eventually_true};

/// Primaries that go on answering for their slots when one of them is gone.
async fn start() -> Cluster {
    let extra = vec!["cluster-require-full-coverage no".to_owned()];
    Cluster::start(4, 0, Options { extra, ..Options::default() }).await
}

/// A run that sleeps in the middle of its work.
async fn sleeping_holder(redis: &Endpoint) -> (Started, Expected) {
    let expected = load_with_canaries(redis, 200).await;
    let apply = CommandLine::at(redis).start(&["apply", "--yes", "--keys-per-second", "100"]);
    expected.wait_halfway(redis).await;
    apply.signal(Signal::STOP);
    (apply, expected)
}

async fn owners_of_locks(cluster: &Cluster) -> Vec<usize> {
    let mut owners = Vec::new();
    for lock in LOCKS {
        owners.push(cluster.owner(slot(lock.as_bytes())).await);
    }
    owners
}

async fn kill(cluster: &Cluster, node: usize) {
    cluster.kill_node(node);
    for other in (0..cluster.len()).filter(|other| *other != node) {
        cluster.wait_failed(node, other).await;
    }
}

/// Connections at a node whose name carries a lock's token.
async fn writers(cluster: &Cluster, node: usize) -> usize {
    let mut connection = cluster.connection(node).await;
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.expect("CLIENT LIST");
    list.lines().filter(|line| line.contains(" name=outpost-migrate:db0:")).count()
}

async fn assert_cut_off(cluster: &Cluster) {
    for node in (0..cluster.len()).filter(|node| cluster.node(*node).is_up()) {
        assert_eq!(writers(cluster, node).await, 0, "connections at node {node} stay");
    }
}

/// Warnings may stand before the error.
#[track_caller]
fn assert_fails_with(done: &Done, texts: &[&str]) {
    let error = done.stderr.lines().last().filter(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(texts.iter().all(|text| error.contains(text)), "{texts:?} are not in the error of {done}");
}

/// Whether a key of the lock is there, asked of its owner alone.
async fn is_there(cluster: &Cluster, lock: &str, owner: usize) -> bool {
    let mut exists = redis::cmd("EXISTS");
    exists.arg(lock);
    let count: u64 = exists.query_async(&mut cluster.connection(owner).await).await.expect("EXISTS");
    count > 0
}

#[tokio::test]
async fn unlock_cuts_off_a_holder_at_those_that_answer() {
    let cluster = start().await;
    let (apply, _) = sleeping_holder(&cluster.endpoint()).await;
    let owners = owners_of_locks(&cluster).await;
    let gone = (0..4).find(|node| !owners.contains(node)).expect("a primary without a key of the lock");
    kill(&cluster, gone).await;
    assert!(writers(&cluster, owners[0]).await > 0, "it has connections to go on over");

    let unlock = CommandLine::at(&cluster.endpoint()).run(&["unlock", "--yes"]).await.expect(0);

    let unlock = unlock.says("The lock is free.");
    assert!(unlock.stderr.contains("the cluster does not answer for every slot"), "{unlock}");
    assert_cut_off(&cluster).await;
    apply.kill().await;
}

#[tokio::test]
async fn unlock_takes_away_what_it_reaches_and_tells_the_rest() {
    let cluster = start().await;
    let (apply, _) = sleeping_holder(&cluster.endpoint()).await;
    let owners = owners_of_locks(&cluster).await;
    assert!(owners.iter().any(|owner| *owner != owners[0]), "a key of the lock lies elsewhere");
    kill(&cluster, owners[0]).await;

    let unlock = CommandLine::at(&cluster.endpoint()).run(&["unlock", "--yes"]).await.expect(3);

    assert_fails_with(&unlock, &[LOCKS[0], "`outpost-migrate-redis unlock`"]);
    for (lock, owner) in LOCKS.into_iter().zip(&owners).filter(|(_, owner)| **owner != owners[0]) {
        assert!(!is_there(&cluster, lock, *owner).await, "{lock} stays");
    }
    assert_cut_off(&cluster).await;
    apply.kill().await;
}

/// Between what was shown and what is taken away a node may fall silent.
#[tokio::test]
async fn unlock_goes_on_after_a_key_that_can_not_be_taken_away() {
    let cluster = start().await;
    let (apply, _) = sleeping_holder(&cluster.endpoint()).await;
    let owners = owners_of_locks(&cluster).await;
    assert!(owners.iter().any(|owner| *owner != owners[0]), "a key of the lock lies elsewhere");
    // It reads, and it refuses to write: its user's replicas are too few.
    let mut refuse = redis::cmd("CONFIG");
    refuse.arg("SET").arg("min-replicas-to-write").arg(1);
    refuse.exec_async(&mut cluster.connection(owners[0]).await).await.expect("CONFIG SET");

    let unlock = CommandLine::at(&cluster.endpoint()).run(&["unlock", "--yes"]).await.expect(3);

    assert_fails_with(&unlock, &[LOCKS[0], "replicas", "`outpost-migrate-redis unlock`"]);
    for (lock, owner) in LOCKS.into_iter().zip(&owners) {
        assert_eq!(is_there(&cluster, lock, *owner).await, *owner == owners[0], "{lock}");
    }
    assert_cut_off(&cluster).await;
    apply.kill().await;
}

/// A replica keeps its clients when it is promoted: those of an earlier holder too.
#[tokio::test]
async fn a_replica_that_does_not_close_connections_is_named() {
    let options = Options { node_timeout: Duration::from_secs(120), ..Options::default() };
    let cluster = Cluster::start(3, 1, options).await;
    let redis = cluster.endpoint();
    let expected = load_with_canaries(&redis, 5).await;
    let replica = 4;
    cluster.signal(replica, Signal::STOP);

    let cli = CommandLine::at(&redis).flags(&["--min-replicas=0"]);
    let apply = cli.run(&["apply", "--yes"]).await.expect(0);
    let cleanup = cli.run(&["cleanup", "--yes", "--accept-finding", "NotOnDisk"]).await.expect(0);
    cluster.signal(replica, Signal::CONT);

    for done in [&apply, &cleanup] {
        let told = format!("{}{}", done.stdout, done.stderr);
        let warning = told.lines().find(|line| line.contains(&cluster.addr(replica))).unwrap_or_default();
        assert!(warning.contains("earlier holder"), "{done}");
    }
    eventually_true(STARTUP, "the replica is back", async || cluster.node(replica).try_connection().await.is_ok())
        .await;
    expected.cleaned_up().assert_same(&Bench::new(&redis).snapshot().await.0, "cleaned up");
}
