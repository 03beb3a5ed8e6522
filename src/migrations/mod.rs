//! The migrations this product knows, and what a migration is.
//!
//! Owns the registry, the trait and the names of Outpost's state keys. A migration says what a key
//! means; it refuses to scan, copy, retry, lock or report: the engine does that once for all.

mod current;
pub mod entity_field;
pub mod hash_tags;
mod key_names;
pub mod state_keys;
pub mod timestamps;

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::change::{Change, Fields};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, Belongs, Mapping, Premise};

/// What a migration is told about the keyspace before it sees a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// The deployment id, if the keyspace is prefixed by one.
    pub deployment_id: Option<String>,
    /// The migration's parameters.
    pub parameters: Parameters,
}

impl Scope {
    /// What starts every key of a tenant, summary or destination, legacy or current, in any layout: a keyspace
    /// without such a key is fresh.
    #[must_use]
    pub fn entity_prefixes(&self) -> Vec<Vec<u8>> {
        match &self.deployment_id {
            Some(deployment) => vec![[deployment.as_bytes(), b":", key_names::TENANT_PREFIX].concat()],
            None => [key_names::TENANT_PREFIX, key_names::TENANT_TAG_PREFIX, key_names::DOCUMENTED_SUMMARY_PREFIX]
                .map(<[u8]>::to_vec)
                .to_vec(),
        }
    }
}

/// Choices that a migration offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    /// Which target names `001_hash_tags` produces: `Outpost` (the default, what Outpost reads) or
    /// `TenantTag` (the documented form `{tenant:<id>}…`).
    #[serde(default)]
    pub key_layout: KeyLayout,
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keyLayout={:?}", self.key_layout)
    }
}

/// Which target names `001_hash_tags` produces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum KeyLayout {
    /// What Outpost reads: `tenant:{<id>}:tenant`, `tenant:{<id>}:destinations`, …
    #[default]
    Outpost,
    /// What the documentation of the earlier tool promises: `{tenant:<id>}`, `{tenant:<id>}:destinations`, …
    TenantTag,
}

/// Whether a migration has anything to do with a keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applicability {
    /// It does.
    Applicable,
    /// It never will, for this reason.
    NotApplicable(&'static str),
}

/// A named, versioned schema change.
pub trait Migration: Send + Sync + fmt::Debug {
    /// Its name, as in the state key and on the command line: `001_hash_tags`.
    fn name(&self) -> &'static str;

    /// Its place in the order of migrations, from 1.
    fn version(&self) -> u32;

    /// One line for people.
    fn description(&self) -> &'static str;

    /// Whether it has anything to do with this keyspace.
    fn is_applicable(&self, scope: &Scope) -> Applicability;

    /// Byte prefixes of every key it wants to see; other keys are never looked at.
    fn prefixes(&self, scope: &Scope) -> Vec<Vec<u8>>;

    /// What it does to entries.
    fn rule(&self) -> Rule<'_>;
}

/// What a migration does to entries.
#[derive(Clone, Copy)]
pub enum Rule<'m> {
    /// It moves them to new keys.
    Rename(&'m dyn Rename),
    /// It changes fields where they are.
    InPlace(&'m dyn InPlace),
}

/// A migration that moves entries to new keys.
pub trait Rename: Send + Sync {
    /// What a key means. Asked first without answers; asked again with the answers to what it
    /// needed, until it needs nothing more.
    fn map(&self, scope: &Scope, key: &RedisKey, answers: &Answers) -> Mapping;

    /// Whether some content could make the key a source. Where no content could, as with names that only targets
    /// have, saying so spares the reads that would tell what else it is.
    fn may_be_source(&self, _scope: &Scope, _key: &RedisKey) -> bool {
        true
    }

    /// What a source must hold to show, as long as it is there, that keys which look current are its own; nothing where
    /// its name shows none. Such a sign stays while such keys may be there, and with it every original whose target lies
    /// among them.
    fn sign(&self, _scope: &Scope, _source: &RedisKey) -> Option<Premise> {
        None
    }

    /// The keys whose signs would show that a key which looks current is somebody else's.
    fn signs_over(&self, _scope: &Scope, _key: &RedisKey) -> Vec<RedisKey> {
        Vec::new()
    }

    /// What the reads about a key would find if its content is what its name promises; nothing where the name
    /// promises nothing. The engine goes by it only where it has the server check it, so a wrong guess costs a read
    /// more and nothing else.
    fn likely_answers(&self, _scope: &Scope, _key: &RedisKey) -> Answers {
        Answers::none()
    }

    /// Every key that could be the source of this one, whatever they hold; none where the name is no target's. Asked
    /// only to name targets whose source is gone, and where signs stand over a key.
    fn sources_of(&self, _scope: &Scope, _target: &RedisKey) -> Vec<RedisKey> {
        Vec::new()
    }

    /// Whether the entry at this target will not share a slot with what belongs together with it,
    /// although the migration is to bring them together. Such targets are written, and reported.
    fn is_scattered(&self, _target: &RedisKey) -> bool {
        false
    }
}

/// A migration that changes fields of hashes where they are.
pub trait InPlace: Send + Sync {
    /// The fields on which it decides; no others are read.
    fn fields(&self) -> &'static [&'static str];

    /// What is to be done with an entry. `hash` is `None` where the key holds another type. What it sets
    /// must be what it then calls current: a second look changes nothing.
    fn transform(&self, scope: &Scope, key: &RedisKey, hash: Option<&Fields>) -> Change;

    /// Whose an entry is. Asked only about entries that are to be changed, so that nobody else pays for the reads:
    /// first without answers, then with the answers to what it needed.
    fn belongs(&self, _scope: &Scope, _key: &RedisKey, _answers: &Answers) -> Belongs {
        Belongs::AsNamed
    }
}

/// The migrations known, in order of version.
#[derive(Debug, Clone)]
pub struct Registry(Vec<Arc<dyn Migration>>);

impl Registry {
    /// The migrations that Outpost's keyspace went through.
    #[must_use]
    pub fn outpost() -> Self {
        Self::new(vec![
            Arc::new(hash_tags::HashTags),
            Arc::new(timestamps::Timestamps),
            Arc::new(entity_field::EntityField),
        ])
    }

    /// A registry of any migrations; they are put in order of version.
    #[must_use]
    pub fn new(mut migrations: Vec<Arc<dyn Migration>>) -> Self {
        migrations.sort_by_key(|migration| migration.version());
        Self(migrations)
    }

    /// The migration of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Migration>> {
        self.0.iter().find(|migration| migration.name() == name).cloned()
    }

    /// The migration that must be satisfied before this one.
    #[must_use]
    pub fn predecessor(&self, migration: &dyn Migration) -> Option<Arc<dyn Migration>> {
        self.0.iter().rfind(|other| other.version() < migration.version()).cloned()
    }

    /// All migrations, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Migration>> {
        self.0.iter()
    }

    /// Migrations after this one, in order.
    pub fn successors(&self, migration: &dyn Migration) -> impl Iterator<Item = &Arc<dyn Migration>> {
        let version = migration.version();
        self.0.iter().filter(move |other| other.version() > version)
    }

    /// Names of all migrations, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|migration| migration.name())
    }
}
