//! `001_hash_tags`: gives the keys of a tenant one hash tag, so that they share one slot.
//!
//! Owns what Outpost's tenant keys mean and where each belongs, for both key layouts. Refuses to
//! guess: a key moves only if its content proves which entity it is and its target can be read in
//! one way only. So two sources never share a target, and no target is a source.

mod content;
mod legacy;
mod outpost_layout;
mod tenant_tag_layout;
#[cfg(test)]
mod tests;

use crate::migrations::{Applicability, KeyLayout, Migration, Rename, Rule, Scope, key_names};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, Belongs, Mapping, Premise, UnmigratedReason};
use crate::model::slot::hash_tag;

/// Most readings of one key that are looked into, so that no key can cause unbounded reads.
const READINGS_LIMIT: usize = 64;

/// The migration `001_hash_tags`.
#[derive(Debug)]
pub struct HashTags;

impl Migration for HashTags {
    fn name(&self) -> &'static str {
        "001_hash_tags"
    }

    fn version(&self) -> u32 {
        1
    }

    fn description(&self) -> &'static str {
        "gives all keys of a tenant one hash tag"
    }

    fn is_applicable(&self, scope: &Scope) -> Applicability {
        match scope.deployment_id {
            Some(_) => Applicability::NotApplicable("keys with a deployment id have been hash-tagged from the start"),
            None => Applicability::Applicable,
        }
    }

    fn prefixes(&self, scope: &Scope) -> Vec<Vec<u8>> {
        if scope.deployment_id.is_some() {
            return Vec::new();
        }
        let prefixes: &[&[u8]] = match scope.parameters.key_layout {
            KeyLayout::Outpost => &[key_names::TENANT_PREFIX, key_names::DOCUMENTED_SUMMARY_PREFIX],
            KeyLayout::TenantTag => {
                &[key_names::TENANT_PREFIX, key_names::DOCUMENTED_SUMMARY_PREFIX, key_names::TENANT_TAG_PREFIX]
            }
        };
        prefixes.iter().map(|prefix| prefix.to_vec()).collect()
    }

    fn rule(&self) -> Rule<'_> {
        Rule::Rename(self)
    }
}

impl Rename for HashTags {
    fn map(&self, scope: &Scope, key: &RedisKey, answers: &Answers) -> Mapping {
        if scope.deployment_id.is_some() {
            return Mapping::NotOurs;
        }
        let decided = match scope.parameters.key_layout {
            KeyLayout::Outpost => outpost_layout::map(key, answers),
            KeyLayout::TenantTag => tenant_tag_layout::map(key, answers),
        };
        match decided {
            Ok(mapping) | Err(mapping) => mapping,
        }
    }

    fn may_be_source(&self, scope: &Scope, key: &RedisKey) -> bool {
        match scope.parameters.key_layout {
            KeyLayout::Outpost => !outpost_layout::is_current_form(key),
            KeyLayout::TenantTag => !key.as_bytes().starts_with(key_names::TENANT_TAG_PREFIX),
        }
    }

    fn sign(&self, scope: &Scope, source: &RedisKey) -> Option<Premise> {
        if is_outposts(scope) { outpost_layout::sign(source) } else { None }
    }

    fn signs_over(&self, scope: &Scope, key: &RedisKey) -> Vec<RedisKey> {
        if is_outposts(scope) { outpost_layout::signs_over(key) } else { Vec::new() }
    }

    fn likely_answers(&self, _scope: &Scope, key: &RedisKey) -> Answers {
        outpost_layout::likely_answers(key)
    }

    fn sources_of(&self, scope: &Scope, target: &RedisKey) -> Vec<RedisKey> {
        match scope.parameters.key_layout {
            KeyLayout::Outpost => outpost_layout::sources_of(target),
            KeyLayout::TenantTag => tenant_tag_layout::sources_of(target),
        }
    }

    /// A tenant id that is empty or starts with `}` makes an empty hash tag, which Redis ignores.
    fn is_scattered(&self, target: &RedisKey) -> bool {
        hash_tag(target.as_bytes()).len() == target.as_bytes().len()
    }
}

/// In the documented layout a tenant with a braced id shows itself at its target too.
fn is_outposts(scope: &Scope) -> bool {
    match scope.parameters.key_layout {
        KeyLayout::Outpost => true,
        KeyLayout::TenantTag => false,
    }
}

/// Whose a key in the current form of Outpost's layout is.
pub(super) fn belongs(key: &RedisKey, answers: &Answers) -> Belongs {
    match outpost_layout::must_be_copy_of(key, answers) {
        Ok(originals) if originals.is_empty() => Belongs::AsNamed,
        Ok(originals) => Belongs::IfCopyOf { originals, otherwise: UnmigratedReason::BracedTenant },
        Err(Mapping::Need(probes)) => Belongs::Need(probes),
        Err(Mapping::Unmigrated(reason)) => Belongs::Elsewhere(reason),
        Err(Mapping::Target { .. } | Mapping::AlreadyCurrent { .. } | Mapping::NotOurs) => Belongs::AsNamed,
    }
}

/// What a step of the decision finds, or the mapping that ends the decision early.
type Decision<T> = Result<T, Mapping>;

/// Ends a decision: the key stays where it is.
fn unmigrated<T>(reason: UnmigratedReason) -> Decision<T> {
    Err(Mapping::Unmigrated(reason))
}
