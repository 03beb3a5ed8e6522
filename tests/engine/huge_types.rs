//! Huge entries of every type that comes in pieces: copied, compared and removed like hashes.

use std::time::Duration;

use crate::support::engine::{Bench, assert_no_lock, assert_settled, run_on_owner};
use crate::support::generator::now_ms;
use crate::support::huge::{GROUP, Kind, PENDING, id, send_all};
use crate::support::load::load;
use crate::support::redis::Redis;
use crate::support::redis_client::Endpoint;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Bytes, Entry, Value};
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::keyspace::compare::Comparison;
use outpost_migrate_redis::keyspace::staging::{Over, Staged};
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::difference::Difference;
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use outpost_migrate_redis::model::key::RedisKey;
use redis::{Value as Answer, cmd};
use rstest::rstest;

const SOURCE: &[u8] = b"tenant:huge:things";
const TARGET: &[u8] = b"{tenant:huge}:things";
const DAY: i64 = 24 * 3600 * 1000;

fn keys() -> (RedisKey, RedisKey) {
    (RedisKey::concat(&[SOURCE]), RedisKey::concat(&[TARGET]))
}

fn tenant() -> Entry {
    Entry::new("tenant:huge", Value::hash([("id", "huge"), ("created_at", "2025-01-19T22:17:29Z")]))
}

async fn ask(redis: &Endpoint, name: &str, key: &[u8]) -> Answer {
    run_on_owner(redis, key, cmd(name).arg(key)).await
}

/// The staging key, once there is one and no target yet: the copy is under way.
async fn staged(redis: &Endpoint) -> (Bytes, i64) {
    let look = async {
        let primaries = redis.primaries().await;
        loop {
            for primary in &primaries {
                let mut connection = primary.connection.clone();
                let mut scan = cmd("SCAN");
                scan.arg(0).arg("MATCH").arg("outpost:migration:staging:*").arg("COUNT").arg(1000);
                let (_, keys): (u64, Vec<Bytes>) = scan.query_async(&mut connection).await.expect("SCAN");
                if let Some(key) = keys.into_iter().next() {
                    let life = cmd("PTTL").arg(&key).query_async(&mut connection).await.expect("PTTL");
                    return (key, life);
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), look).await.expect("a staging key");
    assert_eq!(ask(redis, "EXISTS", TARGET).await, Answer::Int(0), "the copy is under way");
    found
}

/// Source and target hold the same, and nothing of the copy is left.
async fn assert_copied(bench: &Bench) {
    let (data, state) = bench.snapshot().await;
    assert!(data[SOURCE] == data[TARGET], "{:?} became {:?}", data[SOURCE], data[TARGET]);
    assert_no_lock(&state);
}

#[rstest]
#[tokio::test]
async fn it_goes_all_the_way(
    #[values(Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List, Kind::Stream)] kind: Kind,
    #[values(1, 3)] primaries: usize,
) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    load(&redis, [tenant()]).await;
    kind.load(&redis, SOURCE, 200_000, Some(now_ms() + DAY)).await;
    let bench = Bench::with_layout(&redis, KeyLayout::TenantTag);
    let before = bench.snapshot().await.0;

    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");

    let found = walk.plan.seen.findings.iter().find(|it| it.code == FindingCode::HugeEntries).expect("a finding");
    assert_eq!((found.severity, walk.plan.seen.huge), (Severity::Note, 1));
    assert_eq!((walk.apply.copied, walk.verify.equal), (2, 2));
    let (after, state) = bench.snapshot().await;
    assert!(before[SOURCE] == after[TARGET], "{:?} became {:?}", before[SOURCE], after[TARGET]);
    before.assert_same(&after.filter(|key, _| !key.starts_with(b"{")), "the originals");
    assert_settled(&state);

    // A second run finds everything done.
    assert_eq!(bench.compare().await.expect("a comparison").equal, 2);
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (2, 0));
    let last = bench.snapshot().await.0;
    assert_eq!(last.len(), 2);
    assert!(before[SOURCE] == last[TARGET], "cleaned up");
}

/// The longest that each command held the server, by the server's own measure: in microseconds, the longest first.
async fn longest_commands(redis: &Standalone) -> Vec<(u64, String)> {
    let mut connection = redis.connection().await;
    let text: String = cmd("INFO").arg("latencystats").query_async(&mut connection).await.unwrap();
    let mut commands: Vec<(u64, String)> = text
        .lines()
        .filter_map(|line| {
            let (name, longest) = line.strip_prefix("latency_percentiles_usec_")?.split_once(":p100=")?;
            Some((longest.split('.').next()?.trim().parse().ok()?, name.to_owned()))
        })
        .collect();
    commands.sort_unstable_by(|one, other| other.cmp(one));
    cmd("CONFIG").arg("RESETSTAT").exec_async(&mut connection).await.unwrap();
    commands
}

/// A million members, none of which holds the server long: not in a transaction either, which the slow log leaves out.
#[rstest]
#[tokio::test]
async fn no_command_holds_the_server_long(
    #[values(Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List, Kind::Stream)] kind: Kind,
) {
    let extra = vec!["latency-tracking-info-percentiles 100".to_owned()];
    let redis = Standalone::start(Options { extra, ..Options::default() }).await;
    let endpoint = redis.endpoint();
    kind.load(&endpoint, SOURCE, 1_000_000, Some(now_ms() + DAY)).await;
    let bench = Bench::new(&endpoint);
    let held = bench.hold().await;
    let (source, target) = keys();
    longest_commands(&redis).await;

    let copied = held.writer.copy_in_pieces(&source, &target, Over::Nothing, &|| true).await;
    assert_eq!(copied.expect("an answer"), Staged::Made);
    let copying = longest_commands(&redis).await;
    let compared = held.writer.compare_in_pieces(&source, &target).await.expect("a comparison");
    let comparing = longest_commands(&redis).await;
    assert_eq!(compared, Comparison::Equal { expires: true });
    held.release().await;
    longest_commands(&redis).await;
    run_on_owner(&endpoint, SOURCE, cmd("COPY").arg(SOURCE).arg("other")).await;
    let in_one = longest_commands(&redis).await[0].0;

    println!("{kind:?}: copying {:?}, comparing {:?}, COPY {in_one} us", &copying[..3], &comparing[..3]);
    // Far below what clients feel, with some room for a machine that does other things as well.
    let limit = 20_000.max(in_one / 3);
    assert!(copying[0].0 < limit && comparing[0].0 < limit, "{copying:?} {comparing:?}, COPY {in_one}");
}

/// What was copied already changes at the source: the copy itself notices, before any proof.
#[rstest]
#[tokio::test]
async fn a_change_behind_the_copy_is_noticed(
    #[values(Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List, Kind::Stream)] kind: Kind,
    #[values(1, 3)] primaries: usize,
) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    kind.load(&redis, SOURCE, 100_000, Some(now_ms() + DAY)).await;
    let bench = Bench::new(&redis);
    let before = bench.snapshot().await.0;
    let held = bench.hold().await;
    let (source, target) = keys();
    let change = async {
        let (staging, _) = staged(&redis).await;
        kind.change_copied(&redis, SOURCE, &staging).await;
        assert_eq!(ask(&redis, "EXISTS", TARGET).await, Answer::Int(0), "it changed during the copy");
    };

    let copy = held.writer.copy_in_pieces(&source, &target, Over::Nothing, &|| true);
    let (copied, ()) = tokio::join!(copy, change);

    assert_eq!(copied.expect("an answer"), Staged::Made);
    held.release().await;
    assert_copied(&bench).await;
    assert!(before[SOURCE] != bench.snapshot().await.0[SOURCE], "it did change");
}

/// No command on groups makes a transaction fail that watches their stream: the copy compares them.
#[rstest]
#[case::acknowledged(cmd("XACK").arg(SOURCE).arg(GROUP).arg(id(1)).take())]
#[case::delivered_again(cmd("XCLAIM").arg(SOURCE).arg(GROUP).arg("a").arg(0).arg(id(1)).take())]
#[case::read(cmd("XREADGROUP").arg("GROUP").arg(GROUP).arg("c").arg("COUNT").arg(1).arg("STREAMS").arg(SOURCE).arg(">").take())]
#[tokio::test]
async fn a_change_of_groups_behind_the_copy_is_noticed(#[case] change: redis::Cmd, #[values(1, 3)] primaries: usize) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    Kind::Stream.load(&redis, SOURCE, 50_000, None).await;
    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    let (source, target) = keys();
    let change = async {
        let (staging, _) = staged(&redis).await;
        let pending = cmd("XPENDING").arg(&staging).arg(GROUP).take();
        // There is no such group until the groups are copied.
        while pending_in(&try_ask(&redis, &staging, &pending).await) < 1000 {
            tokio::task::yield_now().await;
        }
        run_on_owner(&redis, SOURCE, &change).await;
        assert_eq!(ask(&redis, "EXISTS", TARGET).await, Answer::Int(0), "it changed during the copy");
    };

    let copy = held.writer.copy_in_pieces(&source, &target, Over::Nothing, &|| true);
    let (copied, ()) = tokio::join!(copy, change);

    assert_eq!(copied.expect("an answer"), Staged::Made);
    held.release().await;
    assert_copied(&bench).await;
}

/// The number of pending entries by the answer of `XPENDING`.
fn pending_in(answer: &Answer) -> i64 {
    match answer {
        Answer::Array(facts) => redis::from_redis_value_ref(&facts[0]).expect("a number"),
        _ => 0,
    }
}

/// What the server answers; nil for an error.
async fn try_ask(redis: &Endpoint, key: &[u8], command: &redis::Cmd) -> Answer {
    let slot = crate::support::redis_client::slot(key);
    let mut owner = redis.primaries().await.into_iter().find(|primary| primary.owns(slot)).expect("an owner");
    command.query_async(&mut owner.connection).await.unwrap_or(Answer::Nil)
}

#[rstest]
#[tokio::test]
async fn a_killed_copy_leaves_only_what_expires(
    #[values(Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List, Kind::Stream)] kind: Kind,
    #[values(1, 3)] primaries: usize,
) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    kind.load(&redis, SOURCE, 100_000, Some(now_ms() + DAY)).await;
    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    let (source, target) = keys();
    let (staging, life) = tokio::select! {
        ended = held.writer.copy_in_pieces(&source, &target, Over::Nothing, &|| true) => panic!("not caught: {ended:?}"),
        seen = staged(&redis) => seen,
    };
    assert!(0 < life && life <= 60_000, "an orphan goes by itself, not in {life} ms");

    let copied = held.writer.copy_in_pieces(&source, &target, Over::Nothing, &|| true).await;

    assert_eq!(copied.expect("an answer"), Staged::Made);
    held.release().await;
    let Answer::Int(life) = ask(&redis, "PTTL", &staging).await else { panic!("PTTL answers a number") };
    assert!(life != -1 && life <= 60_000, "nothing prolonged the orphan: {life} ms");
    // What its expiry, which was just seen, would do.
    ask(&redis, "UNLINK", &staging).await;
    assert_copied(&bench).await;
}

/// Each way in which a target may differ is found, whichever of the two is the source; a clone by Redis is equal.
#[rstest]
#[tokio::test]
async fn every_difference_is_found(
    #[values(Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List, Kind::Stream)] kind: Kind,
) {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    let members = 40_000;
    kind.load(&redis, SOURCE, members, Some(now_ms() + DAY)).await;
    let bench = Bench::new(&redis);
    let keyspace = bench.keyspace().await;
    let (source, target) = keys();
    let expected = match kind {
        Kind::Hash => |it: &Difference| matches!(it, Difference::Fields(_)),
        _ => |it: &Difference| *it == Difference::Value,
    };
    let renew = async || {
        run_on_owner(&redis, SOURCE, cmd("COPY").arg(SOURCE).arg(TARGET).arg("REPLACE")).await;
        let compared = keyspace.compare_in_pieces(&source, &target).await;
        assert_eq!(compared, Ok(Comparison::Equal { expires: true }));
    };
    let changes = kind.changes(TARGET, members);
    for change in &changes {
        renew().await;
        let answer = run_on_owner(&redis, TARGET, change).await;
        let what = String::from_utf8_lossy(&change.get_packed_command()).replace("\r\n", " ");
        assert!(answer != Answer::Nil, "{what} changes nothing");
        for (one, other) in [(&source, &target), (&target, &source)] {
            let found = keyspace.compare_in_pieces(one, other).await.expect("a comparison").difference();
            assert!(found.as_ref().is_some_and(expected), "{what}: {found:?}");
        }
    }
    renew().await;
    run_on_owner(&redis, TARGET, cmd("PEXPIRE").arg(TARGET).arg(DAY)).await;
    let found = keyspace.compare_in_pieces(&source, &target).await.expect("a comparison").difference();
    assert_eq!(found, Some(Difference::Expiry));
}

/// The same ids with the same number of entries, and one field that differs.
#[tokio::test]
async fn a_field_of_a_stream_that_differs_is_found() {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    let add = |key: &'static [u8], fields: fn(usize) -> Vec<String>| {
        (0..20_000).map(move |n| cmd("XADD").arg(key).arg(id(n)).arg(fields(n)).take())
    };
    let one = |n: usize| vec!["field".to_owned(), n.to_string()];
    let other = |n: usize| vec!["field".to_owned(), if n == 9_999 { "other".to_owned() } else { n.to_string() }];
    // The same bytes in a row, divided otherwise.
    let divided = |n: usize| if n == 19_999 { ["fi", "eld19999"] } else { ["field", ""] }.map(str::to_owned).to_vec();
    let whole = |n: usize| if n == 19_999 { ["field", "19999"] } else { ["field", ""] }.map(str::to_owned).to_vec();
    let keyspace = Bench::new(&redis).keyspace().await;
    let (source, target) = keys();
    for (ours, theirs) in [(one as fn(usize) -> Vec<String>, other as fn(usize) -> Vec<String>), (divided, whole)] {
        run_on_owner(&redis, SOURCE, cmd("UNLINK").arg(SOURCE).arg(TARGET)).await;
        send_all(&redis, SOURCE, add(SOURCE, ours)).await;
        send_all(&redis, TARGET, add(TARGET, theirs)).await;
        for (one, other) in [(&source, &target), (&target, &source)] {
            let found = keyspace.compare_in_pieces(one, other).await.expect("a comparison").difference();
            assert_eq!(found, Some(Difference::Value));
        }
    }
}

#[tokio::test]
async fn another_type_is_a_difference() {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    let keyspace = Bench::new(&redis).keyspace().await;
    let (source, target) = keys();
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        let other = Kind::ALL[(at + 1) % Kind::ALL.len()];
        run_on_owner(&redis, SOURCE, cmd("UNLINK").arg(SOURCE).arg(TARGET)).await;
        kind.load(&redis, SOURCE, 30_000, None).await;
        assert_eq!(keyspace.compare_in_pieces(&source, &target).await, Ok(Comparison::TargetMissing));
        assert_eq!(keyspace.compare_in_pieces(&target, &source).await, Ok(Comparison::SourceGone));
        other.load(&redis, TARGET, 30_000, None).await;
        let found = keyspace.compare_in_pieces(&source, &target).await.expect("a comparison").difference();
        assert_eq!(found, Some(Difference::Type), "{kind:?} {other:?}");
        run_on_owner(&redis, TARGET, cmd("SET").arg(TARGET).arg("text")).await;
        let found = keyspace.compare_in_pieces(&source, &target).await.expect("a comparison").difference();
        assert_eq!(found, Some(Difference::Type), "{kind:?} string");
    }
}

/// A stale target of another type, and one of the same, are replaced; one that somebody touches meanwhile is not.
#[rstest]
#[tokio::test]
async fn a_stale_target_is_replaced(
    #[values(Kind::Set, Kind::SortedSet, Kind::List, Kind::Stream)] kind: Kind,
    #[values(1, 3)] primaries: usize,
) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    kind.load(&redis, SOURCE, 50_000, Some(now_ms() + DAY)).await;
    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    let (source, target) = keys();
    for stale in [Kind::Hash, kind] {
        run_on_owner(&redis, TARGET, cmd("UNLINK").arg(TARGET)).await;
        stale.load(&redis, TARGET, 30_000, None).await;
        let copied = held.writer.copy_in_pieces(&source, &target, Over::Stale, &|| true).await;
        assert_eq!(copied.expect("an answer"), Staged::Made);
    }
    held.release().await;
    assert_copied(&bench).await;
}

/// An empty stream has settings and groups too.
#[tokio::test]
async fn an_empty_stream_replaces_a_huge_one() {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    let bench = Bench::new(&redis);
    let (source, target) = keys();
    for groups in [false, true] {
        run_on_owner(&redis, SOURCE, cmd("UNLINK").arg(SOURCE).arg(TARGET)).await;
        run_on_owner(&redis, SOURCE, cmd("XADD").arg(SOURCE).arg("7-7").arg("field").arg("value")).await;
        run_on_owner(&redis, SOURCE, cmd("XTRIM").arg(SOURCE).arg("MAXLEN").arg(0)).await;
        if groups {
            run_on_owner(&redis, SOURCE, cmd("XGROUP").arg("CREATE").arg(SOURCE).arg("group").arg("$")).await;
        }
        Kind::Stream.load(&redis, TARGET, 30_000, None).await;
        let held = bench.hold().await;
        let copied = held.writer.copy_in_pieces(&source, &target, Over::Stale, &|| true).await;
        assert_eq!(copied.expect("an answer"), Staged::Made);
        held.release().await;
        assert_copied(&bench).await;
    }
}

/// An original whose groups changed since it was compared stays, though Redis does not watch groups.
#[rstest]
#[tokio::test]
async fn groups_that_change_keep_an_original(#[values(1, 3)] primaries: usize) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    Kind::Stream.load(&redis, SOURCE, 30_000, None).await;
    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    let (source, target) = keys();
    let undisturbed = held.writer.disturbances();

    let watched = held.writer.watch(&source, &target).await.expect("a watch");
    run_on_owner(&redis, SOURCE, cmd("XACK").arg(SOURCE).arg(GROUP).arg(id(1))).await;
    assert_eq!(held.writer.unlink_watched(watched, &source, undisturbed).await, Ok(false));
    assert_eq!(ask(&redis, "EXISTS", SOURCE).await, Answer::Int(1));

    let watched = held.writer.watch(&source, &target).await.expect("a watch");
    assert_eq!(held.writer.unlink_watched(watched, &source, undisturbed).await, Ok(true));
    assert_eq!(ask(&redis, "EXISTS", SOURCE).await, Answer::Int(0));
    held.release().await;
}

/// What no command can make again is refused, by the plan and by the copy.
#[rstest]
#[tokio::test]
async fn what_can_not_be_copied_exactly_is_refused(#[values(1, 3)] primaries: usize) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    load(&redis, [tenant()]).await;
    let bench = Bench::with_layout(&redis, KeyLayout::TenantTag);
    let refused = async |reason: &str| {
        let plan = bench.plan().await.expect("a plan");
        let errors: Vec<_> = plan.errors().filter(|it| it.code == FindingCode::HugeEntries).collect();
        assert!(errors.len() == 1 && errors[0].message.contains(reason), "{:?}", plan.seen.findings);
    };
    let copy_refused = async |reason: &str| {
        let held = bench.hold().await;
        let (source, target) = keys();
        let copied = held.writer.copy_in_pieces(&source, &target, Over::Nothing, &|| true).await;
        assert!(matches!(copied, Ok(Staged::Impossible(why)) if why.contains(reason)), "{copied:?}");
        held.release().await;
        let (data, state) = bench.snapshot().await;
        assert!(!data.contains_key(TARGET), "half a copy");
        assert_no_lock(&state);
    };

    Kind::Stream.load(&redis, SOURCE, 50_000, None).await;
    assert!(bench.plan().await.expect("a plan").errors().next().is_none());
    run_on_owner(&redis, SOURCE, cmd("XDEL").arg(SOURCE).arg(id(PENDING - 2))).await;
    refused("pending entries whose message was deleted").await;
    copy_refused("pending entries whose message was deleted").await;
    run_on_owner(&redis, SOURCE, cmd("XACK").arg(SOURCE).arg(GROUP).arg(id(PENDING - 2))).await;
    assert!(bench.plan().await.expect("a plan").errors().next().is_none());

    let groups = (0..1001).map(|n| cmd("XGROUP").arg("CREATE").arg(SOURCE).arg(format!("g{n}")).arg("$").take());
    send_all(&redis, SOURCE, groups).await;
    refused("more than 1,000 groups").await;
    copy_refused("more than 1,000 groups").await;

    run_on_owner(&redis, SOURCE, cmd("UNLINK").arg(SOURCE)).await;
    run_on_owner(&redis, SOURCE, cmd("CONFIG").arg("SET").arg("set-max-intset-entries").arg(1_000_000)).await;
    load(&redis, [Entry::new(SOURCE, Value::Set((0..300_000).map(|n| n.to_string().into_bytes()).collect()))]).await;
    refused("one block").await;

    run_on_owner(&redis, SOURCE, cmd("UNLINK").arg(SOURCE)).await;
    load(&redis, [Entry::new(SOURCE, Value::string(vec![b'x'; 2 << 20]))]).await;
    refused("a string").await;
}

/// From the mark on the target is the truth: what the application does to it is diverged, and keeps the original.
#[rstest]
#[tokio::test]
async fn a_diverged_target_keeps_its_original(
    #[values(Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List, Kind::Stream)] kind: Kind,
    #[values(1, 3)] primaries: usize,
) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    load(&redis, [tenant()]).await;
    kind.load(&redis, SOURCE, 100_000, None).await;
    let bench = Bench::with_layout(&redis, KeyLayout::TenantTag);
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let last = kind.changes(TARGET, 100_000).pop().expect("a change");
    run_on_owner(&redis, TARGET, &last).await;
    let before = bench.snapshot().await.0;

    assert_eq!(bench.compare().await.expect("a comparison").different, 1);
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!((report.removed, report.kept_diverged), (1, 1));
    before.filter(|key, _| key != b"tenant:huge").assert_same(&bench.snapshot().await.0, "both sides stay");
}
