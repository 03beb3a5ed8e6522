//! What a resource asks for, checked once.
//!
//! Owns the way from a raw resource to values that need no further check. Refuses whatever the
//! schema would have refused too, since an object may be older than its schema.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;

use super::allowed_hosts::AllowedHosts;
use super::duration;
use super::redis_target::RedisTarget;
use super::rejected::Rejected;
use super::v1alpha1::spec::{ApprovalMode, ApprovalSpec};
use super::v1alpha1::{REQUESTED_AT_ANNOTATION, RedisMigration, RedisMigrationSpec};
use crate::migrations::{Migration, Registry, Scope};
use crate::model::acceptance::AcceptedFindings;
use crate::model::phase::TargetPhase;
use crate::model::plan::{PlanHash, Terms};
use crate::model::policy::{ConflictPolicy, DivergedPolicy, Limits, MinReplicas};

/// Longest deployment id, in characters.
const DEPLOYMENT_ID_LIMIT: usize = 63;

/// What a resource asks for. Whoever has one reads no raw spec.
#[derive(Debug, Clone)]
pub struct MigrationRequest {
    /// The resource's UID.
    pub uid: String,
    /// Its namespace, in which its Secrets are.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The generation of the spec that this request was made of.
    pub generation: i64,
    /// The migration.
    pub migration: Arc<dyn Migration>,
    /// What the migration is told about the keyspace.
    pub scope: Scope,
    /// Which Redis.
    pub redis: RedisTarget,
    /// How far to go.
    pub target: TargetPhase,
    /// Whether a person approves.
    pub approval: Approval,
    /// What happens to a target that differs.
    pub conflict_policy: ConflictPolicy,
    /// What cleanup does with an original whose target is diverged.
    pub diverged_policy: DivergedPolicy,
    /// The findings that are accepted by name.
    pub accepted: AcceptedFindings,
    /// How hard the work may press Redis.
    pub limits: Limits,
    /// How many replicas must acknowledge.
    pub min_replicas: MinReplicas,
    /// How long after verification originals stay.
    pub cleanup_after: Duration,
    /// Whether key names may appear in status.
    pub samples: bool,
    /// Whether the work is to stop.
    pub suspended: bool,
    /// The value of the annotation that asks for a retry.
    pub requested_at: Option<String>,
}

/// Whether a person approves what is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approval {
    /// Nobody has to; a plan may be named all the same, for what is never done unasked.
    Automatic {
        /// The plan that is named.
        plan_hash: Option<String>,
    },
    /// Only what is named here.
    Manual {
        /// The approved plan.
        plan_hash: Option<String>,
        /// The approved cleanup.
        cleanup_hash: Option<String>,
    },
}

impl Approval {
    /// Whether a plan of this hash may be applied.
    #[must_use]
    pub fn allows_plan(&self, hash: &PlanHash) -> bool {
        match self {
            Self::Automatic { .. } => true,
            Self::Manual { .. } => self.names_plan(hash),
        }
    }

    /// Whether this very plan is named, whatever the mode.
    #[must_use]
    pub fn names_plan(&self, hash: &PlanHash) -> bool {
        let (Self::Automatic { plan_hash } | Self::Manual { plan_hash, .. }) = self;
        plan_hash.as_deref() == Some(hash.as_str())
    }

    /// Whether a person has to approve.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        match self {
            Self::Automatic { .. } => false,
            Self::Manual { .. } => true,
        }
    }

    /// Whether a cleanup of this hash may begin.
    #[must_use]
    pub fn allows_cleanup(&self, hash: &PlanHash) -> bool {
        match self {
            Self::Automatic { .. } => true,
            Self::Manual { cleanup_hash, .. } => cleanup_hash.as_deref() == Some(hash.as_str()),
        }
    }
}

impl From<&ApprovalSpec> for Approval {
    fn from(spec: &ApprovalSpec) -> Self {
        match spec.mode {
            ApprovalMode::Automatic => Self::Automatic { plan_hash: spec.plan_hash.clone() },
            ApprovalMode::Manual => {
                Self::Manual { plan_hash: spec.plan_hash.clone(), cleanup_hash: spec.cleanup_hash.clone() }
            }
        }
    }
}

impl MigrationRequest {
    /// Reads a resource.
    ///
    /// # Errors
    /// What can't be followed, and what to do about it.
    pub fn from_resource(
        resource: &RedisMigration,
        registry: &Registry,
        allowed: &AllowedHosts,
    ) -> Result<Self, Rejected> {
        let spec = &resource.spec;
        let namespace = resource.namespace().ok_or_else(|| unsaved("metadata.namespace"))?;
        Ok(Self {
            uid: resource.uid().ok_or_else(|| unsaved("metadata.uid"))?,
            name: resource.name_any(),
            generation: resource.metadata.generation.unwrap_or_default(),
            migration: migration(spec, registry)?,
            scope: Scope { deployment_id: deployment_id(&spec.deployment_id)?, parameters: spec.parameters },
            redis: RedisTarget::parse(&spec.redis, &namespace, allowed)?,
            namespace,
            target: spec.target_phase,
            approval: Approval::from(&spec.approval),
            conflict_policy: spec.conflict_policy,
            diverged_policy: spec.cleanup.diverged,
            accepted: accepted_findings(spec)?,
            limits: limits(spec)?,
            min_replicas: min_replicas(spec)?,
            cleanup_after: cleanup_after(spec)?,
            samples: spec.samples.is_on(),
            suspended: spec.suspend,
            requested_at: resource.annotations().get(REQUESTED_AT_ANNOTATION).cloned(),
        })
    }

    /// The choices that a plan's hash covers.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms {
            migration: self.migration.name().to_owned(),
            redis: self.redis.identity(),
            deployment_id: self.scope.deployment_id.clone().unwrap_or_default(),
            parameters: self.scope.parameters.to_string(),
            conflict_policy: format!("{:?}", self.conflict_policy),
            diverged_policy: format!("{:?}", self.diverged_policy),
            accepted: self.accepted.clone(),
        }
    }
}

fn unsaved(field: &'static str) -> Rejected {
    Rejected::field(field, "is missing: create the resource through the API server")
}

fn migration(spec: &RedisMigrationSpec, registry: &Registry) -> Result<Arc<dyn Migration>, Rejected> {
    registry
        .get(&spec.migration)
        .ok_or_else(|| Rejected::UnknownMigration { name: spec.migration.clone(), known: registry.names().collect() })
}

fn deployment_id(id: &str) -> Result<Option<String>, Rejected> {
    // Braces would move the hash tag of every key.
    if id.contains(|c: char| matches!(c, '{' | '}') || c.is_control()) {
        let problem = "may hold neither braces nor control characters: write it as Outpost's DEPLOYMENT_ID has it";
        return Err(Rejected::field("spec.deploymentId", problem));
    }
    if id.chars().count() > DEPLOYMENT_ID_LIMIT {
        return Err(Rejected::field("spec.deploymentId", "may have at most 63 characters"));
    }
    Ok((!id.is_empty()).then(|| id.to_owned()))
}

fn limits(spec: &RedisMigrationSpec) -> Result<Limits, Rejected> {
    Ok(Limits { keys_per_second: keys_per_second(spec)?, max_latency: max_latency(spec)? })
}

fn keys_per_second(spec: &RedisMigrationSpec) -> Result<Option<u32>, Rejected> {
    let Some(given) = spec.limits.keys_per_second else { return Ok(None) };
    match u32::try_from(given) {
        Ok(limit) if limit > 0 => Ok(Some(limit)),
        Ok(_) | Err(_) => {
            let problem = format!(
                "{given} is no rate: write at least 1, leave it out for no limit, or stop the work \
                                   with spec.suspend"
            );
            Err(Rejected::field("spec.limits.keysPerSecond", problem))
        }
    }
}

fn max_latency(spec: &RedisMigrationSpec) -> Result<Option<Duration>, Rejected> {
    let Some(given) = &spec.limits.max_latency else { return Ok(None) };
    duration::parse_latency(given).map(Some).ok_or_else(|| {
        let problem = format!("{given:?} is no round trip: write 1ms to 10s, as 10ms, or leave it out for no limit");
        Rejected::field("spec.limits.maxLatency", problem)
    })
}

fn min_replicas(spec: &RedisMigrationSpec) -> Result<MinReplicas, Rejected> {
    let Some(given) = spec.min_replicas else { return Ok(MinReplicas::OneIfAny) };
    u32::try_from(given)
        .map(MinReplicas::Exactly)
        .map_err(|_| Rejected::field("spec.minReplicas", format!("{given} is no number of replicas: write 0 or more")))
}

fn accepted_findings(spec: &RedisMigrationSpec) -> Result<AcceptedFindings, Rejected> {
    AcceptedFindings::parse(spec.accept_findings.iter().map(String::as_str))
        .map_err(|refused| Rejected::field("spec.acceptFindings", refused.to_string()))
}

fn cleanup_after(spec: &RedisMigrationSpec) -> Result<Duration, Rejected> {
    duration::parse(&spec.cleanup.after).ok_or_else(|| {
        let problem =
            format!("{:?} is no duration: write hours, minutes and seconds, as 24h, 1h30m or 0s", spec.cleanup.after);
        Rejected::field("spec.cleanup.after", problem)
    })
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
