//! What a Redis key holds, in canonical form: the harness' own idea of "equal by value".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::str::Utf8Chunk;

use sha2::{Digest, Sha256};

/// Bytes of a key, field, member or element.
pub type Bytes = Vec<u8>;

/// A value, with order only where order matters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// A string.
    String(Bytes),
    /// A hash.
    Hash(BTreeMap<Bytes, Bytes>),
    /// A list.
    List(Vec<Bytes>),
    /// A set.
    Set(BTreeSet<Bytes>),
    /// A sorted set: members with their scores as Redis prints them.
    SortedSet(BTreeMap<Bytes, Bytes>),
    /// A stream: entries, groups, consumers and pending entries as one text.
    Stream(String),
}

impl Value {
    /// A hash of fields and values.
    pub fn hash<F: AsRef<[u8]>, V: AsRef<[u8]>>(fields: impl IntoIterator<Item = (F, V)>) -> Self {
        Self::Hash(
            fields.into_iter().map(|(field, value)| (field.as_ref().to_vec(), value.as_ref().to_vec())).collect(),
        )
    }

    /// A string.
    pub fn string(value: impl AsRef<[u8]>) -> Self {
        Self::String(value.as_ref().to_vec())
    }

    /// The type's name as Redis' `TYPE` answers it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Hash(_) => "hash",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }

    /// A field of a hash.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let Self::Hash(fields) = self else { return None };
        fields.get(name.as_bytes()).map(Vec::as_slice)
    }

    /// A short hash of type and value, to tell values apart in a message.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        match self {
            Self::String(value) => part(value),
            Self::Hash(pairs) | Self::SortedSet(pairs) => pairs.iter().for_each(|(one, other)| {
                part(one);
                part(other);
            }),
            Self::List(items) => items.iter().for_each(|item| part(item)),
            Self::Set(members) => members.iter().for_each(|member| part(member)),
            Self::Stream(text) => part(text.as_bytes()),
        }
        hex::encode(&hash.finalize()[..6])
    }

    fn size(&self) -> usize {
        match self {
            Self::String(value) => value.len(),
            Self::Hash(pairs) | Self::SortedSet(pairs) => pairs.len(),
            Self::List(items) => items.len(),
            Self::Set(members) => members.len(),
            Self::Stream(text) => text.len(),
        }
    }
}

/// Never the value itself: a failing test must not flood its log, nor teach us to print secrets.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}, {})", self.type_name(), self.size(), self.fingerprint())
    }
}

/// What one key held at one time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The value; it knows its type.
    pub value: Value,
    /// The Unix time in milliseconds at which it expires.
    pub expiry_ms: Option<i64>,
}

/// A key with what it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Value,
    /// The Unix time in milliseconds at which it expires.
    pub expiry_ms: Option<i64>,
}

impl Entry {
    /// An entry that does not expire.
    pub fn new(key: impl AsRef<[u8]>, value: Value) -> Self {
        Self { key: key.as_ref().to_vec(), value, expiry_ms: None }
    }

    /// The same entry with an expiry.
    pub fn expiring(self, at_ms: i64) -> Self {
        Self { expiry_ms: Some(at_ms), ..self }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}, expiry {:?}", shown(&self.key), self.value, self.expiry_ms)
    }
}

/// Everything a server or cluster holds.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Keyspace(BTreeMap<Bytes, Snapshot>);

impl Keyspace {
    /// The part whose keys satisfy a condition.
    pub fn filter(&self, keep: impl Fn(&[u8], &Snapshot) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(key, entry)| keep(key, entry))
                .map(|(key, entry)| (key.clone(), entry.clone()))
                .collect(),
        )
    }

    /// How another keyspace differs, one line a key.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let keys: BTreeSet<&Bytes> = self.0.keys().chain(other.0.keys()).collect();
        let differ = keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key));
        differ.map(|key| format!("{}: {:?} → {:?}", shown(key), self.0.get(key), other.0.get(key))).collect()
    }

    /// Panics unless both are equal, naming the first ten differences.
    #[track_caller]
    pub fn assert_same(&self, other: &Self, what: &str) {
        let differences = self.differences(other);
        let (count, first) = (differences.len(), differences.iter().take(10).cloned().collect::<Vec<_>>().join("\n"));
        assert!(differences.is_empty(), "{what}: {count} keys differ, among them\n{first}");
    }
}

impl Deref for Keyspace {
    type Target = BTreeMap<Bytes, Snapshot>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl FromIterator<Entry> for Keyspace {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let pair = |entry: Entry| (entry.key, Snapshot { value: entry.value, expiry_ms: entry.expiry_ms });
        Self(entries.into_iter().map(pair).collect())
    }
}

impl Extend<Entry> for Keyspace {
    fn extend<I: IntoIterator<Item = Entry>>(&mut self, entries: I) {
        self.0.extend(entries.into_iter().collect::<Self>().0);
    }
}

/// Only the number of keys: thousands of them would drown the message of a failed `assert_eq!`.
impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyspace of {} keys", self.0.len())
    }
}

/// A key for people: escaped where it is not plain text.
pub fn shown(key: &[u8]) -> String {
    let chunk = |chunk: Utf8Chunk| [chunk.valid().to_owned(), chunk.invalid().escape_ascii().to_string()];
    key.utf8_chunks().flat_map(chunk).collect()
}
