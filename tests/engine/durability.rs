//! Cleanup on servers that may lose what their memory holds.

use std::time::Duration;

use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::restore;
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::policy::Limits;

use redis::aio::MultiplexedConnection;
use rstest::rstest;

use crate::support::engine::{Bench, Expected, MARK, Reins, run_on_owner};
use crate::support::redis_client::{Endpoint, slot};
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::wait::eventually_true;

const PATIENCE: Duration = Duration::from_secs(60);

/// Snapshots, but none within the hour unless somebody asks for one.
fn hourly_snapshots() -> Options {
    Options { extra: vec!["save 3600 1".to_owned()], ..Options::default() }
}

/// Entries that are in neither form.
async fn lost(expected: &Expected, redis: &Endpoint) -> usize {
    let there = snapshot(redis).await;
    expected
        .pairs
        .iter()
        .filter(|(source, target)| !there.contains_key(*source) && !there.contains_key(*target))
        .count()
}

async fn save_all(cluster: &Cluster) {
    for node in 0..cluster.len() {
        redis::cmd("SAVE").query_async::<()>(&mut cluster.connection(node).await).await.expect("SAVE");
    }
}

#[tokio::test]
async fn a_primary_that_is_killed_during_cleanup_takes_no_entry_with_it() {
    let cluster = Cluster::start(3, 0, hourly_snapshots()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    save_all(&cluster).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");

    // It may wait for a snapshot for as long as it likes.
    let _ = tokio::time::timeout(Duration::from_secs(5), bench.cleanup(&Control::unattended())).await;
    cluster.kill_node(1);
    cluster.restart(1).await;

    assert_eq!(lost(&expected, &bench.redis).await, 0, "of {} entries", expected.sources());
}

/// Cleanup has been waiting for a while, and every original is still there.
async fn assert_waits(expected: &Expected, bench: &Bench, reins: &Reins, what: &str) {
    eventually_true(PATIENCE, "cleanup waits for a disk", async || {
        let progress = reins.progress.borrow().clone();
        progress.and_then(|it| it.waits_for).is_some_and(|waits| waits.contains(what))
    })
    .await;
    expected.migrated().assert_same(&bench.snapshot().await.0, "nothing is removed while it waits");
}

#[tokio::test]
async fn cleanup_waits_for_snapshots_that_began_after_the_mark() {
    let cluster = Cluster::start(3, 0, hourly_snapshots()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    save_all(&cluster).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");
    let foreseen = bench.plan().await.expect("a plan").seen.findings;
    assert!(
        foreseen.iter().any(|it| it.code == FindingCode::NotOnDisk && it.message.contains("--save")),
        "{foreseen:?}"
    );

    let reins = Reins::new(Limits::default());
    let snapshots = async {
        assert_waits(&expected, &bench, &reins, "which it begins within 1h").await;
        // What the servers themselves do within the hour.
        loop {
            for node in 0..cluster.len() {
                let mut connection = cluster.connection(node).await;
                let _ = redis::cmd("BGSAVE").query_async::<String>(&mut connection).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let cleaned_up = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            cleaned_up = bench.cleanup(&reins.control) => cleaned_up,
            () = snapshots => unreachable!("the servers go on"),
        }
    })
    .await
    .expect("an end in time");

    assert_eq!(cleaned_up.expect("a cleanup").removed, expected.sources());
    for node in 0..cluster.len() {
        cluster.kill_node(node);
        cluster.restart(node).await;
    }
    assert_eq!(lost(&expected, &bench.redis).await, 0, "of {} entries", expected.sources());
}

/// Takes a snapshot of a node, to its end.
async fn save_in_background(cluster: &Cluster, node: usize) {
    let mut connection = cluster.connection(node).await;
    let saves = async |connection: &mut MultiplexedConnection| {
        let info: String = redis::cmd("INFO").arg("persistence").query_async(connection).await.expect("INFO");
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
        (field("rdb_saves:").expect("a count"), field("rdb_bgsave_in_progress:") == Some(0))
    };
    let before = saves(&mut connection).await.0;
    redis::cmd("BGSAVE").query_async::<String>(&mut connection).await.expect("BGSAVE");
    eventually_true(PATIENCE, "a snapshot", async || saves(&mut connection).await == (before + 1, true)).await;
}

async fn save_all_in_background(cluster: &Cluster) {
    for node in 0..cluster.len() {
        save_in_background(cluster, node).await;
    }
}

/// No snapshot was under way when the mark was written, so the next one holds everything, however soon it comes.
#[tokio::test]
async fn a_snapshot_right_behind_the_mark_counts() {
    let cluster = Cluster::start(3, 0, hourly_snapshots()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");
    save_all_in_background(&cluster).await;

    let cleaned_up = tokio::time::timeout(PATIENCE, bench.cleanup(&Control::unattended())).await;
    assert_eq!(cleaned_up.expect("no waiting").expect("a cleanup").removed, expected.sources());
    for node in 0..cluster.len() {
        cluster.kill_node(node);
        cluster.restart(node).await;
    }
    assert_eq!(lost(&expected, &bench.redis).await, 0, "of {} entries", expected.sources());
}

/// A mark of an earlier version tells of no clock: cleanup goes by when it was first at each primary, whatever comes in
/// between.
#[tokio::test]
async fn a_cleanup_that_is_disturbed_does_not_wait_for_further_snapshots() {
    let cluster = Cluster::start(3, 0, hourly_snapshots()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");
    let forget = redis::cmd("HDEL").arg(MARK).arg("server_clocks").take();
    run_on_owner(&bench.redis, MARK, &forget).await;

    let reins = Reins::new(Limits::default());
    let interrupt = async {
        assert_waits(&expected, &bench, &reins, "which it begins within 1h").await;
        reins.stop.cancel();
    };
    let (interrupted, ()) = tokio::join!(bench.cleanup(&reins.control), interrupt);
    assert_eq!(interrupted.expect_err("an interrupt"), Stop::Interrupted);
    save_all_in_background(&cluster).await;

    let cleaned_up = tokio::time::timeout(PATIENCE, bench.cleanup(&Control::unattended())).await;
    assert_eq!(cleaned_up.expect("no further waiting").expect("a cleanup").removed, expected.sources());
}

/// Other keys are on its disk, though it owns as many slots in the same epoch as when everything was proven.
#[tokio::test]
async fn a_snapshot_from_before_a_slot_came_does_not_count() {
    let cluster = Cluster::start(3, 0, hourly_snapshots()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    // Who has the highest epoch takes slots over without another one.
    cluster.move_slot(0, 0, 2).await;
    cluster.wait_settled().await;
    bench.migrate(&Control::unattended()).await.expect("migrated");
    save_in_background(&cluster, 2).await;
    let coming = expected.targets.keys().map(|key| slot(key)).find(|slot| (1..5_000).contains(slot)).expect("a slot");
    cluster.move_slot(coming, 0, 2).await;
    cluster.move_slot(16_383, 2, 0).await;
    cluster.wait_settled().await;

    let reins = Reins::new(Limits::default());
    let saving = async {
        assert_waits(&expected, &bench, &reins, "the next snapshot").await;
        for node in [0, 1] {
            save_in_background(&cluster, node).await;
        }
        let (data, _) = bench.snapshot().await;
        expected.migrated().assert_same(&data, "nothing is removed that only a memory holds");
        assert_waits(&expected, &bench, &reins, &format!("the next snapshot of {}", cluster.addr(2))).await;
        reins.stop.cancel();
    };
    let (interrupted, ()) = tokio::join!(bench.cleanup(&reins.control), saving);
    assert_eq!(interrupted.expect_err("an interrupt"), Stop::Interrupted);
}

/// What is copied behind the mark is younger than it.
#[tokio::test]
async fn what_was_restored_behind_the_mark_has_to_be_on_disk_too() {
    let cluster = Cluster::start(3, 0, hourly_snapshots()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");
    let (source, target) = expected.pairs.iter().next().expect("a pair");
    run_on_owner(&bench.redis, target, redis::cmd("UNLINK").arg(target.as_slice())).await;
    save_all_in_background(&cluster).await;
    let held = bench.hold().await;
    let named = [RedisKey::new(source.clone())];
    let restored = restore::restore(&held.writer, &bench.assignment, &Control::unattended(), &named).await;
    held.release().await;
    assert_eq!(restored.expect("a copy").copied, 1);

    let reins = Reins::new(Limits::default());
    let waiting = async {
        assert_waits(&expected, &bench, &reins, "which it begins within 1h").await;
        reins.stop.cancel();
    };
    let (interrupted, ()) = tokio::join!(bench.cleanup(&reins.control), waiting);
    assert_eq!(interrupted.expect_err("an interrupt"), Stop::Interrupted);
}

/// A server that can tell what of its append-only file is synced is asked, however busy it is.
#[tokio::test]
async fn a_server_is_asked_what_of_its_append_only_file_is_synced() {
    let options = Options { persistent: true, server: Some("redis-7.4.1"), ..Options::default() };
    let cluster = Cluster::start(3, 0, options).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 30).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!((report.removed, report.findings.len()), (expected.sources(), 0));
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
    for node in 0..cluster.len() {
        let info = cluster.node(node).info("commandstats").await.expect("INFO");
        assert!(info("cmdstat_waitaof").is_some_and(|calls| calls.contains("failed_calls=0")), "node {node}");
    }
}

/// Some providers take snapshots by other means, and leave nobody else to ask for one.
#[tokio::test]
async fn a_server_that_takes_no_snapshot_when_asked_is_told_of() {
    let options = Options {
        extra: vec!["save 3600 1".to_owned(), "rename-command BGSAVE \"\"".to_owned()],
        ..Options::default()
    };
    let cluster = Cluster::start(3, 0, options).await;
    let bench = Bench::new(&cluster.endpoint()).saving();
    let expected = Expected::load(&bench.redis, 30).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");

    let cleaned_up = tokio::time::timeout(PATIENCE, bench.cleanup(&Control::unattended())).await;
    let refused = cleaned_up.expect("an end").expect_err("a refusal");
    assert!(matches!(&refused, Stop::PreflightFailed(found) if found[0].code == FindingCode::NotOnDisk), "{refused:?}");
    assert!(refused.to_string().contains("BGSAVE"), "{refused}");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn cleanup_asks_for_snapshots_when_told_to() {
    let cluster = Cluster::start(3, 0, hourly_snapshots()).await;
    let bench = Bench::new(&cluster.endpoint()).saving();
    let expected = Expected::load(&bench.redis, 100).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!((report.removed, report.findings.len()), (expected.sources(), 0));
    for node in 0..cluster.len() {
        cluster.kill_node(node);
        cluster.restart(node).await;
    }
    assert_eq!(lost(&expected, &bench.redis).await, 0, "of {} entries", expected.sources());
}

#[tokio::test]
async fn cleanup_waits_until_an_append_only_file_is_synced() {
    let cluster = Cluster::start(3, 0, Options { persistent: true, ..Options::default() }).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 30).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");

    let reins = Reins::new(Limits::default());
    let (cleaned_up, ()) = tokio::join!(
        bench.cleanup(&reins.control),
        assert_waits(&expected, &bench, &reins, "to sync its append-only file")
    );

    let report = cleaned_up.expect("a cleanup");
    assert_eq!((report.removed, report.findings.len()), (expected.sources(), 0));
}

/// What it wrote lies in the memory of its machine for as long as that likes.
#[rstest]
#[case::as_installed(None)]
#[case::that_can_be_asked(Some("redis-7.4.1"))]
#[tokio::test]
async fn an_append_only_file_that_nobody_syncs_does_not_count(#[case] server: Option<&'static str>) {
    let extra = vec!["appendfsync no".to_owned()];
    let cluster = Cluster::start(3, 0, Options { persistent: true, server, extra, ..Options::default() }).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 30).await;
    let walk = bench.migrate(&Control::unattended()).await.expect("migrated");
    let foreseen = walk.plan.seen.findings.iter().find(|it| it.code == FindingCode::NotOnDisk).expect("a finding");
    assert_eq!(foreseen.severity, Severity::Warning, "{foreseen:?}");

    let refused = bench.cleanup(&Control::unattended()).await.map(|_| ()).expect_err("a refusal");
    assert!(refused.to_string().contains("appendfsync no"), "{refused}");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn what_no_disk_will_ever_hold_has_to_be_accepted_by_name() {
    // Old snapshots and none to come: a restart would bring back the originals of one server alone.
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 30).await;
    save_all_in_background(&cluster).await;
    let walk = bench.migrate(&Control::unattended()).await.expect("what cleanup will find blocks no apply");
    let foreseen = walk.plan.seen.findings.iter().find(|it| it.code == FindingCode::NotOnDisk).expect("a finding");
    assert_eq!(foreseen.severity, Severity::Warning, "{foreseen:?}");

    let refused = bench.cleanup(&Control::unattended()).await.expect_err("a refusal");
    assert!(matches!(&refused, Stop::PreflightFailed(found) if found[0].code == FindingCode::NotOnDisk), "{refused:?}");
    assert!(refused.to_string().contains("--accept-finding NotOnDisk"), "{refused}");
    expected.assert_migrated(&bench).await;

    let bench = bench.accepting(&["NotOnDisk"]);
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!(report.removed, expected.sources());
    assert_eq!(report.findings.len(), cluster.len(), "{:?}", report.findings);
    assert!(report.findings.iter().all(|found| found.accepted), "{:?}", report.findings);
}

#[tokio::test]
async fn servers_that_keep_nothing_are_warned_of_and_cleaned_up() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 30).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!(report.removed, expected.sources());
    assert_eq!(report.findings.len(), cluster.len(), "{:?}", report.findings);
    assert!(report.findings.iter().all(|found| found.severity == Severity::Warning), "{:?}", report.findings);
}

/// Its disk holds a beginning of what happened, copies before deletes, so nothing has to be waited for.
#[tokio::test]
async fn one_server_alone_is_cleaned_up_whatever_is_on_its_disk() {
    let redis = Standalone::start(hourly_snapshots()).await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    redis::cmd("SAVE").query_async::<()>(&mut redis.connection().await).await.expect("SAVE");
    bench.migrate(&Control::unattended()).await.expect("migrated");

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!((report.removed, report.findings.len()), (expected.sources(), 0));
    redis.kill();
    redis.restart().await;
    assert_eq!(lost(&expected, &bench.redis).await, 0, "of {} entries", expected.sources());
}

#[tokio::test]
async fn an_interrupted_cleanup_goes_on_counting() {
    let redis = Standalone::start(Options::default()).await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");

    let reins = Reins::paced(400);
    let interrupt = async {
        eventually_true(PATIENCE, "a part is removed", async || {
            reins.progress.borrow().as_ref().is_some_and(|progress| progress.processed > 40)
        })
        .await;
        reins.stop.cancel();
    };
    let (interrupted, ()) = tokio::join!(bench.cleanup(&reins.control), interrupt);
    assert_eq!(interrupted.expect_err("an interrupt"), Stop::Interrupted);
    let left = bench.snapshot().await.0;
    let left = expected.pairs.keys().filter(|source| left.contains_key(*source)).count() as u64;
    assert!(0 < left && left < expected.sources(), "the interrupt hit in the middle: {left} left");

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.removed + report.removed_before), (left, expected.sources()), "both attempts");
    let again = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((again.removed, again.removed_before), (0, 0), "a cleanup that ended is over");
}
