//! The upgrade as it happens: `001_hash_tags` to `003_entity`, the application lives on, then cleanup; and what
//! other versions leave behind.

use std::collections::BTreeSet;

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::restore::{self, RestoreReport};
use outpost_migrate_redis::engine::survey;
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::mark::Mark;
use outpost_migrate_redis::model::policy::{ConflictPolicy, DivergedPolicy};
use rstest::rstest;

use crate::support::command_line::CommandLine;
use crate::support::current_form::current;
use crate::support::engine::{Bench, Expected, MARK, entries, hset, is_state, run_on_owner};
use crate::support::events::Events;
use crate::support::fixture::read_fixture;
use crate::support::generator::{Generator, noise, now_ms, unmigrated};
use crate::support::load::load;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::redis_client::Endpoint;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Bytes, Entry, Keyspace, Value};

const MIGRATIONS: [&str; 3] = ["001_hash_tags", "002_timestamps", "003_entity"];
const DAY: i64 = 24 * 3600 * 1000;

fn command_line(redis: &Endpoint) -> CommandLine {
    CommandLine::new(env!("CARGO_BIN_EXE_outpost-migrate-redis"), redis)
}

/// What Outpost v0.5 wrote, a generated keyspace, and keys that no rule maps or that are not Outpost's.
async fn load_before(redis: &Endpoint) -> Expected {
    let generator = Generator::new(7, 200);
    let fixture = read_fixture("tests/fixtures/outpost-v0.5-keyspace.jsonl");
    let others = noise(generator.now_ms).into_iter().chain(unmigrated().into_iter().map(|one| one.entry));
    let all = fixture.into_iter().chain(generator.entries()).chain(others).collect();
    Expected::load_entries(redis, all, KeyLayout::Outpost).await
}

async fn migrate_all(redis: &Endpoint) {
    for name in MIGRATIONS {
        Bench::new(redis).migration(name).migrate(&Control::unattended()).await.expect("a mark");
    }
}

/// Targets in the form of the last migration.
fn final_targets(expected: &Expected) -> Keyspace {
    entries(&expected.targets).map(|entry| current(&entry)).collect()
}

/// What the application did to targets, and the keyspace as it left it.
struct Lived {
    /// Sources whose targets it wrote or removed.
    touched: BTreeSet<Bytes>,
    removed: u64,
    data: Keyspace,
}

/// Updates, deletions, new tombstones and new tenants, as Outpost v0.12 writes them.
async fn live_on(redis: &Endpoint, expected: &Expected) -> Lived {
    let now = now_ms();
    let mut lived = Lived { touched: BTreeSet::new(), removed: 0, data: Keyspace::default() };
    let is_live = |target: &Bytes| expected.targets[target].expiry_ms.is_none();
    let is_record = |target: &Bytes| !target.ends_with(b"}:destinations");
    let living: Vec<_> = expected.pairs.iter().filter(|(_, target)| is_live(target)).collect();
    for (number, (source, target)) in living.into_iter().enumerate() {
        match number % 11 {
            0 if is_record(target) => hset(redis, target, "updated_at", &now.to_string()).await,
            1 => {
                run_on_owner(redis, target, redis::cmd("DEL").arg(target)).await;
                lived.removed += 1;
            }
            2 if is_record(target) => {
                hset(redis, target, "deleted_at", &now.to_string()).await;
                let expire = redis::cmd("PEXPIREAT").arg(target).arg(now + 7 * DAY).take();
                run_on_owner(redis, target, &expire).await;
            }
            3 if !is_record(target) => hset(redis, target, "des_new", "{\"id\":\"des_new\"}").await,
            _ => continue,
        }
        lived.touched.insert(source.clone());
    }
    for number in 0..20 {
        let id = format!("new_{number}");
        let created = now.to_string();
        let fields = [("id", id.as_str()), ("created_at", &created), ("entity", "tenant")];
        load(redis, [Entry::new(format!("tenant:{{{id}}}:tenant"), Value::hash(fields))]).await;
    }
    lived.data = snapshot(redis).await.filter(|key, _| !is_state(key));
    lived
}

#[rstest]
#[tokio::test]
async fn the_upgrade_as_it_happens(
    #[values(false, true)] cluster: bool,
    #[values(DivergedPolicy::Keep, DivergedPolicy::Delete)] diverged: DivergedPolicy,
) {
    let server = Redis::either(cluster, 1).await;
    let redis = server.endpoint();
    let expected = load_before(&redis).await;
    assert!(expected.sources() > 500, "{} sources", expected.sources());
    migrate_all(&redis).await;
    let bench = Bench::new(&redis).diverged(diverged);
    let migrated: Keyspace = entries(&expected.originals).chain(entries(&final_targets(&expected))).collect();
    migrated.assert_same(&bench.snapshot().await.0, "after all migrations");
    let report = bench.compare().await.expect("a comparison");
    assert_eq!((report.equal, report.different), (expected.sources(), 0), "later migrations explain every target");

    let lived = live_on(&redis, &expected).await;
    let touched = lived.touched.len() as u64;
    assert!(touched > 50 && lived.removed > 10, "{touched} touched, {} removed", lived.removed);
    let events = Events::listen(&redis).await;
    let report = bench.compare().await.expect("a comparison");
    assert_eq!((report.different, report.unapplied), (touched, lived.removed), "exactly what was touched is diverged");
    assert_eq!(report.equal, expected.sources() - touched);
    let is_touched = |key: &RedisKey| lived.touched.contains(key.as_bytes());
    assert!(report.sample.iter().all(|(key, _)| is_touched(key)), "a sample names what was touched");
    for name in &MIGRATIONS[1..] {
        let report = Bench::new(&redis).migration(name).compare().await.expect("a comparison");
        assert_eq!(report.different, 0, "{name}: the application writes the new form");
    }
    events.assert_only(|_| false).await;

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    let kept = if diverged == DivergedPolicy::Keep { touched } else { 0 };
    assert_eq!((report.removed, report.kept_diverged), (expected.sources() - kept, kept));
    assert_eq!((report.kept_changed, report.gone), (0, 0));
    let is_kept = |key: &[u8]| {
        !expected.pairs.contains_key(key) || (diverged == DivergedPolicy::Keep && lived.touched.contains(key))
    };
    let cleaned_up = lived.data.filter(|key, _| is_kept(key));
    let (data, state) = bench.snapshot().await;
    cleaned_up.assert_same(&data, "cleaned up");
    assert!(state.keys().all(|key| !key.ends_with(b"lock")), "a lock was left");

    let again = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((again.removed, again.kept_diverged), (0, kept), "a second cleanup");
    cleaned_up.assert_same(&bench.snapshot().await.0, "after a second cleanup");
    // The gate agrees all along.
    command_line(&redis).run(&["init", "--current"]).await.assert_code(0).assert_said("Current");
}

/// Cleanup between the migrations: originals equal targets in the form of the one before, too.
#[tokio::test]
async fn cleanup_may_come_between_the_migrations() {
    let server = Redis::either(false, 1).await;
    let redis = server.endpoint();
    let expected = load_before(&redis).await;
    for name in &MIGRATIONS[..2] {
        Bench::new(&redis).migration(name).migrate(&Control::unattended()).await.expect("a mark");
    }
    let report = Bench::new(&redis).cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (expected.sources(), 0));
    Bench::new(&redis).migration(MIGRATIONS[2]).migrate(&Control::unattended()).await.expect("a mark");
    let rest = expected.originals.filter(|key, _| !expected.pairs.contains_key(key));
    let cleaned_up: Keyspace = entries(&rest).chain(entries(&final_targets(&expected))).collect();
    cleaned_up.assert_same(&Bench::new(&redis).snapshot().await.0, "cleaned up");
}

#[rstest]
#[tokio::test]
async fn named_sources_are_restored_behind_the_mark(#[values(false, true)] cluster: bool) {
    let server = Redis::either(cluster, 1).await;
    let redis = server.endpoint();
    let expected = load_before(&redis).await;
    Bench::new(&redis).migrate(&Control::unattended()).await.expect("a mark");
    // A tombstone's target among them: its expiry comes back with it.
    let gone: Vec<(&Bytes, &Bytes)> = {
        let is_tombstone = |(_, target): &(&Bytes, &Bytes)| expected.targets[*target].expiry_ms.is_some();
        let tombstone = expected.pairs.iter().find(is_tombstone).expect("a tombstone");
        let living = expected.pairs.iter().filter(|pair| !is_tombstone(pair));
        living.take(5).chain([tombstone]).collect()
    };
    for (_, target) in &gone {
        run_on_owner(&redis, target, redis::cmd("DEL").arg(target)).await;
    }
    let (written_source, written) = expected.pairs.iter().next_back().expect("a pair");
    hset(&redis, written, "updated_at", "by the application").await;
    let before = snapshot(&redis).await.filter(|key, _| !is_state(key));

    let bench = Bench::new(&redis);
    let key = |key: &Bytes| RedisKey::new(key.clone());
    let unmapped = [b"tenant:nobody".to_vec(), b"tenant:wrongtype".to_vec(), b"queue".to_vec(), written.clone()];
    let mut named: Vec<RedisKey> = gone.iter().take(3).chain(gone.last()).map(|(source, _)| key(source)).collect();
    named.push(key(written_source));
    named.extend(unmapped.iter().map(key));
    let events = Events::listen(&redis).await;
    let held = bench.hold().await;
    let report =
        restore::restore(&held.writer, &bench.assignment, &Control::unattended(), &named).await.expect("a report");
    held.release().await;
    let targets: BTreeSet<&[u8]> = gone.iter().map(|(_, target)| target.as_slice()).collect();
    events.assert_only(|key| is_state(key) || targets.contains(key)).await;
    let no_source: BTreeSet<RedisKey> = report.no_source.iter().cloned().collect();
    assert_eq!(no_source, unmapped.iter().map(key).collect(), "names of no source");
    assert_eq!((report.copied, report.target_exists), (4, 1));

    let back = gone.iter().take(3).chain(gone.last()).map(|(_, target)| Entry {
        key: (*target).clone(),
        value: expected.targets[*target].value.clone(),
        expiry_ms: expected.targets[*target].expiry_ms,
    });
    let restored: Keyspace = entries(&before).chain(back).collect();
    restored.assert_same(&bench.snapshot().await.0, "only what was named is back");

    let held = bench.hold().await;
    let again =
        restore::restore(&held.writer, &bench.assignment, &Control::unattended(), &named).await.expect("a report");
    held.release().await;
    assert_eq!((again.copied, again.target_exists), (0, 5), "a second time");
    let in_place = Bench::new(&redis).migration(MIGRATIONS[1]);
    let held = in_place.hold().await;
    let none =
        restore::restore(&held.writer, &in_place.assignment, &Control::unattended(), &named).await.expect("a report");
    held.release().await;
    assert_eq!(none, RestoreReport { no_source: named, ..RestoreReport::default() }, "nothing to copy in place");
    restored.assert_same(&bench.snapshot().await.0, "nothing was copied again");
}

#[tokio::test]
async fn a_restored_source_catches_up_with_later_migrations() {
    let server = Redis::either(false, 1).await;
    let redis = server.endpoint();
    let expected = load_before(&redis).await;
    let line = command_line(&redis);
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0);
    let target = expected.pairs[&b"tenant:tenant_1"[..]].clone();
    run_on_owner(&redis, &target, redis::cmd("DEL").arg(&target)).await;
    line.run(&["apply", "--rerun", "001_hash_tags", "--yes"]).await.assert_code(0).assert_said("tenant:tenant_1");
    assert!(!snapshot(&redis).await.contains_key(&target), "a rerun alone copies nothing");

    let named = ["apply", "--rerun", "001_hash_tags", "--restore-missing", "tenant:tenant_1", "--yes"];
    line.run(&named).await.assert_code(0).assert_said("1 copied").assert_said("return");
    // What was copied has not gone through the later migrations: their marks do not count until it has.
    line.run(&["init", "--current"]).await.assert_code(1).assert_said(MIGRATIONS[1]).assert_said(MIGRATIONS[2]);
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0).assert_said("1 changed");
    line.run(&["init", "--current"]).await.assert_code(0);
    let migrated: Keyspace = entries(&expected.originals).chain(entries(&final_targets(&expected))).collect();
    migrated.assert_same(&snapshot(&redis).await.filter(|key, _| !is_state(key)), "as if it had never been gone");
}

/// What a restored backup or a stray `DEL` does.
async fn lose_first_mark(redis: &Endpoint) {
    run_on_owner(redis, MARK, redis::cmd("DEL").arg(MARK)).await;
}

/// Whoever takes the sources for right although the application lives on targets gets them as they were.
#[tokio::test]
async fn a_replaced_target_catches_up_with_later_migrations() {
    let server = Redis::either(false, 1).await;
    let redis = server.endpoint();
    let expected = load_before(&redis).await;
    migrate_all(&redis).await;
    let target = expected.pairs[&b"tenant:tenant_1"[..]].clone();
    hset(&redis, &target, "metadata", "later").await;
    lose_first_mark(&redis).await;

    let bench = Bench::new(&redis).conflicts(ConflictPolicy::PreferSource);
    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!((walk.plan.seen.to_copy(), walk.apply.replaced), (0, 1));
    let line = command_line(&redis);
    line.run(&["init", "--current"]).await.assert_code(1).assert_said(MIGRATIONS[1]).assert_said(MIGRATIONS[2]);
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0).assert_said("1 changed");
    let migrated: Keyspace = entries(&expected.originals).chain(entries(&final_targets(&expected))).collect();
    migrated.assert_same(&snapshot(&redis).await.filter(|key, _| !is_state(key)), "as the sources say");
}

/// What the old version wrote behind a plan that saw everything in its place has gone through nothing yet.
#[tokio::test]
async fn a_source_that_comes_after_the_plan_catches_up_with_later_migrations() {
    let server = Redis::either(false, 1).await;
    let redis = server.endpoint();
    let expected = load_before(&redis).await;
    migrate_all(&redis).await;
    lose_first_mark(&redis).await;
    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    let stamps = async || {
        let state = bench.snapshot().await.1;
        let is_stamped = |name: &&&str| {
            let key = format!("outpost:migration:{name}");
            state[key.as_bytes()].value.field("verified_at").is_some()
        };
        MIGRATIONS[1..].iter().filter(is_stamped).count()
    };

    // Nothing is written, and nothing is to be proven again.
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    let report = held.apply(&Control::unattended(), &plan, &run).await.expect("nothing to copy");
    assert_eq!((plan.seen.to_copy(), report.copied, report.already_migrated), (0, 0, expected.sources()));
    assert_eq!(stamps().await, 2);

    let late = Value::hash([("id", "late"), ("created_at", "2025-01-19T22:17:29.5Z")]);
    load(&redis, [Entry::new("tenant:late", late)]).await;
    let report = held.apply(&Control::unattended(), &plan, &run).await.expect("a copy");
    assert_eq!((report.copied, stamps().await), (1, 0));
    let proof = held.prove(&Control::unattended(), &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;
    let line = command_line(&redis);
    line.run(&["init", "--current"]).await.assert_code(1).assert_said(MIGRATIONS[1]);
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0).assert_said("1 changed");
}

/// Between the question and the lock another may have done it, and the application lives on targets since.
#[tokio::test]
async fn an_apply_that_comes_late_to_the_lock_copies_nothing() {
    let server = Standalone::start(Options::default()).await;
    let redis = server.endpoint();
    let expected = load_before(&redis).await;
    let proxy = Proxy::start(server.port()).await;
    let takes_lock = |request: &[u8]| {
        let has = |part: &[u8]| request.windows(part.len()).any(|window| window == part);
        has(b"EVALSHA") && has(b"outpost:migration:lock")
    };
    proxy.stop_at(0, takes_lock);
    let line = command_line(&proxy.endpoint());
    let late = line.start(&["apply", "--yes"]);
    proxy.wait_caught().await;
    migrate_all(&redis).await;
    let target = expected.pairs[&b"tenant:tenant_1"[..]].clone();
    run_on_owner(&redis, &target, redis::cmd("DEL").arg(&target)).await;
    let lived = snapshot(&redis).await;
    proxy.let_go();
    CommandLine::end(&late).await.assert_code(0).assert_said("001_hash_tags was applied meanwhile");
    lived.assert_same(&snapshot(&redis).await, "a deleted tenant stays deleted");
}

/// A claim of an initialisation that died says nothing, and neither do the stamps that it wrote before.
#[tokio::test]
async fn an_initialisation_that_did_not_end_is_no_mark() {
    let server = Standalone::start(Options::default()).await;
    let redis = server.endpoint();
    for (name, word) in MIGRATIONS.into_iter().zip(["init_token", "init_token", "init_claim"]) {
        let key = format!("outpost:migration:{name}");
        for (field, value) in [("status", "applied"), ("applied_at", "2026-01-02T03:04:05Z"), (word, "dead")] {
            hset(&redis, key.as_bytes(), field, value).await;
        }
    }
    for (name, predecessor) in MIGRATIONS.into_iter().zip([None, Some(MIGRATIONS[0]), Some(MIGRATIONS[1])]) {
        let bench = Bench::new(&redis).migration(name);
        let seen = survey::survey(&bench.keyspace().await, &bench.assignment).await.expect("an answer");
        assert_eq!((seen.mark, seen.predecessor_pending), (Mark::Absent, predecessor), "{name}");
    }
}

/// State as other versions leave it: respected, and never touched.
#[tokio::test]
async fn what_other_versions_left_is_respected_and_stays() {
    let server = Redis::either(false, 1).await;
    let redis = server.endpoint();
    load(&redis, read_fixture("tests/fixtures/outpost-v0.11-keyspace.jsonl")).await;
    let hash = |key: &str, fields: &[(&str, &str)]| Entry::new(key, Value::hash(fields.iter().copied()));
    let at = "2026-01-02T03:04:05Z";
    let left = vec![
        hash(
            "outpost:migration:001_hash_tags",
            &[("status", "not_applicable"), ("reason", "no legacy keys"), ("checked_at", at)],
        ),
        hash(
            "outpost:migration:001_hash_tags:run:1767323045",
            &[("status", "completed"), ("started_at", at), ("processed", "12")],
        ),
        hash("outpost:migration:002_timestamps:run:1767323046", &[("status", "failed"), ("error", "timeout")]),
        hash("outpost:migration:009_future", &[("status", "applied"), ("applied_at", at)]),
    ];
    load(&redis, left.clone()).await;
    let line = command_line(&redis);
    let ran = line.run(&["init", "--current"]).await;
    ran.assert_code(1).assert_said("002_timestamps").assert_said("003_entity");
    assert!(!ran.said.contains("001_hash_tags"), "001 is settled: {}", ran.said);
    line.run(&["list"]).await.assert_code(0).assert_said("not applicable");
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0);
    line.run(&["verify"]).await.assert_code(0);
    line.run(&["cleanup", "--yes"]).await.assert_code(0);
    line.run(&["init", "--current"]).await.assert_code(0).assert_said("Current");
    let after = snapshot(&redis).await;
    let names: BTreeSet<&[u8]> = left.iter().map(|entry| entry.key.as_slice()).collect();
    let left: Keyspace = left.iter().cloned().collect();
    left.assert_same(&after.filter(|key, _| names.contains(key)), "what others left");
}

/// What a false mark of the migration before it left behind would never be turned: a claim is not enough.
#[rstest]
#[case::none(&[], true)]
#[case::another_tools(&[("status", "applied"), ("applied_at", "2026-01-02T03:04:05Z")], true)]
#[case::an_unfinished_inits(&[("status", "applied"), ("init_claim", "dead")], true)]
#[case::proven(&[("status", "applied"), ("verified_at", "2026-01-02T03:04:05Z")], false)]
#[case::initialised(&[("status", "applied"), ("init_token", "t")], false)]
#[case::not_applicable(&[("status", "not_applicable"), ("reason", "x")], false)]
#[tokio::test]
async fn a_migration_waits_for_a_proven_predecessor(#[case] fields: &[(&str, &str)], #[case] waits: bool) {
    let server = Redis::either(false, 1).await;
    let redis = server.endpoint();
    if !fields.is_empty() {
        load(&redis, [Entry::new("outpost:migration:001_hash_tags", Value::hash(fields.iter().copied()))]).await;
    }
    let bench = Bench::new(&redis).migration("002_timestamps");
    let survey = survey::survey(&bench.keyspace().await, &bench.assignment).await.expect("a survey");
    assert_eq!(survey.predecessor_pending, waits.then_some("001_hash_tags"));
}

/// A mark with `status` and `applied_at` only is proven by `apply` too; its time stays.
#[tokio::test]
async fn apply_stamps_another_tools_true_mark() {
    let server = Redis::either(false, 1).await;
    let redis = server.endpoint();
    load(&redis, read_fixture("tests/fixtures/outpost-v0.11-keyspace.jsonl")).await;
    let at = "2026-01-02T03:04:05Z";
    let mark = Value::hash([("status", "applied"), ("applied_at", at)]);
    load(&redis, [Entry::new("outpost:migration:001_hash_tags", mark)]).await;
    let line = command_line(&redis);
    line.run(&["list"]).await.assert_code(0).assert_said("unproven");
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0).assert_said("proven true");
    let after = snapshot(&redis).await;
    let mark = &after[&b"outpost:migration:001_hash_tags"[..]].value;
    assert_eq!((mark.field("status"), mark.field("applied_at")), (Some(&b"applied"[..]), Some(at.as_bytes())));
    assert!(mark.field("verified_at").is_some());
    line.run(&["init", "--current"]).await.assert_code(0).assert_said("Current");
}
