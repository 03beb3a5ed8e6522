//! The engine against one real Redis server.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::verify;
use outpost_migrate_redis::keyspace::conditional::Outcome;
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::count::PerEntity;
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::policy::{ConflictPolicy, DivergedPolicy};
use rstest::rstest;

use crate::support::engine::{
    Bench, Expected, LOCKS, MARK, Reins, assert_no_lock, assert_settled, entries, hset, is_state, run_on_owner,
};
use crate::support::events::Events;
use crate::support::fixture::read_fixture;
use crate::support::generator::{Generator, now_ms, unmigrated};
use crate::support::load::load;
use crate::support::redis_client::Endpoint;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Entry, Keyspace, Value};
use crate::support::wait::eventually_true;

async fn start() -> Standalone {
    Standalone::start(Options::default()).await
}

/// Sources per entity, counted from the targets' names.
fn recount(expected: &Expected) -> PerEntity {
    let mut counts = PerEntity::new();
    for (source, target) in &expected.pairs {
        let rest = &target[target.iter().rposition(|&byte| byte == b'}').expect("a tag") + 1..];
        let _ = source;
        let entity = match rest {
            b"" | b":tenant" => "tenant",
            b":destinations" => "summary",
            _ => "destination",
        };
        *counts.entry(entity).or_default() += 1;
    }
    counts
}

#[rstest]
#[case::outpost(KeyLayout::Outpost)]
#[case::tenant_tag(KeyLayout::TenantTag)]
#[tokio::test]
async fn walks_from_plan_to_cleanup(#[case] layout: KeyLayout) {
    let redis = start().await;
    let bench = Bench::with_layout(&redis.endpoint(), layout);
    let expected = Expected::load_for(&bench.redis, 800, layout).await;

    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!(walk.plan.seen.sources, recount(&expected));
    assert_eq!(walk.plan.seen.unmigrated.total(), unmigrated().len() as u64);
    assert_eq!(walk.plan.seen.targets_before(), 0);
    assert_eq!(walk.apply.processed(), expected.sources());
    assert_eq!(walk.verify.equal, expected.sources());
    assert_eq!((walk.verify.different, walk.verify.ended), (0, 0));
    expected.assert_migrated(&bench).await;

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept(), report.gone), (expected.sources(), 0, 0));
    let (data, state) = bench.snapshot().await;
    expected.cleaned_up().assert_same(&data, "cleaned up");
    assert_settled(&state);
    assert!(state[MARK].value.field("cleaned_up_at").is_some());
}

#[tokio::test]
async fn walks_over_a_keyspace_that_outpost_wrote() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let fixture = read_fixture("tests/fixtures/outpost-v0.5-keyspace.jsonl");
    let expected = Expected::load_entries(&bench.redis, fixture, KeyLayout::Outpost).await;
    assert_eq!(expected.pairs.len(), expected.originals.len(), "all of the fixture are sources");

    bench.migrate(&Control::unattended()).await.expect("a mark");
    expected.assert_migrated(&bench).await;
    bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn plan_writes_nothing() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    Expected::load(&bench.redis, 100).await;
    let events = Events::listen(&bench.redis).await;
    bench.plan().await.expect("a plan");
    bench.compare().await.expect("a comparison");
    events.assert_only(|_| false).await;
}

#[tokio::test]
async fn a_second_run_writes_no_data() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;
    bench.try_prove(&Control::unattended()).await.expect("a proof");
    bench.assert_no_mark().await;

    let events = Events::listen(&bench.redis).await;
    let report = bench.try_prove(&Control::unattended()).await.expect("a proof");
    events.assert_only(is_state).await;
    assert_eq!((report.written(), report.already_migrated), (0, expected.sources()));
    expected.migrated().assert_same(&bench.snapshot().await.0, "as the first run left it");
}

#[tokio::test]
async fn binary_and_awkward_ids_are_moved_byte_for_byte() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let ids: [&[u8]; 9] =
        [b"\xff\xfe\x00", b"a\r\nb", b"*", b"[x]?", b"a:b:c", b" ", b"\x1b[31m", b"{", "ü{ñ".as_bytes()];
    let mut entries = Vec::new();
    for id in ids {
        let all_bytes: Vec<u8> = (0..=255).collect();
        entries.push(Entry::new([b"tenant:", id].concat(), Value::hash([(&b"id"[..], id), (b"metadata", &all_bytes)])));
        let destination: Value = Value::hash([(&b"id"[..], &b"d\xff"[..]), (b"credentials", &all_bytes)]);
        entries.push(Entry::new([b"tenant:", id, b":destination:d\xff"].concat(), destination));
    }
    let expected = Expected::load_entries(&bench.redis, entries, KeyLayout::Outpost).await;
    assert_eq!(expected.pairs.len(), 2 * ids.len());

    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!(walk.verify.equal, expected.sources());
    expected.assert_migrated(&bench).await;
    bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

/// What the application does to three targets after the mark; gives their sources.
async fn diverge(redis: &Endpoint, expected: &Expected) -> [Vec<u8>; 3] {
    let live = |(source, _): &(&Vec<u8>, &Vec<u8>)| expected.originals[*source].expiry_ms.is_none();
    let pairs: Vec<_> = expected.pairs.iter().filter(live).take(3).collect();
    hset(redis, pairs[0].1, "updated_at", "now").await;
    run_on_owner(redis, pairs[1].1, redis::cmd("DEL").arg(pairs[1].1)).await;
    run_on_owner(redis, pairs[2].1, redis::cmd("PEXPIREAT").arg(pairs[2].1).arg(now_ms() + 3_600_000)).await;
    [pairs[0].0.clone(), pairs[1].0.clone(), pairs[2].0.clone()]
}

#[rstest]
#[case::keep(DivergedPolicy::Keep)]
#[case::delete(DivergedPolicy::Delete)]
#[tokio::test]
async fn after_the_mark_differences_are_the_applications(#[case] policy: DivergedPolicy) {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint()).diverged(policy);
    let expected = Expected::load(&bench.redis, 100).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let sources = diverge(&bench.redis, &expected).await;
    let (before, _) = bench.snapshot().await;

    let report = bench.compare().await.expect("a comparison");
    assert_eq!((report.different, report.equal), (3, expected.sources() - 3));
    assert_eq!(report.sample.iter().count(), 3);
    before.assert_same(&bench.snapshot().await.0, "compare writes nothing");

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    let kept = if policy == DivergedPolicy::Keep { 3 } else { 0 };
    assert_eq!((report.kept_diverged, report.removed), (kept, expected.sources() - kept));
    let left = before.filter(|key, _| {
        !expected.pairs.contains_key(key) || (policy == DivergedPolicy::Keep && sources.iter().any(|it| it == key))
    });
    left.assert_same(&bench.snapshot().await.0, "targets are never made again");
}

#[tokio::test]
async fn cleanup_needs_our_own_mark() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 30).await;
    assert_eq!(bench.cleanup(&Control::unattended()).await, Err(Stop::NotVerified));
    hset(&bench.redis, MARK, "status", "applied").await;
    assert_eq!(bench.cleanup(&Control::unattended()).await, Err(Stop::NotVerified));
    expected.originals.assert_same(&bench.snapshot().await.0, "nothing was removed");
}

/// Puts something else at the target of a tenant; gives source and target.
async fn occupy_a_target(redis: &Endpoint, expected: &Expected) -> (Vec<u8>, Vec<u8>) {
    let (source, target) = expected
        .pairs
        .iter()
        .find(|(source, target)| target.ends_with(b":tenant") && expected.originals[*source].expiry_ms.is_none())
        .expect("a live tenant");
    let entry = &expected.originals[source];
    let moved = Entry { key: target.clone(), value: entry.value.clone(), expiry_ms: None };
    load(redis, [moved]).await;
    hset(redis, target, "updated_at", "by the new version").await;
    (source.clone(), target.clone())
}

#[tokio::test]
async fn a_conflict_fails_and_overwrites_nothing() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 60).await;
    let (source, target) = occupy_a_target(&bench.redis, &expected).await;
    let (before, _) = bench.snapshot().await;

    let stop = bench.migrate(&Control::unattended()).await.expect_err("a conflict");
    let Stop::Conflicts(report) = stop else { panic!("{stop:?}") };
    assert_eq!(report.conflicts, 1);
    let named: Vec<_> = report.conflict_sample.iter().cloned().collect();
    assert_eq!(named, [(RedisKey::new(source), RedisKey::new(target))]);
    let (data, state) = bench.snapshot().await;
    before.assert_same(&data, "nothing was overwritten");
    assert_no_lock(&state);
    bench.assert_no_mark().await;
}

#[tokio::test]
async fn a_conflict_that_comes_up_during_apply_fails_too() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 60).await;
    // One equal target, so that the run knows that not every target is its own.
    let (source, target) = expected.pairs.iter().next().expect("a source");
    run_on_owner(&bench.redis, source, redis::cmd("COPY").arg(source).arg(target)).await;
    let held = bench.hold().await;
    let control = Control::unattended();
    let (plan, run) = held.begin(&control).await.expect("a plan");
    let (_, target) = occupy_a_target(&bench.redis, &expected).await;
    let before = bench.snapshot().await.0[&target].clone();

    let stop = held.apply(&control, &plan, &run).await.expect_err("a conflict");
    assert!(matches!(&stop, Stop::Conflicts(report) if report.conflicts == 1), "{stop:?}");
    let stop = held.prove(&control, &plan, &run).await.map(|_| ()).expect_err("a conflict");
    assert!(matches!(&stop, Stop::Conflicts(report) if report.conflicts == 1), "{stop:?}");
    assert_eq!(bench.snapshot().await.0[&target], before);
    held.release().await;
}

#[tokio::test]
async fn prefer_source_replaces_and_prefer_target_keeps() {
    for policy in [ConflictPolicy::PreferSource, ConflictPolicy::PreferTarget] {
        let redis = start().await;
        let bench = Bench::new(&redis.endpoint()).conflicts(policy);
        let expected = Expected::load(&bench.redis, 60).await;
        let (_, target) = occupy_a_target(&bench.redis, &expected).await;
        let theirs = bench.snapshot().await.0[&target].clone();

        let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
        let (data, state) = bench.snapshot().await;
        assert_settled(&state);
        if policy == ConflictPolicy::PreferSource {
            assert_eq!((walk.apply.replaced, walk.apply.conflicts, walk.verify.different), (1, 0, 0));
            expected.migrated().assert_same(&data, "the source won");
        } else {
            assert_eq!((walk.apply.replaced, walk.apply.conflicts, walk.verify.different), (0, 1, 1));
            assert_eq!(data[&target], theirs, "the target won");
            let other = |keyspace: &Keyspace| keyspace.filter(|key, _| *key != target);
            other(&expected.migrated()).assert_same(&other(&data), "all others");
        }
    }
}

#[tokio::test]
async fn a_stale_copy_of_our_own_is_refreshed() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let mut expected = Expected::load(&bench.redis, 60).await;
    let held = bench.hold().await;
    let control = Control::unattended();
    let (plan, run) = held.begin(&control).await.expect("a plan");
    held.apply(&control, &plan, &run).await.expect("a copy");
    let (source, target) = expected.pairs.iter().next().expect("a source");
    hset(&bench.redis, source, "updated_at", "late").await;

    let proof = held.prove(&control, &plan, &run).await.expect("a proof");
    assert_eq!(proof.report().equal, expected.sources());
    held.mark(proof).await.expect("a mark");
    held.release().await;
    let changed = bench.snapshot().await.0[source].clone();
    let entry = |key: &[u8]| Entry { key: key.to_vec(), value: changed.value.clone(), expiry_ms: changed.expiry_ms };
    let (source, target) = (source.clone(), target.clone());
    expected.originals.extend([entry(&source)]);
    expected.targets.extend([entry(&target)]);
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn sources_that_keep_changing_are_never_marked() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 60).await;
    let source = expected.pairs.keys().next().expect("a source").clone();
    let mut connection = redis.connection().await;
    let writer = tokio::spawn(async move {
        for number in 0_u64.. {
            redis::cmd("HSET").arg(&source).arg("n").arg(number).exec_async(&mut connection).await.expect("HSET");
        }
    });
    let stop = bench.migrate(&Control::unattended()).await.expect_err("no mark");
    assert!(matches!(stop, Stop::SourceChanging { changed: 1.. }), "{stop:?}");
    bench.assert_no_mark().await;
    writer.abort();
    let _ = writer.await;
    bench.migrate(&Control::unattended()).await.expect("a mark once it is quiet");
    bench.compare().await.map(|report| assert_eq!((report.different, report.equal), (0, expected.sources()))).unwrap();
}

#[tokio::test]
async fn cleanup_keeps_what_changes_under_its_hands() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 200).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let reins = Reins::paced(200);
    let changed: Vec<Vec<u8>> = {
        let work = bench.cleanup(&reins.control);
        let change = async {
            let gone = async || {
                let (data, _) = bench.snapshot().await;
                expected.pairs.keys().filter(|source| !data.contains_key(*source)).count()
            };
            eventually_true(Duration::from_secs(30), "cleanup has begun", async || gone().await > 20).await;
            let (data, _) = bench.snapshot().await;
            // A tombstone with one more field would be no tombstone any more.
            let left: Vec<_> = entries(&data)
                .filter(|entry| expected.pairs.contains_key(&entry.key) && entry.expiry_ms.is_none())
                .map(|entry| entry.key)
                .collect();
            assert!(left.len() > 100, "cleanup is nearly done");
            for source in &left {
                let write = redis::Script::new(
                    "if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('HSET', KEYS[1], 'late', '1') end",
                );
                let mut connection = redis.connection().await;
                write.key(source).invoke_async::<Option<i64>>(&mut connection).await.expect("HSET");
            }
            let (data, _) = bench.snapshot().await;
            left.into_iter()
                .filter(|source| data.get(source).is_some_and(|held| held.value.field("late").is_some()))
                .collect()
        };
        let (report, changed): (_, Vec<_>) = tokio::join!(work, change);
        let report = report.expect("a cleanup");
        assert_eq!(report.kept(), changed.len() as u64);
        assert_eq!(report.removed, expected.sources() - changed.len() as u64);
        changed
    };
    let (data, _) = bench.snapshot().await;
    for source in &changed {
        assert!(data.contains_key(source), "a changed original was deleted");
    }
    let rest = data.filter(|key, _| !changed.iter().any(|it| it == key));
    expected.cleaned_up().assert_same(&rest, "all others are cleaned up");
}

fn redis_line(words: &[&str]) -> redis::Cmd {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command
}

/// How a key of some type is made, and a change that leaves most of it as it was.
struct Case {
    name: &'static str,
    make: Vec<String>,
    change: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |name, make: &[&str], change| {
        let make = make.iter().map(|line| (*line).to_owned()).collect();
        Case { name, make, change }
    };
    let big: Vec<String> = (0..2500).map(|n| format!("f{n} v{n}")).collect();
    let big = format!("HSET k {}", big.join(" "));
    vec![
        case("a string", &["SET k v"], "APPEND k w"),
        case("a hash", &["HSET k a 1 b 2"], "HSET k b 3"),
        case("a hash too big for a script", &[&big], "HSET k f2000 other"),
        case("a list", &["RPUSH k a b a"], "LSET k 1 c"),
        case("a set", &["SADD k a b"], "SADD k c"),
        case("a sorted set", &["ZADD k 1 a 2 b"], "ZADD k 1.5 a"),
        case("a stream", &["XADD k 1-1 a b", "XGROUP CREATE k g 0"], "XREADGROUP GROUP g me STREAMS k >"),
    ]
}

#[tokio::test]
async fn conditional_writes_hold_for_every_type() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let held = bench.hold().await;
    let mut connection = redis.connection().await;
    let key = RedisKey::from("k");
    redis_line(&["SET", "new", "payload"]).exec_async(&mut connection).await.unwrap();
    let payload = held.writer.payloads(&[RedisKey::from("new")]).await.unwrap().remove(0).unwrap();
    let mut run = async |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        redis_line(&words).exec_async(&mut connection).await.expect(line);
    };

    for Case { name, make, change } in cases() {
        for disturb in [Some(change), Some("PEXPIRE k 3600000"), Some("DEL k"), None] {
            for replace in [false, true] {
                run("DEL k").await;
                for line in &make {
                    run(line).await;
                }
                let entry = held.writer.entries(std::slice::from_ref(&key)).await.unwrap().remove(0).unwrap();
                if let Some(line) = disturb {
                    run(line).await;
                }
                let before = crate::support::snapshot::snapshot(&bench.redis).await;
                let outcome = if replace {
                    held.writer.replace_if_unchanged(&key, &entry, &payload).await.unwrap()
                } else {
                    held.writer.unlink_if_unchanged(&[(key.clone(), entry)], held.writer.disturbances()).await.unwrap()
                        [0]
                };
                let after = crate::support::snapshot::snapshot(&bench.redis).await;
                let expected = match disturb {
                    None => Outcome::Done,
                    Some("DEL k") => Outcome::Gone,
                    Some(_) => Outcome::Changed,
                };
                assert_eq!(outcome, expected, "{name}, {disturb:?}, replace {replace}");
                match (expected, replace) {
                    (Outcome::Done, true) => assert_eq!(after[&b"k"[..]].value, Value::string("payload"), "{name}"),
                    (Outcome::Done, false) => assert!(!after.contains_key(&b"k"[..]), "{name}"),
                    _ => assert_eq!(before.get(&b"k"[..]), after.get(&b"k"[..]), "{name} was written"),
                }
            }
        }
    }
    held.release().await;
}

#[tokio::test]
async fn another_tools_mark_is_a_claim() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 60).await;
    let (_, target) = occupy_a_target(&bench.redis, &expected).await;
    hset(&bench.redis, MARK, "status", "applied").await;
    let theirs = bench.snapshot().await.0[&target].clone();

    let plan = bench.plan().await.expect("a plan");
    assert!(plan.seen.mark_is_unproven);
    assert_eq!(plan.seen.to_copy(), expected.sources() - 1);

    let walk = bench.migrate(&Control::unattended()).await.expect("our own mark");
    assert_eq!((walk.apply.copied, walk.apply.conflicts), (expected.sources() - 1, 1));
    let (data, state) = bench.snapshot().await;
    assert_settled(&state);
    assert_eq!(data[&target], theirs, "what differs is the application's");
    let other = |keyspace: &Keyspace| keyspace.filter(|key, _| *key != target);
    other(&expected.migrated()).assert_same(&other(&data), "what was missing is copied");
}

#[tokio::test]
async fn a_claim_without_missing_targets_is_stamped() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 30).await;
    load(&bench.redis, entries(&expected.targets)).await;
    hset(&bench.redis, MARK, "status", "applied").await;
    let held = bench.hold().await;
    let plan = bench.plan().await.expect("a plan");
    assert_eq!(plan.seen.to_copy(), 0);
    let control = Control::unattended();
    let (hash, now) = (plan.hash.as_str(), crate::support::engine::now());
    let proof = verify::prove_mark(&held.writer, &bench.assignment, &control, hash, None, now).await.expect("a proof");
    assert_eq!((proof.unapplied, proof.different), (0, 0), "the mark was true");
    held.release().await;
    assert!(bench.mark().await.expect("a mark").value.field("verified_at").is_some());
}

#[tokio::test]
async fn tombstones_that_end_meanwhile_are_no_failure() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let now = now_ms();
    let mut entries: Vec<Entry> = Generator::new(5, 100).entries().collect();
    for number in 0..400 {
        let tombstone =
            Entry::new(format!("tenant:gone_{number}"), Value::hash([("deleted_at", "2026-11-01T00:00:00Z")]));
        entries.push(tombstone.expiring(now + 1_500 + number * 3));
    }
    let expected = Expected::load_entries(&bench.redis, entries, KeyLayout::Outpost).await;
    let reins = Reins::paced(300);
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    let report = held.apply(&reins.control, &plan, &run).await.expect("a copy");
    assert!(report.copied > 100, "some were copied");
    assert_eq!(report.conflicts, 0);
    let proof = held.prove(&Control::unattended(), &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;
    let (data, state) = bench.snapshot().await;
    assert_settled(&state);
    let at = now_ms();
    let lives = |keyspace: &Keyspace| keyspace.filter(|_, held| held.expiry_ms.is_none_or(|end| end > at + 60_000));
    lives(&expected.migrated()).assert_same(&lives(&data), "all that did not end");
    assert!(data.filter(|_, held| held.expiry_ms.is_none()).keys().all(|key| !key.starts_with(b"tenant:{gone")));
}

#[tokio::test]
async fn stopping_is_quick_and_resuming_ends_as_if_never_stopped() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;
    let reins = Reins::paced(200);
    let stopping = async {
        expected.wait_halfway(&bench.redis).await;
        reins.stop.cancel();
        Instant::now()
    };
    let (result, asked) = tokio::join!(async { (bench.migrate(&reins.control).await, Instant::now()) }, stopping);
    let (result, ended) = result;
    assert_eq!(result.map(|_| ()), Err(Stop::Interrupted));
    assert!(ended.duration_since(asked) < Duration::from_secs(1), "took {:?}", ended.duration_since(asked));
    expected.assert_halfway(&bench.redis).await;
    let (_, state) = bench.snapshot().await;
    assert_no_lock(&state);
    bench.assert_no_mark().await;

    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert!(walk.apply.copied > 0 && walk.apply.already_migrated > 0);
    assert_eq!(walk.apply.processed(), expected.sources());
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn the_pace_holds() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 320).await;
    let rate = u32::try_from(expected.sources() / 4).expect("a small number");
    let reins = Reins::paced(rate);
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    let began = Instant::now();
    held.apply(&reins.control, &plan, &run).await.expect("a copy");
    let took = began.elapsed().as_secs_f64();
    held.release().await;
    assert!((3.2..4.8).contains(&took), "{} keys at {rate} a second took {took} s", expected.sources());
}

#[tokio::test]
async fn no_lock_key_is_left() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let held = bench.hold().await;
    let (_, state) = bench.snapshot().await;
    assert_eq!(state.len(), LOCKS.len());
    assert!(state.values().all(|lock| lock.expiry_ms.is_some_and(|at| at <= now_ms() + 6_000)));
    held.release().await;
    assert!(bench.snapshot().await.1.is_empty());
}

#[tokio::test]
async fn a_resumed_run_refreshes_what_it_copied_before() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 200).await;
    let reins = Reins::paced(200);
    let stopping = async {
        expected.wait_halfway(&bench.redis).await;
        reins.stop.cancel();
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), stopping);
    assert_eq!(result.map(|_| ()), Err(Stop::Interrupted));
    let (data, _) = bench.snapshot().await;
    let copied = |(source, target): &(&Vec<u8>, &Vec<u8>)| {
        data.contains_key(*target) && expected.originals[*source].expiry_ms.is_none()
    };
    let (source, target) = expected.pairs.iter().find(copied).expect("a copied source");
    hset(&bench.redis, source, "updated_at", "late").await;

    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!((walk.apply.replaced, walk.apply.conflicts), (1, 0));
    let (data, _) = bench.snapshot().await;
    assert_eq!(data[source], data[target]);
}

#[tokio::test]
async fn a_stopped_cleanup_is_resumed() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 200).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let reins = Reins::paced(200);
    let mut progress = reins.progress.clone();
    let stopping = async {
        progress.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.processed > 50)).await.expect("progress");
        reins.stop.cancel();
    };
    let (result, ()) = tokio::join!(bench.cleanup(&reins.control), stopping);
    assert_eq!(result, Err(Stop::Interrupted));
    let (data, state) = bench.snapshot().await;
    assert_settled(&state);
    let left = expected.pairs.keys().filter(|source| data.contains_key(*source)).count();
    assert!(0 < left && left < expected.pairs.len(), "the fault did not hit");
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!(report.removed, left as u64);
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

/// On a Redis that others use too, names of foreign keys would be most of what a pass reads.
#[rstest]
#[case(KeyLayout::Outpost)]
#[case(KeyLayout::TenantTag)]
#[tokio::test]
async fn names_of_foreign_keys_are_not_sent(#[case] layout: KeyLayout) {
    let redis = start().await;
    let bench = Bench::with_layout(&redis.endpoint(), layout);
    let expected = Expected::load_for(&bench.redis, 50, layout).await;
    let foreign = (0..20_000).map(|number| Entry::new(format!("session:{number:060}"), Value::string("x")));
    load(&bench.redis, foreign).await;
    let mut connection = redis.connection().await;
    let mut sent = async || {
        let info: String = redis::cmd("INFO").arg("stats").query_async(&mut connection).await.expect("INFO");
        let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).expect("a counter");
        line.trim().parse::<u64>().expect("a number")
    };
    let before = sent().await;
    let plan = bench.plan().await.expect("a plan");
    let bytes = sent().await - before;
    assert_eq!(plan.seen.total_sources(), expected.sources());
    assert!(bytes < 500_000, "{bytes} bytes were sent, where foreign names are more than a million");
}

/// What a pass is to see is seen, whatever its prefixes are made of.
#[tokio::test]
async fn a_pass_finds_every_key_of_strange_prefixes() {
    let redis = start().await;
    let endpoint = redis.endpoint();
    let prefixes: Vec<Vec<u8>> =
        [&b"a[b-d]*:"[..], b"^]\\-x", b"\xff\x00?{", b"--]", b"\\\\^"].map(<[u8]>::to_vec).into();
    let keys = prefixes.iter().flat_map(|prefix| [prefix.clone(), [prefix, &b"tail"[..]].concat()]);
    let keys: BTreeSet<Vec<u8>> = keys.collect();
    let near = [&b"ab"[..], b"a", b"]", b"^", b"b[b-d]*:", b"-", b"\\"].map(|key| Entry::new(key, Value::string("x")));
    load(&endpoint, keys.iter().map(|key| Entry::new(key, Value::string("x"))).chain(near)).await;
    let keyspace = Bench::new(&endpoint).keyspace().await;
    for look in keyspace.all_looks().await.expect("looks") {
        let pages: Vec<_> = keyspace.scan(&look, &prefixes).try_collect().await.expect("pages");
        let found: BTreeSet<Vec<u8>> = pages.concat().iter().map(|key| key.as_bytes().to_vec()).collect();
        assert_eq!(found, keys);
    }
}
