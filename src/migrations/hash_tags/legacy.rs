//! What a legacy key holds.
//!
//! Owns the choice between the readings of a legacy name by content: the `id` field decides, and
//! where a tombstone has none, the name must leave one reading. Refuses to know target names.

use crate::migrations::hash_tags::{Decision, content, unmigrated};
use crate::migrations::key_names::{Entity, has_known_name, legacy_destinations, legacy_summary};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, UnmigratedReason};

/// The entity that the legacy key `tenant:<rest>` holds.
pub(super) fn entity_at<'k>(key: &RedisKey, rest: &'k [u8], answers: &Answers) -> Decision<Entity<'k>> {
    let hash = content::hash_at(key, answers)?;
    if let Some(entity) = hash.id.and_then(|id| named_by(id, rest)) {
        return Ok(entity);
    }
    if let Some(summary) = legacy_summary(rest)
        && hash.may_be_summary()
    {
        return Ok(summary);
    }
    if hash.id.is_some() {
        return unmigrated(UnmigratedReason::WrongContent);
    }
    let shape = content::shape_at(key, answers)?;
    if !(hash.may_be_tombstone() && shape.fields == 1) {
        return unmigrated(without_id(rest));
    }
    // Only its expiry tells a tombstone under a summary's name from a damaged summary.
    if legacy_summary(rest).is_some() && !shape.expires {
        return unmigrated(UnmigratedReason::WrongContent);
    }
    tombstone(rest)
}

/// The entity that the name of the legacy key `tenant:<rest>` stands for if ids hold no colons.
pub(super) fn likely_entity(rest: &[u8]) -> Entity<'_> {
    let named = legacy_destinations(rest).next().or_else(|| legacy_summary(rest));
    named.unwrap_or(Entity::Tenant { id: rest })
}

/// The reading that an `id` field confirms; no two readings of one name have the same id.
fn named_by<'k>(id: &[u8], rest: &'k [u8]) -> Option<Entity<'k>> {
    let tenant = Entity::Tenant { id: rest };
    std::iter::once(tenant).chain(legacy_destinations(rest)).find(|entity| entity.expected_id() == Some(id))
}

/// A tombstone is a destination's if the name allows exactly that, and a tenant's if the name
/// allows nothing else.
fn tombstone(rest: &[u8]) -> Decision<Entity<'_>> {
    let mut destinations = legacy_destinations(rest);
    let tenant = Entity::Tenant { id: rest };
    match (destinations.next(), destinations.next()) {
        (None, _) => Ok(tenant),
        (Some(destination), None) if legacy_summary(rest).is_none() => Ok(destination),
        _ => unmigrated(UnmigratedReason::Ambiguous),
    }
}

/// Why a hash without an id is no entity: a name with a colon may also be something unknown that
/// belongs to a tenant.
fn without_id(rest: &[u8]) -> UnmigratedReason {
    if rest.contains(&b':') && !has_known_name(rest) {
        UnmigratedReason::Ambiguous
    } else {
        UnmigratedReason::WrongContent
    }
}
