//! What an in-place migration answers about one entry.
//!
//! Owns the fields that such a migration is shown and the changes it asks for, each with the value that
//! the change was decided on. Its `Debug` shows no value.

use std::fmt;

use crate::model::difference::FieldNames;
use crate::model::entry::{Bytes, Value};
use crate::model::mapping::UnmigratedReason;

/// What is to be done with one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Fields of a hash are to be set.
    Set {
        /// Which, and on what condition.
        fields: Vec<FieldChange>,
        /// What the entry is, in the migration's terms ("tenant").
        entity: &'static str,
    },
    /// The entry already has the form that this migration brings about.
    AlreadyCurrent {
        /// What the entry is, in the migration's terms ("tenant").
        entity: &'static str,
    },
    /// An entry that no rule covers; it is never touched.
    Unmigrated(UnmigratedReason),
    /// An entry of no interest to this migration.
    NotOurs,
}

/// One field that is to be set if it still holds what was read.
#[derive(Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// The field.
    pub name: &'static str,
    /// The value that was read; `None`: the hash had no such field.
    pub from: Option<Bytes>,
    /// The value to set.
    pub to: Bytes,
}

impl fmt::Debug for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map_or(0, Vec::len);
        write!(f, "{} ({from} bytes to {})", self.name, self.to.len())
    }
}

/// The names of the fields that changes set.
#[must_use]
pub fn names(changes: &[FieldChange]) -> FieldNames {
    FieldNames::new(changes.iter().map(|change| change.name.as_bytes()))
}

/// The fields of a hash that a migration asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields {
    names: &'static [&'static str],
    values: Vec<Option<Bytes>>,
}

impl Fields {
    /// Fields by what `HMGET` answers for these names.
    #[must_use]
    pub fn new(names: &'static [&'static str], values: Vec<Option<Bytes>>) -> Self {
        Self { names, values }
    }

    /// The fields of a value, if it is a hash.
    #[must_use]
    pub fn of(value: &Value, names: &'static [&'static str]) -> Option<Self> {
        let fields = value.as_hash()?;
        Some(Self::new(names, names.iter().map(|name| fields.get(name.as_bytes()).cloned()).collect()))
    }

    /// A field's value, if the hash has the field. Only names that the migration asked for are known.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let at = self.names.iter().position(|known| *known == name)?;
        self.values.get(at)?.as_deref()
    }

    /// Whether the hash has none of the fields; the key may be gone then.
    #[must_use]
    pub fn are_absent(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = self.names.iter().filter(|name| self.get(name).is_some());
        f.debug_list().entries(present).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let change = FieldChange { name: "created_at", from: Some(b"canary".to_vec()), to: b"canary!".to_vec() };
        assert_eq!(format!("{change:?}"), "created_at (6 bytes to 7)");
        let fields = Fields::new(&["id", "entity"], vec![Some(b"canary".to_vec()), None]);
        assert_eq!(format!("{fields:?}"), "[\"id\"]");
        assert_eq!((fields.get("id"), fields.get("entity")), (Some(&b"canary"[..]), None));
    }
}
