//! The engine while slots are moved: primaries that are drained and removed.

use std::time::Duration;

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::verify;
use rstest::rstest;

use crate::support::engine::{Bench, Expected, Reins};
use crate::support::redis_client::slot;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::Options;

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
