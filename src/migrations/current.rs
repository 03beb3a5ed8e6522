//! Which entity a key in current form holds: what migrations after `001_hash_tags` begin with.
//!
//! Owns the choice between the readings of a current name by content. Refuses to touch what content does
//! not confirm, and summaries, which have no fields of their own.

use crate::migrations::key_names::{
    DESTINATION_INFIX, Entity, TENANT_PREFIX, TENANT_TAG_PREFIX, outpost_readings, tenant_tag_readings,
};
use crate::migrations::{KeyLayout, Scope, hash_tags};
use crate::model::change::{Change, Fields};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, Belongs, UnmigratedReason};

/// The fields by which content confirms a reading.
pub(super) const ID: &str = "id";
pub(super) const DELETED_AT: &str = "deleted_at";

/// What starts every key in current form.
pub(super) fn prefixes(scope: &Scope) -> Vec<Vec<u8>> {
    vec![match (&scope.deployment_id, scope.parameters.key_layout) {
        (Some(deployment), _) => [deployment.as_bytes(), b":", TENANT_PREFIX, b"{"].concat(),
        (None, KeyLayout::Outpost) => [TENANT_PREFIX, b"{"].concat(),
        (None, KeyLayout::TenantTag) => TENANT_TAG_PREFIX.to_vec(),
    }]
}

/// The entity that a key in current form holds, a tenant or a destination, or what ends the decision: a
/// summary, or something that its content does not confirm.
pub(super) fn entity_at<'k>(scope: &Scope, key: &'k RedisKey, hash: Option<&Fields>) -> Result<Entity<'k>, Change> {
    let readings = readings(scope, key);
    let may_be_summary = readings.iter().any(|reading| matches!(reading, Entity::Summary { .. }));
    let records: Vec<Entity<'k>> =
        readings.into_iter().filter(|reading| !matches!(reading, Entity::Summary { .. })).collect();
    if records.is_empty() {
        return Err(Change::NotOurs);
    }
    let Some(hash) = hash else { return Err(Change::Unmigrated(UnmigratedReason::WrongType)) };
    if let Some(id) = hash.get(ID)
        && let Some(record) = records.iter().find(|record| record.expected_id() == Some(id))
    {
        return Ok(*record);
    }
    match (hash.get(ID), hash.get(DELETED_AT), records.as_slice()) {
        // Fields of a summary are named by destinations, and so may be these two.
        _ if may_be_summary => Err(Change::NotOurs),
        (None, Some(_), [tombstone]) => Ok(*tombstone),
        (None, Some(_), _) => Err(Change::Unmigrated(UnmigratedReason::Ambiguous)),
        (Some(_) | None, _, _) => Err(Change::Unmigrated(UnmigratedReason::WrongContent)),
    }
}

/// Whose a destination in current form is: in Outpost's layout it may be the legacy key of a tenant with a braced id,
/// unless it is a copy of its original.
pub(super) fn belongs(scope: &Scope, key: &RedisKey, answers: &Answers) -> Belongs {
    match (&scope.deployment_id, scope.parameters.key_layout) {
        (None, KeyLayout::Outpost) => hash_tags::belongs(key, answers),
        (Some(_), _) | (None, KeyLayout::TenantTag) => Belongs::AsNamed,
    }
}

/// Every entity for which a key may stand.
fn readings<'k>(scope: &Scope, key: &'k RedisKey) -> Vec<Entity<'k>> {
    let bytes = key.as_bytes();
    match (&scope.deployment_id, scope.parameters.key_layout) {
        (Some(deployment), _) => {
            let own = bytes.strip_prefix(deployment.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
            outpost(own.unwrap_or_default())
        }
        (None, KeyLayout::Outpost) => outpost(bytes),
        (None, KeyLayout::TenantTag) => tenant_tag(bytes.strip_prefix(TENANT_TAG_PREFIX).unwrap_or_default()),
    }
}

fn outpost(key: &[u8]) -> Vec<Entity<'_>> {
    key.strip_prefix(TENANT_PREFIX).map(|rest| outpost_readings(rest).collect()).unwrap_or_default()
}

fn tenant_tag(rest: &[u8]) -> Vec<Entity<'_>> {
    let mut readings = Vec::new();
    for (tenant, suffix) in tenant_tag_readings(rest) {
        if suffix.is_empty() {
            readings.push(Entity::Tenant { id: tenant });
        } else if let Some(id) = suffix.strip_prefix(DESTINATION_INFIX) {
            readings.push(Entity::Destination { tenant, id });
        }
    }
    readings
}
