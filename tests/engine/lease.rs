//! The renewal of the lock over connections and nodes that fall silent.

use std::time::{Duration, Instant};

use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::keyspace::FaultClass;
use outpost_migrate_redis::model::key::RedisKey;

use crate::support::engine::{Bench, LOCKS, RUN, assert_no_lock};
use crate::support::process::Signal;
use crate::support::proxy::Proxy;
use crate::support::redis_client::slot;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};

fn names_the_lock(request: &[u8]) -> bool {
    let lock = LOCKS[0].as_bytes();
    request.windows(lock.len()).any(|window| window == lock)
}

/// As behind a firewall that forgot the connection: what is sent over it gets no answer, while others work.
#[tokio::test]
async fn a_lease_outlives_a_connection_that_falls_silent() {
    let redis = Standalone::start(Options::default()).await;
    let way = Proxy::start(redis.port()).await;
    let mut bench = Bench::new(&way.endpoint());
    bench.life = Duration::from_secs(6);
    let held = bench.hold().await;

    way.stop_at(0, names_the_lock);
    way.wait_caught().await;
    // A measured window, longer than a lease.
    let began = Instant::now();
    while began.elapsed() < bench.life + Duration::from_secs(1) {
        assert!(held.lease.holds(), "the lease ended after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    held.release().await;
    assert_no_lock(&Bench::new(&redis.endpoint()).snapshot().await.1);
    way.let_go();
}

#[tokio::test]
async fn a_renewal_that_is_not_answered_is_told_of_the_node_that_is_silent() {
    let options = Options { node_timeout: Duration::from_secs(120), ..Options::default() };
    let cluster = Cluster::start(3, 0, options).await;
    let mut bench = Bench::new(&cluster.endpoint());
    bench.life = Duration::from_secs(12);
    let silent = cluster.owner(slot(LOCKS[0].as_bytes())).await;
    let mut owners = Vec::new();
    for lock in LOCKS {
        owners.push(cluster.owner(slot(lock.as_bytes())).await);
    }
    let configured = (0..3).find(|node| *node != silent).expect("another node");
    bench.endpoint.port = cluster.port(configured);
    let held = bench.hold().await;

    cluster.signal(silent, Signal::STOP);
    let connected = held.lease.writer().await;
    cluster.signal(silent, Signal::CONT);

    let Err(Stop::Fault(fault)) = connected.map(|_| ()) else { panic!("no fault") };
    assert_eq!(fault.class, FaultClass::Timeout, "{fault}");
    let told = fault.at.as_ref().map(ToString::to_string);
    assert_eq!(told, Some(cluster.addr(silent)), "{fault}; the lock's keys lie at {owners:?}");
    held.release().await;
}

/// Whoever took the lock over may have begun a run of its own.
#[tokio::test]
async fn who_lost_the_lock_leaves_a_successors_run_alone() {
    let redis = Standalone::start(Options::default()).await;
    let mut bench = Bench::new(&redis.endpoint());
    bench.life = Duration::from_secs(3);
    let held = bench.hold().await;
    held.lease.keep_alive(RedisKey::new(RUN.to_vec()), Duration::from_secs(3600));
    let mut connection = redis.connection().await;

    let mut taken = redis::pipe();
    taken.atomic().cmd("SET").arg(LOCKS[0]).arg("another's").ignore();
    taken.cmd("HSET").arg(RUN).arg("token").arg("another's").ignore();
    taken.cmd("PEXPIRE").arg(RUN).arg(60_000).ignore();
    taken.exec_async(&mut connection).await.expect("a successor");
    tokio::time::timeout(Duration::from_secs(10), held.lease.lost().cancelled()).await.expect("the lock is lost");

    let left: i64 = redis::cmd("PTTL").arg(RUN).query_async(&mut connection).await.expect("PTTL");
    assert!((0..=60_000).contains(&left), "its life was extended to {left} ms");
}
