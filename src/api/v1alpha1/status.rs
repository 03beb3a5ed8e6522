//! What a person reads: the `status` of a `RedisMigration`.
//!
//! Owns the fields and their bounds. The operator alone writes it. It never holds a value or a
//! credential, and names keys only where `spec.samples` allows. Every field may be absent, so that
//! an older or newer operator's status is always valid.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::phase::Phase;

/// Most entries that the history keeps.
pub const HISTORY_LIMIT: usize = 10;

/// Where the migration stands. Written by the operator only.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisMigrationStatus {
    /// Last step reached or under way. Trouble is never a phase: see conditions.
    pub phase: Phase,
    /// Generation of the spec that this status answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Value of the annotation `migrate.outpost.dev/requestedAt` that was last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_request: Option<String>,
    /// `Ready` says whether the target phase is reached, and why not. `Reconciling` and `Stalled`
    /// are present only while true. `Planned`, `Applied`, `Verified` and `CleanedUp` record what
    /// happened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What apply would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// How far the present or last step is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressStatus>,
    /// What the last complete comparison found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationStatus>,
    /// What cleanup waits for, removed and kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<CleanupStatus>,
    /// Who has the Redis lock, where anyone has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockStatus>,
    /// Approvals that were consumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalStatus>,
    /// The last ten changes of phase, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<HistoryEntry>,
}

/// What apply would do.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanStatus {
    /// Hash of the plan's decisions; with `approval.mode: Manual`, copy it to
    /// `spec.approval.planHash` to approve.
    pub hash: String,
    /// Version of what a plan decides; an operator that does not know it leaves the resource alone.
    pub plan_version: i32,
    /// When the keyspace was read for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub computed_at: Option<Time>,
    /// Entries per entity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<EntityScope>,
    /// Entries in all.
    pub totals: PlanTotals,
    /// Estimated bytes of the copies still to be made.
    pub estimated_bytes: i64,
    /// Examples of what goes where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sample: Vec<KeyPair>,
    /// Examples of sources whose target exists and differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflict_sample: Vec<KeyPair>,
    /// Keys under a legacy prefix that no rule maps; they are never deleted or overwritten.
    pub unmigrated: UnmigratedStatus,
    /// Results of the preflight checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingStatus>,
}

/// Entries of one entity.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntityScope {
    /// What the entries are, for example `tenant`.
    pub entity: String,
    /// Entries under source keys.
    pub sources: i64,
    /// Entries whose key already has the current form.
    pub current: i64,
}

/// Entries in all.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanTotals {
    /// Source entries.
    pub sources: i64,
    /// Source entries whose target does not exist yet.
    pub to_copy: i64,
    /// Source entries whose target exists and equals them.
    pub already_migrated: i64,
    /// Source entries whose target exists and differs.
    pub conflicts: i64,
    /// Targets that existed when this plan was made, equal or not.
    pub targets_before: i64,
}

/// A source key and its target key, escaped and shortened.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyPair {
    /// The source key.
    pub source: String,
    /// The target key.
    pub target: String,
}

/// Keys that no rule maps.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnmigratedStatus {
    /// How many in all.
    pub count: i64,
    /// How many, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_reason: BTreeMap<String, i64>,
    /// Examples with their reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sample: Vec<KeyReason>,
}

/// A key and why it stays where it is.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyReason {
    /// The key, escaped and shortened.
    pub key: String,
    /// The reason.
    pub reason: String,
}

/// Result of a preflight check.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FindingStatus {
    /// Which check found it.
    pub code: String,
    /// `Note`, `Warning`, or `Error`, which blocks apply.
    pub severity: String,
    /// What was found and what to do about it.
    pub message: String,
    /// Whether `spec.acceptFindings` names it, so that it blocks nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub accepted: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands the field in by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// How far a step is.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProgressStatus {
    /// Which step: `plan`, `apply`, `verify` or `cleanup`.
    pub step: String,
    /// Source entries dealt with so far.
    pub processed: i64,
    /// Source entries in all, where a plan has counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
    /// Of these, entries that were already as they should be.
    pub skipped: i64,
    /// Of these, entries that could not be dealt with.
    pub failed: i64,
    /// Of these, entries whose target exists and differs.
    pub conflicts: i64,
    /// Share of the total in whole percent; 100 only when everything is dealt with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<i32>,
    /// The share as it is printed: `45%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// Source entries a second, over the last seconds.
    pub keys_per_second: i64,
    /// How long the rest will take at the present rate: `4m30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
    /// What the step waits for at the moment, for the sake of Redis' other clients, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Bytes of writes that the slowest attached replica of any primary has not acknowledged yet, where the
    /// step writes. Replicas acknowledge once a second, so healthy ones are a little behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_lag_bytes: Option<i64>,
}

/// What a complete comparison found.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VerificationStatus {
    /// Sources whose target equals them by value and expiry.
    pub equal: i64,
    /// Sources whose target is missing or differs: before the mark a lack, after it diverged.
    pub different: i64,
    /// Sources that ended while being compared.
    pub ended: i64,
    /// Examples of differences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sample: Vec<KeyReason>,
    /// When the comparison was complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

/// What cleanup waits for, removed and kept.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CleanupStatus {
    /// Hash of what cleanup decides; with `approval.mode: Manual`, copy it to
    /// `spec.approval.cleanupHash` to approve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Originals stay until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Originals removed, also by attempts that were interrupted.
    pub removed: i64,
    /// Originals kept, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<String, i64>,
    /// Originals that were gone before they could be removed.
    pub gone: i64,
    /// Keys that no rule maps; they are always kept.
    pub unmigrated: i64,
    /// What was found about the servers and did not block.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingStatus>,
    /// Examples of kept originals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sample: Vec<String>,
    /// When cleanup ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

/// Who has the Redis lock.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockStatus {
    /// The pod, or host and process, or the plain text that another tool wrote.
    pub holder: String,
    /// What the holder does: `plan`, `apply`, `verify`, `cleanup` or `init`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The migration that the holder works on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When the holder last showed here that it is at work, at least every third of the lock's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed_at: Option<Time>,
}

/// Approvals that were consumed.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalStatus {
    /// The plan that was approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// The cleanup that was approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleanup_hash: Option<String>,
    /// When the last of them was consumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// One change of phase.
#[derive(JsonSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// When.
    pub at: Time,
    /// The phase since then.
    pub phase: Phase,
    /// What happened.
    #[serde(default)]
    pub message: String,
}
