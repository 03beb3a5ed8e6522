//! The engine against clusters that say little of themselves: primaries without slots, removed nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::model::policy::{Limits, MinReplicas};

use support::engine::{Bench, Expected, Reins, assert_no_lock};
use support::redis_client::slot;
use support::redis_cluster::{Cluster, wait_replicated};
use support::redis_server::Options;
use support::wait::{STARTUP, eventually_true};

/// The node that `Cluster::start_with_empty` adds to three primaries with a replica each.
const EMPTY: usize = 6;

fn patient(seconds: u64) -> Control {
    Reins::new(Limits::default()).patience(Duration::from_secs(seconds)).control
}

/// The one slot that could not be covered, or why it was another stop.
#[track_caller]
fn assert_half_moved<T: std::fmt::Debug>(result: Result<T, Stop>, slot: u16) {
    let stop = result.map(|_| ()).expect_err("a stop");
    let Stop::Incomplete { missing: 1, example } = &stop else { panic!("{stop:?}") };
    assert!(example.contains(&slot.to_string()), "{stop}");
}

#[tokio::test]
async fn what_is_half_moved_to_a_primary_without_slots_keeps_a_run_from_its_mark() {
    let cluster = Cluster::start_with_empty(3, 1, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    let slot = slot(b"tenant:tenant_1");
    let from = cluster.owner(slot).await;
    let (moved, _) = cluster.open_slot(slot, from, EMPTY).await;
    assert!(moved > 0, "the fault did not hit");

    // The promoted replica does not know that its slot is being given away.
    wait_replicated(&mut cluster.connection(from).await, 1).await;
    let promoted = cluster.replicas_of(from).await[0];
    cluster.take_over(promoted).await;
    eventually_true(STARTUP, "the promoted replica owns the slot", async || {
        cluster.owner(slot).await == promoted && !cluster.primaries().await.contains(&from)
    })
    .await;

    let result = bench.migrate(&patient(2)).await.map(|walk| walk.verify);
    assert_half_moved(result, slot);
    bench.assert_no_mark().await;
    assert_no_lock(&bench.snapshot().await.1);

    cluster.take_back_slot(slot, EMPTY, promoted).await;
    cluster.wait_settled().await;
    bench.migrate(&patient(2)).await.expect("a mark once it is taken back");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_slot_that_opens_at_another_primary_during_the_comparison_does_not_count() {
    let cluster = Cluster::start_with_empty(3, 1, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 200).await;
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    held.apply(&Control::unattended(), &plan, &run).await.expect("a copy");

    let reins = Reins::paced(300).patience(Duration::from_secs(2));
    let mut progress = reins.progress.clone();
    let slot = slot(b"tenant:tenant_1");
    let opening = async {
        progress.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.processed > 20)).await.expect("progress");
        let from = cluster.owner(slot).await;
        cluster.open_slot(slot, from, EMPTY).await;
        cluster.stabilize_slot(slot, from).await;
        assert!(
            progress.borrow().as_ref().is_some_and(|seen| seen.processed < expected.sources()),
            "the fault did not hit"
        );
    };
    let (proof, ()) = tokio::join!(held.prove(&reins.control, &plan, &run), opening);
    assert_half_moved(proof, slot);
    held.release().await;
    bench.assert_no_mark().await;
}

#[tokio::test]
async fn a_primary_without_slots_that_can_not_be_asked_blocks_until_it_is_called_failed() {
    let options = Options { node_timeout: Duration::from_secs(15), ..Options::default() };
    let cluster = Cluster::start_with_empty(3, 1, options).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 50).await;
    cluster.kill_node(EMPTY);

    let stop = bench.migrate(&patient(1)).await.map(|_| ()).expect_err("a stop");
    let Stop::Incomplete { example, .. } = &stop else { panic!("{stop:?}") };
    assert!(example.contains(&cluster.addr(EMPTY)), "{stop}");
    bench.assert_no_mark().await;

    for primary in cluster.primaries().await {
        cluster.wait_failed(EMPTY, primary).await;
    }
    bench.migrate(&patient(1)).await.expect("a mark once it counts as failed");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_node_that_was_just_added_costs_nothing() {
    let cluster = Cluster::start_with_empty(3, 1, Options::default()).await;
    // It has no replicas, and owes none since it holds nothing.
    let bench = Bench::new(&cluster.endpoint()).min_replicas(MinReplicas::Exactly(1));
    let expected = Expected::load(&bench.redis, 100).await;
    let walk = bench.migrate(&patient(1)).await.expect("a mark");
    assert_eq!(walk.plan.seen.findings, []);
    expected.assert_migrated(&bench).await;
    bench.cleanup(&patient(1)).await.expect("a cleanup");
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn a_removed_node_does_not_hide_the_cluster_that_was_found_through_it() {
    let cluster = Cluster::start_with_empty(3, 1, Options::default()).await;
    let whole = cluster.endpoint();
    let mut bench = Bench::new(&whole);
    bench.endpoint.port = cluster.port(EMPTY);
    let expected = Expected::load(&whole, 100).await;
    let held = bench.hold().await;

    cluster.remove_empty(EMPTY).await;
    held.writer.relearn().await.expect("an answer of the removed node");
    let result = held.migrate(&patient(2)).await.map(|walk| walk.verify.equal);
    held.release().await;
    assert_eq!(result, Ok(expected.sources()));
    expected.assert_migrated(&bench).await;
}
