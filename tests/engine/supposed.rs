//! Sources that are taken for what their names say: the step that acts looks whether they are, and does nothing if not.

use crate::support::command_stats::{calls, reset_calls};
use crate::support::engine::{Bench, Expected, run_on_owner};
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Entry, Value};
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::keyspace::compare::Comparison;
use outpost_migrate_redis::keyspace::conditional::Outcome;
use outpost_migrate_redis::keyspace::copy::Copied;
use outpost_migrate_redis::keyspace::supposed::{HEAVY_BYTES, Spare, Supposed};
use outpost_migrate_redis::migrations::{KeyLayout, Registry, Rule, Scope};
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::mapping::{Answer, Premise, Probe, UnmigratedReason};
use redis::{Cmd, cmd};
use rstest::rstest;

const FIELDS: &[&str] = &["id", "deleted_at"];

fn premise(key: &str, id: Option<&str>) -> Premise {
    let values = vec![id.map(|id| id.as_bytes().to_vec()), None];
    let probe = Probe::Fields { key: key.into(), fields: FIELDS };
    Premise::new(probe, Answer::Fields(values)).expect("a premise")
}

/// Keys, what they are supposed to be, and whether they are.
fn cases() -> Vec<(&'static str, Option<&'static str>, Vec<Cmd>, bool)> {
    let set = |key: &str, fields: &[&str]| cmd("HSET").arg(key).arg(fields).take();
    vec![
        ("is", Some("1"), vec![set("is", &["id", "1", "x", "y"])], true),
        ("has-none", None, vec![set("has-none", &["x", "y"])], true),
        ("other-id", Some("1"), vec![set("other-id", &["id", "2"])], false),
        ("longer-id", Some("1"), vec![set("longer-id", &["id", "11"])], false),
        ("no-id", Some("1"), vec![set("no-id", &["x", "y"])], false),
        ("an-id", None, vec![set("an-id", &["id", "1"])], false),
        ("empty-id", None, vec![set("empty-id", &["id", ""])], false),
        ("deleted", Some("1"), vec![set("deleted", &["id", "1", "deleted_at", "t"])], false),
        ("deleted-empty", Some("1"), vec![set("deleted-empty", &["id", "1", "deleted_at", ""])], false),
        ("string", None, vec![cmd("SET").arg("string").arg("id").take()], false),
        ("list", Some("1"), vec![cmd("RPUSH").arg("list").arg("id").arg("1").take()], false),
    ]
}

fn target_of(key: &str) -> RedisKey {
    format!("target:{key}").into()
}

async fn exists(redis: &Endpoint, key: &[u8]) -> bool {
    run_on_owner(redis, key, cmd("EXISTS").arg(key)).await == redis::Value::Int(1)
}

async fn nothing_rests_on_a_false_premise(redis: &Endpoint) {
    let bench = Bench::new(redis);
    let cases = cases();
    let premises: Vec<Premise> = cases.iter().map(|(key, id, ..)| premise(key, *id)).collect();
    let targets: Vec<RedisKey> = cases.iter().map(|(key, ..)| target_of(key)).collect();
    let supposed: Vec<Supposed<'_>> =
        premises.iter().zip(&targets).map(|(premise, target)| Supposed { target, premise }).collect();
    for (key, _, commands, _) in &cases {
        for command in commands {
            run_on_owner(redis, key.as_bytes(), command).await;
        }
    }
    let held = bench.hold().await;
    let writer = &held.writer;
    let undisturbed = writer.disturbances();

    let asked: Vec<&Premise> = premises.iter().collect();
    let (holds, sizes) = (writer.hold(&asked).await, writer.measure_supposed(&asked).await);
    let copied = writer.copy_supposed(&supposed, Spare::None).await.expect("copies");
    for (index, (key, _, _, is)) in cases.iter().enumerate() {
        assert_eq!(holds[index], is.then_some(false), "{key}");
        assert_eq!(sizes[index].is_some_and(|bytes| bytes > 0), *is, "{key}");
        assert_eq!(copied[index], is.then_some(Copied::Made), "{key}");
        assert_eq!(exists(redis, targets[index].as_bytes()).await, *is, "the target of {key}");
    }
    // What is not as supposed has an equal target all the same, so that only the premise speaks against it.
    for ((source, target), (.., is)) in premises.iter().map(Premise::key).zip(&targets).zip(&cases) {
        if !is {
            let pair = [(source.clone(), target.clone())];
            assert_eq!(writer.copy(&pair).await.expect("a copy"), [Copied::Made]);
        }
    }
    let compared = writer.compare_supposed(&supposed, Spare::Heavy).await.expect("comparisons");
    let unlinked = writer.unlink_supposed(&supposed, undisturbed).await.expect("removals");
    for (index, (key, _, _, is)) in cases.iter().enumerate() {
        assert_eq!(compared[index], is.then_some(Comparison::Equal { expires: false }), "{key}");
        let may_go = *is && !redis.cluster;
        assert_eq!(unlinked[index], may_go.then_some(Outcome::Done), "{key}");
        assert_eq!(exists(redis, key.as_bytes()).await, !may_go, "{key} itself");
    }
    held.release().await;
}

#[tokio::test]
async fn nothing_rests_on_a_false_premise_on_one_server() {
    nothing_rests_on_a_false_premise(&Standalone::start(Options::default()).await.endpoint()).await;
}

#[tokio::test]
async fn nothing_rests_on_a_false_premise_on_a_cluster() {
    nothing_rests_on_a_false_premise(&Cluster::start(3, 0, Options::default()).await.endpoint()).await;
}

/// A heavy entry is left to those who work on it alone.
#[rstest]
#[case::one_server(1)]
#[case::a_cluster(3)]
#[tokio::test]
async fn heavy_entries_are_spared(#[case] primaries: usize) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    let heavy = "x".repeat(usize::try_from(HEAVY_BYTES).expect("a size"));
    run_on_owner(&redis, b"heavy", cmd("HSET").arg("heavy").arg("id").arg("1").arg("x").arg(&heavy)).await;
    let (premise, target) = (premise("heavy", Some("1")), target_of("heavy"));
    let supposed = [Supposed { target: &target, premise: &premise }];
    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    let writer = &held.writer;
    assert_eq!(writer.copy_supposed(&supposed, Spare::Heavy).await, Ok(vec![None]));
    assert!(!exists(&redis, target.as_bytes()).await);
    assert_eq!(writer.copy_supposed(&supposed, Spare::None).await, Ok(vec![Some(Copied::Made)]));
    assert_eq!(writer.compare_supposed(&supposed, Spare::Heavy).await, Ok(vec![None]));
    assert_eq!(writer.unlink_supposed(&supposed, writer.disturbances()).await, Ok(vec![None]));
    assert!(exists(&redis, b"heavy").await);
    // A target that grew is as heavy as a source.
    run_on_owner(&redis, b"heavy", cmd("HDEL").arg("heavy").arg("x")).await;
    assert_eq!(writer.compare_supposed(&supposed, Spare::Heavy).await, Ok(vec![None]));
    held.release().await;
}

/// Were the quick way never taken, everything would still be right: the servers' own counts tell. On a cluster they
/// would be the same; that its scripts answer is shown for each version of Redis elsewhere.
#[rstest]
#[case::one_server(1)]
#[case::a_cluster(3)]
#[tokio::test]
async fn ordinary_entries_are_read_once_a_step(#[case] primaries: usize) {
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    let tenant = |number: u32| {
        let (id, key) = (format!("t{number}"), format!("tenant:t{number}"));
        let fields = [("id", id.as_str()), ("created_at", "2025-01-19T22:17:29Z")];
        Entry::new(key, Value::hash(fields))
    };
    let expected = Expected::load_entries(&redis, (0..1000).map(tenant).collect(), KeyLayout::Outpost).await;
    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    let control = Control::unattended();
    let (plan, run) = held.begin(&control).await.expect("a plan");
    reset_calls(&redis).await;
    held.apply(&control, &plan, &run).await.expect("an apply");
    assert_eq!(calls(&redis, "hmget").await, 1000, "looked at in the step that copied");
    let copies = if redis.cluster { "restore" } else { "copy" };
    assert_eq!(calls(&redis, copies).await, 1000);
    reset_calls(&redis).await;
    let proof = held.prove(&control, &plan, &run).await.expect("a proof");
    let looks = calls(&redis, "hmget").await;
    let own = if redis.cluster { 1000 } else { 0 };
    assert_eq!(looks, own + 2000, "targets by their own content and that of a tenant with a braced id");
    held.mark(proof).await.expect("a mark");
    held.release().await;
    expected.assert_migrated(&bench).await;
    if !redis.cluster {
        reset_calls(&redis).await;
        let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
        assert_eq!((report.removed, calls(&redis, "hmget").await), (1000, 0), "compared and removed in one step");
    }
}

/// Names of targets promise nothing that their content does not keep: what stands there is counted as it is.
#[rstest]
#[case::one_server(1)]
#[case::a_cluster(3)]
#[tokio::test]
async fn names_of_targets_are_not_believed(#[case] primaries: usize) {
    use UnmigratedReason::{BracedTenant, WrongContent, WrongType};
    let redis = Redis::of(primaries, 0, Options::default()).await;
    let redis = redis.endpoint();
    let set = |key: &str, fields: &[&str]| cmd("HSET").arg(key).arg(fields).take();
    let keys = [
        ("tenant:ordinary", set("tenant:ordinary", &["id", "ordinary"])),
        ("tenant:{kept}:tenant", set("tenant:{kept}:tenant", &["id", "kept"])),
        ("tenant:{a}", set("tenant:{a}", &["id", "{a}"])),
        ("tenant:{a}:destinations", set("tenant:{a}:destinations", &["d", "{}"])),
        ("tenant:{b}:tenant", set("tenant:{b}:tenant", &["id", "other"])),
        ("tenant:{c}:tenant", cmd("SET").arg("tenant:{c}:tenant").arg("c").take()),
    ];
    for (key, command) in &keys {
        run_on_owner(&redis, key.as_bytes(), command).await;
    }
    let bench = Bench::new(&redis).accepting(&["BracedTenant"]);
    let expected = [(WrongType, 1), (WrongContent, 1), (BracedTenant, 1)].into_iter().collect();
    let plan = bench.plan().await.expect("a plan");
    assert_eq!(plan.seen.unmigrated.by_reason, expected);
    assert_eq!(plan.seen.current.values().sum::<u64>(), 1, "{:?}", plan.seen.current);
    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!(walk.verify.unmigrated.by_reason, expected, "by the proof");
    let report = bench.compare().await.expect("a comparison");
    assert_eq!(report.unmigrated.by_reason, expected, "after the mark");
}

/// In this layout a current key is known by its name: nothing else is read of it that could tell when it ends.
#[tokio::test]
async fn when_current_keys_end_is_asked_for_many_at_once_and_only_where_it_decides() {
    let redis = Standalone::start(Options::default()).await;
    let tenant = |number: u32| {
        let id = format!("t{number}");
        Entry::new(format!("tenant:{id}"), Value::hash([("id", id.as_str()), ("created_at", "2025-01-19T22:17:29Z")]))
    };
    let (direct, layout) = (redis.endpoint(), KeyLayout::TenantTag);
    Expected::load_entries(&direct, (0..300).map(tenant).collect(), layout).await;
    let bench = Bench::with_layout(&direct, layout);
    bench.migrate(&Control::unattended()).await.expect("a mark");

    let proxy = Proxy::start(redis.port()).await;
    let asks_alone = |request: &[u8]| request.windows(8).any(|window| window == b"$4\r\nPTTL");
    proxy.stop_at(0, asks_alone);
    let through_proxy = Bench::with_layout(&proxy.endpoint(), layout);
    tokio::select! {
        plan = through_proxy.plan() => {
            assert_eq!(plan.expect("a plan").seen.current.values().sum::<u64>(), 300);
        }
        () = proxy.wait_caught() => panic!("a key was asked about alone"),
    }

    reset_calls(&direct).await;
    assert_eq!(bench.compare().await.expect("a comparison").equal, 300);
    assert_eq!(calls(&direct, "pttl").await, 0, "a comparison counts no such keys");
}

/// A guess is no more than that: what it supposes makes the migration give an answer at once, and the right one.
#[rstest]
#[case("tenant:a", "tenant:{a}:tenant")]
#[case("tenant:a:destinations", "tenant:{a}:destinations")]
#[case("tenant:a:destination:b", "tenant:{a}:destination:b")]
fn ordinary_names_promise_what_they_are(#[case] key: &str, #[case] target: &str) {
    let migration = Registry::outpost().get("001_hash_tags").expect("a migration");
    let Rule::Rename(rename) = migration.rule() else { panic!("a renaming migration") };
    for (name, is_source) in [(key, true), (target, false)] {
        let scope = Scope::default();
        let answers = rename.likely_answers(&scope, &name.into());
        let mapping = rename.map(&scope, &name.into(), &answers);
        let premises = answers.into_premises().expect("premises");
        assert_eq!(premises.len(), if is_source { 1 } else { 2 }, "{name}");
        let text = format!("{mapping:?}");
        assert_eq!(text.contains("Target"), is_source, "{text}");
        assert_eq!(text.contains("AlreadyCurrent"), !is_source, "{text}");
    }
}
