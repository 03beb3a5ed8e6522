//! The engine against clusters that say little of themselves: primaries without slots, removed nodes, dead
//! replicas; and against a Service that leads to another server after a failover.

use std::time::Duration;

use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::verify;
use outpost_migrate_redis::keyspace::FaultClass;
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use outpost_migrate_redis::model::policy::{Limits, MinReplicas};
use outpost_migrate_redis::model::progress::Progress;
use redis::aio::MultiplexedConnection;
use rstest::rstest;

use crate::support::command_line::CommandLine;
use crate::support::engine::{Bench, Expected, Reins, assert_no_lock};
use crate::support::proxy::Proxy;
use crate::support::redis_client::slot;
use crate::support::redis_cluster::{Cluster, wait_replicated};
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::wait::{STARTUP, eventually_true};

const PROGRAM: &str = env!("CARGO_BIN_EXE_outpost-migrate-redis");

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

/// Failovers of both ends make everybody forget that a slot was being moved.
#[rstest]
#[case::on_a_primary_without_slots(None)]
#[case::on_an_owner_of_others(Some(1))]
#[tokio::test]
async fn keys_that_lie_where_nobody_looks_keep_a_run_from_its_mark(#[case] beside: Option<usize>) {
    let cluster = Cluster::start_with_empty(3, 1, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    let slot = slot(b"tenant:tenant_1");
    let from = cluster.owner(slot).await;
    let to = beside.map_or(EMPTY, |beside| (from + beside) % 3);
    let (moved, _) = cluster.open_slot(slot, from, to).await;
    assert!(moved > 0, "the fault did not hit");
    for node in [to, from] {
        cluster.stabilize_slot(slot, node).await;
    }

    let result = bench.migrate(&patient(2)).await.map(|walk| walk.verify);
    assert!(
        matches!(&result, Err(Stop::Incomplete { example, .. }) if example.contains(&cluster.addr(to))),
        "{result:?}"
    );
    assert_half_moved(result, slot);

    cluster.import_slot(slot, to, from).await;
    cluster.take_back_slot(slot, to, from).await;
    bench.assert_no_mark().await;
    let walk = bench.migrate(&patient(2)).await.expect("a mark once they are taken back");
    assert_eq!(walk.apply.processed(), expected.sources());
    expected.assert_migrated(&bench).await;
}

/// Time cures nothing there, so a run says at once what it has seen.
#[tokio::test]
async fn a_run_stops_as_soon_as_it_is_certain_of_stray_keys() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    Expected::load(&bench.redis, 300).await;
    let slot = slot(b"tenant:tenant_1");
    let from = cluster.owner(slot).await;
    let to = (from + 1) % 3;
    let (moved, _) = cluster.open_slot(slot, from, to).await;
    assert!(moved > 0, "the fault did not hit");
    for node in [to, from] {
        cluster.stabilize_slot(slot, node).await;
    }

    // Slots that may become coverable are waited for a minute.
    let keyspace = bench.keyspace().await;
    let control = Control::unattended();
    let comparing = verify::compare(&keyspace, &bench.assignment, &control, None);
    let compared = tokio::time::timeout(Duration::from_secs(20), comparing).await.expect("an answer at once");
    let example = match &compared {
        Err(Stop::Incomplete { example, .. }) => example,
        other => panic!("{other:?}"),
    };
    assert!(example.contains(&cluster.addr(to)) && example.contains("IMPORTING"), "{example}");
}

/// How often a node was asked for the topology.
async fn times_asked(cluster: &Cluster, node: usize) -> u64 {
    let mut connection = cluster.connection(node).await;
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.expect("INFO");
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_cluster|nodes:calls="));
    calls.and_then(|calls| calls.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// The one to whom a slot was half-moved has been looked at when the move is taken back: nothing tells of it any more.
#[tokio::test]
async fn a_move_that_is_taken_back_while_a_pass_waits_for_it_hides_no_key() {
    let cluster = Cluster::start(3, 1, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 100).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let moving = slot(b"tenant:tenant_1");
    let from = cluster.owner(moving).await;
    let to = (from + 1) % 3;
    let (moved, _) = cluster.open_slot(moving, from, to).await;
    assert!(moved > 0, "the fault did not hit");

    let reins = Reins::new(Limits::default()).patience(Duration::from_secs(20));
    let keyspace = bench.keyspace().await;
    let mut progress = reins.progress.clone();
    let hidden = expected.pairs.keys().filter(|source| slot(source) == moving).count() as u64;
    let taking_back = async {
        let all_others = |seen: &Progress| seen.processed >= expected.sources() - hidden;
        progress.wait_for(|seen| seen.as_ref().is_some_and(all_others)).await.expect("progress");
        // The looks are over when the topology has been asked for several times more: only this slot is waited for.
        let before = times_asked(&cluster, to).await;
        eventually_true(STARTUP, "the pass waits", async || times_asked(&cluster, to).await > before + 4).await;
        for node in [to, from] {
            cluster.stabilize_slot(moving, node).await;
        }
    };
    let comparing = verify::compare(&keyspace, &bench.assignment, &reins.control, None);
    let (compared, ()) = tokio::join!(comparing, taking_back);

    assert!(
        matches!(&compared, Err(Stop::Incomplete { example, .. }) if example.contains(&cluster.addr(to))),
        "{compared:?}"
    );
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

/// What it holds, if anything, is seen by nobody, and nothing waits for it.
#[tokio::test]
async fn a_primary_without_slots_that_is_called_failed_is_a_warning() {
    let cluster = Cluster::start_with_empty(3, 0, Options::default()).await;
    let empty = 3;
    let bench = Bench::new(&cluster.endpoint());
    Expected::load(&bench.redis, 10).await;
    cluster.kill_node(empty);
    for primary in cluster.primaries().await {
        cluster.wait_failed(empty, primary).await;
    }

    let plan = bench.plan().await.expect("a plan");

    let warned: Vec<&str> = plan
        .seen
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Warning)
        .map(|finding| finding.message.as_str())
        .collect();
    assert!(warned.iter().any(|message| message.contains(&cluster.addr(empty))), "{:?}", plan.seen.findings);
}

/// A look that gives no keys may be what is lacking when every slot is covered.
#[tokio::test]
async fn a_look_at_a_primary_without_slots_that_does_not_count_is_told_as_what_it_is() {
    let cluster = Cluster::start_with_empty(3, 0, Options::default()).await;
    let empty = 3;
    let bench = Bench::new(&cluster.endpoint());
    Expected::load(&bench.redis, 10).await;
    let mut connection = cluster.connection(empty).await;
    let changing = async {
        loop {
            // As if it had been a replica meanwhile.
            redis::cmd("DEBUG").arg("CHANGE-REPL-ID").exec_async(&mut connection).await.expect("DEBUG");
        }
    };

    let keyspace = bench.keyspace().await;
    let control = patient(2);
    let planning = outpost_migrate_redis::engine::plan::plan(&keyspace, &bench.assignment, &control);
    let planned = tokio::select! {
        planned = planning => planned.map(|_| ()),
        () = changing => unreachable!("it goes on"),
    };

    let stop = planned.expect_err("a stop");
    assert!(stop.to_string().contains(&cluster.addr(empty)), "{stop}");
    assert!(!stop.to_string().contains("could not be covered"), "{stop}");
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

async fn replication(server: &Standalone, field: &str) -> Option<String> {
    let text: String = redis::cmd("INFO").arg("replication").query_async(&mut server.connection().await).await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned))
}

async fn follow(replica: &Standalone, primary: u16) {
    let mut connection: MultiplexedConnection = replica.connection().await;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(primary).exec_async(&mut connection).await.expect("REPLICAOF");
}

async fn become_primary(replica: &Standalone) {
    let mut connection: MultiplexedConnection = replica.connection().await;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut connection).await.expect("REPLICAOF");
}

/// A primary with a replica in step.
async fn pair() -> (Standalone, Standalone) {
    let (primary, replica) = (Standalone::start(Options::default()).await, Standalone::start(Options::default()).await);
    follow(&replica, primary.port()).await;
    eventually_true(STARTUP, "the replica is in step", async || {
        replication(&replica, "master_link_status").await.as_deref() == Some("up")
    })
    .await;
    (primary, replica)
}

#[tokio::test]
async fn a_service_that_leads_to_the_promoted_replica_is_followed() {
    let (primary, replica) = pair().await;
    let service = Proxy::start(primary.port()).await;
    let bench = Bench::new(&service.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;

    let reins = Reins::paced(300).patience(Duration::from_secs(5));
    let failing = async {
        expected.wait_halfway(&bench.redis).await;
        redis::cmd("FAILOVER").exec_async(&mut primary.connection().await).await.expect("FAILOVER");
        eventually_true(STARTUP, "the replica is promoted", async || {
            replication(&primary, "role").await.as_deref() == Some("slave")
        })
        .await;
        service.lead_to(replica.port());
        expected.assert_halfway(&bench.redis).await;
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), failing);

    assert_eq!(result.map(|walk| walk.verify.equal), Ok(expected.sources()));
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_lock_is_given_back_to_the_promoted_replica() {
    let (primary, replica) = pair().await;
    let service = Proxy::start(primary.port()).await;
    let mut bench = Bench::new(&service.endpoint());
    bench.life = Duration::from_secs(3600);
    let held = bench.hold().await;
    wait_replicated(&mut primary.connection().await, 1).await;
    redis::cmd("FAILOVER").exec_async(&mut primary.connection().await).await.expect("FAILOVER");
    eventually_true(STARTUP, "the replica is promoted", async || {
        replication(&primary, "role").await.as_deref() == Some("slave")
    })
    .await;
    assert!(!snapshot(&replica.endpoint()).await.is_empty(), "the promoted replica has the lock");

    service.lead_to(replica.port());
    held.release().await;
    assert_no_lock(&snapshot(&replica.endpoint()).await);
}

/// What tells a server from others.
async fn run_id(server: &Standalone) -> String {
    let text: String = redis::cmd("INFO").arg("server").query_async(&mut server.connection().await).await.unwrap();
    text.lines().find_map(|line| line.strip_prefix("run_id:")).expect("run_id").to_owned()
}

#[tokio::test]
async fn replicas_of_another_server_at_the_same_address_have_not_acknowledged() {
    let (before, after) = pair().await;
    let replica = Standalone::start(Options::default()).await;
    let service = Proxy::start(before.port()).await;
    let bench = Bench::new(&service.endpoint());
    let held = bench.hold().await;
    wait_replicated(&mut before.connection().await, 1).await;

    // Both are primaries now, and only the one that the Service does not lead to yet has what we write.
    become_primary(&after).await;
    follow(&replica, after.port()).await;
    eventually_true(STARTUP, "the other server has a replica", async || {
        replication(&replica, "master_link_status").await.as_deref() == Some("up")
    })
    .await;
    service.lead_to(after.port());

    let short =
        held.writer.wait_for_replicas(MinReplicas::Exactly(1), Duration::from_secs(5), "outpost:migration:staging:");
    assert_eq!(short.await.expect("an answer"), []);
    let known = held.writer.topology().await.primaries[0].run_id.clone();
    assert_eq!(known, run_id(&after).await, "what was written to the server before counts as acknowledged");
    held.release().await;
}

/// The key that a scan meets first.
async fn first_source(server: &Standalone, expected: &Expected) -> Vec<u8> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(0).arg("COUNT").arg(400);
    let (_, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut server.connection().await).await.expect("SCAN");
    keys.into_iter().find(|key| expected.pairs.contains_key(key)).expect("a source")
}

/// A failover there and back within one pass: the server's run is the same all the time, its keys are not.
#[tokio::test]
async fn a_server_that_was_a_replica_meanwhile_has_not_stood_still() {
    let (primary, other) = pair().await;
    let mut bench = Bench::new(&primary.endpoint());
    bench.life = Duration::from_secs(60);
    let expected = Expected::load(&bench.redis, 300).await;
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    held.apply(&Control::unattended(), &plan, &run).await.expect("a copy");
    let lost = &expected.pairs[&first_source(&primary, &expected).await];
    let run_before = run_id(&primary).await;

    let reins = Reins::paced(100);
    let mut progress = reins.progress.clone();
    let there_and_back = async {
        progress.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.processed > 100)).await.expect("progress");
        wait_replicated(&mut primary.connection().await, 1).await;
        become_primary(&other).await;
        let removed: u64 = redis::cmd("DEL").arg(lost).query_async(&mut other.connection().await).await.expect("DEL");
        assert_eq!(removed, 1, "the fault did not hit");
        follow(&primary, other.port()).await;
        let is_there = async || !snapshot(&primary.endpoint()).await.contains_key(lost);
        eventually_true(STARTUP, "the former primary follows", is_there).await;
        become_primary(&primary).await;
        let seen = progress.borrow().as_ref().map_or(0, |seen| seen.processed);
        assert!(seen < expected.sources(), "the fault did not hit: {seen} were compared before it");
        reins.pace(None);
    };
    let (proof, ()) = tokio::join!(held.prove(&reins.control, &plan, &run), there_and_back);

    assert_eq!(run_id(&primary).await, run_before);
    held.mark(proof.expect("a proof")).await.expect("a mark");
    held.release().await;
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_named_as_one() {
    let (primary, replica) = pair().await;
    let bench = Bench::new(&primary.endpoint());
    Expected::load(&bench.redis, 10).await;
    let keyspace = bench.keyspace().await;
    follow(&primary, replica.port()).await;

    let planned = outpost_migrate_redis::engine::plan::plan(&keyspace, &bench.assignment, &patient(1)).await;
    let stop = planned.map(|_| ()).expect_err("a stop");
    assert!(matches!(&stop, Stop::Fault(fault) if fault.class == FaultClass::ReadOnly), "{stop:?}");
    assert!(stop.to_string().contains(&primary.addr()), "{stop}");
    assert!(stop.to_string().contains("replica"), "{stop}");
}

/// Three primaries of which one has a replica that is dead.
async fn with_a_dead_replica() -> Cluster {
    let cluster = Cluster::start(3, 1, Options::default()).await;
    cluster.kill_node(4);
    eventually_true(STARTUP, "its primary misses it", async || {
        let info = cluster.node(1).info("replication").await.expect("INFO");
        info("connected_slaves").as_deref() == Some("0")
    })
    .await;
    cluster
}

#[tokio::test]
async fn a_dead_replica_is_an_error_of_the_plan() {
    let cluster = with_a_dead_replica().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 50).await;

    let plan = bench.plan().await.expect("a plan");
    let found = plan.seen.findings.iter().find(|finding| finding.code == FindingCode::Replicas).expect("a finding");
    assert_eq!(found.severity, Severity::Error, "{}", found.message);
    assert!(found.message.contains(&cluster.addr(1)), "{}", found.message);
    let stop = bench.migrate(&Control::unattended()).await.map(|_| ()).expect_err("a stop");
    assert!(matches!(&stop, Stop::PreflightFailed(_)), "{stop:?}");
    expected.originals.assert_same(&bench.snapshot().await.0, "nothing was copied");

    let command_line = CommandLine::new(PROGRAM, &bench.redis);
    command_line.run(&["apply", "001_hash_tags", "--yes"]).await.assert_code(1).assert_said("--min-replicas");
    command_line.run(&["apply", "001_hash_tags", "--yes", "--min-replicas=0"]).await.assert_code(0);
    expected.assert_migrated(&bench).await;
    command_line.run(&["cleanup", "001_hash_tags", "--yes"]).await.assert_code(1).assert_said("--min-replicas");
    command_line.run(&["cleanup", "001_hash_tags", "--yes", "--min-replicas=0"]).await.assert_code(0);
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn init_can_do_without_a_dead_replica() {
    let cluster = with_a_dead_replica().await;
    let command_line = CommandLine::new(PROGRAM, &cluster.endpoint());
    command_line.run(&["init"]).await.assert_code(1).assert_said("--min-replicas");
    command_line.run(&["init", "--min-replicas=0"]).await.assert_code(0);
    command_line.run(&["init", "--current"]).await.assert_code(0);
}
