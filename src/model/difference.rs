//! In what way an entry is not what it should be.
//!
//! Owns the words for it: types, expiries and field names, shortened and escaped. Refuses to hold a value.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::model::entry::{Bytes, Entry, Value};
use crate::model::key::RedisKey;

/// Most field names that one difference tells.
const NAMES_LIMIT: usize = 8;

/// How an entry differs from what it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Difference {
    /// The target does not exist.
    Missing,
    /// The target has another type.
    Type,
    /// These fields of a hash differ, or only one side has them.
    Fields(FieldNames),
    /// The value of another type than a hash differs.
    Value,
    /// Same value, another expiry.
    Expiry,
    /// The migration would still change these fields.
    Unchanged(FieldNames),
}

/// Names of fields, smallest first: at most eight, and how many more there are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FieldNames {
    /// The names, escaped and shortened as keys are.
    pub fields: Vec<String>,
    /// How many more fields are meant.
    pub more: usize,
}

impl FieldNames {
    /// The names of these fields.
    pub fn new<'n>(names: impl Iterator<Item = &'n [u8]>) -> Self {
        let mut fields = Vec::new();
        let mut more = 0;
        for name in names {
            if fields.len() < NAMES_LIMIT {
                fields.push(RedisKey::new(name).to_string());
            } else {
                more += 1;
            }
        }
        Self { fields, more }
    }
}

impl Difference {
    /// How `target` differs from `source`, if it does.
    #[must_use]
    pub fn between(source: &Entry, target: &Entry) -> Option<Self> {
        if source.value == target.value {
            return (source.expiry != target.expiry).then_some(Self::Expiry);
        }
        Some(match (source.value.as_hash(), target.value.as_hash()) {
            (Some(_), Some(_)) => Self::Fields(differing(&source.value, &target.value)),
            _ if source.value.type_name() == target.value.type_name() => Self::Value,
            _ => Self::Type,
        })
    }

    /// How much differs: the number of fields, where fields are told.
    #[must_use]
    pub fn extent(&self) -> usize {
        match self {
            Self::Fields(names) | Self::Unchanged(names) => names.fields.len() + names.more,
            Self::Expiry => 0,
            Self::Missing | Self::Type | Self::Value => usize::MAX,
        }
    }
}

/// Names of fields of two hashes that differ in value or in when they end.
fn differing(source: &Value, target: &Value) -> FieldNames {
    let fields = |value: &Value| -> BTreeMap<Bytes, (Bytes, Option<i64>)> {
        let held = value.as_hash().into_iter().flatten();
        held.map(|(name, content)| (name.clone(), (content.clone(), value.field_end(name)))).collect()
    };
    let (source, target) = (fields(source), fields(target));
    let only_target = target.keys().filter(|name| !source.contains_key(*name));
    let changed = source.iter().filter(|(name, held)| target.get(*name) != Some(held)).map(|(name, _)| name);
    let mut names: Vec<&[u8]> = changed.chain(only_target).map(Vec::as_slice).collect();
    names.sort_unstable();
    FieldNames::new(names.into_iter())
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("target is missing"),
            Self::Type => f.write_str("target has another type"),
            Self::Fields(names) => write!(f, "differs in {names}"),
            Self::Value => f.write_str("target has another value"),
            Self::Expiry => f.write_str("target has another expiry"),
            Self::Unchanged(names) => write!(f, "{names} not migrated"),
        }
    }
}

impl fmt::Display for FieldNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fields.join(", "))?;
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entry::Expiry;

    fn hash(fields: &[(&str, &str)], expiry: Expiry) -> Entry {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        Entry { value: Value::Hash(fields), expiry }
    }

    #[test]
    fn a_difference_names_fields_and_no_values() {
        let source = hash(&[("a", "1"), ("b", "canary"), ("c", "3")], Expiry::Never);
        let target = hash(&[("a", "1"), ("b", "2"), ("d", "4")], Expiry::Never);
        let shown = Difference::between(&source, &target).map(|it| it.to_string());
        assert_eq!(shown.as_deref(), Some("differs in b, c, d"));
        assert_eq!(Difference::between(&source, &source), None);
        let later = hash(&[("a", "1"), ("b", "canary"), ("c", "3")], Expiry::At(5));
        assert_eq!(Difference::between(&source, &later), Some(Difference::Expiry));
        let text = Entry { value: Value::String(b"x".to_vec()), expiry: Expiry::Never };
        assert_eq!(Difference::between(&source, &text), Some(Difference::Type));
    }

    #[test]
    fn names_are_bounded() {
        let names: Vec<Vec<u8>> = (0..20).map(|n| format!("f{n:02}").into_bytes()).collect();
        let shown = FieldNames::new(names.iter().map(Vec::as_slice)).to_string();
        assert_eq!(shown, "f00, f01, f02, f03, f04, f05, f06, f07 and 12 more");
    }
}
