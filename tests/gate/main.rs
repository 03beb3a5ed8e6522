//! The gate: `init` and `init --current` as child processes, as Outpost's pods run them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use outpost_migrate_redis::engine::control::Control;
use redis::aio::MultiplexedConnection;
use rstest::rstest;

use support::command_line::{CommandLine, Ran};
use support::engine::{Bench, Expected, LOCKS, is_state, run_on_owner};
use support::events::Events;
use support::fixture::read_fixture;
use support::generator::now_ms;
use support::load::load;
use support::process::{Process, Signal};
use support::proxy::Proxy;
use support::redis::Redis;
use support::redis_client::{Endpoint, slot};
use support::redis_cluster::Cluster;
use support::redis_server::{Options, Standalone};
use support::snapshot::snapshot;
use support::value::{Entry, Keyspace, Value};
use support::wait::eventually_true;

const PROGRAM: &str = env!("CARGO_BIN_EXE_outpost-migrate-redis");
const MIGRATIONS: [&str; 3] = ["001_hash_tags", "002_timestamps", "003_entity"];
/// What the gate that compares holds.
const GATE_CLAIM: &[u8] = b"outpost:migration:gate";
const OTHERS_TIME: &str = "2026-01-02T03:04:05Z";

async fn start() -> Standalone {
    Standalone::start(Options::default()).await
}

fn command_line(redis: &Endpoint) -> CommandLine {
    CommandLine::new(PROGRAM, redis)
}

/// The fields of each migration's mark, as text.
type Marks = BTreeMap<String, BTreeMap<String, String>>;

async fn marks_of(redis: &Endpoint, prefix: &str) -> Marks {
    let all = snapshot(redis).await;
    let mark = |name: &str| {
        let held = all.get(format!("{prefix}outpost:migration:{name}").as_bytes())?;
        let Value::Hash(fields) = &held.value else { panic!("{name}: a mark that is no hash") };
        assert_eq!(held.expiry_ms, None, "a mark stays");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text in a mark");
        Some((name.to_owned(), fields.iter().map(|(field, value)| (text(field), text(value))).collect()))
    };
    MIGRATIONS.into_iter().filter_map(mark).collect()
}

async fn marks(redis: &Endpoint) -> Marks {
    marks_of(redis, "").await
}

/// Every mark is applied and stamped by an initialisation, and nothing else of ours is there.
async fn assert_initialised(redis: &Endpoint) {
    let marks = marks(redis).await;
    assert_eq!(marks.keys().collect::<Vec<_>>(), MIGRATIONS, "marks");
    for (name, fields) in &marks {
        assert_eq!(fields["status"], "applied", "{name}");
        assert!(fields.contains_key("applied_at"), "{name} says when");
        assert!(fields.contains_key("init_token"), "{name} is not stamped: {fields:?}");
        assert!(!fields.contains_key("init_claim"), "{name} is still claimed");
    }
    let state = snapshot(redis).await.filter(|key, _| is_state(key));
    assert_eq!(state.len(), MIGRATIONS.len(), "state keys");
}

async fn assert_no_state(redis: &Endpoint) {
    let state = snapshot(redis).await.filter(|key, _| is_state(key));
    assert!(state.is_empty(), "state was left: {:?}", state.differences(&Keyspace::default()));
}

async fn set_fields(redis: &Endpoint, key: &str, fields: &[(&str, &str)]) {
    let entry = Entry::new(key, Value::hash(fields.iter().copied()));
    load(redis, [entry]).await;
}

/// A mark as other tools write it.
async fn mark_as_others_do(redis: &Endpoint, prefix: &str, name: &str) {
    let key = format!("{prefix}outpost:migration:{name}");
    set_fields(redis, &key, &[("status", "applied"), ("applied_at", OTHERS_TIME)]).await;
}

/// A mark as an initialisation that was killed leaves it.
async fn claim(redis: &Endpoint, name: &str) {
    let fields = [("status", "applied"), ("applied_at", OTHERS_TIME), ("init_claim", "dead")];
    set_fields(redis, &format!("outpost:migration:{name}"), &fields).await;
}

async fn stamp_by_init(redis: &Endpoint, name: &str) {
    let fields = [("status", "applied"), ("applied_at", OTHERS_TIME), ("init_token", "dead")];
    set_fields(redis, &format!("outpost:migration:{name}"), &fields).await;
}

async fn add_legacy_tenant(redis: &Endpoint, id: &str) {
    let fields = [("id", id), ("created_at", "2025-01-19T22:17:29.5Z")];
    set_fields(redis, &format!("tenant:{id}"), &fields).await;
}

async fn delete(redis: &Endpoint, key: &str) {
    run_on_owner(redis, key.as_bytes(), redis::cmd("DEL").arg(key)).await;
}

/// What a lease's end does: the locks of a killed process are gone.
async fn end_leases(redis: &Endpoint) {
    for lock in LOCKS {
        delete(redis, lock).await;
    }
}

/// An initialisation that ended, seen from a fresh look.
async fn current(redis: &Endpoint) -> Ran {
    command_line(redis).run(&["init", "--current"]).await
}

#[rstest]
#[case::standalone(false)]
#[case::cluster(true)]
#[tokio::test]
async fn of_ten_processes_at_once_exactly_one_initialises(#[case] cluster: bool) {
    let server = Redis::either(cluster, 1).await;
    let redis = server.endpoint();
    let line = command_line(&redis);
    let started: Vec<Process> = (0..10).map(|_| line.start(&["init", "--current"])).collect();
    let mut initialised = 0;
    for process in &started {
        let ran = CommandLine::end(process).await;
        ran.assert_code(0);
        initialised += usize::from(ran.said.contains("Initialised: Redis was fresh; 3 migrations marked."));
    }
    assert_eq!(initialised, 1, "processes that say they initialised");
    assert_initialised(&redis).await;
    let tokens: BTreeSet<String> = marks(&redis).await.values().map(|fields| fields["init_token"].clone()).collect();
    assert_eq!(tokens.len(), 1, "one initialisation stamped all");
}

#[tokio::test]
async fn freshness_is_asked_of_every_primary() {
    let cluster = Cluster::start(3, 1, Options::default()).await;
    let redis = cluster.endpoint();
    let line = command_line(&redis);
    let mut seen = BTreeSet::new();
    for number in 0_u32.. {
        let id = format!("t{number}");
        let key = format!("tenant:{id}");
        if !seen.insert(cluster.owner(slot(key.as_bytes())).await) {
            continue;
        }
        add_legacy_tenant(&redis, &id).await;
        line.run(&["init", "--current"]).await.assert_code(1).assert_said("001_hash_tags").assert_said("not applied");
        line.run(&["init"]).await.assert_code(0).assert_said("001_hash_tags").assert_said("apply");
        assert_no_state(&redis).await;
        delete(&redis, &key).await;
        if seen.len() == 3 {
            break;
        }
    }
    line.run(&["init", "--current"]).await.assert_code(0).assert_said("Initialised");
    assert_initialised(&redis).await;
}

#[rstest]
#[case::current("tenant:{a}:tenant")]
#[case::summary("tenant:a:destinations")]
#[case::destination("tenant:a:destination:b")]
#[case::documented_layout("{tenant:a}")]
#[case::documented_summary("destination_summary:a:b")]
#[tokio::test]
async fn any_entity_key_makes_a_keyspace_used(#[case] key: &str) {
    let server = start().await;
    let redis = server.endpoint();
    set_fields(&redis, key, &[("id", "a")]).await;
    current(&redis).await.assert_code(1).assert_said("not applied");
    assert_no_state(&redis).await;
}

#[tokio::test]
async fn a_fresh_deployment_is_judged_by_its_own_keys() {
    let server = start().await;
    let redis = server.endpoint();
    // Neither marks nor keys of others say anything about this deployment.
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    add_legacy_tenant(&redis, "somebody").await;
    set_fields(&redis, "dp_002:tenant:{a}:tenant", &[("id", "a")]).await;
    let before = snapshot(&redis).await;
    let line = command_line(&redis).with("--deployment-id=dp_001");
    line.run(&["init", "--current"]).await.assert_code(0).assert_said("Initialised");

    let marks = marks_of(&redis, "dp_001:").await;
    assert_eq!(marks["001_hash_tags"]["status"], "not_applicable");
    assert!(marks["001_hash_tags"].contains_key("reason") && marks["001_hash_tags"].contains_key("checked_at"));
    for name in &MIGRATIONS[1..] {
        assert_eq!(marks[*name]["status"], "applied");
        assert!(marks[*name].contains_key("init_token"));
    }
    let rest = snapshot(&redis).await.filter(|key, _| !key.starts_with(b"dp_001:"));
    before.assert_same(&rest, "what belongs to others");
    line.run(&["init", "--current"]).await.assert_code(0).assert_said("Current");
}

#[tokio::test]
async fn a_used_deployment_is_not_current_by_unprefixed_marks() {
    let server = start().await;
    let redis = server.endpoint();
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    load(&redis, read_fixture("tests/fixtures/outpost-v0.11-deployment-keyspace.jsonl")).await;
    let line = command_line(&redis).with("--deployment-id=dp_001");
    let ran = line.run(&["init", "--current"]).await;
    ran.assert_code(1).assert_said("002_timestamps").assert_said("003_entity");
    assert!(!ran.said.contains("001_hash_tags"), "001 never applies: {}", ran.said);
    let marks = marks_of(&redis, "dp_001:").await;
    assert_eq!(marks.keys().collect::<Vec<_>>(), ["001_hash_tags"]);
    assert_eq!(marks["001_hash_tags"]["status"], "not_applicable");
    assert!(snapshot(&redis).await.keys().all(|key| !key.ends_with(b"lock")));
}

#[derive(Clone, Copy)]
enum Half {
    Nothing,
    Claimed,
    Stamped,
    Foreign,
}

#[rstest]
#[case::all_claimed([Half::Claimed, Half::Claimed, Half::Claimed])]
#[case::some_claimed([Half::Claimed, Half::Nothing, Half::Nothing])]
#[case::last_claimed([Half::Nothing, Half::Nothing, Half::Claimed])]
#[case::some_stamped([Half::Stamped, Half::Nothing, Half::Nothing])]
#[case::stamped_and_claimed([Half::Stamped, Half::Claimed, Half::Claimed])]
#[case::stamped_then_claimed_then_nothing([Half::Stamped, Half::Claimed, Half::Nothing])]
#[case::foreign_and_nothing([Half::Foreign, Half::Nothing, Half::Nothing])]
#[case::foreign_and_claimed([Half::Foreign, Half::Claimed, Half::Stamped])]
#[tokio::test]
async fn a_half_done_initialisation_is_completed(#[case] halves: [Half; 3]) {
    let server = start().await;
    let redis = server.endpoint();
    for (name, half) in MIGRATIONS.into_iter().zip(halves) {
        match half {
            Half::Nothing => {}
            Half::Claimed => claim(&redis, name).await,
            Half::Stamped => stamp_by_init(&redis, name).await,
            Half::Foreign => mark_as_others_do(&redis, "", name).await,
        }
    }
    current(&redis).await.assert_code(0).assert_said("Initialised");
    assert_initialised(&redis).await;
    let marks = marks(&redis).await;
    for (name, half) in MIGRATIONS.into_iter().zip(halves) {
        let is_as_before = (marks[name]["applied_at"] == OTHERS_TIME, marks[name]["init_token"] == "dead");
        let expected = match half {
            Half::Nothing => (false, false),
            Half::Claimed | Half::Foreign => (true, false),
            Half::Stamped => (true, true),
        };
        assert_eq!(is_as_before, expected, "{name}: {:?}", marks[name]);
    }
    current(&redis).await.assert_code(0).assert_said("Current");
}

#[derive(Clone, Copy, PartialEq)]
enum Held {
    /// What was on its way never arrives.
    Lost,
    /// It arrives after its sender's death.
    Late,
}

/// Kills an init at each request that reads or writes, one after another, until one is not hit any more.
#[rstest]
#[case::its_last_words_are_lost(Held::Lost)]
#[case::its_last_words_arrive(Held::Late)]
#[tokio::test]
async fn an_init_killed_at_any_request_is_completed_by_the_next(#[case] held: Held) {
    let server = start().await;
    let redis = server.endpoint();
    let mut ends = BTreeSet::new();
    for point in 0.. {
        run_on_owner(&redis, b"", &redis::cmd("FLUSHALL")).await;
        let proxy = Proxy::start(server.port()).await;
        proxy.stop_at(point, |request| contains(request, b"EVALSHA") || contains(request, b"SCAN"));
        let line = command_line(&proxy.endpoint());
        let killed = line.start(&["init", "--current"]);
        let is_over = async || proxy.has_caught() || killed.exit_status().is_some();
        eventually_true(Duration::from_secs(60), "it is stopped, or ends", is_over).await;
        if !proxy.has_caught() {
            CommandLine::end(&killed).await.assert_code(0);
            assert_initialised(&redis).await;
            assert!(point > 10, "only {point} requests were hit");
            break;
        }
        killed.kill();
        if held == Held::Late {
            proxy.let_go();
            proxy.wait_quiet().await;
        }
        let left = marks(&redis).await;
        let count = |field: &str| left.values().filter(|fields| fields.contains_key(field)).count();
        ends.insert((left.len(), count("init_claim"), count("init_token")));
        end_leases(&redis).await;
        let next = current(&redis).await;
        assert_eq!(next.code, Some(0), "after {point} requests: {}", next.said);
        assert_initialised(&redis).await;
    }
    // The fault hit before, between and after claims and stamps.
    for end in [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 3, 0), (3, 2, 1), (3, 1, 2), (3, 0, 3)] {
        assert!(ends.contains(&end), "no kill left {end:?}: {ends:?}");
    }
}

#[tokio::test]
async fn a_killed_init_holds_the_next_up_no_longer_than_its_lease() {
    let server = start().await;
    let redis = server.endpoint();
    let proxy = Proxy::start(server.port()).await;
    proxy.stop_at(1, is_claim);
    let line = command_line(&proxy.endpoint());
    let killed = line.start(&["init", "--current"]);
    proxy.wait_caught().await;
    killed.kill();
    let at = Instant::now();
    assert!(snapshot(&redis).await.contains_key(LOCKS[0].as_bytes()), "it held the lock");
    current(&redis).await.assert_code(0).assert_said("the lock outpost:migration:lock is held by");
    assert!(at.elapsed() < Duration::from_secs(45), "took {:?}", at.elapsed());
    assert_initialised(&redis).await;
}

#[rstest]
#[case::before_the_claims("init_claim", 0)]
#[case::between_the_claims("init_claim", 2)]
#[case::before_the_last_look("SCAN", 2)]
#[tokio::test]
async fn a_legacy_key_that_appears_during_an_init_is_not_stranded(
    #[case] request: &'static str,
    #[case] passes: usize,
) {
    let server = start().await;
    let redis = server.endpoint();
    let proxy = Proxy::start(server.port()).await;
    proxy.stop_at(passes, move |bytes| contains(bytes, request.as_bytes()));
    let line = command_line(&proxy.endpoint());
    let init = line.start(&["init", "--current"]);
    proxy.wait_caught().await;
    add_legacy_tenant(&redis, "late").await;
    proxy.let_go();
    CommandLine::end(&init).await.assert_code(1).assert_said("001_hash_tags").assert_said("not applied");
    assert_no_state(&redis).await;
}

/// What a killed init left is no proof once entries have appeared: none of its marks may stand.
#[rstest]
#[case::all_claimed(&MIGRATIONS)]
#[case::first_claimed(&MIGRATIONS[..1])]
#[case::last_claimed(&MIGRATIONS[2..])]
#[tokio::test]
async fn a_legacy_key_after_a_killed_init_withdraws_its_claims(#[case] claimed: &[&str]) {
    let server = start().await;
    let redis = server.endpoint();
    for name in claimed {
        claim(&redis, name).await;
    }
    add_legacy_tenant(&redis, "late").await;
    let ran = current(&redis).await;
    ran.assert_code(1).assert_said("001_hash_tags").assert_said("002_timestamps").assert_said("003_entity");
    assert_no_state(&redis).await;
}

#[rstest]
#[case::standalone(false)]
#[case::cluster(true)]
#[tokio::test]
async fn false_marks_keep_the_gate_shut_and_say_why(#[case] cluster: bool) {
    let server = Redis::either(cluster, 1).await;
    let redis = server.endpoint();
    let expected = Expected::load(&redis, 100).await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    let before = snapshot(&redis).await;
    let line = command_line(&redis);
    let ran = line.run(&["init", "--current"]).await;
    ran.assert_code(1).assert_said("001_hash_tags").assert_said("marked by another tool");
    ran.assert_said(&format!("not applied to {} entries", expected.sources())).assert_said("--trust-marks");
    // Behind entries that are not at their targets, nothing is known of what is done to targets.
    ran.assert_said("002_timestamps").assert_said("003_entity");
    before.assert_same(&snapshot(&redis).await, "after a refusal");
    line.run(&["init"]).await.assert_code(0).assert_said("marked by another tool");

    line.run(&["init", "--current", "--trust-marks"]).await.assert_code(0).assert_said("Current");
    before.assert_same(&snapshot(&redis).await, "after marks were trusted");
}

/// An entry that the others' mark does not cover: it was never turned.
#[tokio::test]
async fn a_false_mark_of_an_in_place_migration_is_found_too() {
    let server = start().await;
    let redis = server.endpoint();
    load(&redis, read_fixture("tests/fixtures/outpost-v0.11-keyspace.jsonl")).await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    let ran = current(&redis).await;
    ran.assert_code(1).assert_said("002_timestamps").assert_said("003_entity");
    assert!(!ran.said.contains("001_hash_tags"), "no source lacks a target: {}", ran.said);
    let marks = marks(&redis).await;
    assert!(marks["001_hash_tags"].contains_key("verified_at"), "001 has proven true");
    assert!(["002_timestamps", "003_entity"].iter().all(|name| !marks[*name].contains_key("verified_at")));
}

#[rstest]
#[case::standalone(false)]
#[case::cluster(true)]
#[tokio::test]
async fn true_marks_of_others_are_stamped_once_and_believed_from_then_on(#[case] cluster: bool) {
    let server = Redis::either(cluster, 1).await;
    let redis = server.endpoint();
    let expected = Expected::load(&redis, 100).await;
    for name in MIGRATIONS {
        Bench::new(&redis).migration(name).migrate(&Control::unattended()).await.expect("a mark");
    }
    // As another tool would have left it.
    for name in MIGRATIONS {
        delete(&redis, &format!("outpost:migration:{name}")).await;
        delete(&redis, &format!("{{outpost:migration:{name}}}:run")).await;
        mark_as_others_do(&redis, "", name).await;
    }
    assert!(expected.sources() > 100);
    let data = snapshot(&redis).await.filter(|key, _| !is_state(key));

    current(&redis).await.assert_code(0).assert_said("Current: all 3 migrations are applied.");
    let marks = marks(&redis).await;
    for name in MIGRATIONS {
        assert_eq!((marks[name]["status"].as_str(), marks[name]["applied_at"].as_str()), ("applied", OTHERS_TIME));
        assert!(marks[name].contains_key("verified_at"), "{name} is not stamped");
    }
    let after = snapshot(&redis).await;
    data.assert_same(&after.filter(|key, _| !is_state(key)), "entries");
    assert_eq!(after.filter(|key, _| is_state(key)).len(), 3, "marks alone");

    let mut counters = reset_counters(&redis).await;
    let events = Events::listen(&redis).await;
    current(&redis).await.assert_code(0).assert_said("Current");
    events.assert_only(|_| false).await;
    let called = called(&mut counters).await;
    assert!(called.contains_key("hgetall"), "it reads the marks: {called:?}");
    let heavy = ["scan", "keys", "hmget", "dump", "evalsha", "eval", "hset", "set", "del", "unlink", "exists", "wait"];
    let used: Vec<_> = heavy.iter().filter(|command| called.contains_key(**command)).collect();
    assert!(used.is_empty(), "with stamped marks the gate uses {used:?}");
}

async fn reset_counters(redis: &Endpoint) -> Vec<MultiplexedConnection> {
    let mut connections: Vec<_> = redis.primaries().await.into_iter().map(|primary| primary.connection).collect();
    for connection in &mut connections {
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(connection).await.expect("CONFIG RESETSTAT");
    }
    connections
}

/// How often each command was called, on all primaries together; those alone that were.
async fn called(connections: &mut [MultiplexedConnection]) -> BTreeMap<String, u64> {
    let mut called = BTreeMap::new();
    for connection in connections {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(connection).await.expect("INFO");
        for line in info.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
            let (name, counts) = line.split_once(":calls=").expect("a name and its calls");
            let calls = counts.split(',').next().and_then(|calls| calls.parse::<u64>().ok()).expect("a number");
            *called.entry(name.to_owned()).or_default() += calls;
        }
    }
    called
}

#[tokio::test]
async fn only_required_migrations_are_asked_for() {
    let server = start().await;
    let redis = server.endpoint();
    Expected::load(&redis, 20).await;
    Bench::new(&redis).migrate(&Control::unattended()).await.expect("a mark");
    let line = command_line(&redis);
    line.run(&["init", "--current", "--require", "001_hash_tags"]).await.assert_code(0).assert_said("001_hash_tags");
    let ran = line.run(&["init", "--current", "--require=001_hash_tags,003_entity"]).await;
    ran.assert_code(1).assert_said("003_entity");
    assert!(!ran.said.contains("002_timestamps"), "002 is not asked for: {}", ran.said);
    line.run(&["init", "--current"]).await.assert_code(1).assert_said("002_timestamps").assert_said("003_entity");

    let before = snapshot(&redis).await;
    let ran = line.run(&["init", "--current", "--require", "001_hash_tags,004_unheard"]).await;
    ran.assert_code(2).assert_said("004_unheard").assert_said("003_entity");
    before.assert_same(&snapshot(&redis).await, "after wrong usage");
}

/// A mark that stands for what its predecessor has not brought there yet is no proof, required or not.
#[tokio::test]
async fn a_mark_behind_a_pending_predecessor_is_not_proven() {
    let server = start().await;
    let redis = server.endpoint();
    Expected::load(&redis, 20).await;
    mark_as_others_do(&redis, "", "002_timestamps").await;
    let before = snapshot(&redis).await;
    let ran = command_line(&redis).run(&["init", "--current", "--require=002_timestamps"]).await;
    ran.assert_code(1).assert_said("002_timestamps");
    before.assert_same(&snapshot(&redis).await, "nothing is stamped");
}

#[tokio::test]
async fn waiting_ends_by_itself_when_everything_is_applied() {
    let server = start().await;
    let redis = server.endpoint();
    Expected::load(&redis, 100).await;
    let line = command_line(&redis);
    let waiting = line.start(&["init", "--current", "--wait", "80s"]);
    eventually_true(Duration::from_secs(30), "it says what it waits for", async || {
        let said = waiting.log();
        said.contains("001_hash_tags") && said.contains("003_entity")
    })
    .await;
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0);
    assert_eq!(waiting.exit_status(), None, "it waited until then, and looks again in a moment");
    CommandLine::end(&waiting).await.assert_code(0).assert_said("Current");
}

/// A gate that waits behind the marks of another tool, and has looked once.
async fn waiting_behind_other_marks(line: &CommandLine) -> Process {
    let waiting = line.start(&["init", "--current", "--wait", "5m"]);
    let has_looked = async || waiting.log().contains("marked by another tool");
    eventually_true(Duration::from_secs(30), "it has looked", has_looked).await;
    waiting
}

/// The marks are read again and again, whatever is done `meanwhile`, and nothing is compared.
async fn assert_only_marks_are_read(redis: &Endpoint, mut meanwhile: impl AsyncFnMut()) {
    let counters = reset_counters(redis).await;
    // A look that compares reads each mark twice before it scans.
    let reads = 4 * MIGRATIONS.len() as u64;
    eventually_true(Duration::from_secs(30), "the marks are read again and again", async || {
        meanwhile().await;
        called(&mut counters.clone()).await.get("hgetall").is_some_and(|calls| *calls >= reads)
    })
    .await;

    let called = called(&mut counters.clone()).await;
    assert!(!called.contains_key("scan"), "{called:?}");
}

/// Many pods may wait for long, and the marks alone tell when it is over.
#[tokio::test]
async fn waiting_behind_a_false_mark_does_not_compare_all_the_time() {
    let server = start().await;
    let redis = server.endpoint();
    Expected::load(&redis, 6000).await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    let line = command_line(&redis);
    let waiting = waiting_behind_other_marks(&line).await;

    assert_only_marks_are_read(&redis, async || ()).await;

    line.run(&["apply", "--all", "--yes"]).await.assert_code(0);
    CommandLine::end(&waiting).await.assert_code(0).assert_said("Current");
}

/// What a cleanup notes in a mark on its way says nothing that a gate waits for.
#[tokio::test]
async fn a_cleanup_that_counts_makes_no_gate_look_again() {
    let server = start().await;
    let redis = server.endpoint();
    Expected::load(&redis, 6000).await;
    let line = command_line(&redis);
    line.run(&["apply", "001_hash_tags", "--yes"]).await.assert_code(0);
    for name in &MIGRATIONS[1..] {
        mark_as_others_do(&redis, "", name).await;
    }
    let waiting = waiting_behind_other_marks(&line).await;

    let mut removed = 0;
    let mut connection = server.connection().await;
    assert_only_marks_are_read(&redis, async || {
        removed += 1;
        let note = redis::cmd("HSET").arg("outpost:migration:001_hash_tags").arg("cleanup_removed").arg(removed).take();
        note.exec_async(&mut connection).await.expect("HSET");
    })
    .await;

    line.run(&["apply", "--all", "--yes"]).await.assert_code(0);
    CommandLine::end(&waiting).await.assert_code(0).assert_said("Current");
}

#[tokio::test]
async fn waiting_ends_with_its_time() {
    let server = start().await;
    let redis = server.endpoint();
    add_legacy_tenant(&redis, "a").await;
    let began = Instant::now();
    let ran = command_line(&redis).run(&["init", "--current", "--wait", "3s"]).await;
    ran.assert_code(1).assert_said("001_hash_tags");
    assert!(began.elapsed() >= Duration::from_secs(3), "took {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
}

#[tokio::test]
async fn waiting_survives_a_redis_that_is_down_and_that_starts_again() {
    let server = Standalone::start(Options { persistent: true, ..Options::default() }).await;
    let redis = server.endpoint();
    add_legacy_tenant(&redis, "a").await;
    server.kill();
    let line = command_line(&redis);
    line.run(&["init", "--current"]).await.assert_code(3);
    let waiting = line.start(&["init", "--current", "--wait", "4m"]);
    let says = async |text: &str| {
        eventually_true(Duration::from_secs(60), "it says what it waits for", async || waiting.log().contains(text))
            .await;
    };
    says("can't be reached").await;
    server.restart().await;
    says("001_hash_tags (not applied)").await;
    // Once more, now with a connection that breaks.
    let before = waiting.log().matches("can't be reached").count();
    server.kill();
    // A command is tried again for half a minute before a look gives up.
    eventually_true(Duration::from_secs(90), "it notices", async || {
        waiting.log().matches("can't be reached").count() > before
    })
    .await;
    server.restart().await;
    assert_eq!(waiting.exit_status(), None, "it waits on");
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0);
    CommandLine::end(&waiting).await.assert_code(0).assert_said("Current");
}

#[rstest]
#[tokio::test]
async fn a_lock_of_another_operation_is_respected(#[values(0, 1, 2)] lock: usize) {
    let server = start().await;
    let redis = server.endpoint();
    let key = LOCKS[lock];
    let text = "migration=001_hash_tags, started=2026-01-02T03:04:05Z";
    load(&redis, [Entry::new(key, Value::string(text))]).await;
    let before = snapshot(&redis).await;
    let line = command_line(&redis);
    line.run(&["init", "--current"]).await.assert_code(4).assert_said(key).assert_said(text);
    line.run(&["init", "--current", "--wait", "1s"]).await.assert_code(4).assert_said(key);
    before.assert_same(&snapshot(&redis).await, "while another has the lock");

    let waiting = line.start(&["init", "--current", "--wait", "60s"]);
    eventually_true(Duration::from_secs(30), "it waits", async || waiting.log().contains(text)).await;
    delete(&redis, key).await;
    CommandLine::end(&waiting).await.assert_code(0).assert_said("Initialised");
    assert_initialised(&redis).await;
}

/// Who waits behind a false mark looks again and again: it must not keep anybody from applying.
#[tokio::test]
async fn a_gate_behind_a_false_mark_takes_no_lock() {
    let server = start().await;
    let redis = server.endpoint();
    Expected::load(&redis, 20).await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    let events = Events::listen(&redis).await;
    current(&redis).await.assert_code(1).assert_said("marked by another tool");
    events.assert_only(|key| key == GATE_CLAIM).await;

    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    current(&redis).await.assert_code(1).assert_said("marked by another tool");
    assert!(held.lease.holds());
    held.release().await;
}

#[tokio::test]
async fn a_true_mark_is_not_stamped_while_another_has_the_lock() {
    let server = start().await;
    let redis = server.endpoint();
    set_fields(&redis, "tenant:{a}:tenant", &[("id", "a"), ("created_at", "1"), ("entity", "tenant")]).await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    current(&redis).await.assert_code(4).assert_said("apply of 001_hash_tags");
    held.release().await;
    assert!(marks(&redis).await.values().all(|fields| !fields.contains_key("verified_at")));
    current(&redis).await.assert_code(0).assert_said("Current");
    assert!(marks(&redis).await.values().all(|fields| fields.contains_key("verified_at")));
}

#[rstest]
#[tokio::test]
async fn a_lock_key_of_another_type_is_a_lock(#[values(0, 1, 2)] lock: usize) {
    let server = start().await;
    let redis = server.endpoint();
    set_fields(&redis, LOCKS[lock], &[("x", "1")]).await;
    let before = snapshot(&redis).await;
    let ran = current(&redis).await;
    ran.assert_code(4).assert_said(LOCKS[lock]).assert_said("of another type");
    before.assert_same(&snapshot(&redis).await, "the key stays as it is");
    command_line(&redis).run(&["unlock", "--yes"]).await.assert_code(0).assert_said("of another type");
    current(&redis).await.assert_code(0).assert_said("Initialised");
}

#[tokio::test]
async fn a_mark_for_the_other_key_layout_is_none() {
    let server = start().await;
    let redis = server.endpoint();
    Expected::load(&redis, 20).await;
    let line = command_line(&redis);
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0);
    line.run(&["init", "--current"]).await.assert_code(0);
    let before = snapshot(&redis).await;
    let other = command_line(&redis).with("--key-layout=tenant-tag");
    let ran = other.run(&["init", "--current"]).await;
    ran.assert_code(1).assert_said("001_hash_tags").assert_said("other key layout");
    before.assert_same(&snapshot(&redis).await, "after the refusal");
}

/// A fresh keyspace's marks speak of either layout.
#[tokio::test]
async fn a_fresh_keyspace_is_current_for_either_layout() {
    let server = start().await;
    let redis = server.endpoint();
    current(&redis).await.assert_code(0);
    let other = command_line(&redis).with("--key-layout=tenant-tag");
    other.run(&["init", "--current"]).await.assert_code(0).assert_said("Current");
}

#[tokio::test]
async fn an_init_that_is_stopped_politely_gives_the_lock_back() {
    let server = start().await;
    let redis = server.endpoint();
    let proxy = Proxy::start(server.port()).await;
    proxy.stop_at(0, is_claim);
    let line = command_line(&proxy.endpoint());
    let init = line.start(&["init", "--current"]);
    proxy.wait_caught().await;
    init.signal(Signal::TERM);
    // The signal is on its way before the request goes on; it ends with the step under way.
    proxy.let_go();
    let ran = CommandLine::end(&init).await;
    assert!(matches!(ran.code, Some(0 | 1)), "{ran:?}");
    let locks = snapshot(&redis).await.filter(|key, _| key.ends_with(b"lock"));
    assert!(locks.is_empty(), "the lock was kept");
    current(&redis).await.assert_code(0);
    assert_initialised(&redis).await;
}

/// A request that claims marks or confirms claims, not one that loads the scripts for it.
fn is_claim(request: &[u8]) -> bool {
    contains(request, b"EVALSHA") && contains(request, b"init_claim")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Replicas have to hold a mark before the gate opens on it.
#[tokio::test]
async fn missing_replicas_keep_the_gate_shut_and_are_waited_for() {
    let cluster = Cluster::start(3, 1, Options::default()).await;
    let redis = cluster.endpoint();
    (3..6).for_each(|node| cluster.signal(node, Signal::STOP));
    let line = command_line(&redis);
    line.run(&["init", "--current"]).await.assert_code(1).assert_said("replicas");
    let unstamped = async || marks(&redis).await.values().all(|fields| !fields.contains_key("init_token"));
    assert!(unstamped().await, "stamped without replicas");

    let waiting = line.start(&["init", "--current", "--wait", "85s"]);
    let is_waiting = async || waiting.log().contains("waiting") && waiting.log().contains("replicas");
    eventually_true(Duration::from_secs(60), "it says what it waits for", is_waiting).await;
    assert!(unstamped().await, "stamped without replicas");
    (3..6).for_each(|node| cluster.signal(node, Signal::CONT));
    CommandLine::end(&waiting).await.assert_code(0).assert_said("Initialised");
    assert_initialised(&redis).await;
}

#[tokio::test]
async fn a_legacy_key_after_an_init_that_was_killed_between_its_stamps_is_not_stranded() {
    let server = start().await;
    let redis = server.endpoint();
    let applied = [("status", "applied"), ("applied_at", "2026-01-01T00:00:00Z")];
    let mark = |name: &str, field| {
        let fields = applied.into_iter().chain([(field, "dead")]);
        Entry::new(format!("outpost:migration:{name}"), Value::hash(fields))
    };
    let half =
        [mark("001_hash_tags", "init_token"), mark("002_timestamps", "init_claim"), mark("003_entity", "init_claim")];
    let late = Entry::new("tenant:late", Value::hash([("id", "late")]));
    load(&redis, half.into_iter().chain([late])).await;

    let next = current(&redis).await;
    assert_eq!(next.code, Some(1), "{}", next.said);
    assert!(next.said.contains("001_hash_tags"), "{}", next.said);
    assert!(marks(&redis).await.is_empty(), "what the dead one stamped and claimed is withdrawn");
}

/// Every pod of a Deployment waits, and one look is enough for all of them.
#[tokio::test]
async fn of_many_gates_behind_a_false_mark_one_looks() {
    let server = start().await;
    let redis = server.endpoint();
    Expected::load(&redis, 3000).await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    let line = command_line(&redis);
    let counters = reset_counters(&redis).await;
    line.run(&["init", "--current"]).await.assert_code(1);
    let scans = async || called(&mut counters.clone()).await.get("scan").copied().unwrap_or_default();
    let one_look = scans().await;
    assert!(one_look > 10, "a look reads the whole keyspace");

    reset_counters(&redis).await;
    let waiting: Vec<Process> = (0..6).map(|_| line.start(&["init", "--current", "--wait", "5m"])).collect();
    for gate in &waiting {
        let says = async || gate.log().contains("marked by another tool");
        eventually_true(Duration::from_secs(60), "it says what it waits for", says).await;
    }
    let claim = snapshot(&redis).await[GATE_CLAIM].expiry_ms;
    assert!(claim.is_some_and(|at| at <= now_ms() + 30_000), "the claim of a gate that died ends by itself: {claim:?}");
    let counted = waiting.iter().filter(|gate| gate.log().contains("but not applied to")).count();
    assert_eq!(counted, 1, "gates that looked");
    // The one that looked may do it again, a twentieth of the time.
    let together = scans().await;
    assert!(together < 3 * one_look, "{together} pages were read by six gates, {one_look} by one");

    // A pod that does not wait says why it can't know more.
    let short = line.start(&["init", "--current"]);
    eventually_true(Duration::from_secs(30), "it says so", async || short.log().contains("another gate")).await;
    line.run(&["apply", "--all", "--yes"]).await.assert_code(0);
    CommandLine::end(&short).await.assert_code(0).assert_said("Current");
    for gate in &waiting {
        CommandLine::end(gate).await.assert_code(0).assert_said("Current");
    }
    let state = snapshot(&redis).await.filter(|key, _| is_state(key));
    assert!(!state.contains_key(GATE_CLAIM), "the claim is given back");
}

/// Pods that restart with backoff start together, and the first of them proves the marks for all.
#[tokio::test]
async fn a_gate_that_does_not_wait_waits_for_the_look_that_is_under_way() {
    let server = start().await;
    let redis = server.endpoint();
    set_fields(&redis, "tenant:{a}:tenant", &[("id", "a"), ("created_at", "1"), ("entity", "tenant")]).await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    load(&redis, [Entry::new(GATE_CLAIM, Value::string("another"))]).await;
    let line = command_line(&redis);
    let waiting = line.start(&["init", "--current"]);
    let says_so = async || waiting.log().contains("another gate");
    eventually_true(Duration::from_secs(30), "it says what it waits for", says_so).await;
    // The other one has stamped what it proved.
    for name in MIGRATIONS {
        let stamp = [("verified_at", OTHERS_TIME), ("status", "applied"), ("applied_at", OTHERS_TIME)];
        set_fields(&redis, &format!("outpost:migration:{name}"), &stamp).await;
    }
    CommandLine::end(&waiting).await.assert_code(0).assert_said("Current");
}

/// Who can't look must not keep others from it.
#[tokio::test]
async fn a_gate_that_can_not_look_gives_its_claim_back() {
    let server = start().await;
    let redis = server.endpoint();
    add_legacy_tenant(&redis, "a").await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    let mut connection = server.connection().await;
    let line = command_line(&redis);
    let waiting = line.start(&["init", "--current", "--wait", "5m"]);
    let has_looked = async || waiting.log().contains("but not applied to 1 entry");
    eventually_true(Duration::from_secs(30), "it has looked", has_looked).await;

    // Its claim's connection stays, and is one of the two that there may be from now on.
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.expect("CLIENT LIST");
    assert!(clients.contains("name=outpost-migrate:claim"), "{clients}");
    let limit = redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(2).take();
    limit.exec_async(&mut connection).await.expect("CONFIG SET");
    for client in clients.lines().filter(|client| !client.contains("name=outpost-migrate:claim")) {
        let id = client.split(' ').find_map(|word| word.strip_prefix("id=")).expect("an id");
        let kill = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).arg("SKIPME").arg("yes").take();
        kill.exec_async(&mut connection).await.expect("CLIENT KILL");
    }

    // In the server's words, or in ours where it closed the connection before they were read.
    let can_not_look = async || waiting.log().contains("clients");
    // A lost connection is retried for long before it counts as one.
    eventually_true(Duration::from_secs(90), "it can't look", can_not_look).await;
    let is_free = async || {
        let exists = redis::cmd("EXISTS").arg(GATE_CLAIM).query_async::<u8>(&mut connection.clone()).await;
        exists.expect("EXISTS") == 0
    };
    eventually_true(Duration::from_secs(5), "another may claim the look", is_free).await;
    assert_eq!(waiting.exit_status(), None, "it waits on");
}

/// The claim of a gate that died ends by itself, and the next one looks.
#[tokio::test]
async fn a_gate_that_waits_takes_over_from_one_that_died() {
    let server = start().await;
    let redis = server.endpoint();
    set_fields(&redis, "tenant:{a}:tenant", &[("id", "a"), ("created_at", "1"), ("entity", "tenant")]).await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    load(&redis, [Entry::new(GATE_CLAIM, Value::string("dead"))]).await;
    let line = command_line(&redis);
    let waiting = line.start(&["init", "--current", "--wait", "60s"]);
    let is_waiting = async || waiting.log().contains("another gate");
    eventually_true(Duration::from_secs(30), "it waits for the other gate", is_waiting).await;
    // As the claim of a gate that died does by itself.
    run_on_owner(&redis, GATE_CLAIM, redis::cmd("PEXPIRE").arg(GATE_CLAIM).arg(1)).await;
    CommandLine::end(&waiting).await.assert_code(0).assert_said("Current");
    assert!(marks(&redis).await.values().all(|fields| fields.contains_key("verified_at")));
}

/// Who may only read can tell that a mark is true as well as others; it leaves no trace.
#[rstest]
#[case::true_marks(true)]
#[case::false_marks(false)]
#[tokio::test]
async fn a_gate_that_may_not_write_looks_and_writes_nothing(#[case] is_true: bool) {
    let users = vec!["reader on >secret ~* &* +@all -@write".to_owned()];
    let server = Standalone::start(Options { acl_users: users, ..Options::default() }).await;
    let redis = server.endpoint();
    set_fields(&redis, "tenant:{a}:tenant", &[("id", "a"), ("created_at", "1"), ("entity", "tenant")]).await;
    if !is_true {
        add_legacy_tenant(&redis, "b").await;
    }
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    let events = Events::listen(&redis).await;
    let line = command_line(&redis).with("--redis-username=reader").with("--redis-password=secret");
    let ran = line.run(&["init", "--current"]).await;
    events.assert_only(|_| false).await;
    if is_true {
        ran.assert_code(0).assert_said("Current");
    } else {
        ran.assert_code(1).assert_said("but not applied to 1 entry");
    }
    assert!(marks(&redis).await.values().all(|fields| !fields.contains_key("verified_at")));
}

/// Where Redis takes no write, a gate can't claim its look; it looks all the same.
#[tokio::test]
async fn a_gate_behind_a_false_mark_needs_no_memory() {
    let server = start().await;
    let redis = server.endpoint();
    add_legacy_tenant(&redis, "a").await;
    for name in MIGRATIONS {
        mark_as_others_do(&redis, "", name).await;
    }
    let limit = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).take();
    run_on_owner(&redis, b"", &limit).await;
    let mut connection = server.connection().await;
    let refused = redis::cmd("SET").arg("x").arg("1").query_async::<()>(&mut connection).await;
    assert!(refused.is_err(), "the fault did not hit: Redis still takes writes");
    current(&redis).await.assert_code(1).assert_said("but not applied to 1 entry");
}
