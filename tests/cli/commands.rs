//! Every command as a child process against real Redis: what it prints, how it exits, and what it leaves in Redis.

use std::collections::BTreeSet;

use crate::schema::{after_timestamps, load_with_canaries, upgraded};
use crate::shell::{CANARY, CommandLine, names};
use crate::support::engine::{Bench, Expected, LOCKS, entries, hset, is_state, run_on_owner};
use crate::support::fixture::read_fixture;
use crate::support::load::load;
use crate::support::redis_client::{Access, Endpoint};
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Keyspace, Value, shown};
use serde_json::{Value as Json, json};

const README: &str = include_str!("../../README.md");
const USER: &str = "outpost-migrate";

/// README's user as a line of an ACL file.
fn documented_user() -> Options {
    let line = README.lines().find_map(|line| line.strip_prefix("ACL SETUSER ")).expect("README documents a user");
    Options { acl_users: vec![line.replace("PASSWORD", &password())], ..Options::default() }
}

fn password() -> String {
    format!("{CANARY}-password")
}

/// The same Redis, as README's user; the harness itself goes on as the default user.
fn as_documented_user(redis: &Endpoint) -> Endpoint {
    let access = Access { username: Some(USER.to_owned()), password: Some(password()), tls: redis.access.tls.clone() };
    Endpoint { access, ..redis.clone() }
}

fn tls_with_client_certificate() -> Options {
    Options { require_client_certificate: true, password: Some(password()), ..Options::tls() }
}

/// Everything in Redis but marks, runs and locks.
async fn data(redis: &Endpoint) -> Keyspace {
    snapshot(redis).await.filter(|key, _| !is_state(key))
}

/// Marks, runs and locks.
async fn state(redis: &Endpoint) -> Keyspace {
    snapshot(redis).await.filter(|key, _| is_state(key))
}

fn lock_keys(keyspace: &Keyspace) -> BTreeSet<String> {
    keyspace.keys().map(|key| shown(key)).filter(|key| LOCKS.contains(&key.as_str())).collect()
}

/// The keyspace with another one laid over it.
fn over(below: &Keyspace, above: &Keyspace) -> Keyspace {
    entries(below).chain(entries(above)).collect()
}

/// The upgrade as it happens, command by command; the harness looks through `redis`, the program through `cli`.
async fn walk(redis: &Endpoint, cli: &CommandLine) {
    let expected = load_with_canaries(redis, 60).await;
    let before = snapshot(redis).await;
    reading_changes_nothing(redis, cli, &expected).await;
    let planned = cli.run(&["plan", "--output", "json"]).await.expect(0).json();
    let is_lacking =
        |finding: &&Json| finding["code"].as_str().is_some_and(|code| code.to_lowercase().contains("permi"));
    let lacking: Vec<&Json> = planned["plan"]["findings"].as_array().unwrap().iter().filter(is_lacking).collect();
    assert!(lacking.is_empty(), "permissions that the user lacks: {lacking:?}");
    cli.run(&["init", "--current"]).await.expect(1).says("001_hash_tags not applied");
    cli.run(&["cleanup", "--yes"]).await.expect(1).fails_with(&["001_hash_tags is not verified", "apply"]);
    snapshot(redis).await.assert_same(&before, "a refused cleanup");

    let sources = expected.sources().to_string();
    cli.run(&["apply", "--yes"])
        .await
        .expect(0)
        .says(&format!("001_hash_tags: {sources} copied; {sources} entries compared by value and found right"))
        .says("Next: `outpost-migrate-redis apply` goes on with 002_timestamps");
    expected.assert_migrated(&Bench::new(redis)).await;
    cli.run(&["verify"]).await.expect(0).says(&format!("every entry compared: {sources} as they should be, 0 differ"));

    cli.run(&["apply", "--all", "--yes"]).await.expect(0).says("002_timestamps: ").says("003_entity: ");
    over(&expected.originals, &upgraded(&expected.targets)).assert_same(&data(redis).await, "all three");
    cli.run(&["apply", "--yes"]).await.expect(0).says("Nothing to apply: all 3 migrations are applied.");
    cli.run(&["verify"]).await.expect(0).says("001_hash_tags: every entry compared").says("003_entity: every entry");
    let quick = cli.run(&["verify", "--sample", "20"]).await.expect(0);
    quick.says("a sample compared, which proves nothing");

    cli.run(&["init", "--current"]).await.expect(0).says("Current");
    let records = expected.targets.keys().filter(|key| !key.ends_with(b"}:destinations")).count();
    let again = cli.run(&["apply", "--rerun", "003_entity", "--yes"]).await.expect(0);
    again.says(&format!("003_entity: {records} done before; {records} entries compared by value"));
    let lived = live_on(redis).await;
    cli.run(&["apply", "--rerun", "001_hash_tags", "--yes"]).await.expect(0).says("1 source without target");
    let unknown = ["apply", "--rerun", "001_hash_tags", "--yes", "--restore-missing", "tenant:vault"];
    cli.run(&unknown).await.expect(0).says("0 copied, 1 left as they are");
    let differing = cli.run(&["verify", "001_hash_tags"]).await.expect(1).says(" 3 differ");
    differing
        .says("tenant:vault differs in metadata")
        .says("tenant:vault:destination:des_a target is missing")
        .says("tenant:vault:destination:des_b differs in deleted_at");
    clean_up(redis, cli, &expected, &lived).await;
    cli.run(&["unlock", "--yes"]).await.expect(0).says("The lock is free.");
    let left = state(redis).await;
    assert_eq!(lock_keys(&left), BTreeSet::new(), "locks left behind");
    for name in ["001_hash_tags", "002_timestamps", "003_entity"] {
        let mark = &left[format!("outpost:migration:{name}").as_bytes()].value;
        assert_eq!(mark.field("status"), Some(&b"applied"[..]), "{name}");
        assert!(mark.field("verified_at").is_some(), "{name}");
    }
}

/// `list`, `status`, `plan`, `verify` and a refused `apply` write nothing, not even a lock.
async fn reading_changes_nothing(redis: &Endpoint, cli: &CommandLine, expected: &Expected) {
    let before = snapshot(redis).await;
    let sources = expected.sources().to_string();
    for command in ["list", "status", "plan"] {
        let done = cli.run(&[command]).await.expect(0).says("001_hash_tags  1        pending");
        assert_eq!(done.stderr, "", "{command} has nothing to warn of");
    }
    cli.run(&["status"]).await.expect(0).says("Lock: free").says("Next: 001_hash_tags is pending");
    cli.run(&["plan"])
        .await
        .expect(0)
        .says(&format!("To do: {sources} entries"))
        .says("Unmigrated, and left alone: 9 keys");
    cli.run(&["verify"]).await.expect(1).says(&format!("0 as they should be, {sources} differ"));
    cli.run(&["apply"]).await.expect(2).fails_with(&["no terminal", "--yes"]);
    cli.run(&["apply", "002_timestamps", "--yes"]).await.expect(1).fails_with(&["001_hash_tags comes before"]);
    cli.run(&["apply", "--rerun", "002_timestamps", "--yes"]).await.expect(1).fails_with(&["is not applied"]);
    snapshot(redis).await.assert_same(&before, "commands that only read, or refuse");
}

/// What the application does after the upgrade: changes a tenant, deletes a destination, leaves a tombstone, adds a
/// tenant. Answers what is there then.
async fn live_on(redis: &Endpoint) -> Keyspace {
    hset(redis, b"tenant:{vault}:tenant", "metadata", &format!("{CANARY}-new")).await;
    run_on_owner(redis, b"tenant:{vault}:destination:des_a", redis::cmd("DEL").arg("tenant:{vault}:destination:des_a"))
        .await;
    let tombstone = b"tenant:{vault}:destination:des_b";
    hset(redis, tombstone, "deleted_at", "1764000000000").await;
    run_on_owner(redis, tombstone, redis::cmd("PEXPIRE").arg(tombstone).arg(604_800_000)).await;
    let fresh = [("id", "fresh"), ("created_at", "1764000000000"), ("entity", "tenant")];
    load(redis, [Entry::new("tenant:{fresh}:tenant", Value::hash(fresh))]).await;
    data(redis).await
}

/// Cleanup removes what equals its target, keeps what is diverged, and removes that too when asked for.
async fn clean_up(redis: &Endpoint, cli: &CommandLine, expected: &Expected, lived: &Keyspace) {
    let diverged = [&b"tenant:vault"[..], b"tenant:vault:destination:des_a", b"tenant:vault:destination:des_b"];
    cli.run(&["cleanup"]).await.expect(2).fails_with(&["no terminal", "--yes"]);
    data(redis).await.assert_same(lived, "a cleanup that nobody approved");

    let removed = expected.sources() - 3;
    cli.run(&["cleanup", "--yes"])
        .await
        .expect(0)
        .says(&format!("001_hash_tags: {removed} originals removed"))
        .says("3  their target is diverged");
    let keeps = |key: &[u8]| !expected.pairs.contains_key(key) || diverged.contains(&key);
    lived.filter(|key, _| keeps(key)).assert_same(&data(redis).await, "cleaned up");

    cli.run(&["cleanup", "--yes", "--force", "--diverged", "delete"])
        .await
        .expect(0)
        .says("001_hash_tags: 3 originals removed")
        .does_not_say("every entry compared");
    let rest = lived.filter(|key, _| !expected.pairs.contains_key(key));
    rest.assert_same(&data(redis).await, "cleaned up, diverged originals too");
}

#[tokio::test]
async fn the_upgrade_on_a_standalone_server() {
    let redis = Standalone::start(Options::password(&password())).await;
    walk(&redis.endpoint(), &CommandLine::at(&redis.endpoint())).await;
}

#[tokio::test]
async fn the_upgrade_on_a_cluster() {
    let cluster = Cluster::start(3, 1, Options::default()).await;
    walk(&cluster.endpoint(), &CommandLine::at(&cluster.endpoint())).await;
}

#[tokio::test]
async fn the_upgrade_over_tls_with_a_client_certificate() {
    let redis = Standalone::start(tls_with_client_certificate()).await;
    walk(&redis.endpoint(), &CommandLine::at(&redis.endpoint())).await;
}

#[tokio::test]
async fn the_upgrade_on_a_cluster_over_tls_with_a_client_certificate() {
    let cluster = Cluster::start(3, 1, tls_with_client_certificate()).await;
    walk(&cluster.endpoint(), &CommandLine::at(&cluster.endpoint())).await;
}

#[tokio::test]
async fn the_upgrade_by_the_documented_user() {
    let redis = Standalone::start(documented_user()).await;
    walk(&redis.endpoint(), &CommandLine::at(&as_documented_user(&redis.endpoint()))).await;
}

#[tokio::test]
async fn a_fresh_redis_is_initialised_by_the_documented_user() {
    let cluster = Cluster::start(3, 1, documented_user()).await;
    let cli = CommandLine::at(&as_documented_user(&cluster.endpoint()));
    cli.run(&["init"]).await.expect(0).says("Initialised");
    cli.run(&["init", "--current"]).await.expect(0).says("Current");
    cli.run(&["list"]).await.expect(0).says("003_entity 3 applied");
    assert_eq!(lock_keys(&snapshot(&cluster.endpoint()).await), BTreeSet::new(), "locks left behind");
}

#[tokio::test]
async fn the_upgrade_on_a_cluster_by_the_documented_user() {
    let cluster = Cluster::start(3, 1, documented_user()).await;
    walk(&cluster.endpoint(), &CommandLine::at(&as_documented_user(&cluster.endpoint()))).await;
}

#[tokio::test]
async fn a_keyspace_with_a_deployment_id_skips_the_first_migration() {
    let redis = Standalone::start(documented_user()).await;
    let endpoint = redis.endpoint();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/outpost-v0.11-deployment-keyspace.jsonl");
    load(&endpoint, read_fixture(fixture)).await;
    let before = snapshot(&endpoint).await;
    let cli = CommandLine::at(&as_documented_user(&endpoint)).flags(&["--deployment-id", "dp_001"]);

    cli.run(&["list"]).await.expect(0).says("001_hash_tags   1        not applicable");
    cli.run(&["plan"]).await.expect(0).says("Plan of 002_timestamps");
    snapshot(&endpoint).await.assert_same(&before, "commands that only read");
    cli.run(&["apply", "--all", "--yes"]).await.expect(0).says("001_hash_tags: not applicable:");
    let marks =
        |key: &[u8]| key.starts_with(b"dp_001:outpost:migration:") || key.starts_with(b"{dp_001:outpost:migration");
    let after = snapshot(&endpoint).await;
    upgraded(&before).assert_same(&after.filter(|key, _| !marks(key)), "002 and 003");
    let mark = &after[&b"dp_001:outpost:migration:001_hash_tags"[..]].value;
    assert_eq!(mark.field("status"), Some(&b"not_applicable"[..]));
    assert!(mark.field("reason").is_some() && mark.field("checked_at").is_some(), "with its reason");
    cli.run(&["cleanup", "--yes"]).await.expect(0).says("Nothing to clean up.");
}

#[tokio::test]
async fn a_rerun_catches_up_with_what_was_written_in_the_old_form() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let expected = load_with_canaries(&endpoint, 20).await;
    cli.run(&["apply", "--all", "--yes"]).await.expect(0);
    let upgraded_targets = upgraded(&expected.targets);
    hset(&endpoint, b"tenant:{vault}:tenant", "updated_at", "2025-06-01T00:00:00.25Z").await;
    let with_old_form = data(&endpoint).await;

    cli.run(&["verify", "002_timestamps"]).await.expect(1).says("tenant:{vault}:tenant  updated_at not migrated");
    cli.run(&["apply", "002_timestamps", "--yes"]).await.expect(0).says("Nothing to apply");
    data(&endpoint).await.assert_same(&with_old_form, "only --rerun runs an applied migration");
    cli.run(&["apply", "--rerun", "002_timestamps", "--yes"]).await.expect(0).says("002_timestamps: 1 changed");
    let mended = data(&endpoint).await;
    assert_eq!(mended[&b"tenant:{vault}:tenant"[..]].value.field("updated_at"), Some(&b"1748736000250"[..]));
    let others = |key: &[u8], _: &_| key != b"tenant:{vault}:tenant";
    over(&expected.originals, &upgraded_targets).filter(others).assert_same(&mended.filter(others), "the others");
}

#[tokio::test]
async fn missing_targets_are_reported_and_copied_by_name_only() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let expected = load_with_canaries(&endpoint, 20).await;
    cli.run(&["apply", "--yes"]).await.expect(0);
    let whole = data(&endpoint).await;
    for (_, target) in expected.pairs.iter().filter(|(source, _)| source.starts_with(b"tenant:vault:destination:des_"))
    {
        run_on_owner(&endpoint, target, redis::cmd("DEL").arg(target)).await;
    }
    let without = data(&endpoint).await;

    let reported = cli.run(&["apply", "--rerun", "001_hash_tags", "--yes"]).await.expect(0);
    let reported = reported.says("001_hash_tags: 3 sources without target").says("--restore-missing KEY");
    for id in ["des_a", "des_b", "des_gone"] {
        assert!(reported.stdout.contains(&format!("  tenant:vault:destination:{id}\n")), "{reported}");
    }
    data(&endpoint).await.assert_same(&without, "a report copies nothing");

    let named = ["apply", "--rerun", "001_hash_tags", "--yes", "--restore-missing"];
    let one = cli.run(&[&named[..], &["tenant:vault:destination:des_a"]].concat()).await.expect(0).says("1 copied");
    assert!(one.stderr.contains("whatever the application deleted since would return"), "a warning: {one}");
    cli.write("keys", "tenant:vault:destination:des_b\ntenant:vault:destination:des_gone\ntenant:vault\n");
    cli.run(&[&named[..], &["@keys"]].concat()).await.expect(0).says("2 copied, 1 left as they are");
    data(&endpoint).await.assert_same(&whole, "all are back, with their expiries");

    let unknown = cli.run(&[&named[..], &["tenant:nobody"]].concat()).await.expect(1);
    assert!(unknown.stderr.contains("no sources of 001_hash_tags (tenant:nobody)"), "{unknown}");
    cli.run(&[&named[..], &["@nofile"]].concat()).await.expect(2);
    cli.run(&["apply", "--restore-missing", "tenant:vault"]).await.expect(2);
    data(&endpoint).await.assert_same(&whole, "refusals change nothing");
}

#[tokio::test]
async fn conflicts_stop_apply_until_a_policy_is_chosen() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let expected = load_with_canaries(&endpoint, 20).await;
    let other = Value::hash([("id", "vault"), ("metadata", &format!("{CANARY}-other"))]);
    load(&endpoint, [Entry::new("tenant:{vault}:tenant", other)]).await;
    let before = data(&endpoint).await;

    cli.run(&["plan"]).await.expect(0).says("1 in conflict").says("choose a --conflict-policy");
    let refused = cli.run(&["apply", "--yes"]).await.expect(1).fails_with(&["1 targets exist", "--conflict-policy"]);
    assert!(refused.stdout.contains("tenant:vault"), "{refused}");
    assert!(state(&endpoint).await.iter().all(|(key, _)| !key.starts_with(b"outpost:migration:0")), "no mark");
    let kept = data(&endpoint).await;
    kept.assert_same(&before, "nothing was written");
    let preferring = ["--conflict-policy", "prefer-source", "apply", "001_hash_tags", "--yes"];
    cli.run(&preferring).await.expect(0).says("1 replaced");
    expected.migrated().assert_same(&data(&endpoint).await, "the source won");
    let again = cli.run(&["apply", "001_hash_tags", "--yes"]).await.expect(0);
    again.says("it is applied already. Still pending: 002_timestamps, 003_entity.");
}

#[tokio::test]
async fn a_finding_blocks_until_it_is_accepted_by_name() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let tenant = |id: &str| Entry::new(format!("tenant:{id}"), Value::hash([("id", id)]));
    let foreign = Entry::new("tenant:{a}:destination:d", Value::hash([("id", "d")]));
    load(&endpoint, [tenant("a"), tenant("{a}"), foreign]).await;
    let before = data(&endpoint).await;

    cli.run(&["plan"]).await.expect(0).says("--accept-finding BracedTenant").says("they block apply");
    cli.run(&["apply", "--yes"]).await.expect(1).fails_with(&["--accept-finding BracedTenant", "spec.acceptFindings"]);
    for name in ["Memory", "bracedtenant"] {
        let unknown = cli.run(&["apply", "--yes", "--accept-finding", name]).await.expect(2);
        assert!(
            unknown.stderr.contains(&format!("{name:?} is no finding that can be accepted; these can: BracedTenant"))
        );
    }
    data(&endpoint).await.assert_same(&before, "refusals change nothing");

    let hash = async |arguments: &[&str]| {
        let planned = cli.run(&[&["plan", "--output", "json"], arguments].concat()).await.expect(0).json();
        let finding = |it: &&Json| it["code"] == "BracedTenant" && it["severity"] == "Error";
        let finding = planned["plan"]["findings"].as_array().unwrap().iter().find(finding).expect("the finding");
        (planned["plan"]["hash"].clone(), finding["accepted"].clone())
    };
    let accepting = ["--accept-finding", "BracedTenant"];
    let (refused, accepted) = (hash(&[]).await, hash(&accepting).await);
    assert_eq!((&refused.1, &accepted.1), (&json!(false), &json!(true)));
    assert_ne!(refused.0, accepted.0, "who approved the one has not approved the other");
    let applied = cli.run(&[&["apply", "--yes"][..], &accepting].concat()).await.expect(0);
    applied.says("accepted: 1 keys lie under tenants with a braced id").says("001_hash_tags: 2 copied");
}

#[tokio::test]
async fn another_tools_mark_is_shown_as_unproven_and_proven_by_apply() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let expected = load_with_canaries(&endpoint, 20).await;
    let mark = [("status", "applied"), ("applied_at", "2025-07-01T00:00:00Z")];
    load(&endpoint, [Entry::new("outpost:migration:001_hash_tags", Value::hash(mark))]).await;

    cli.run(&["list"]).await.expect(0).says("001_hash_tags   1        unproven  2025-07-01T00:00:00");
    cli.run(&["status"]).await.expect(0).says("another tool marked 001_hash_tags, which proves nothing");
    cli.run(&["cleanup", "--yes"]).await.expect(1).fails_with(&["is not verified"]);
    cli.run(&["apply", "--yes"]).await.expect(0).says("001_hash_tags is marked as applied, but nothing proves it");
    expected.migrated().assert_same(&data(&endpoint).await, "copied");
    cli.run(&["list"]).await.expect(0).says("001_hash_tags   1        applied");
}

#[tokio::test]
async fn each_command_speaks_json_with_the_same_names_for_ever() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint).flags(&["--output", "json"]);
    let expected = load_with_canaries(&endpoint, 20).await;

    let listed = cli.run(&["list"]).await.expect(0).json();
    assert_eq!(names(&listed), ["migrations"]);
    let row = ["applied_at", "cleaned_up_at", "description", "name", "state", "verified_at", "version"];
    assert_eq!(names(&listed["migrations"][0]), row);
    assert_eq!(listed["migrations"][0]["state"], "pending");
    let status = cli.run(&["status"]).await.expect(0).json();
    assert_eq!(names(&status), ["locks", "migrations", "next"]);
    let planned = cli.run(&["plan"]).await.expect(0).json();
    assert_eq!(names(&planned), ["migrations", "next", "plan"]);
    let plan = [
        "already_migrated",
        "conflict_sample",
        "conflicts",
        "current",
        "differences_are_ours",
        "estimated_bytes",
        "estimated_seconds",
        "findings",
        "hash",
        "mark_is_unproven",
        "migration",
        "sample",
        "sources",
        "to_apply",
        "total_sources",
        "unmigrated",
    ];
    assert_eq!(names(&planned["plan"]), plan);
    assert_eq!(planned["plan"]["to_apply"], expected.sources());
    let init = cli.run(&["init"]).await.expect(0).json();
    assert_eq!(names(&init), ["current", "initialised", "pending"]);
    assert_eq!(names(&init["pending"][0]), ["entries", "migration", "reason"]);

    let applied = cli.run(&["apply", "--yes"]).await.expect(0);
    assert_eq!(applied.event("plan")["plan"], json!(null), "the plan's members stand beside the event's name");
    assert_eq!(applied.event("plan")["migration"], "001_hash_tags");
    let applied = applied.event("applied");
    let members = [
        "already_migrated",
        "changed",
        "compared_equal",
        "conflicts",
        "copied",
        "ended",
        "event",
        "expiries_put_back",
        "expiries_unmended",
        "kept_different",
        "migration",
        "replaced",
        "unmigrated",
    ];
    assert_eq!(names(&applied), members);
    assert_eq!(applied["copied"], expected.sources());
    hset(&endpoint, b"tenant:{vault}:tenant", "metadata", "other").await;
    let verified = cli.run(&["verify"]).await.expect(1).event("verified");
    let members =
        ["complete", "differences", "different", "ended", "equal", "event", "migration", "state", "unmigrated"];
    assert_eq!(names(&verified), members);
    let difference = json!([{"key": "tenant:vault", "kind": "fields", "fields": ["metadata"], "more": 0}]);
    assert_eq!(verified["differences"], difference);
    run_on_owner(&endpoint, b"", redis::cmd("DEL").arg("tenant:{vault}:destination:des_a")).await;
    let rerun = ["apply", "--rerun", "001_hash_tags", "--yes"];
    let missing = cli.run(&rerun).await.expect(0).event("missing");
    assert_eq!(
        missing,
        json!({"event": "missing", "migration": "001_hash_tags", "missing": 1,
        "keys": ["tenant:vault:destination:des_a"]})
    );
    let restore = [&rerun[..], &["--restore-missing", "tenant:vault:destination:des_a"]].concat();
    let restored = cli.run(&restore).await.expect(0).event("restored");
    assert_eq!(names(&restored), ["copied", "event", "migration", "no_source", "target_exists"]);
    let cleaned = cli.run(&["cleanup", "--yes"]).await.expect(0).event("cleaned_up");
    let members = [
        "event",
        "findings",
        "gone",
        "kept_as_signs",
        "kept_changed",
        "kept_diverged",
        "kept_sample",
        "migration",
        "removed",
        "removed_before",
        "unmigrated",
    ];
    assert_eq!(names(&cleaned), members);
    assert_eq!((&cleaned["removed"], &cleaned["kept_diverged"]), (&json!(expected.sources() - 1), &json!(1)));
    let unlocked = cli.run(&["unlock", "--yes"]).await.expect(0).json();
    assert_eq!(unlocked, json!({"locks": [], "removed": 0}));
    // Where there is nothing to do, JSON is still what is printed.
    assert_eq!(cli.run(&["apply", "--all", "--yes"]).await.expect(0).events().len(), 4, "two plans, two applied");
    let nothing = cli.run(&["apply", "--yes"]).await.expect(0);
    assert_eq!(nothing.json()["event"], "nothing", "a reader of JSON is told that there is nothing to apply");
    let cli = CommandLine::at(&endpoint).flags(&["--output", "json", "--deployment-id", "other"]);
    let nothing = cli.run(&["cleanup", "--yes"]).await.expect(0);
    assert_eq!(nothing.json()["event"], "nothing", "and nothing to clean up");
}

#[tokio::test]
async fn in_place_migrations_change_times_and_nothing_else() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/outpost-v0.11-keyspace.jsonl");
    load(&endpoint, read_fixture(fixture)).await;
    let before = snapshot(&endpoint).await;
    let cli = CommandLine::at(&endpoint);

    cli.run(&["apply", "--yes"]).await.expect(0).says("001_hash_tags: nothing to do");
    data(&endpoint).await.assert_same(&before, "everything is in current form already");
    cli.run(&["apply", "--yes"]).await.expect(0).says("002_timestamps: ");
    after_timestamps(&before).assert_same(&data(&endpoint).await, "002");
    cli.run(&["apply", "--yes"]).await.expect(0).says("003_entity: ");
    upgraded(&before).assert_same(&data(&endpoint).await, "003");
}
