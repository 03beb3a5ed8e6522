//! The layout that the documentation promises: the prefix `tenant:<id>` becomes `{tenant:<id>}` and
//! whatever follows is kept; `destination_summary:<id>:<did>` becomes
//! `{tenant:<id>}:destination_summary:<did>`.
//!
//! Owns its target names, and where a tenant's id ends in names that Outpost does not know: exactly
//! one way to cut them may name an existing tenant. Sources and targets differ by prefix.

use crate::migrations::hash_tags::outpost_layout::{braced_tenant, confirmed, current_readings};
use crate::migrations::hash_tags::{Decision, READINGS_LIMIT, content, legacy, unmigrated};
use crate::migrations::key_names::{
    DESTINATION_INFIX, DOCUMENTED_SUMMARY_PREFIX, SUMMARY_SUFFIX, TENANT_PREFIX, TENANT_TAG_PREFIX, cuts,
    has_known_name, tenant_tag_readings,
};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, Mapping, UnmigratedReason};

const DOCUMENTED_SUMMARY_SUFFIX: &[u8] = b":destination_summary:";
const SUMMARY: &str = "summary";
const OTHER: &str = "other";

/// What a key means in the documented layout.
pub(super) fn map(key: &RedisKey, answers: &Answers) -> Decision<Mapping> {
    let bytes = key.as_bytes();
    if let Some(rest) = bytes.strip_prefix(TENANT_TAG_PREFIX) {
        Ok(tagged(rest))
    } else if let Some(rest) = bytes.strip_prefix(DOCUMENTED_SUMMARY_PREFIX) {
        let Some((tenant, destination)) = cut_at_existing_tenant(rest, answers)? else {
            return unmigrated(UnmigratedReason::NoSingleTenant);
        };
        target(tenant, &[DOCUMENTED_SUMMARY_SUFFIX, destination].concat(), SUMMARY)
    } else if let Some(rest) = bytes.strip_prefix(TENANT_PREFIX) {
        refuse_other_layout(key, rest, answers)?;
        original(key, rest, answers)
    } else {
        Ok(Mapping::NotOurs)
    }
}

/// Every original that may have this target.
pub(super) fn sources_of(target: &RedisKey) -> Vec<RedisKey> {
    let Some(rest) = target.as_bytes().strip_prefix(TENANT_TAG_PREFIX) else { return Vec::new() };
    let originals = |(id, suffix): (&[u8], &[u8])| {
        let documented = suffix.strip_prefix(DOCUMENTED_SUMMARY_SUFFIX);
        let summary = documented.map(|name| RedisKey::concat(&[DOCUMENTED_SUMMARY_PREFIX, id, b":", name]));
        [Some(RedisKey::concat(&[TENANT_PREFIX, id, suffix])), summary]
    };
    tenant_tag_readings(rest).take(READINGS_LIMIT).flat_map(originals).flatten().collect()
}

/// A key `{tenant:<rest>` is there already; what follows its tag says what it is.
fn tagged(rest: &[u8]) -> Mapping {
    let mut readings = tenant_tag_readings(rest);
    let entity = match (readings.next(), readings.next()) {
        (None, _) => return Mapping::NotOurs,
        (Some((_, b"")), None) => "tenant",
        (Some((_, SUMMARY_SUFFIX)), None) => SUMMARY,
        (Some((_, suffix)), None) if suffix.starts_with(DESTINATION_INFIX) => "destination",
        (Some((_, suffix)), None) if suffix.starts_with(DOCUMENTED_SUMMARY_SUFFIX) => SUMMARY,
        _ => OTHER,
    };
    Mapping::AlreadyCurrent { entity }
}

/// A key `tenant:<rest>`: an entity that Outpost knows, or anything else below an existing tenant.
fn original(key: &RedisKey, rest: &[u8], answers: &Answers) -> Decision<Mapping> {
    match legacy::entity_at(key, rest, answers) {
        Ok(entity) => target(entity.tenant(), &rest[entity.tenant().len()..], entity.kind()),
        Err(Mapping::Unmigrated(reason)) if rest.contains(&b':') => other(rest, reason, answers),
        Err(instead) => Err(instead),
    }
}

/// Something below a tenant that Outpost does not know. What has the name of something that Outpost
/// knows, but not its content, stays for that reason.
fn other(rest: &[u8], reason: UnmigratedReason, answers: &Answers) -> Decision<Mapping> {
    let Some((tenant, _)) = cut_at_existing_tenant(rest, answers)? else {
        return unmigrated(if has_known_name(rest) { reason } else { UnmigratedReason::NoSingleTenant });
    };
    let suffix = &rest[tenant.len()..];
    if suffix == SUMMARY_SUFFIX || suffix.starts_with(DESTINATION_INFIX) {
        return unmigrated(reason);
    }
    // A documented summary of the same tenant would have the same target.
    if suffix.starts_with(DOCUMENTED_SUMMARY_SUFFIX) {
        return unmigrated(UnmigratedReason::AmbiguousTarget);
    }
    target(tenant, suffix, OTHER)
}

/// Refuses keys that are already in Outpost's current layout. They look like the legacy keys of a
/// tenant with a braced id: which of the two exists decides.
fn refuse_other_layout(key: &RedisKey, rest: &[u8], answers: &Answers) -> Decision<()> {
    let readings = current_readings(rest)?;
    if readings.is_empty() {
        return Ok(());
    }
    let own = content::hashes_at(std::slice::from_ref(key), answers)?;
    let Some(entity) = own.first().copied().flatten().and_then(|hash| confirmed(&readings, hash)) else {
        return Ok(());
    };
    let (original, braced) = braced_tenant(entity.tenant());
    let moved = RedisKey::concat(&[TENANT_TAG_PREFIX, &braced, b"}"]);
    let current = RedisKey::concat(&[original.as_bytes(), b":tenant"]);
    let tenants = content::hashes_at(&[original, moved, current], answers)?;
    let has_id = |at: usize, id: &[u8]| tenants.get(at).copied().flatten().is_some_and(|hash| hash.has_id(id));
    let is_braced = has_id(0, &braced) || has_id(1, &braced);
    match (is_braced, has_id(2, entity.tenant())) {
        (true, false) => Ok(()),
        (true, true) => unmigrated(UnmigratedReason::BracedTenant),
        (false, _) => unmigrated(UnmigratedReason::OtherLayout),
    }
}

/// Cuts a name at the one colon before which stands the id of an existing tenant, moved or not yet;
/// `None` if there is no such colon, or more than one.
fn cut_at_existing_tenant<'k>(rest: &'k [u8], answers: &Answers) -> Decision<Option<(&'k [u8], &'k [u8])>> {
    let candidates: Vec<_> = cuts(rest, b":").take(READINGS_LIMIT + 1).collect();
    if candidates.len() > READINGS_LIMIT {
        return unmigrated(UnmigratedReason::Ambiguous);
    }
    let keys: Vec<_> = candidates.iter().flat_map(|(id, _)| tenant_keys(id)).collect();
    let hashes = content::hashes_at(&keys, answers)?;
    let mut existing = candidates.iter().zip(hashes.chunks(2)).filter_map(|(&(id, name), tenants)| {
        tenants.iter().flatten().any(|tenant| tenant.has_id(id)).then_some((id, name))
    });
    let first = existing.next();
    Ok(if existing.next().is_none() { first } else { None })
}

/// Where a tenant is before and after it moves.
fn tenant_keys(id: &[u8]) -> [RedisKey; 2] {
    [RedisKey::concat(&[TENANT_PREFIX, id]), RedisKey::concat(&[TENANT_TAG_PREFIX, id, b"}"])]
}

/// The target of what belongs to a tenant, if its name can't be read as another's.
fn target(tenant: &[u8], suffix: &[u8], entity: &'static str) -> Decision<Mapping> {
    let key = RedisKey::concat(&[TENANT_TAG_PREFIX, tenant, b"}", suffix]);
    if tenant_tag_readings(&key.as_bytes()[TENANT_TAG_PREFIX.len()..]).nth(1).is_some() {
        return unmigrated(UnmigratedReason::AmbiguousTarget);
    }
    Ok(Mapping::Target { key, entity })
}
