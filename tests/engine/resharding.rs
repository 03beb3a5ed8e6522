//! The engine while slots are moved: primaries that are drained and removed, and targets that are half-moved when their
//! originals are to go.

use std::collections::BTreeSet;
use std::time::Duration;

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::{Stop, verify};
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::policy::Limits;
use rstest::rstest;

use crate::support::engine::{Bench, Expected, Reins};
use crate::support::redis_client::slot;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::Options;
use crate::support::value::{Bytes, Entry, Value};
use crate::support::wait::eventually_true;

/// The node that is added to three primaries.
const ADDED: usize = 3;

/// It had a slot open when the pass began, and no look at it is possible any more: left without slots, it follows who took
/// the last of them.
#[rstest]
#[case::it_stays_as_a_replica(false)]
#[case::it_is_removed(true)]
#[tokio::test]
async fn a_primary_that_is_drained_during_a_pass_is_not_waited_for(#[case] is_removed: bool) {
    let cluster = Cluster::start_with_empty(3, 0, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 200).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let moving = slot(b"tenant:tenant_1");
    let other = cluster.owner(moving).await;
    cluster.move_slot(moving, other, ADDED).await;
    cluster.wait_settled().await;
    cluster.open_slot(moving, ADDED, other).await;

    let reins = Reins::paced(100).patience(Duration::from_secs(3));
    let keyspace = bench.keyspace().await;
    let mut progress = reins.progress.clone();
    let draining = async {
        progress.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.processed > 20)).await.expect("progress");
        cluster.close_slot(moving, ADDED, other).await;
        if is_removed {
            cluster.remove_empty(ADDED).await;
        }
        let seen = progress.borrow().as_ref().map_or(0, |seen| seen.processed);
        assert!(seen < expected.sources(), "the fault did not hit: {seen} were compared before it");
        reins.pace(None);
    };
    let comparing = verify::compare(&keyspace, &bench.assignment, &reins.control, None);
    let (compared, ()) = tokio::join!(comparing, draining);

    assert_eq!(compared.expect("a comparison").equal, expected.sources());
}

/// A tenant of which all targets lie in one slot, and its sources anywhere.
fn many_destinations(count: usize) -> Vec<Entry> {
    let summary = (0..count).map(|number| (format!("d{number}"), format!("{{\"id\":\"d{number}\"}}")));
    let mut entries = vec![
        Entry::new("tenant:t", Value::hash([("id", "t"), ("created_at", "2025-01-19T22:17:29.5Z")])),
        Entry::new("tenant:t:destinations", Value::hash(summary)),
    ];
    entries.extend((0..count).map(|number| {
        let id = format!("d{number}");
        Entry::new(format!("tenant:t:destination:{id}"), Value::hash([("id", id.as_str()), ("type", "webhook")]))
    }));
    entries
}

/// Originals that are still there.
async fn left(bench: &Bench, expected: &Expected) -> BTreeSet<Bytes> {
    let there = bench.snapshot().await.0;
    expected.pairs.keys().filter(|source| there.contains_key(*source)).cloned().collect()
}

/// A replica, or a disk, that was asked about its primary says nothing of what is moved to another one meanwhile.
#[tokio::test]
async fn originals_stay_while_their_targets_are_half_moved() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load_entries(&bench.redis, many_destinations(40), KeyLayout::Outpost).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let moving = slot(b"tenant:{t}:tenant");
    let from = cluster.owner(moving).await;
    let to = (from + 1) % 3;
    let (moved, _) = cluster.open_slot(moving, from, to).await;
    assert!(moved > 0, "the fault did not hit");

    let reins = Reins::new(Limits::default()).patience(Duration::from_secs(2));
    let stop = bench.cleanup(&reins.control).await.map(|_| ()).expect_err("a stop");
    assert_eq!(left(&bench, &expected).await.len() as u64, expected.sources(), "originals: {stop}");
    let Stop::Incomplete { example, .. } = &stop else { panic!("{stop:?}") };
    assert!(example.contains(&format!("slot {moving} is half-moved")), "{stop}");

    cluster.close_slot(moving, from, to).await;
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup once it is closed");
    assert_eq!((report.removed, report.kept()), (expected.sources(), 0));
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn originals_stay_whose_targets_are_half_moved_during_cleanup() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load_entries(&bench.redis, many_destinations(300), KeyLayout::Outpost).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let moving = slot(b"tenant:{t}:tenant");
    let from = cluster.owner(moving).await;

    let reins = Reins::paced(60).patience(Duration::from_secs(2));
    let opening = async {
        let all = expected.sources();
        eventually_true(Duration::from_secs(30), "cleanup has begun", async || {
            (left(&bench, &expected).await.len() as u64) < all
        })
        .await;
        let to = (from + 1) % 3;
        let (moved, _) = cluster.open_slot(moving, from, to).await;
        assert!(moved > 0, "the fault did not hit");
        let mut list = redis::cmd("CLUSTER");
        list.arg("GETKEYSINSLOT").arg(moving).arg(1_000);
        let keys: Vec<Bytes> = list.query_async(&mut cluster.connection(to).await).await.expect("GETKEYSINSLOT");
        let left = left(&bench, &expected).await;
        reins.pace(None);
        let of_moved = left.into_iter().filter(|source| keys.contains(&expected.pairs[source]));
        of_moved.collect::<BTreeSet<Bytes>>()
    };
    let (cleaned_up, of_moved) = tokio::join!(bench.cleanup(&reins.control), opening);

    assert!(!of_moved.is_empty(), "the fault did not hit");
    let gone = of_moved.difference(&left(&bench, &expected).await).count();
    assert_eq!(gone, 0, "of {} originals whose targets were moved", of_moved.len());
    let stop = cleaned_up.map(|_| ()).expect_err("a stop");
    assert!(matches!(&stop, Stop::Incomplete { .. }), "{stop:?}");
}
