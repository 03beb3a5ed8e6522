//! When a target still is what its source became: equal by value, or equal after what later migrations do
//! in place.
//!
//! Owns that comparison. A target that any prefix of the later migrations explains holds everything that
//! its source held, so it counts as equal; what nothing explains is the application's.

use std::iter;

use crate::engine::assignment::Assignment;
use crate::keyspace::compare::Comparison;
use crate::keyspace::{Fault, Keyspace};
use crate::migrations::{InPlace, Scope};
use crate::model::change::{Change, Fields};
use crate::model::difference::Difference;
use crate::model::entry::{Entry, Expiry, Value};
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
                Comparison::Equal { expires: source.expiry != Expiry::Never }
            }
            other => other,
        })
        .collect())
}

/// Whether `target`, at its key, is `source` or what later migrations made of it.
pub(super) fn is_explained(assignment: &Assignment, source: &Entry, key: &RedisKey, target: &Entry) -> bool {
    source.expiry == target.expiry && forms(assignment, source, key).any(|form| form == target.value)
}

/// Whether `target`, at its key, is what `source` became but for an expiry that was dropped on the way.
pub(super) fn has_lost_expiry(assignment: &Assignment, source: &Entry, key: &RedisKey, target: &Entry) -> bool {
    let is_dropped = source.expiry != Expiry::Never && target.expiry == Expiry::Never;
    is_dropped && forms(assignment, source, key).any(|form| form == target.value)
}

/// Whether what lies at a target's key is a copy of the source: it holds what that became, though perhaps without its
/// expiry.
pub(super) fn is_copy(assignment: &Assignment, key: &RedisKey, comparison: &Comparison) -> bool {
    match comparison {
        Comparison::Equal { .. } => true,
        Comparison::Different { source, target } => has_lost_expiry(assignment, source, key, target),
        Comparison::SourceGone | Comparison::TargetMissing => false,
    }
}

/// In what way a target differs from what its source became, if it does: from the form that is closest to it, so
/// that what later migrations did is not told as a difference.
pub(super) fn difference(assignment: &Assignment, key: &RedisKey, comparison: &Comparison) -> Option<Difference> {
    let Comparison::Different { source, target } = comparison else { return comparison.difference() };
    let expiry = source.expiry;
    forms(assignment, source, key)
        .filter_map(|value| Difference::between(&Entry { value, expiry }, target))
        .min_by_key(Difference::extent)
}

/// The source's value, and what each of the later migrations in turn makes of it at the target's key.
fn forms<'a>(assignment: &'a Assignment, source: &Entry, key: &'a RedisKey) -> impl Iterator<Item = Value> + 'a {
    let original = source.value.clone();
    let mut form = original.clone();
    iter::once(original).chain(assignment.changes_after_copy().map(move |in_place| {
        change(&assignment.scope, in_place, key, &mut form);
        form.clone()
    }))
}

fn change(scope: &Scope, rule: &dyn InPlace, key: &RedisKey, value: &mut Value) {
    let hash = Fields::of(value, rule.fields());
    match (rule.transform(scope, key, hash.as_ref()), value) {
        (Change::Set { fields, .. }, Value::Hash(held) | Value::ExpiringHash { fields: held, .. }) => {
            held.extend(fields.into_iter().map(|field| (field.name.as_bytes().to_vec(), field.to)));
        }
        (Change::Set { .. } | Change::AlreadyCurrent { .. } | Change::Unmigrated(_) | Change::NotOurs, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::Registry;
    use crate::model::acceptance::AcceptedFindings;
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
                accepted: AcceptedFindings::default(),
                save: false,
            },
            conflict_policy: ConflictPolicy::Fail,
            diverged_policy: DivergedPolicy::Keep,
            min_replicas: MinReplicas::OneIfAny,
        }
    }

    #[test]
    fn a_difference_is_the_applications_alone() {
        let source = entry(&[("id", "a"), ("created_at", "2025-01-19T22:17:29.5Z"), ("metadata", "old")]);
        let target = entry(&[("id", "a"), ("created_at", "1737325049500"), ("entity", "tenant"), ("metadata", "new")]);
        let told = |target: &Entry| {
            let compared = Comparison::Different { source: source.clone(), target: target.clone() };
            difference(&assignment(), &"tenant:{a}:tenant".into(), &compared).map(|it| it.to_string())
        };
        assert_eq!(told(&target).as_deref(), Some("differs in metadata"));
        let rolled_back = entry(&[("id", "a"), ("created_at", "2025-01-19T22:17:29.5Z"), ("metadata", "new")]);
        assert_eq!(told(&rolled_back).as_deref(), Some("differs in metadata"));
        assert_eq!(difference(&assignment(), &"x".into(), &Comparison::TargetMissing), Some(Difference::Missing));
        assert_eq!(difference(&assignment(), &"x".into(), &Comparison::Equal { expires: false }), None);
    }

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        Entry { value: Value::Hash(fields.collect()), expiry: Expiry::Never }
    }

    #[test]
    fn a_lost_expiry_is_told_from_what_the_application_did() {
        let tombstone = |expiry| Entry { expiry, ..entry(&[("id", "a"), ("deleted_at", "t")]) };
        let lost = |source: &Entry, target: &Entry| {
            has_lost_expiry(&assignment(), source, &"tenant:{a}:tenant".into(), target)
        };
        let source = tombstone(Expiry::At(5));
        assert!(lost(&source, &tombstone(Expiry::Never)));
        let later = entry(&[("id", "a"), ("deleted_at", "t"), ("entity", "tenant")]);
        assert!(lost(&source, &later), "003 has changed it since");
        assert!(!lost(&source, &tombstone(Expiry::At(5))), "it is equal");
        assert!(!lost(&source, &tombstone(Expiry::At(6))), "it has an expiry of its own");
        assert!(!lost(&source, &entry(&[("id", "a")])), "it lives again");
        assert!(!lost(&tombstone(Expiry::Never), &tombstone(Expiry::Never)));
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
