//! What a person asks for: the `spec` of a `RedisMigration`.
//!
//! Owns fields, defaults, bounds and the rules that the API server enforces. The comments here are
//! what `kubectl explain rmig.spec` prints, so they are written for its reader.

#![allow(clippy::duplicated_attributes, reason = "each printer column has a type and a path")]
#![allow(unreachable_pub, reason = "KubeSchema derives private copies of these structs, marked pub as they are")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fixed::{OTHER_DEPLOYMENT, OTHER_MIGRATION, OTHER_PARAMETERS, OTHER_REDIS, fixed};
use super::samples::Samples;
use super::status::RedisMigrationStatus;
use crate::migrations::Parameters;
use crate::model::phase::TargetPhase;
use crate::model::policy::{ConflictPolicy, DivergedPolicy};

/// What is to be migrated, how far, and how. The fields migration, redis (but for its secret
/// references), deploymentId and parameters can't change after creation.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "migrate.outpost.dev",
    version = "v1alpha1",
    kind = "RedisMigration",
    plural = "redismigrations",
    shortname = "rmig",
    category = "outpost",
    namespaced,
    status = "RedisMigrationStatus",
    derive = "PartialEq",
    selectable = ".spec.migration",
    doc = "A RedisMigration moves the keyspace of one Outpost deployment in one Redis through one schema migration. \
           Deleting it stops the work; data in Redis is never touched by that.",
    printcolumn(name = "Migration", type_ = "string", json_path = ".spec.migration"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress.display"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.progress.eta"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetPhase", priority = 1),
    printcolumn(name = "Holder", type_ = "string", json_path = ".status.lock.holder", priority = 1),
    printcolumn(name = "Keys/s", type_ = "integer", json_path = ".status.progress.keysPerSecond", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = fixed("migration", OTHER_MIGRATION),
    validation = fixed("deploymentId", OTHER_DEPLOYMENT),
    validation = fixed("redis.host", OTHER_REDIS),
    validation = fixed("redis.port", OTHER_REDIS),
    validation = fixed("redis.cluster", OTHER_REDIS),
    validation = fixed("redis.database", OTHER_REDIS),
    validation = fixed("redis.tls.enabled", OTHER_REDIS),
    validation = fixed("redis.tls.serverName", OTHER_REDIS),
    validation = fixed("parameters.keyLayout", OTHER_PARAMETERS)
)]
#[serde(rename_all = "camelCase")]
pub struct RedisMigrationSpec {
    /// Name of the migration, for example `001_hash_tags`. A name that the operator does not know
    /// stalls the resource with the list of known ones. It can't change after creation.
    #[schemars(regex(pattern = r"^[0-9]{3}_[a-z0-9_]+$"), length(max = 63))]
    pub migration: String,

    /// Deployment id that prefixes every key, as in Outpost's `DEPLOYMENT_ID`. The default is
    /// empty: keys have no prefix. It can't change after creation.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[^{}\x00-\x1f\x7f]*$"), length(max = 63))]
    pub deployment_id: String,

    /// The Redis that holds the keyspace.
    pub redis: RedisSpec,

    /// How far to go. `Planned` is a dry run: nothing is written to the keyspace. `Applied` copies,
    /// with the gate still closed. `Verified` also compares every entry by value and marks the
    /// migration as applied. `CleanedUp` also removes originals. The default is `Verified`. Raising
    /// it continues; lowering it below what has happened changes nothing.
    #[serde(default)]
    pub target_phase: TargetPhase,

    /// Whether a person approves what is written. By default nobody has to.
    #[serde(default)]
    pub approval: ApprovalSpec,

    /// What happens to a target key that exists and differs from its source. `Fail`, the default,
    /// overwrites nothing, counts all conflicts, names a sample and stops. `PreferSource` replaces
    /// the target. `PreferTarget` keeps and counts it.
    #[serde(default)]
    pub conflict_policy: ConflictPolicy,

    /// How hard the work may press Redis. By default there is no limit.
    #[serde(default)]
    pub limits: LimitsSpec,

    /// How many replicas of each primary must acknowledge before the migration is marked and before
    /// originals are removed. By default one where a primary has replicas, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub min_replicas: Option<i32>,

    /// Findings that are accepted by name, as `BracedTenant`, so that they do not block their step.
    /// Only some may be accepted; each says so in its message. A name that is not one of these is
    /// refused with the list. By default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend(
            "items" = json!({
                "type": "string",
                "description": "Name of a finding, as its code in `status.plan.findings`.",
                "pattern": "^[A-Za-z]+$",
                "minLength": 1,
                "maxLength": 63,
            }),
            "x-kubernetes-list-type" = "set"
        )
    )]
    pub accept_findings: Vec<String>,

    /// When originals are removed, and which. Cleanup happens only with `targetPhase: CleanedUp`.
    #[serde(default)]
    pub cleanup: CleanupSpec,

    /// Choices that the migration offers. They can't change after creation.
    #[serde(default)]
    pub parameters: Parameters,

    /// Whether up to ten key names of each kind may appear in status: `On`, the default, or `Off`.
    /// The booleans `true` and `false`, which YAML makes of the unquoted words, mean the same.
    #[serde(default)]
    pub samples: Samples,

    /// Stops the work after the batch under way and releases the lock. Setting it to false
    /// continues where the work stopped. The default is false.
    #[serde(default)]
    pub suspend: bool,
}

/// Where the Redis is and how to reach it.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = ("self.database == 0 || !self.cluster",
        "database must be 0 when cluster is true: Redis Cluster has no other database"),
    validation = ("!has(self.usernameSecretRef) || has(self.passwordSecretRef)",
        "usernameSecretRef needs passwordSecretRef beside it: Redis is never asked to log in with a user name alone")
)]
#[serde(rename_all = "camelCase")]
pub struct RedisSpec {
    /// Host name or IP address, without scheme and port. One label, as in `redis-cluster`, means
    /// the Service of that name in the resource's own namespace, `redis-cluster.<namespace>.svc`;
    /// write `<service>.<namespace>.svc` for one elsewhere. For a cluster any node will do. It
    /// can't change after creation.
    #[schemars(
        regex(
            pattern = r"^([A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?|[0-9A-Fa-f]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)$"
        ),
        length(min = 1, max = 253)
    )]
    pub host: String,

    /// Port. The default is 6379. It can't change after creation.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// Whether the server is a Redis Cluster. The default is false: a standalone server. It can't
    /// change after creation.
    #[serde(default)]
    pub cluster: bool,

    /// Number of the database, 0 to 15. The default is 0, the only one that a Redis Cluster has. It
    /// can't change after creation.
    #[serde(default)]
    #[schemars(range(min = 0, max = 15))]
    pub database: i32,

    /// Key of a Secret in the resource's namespace that holds the user name. Without it the default
    /// user logs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_secret_ref: Option<SecretKeyRef>,

    /// Key of a Secret in the resource's namespace that holds the password. Without it no one logs
    /// in. It is read at each connect, so a rotated password needs no restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,

    /// How the connection is encrypted. Without it the connection is not encrypted. Whether TLS is
    /// used, and the server name, can't change after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// How the connection is encrypted. Certificate and host name are always verified.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// Whether TLS is used. The default, where `tls` is given at all, is true.
    #[serde(default = "default_true")]
    pub enabled: bool,

    /// Key of a Secret in the resource's namespace that holds the certificates (PEM) of the
    /// authorities to trust. Without it the public ones are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,

    /// Secret of type kubernetes.io/tls in the resource's namespace whose `tls.crt` and `tls.key`
    /// identify us to the server. Without it no client certificate is presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_secret_ref: Option<SecretRef>,

    /// Name to expect in the server's certificate instead of the host connected to, for example
    /// where cluster nodes announce addresses. By default each node's own host is expected. It
    /// can't change after creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$"), length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// One key of a Secret in the resource's namespace.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(min = 1, max = 253))]
    pub name: String,

    /// Key within the Secret's data.
    #[schemars(regex(pattern = r"^[-._a-zA-Z0-9]+$"), length(min = 1, max = 253))]
    pub key: String,
}

/// A whole Secret in the resource's namespace.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"), length(min = 1, max = 253))]
    pub name: String,
}

/// Whether a person approves what is written.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalSpec {
    /// `Automatic`, the default, goes on by itself. `Manual` stops when the plan is made until
    /// `planHash` equals `status.plan.hash`, and before cleanup until `cleanupHash` equals
    /// `status.cleanup.hash`.
    #[serde(default)]
    pub mode: ApprovalMode,

    /// The approved plan: copy it from `status.plan.hash` after reading the plan. Removing it after
    /// it was consumed changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"), length(max = 71))]
    pub plan_hash: Option<String>,

    /// The approved cleanup: copy it from `status.cleanup.hash`. Removing it after it was consumed
    /// changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"), length(max = 71))]
    pub cleanup_hash: Option<String>,
}

/// Who decides that a plan is carried out.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApprovalMode {
    /// The resource alone.
    #[default]
    Automatic,
    /// A person, by naming the plan's hash.
    Manual,
}

/// How hard the work may press Redis.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Most source keys processed a second, over all primaries together. By default there is no
    /// limit. A change acts on work under way within two seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub keys_per_second: Option<i32>,

    /// Longest round trip to a primary that another client should feel, as `10ms` or `1s`, from 1ms
    /// to 10s. It is measured while the work goes on: the work in flight shrinks when it is
    /// exceeded and grows again when it is not. By default there is no limit. A change acts on work
    /// under way within two seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([1-9][0-9]{0,3}ms|10000ms|[1-9]s|10s)$"), length(min = 2, max = 7))]
    pub max_latency: Option<String>,
}

/// When originals are removed, and which.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanupSpec {
    /// How long after verification originals stay, as hours, minutes and seconds: `24h`, `90m`,
    /// `1h30m`, `0s`. The default is `24h`; `0s` removes them at once.
    #[serde(default = "default_after")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"), length(min = 2, max = 21))]
    pub after: String,

    /// What happens to originals whose target no longer equals them, because the application went
    /// on living. `Keep`, the default, leaves and counts them. `Delete` removes them too.
    #[serde(default)]
    pub diverged: DivergedPolicy,
}

impl Default for CleanupSpec {
    fn default() -> Self {
        Self { after: default_after(), diverged: DivergedPolicy::default() }
    }
}

fn default_port() -> i32 {
    6379
}

fn default_true() -> bool {
    true
}

fn default_after() -> String {
    "24h".to_owned()
}
