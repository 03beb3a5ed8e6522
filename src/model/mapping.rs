//! What a migration answers about one key.
//!
//! Owns the vocabulary between the engine and a migration: a mapping, the reads a migration may ask
//! for where the key alone is ambiguous, and why a key stays where it is.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::key::RedisKey;

/// What is to be done with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapping {
    /// A source key; its entry belongs at this target.
    Target {
        /// Where the entry belongs.
        key: RedisKey,
        /// What the entry is, in the migration's terms ("tenant").
        entity: &'static str,
    },
    /// The key already has the form that this migration brings about.
    AlreadyCurrent {
        /// What the entry is, in the migration's terms ("tenant").
        entity: &'static str,
    },
    /// A key under a legacy prefix that no rule maps; it is never deleted or overwritten.
    Unmigrated(UnmigratedReason),
    /// A key of no interest to this migration.
    NotOurs,
    /// The key alone does not tell: read these and ask again.
    Need(Vec<Probe>),
}

/// Whose an entry is, where its name does not tell for sure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Belongs {
    /// To whom its name says.
    AsNamed,
    /// To somebody else; it is never touched.
    Elsewhere(UnmigratedReason),
    /// To whom its name says if it is a copy of each of these originals: somebody else may use the same name.
    IfCopyOf {
        /// The originals.
        originals: Vec<RedisKey>,
        /// Why it is left alone where it is not.
        otherwise: UnmigratedReason,
    },
    /// The key alone does not tell: read these and ask again.
    Need(Vec<Probe>),
}

/// Why a key under a legacy prefix is not mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum UnmigratedReason {
    /// The key holds another type than the entity that its name stands for.
    WrongType,
    /// The entry's `id` field contradicts the key, or is missing where an entity must have one.
    WrongContent,
    /// Key and content leave more than one reading.
    Ambiguous,
    /// The key lies under a tenant whose id is braced, so that legacy and current names collide.
    BracedTenant,
    /// The target's name could be read as another entity's.
    AmbiguousTarget,
    /// The documented name of a destination summary, which Outpost never wrote nor reads.
    DocumentedNameOnly,
    /// A key whose name does not tell where a tenant's id ends, and not exactly one existing tenant can be meant.
    NoSingleTenant,
    /// The key has the form of the other key layout.
    OtherLayout,
    /// A field that should hold a time holds something else.
    NotATime,
    /// The entry says that it is another entity than its key stands for.
    OtherEntity,
}

impl UnmigratedReason {
    /// One line for people: what was found.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::WrongType => "holds another Redis type than its name stands for",
            Self::WrongContent => "its id field is missing or contradicts its key",
            Self::Ambiguous => "key and content leave more than one reading",
            Self::BracedTenant => "lies under a tenant with a braced id, whose legacy and current names collide",
            Self::AmbiguousTarget => "its target name could be read as another entity's",
            Self::DocumentedNameOnly => "documented name that Outpost never wrote nor reads",
            Self::NoSingleTenant => "not exactly one existing tenant can be meant",
            Self::OtherLayout => "has the form of the other key layout",
            Self::NotATime => "created_at or updated_at is neither an RFC 3339 time nor a number",
            Self::OtherEntity => "its entity field names another entity than its key",
        }
    }
}

/// A read that a migration asks for to understand a key. The engine batches them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// The named fields of a hash (`HMGET`).
    Fields {
        /// The hash.
        key: RedisKey,
        /// Field names, in the order in which the answer gives their values.
        fields: &'static [&'static str],
    },
    /// Number of fields of a hash (`HLEN`) and whether it has an expiry (`PTTL`).
    Shape {
        /// The hash.
        key: RedisKey,
    },
}

impl Probe {
    /// The key that is read.
    #[must_use]
    pub fn key(&self) -> &RedisKey {
        match self {
            Self::Fields { key, .. } | Self::Shape { key } => key,
        }
    }

    /// The fields that are read.
    #[must_use]
    pub fn fields(&self) -> Option<&'static [&'static str]> {
        match self {
            Self::Fields { fields, .. } => Some(fields),
            Self::Shape { .. } => None,
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Values of the asked fields in their order; all absent may also mean that the key is.
    Fields(Vec<Option<Vec<u8>>>),
    /// Field count (0: no such key) and whether the key expires.
    Shape {
        /// Number of fields; 0 when the key does not exist.
        fields: u64,
        /// Whether an expiry is set.
        expires: bool,
    },
    /// The key holds another type than a hash.
    NotAHash,
}

/// What a decision about a key rests on: values of fields of a hash. Whoever carries the decision out can have it
/// checked in the same step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Premise {
    key: RedisKey,
    fields: &'static [&'static str],
    values: Vec<Option<Vec<u8>>>,
}

impl Premise {
    /// What a probe is supposed to find. There is none for a shape, for another type, and for an empty value, which
    /// could not be told from a field that is not there.
    #[must_use]
    pub fn new(probe: Probe, answer: Answer) -> Option<Self> {
        match (probe, answer) {
            (Probe::Fields { key, fields }, Answer::Fields(values))
                if values.len() == fields.len() && values.iter().flatten().all(|value| !value.is_empty()) =>
            {
                Some(Self { key, fields, values })
            }
            (Probe::Fields { .. } | Probe::Shape { .. }, _) => None,
        }
    }

    /// The key that is to be looked at.
    #[must_use]
    pub fn key(&self) -> &RedisKey {
        &self.key
    }

    /// The fields that are to be looked at.
    #[must_use]
    pub fn fields(&self) -> &'static [&'static str] {
        self.fields
    }

    /// The read that tells.
    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe::Fields { key: self.key.clone(), fields: self.fields }
    }

    /// Whether that read found what is supposed.
    #[must_use]
    pub fn agrees_with(&self, answer: &Answer) -> bool {
        matches!(answer, Answer::Fields(values) if *values == self.values)
    }

    /// Whether a hash is as supposed.
    #[must_use]
    pub fn holds(&self, hash: &BTreeMap<Vec<u8>, Vec<u8>>) -> bool {
        self.fields.iter().zip(&self.values).all(|(name, value)| hash.get(name.as_bytes()) == value.as_ref())
    }

    /// The value of each field; empty where the hash must not have it.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.values.iter().map(|value| value.as_deref().unwrap_or_default())
    }
}

/// The answers that a migration has so far about one key.
#[derive(Debug, Clone, Default)]
pub struct Answers(Vec<(Probe, Answer)>);

impl Answers {
    /// No answers: the first question about every key.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Records what a probe found.
    pub fn insert(&mut self, probe: Probe, answer: Answer) {
        self.0.push((probe, answer));
    }

    /// As premises, if all of them can be.
    #[must_use]
    pub fn into_premises(self) -> Option<Vec<Premise>> {
        self.0.into_iter().map(|(probe, answer)| Premise::new(probe, answer)).collect()
    }

    /// The answer to a probe, if it was asked already.
    #[must_use]
    pub fn get(&self, probe: &Probe) -> Option<&Answer> {
        self.0.iter().find(|(asked, _)| asked == probe).map(|(_, answer)| answer)
    }
}
