//! The layout that Outpost reads: `tenant:{<id>}:tenant`, `tenant:{<id>}:destinations`,
//! `tenant:{<id>}:destination:<did>`.
//!
//! Owns its target names and who counts as current. Sources have no reading in this layout and
//! targets exactly one: that is why sources never share a target and running again changes nothing.

use crate::migrations::hash_tags::content::{self, Hash};
use crate::migrations::hash_tags::{Decision, READINGS_LIMIT, legacy, unmigrated};
use crate::migrations::key_names::{
    DESTINATION_INFIX, DOCUMENTED_SUMMARY_PREFIX, Entity, SUMMARY_SUFFIX, TENANT_PREFIX, outpost_readings,
};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, Mapping, Premise, UnmigratedReason};

/// What a key means in Outpost's layout.
pub(super) fn map(key: &RedisKey, answers: &Answers) -> Decision<Mapping> {
    if key.as_bytes().starts_with(DOCUMENTED_SUMMARY_PREFIX) {
        return unmigrated(UnmigratedReason::DocumentedNameOnly);
    }
    let Some(rest) = key.as_bytes().strip_prefix(TENANT_PREFIX) else {
        return Ok(Mapping::NotOurs);
    };
    let readings = current_readings(rest)?;
    if readings.is_empty() {
        target(legacy::entity_at(key, rest, answers)?)
    } else {
        current(key, rest, &readings, answers)
    }
}

/// Whether a key has the form of a target: then it is no source, whatever it holds.
pub(super) fn is_current_form(key: &RedisKey) -> bool {
    key.as_bytes().strip_prefix(TENANT_PREFIX).is_some_and(|rest| outpost_readings(rest).next().is_some())
}

/// Every legacy key that may have this target.
pub(super) fn sources_of(target: &RedisKey) -> Vec<RedisKey> {
    let rest = target.as_bytes().strip_prefix(TENANT_PREFIX).unwrap_or_default();
    outpost_readings(rest).take(READINGS_LIMIT).map(legacy_key).collect()
}

/// What is most likely found: the entity that the name stands for, not deleted, under no tenant with a braced id.
pub(super) fn likely_answers(key: &RedisKey) -> Answers {
    let mut answers = Answers::none();
    let Some(rest) = key.as_bytes().strip_prefix(TENANT_PREFIX) else { return answers };
    let Some(current) = outpost_readings(rest).next() else {
        content::suppose(&mut answers, key.clone(), legacy::likely_entity(rest).expected_id());
        return answers;
    };
    content::suppose(&mut answers, braced_tenant(current.tenant()).0, None);
    content::suppose(&mut answers, key.clone(), current.expected_id());
    answers
}

/// Every entity for which a key `tenant:<rest>` in current form may stand.
pub(super) fn current_readings(rest: &[u8]) -> Decision<Vec<Entity<'_>>> {
    let readings: Vec<_> = outpost_readings(rest).take(READINGS_LIMIT + 1).collect();
    if readings.len() > READINGS_LIMIT { unmigrated(UnmigratedReason::Ambiguous) } else { Ok(readings) }
}

/// The first reading that the content of a key in current form confirms. A hash without an id that
/// is neither tombstone nor summary confirms none: it may be a summary of a legacy tenant.
pub(super) fn confirmed<'k>(readings: &[Entity<'k>], hash: Hash<'_>) -> Option<Entity<'k>> {
    let confirms = |reading: &Entity<'_>| match reading.expected_id() {
        Some(id) => hash.has_id(id),
        None => hash.may_be_summary(),
    };
    readings.iter().copied().find(|reading| hash.may_be_tombstone() || confirms(reading))
}

/// The legacy key of the tenant whose braced id makes its keys look like those of tenant `id`.
pub(super) fn braced_tenant(id: &[u8]) -> (RedisKey, Vec<u8>) {
    let braced = [b"{", id, b"}"].concat();
    (RedisKey::concat(&[TENANT_PREFIX, &braced]), braced)
}

/// What makes a key that of a tenant whose braced id makes its keys look like those of another; nothing where its name
/// is no such tenant's.
pub(super) fn sign(key: &RedisKey) -> Option<Premise> {
    let id = key.as_bytes().strip_prefix(TENANT_PREFIX)?;
    let is_braced = id.starts_with(b"{") && id.ends_with(b"}");
    if is_braced { content::has_id(key.clone(), id) } else { None }
}

/// The tenants with braced ids to whom a summary or destination in current form belongs if they exist. A tenant's own
/// record is told apart by its id.
pub(super) fn signs_over(key: &RedisKey) -> Vec<RedisKey> {
    records_at(key).map(|reading| braced_tenant(reading.tenant()).0).collect()
}

/// The originals of which a destination in current form has to be a copy, since a tenant with the braced id exists whose
/// legacy key it would be otherwise; none where no such tenant does.
pub(super) fn must_be_copy_of(key: &RedisKey, answers: &Answers) -> Decision<Vec<RedisKey>> {
    let rest = key.as_bytes().strip_prefix(TENANT_PREFIX).unwrap_or_default();
    let mut destinations = current_readings(rest)?;
    destinations.retain(|reading| matches!(reading, Entity::Destination { .. }));

    let (signs, ids): (Vec<_>, Vec<_>) =
        destinations.iter().map(|destination| braced_tenant(destination.tenant())).unzip();
    let tenants = content::hashes_at(&signs, answers)?;
    let is_signed = |at: &usize| tenants[*at].is_some_and(|tenant| tenant.has_id(&ids[*at]));
    Ok((0..destinations.len()).filter(is_signed).map(|at| legacy_key(destinations[at])).collect())
}

/// The summaries and destinations for which a key in current form may stand.
fn records_at(key: &RedisKey) -> impl Iterator<Item = Entity<'_>> {
    let rest = key.as_bytes().strip_prefix(TENANT_PREFIX).unwrap_or_default();
    outpost_readings(rest).filter(|reading| !matches!(reading, Entity::Tenant { .. }))
}

fn legacy_key(entity: Entity<'_>) -> RedisKey {
    match entity {
        Entity::Tenant { id } => RedisKey::concat(&[TENANT_PREFIX, id]),
        Entity::Summary { tenant } => RedisKey::concat(&[TENANT_PREFIX, tenant, SUMMARY_SUFFIX]),
        Entity::Destination { tenant, id } => RedisKey::concat(&[TENANT_PREFIX, tenant, DESTINATION_INFIX, id]),
    }
}

/// A key in current form is current unless its content says otherwise or it lies under a legacy
/// tenant with a braced id.
fn current(key: &RedisKey, rest: &[u8], readings: &[Entity<'_>], answers: &Answers) -> Decision<Mapping> {
    let (braced_keys, braced_ids): (Vec<_>, Vec<_>) =
        readings.iter().map(|reading| braced_tenant(reading.tenant())).unzip();
    let mut keys = braced_keys;
    keys.push(key.clone());
    let mut hashes = content::hashes_at(&keys, answers)?;
    let Some(hash) = hashes.pop().flatten() else {
        return unmigrated(UnmigratedReason::WrongType);
    };
    // A tenant with a braced id has nothing of its own under the name of another's record, so there the id tells.
    let is_own_record = readings.iter().any(|reading| matches!(reading, Entity::Tenant { id } if hash.has_id(id)));
    let is_under_braced_tenant = !is_own_record
        && hashes.iter().zip(&braced_ids).any(|(tenant, id)| tenant.is_some_and(|tenant| tenant.has_id(id)));
    // With the whole name as its id it is such a tenant itself, on what may be another's target.
    if hash.has_id(rest) || is_under_braced_tenant {
        return unmigrated(UnmigratedReason::BracedTenant);
    }
    if let Some(entity) = confirmed(readings, hash) {
        return Ok(Mapping::AlreadyCurrent { entity: entity.kind() });
    }
    if hash.id.is_none() {
        content::shape_at(key, answers)?;
    }
    match legacy::entity_at(key, rest, answers) {
        // An entity of a tenant whose braced id is not to be seen here: it is somebody's all the same.
        Ok(_) => unmigrated(UnmigratedReason::BracedTenant),
        Err(need @ Mapping::Need(_)) => Err(need),
        Err(_) => unmigrated(UnmigratedReason::WrongContent),
    }
}

/// The target of an entity, if its name can't be read as another entity's.
fn target(entity: Entity<'_>) -> Decision<Mapping> {
    let key = match entity {
        Entity::Tenant { id } => RedisKey::concat(&[TENANT_PREFIX, b"{", id, b"}:tenant"]),
        Entity::Summary { tenant } => RedisKey::concat(&[TENANT_PREFIX, b"{", tenant, b"}:destinations"]),
        Entity::Destination { tenant, id } => RedisKey::concat(&[TENANT_PREFIX, b"{", tenant, b"}:destination:", id]),
    };
    if outpost_readings(&key.as_bytes()[TENANT_PREFIX.len()..]).nth(1).is_some() {
        return unmigrated(UnmigratedReason::AmbiguousTarget);
    }
    Ok(Mapping::Target { key, entity: entity.kind() })
}
