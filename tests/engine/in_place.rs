//! `002_timestamps` and `003_entity` over keyspaces that Outpost v0.11 wrote, and while the application lives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::{Stop, journal, survey};
use outpost_migrate_redis::keyspace::conditional::Outcome;
use outpost_migrate_redis::model::change::FieldChange;
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::mapping::UnmigratedReason;
use outpost_migrate_redis::model::mark::Mark;
use rstest::rstest;

use crate::support::command_line::CommandLine;
use crate::support::current_form::{millis, named, turned};
use crate::support::engine::{Bench, Reins, entries, hset, is_state, now, run_on_owner};
use crate::support::events::Events;
use crate::support::fixture::read_fixture;
use crate::support::generator::{noise, now_ms};
use crate::support::load::load;
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Keyspace, Snapshot, Value};
use crate::support::wait::{eventually, eventually_true};

const TIMESTAMPS: &str = "002_timestamps";
const ENTITY: &str = "003_entity";
const DAY: i64 = 24 * 3600 * 1000;

async fn start() -> Standalone {
    Standalone::start(Options::default()).await
}

fn bench(redis: &Endpoint, migration: &str, deployment: Option<&str>) -> Bench {
    Bench::new(redis).migration(migration).deployment(deployment)
}

#[test]
fn the_calendar_of_the_expectation_is_right() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-03-01T00:00:00Z", 951_868_800_000),
        ("2024-02-29T12:00:00.999999999Z", 1_709_208_000_999),
        ("2025-01-19T22:17:29.5+07:00", 1_737_299_849_500),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
    ] {
        assert_eq!(millis(text.as_bytes()), Some(expected), "{text}");
    }
    assert_eq!(millis(b"yesterday"), None);
}

/// A keyspace that Outpost wrote, and what it might hold besides.
struct Loaded {
    all: Vec<Entry>,
    /// Entries whose times can't be read.
    not_times: usize,
    /// Entries in the place of records that are none.
    no_records: usize,
}

fn outposts(deployment: Option<&str>) -> Loaded {
    let file = match deployment {
        Some(_) => "tests/fixtures/outpost-v0.11-deployment-keyspace.jsonl",
        None => "tests/fixtures/outpost-v0.11-keyspace.jsonl",
    };
    let mut all = read_fixture(file);
    assert!(all.len() > 70, "a fixture of {} entries", all.len());
    let prefix = deployment.map(|id| format!("{id}:")).unwrap_or_default();
    let now = now_ms();
    let record =
        |key: &str, fields: &[(&str, &str)]| Entry::new(format!("{prefix}{key}"), Value::hash(fields.iter().copied()));
    let not_times = vec![
        record("tenant:{junk}:tenant", &[("id", "junk"), ("created_at", "yesterday")]),
        record(
            "tenant:{half}:tenant",
            &[("id", "half"), ("created_at", "2025-01-01T00:00:00Z"), ("updated_at", "1e3")],
        ),
    ];
    let no_records = vec![
        Entry::new(format!("{prefix}tenant:{{text}}:tenant"), Value::string("x")),
        record("tenant:{other}:tenant", &[("id", "somebody"), ("created_at", "2025-01-01T00:00:00Z")]),
    ];
    let (a_time, number) = ("2025-01-01T00:00:00.0015+02:00", "1736000000123");
    let others = vec![
        record("tenant:{new}:tenant", &[("id", "new"), ("created_at", number), ("updated_at", number)]),
        record("tenant:{mixed}:tenant", &[("id", "mixed"), ("created_at", number), ("updated_at", a_time)]),
        record("tenant:{old}:tenant", &[("id", "old"), ("created_at", "1969-12-31T23:59:59.9999Z")]),
        record("tenant:{done}:tenant", &[("id", "done"), ("created_at", number), ("entity", "tenant")]),
        // A tombstone as 001 moves it, and one with all of its fields.
        record("tenant:{gone}:tenant", &[("deleted_at", a_time)]).expiring(now + 3 * DAY + 1),
        record("tenant:{gone}:destination:d", &[("deleted_at", a_time)]).expiring(now + 3 * DAY + 3),
        record("tenant:{full}:tenant", &[("id", "full"), ("created_at", a_time), ("deleted_at", a_time)])
            .expiring(now + 3 * DAY + 5),
        // Destinations with the names of fields.
        record("tenant:{new}:destinations", &[("created_at", "{\"id\":\"created_at\"}"), ("entity", "{}")]),
        record("tenant:{new}:destination:created_at", &[("id", "created_at"), ("disabled_at", a_time)]),
        // Keys of others.
        Entry::new("tenant:legacy", Value::hash([("id", "legacy"), ("created_at", a_time)])),
        Entry::new("dp_002:tenant:{a}:tenant", Value::hash([("id", "a"), ("created_at", a_time)])),
    ];
    let counts = (not_times.len(), no_records.len());
    all.extend(not_times.into_iter().chain(no_records).chain(others).chain(noise(now)));
    Loaded { all, not_times: counts.0, no_records: counts.1 }
}

/// What a migration makes of an entry; what lies outside its prefix, or is no record, stays.
fn expected(deployment: Option<&str>, loaded: &Keyspace, change: impl Fn(&Entry) -> Entry) -> Keyspace {
    let prefix = deployment.map(|id| format!("{id}:")).unwrap_or_default() + "tenant:{";
    let foreign = format!("{prefix}other}}:tenant");
    let is_ours = |entry: &Entry| entry.key.starts_with(prefix.as_bytes()) && entry.key != foreign.as_bytes();
    entries(loaded).map(|entry| if is_ours(&entry) { change(&entry) } else { entry }).collect()
}

fn turn(entry: &Entry) -> Entry {
    turned(entry).unwrap_or_else(|| entry.clone())
}

fn changed(before: &Keyspace, after: &Keyspace) -> u64 {
    before.differences(after).len() as u64
}

fn assert_marked(state: &Keyspace, deployment: Option<&str>, name: &str) -> Snapshot {
    let key = deployment.map(|id| format!("{id}:")).unwrap_or_default() + "outpost:migration:" + name;
    let mark = state.get(key.as_bytes()).unwrap_or_else(|| panic!("{key} is missing")).clone();
    assert_eq!(mark.value.field("status"), Some(&b"applied"[..]));
    assert!(mark.value.field("verified_at").is_some(), "the mark is stamped");
    mark
}

/// One migration from plan to cleanup, checked at each step.
async fn walk(bench: &Bench, deployment: Option<&str>, before: &Keyspace, after: &Keyspace, unmigrated: u64) {
    let name = bench.assignment.migration.name();
    let events = Events::listen(&bench.redis).await;
    let plan = bench.plan().await.expect("a plan");
    let report = bench.compare().await.expect("a comparison");
    events.assert_only(|_| false).await;
    let to_change = changed(before, after);
    assert!(to_change > 50, "{name} has {to_change} entries to change");
    assert_eq!(plan.seen.total_sources(), to_change, "{name}: planned");
    assert_eq!((report.different, report.unapplied), (to_change, to_change), "{name}: compared before");
    assert_eq!(plan.seen.unmigrated.total(), unmigrated, "{name}: unmigrated");

    let run = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!(run.apply.changed, to_change, "{name}: changed");
    assert_eq!(run.apply.unmigrated.total(), unmigrated);
    assert_eq!((run.verify.different, run.verify.ended), (0, 0));
    let (data, state) = bench.snapshot().await;
    after.assert_same(&data, name);
    assert_marked(&state, deployment, name);

    let events = Events::listen(&bench.redis).await;
    let again = bench.try_prove(&Control::unattended()).await.expect("a proof");
    assert_eq!(again.written(), 0, "{name}: a second run writes");
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    events.assert_only(is_state).await;
    assert_eq!((report.removed, report.processed()), (0, 0), "{name}: nothing to clean up");
    let (data, state) = bench.snapshot().await;
    after.assert_same(&data, "after cleanup");
    assert!(assert_marked(&state, deployment, name).value.field("cleaned_up_at").is_some());
}

#[rstest]
#[tokio::test]
async fn keyspaces_that_outpost_wrote_are_turned_and_named(
    #[values(false, true)] cluster: bool,
    #[values(None, Some("dp_001"))] deployment: Option<&str>,
) {
    let (server, nodes);
    let redis = if cluster {
        nodes = Cluster::start(3, 1, Options::default()).await;
        nodes.endpoint()
    } else {
        server = start().await;
        server.endpoint()
    };
    let Loaded { all, not_times, no_records } = outposts(deployment);
    let loaded: Keyspace = all.iter().cloned().collect();
    load(&redis, all).await;
    let turned = expected(deployment, &loaded, turn);
    let named = expected(deployment, &turned, named);
    let prefix = deployment.map(|id| format!("{id}:")).unwrap_or_default();
    let field = |keyspace: &Keyspace, key: &str, name: &str| {
        keyspace[format!("{prefix}{key}").as_bytes()].value.field(name).map(<[u8]>::to_vec)
    };
    // The expectation says what the description says.
    assert_eq!(field(&turned, "tenant:{old}:tenant", "created_at"), Some(b"-1".to_vec()));
    assert_eq!(field(&turned, "tenant:{mixed}:tenant", "updated_at"), Some(b"1735682400001".to_vec()));
    assert_eq!(field(&named, "tenant:{gone}:destination:d", "entity"), Some(b"destination".to_vec()));

    let timestamps = bench(&redis, TIMESTAMPS, deployment);
    let plan = timestamps.plan().await.expect("a plan");
    assert_eq!(plan.seen.unmigrated.by_reason.get(&UnmigratedReason::NotATime), Some(&(not_times as u64)));
    walk(&timestamps, deployment, &loaded, &turned, (not_times + no_records) as u64).await;
    walk(&bench(&redis, ENTITY, deployment), deployment, &turned, &named, no_records as u64).await;
    let (data, state) = timestamps.snapshot().await;
    named.assert_same(&data, "both");
    assert!(state.keys().all(|key| !key.ends_with(b"lock")), "a lock was left");
}

#[tokio::test]
async fn another_entity_is_left_alone_and_counted() {
    let server = start().await;
    let redis = server.endpoint();
    let entry = Entry::new("tenant:{a}:tenant", Value::hash([("id", "a"), ("entity", "planet")]));
    load(&redis, [entry]).await;
    let before = snapshot(&redis).await;
    let bench = bench(&redis, ENTITY, None);
    let run = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!(run.apply.unmigrated.by_reason.get(&UnmigratedReason::OtherEntity), Some(&1));
    before.assert_same(&bench.snapshot().await.0, "as it was");
}

fn change(name: &'static str, from: Option<&str>, to: &str) -> FieldChange {
    FieldChange { name, from: from.map(|from| from.as_bytes().to_vec()), to: to.as_bytes().to_vec() }
}

#[tokio::test]
async fn a_write_on_a_stale_read_changes_nothing() {
    let server = start().await;
    let redis = server.endpoint();
    let tenant = |id: &str| format!("tenant:{{{id}}}:tenant");
    let record = |id: &str, fields: &[(&str, &str)]| Entry::new(tenant(id), Value::hash(fields.iter().copied()));
    let at = now_ms() + DAY + 1;
    let there = vec![
        record("changed", &[("id", "changed"), ("created_at", "new")]),
        record("half", &[("id", "half"), ("created_at", "old"), ("updated_at", "new")]),
        record("appeared", &[("id", "appeared"), ("entity", "")]),
        record("vanished", &[("id", "vanished")]),
        Entry::new(tenant("text"), Value::string("x")),
        record("same", &[("id", "same"), ("created_at", "old")]).expiring(at),
    ];
    load(&redis, there.clone()).await;
    let bench = bench(&redis, TIMESTAMPS, None);
    let held = bench.hold().await;
    let turn = |id: &str| (RedisKey::from(tenant(id)), vec![change("created_at", Some("old"), "1")]);
    let changes = vec![
        turn("deleted"),
        turn("changed"),
        (
            RedisKey::from(tenant("half")),
            vec![change("created_at", Some("old"), "1"), change("updated_at", Some("old"), "2")],
        ),
        (RedisKey::from(tenant("appeared")), vec![change("entity", None, "tenant")]),
        turn("vanished"),
        turn("text"),
        turn("same"),
    ];
    let outcomes = held.writer.set_fields_if_unchanged(&changes).await.expect("answers");
    held.release().await;
    let expected = [
        Outcome::Gone,
        Outcome::Changed,
        Outcome::Changed,
        Outcome::Changed,
        Outcome::Changed,
        Outcome::Changed,
        Outcome::Done,
    ];
    assert_eq!(outcomes, expected);
    let mut expected: Keyspace = there.into_iter().collect();
    expected.extend([record("same", &[("id", "same"), ("created_at", "1")]).expiring(at)]);
    expected.assert_same(&bench.snapshot().await.0, "only what was as expected is written");
}

fn tenants(count: usize) -> Vec<Entry> {
    let tenant = |number| {
        let id = format!("t{number}");
        let created = format!("2025-01-19T22:17:29.{number:06}Z");
        Entry::new(format!("tenant:{{{id}}}:tenant"), Value::hash([("id", id), ("created_at", created)]))
    };
    (0..count).map(tenant).collect()
}

/// Entries whose `created_at` is a number.
async fn turned_there(redis: &Endpoint) -> usize {
    let is_number = |held: &Snapshot| {
        held.value.field("created_at").is_some_and(|value| !value.is_empty() && value.iter().all(u8::is_ascii_digit))
    };
    snapshot(redis).await.values().filter(|held| is_number(held)).count()
}

async fn wait_halfway(redis: &Endpoint, all: usize) {
    eventually_true(Duration::from_secs(60), "a part is turned", async || turned_there(redis).await >= all / 5).await;
    let there = turned_there(redis).await;
    assert!(there < all, "the fault did not hit: all {all} are turned");
}

/// The application updates and deletes while entries are turned: its word counts, and the dead stay dead.
#[rstest]
#[tokio::test]
async fn the_applications_writes_survive(#[values(false, true)] cluster: bool) {
    const COUNT: usize = 300;
    let (server, nodes);
    let redis = if cluster {
        nodes = Cluster::start(3, 0, Options::default()).await;
        nodes.endpoint()
    } else {
        server = start().await;
        server.endpoint()
    };
    load(&redis, tenants(COUNT)).await;
    let bench = bench(&redis, TIMESTAMPS, None);
    let reins = Reins::paced(100);
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    let living = async {
        let mut words: BTreeMap<Vec<u8>, Option<String>> = BTreeMap::new();
        wait_halfway(&redis, COUNT).await;
        for (number, entry) in tenants(COUNT).into_iter().enumerate() {
            match number % 4 {
                0 => {
                    run_on_owner(&redis, &entry.key, redis::cmd("DEL").arg(&entry.key)).await;
                    words.insert(entry.key, None);
                }
                1 => {
                    let word = format!("{}", 1_760_000_000_000_usize + number);
                    hset(&redis, &entry.key, "created_at", &word).await;
                    words.insert(entry.key, Some(word));
                }
                2 => {
                    let word = format!("2026-05-01T00:00:00.{number:03}Z");
                    hset(&redis, &entry.key, "created_at", &word).await;
                    words.insert(entry.key, Some(word));
                }
                _ => {}
            }
        }
        (words, turned_there(&redis).await)
    };
    let (applied, (words, turned)) = tokio::join!(held.apply(&reins.control, &plan, &run), living);
    let applied = applied.expect("a pass");
    let alive = COUNT - words.values().filter(|word| word.is_none()).count();
    assert!(turned < alive, "the application was slower than the pass: {turned} of {alive} are turned");
    assert!(applied.changed > 0);
    let proof = held.prove(&Control::unattended(), &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;

    let mut expected: Keyspace = tenants(COUNT).iter().map(turn).collect();
    for (key, word) in &words {
        match word {
            None => expected = expected.filter(|other, _| other != key.as_slice()),
            Some(word) => {
                let Value::Hash(mut fields) = expected[key].value.clone() else { panic!("a hash") };
                let number = word.parse().ok().or(millis(word.as_bytes())).expect("a time");
                fields.insert(b"created_at".to_vec(), number.to_string().into_bytes());
                expected.extend([Entry::new(key, Value::Hash(fields))]);
            }
        }
    }
    expected.assert_same(&bench.snapshot().await.0, "the application's word");
}

#[tokio::test]
async fn a_stopped_pass_is_resumed() {
    const COUNT: usize = 300;
    let server = start().await;
    let redis = server.endpoint();
    load(&redis, tenants(COUNT)).await;
    let bench = bench(&redis, TIMESTAMPS, None);
    let reins = Reins::paced(150);
    let stopping = async {
        wait_halfway(&redis, COUNT).await;
        reins.stop.cancel();
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), stopping);
    assert_eq!(result.map(|_| ()), Err(Stop::Interrupted));
    let there = turned_there(&redis).await;
    assert!(0 < there && there < COUNT, "the fault did not hit: {there}");
    assert!(bench.snapshot().await.1.keys().all(|key| !key.ends_with(b"lock") && !key.ends_with(b"timestamps")));

    let run = bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!((run.apply.changed, run.apply.already_migrated), ((COUNT - there) as u64, there as u64));
    let expected: Keyspace = tenants(COUNT).iter().map(turn).collect();
    expected.assert_same(&bench.snapshot().await.0, "as without the stop");
}

#[tokio::test]
async fn a_killed_apply_is_resumed() {
    const COUNT: usize = 300;
    let server = start().await;
    let redis = server.endpoint();
    load(&redis, tenants(COUNT)).await;
    let line = CommandLine::new(env!("CARGO_BIN_EXE_outpost-migrate-redis"), &redis);
    let killed = line.start(&["apply", "--all", "--yes", "--keys-per-second=100"]);
    eventually_true(Duration::from_secs(60), "a part is turned", async || {
        killed.assert_running();
        turned_there(&redis).await >= COUNT / 5
    })
    .await;
    killed.kill();
    let there = turned_there(&redis).await;
    assert!(0 < there && there < COUNT, "the fault did not hit: {there}");

    line.run(&["apply", "--all", "--yes"]).await.assert_code(4);
    line.run(&["unlock", "--yes"]).await.assert_code(0);
    let ran = line.run(&["apply", "--all", "--yes"]).await;
    ran.assert_code(0).assert_said(&format!("{} changed", COUNT - there)).assert_said(&format!("{there} done before"));
    let expected: Keyspace = tenants(COUNT).iter().map(|entry| named(&turn(entry))).collect();
    let after = snapshot(&redis).await;
    expected.assert_same(&after.filter(|key, _| !is_state(key)), "as without the kill");
    assert_marked(&after, None, ENTITY);
}

#[tokio::test]
async fn a_mark_depends_on_its_own_run() {
    let server = start().await;
    let redis = server.endpoint();
    load(&redis, tenants(20)).await;
    let bench = bench(&redis, TIMESTAMPS, None);
    let held = bench.hold().await;
    let control = Control::unattended();
    let (plan, run) = held.begin(&control).await.expect("a plan");
    held.apply(&control, &plan, &run).await.expect("a pass");
    let proof = held.prove(&control, &plan, &run).await.expect("a proof");
    journal::begin_run(&held.writer, &bench.assignment, "another", &plan.seen, now()).await.expect("another run");
    assert_eq!(held.mark(proof).await.map(|_| ()), Err(Stop::RunLost));
    held.release().await;
    let keys: BTreeSet<Vec<u8>> = bench.snapshot().await.1.keys().cloned().collect();
    assert_eq!(keys, BTreeSet::from([b"{outpost:migration:002_timestamps}:run".to_vec()]), "no mark");
}

/// An application of the old version that goes on writing old times keeps the mark away.
#[tokio::test]
async fn no_mark_while_the_old_version_writes() {
    let server = start().await;
    let redis = server.endpoint();
    load(&redis, tenants(50)).await;
    let bench = bench(&redis, TIMESTAMPS, None);
    let writing = async {
        loop {
            hset(&redis, b"tenant:{t1}:tenant", "updated_at", "2026-05-01T00:00:00Z").await;
        }
    };
    let control = Control::unattended();
    let result = tokio::select! {
        result = bench.try_prove(&control) => result,
        () = writing => unreachable!(),
    };
    assert!(matches!(result, Err(Stop::SourceChanging { .. })), "{result:?}");
    assert!(bench.snapshot().await.1.keys().all(|key| !key.ends_with(b"timestamps")), "a mark without a proof");
}

#[tokio::test]
async fn hash_tags_never_apply_to_a_deployment() {
    let server = start().await;
    let redis = server.endpoint();
    let loaded = outposts(Some("dp_001"));
    let before: Keyspace = loaded.all.iter().cloned().collect();
    load(&redis, loaded.all).await;
    let bench = bench(&redis, "001_hash_tags", Some("dp_001"));
    let survey = survey::survey(&bench.keyspace().await, &bench.assignment).await.expect("a survey");
    assert_eq!(survey.mark, Mark::Absent);
    assert!(survey.not_applicable.is_some_and(|reason| reason.contains("deployment id")), "{survey:?}");

    let line = CommandLine::new(env!("CARGO_BIN_EXE_outpost-migrate-redis"), &redis).with("--deployment-id=dp_001");
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0).assert_said("001_hash_tags: not applicable");
    let after = snapshot(&redis).await;
    let mark = eventually(Duration::from_secs(1), "a mark", async || {
        after.get(&b"dp_001:outpost:migration:001_hash_tags"[..]).cloned()
    })
    .await;
    assert_eq!(mark.value.field("status"), Some(&b"not_applicable"[..]));
    assert!(mark.value.field("reason").is_some() && mark.value.field("checked_at").is_some());
    let expected = expected(Some("dp_001"), &before, |entry| named(&turn(entry)));
    expected.assert_same(&after.filter(|key, _| !is_state(key)), "001 moves nothing");
}
