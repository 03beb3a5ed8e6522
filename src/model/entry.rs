//! An entry: a Redis value of any type with its expiry, in canonical form.
//!
//! Owns what "equal by value" means. Its `Debug` shows shapes only, so that no value can reach a
//! log. Refuses payload bytes as proof of difference (equal values may have different payloads).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Bytes of a field, member or element.
pub type Bytes = Vec<u8>;

/// When an entry ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// It does not end by itself.
    Never,
    /// It ends at this Unix time in milliseconds.
    At(i64),
}

impl Expiry {
    /// Reads the answer of `PEXPIRETIME` for an existing key: negative means no expiry.
    #[must_use]
    pub fn from_pexpiretime(answer: i64) -> Self {
        if answer < 0 { Self::Never } else { Self::At(answer) }
    }

    /// The `ttl` argument of `RESTORE … ABSTTL`: 0 means no expiry.
    #[must_use]
    pub fn restore_ttl(self) -> i64 {
        match self {
            Self::Never => 0,
            Self::At(at) => at,
        }
    }

    /// Whether the end is at or before `now` (Unix milliseconds).
    #[must_use]
    pub fn has_passed(self, now: i64) -> bool {
        match self {
            Self::Never => false,
            Self::At(at) => at <= now,
        }
    }
}

/// A value in canonical form: two values are equal exactly if Redis clients can't tell them apart.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    String(Bytes),
    /// A hash.
    Hash(BTreeMap<Bytes, Bytes>),
    /// A hash of which single fields end by themselves (Redis 7.4, Valkey 9).
    ExpiringHash {
        /// All fields with their values.
        fields: BTreeMap<Bytes, Bytes>,
        /// The fields that end, and when (Unix milliseconds).
        ends: BTreeMap<Bytes, i64>,
    },
    /// A list; order matters.
    List(Vec<Bytes>),
    /// A set.
    Set(BTreeSet<Bytes>),
    /// A sorted set: member and score as Redis prints it.
    SortedSet(BTreeMap<Bytes, Bytes>),
    /// A stream: entries in order, then its groups and counters as Redis describes them.
    Stream {
        /// Entries in order: id, then fields and values alternating.
        entries: Vec<(Bytes, Vec<Bytes>)>,
        /// Last id, counters, groups, consumers and pending entries, flattened in a fixed order.
        groups: Vec<Bytes>,
    },
    /// A type that only its module understands: equal only if type and payload are.
    Module {
        /// The type's name as `TYPE` answers it.
        type_name: Bytes,
        /// The payload that `DUMP` answers.
        payload: Bytes,
    },
}

impl Value {
    /// The fields of a hash, whether they end or not.
    #[must_use]
    pub fn as_hash(&self) -> Option<&BTreeMap<Bytes, Bytes>> {
        match self {
            Self::Hash(fields) | Self::ExpiringHash { fields, .. } => Some(fields),
            Self::String(_)
            | Self::List(_)
            | Self::Set(_)
            | Self::SortedSet(_)
            | Self::Stream { .. }
            | Self::Module { .. } => None,
        }
    }

    /// When a field of a hash ends by itself, if it does.
    #[must_use]
    pub fn field_end(&self, name: &[u8]) -> Option<i64> {
        match self {
            Self::ExpiringHash { ends, .. } => ends.get(name).copied(),
            _ => None,
        }
    }

    /// The type's name as Redis' `TYPE` answers it; modules answer their own.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::String(_) => "string",
            Self::Hash(_) | Self::ExpiringHash { .. } => "hash",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
            Self::Stream { .. } => "stream",
            Self::Module { .. } => "module",
        }
    }

    /// Number of members, fields, elements or entries; 1 for a string or a module's value.
    #[must_use]
    pub fn members(&self) -> usize {
        match self {
            Self::String(_) | Self::Module { .. } => 1,
            Self::Hash(fields) | Self::ExpiringHash { fields, .. } | Self::SortedSet(fields) => fields.len(),
            Self::List(elements) => elements.len(),
            Self::Set(members) => members.len(),
            Self::Stream { entries, .. } => entries.len(),
        }
    }

    /// Bytes of all members together, without Redis' own overhead.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::String(bytes) | Self::Module { payload: bytes, .. } => bytes.len(),
            Self::Hash(fields) | Self::ExpiringHash { fields, .. } | Self::SortedSet(fields) => {
                fields.iter().map(|(name, value)| name.len() + value.len()).sum()
            }
            Self::List(elements) => elements.iter().map(Vec::len).sum(),
            Self::Set(members) => members.iter().map(Vec::len).sum(),
            Self::Stream { entries, .. } => {
                entries.iter().map(|(id, fields)| id.len() + fields.iter().map(Vec::len).sum::<usize>()).sum()
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} members, {} bytes)", self.type_name(), self.members(), self.bytes())
    }
}

/// A value with its expiry, read in one atomic step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// When it ends.
    pub expiry: Expiry,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_never_equals_no_expiry() {
        assert_ne!(Expiry::from_pexpiretime(-1), Expiry::from_pexpiretime(0));
        assert!(!Expiry::Never.has_passed(i64::MAX));
        assert!(Expiry::At(5).has_passed(5));
    }

    #[test]
    fn debug_shows_no_value() {
        let fields = BTreeMap::from([(b"credentials".to_vec(), b"canary".to_vec())]);
        let shown = format!("{:?}", Entry { value: Value::Hash(fields), expiry: Expiry::Never });
        assert!(!shown.contains("canary") && !shown.contains("credentials"), "{shown}");
    }
}
