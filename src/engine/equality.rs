//! When a target still is what its source became: equal by value, or equal after what later migrations do
//! in place.
//!
//! Owns that comparison. A target that any prefix of the later migrations explains holds everything that
//! its source held, so it counts as equal; what nothing explains is the application's.

use crate::engine::assignment::Assignment;
use crate::keyspace::compare::Comparison;
use crate::keyspace::{Fault, Keyspace};
use crate::migrations::{InPlace, Rule, Scope};
use crate::model::change::{Change, Fields};
use crate::model::entry::{Entry, Value};
use crate::model::key::RedisKey;

type Pair = (RedisKey, RedisKey);

/// Compares each source with its target.
pub(super) async fn compare(
    keyspace: &Keyspace,
    assignment: &Assignment,
    pairs: &[Pair],
) -> Result<Vec<Comparison>, Fault> {
    let compared = keyspace.compare(pairs).await?;
    Ok(pairs
        .iter()
        .zip(compared)
        .map(|((_, key), comparison)| match comparison {
            Comparison::Different { source, target } if is_explained(assignment, &source, key, &target) => {
                Comparison::Equal
            }
            other => other,
        })
        .collect())
}

/// Whether `target`, at its key, is `source` or what later migrations made of it.
pub(super) fn is_explained(assignment: &Assignment, source: &Entry, key: &RedisKey, target: &Entry) -> bool {
    if source.expiry != target.expiry {
        return false;
    }
    let mut form = source.value.clone();
    let later = assignment.registry.successors(assignment.migration.as_ref());
    let mut rules = later.filter_map(|migration| match migration.rule() {
        Rule::InPlace(in_place) => Some(in_place),
        Rule::Rename(_) => None,
    });
    form == target.value
        || rules.any(|rule| {
            change(&assignment.scope, rule, key, &mut form);
            form == target.value
        })
}

fn change(scope: &Scope, rule: &dyn InPlace, key: &RedisKey, value: &mut Value) {
    let hash = Fields::of(value, rule.fields());
    match (rule.transform(scope, key, hash.as_ref()), value) {
        (Change::Set { fields, .. }, Value::Hash(held)) => {
            held.extend(fields.into_iter().map(|field| (field.name.as_bytes().to_vec(), field.to)));
        }
        (Change::Set { .. } | Change::AlreadyCurrent { .. } | Change::Unmigrated(_) | Change::NotOurs, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::Registry;
    use crate::model::entry::Expiry;
    use crate::model::plan::Terms;
    use crate::model::policy::{ConflictPolicy, DivergedPolicy, MinReplicas};

    fn assignment() -> Assignment {
        let registry = Registry::outpost();
        let text = String::new;
        Assignment {
            migration: registry.get("001_hash_tags").expect("a migration"),
            registry,
            scope: Scope::default(),
            terms: Terms {
                migration: text(),
                redis: text(),
                deployment_id: text(),
                parameters: text(),
                conflict_policy: text(),
                diverged_policy: text(),
            },
            conflict_policy: ConflictPolicy::Fail,
            diverged_policy: DivergedPolicy::Keep,
            min_replicas: MinReplicas::OneIfAny,
        }
    }

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        Entry { value: Value::Hash(fields.collect()), expiry: Expiry::Never }
    }

    #[test]
    fn every_stage_of_the_later_migrations_is_explained_and_nothing_else() {
        let source = entry(&[("id", "a"), ("created_at", "2025-01-19T22:17:29.5Z")]);
        let second = entry(&[("id", "a"), ("created_at", "1737325049500")]);
        let third = entry(&[("id", "a"), ("created_at", "1737325049500"), ("entity", "tenant")]);
        let explained = |target: &Entry| is_explained(&assignment(), &source, &"tenant:{a}:tenant".into(), target);
        for target in [&source, &second, &third] {
            assert!(explained(target));
        }
        let touched = entry(&[("id", "a"), ("created_at", "1737325049501"), ("entity", "tenant")]);
        let skipped = entry(&[("id", "a"), ("created_at", "2025-01-19T22:17:29.5Z"), ("entity", "tenant")]);
        let ends = Entry { expiry: Expiry::At(5), ..third.clone() };
        for target in [&touched, &skipped, &ends] {
            assert!(!explained(target));
        }
        assert!(!is_explained(&assignment(), &third, &"tenant:{a}:tenant".into(), &source));
    }
}
