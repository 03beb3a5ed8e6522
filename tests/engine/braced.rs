//! Tenants whose ids differ by braces, so that the legacy names of one look like the current names of the other.

use std::time::Duration;

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::{Stop, verify};
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use outpost_migrate_redis::model::mapping::UnmigratedReason;
use outpost_migrate_redis::model::policy::{ConflictPolicy, DivergedPolicy};
use rstest::rstest;

use crate::support::engine::{Bench, LOCKS, MARK, hset, now, run_on_owner};
use crate::support::load::load;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::redis_client::{Endpoint, slot};
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Entry, Value};
use crate::support::wait::eventually_true;

const IN_PLACE: [&str; 2] = ["002_timestamps", "003_entity"];

fn record(key: &str, id: &str) -> Entry {
    Entry::new(key, Value::hash([("id", id), ("created_at", "2025-01-19T22:17:29Z")]))
}

fn bench(redis: &Endpoint, migration: &str) -> Bench {
    Bench::new(redis).migration(migration).accepting(&["BracedTenant"])
}

async fn migrate(redis: &Endpoint, migration: &str) {
    bench(redis, migration).migrate(&Control::unattended()).await.unwrap_or_else(|stop| panic!("{migration}: {stop}"));
}

/// From legacy keys to 003, with the cleanup where people have it.
async fn walk(redis: &Endpoint) {
    migrate(redis, "001_hash_tags").await;
    let report = bench(redis, "001_hash_tags").cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept_as_signs), (1, 2), "what shows whose a key is stays");
    for migration in IN_PLACE {
        migrate(redis, migration).await;
    }
}

/// `b` has a destination of its own, `{b}` has what a tenant has.
fn b_and_braced_b() -> Vec<Entry> {
    let summary = Value::hash([("theirs", r#"{"type":"webhook"}"#)]);
    vec![
        record("tenant:b", "b"),
        record("tenant:b:destination:mine", "mine"),
        record("tenant:{b}", "{b}"),
        Entry::new("tenant:{b}:destinations", summary),
        record("tenant:{b}:destination:theirs", "theirs"),
    ]
}

async fn one_tenant_gets_nothing_of_the_other(redis: &Endpoint) {
    load(redis, b_and_braced_b()).await;
    let before = Bench::new(redis).snapshot().await.0;

    let plan = Bench::new(redis).plan().await.expect("a plan");
    let found = plan.seen.findings.iter().find(|it| it.code == FindingCode::BracedTenant).expect("a finding");
    assert_eq!((found.severity, found.accepted), (Severity::Error, false));
    walk(redis).await;
    let left = Bench::new(redis).compare().await.expect("a comparison").unmigrated;
    assert_eq!(left, plan.seen.unmigrated, "as before: cleanup makes no key a stranger");

    let after = Bench::new(redis).snapshot().await.0;
    for key in ["tenant:{b}", "tenant:{b}:destinations", "tenant:{b}:destination:theirs"] {
        assert_eq!(after.get(key.as_bytes()), before.get(key.as_bytes()), "{key} is as it was");
    }
    for (key, entity) in [
        ("tenant:{b}:tenant", "tenant"),
        ("tenant:{{b}}:tenant", "tenant"),
        ("tenant:{b}:destination:mine", "destination"),
    ] {
        let entry = &after[key.as_bytes()].value;
        assert_eq!(entry.field("created_at"), Some(&b"1737325049000"[..]), "{key}");
        assert_eq!(entry.field("entity"), Some(entity.as_bytes()), "{key}");
    }
    assert!(!after.contains_key(&b"tenant:b"[..]), "what is nobody's sign is cleaned up");
    for migration in IN_PLACE {
        let seen = Bench::new(redis).migration(migration).plan().await.expect("a plan").seen;
        assert!(seen.unmigrated.by_reason[&UnmigratedReason::BracedTenant] > 0, "{migration} tells of them");
        assert!(seen.findings.iter().any(|it| it.code == FindingCode::BracedTenant && it.blocks()), "{migration}");
    }
}

#[tokio::test]
async fn one_tenant_gets_nothing_of_the_other_on_one_server() {
    let redis = Standalone::start(Options::default()).await;
    one_tenant_gets_nothing_of_the_other(&redis.endpoint()).await;
}

#[tokio::test]
async fn one_tenant_gets_nothing_of_the_other_on_a_cluster() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    one_tenant_gets_nothing_of_the_other(&cluster.endpoint()).await;
}

#[tokio::test]
async fn a_braced_tenant_without_keys_of_its_own_is_like_any_other() {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    load(&redis, [record("tenant:c", "c"), record("tenant:c:destination:d", "d"), record("tenant:{c}", "{c}")]).await;
    let strict = |migration: &str| Bench::new(&redis).migration(migration);
    let finding = async |migration: &str| {
        let findings = strict(migration).plan().await.expect("a plan").seen.findings;
        findings.into_iter().any(|it| it.code == FindingCode::BracedTenant)
    };

    // Copied, not yet proven: what lies under the braced name now is the other tenant's own.
    strict("001_hash_tags").try_prove(&Control::unattended()).await.expect("copied");
    assert!(!finding("001_hash_tags").await, "a run that was interrupted can go on");
    strict("001_hash_tags").migrate(&Control::unattended()).await.expect("001");
    strict("002_timestamps").migrate(&Control::unattended()).await.expect("002, before the cleanup");
    let report = strict("001_hash_tags").cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (3, 0));
    strict("003_entity").migrate(&Control::unattended()).await.expect("003, after the cleanup");

    let after = Bench::new(&redis).snapshot().await.0;
    let destination = &after[&b"tenant:{c}:destination:d"[..]].value;
    assert_eq!(destination.field("created_at"), Some(&b"1737325049000"[..]));
    assert_eq!(destination.field("entity"), Some(&b"destination"[..]));
}

/// As marks were written before anybody counted such keys.
async fn forget_keys_apart(redis: &Endpoint) {
    run_on_owner(redis, MARK, redis::cmd("HDEL").arg(MARK).arg("keys_apart")).await;
}

/// `c` and its destination, and a tenant `{c}` that has nothing else; migrated under such an older mark.
async fn migrated_c_and_braced_c(redis: &Endpoint) {
    load(redis, [record("tenant:c", "c"), record("tenant:c:destination:d", "d"), record("tenant:{c}", "{c}")]).await;
    Bench::new(redis).migrate(&Control::unattended()).await.expect("001");
    forget_keys_apart(redis).await;
}

async fn assert_in_place_migrations_reach_c(redis: &Endpoint) {
    for migration in IN_PLACE {
        let strict = Bench::new(redis).migration(migration);
        strict.migrate(&Control::unattended()).await.unwrap_or_else(|stop| panic!("{migration}: {stop}"));
    }
    let after = Bench::new(redis).snapshot().await.0;
    let destination = &after[&b"tenant:{c}:destination:d"[..]].value;
    assert_eq!(destination.field("created_at"), Some(&b"1737325049000"[..]));
    assert_eq!(destination.field("entity"), Some(&b"destination"[..]));
}

#[tokio::test]
async fn an_older_mark_makes_no_strangers_of_a_tenants_own_keys() {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    migrated_c_and_braced_c(&redis).await;

    let report = Bench::new(&redis).cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!((report.removed, report.kept()), (3, 0), "nothing lies under {{c}} that is not c's");
    assert_in_place_migrations_reach_c(&redis).await;
}

#[tokio::test]
async fn an_original_beside_a_sign_that_diverged_stays_with_it() {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    migrated_c_and_braced_c(&redis).await;
    hset(&redis, b"tenant:{{c}}:tenant", "metadata", "later").await;

    let report = Bench::new(&redis).cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!((report.removed, report.kept_diverged, report.kept_as_signs), (1, 1, 1));
    let left = Bench::new(&redis).snapshot().await.0;
    let left = ["tenant:c", "tenant:{c}", "tenant:c:destination:d"].map(|key| left.contains_key(key.as_bytes()));
    assert_eq!(left, [false, true, true]);
    assert_in_place_migrations_reach_c(&redis).await;
}

/// What belongs to `{b}`, under names that the copies of `b`'s entries would have.
const THEIRS: [&str; 3] = ["tenant:{b}", "tenant:{b}:destinations", "tenant:{b}:destination:webhook"];

/// `b` and `{b}` both have a summary, and a destination with the same id.
fn b_and_braced_b_with_the_same_names() -> Vec<Entry> {
    let of_kind = |tenant: &str, kind: &str| {
        let summary = format!(r#"{{"type":"{kind}"}}"#);
        let destination = [("id", "webhook"), ("type", kind), ("created_at", "2025-01-19T22:17:29Z")];
        [
            record(&format!("tenant:{tenant}"), tenant),
            Entry::new(format!("tenant:{tenant}:destinations"), Value::hash([("webhook", summary.as_str())])),
            Entry::new(format!("tenant:{tenant}:destination:webhook"), Value::hash(destination)),
        ]
    };
    [of_kind("b", "webhook"), of_kind("{b}", "rabbitmq")].concat()
}

#[rstest]
#[case::one_server(false)]
#[case::a_cluster(true)]
#[tokio::test]
async fn a_tenant_keeps_what_is_named_like_a_copy_of_the_other_tenants(#[case] cluster: bool) {
    let server = Redis::either(cluster, 0).await;
    let redis = server.endpoint();
    load(&redis, b_and_braced_b_with_the_same_names()).await;
    let before = Bench::new(&redis).snapshot().await.0;

    let seen = Bench::new(&redis).plan().await.expect("a plan").seen;
    assert_eq!(seen.unmigrated.by_reason.get(&UnmigratedReason::BracedTenant), Some(&2), "neither is b's copy");
    assert!(seen.findings.iter().any(|it| it.code == FindingCode::BracedTenant && it.blocks()), "{:?}", seen.findings);
    assert_eq!((seen.lasting.current, seen.lasting.targets), (2, 2), "the sums come out");
    let strict = Bench::new(&redis).conflicts(ConflictPolicy::PreferTarget);
    let refused = strict.migrate(&Control::unattended()).await.expect_err("a refusal");
    assert!(matches!(refused, Stop::PreflightFailed(_)), "{refused}");
    before.assert_same(&Bench::new(&redis).snapshot().await.0, "nothing was accepted yet");

    let prefer_target = |migration| bench(&redis, migration).conflicts(ConflictPolicy::PreferTarget);
    for migration in ["001_hash_tags"].into_iter().chain(IN_PLACE) {
        let walked = prefer_target(migration).migrate(&Control::unattended()).await;
        walked.unwrap_or_else(|stop| panic!("{migration}: {stop}"));
    }
    let cleanup = prefer_target("001_hash_tags").diverged(DivergedPolicy::Delete);
    let report = cleanup.cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!((report.removed, report.kept_as_signs), (1, 3), "the sign, and b's originals beside it");
    let after = Bench::new(&redis).snapshot().await.0;
    for key in THEIRS.into_iter().chain(["tenant:b:destinations", "tenant:b:destination:webhook"]) {
        assert_eq!(after.get(key.as_bytes()), before.get(key.as_bytes()), "{key} is as it was");
    }
    for migration in IN_PLACE {
        let seen = Bench::new(&redis).migration(migration).plan().await.expect("a plan").seen;
        assert!(seen.findings.iter().any(|it| it.code == FindingCode::BracedTenant && it.blocks()), "{migration}");
    }
}

#[tokio::test]
async fn behind_another_tools_mark_a_tenant_keeps_what_is_named_like_a_copy() {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    load(&redis, b_and_braced_b_with_the_same_names()).await;
    load(&redis, [record("tenant:{b}:tenant", "b"), record("tenant:{{b}}:tenant", "{b}")]).await;
    hset(&redis, MARK, "status", "applied").await;
    let before = Bench::new(&redis).snapshot().await.0;

    let bench = Bench::new(&redis);
    let held = bench.hold().await;
    let control = Control::unattended();
    let proven = verify::prove_mark(&held.writer, &bench.assignment, &control, "", None, now()).await.expect("a proof");
    held.release().await;
    assert_eq!((proven.unapplied, proven.different), (0, 2), "the mark is stamped");
    let report = bench.cleanup(&control).await.expect("a cleanup");

    assert_eq!((report.removed, report.kept_as_signs), (1, 3), "the sign, and b's originals beside it");
    let after = Bench::new(&redis).snapshot().await.0;
    for key in THEIRS {
        assert_eq!(after.get(key.as_bytes()), before.get(key.as_bytes()), "{key} is as it was");
    }
}

/// What nothing tells from the other tenant's is left alone, and told of.
#[tokio::test]
async fn a_copy_that_the_application_changed_under_a_sign_is_left_alone() {
    let redis = Standalone::start(Options::default()).await;
    let redis = redis.endpoint();
    load(&redis, [record("tenant:c", "c"), record("tenant:c:destination:d", "d"), record("tenant:{c}", "{c}")]).await;
    Bench::new(&redis).migrate(&Control::unattended()).await.expect("001");
    hset(&redis, b"tenant:{c}:destination:d", "disabled_at", "2025-03-01T00:00:00Z").await;
    let before = Bench::new(&redis).snapshot().await.0;

    let refused = Bench::new(&redis).migration("002_timestamps").migrate(&Control::unattended()).await;
    let refused = refused.expect_err("a refusal");
    assert!(matches!(refused, Stop::PreflightFailed(_)), "{refused}");
    migrate(&redis, "002_timestamps").await;

    let after = Bench::new(&redis).snapshot().await.0;
    let destination = &b"tenant:{c}:destination:d"[..];
    assert_eq!(after.get(destination), before.get(destination));
}

/// A string and somebody else's hash, with the names of tenants `{x}` and `{y}`; and a true sign elsewhere.
#[rstest]
#[case::one_server(false)]
#[case::a_cluster(true)]
#[tokio::test]
async fn what_only_has_the_name_of_a_sign_holds_no_original_back(#[case] cluster: bool) {
    let server = Redis::either(cluster, 0).await;
    let redis = server.endpoint();
    let of = |id: &str| [record(&format!("tenant:{id}"), id), record(&format!("tenant:{id}:destination:d"), "d")];
    let named_like_signs = [Entry::new("tenant:{x}", Value::string("x")), record("tenant:{y}", "y")];
    load(&redis, b_and_braced_b().into_iter().chain(of("x")).chain(of("y")).chain(named_like_signs)).await;
    let before = Bench::new(&redis).snapshot().await.0;
    migrate(&redis, "001_hash_tags").await;

    let report = bench(&redis, "001_hash_tags").cleanup(&Control::unattended()).await.expect("a cleanup");

    assert_eq!((report.removed, report.kept_as_signs), (5, 2), "only `{{b}}` is a sign");
    let after = Bench::new(&redis).snapshot().await.0;
    for original in ["tenant:x", "tenant:x:destination:d", "tenant:y", "tenant:y:destination:d"] {
        assert!(!after.contains_key(original.as_bytes()), "{original} is cleaned up");
    }
    for other in ["tenant:{x}", "tenant:{y}", "tenant:{b}"] {
        assert_eq!(after.get(other.as_bytes()), before.get(other.as_bytes()), "{other} is as it was");
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_connection_that_breaks_while_a_sign_is_removed_is_no_end() {
    let server = Standalone::start(Options::default()).await;
    let redis = server.endpoint();
    migrated_c_and_braced_c(&redis).await;
    // What 002 has changed since is compared on our side, and unlinked if it still is what was read.
    migrate(&redis, "002_timestamps").await;
    let proxy = Proxy::start(redis.port).await;
    let bench = Bench::new(&proxy.endpoint());
    proxy.stop_at(0, |request| holds(request, b"tenant:{c}\r\n") && holds(request, b"2025-01-19T22:17:29Z"));

    let control = Control::unattended();
    let breaking = async {
        proxy.wait_caught().await;
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .exec_async(&mut server.connection().await)
            .await
            .expect("CLIENT KILL");
    };
    let (report, ()) = tokio::join!(bench.cleanup(&control), breaking);

    let report = report.expect("a cleanup");
    assert_eq!((report.removed, report.kept(), report.gone), (3, 0, 0));
    let left = Bench::new(&redis).snapshot().await.0;
    let left = ["tenant:c", "tenant:{c}", "tenant:c:destination:d"].map(|key| left.contains_key(key.as_bytes()));
    assert_eq!(left, [false; 3]);
}

/// An id whose braced tenant lies on another primary than the original of its destination.
async fn apart(cluster: &Cluster) -> (String, usize) {
    for number in 0..100 {
        let id = format!("c{number}");
        let sign = cluster.owner(slot(format!("tenant:{{{id}}}").as_bytes())).await;
        if sign != cluster.owner(slot(format!("tenant:{id}:destination:d").as_bytes())).await {
            return (id, sign);
        }
    }
    panic!("every id has both on one primary");
}

/// Without replicas only a disk keeps it away.
#[tokio::test]
async fn a_sign_does_not_come_back_once_the_originals_beside_it_are_gone() {
    let hourly = Options { extra: vec!["save 3600 1".to_owned()], ..Options::default() };
    let cluster = Cluster::start(3, 0, hourly).await;
    let redis = cluster.endpoint();
    let (id, owner_of_sign) = apart(&cluster).await;
    let (tenant, sign) = (format!("tenant:{id}"), format!("tenant:{{{id}}}"));
    let beside = format!("tenant:{id}:destination:d");
    load(&redis, [record(&tenant, &id), record(&beside, "d"), record(&sign, &format!("{{{id}}}"))]).await;
    let bench = Bench::new(&redis).saving();
    bench.migrate(&Control::unattended()).await.expect("001");
    forget_keys_apart(&redis).await;

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (3, 0));
    cluster.kill_node(owner_of_sign);
    cluster.restart(owner_of_sign).await;

    let there = bench.snapshot().await.0;
    assert!(!there.contains_key(beside.as_bytes()), "it lies on another primary");
    assert!(!there.contains_key(sign.as_bytes()), "what would tell whose `{beside}` was is gone");
    eventually_true(Duration::from_secs(60), "the lock that came back with the snapshot ends", async || {
        let state = bench.snapshot().await.1;
        !LOCKS.iter().any(|lock| state.contains_key(lock.as_bytes()))
    })
    .await;
    for migration in IN_PLACE {
        Bench::new(&redis).migration(migration).migrate(&Control::unattended()).await.expect(migration);
    }
}
