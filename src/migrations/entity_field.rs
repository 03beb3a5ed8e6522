//! `003_entity`: tenants and destinations say what they are, in a field `entity`.
//!
//! Owns the field and its two values. An entry that calls itself something else is left alone. Source:
//! Outpost's migration of the same name, since v0.12.

use crate::migrations::{Applicability, InPlace, Migration, Rule, Scope, current};
use crate::model::change::{Change, FieldChange, Fields};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, Belongs, UnmigratedReason};

const ENTITY: &str = "entity";

/// The migration `003_entity`.
#[derive(Debug)]
pub struct EntityField;

impl Migration for EntityField {
    fn name(&self) -> &'static str {
        "003_entity"
    }

    fn version(&self) -> u32 {
        3
    }

    fn description(&self) -> &'static str {
        "adds the field entity: tenant or destination"
    }

    fn is_applicable(&self, _: &Scope) -> Applicability {
        Applicability::Applicable
    }

    fn prefixes(&self, scope: &Scope) -> Vec<Vec<u8>> {
        current::prefixes(scope)
    }

    fn rule(&self) -> Rule<'_> {
        Rule::InPlace(self)
    }
}

impl InPlace for EntityField {
    fn fields(&self) -> &'static [&'static str] {
        &[current::ID, current::DELETED_AT, ENTITY]
    }

    fn belongs(&self, scope: &Scope, key: &RedisKey, answers: &Answers) -> Belongs {
        current::belongs(scope, key, answers)
    }

    fn transform(&self, scope: &Scope, key: &RedisKey, hash: Option<&Fields>) -> Change {
        let entity = match current::entity_at(scope, key, hash) {
            Ok(entity) => entity.kind(),
            Err(decided) => return decided,
        };
        match hash.and_then(|hash| hash.get(ENTITY)) {
            Some(present) if present == entity.as_bytes() => Change::AlreadyCurrent { entity },
            Some(present) if !present.is_empty() => Change::Unmigrated(UnmigratedReason::OtherEntity),
            absent => {
                let from = absent.map(<[u8]>::to_vec);
                let fields = vec![FieldChange { name: ENTITY, from, to: entity.as_bytes().to_vec() }];
                Change::Set { fields, entity }
            }
        }
    }
}

#[cfg(test)]
#[path = "entity_field_tests.rs"]
mod tests;
