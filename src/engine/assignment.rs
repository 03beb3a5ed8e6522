//! Everything a run is told before it begins.

use std::sync::Arc;

use crate::migrations::state_keys::StateKeys;
use crate::migrations::{InPlace, Migration, Registry, Rule, Scope};
use crate::model::acceptance::AcceptedFindings;
use crate::model::key::RedisKey;
use crate::model::plan::Terms;
use crate::model::policy::{ConflictPolicy, DivergedPolicy, MinReplicas};

/// One migration of one keyspace, with every choice made.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Which migration.
    pub migration: Arc<dyn Migration>,
    /// The migrations known; the one before this must be satisfied first.
    pub registry: Registry,
    /// What the migration is told.
    pub scope: Scope,
    /// The choices that a plan's hash covers.
    pub terms: Terms,
    /// What happens to a target that exists and differs.
    pub conflict_policy: ConflictPolicy,
    /// What cleanup does with an original whose target is diverged.
    pub diverged_policy: DivergedPolicy,
    /// How many replicas must acknowledge.
    pub min_replicas: MinReplicas,
}

impl Assignment {
    /// Names of the state keys.
    #[must_use]
    pub fn state_keys(&self) -> StateKeys {
        StateKeys::new(self.scope.deployment_id.as_deref())
    }

    /// The same, with what a person accepted by name.
    #[must_use]
    pub fn accepting(mut self, accepted: &AcceptedFindings) -> Self {
        self.terms.accepted = accepted.clone();
        self
    }

    pub(super) fn rule(&self) -> Rule<'_> {
        self.migration.rule()
    }

    pub(super) fn mark_key(&self) -> RedisKey {
        self.state_keys().mark(self.migration.name())
    }

    pub(super) fn run_key(&self) -> RedisKey {
        self.state_keys().run(self.migration.name())
    }

    pub(super) fn prefixes(&self) -> Vec<Vec<u8>> {
        self.migration.prefixes(&self.scope)
    }

    /// What may have changed a target since it was copied, in order: the in-place migrations after the last one up to
    /// this that renames.
    pub(super) fn changes_after_copy(&self) -> impl Iterator<Item = &dyn InPlace> {
        let this = self.migration.version();
        let copied_by = (self.registry.iter())
            .filter(|it| it.version() <= this && matches!(it.rule(), Rule::Rename(_)))
            .map(|it| it.version())
            .max()
            .unwrap_or_default();

        self.registry.iter().filter(move |it| it.version() > copied_by).filter_map(|it| match it.rule() {
            Rule::InPlace(in_place) => Some(in_place),
            Rule::Rename(_) => None,
        })
    }
}
