//! Resources and the requests, or refusals, that become of them.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::api::conditions::Reason;
use crate::api::redis_target::{SecretKey, TlsTarget};
use crate::migrations::{KeyLayout, Parameters};

fn minimal() -> Value {
    json!({
        "apiVersion": "migrate.outpost.dev/v1alpha1",
        "kind": "RedisMigration",
        "metadata": { "name": "hash-tags", "namespace": "outpost", "uid": "u-1", "generation": 3 },
        "spec": { "migration": "001_hash_tags", "redis": { "host": "redis" } },
    })
}

fn with(changes: &[(&str, Value)]) -> RedisMigration {
    let mut resource = minimal();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        resource.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    serde_json::from_value(resource).unwrap()
}

fn parse(resource: &RedisMigration) -> Result<MigrationRequest, Rejected> {
    MigrationRequest::from_resource(resource, &Registry::outpost(), &AllowedHosts::default())
}

#[test]
fn a_minimal_resource_gets_the_documented_defaults() {
    let request = parse(&with(&[])).unwrap();
    assert_eq!(
        (request.uid.as_str(), request.namespace.as_str(), request.name.as_str()),
        ("u-1", "outpost", "hash-tags")
    );
    assert_eq!(request.generation, 3);
    assert_eq!(request.migration.name(), "001_hash_tags");
    assert_eq!(request.scope, Scope::default());
    assert_eq!(
        request.redis,
        RedisTarget {
            host: "redis.outpost.svc".into(),
            port: 6379,
            cluster: false,
            database: 0,
            username: None,
            password: None,
            tls: None,
        }
    );
    assert_eq!(request.target, TargetPhase::Verified);
    assert_eq!(request.approval, Approval::Automatic { plan_hash: None });
    assert_eq!((request.conflict_policy, request.diverged_policy), (ConflictPolicy::Fail, DivergedPolicy::Keep));
    assert_eq!((request.limits, request.min_replicas), (Limits::default(), MinReplicas::OneIfAny));
    assert_eq!(request.cleanup_after, Duration::from_secs(86_400));
    assert!(request.samples && !request.suspended);
    assert_eq!(request.requested_at, None);
}

#[test]
fn every_field_is_read() {
    let hash = format!("sha256:{}", "a".repeat(64));
    let resource = with(&[
        ("/metadata/annotations", json!({ REQUESTED_AT_ANNOTATION: "now" })),
        (
            "/spec",
            json!({
                "migration": "001_hash_tags",
                "deploymentId": "dp_1",
                "redis": {
                    "host": "redis.data.svc", "port": 7000, "cluster": true,
                    "usernameSecretRef": { "name": "s", "key": "u" },
                    "passwordSecretRef": { "name": "s", "key": "p" },
                    "tls": {
                        "caSecretRef": { "name": "s", "key": "ca.crt" },
                        "clientCertSecretRef": { "name": "client" },
                        "serverName": "redis.example",
                    },
                },
                "targetPhase": "CleanedUp",
                "approval": { "mode": "Manual", "planHash": hash },
                "conflictPolicy": "PreferSource",
                "limits": { "keysPerSecond": 500, "maxLatency": "10ms" },
                "minReplicas": 0,
                "acceptFindings": ["BracedTenant"],
                "cleanup": { "after": "1h30m", "diverged": "Delete" },
                "parameters": { "keyLayout": "TenantTag" },
                "samples": false,
                "suspend": true,
            }),
        ),
    ]);
    let request = parse(&resource).unwrap();
    let secret = |key: &str| Some(SecretKey { name: "s".into(), key: key.into() });
    assert_eq!(request.scope.deployment_id.as_deref(), Some("dp_1"));
    assert_eq!(request.scope.parameters, Parameters { key_layout: KeyLayout::TenantTag });
    assert_eq!((request.redis.username.clone(), request.redis.password.clone()), (secret("u"), secret("p")));
    let tls = TlsTarget {
        ca: secret("ca.crt"),
        client_cert: Some("client".into()),
        server_name: Some("redis.example".into()),
    };
    assert_eq!(request.redis.tls, Some(tls));
    assert_eq!(request.target, TargetPhase::CleanedUp);
    assert_eq!(request.approval, Approval::Manual { plan_hash: Some(hash), cleanup_hash: None });
    assert_eq!(
        (request.conflict_policy, request.diverged_policy),
        (ConflictPolicy::PreferSource, DivergedPolicy::Delete)
    );
    let limits = Limits { keys_per_second: Some(500), max_latency: Some(Duration::from_millis(10)) };
    assert_eq!(request.limits, limits);
    assert_eq!(request.min_replicas, MinReplicas::Exactly(0));
    assert_eq!(request.cleanup_after, Duration::from_secs(5400));
    assert!(!request.samples && request.suspended);
    assert_eq!(request.requested_at.as_deref(), Some("now"));
    assert_eq!(
        request.terms(),
        Terms {
            migration: "001_hash_tags".into(),
            redis: "redis.data.svc:7000/cluster".into(),
            deployment_id: "dp_1".into(),
            parameters: "keyLayout=TenantTag".into(),
            conflict_policy: "PreferSource".into(),
            diverged_policy: "Delete".into(),
            accepted: AcceptedFindings::parse(["BracedTenant"]).unwrap(),
        }
    );
}

#[test]
fn tls_that_is_not_enabled_is_none() {
    let request = parse(&with(&[("/spec/redis/tls", json!({ "enabled": false, "serverName": "x" }))])).unwrap();
    assert_eq!(request.redis.tls, None);
}

#[rstest]
#[case("/spec/redis/host", json!("redis://redis"), "spec.redis.host")]
#[case("/spec/redis/host", json!("redis:6379"), "spec.redis.host")]
#[case("/spec/redis/port", json!(0), "spec.redis.port")]
#[case("/spec/redis/port", json!(65536), "spec.redis.port")]
#[case("/spec/redis/database", json!(16), "spec.redis.database")]
#[case("/spec/redis/database", json!(-1), "spec.redis.database")]
#[case("/spec/redis/usernameSecretRef", json!({ "name": "s", "key": "u" }), "spec.redis.usernameSecretRef")]
#[case("/spec/deploymentId", json!("a{b}"), "spec.deploymentId")]
#[case("/spec/deploymentId", json!("a\nb"), "spec.deploymentId")]
#[case("/spec/deploymentId", json!("x".repeat(64)), "spec.deploymentId")]
#[case("/spec/limits", json!({ "keysPerSecond": 0 }), "spec.limits.keysPerSecond")]
#[case("/spec/limits", json!({ "maxLatency": "0s" }), "spec.limits.maxLatency")]
#[case("/spec/minReplicas", json!(-1), "spec.minReplicas")]
#[case("/spec/acceptFindings", json!(["Memory"]), "spec.acceptFindings")]
#[case("/spec/cleanup", json!({ "after": "1d" }), "spec.cleanup.after")]
#[case("/metadata/namespace", json!(null), "metadata.namespace")]
#[case("/metadata/uid", json!(null), "metadata.uid")]
fn what_can_not_be_followed_names_its_field(#[case] pointer: &str, #[case] value: Value, #[case] field: &str) {
    let rejected = parse(&with(&[(pointer, value)])).unwrap_err();
    assert_eq!(rejected.reason(), Reason::InvalidSpec);
    assert!(rejected.to_string().starts_with(&format!("{field}: ")), "{rejected}");
}

#[test]
fn a_cluster_has_one_database() {
    let resource = with(&[("/spec/redis/database", json!(1)), ("/spec/redis/cluster", json!(true))]);
    assert!(parse(&resource).unwrap_err().to_string().starts_with("spec.redis.database: must be 0"));
}

#[test]
fn an_unknown_migration_is_told_the_known_ones() {
    let rejected = parse(&with(&[("/spec/migration", json!("009_later"))])).unwrap_err();
    assert_eq!(rejected.reason(), Reason::UnknownMigration);
    let message = rejected.to_string();
    assert!(message.contains("\"009_later\"") && message.contains("known are: 001_hash_tags"), "{message}");
}

#[rstest]
#[case(&["redis"], true)]
#[case(&["redis.outpost.svc"], true)]
#[case(&["*.outpost.svc"], true)]
#[case(&["*.data.svc", "redis.example.com"], false)]
fn the_allow_list_sees_the_given_and_the_resolved_host(#[case] entries: &[&str], #[case] allowed: bool) {
    let allow = AllowedHosts::new(entries).unwrap();
    let parsed = MigrationRequest::from_resource(&with(&[]), &Registry::outpost(), &allow);
    assert_eq!(parsed.is_ok(), allowed);
    if let Err(rejected) = parsed {
        let message = rejected.to_string();
        assert!(message.contains("redis.outpost.svc") && message.contains("allowedRedisHosts"), "{message}");
    }
}

#[test]
fn one_redis_under_two_spellings_has_one_identity() {
    let identity = |host: &str| parse(&with(&[("/spec/redis/host", json!(host))])).unwrap().terms().redis;
    assert_eq!(identity("redis"), identity("Redis.Outpost.svc"));
    assert_eq!(identity("fd00:0::1"), "[fd00::1]:6379/0");
    assert_ne!(identity("redis"), identity("redis.other.svc"));
}

#[test]
fn manual_approval_wants_the_very_hash() {
    let hash = PlanHash::of(&[("a", "b".into())]);
    let other = PlanHash::of(&[("a", "c".into())]);
    let manual = Approval::Manual { plan_hash: Some(hash.to_string()), cleanup_hash: None };
    assert!(manual.allows_plan(&hash) && !manual.allows_plan(&other) && !manual.allows_cleanup(&hash));
    assert!(
        Approval::Automatic { plan_hash: None }.allows_plan(&hash)
            && Approval::Automatic { plan_hash: None }.allows_cleanup(&other)
    );
}
