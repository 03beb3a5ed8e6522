//! What README says is true: its Redis user suffices, and its example of a migration compiles and migrates.

use std::sync::Arc;

use crate::support::engine::{Bench, Expected, hset};
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Value};
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::migrations::{Applicability, Migration, Registry, Rename, Rule, Scope};
use outpost_migrate_redis::model::finding::FindingCode;
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::mapping::{Answers, Mapping};
use outpost_migrate_redis::model::policy::ConflictPolicy;

const README: &str = include_str!("../../README.md");
const USER: &str = "outpost-migrate";
const PASSWORD: &str = "readme-password";

/// README's command as a line of an ACL file.
fn acl_line() -> String {
    let line = README.lines().find_map(|line| line.strip_prefix("ACL SETUSER ")).expect("README documents a user");
    line.replace("PASSWORD", PASSWORD)
}

fn options() -> Options {
    Options { acl_users: vec![acl_line()], ..Options::default() }
}

/// Plan, apply, verify, a replaced conflict and cleanup by README's user; the harness loads and checks by its own.
async fn walk_as_documented_user(redis: &Endpoint) {
    let expected = Expected::load(redis, 200).await;
    let mut bench = Bench::new(redis).conflicts(ConflictPolicy::PreferSource);
    bench.endpoint.username = Some(USER.to_owned());
    bench.endpoint.password = Some(PASSWORD.to_owned().into());
    let (_, conflicting) = expected.pairs.iter().next().expect("a source");
    hset(redis, conflicting, "id", "another").await;

    let held = bench.hold().await;
    assert_eq!(held.lease.stale_connections(), [], "CLIENT LIST and KILL are granted");
    let walk = held.migrate(&Control::unattended()).await.expect("a mark");
    let limiting: Vec<_> = walk
        .plan
        .seen
        .findings
        .iter()
        .filter(|it| matches!(it.code, FindingCode::Permissions | FindingCode::CheckNotPermitted))
        .collect();
    assert!(limiting.is_empty(), "{limiting:?}");
    assert_eq!(walk.apply.replaced, 1, "the conflict was replaced by a script");
    held.release().await;
    expected.assert_migrated(&bench).await;
    bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn the_documented_user_suffices_on_a_standalone_server() {
    let redis = Standalone::start(options()).await;
    walk_as_documented_user(&redis.endpoint()).await;
}

#[tokio::test]
async fn the_documented_user_suffices_on_a_cluster() {
    let cluster = Cluster::start(3, 1, options()).await;
    walk_as_documented_user(&cluster.endpoint()).await;
}

#[derive(Debug)]
struct RenameSessions;

#[rustfmt::skip]
impl Migration for RenameSessions {
    fn name(&self) -> &'static str { "004_rename_sessions" }
    fn version(&self) -> u32 { 4 }
    fn description(&self) -> &'static str { "session:<id> becomes session:{<id>}" }
    fn is_applicable(&self, _: &Scope) -> Applicability { Applicability::Applicable }
    fn prefixes(&self, _: &Scope) -> Vec<Vec<u8>> { vec![b"session:".to_vec()] }
    fn rule(&self) -> Rule<'_> { Rule::Rename(self) }
}

#[rustfmt::skip]
impl Rename for RenameSessions {
    fn map(&self, _: &Scope, key: &RedisKey, _: &Answers) -> Mapping {
        match key.as_bytes().strip_prefix(b"session:") {
            None => Mapping::NotOurs,
            Some(id) if id.starts_with(b"{") => Mapping::AlreadyCurrent { entity: "session" },
            Some(id) => Mapping::Target { key: RedisKey::concat(&[b"session:{", id, b"}"]), entity: "session" },
        }
    }
}

#[tokio::test]
async fn the_example_of_a_migration_is_this_one_and_migrates_any_type() {
    let start = README.find("impl Migration for RenameSessions").expect("README has an example");
    let example = &README[start..start + README[start..].find("```").expect("the example ends")];
    let tested = include_str!("readme.rs").replace("#[rustfmt::skip]\n", "");
    assert!(tested.contains(example.trim()), "README's example differs from the one tested here");

    let redis = Standalone::start(Options::default()).await;
    let mut bench = Bench::new(&redis.endpoint());
    let migration: Arc<dyn Migration> = Arc::new(RenameSessions);
    bench.assignment.registry = Registry::new(vec![Arc::clone(&migration)]);
    bench.assignment.migration = migration;
    let values = [
        Value::string("s"),
        Value::hash([("f", "v")]),
        Value::List(vec![b"b".to_vec(), b"a".to_vec()]),
        Value::Set([b"x".to_vec(), b"y".to_vec()].into()),
    ];
    let originals = values.iter().enumerate().map(|(at, value)| Entry::new(format!("session:{at}"), value.clone()));
    crate::support::load::load(&redis.endpoint(), originals).await;

    bench.migrate(&Control::unattended()).await.expect("a mark");
    bench.cleanup(&Control::unattended()).await.expect("a cleanup");

    let left = snapshot(&redis.endpoint()).await.filter(|key, _| key.starts_with(b"session:"));
    let wanted =
        values.iter().enumerate().map(|(at, value)| Entry::new(format!("session:{{{at}}}"), value.clone())).collect();
    left.assert_same(&wanted, "renamed");
}
