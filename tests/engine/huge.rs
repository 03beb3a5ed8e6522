//! Huge hashes: copied, compared and removed in pieces; nothing half-made stays, nothing that changed is lost.

use std::time::Duration;

use crate::support::command_stats::{calls, reset_calls};
use crate::support::engine::{Bench, Expected, LOCKS, assert_no_lock, hset, run_on_owner};
use crate::support::redis::Redis;
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Bytes, Entry, Value};
use crate::support::wait::eventually;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::lost_expiry;
use outpost_migrate_redis::keyspace::staging::{Over, Staged};
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use outpost_migrate_redis::model::key::RedisKey;
use redis::Value as Answer;
use rstest::rstest;

/// A summary of so many destinations.
fn summary(tenant: &str, fields: u32) -> Vec<Entry> {
    let lines = (0..fields).map(|number| (format!("des_{number}"), format!(r#"{{"id":"des_{number}"}}"#)));
    let far = crate::support::generator::now_ms() + 86_400_000;
    vec![
        Entry::new(format!("tenant:{tenant}"), Value::hash([("id", tenant), ("created_at", "2025-01-19T22:17:29Z")])),
        Entry::new(format!("tenant:{tenant}:destinations"), Value::hash(lines)).expiring(far),
    ]
}

/// From plan to cleanup; the targets are recounted by the harness.
async fn walk(redis: &Endpoint, fields: u32) {
    let bench = Bench::new(redis);
    let expected = Expected::load_entries(redis, summary("huge", fields), KeyLayout::Outpost).await;
    assert_eq!(expected.pairs.len(), 2);
    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    let found = walk.plan.seen.findings.iter().find(|it| it.code == FindingCode::HugeEntries).expect("a finding");
    assert_eq!((found.severity, walk.plan.seen.huge), (Severity::Note, 1));
    assert_eq!((walk.apply.copied, walk.verify.equal), (2, 2));
    expected.assert_migrated(&bench).await;
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (2, 0));
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn a_huge_hash_goes_all_the_way_on_one_server() {
    let redis = Standalone::start(Options::default()).await;
    walk(&redis.endpoint(), 200_000).await;
}

#[tokio::test]
async fn a_huge_hash_goes_all_the_way_on_a_cluster() {
    let cluster = Cluster::start(3, 1, Options::default()).await;
    walk(&cluster.endpoint(), 200_000).await;
}

const SOURCE: &[u8] = b"tenant:huge:destinations";
const TARGET: &[u8] = b"tenant:{huge}:destinations";

/// A staging key and what is left of its life, once there is one: the copy is under way, for the target is missing.
async fn staged(redis: &Endpoint) -> (Bytes, i64) {
    tokio::time::timeout(Duration::from_secs(60), look_for_staging(redis)).await.expect("a staging key")
}

async fn look_for_staging(redis: &Endpoint) -> (Bytes, i64) {
    let primaries = redis.primaries().await;
    loop {
        for primary in &primaries {
            let mut connection = primary.connection.clone();
            let mut scan = redis::cmd("SCAN");
            scan.arg(0).arg("MATCH").arg("outpost:migration:staging:*").arg("COUNT").arg(1000);
            let (_, keys): (u64, Vec<Bytes>) = scan.query_async(&mut connection).await.expect("SCAN");
            if let Some(key) = keys.into_iter().next() {
                let life = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.expect("PTTL");
                assert_eq!(ask(redis, "EXISTS", TARGET).await, Answer::Int(0), "the copy is under way");
                return (key, life);
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn ask(redis: &Endpoint, name: &str, key: &[u8]) -> Answer {
    run_on_owner(redis, key, redis::cmd(name).arg(key)).await
}

/// The task ends in the middle, and the next one finds what it left.
async fn is_killed(redis: &Endpoint) {
    let mut bench = Bench::new(redis);
    bench.life = Duration::from_secs(2);
    let expected = Expected::load_entries(redis, summary("huge", 100_000), KeyLayout::Outpost).await;
    let control = Control::unattended();
    let (staging, life) = tokio::select! {
        ended = bench.migrate(&control) => panic!("it was not caught in the middle: {ended:?}"),
        seen = staged(redis) => seen,
    };
    assert!(0 < life && life <= 60_000, "an orphan goes by itself, not in {life} ms");
    bench.assert_no_mark().await;
    for lock in LOCKS {
        eventually(Duration::from_secs(20), "the dead holder's lock ends", async || {
            (ask(redis, "EXISTS", lock.as_bytes()).await == Answer::Int(0)).then_some(())
        })
        .await;
    }
    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!(walk.verify.equal, 2);
    let Answer::Int(life) = ask(redis, "PTTL", &staging).await else { panic!("PTTL answers a number") };
    assert!(life != -1 && life <= 60_000, "nothing prolonged the orphan: {life} ms");
    // What its expiry, which was just seen, would do.
    ask(redis, "UNLINK", &staging).await;
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_killed_copy_leaves_only_what_expires_on_one_server() {
    let redis = Standalone::start(Options::default()).await;
    is_killed(&redis.endpoint()).await;
}

#[tokio::test]
async fn a_killed_copy_leaves_only_what_expires_on_a_cluster() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    is_killed(&cluster.endpoint()).await;
}

/// What is written to the source behind the copy's back is in the target, or there is no mark.
async fn source_changes(redis: &Endpoint) {
    let bench = Bench::new(redis);
    Expected::load_entries(redis, summary("huge", 100_000), KeyLayout::Outpost).await;
    let control = Control::unattended();
    let change = async {
        staged(redis).await;
        hset(redis, SOURCE, "des_0", "changed").await;
        hset(redis, SOURCE, "des_added", "new").await;
        run_on_owner(redis, SOURCE, redis::cmd("HDEL").arg(SOURCE).arg("des_1")).await;
        assert_eq!(ask(redis, "EXISTS", TARGET).await, Answer::Int(0), "it changed during the copy");
    };
    let (ended, ()) = tokio::join!(bench.migrate(&control), change);
    let (data, _) = bench.snapshot().await;
    if ended.is_err() {
        bench.assert_no_mark().await;
        return;
    }
    assert_eq!(data[SOURCE].value.field("des_0"), Some(&b"changed"[..]));
    assert!(data[SOURCE].value == data[TARGET].value, "a mark over a difference");
    assert_eq!(data[SOURCE].expiry_ms, data[TARGET].expiry_ms);
}

#[tokio::test]
async fn a_source_that_changes_meanwhile_is_copied_anew_on_one_server() {
    let redis = Standalone::start(Options::default()).await;
    source_changes(&redis.endpoint()).await;
}

#[tokio::test]
async fn a_source_that_changes_meanwhile_is_copied_anew_on_a_cluster() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    source_changes(&cluster.endpoint()).await;
}

/// A field that was copied already changes at the source: the copy itself notices, before any proof.
async fn source_changes_behind_the_copy(redis: &Endpoint) {
    let bench = Bench::new(redis);
    Expected::load_entries(redis, summary("huge", 100_000), KeyLayout::Outpost).await;
    let held = bench.hold().await;
    let (source, target) = (RedisKey::concat(&[SOURCE]), RedisKey::concat(&[TARGET]));
    let change = async {
        let (staging, _) = staged(redis).await;
        let Answer::BulkString(field) = ask(redis, "HRANDFIELD", &staging).await else { panic!("a field") };
        let field = String::from_utf8(field).expect("a field of ours");
        hset(redis, SOURCE, &field, "changed").await;
        assert_eq!(ask(redis, "EXISTS", TARGET).await, Answer::Int(0), "it changed during the copy");
        field
    };
    let copy = held.writer.copy_in_pieces(&source, &target, Over::Nothing, &|| true);
    let (copied, field) = tokio::join!(copy, change);
    assert_eq!(copied.expect("an answer"), Staged::Made);
    held.release().await;
    let (data, _) = bench.snapshot().await;
    assert_eq!(data[SOURCE].value.field(&field), Some(&b"changed"[..]));
    assert!(data[SOURCE].value == data[TARGET].value, "the copy is of what was before");
}

#[tokio::test]
async fn a_change_behind_the_copy_is_noticed_by_the_copy_on_one_server() {
    let redis = Standalone::start(Options::default()).await;
    source_changes_behind_the_copy(&redis.endpoint()).await;
}

#[tokio::test]
async fn a_change_behind_the_copy_is_noticed_by_the_copy_on_a_cluster() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    source_changes_behind_the_copy(&cluster.endpoint()).await;
}

async fn target_appears(redis: &Endpoint) {
    let bench = Bench::new(redis);
    Expected::load_entries(redis, summary("huge", 100_000), KeyLayout::Outpost).await;
    let held = bench.hold().await;
    let (source, target) = (RedisKey::concat(&[SOURCE]), RedisKey::concat(&[TARGET]));
    let appear = async {
        staged(redis).await;
        hset(redis, TARGET, "des_theirs", "theirs").await;
    };
    let copy = held.writer.copy_in_pieces(&source, &target, Over::Nothing, &|| true);
    let (copied, ()) = tokio::join!(copy, appear);
    assert_eq!(copied.expect("an answer"), Staged::TargetExists);
    held.release().await;
    let (data, state) = bench.snapshot().await;
    assert!(data[TARGET].value == Value::hash([("des_theirs", "theirs")]), "somebody's entry was overwritten");
    assert_no_lock(&state);
}

#[tokio::test]
async fn a_target_that_appears_meanwhile_stays_on_one_server() {
    let redis = Standalone::start(Options::default()).await;
    target_appears(&redis.endpoint()).await;
}

#[tokio::test]
async fn a_target_that_appears_meanwhile_stays_on_a_cluster() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    target_appears(&cluster.endpoint()).await;
}

/// A diverged target keeps its original; a stale one is replaced, and then the original may go.
async fn target_differs(redis: &Endpoint) {
    let bench = Bench::new(redis);
    let expected = Expected::load_entries(redis, summary("huge", 50_000), KeyLayout::Outpost).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    hset(redis, TARGET, "des_7", "theirs").await;
    assert_eq!(bench.compare().await.expect("a comparison").different, 1);
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept_diverged), (1, 1));
    assert_eq!(ask(redis, "EXISTS", SOURCE).await, Answer::Int(1), "an original that differs stays");

    let held = bench.hold().await;
    let (source, target) = (RedisKey::concat(&[SOURCE]), RedisKey::concat(&[TARGET]));
    let copied = held.writer.copy_in_pieces(&source, &target, Over::Stale, &|| true).await;
    assert_eq!(copied.expect("an answer"), Staged::Made);
    held.release().await;
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (1, 0));
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn a_huge_target_that_differs_is_kept_or_replaced_on_one_server() {
    let redis = Standalone::start(Options::default()).await;
    target_differs(&redis.endpoint()).await;
}

#[tokio::test]
async fn a_huge_target_that_differs_is_kept_or_replaced_on_a_cluster() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    target_differs(&cluster.endpoint()).await;
}

/// As an earlier tool copied it: all but when it ends.
async fn loses_its_expiry(redis: &Endpoint) -> Expected {
    let entries: Vec<Entry> = summary("huge", 50_000).into_iter().filter(|entry| entry.key == SOURCE).collect();
    let expected = Expected::load_entries(redis, entries, KeyLayout::Outpost).await;
    let bench = Bench::new(redis);
    bench.migrate(&Control::unattended()).await.expect("a mark");
    run_on_owner(redis, TARGET, redis::cmd("PERSIST").arg(TARGET)).await;
    assert_eq!(ask(redis, "PTTL", TARGET).await, Answer::Int(-1));
    expected
}

#[rstest]
#[case::one_server(false)]
#[case::a_cluster(true)]
#[tokio::test]
async fn an_expiry_that_a_huge_entry_lost_is_put_back_without_reading_it_whole(#[case] cluster: bool) {
    let redis = Redis::either(cluster, 0).await;
    let redis = redis.endpoint();
    let expected = loses_its_expiry(&redis).await;
    let bench = Bench::new(&redis);
    let held = bench.hold().await;

    reset_calls(&redis).await;
    let count = lost_expiry::put_back(&held.writer, &bench.assignment, &Control::unattended()).await;
    let whole = calls(&redis, "hgetall").await + calls(&redis, "dump").await;
    held.release().await;

    // The mark is read whole, and nothing else.
    assert_eq!((count.expect("a count"), whole), (1, 1));
    expected.migrated().assert_same(&bench.snapshot().await.0, "as if it had been copied with its end");
}

#[tokio::test]
async fn a_huge_entry_that_the_application_changed_is_given_no_expiry() {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    loses_its_expiry(&redis).await;
    hset(&redis, TARGET, "des_7", "theirs").await;
    let bench = Bench::new(&redis);
    let held = bench.hold().await;

    let count = lost_expiry::put_back(&held.writer, &bench.assignment, &Control::unattended()).await;
    held.release().await;

    assert_eq!(count.expect("a count"), 0);
    assert_eq!(ask(&redis, "PTTL", TARGET).await, Answer::Int(-1));
}

/// The longest that a command held the server since the last look, if any held it for 10 ms.
async fn longest_command(redis: &Standalone) -> Duration {
    let mut connection = redis.connection().await;
    let log: Vec<redis::Value> = redis::cmd("SLOWLOG").arg("GET").arg(128).query_async(&mut connection).await.unwrap();
    let micros = log.iter().map(|entry| {
        let (_, _, micros): (i64, i64, u64) = match entry {
            redis::Value::Array(facts) => redis::from_redis_value(redis::Value::Array(facts[..3].to_vec())).unwrap(),
            other => panic!("{other:?}"),
        };
        micros
    });
    let longest = micros.max().unwrap_or_default();
    redis::cmd("SLOWLOG").arg("RESET").exec_async(&mut connection).await.unwrap();
    Duration::from_micros(longest)
}

#[tokio::test]
async fn no_command_holds_the_server_nearly_as_long_as_a_copy_in_one_piece() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let bench = Bench::new(&endpoint);
    Expected::load_entries(&endpoint, summary("huge", 500_000), KeyLayout::Outpost).await;
    let held = bench.hold().await;
    let (source, target) = (RedisKey::concat(&[SOURCE]), RedisKey::concat(&[TARGET]));
    longest_command(&redis).await;
    let copied = held.writer.copy_in_pieces(&source, &target, Over::Nothing, &|| true).await;
    assert_eq!(copied.expect("an answer"), Staged::Made);
    let in_pieces = longest_command(&redis).await;
    held.release().await;
    run_on_owner(&endpoint, SOURCE, redis::cmd("COPY").arg(SOURCE).arg("other")).await;
    let in_one = longest_command(&redis).await;
    println!("longest command while copying in pieces: {in_pieces:?}; COPY takes {in_one:?}");
    assert!(in_one > Duration::from_millis(100), "COPY takes {in_one:?}");
    assert!(in_pieces * 3 < in_one, "{in_pieces:?} in pieces, {in_one:?} in one");
}
