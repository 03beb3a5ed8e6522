//! Tenants whose ids differ by braces, so that the legacy names of one look like the current names of the other.

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use outpost_migrate_redis::model::mapping::UnmigratedReason;

use crate::support::engine::{Bench, MARK, hset, run_on_owner};
use crate::support::load::load;
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Entry, Value};

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
