//! A keyspace in memory that answers probes as the engine would.

use std::collections::BTreeMap;

use crate::migrations::hash_tags::tests::scope;
use crate::migrations::hash_tags::{HashTags, belongs};
use crate::migrations::{KeyLayout, Rename as _};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answer, Answers, Belongs, Mapping, Probe};

/// More rounds of questions than any key may need.
const ROUNDS: usize = 4;
/// More probes than any key may need: two for each way to cut a name, and some.
const PROBES: usize = 2 * 64 + 5;

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    Hash { fields: BTreeMap<Vec<u8>, Vec<u8>>, expires: bool },
    NotAHash,
}

/// A hash that does not expire.
pub(super) fn hash(fields: &[(&str, &str)]) -> Stored {
    Stored::Hash {
        fields: fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect(),
        expires: false,
    }
}

/// A tenant or destination with this id.
pub(super) fn with_id(id: impl AsRef<[u8]>) -> Stored {
    let fields = [(b"id".to_vec(), id.as_ref().to_vec()), (b"created_at".to_vec(), b"2025-01-01T00:00:00Z".to_vec())];
    Stored::Hash { fields: fields.into(), expires: false }
}

/// A legacy tombstone.
pub(super) fn tombstone() -> Stored {
    Stored::Hash { fields: [(b"deleted_at".to_vec(), b"2025-01-01T00:00:00Z".to_vec())].into(), expires: true }
}

/// The summary of destinations with these ids.
pub(super) fn summary<I: AsRef<[u8]>>(destinations: &[I]) -> Stored {
    let fields = destinations.iter().map(|id| (id.as_ref().to_vec(), br#"{"type":"webhook"}"#.to_vec())).collect();
    Stored::Hash { fields, expires: false }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Keyspace(pub(super) BTreeMap<RedisKey, Stored>);

impl Keyspace {
    pub(super) fn of(entries: impl IntoIterator<Item = (&'static str, Stored)>) -> Self {
        Self(entries.into_iter().map(|(key, stored)| (RedisKey::from(key), stored)).collect())
    }

    /// Asks and answers until the migration needs nothing more, which must come soon.
    pub(super) fn map(&self, layout: KeyLayout, key: &RedisKey) -> Mapping {
        let mut answers = Answers::none();
        let mut asked = 0;
        for _ in 0..=ROUNDS {
            let mapping = HashTags.map(&scope(layout), key, &answers);
            let Mapping::Need(probes) = mapping else { return mapping };
            assert!(probes.iter().any(|probe| answers.get(probe).is_none()), "{key} asks nothing new");
            asked += probes.len();
            assert!(asked <= PROBES, "{key} asks {asked} questions");
            for probe in probes {
                let answer = self.answer(&probe);
                answers.insert(probe, answer);
            }
        }
        panic!("{key} is never decided")
    }

    /// Asks and answers until it is told whose a key is.
    pub(super) fn belongs(&self, key: &RedisKey) -> Belongs {
        let mut answers = Answers::none();
        for _ in 0..=ROUNDS {
            let Belongs::Need(probes) = belongs(key, &answers) else { return belongs(key, &answers) };
            for probe in probes {
                let answer = self.answer(&probe);
                answers.insert(probe, answer);
            }
        }
        panic!("{key} is never decided")
    }

    fn answer(&self, probe: &Probe) -> Answer {
        let (Probe::Fields { key, .. } | Probe::Shape { key }) = probe;
        let nothing = hash(&[]);
        let Stored::Hash { fields: stored, expires } = self.0.get(key).unwrap_or(&nothing) else {
            return Answer::NotAHash;
        };
        match probe {
            Probe::Fields { fields, .. } => {
                Answer::Fields(fields.iter().map(|name| stored.get(name.as_bytes()).cloned()).collect())
            }
            Probe::Shape { .. } => Answer::Shape { fields: stored.len() as u64, expires: *expires },
        }
    }
}
