//! What the tests expect `001_hash_tags` (key layout `Outpost`) to do with an entry.
//!
//! Written from the description of the keys alone, so that it is a second opinion on the product's
//! rules. It looks at one entry; what depends on others (a tenant with a braced id) is for the test
//! that makes such a tenant.

use super::value::{Bytes, Value};

/// Which of three things a key is to the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A source key: it has a target.
    Source,
    /// A key in current form.
    Current,
    /// Neither: unmigrated, or not Outpost's at all.
    Other,
}

/// What a key is.
pub fn kind(key: &[u8], value: &Value) -> Kind {
    if expected_target(key, value).is_some() {
        Kind::Source
    } else if is_current(key) {
        Kind::Current
    } else {
        Kind::Other
    }
}

/// The key under which an entry belongs after the migration, if it is to be migrated.
pub fn expected_target(key: &[u8], value: &Value) -> Option<Bytes> {
    let rest = key.strip_prefix(b"tenant:")?;
    let Value::Hash(fields) = value else { return None };
    if is_current(key) || rest.is_empty() {
        return None;
    }
    let id = value.field("id");
    let is_tombstone = fields.len() == 1 && value.field("deleted_at").is_some();
    if id == Some(rest) {
        return Some(target(rest, b"tenant"));
    }
    if let Some((tenant, destination)) = split(rest, b":destination:")
        && (id == Some(destination) || is_tombstone)
    {
        return Some(target(tenant, &[b"destination:", destination].concat()));
    }
    match rest.strip_suffix(b":destinations") {
        Some(tenant) if id.is_none() && !tenant.is_empty() && is_summary(fields) => {
            Some(target(tenant, b"destinations"))
        }
        _ if is_tombstone => Some(target(rest, b"tenant")),
        _ => None,
    }
}

/// Whether a key has the form `tenant:{…}:tenant`, `:destinations` or `:destination:…`.
pub fn is_current(key: &[u8]) -> bool {
    let Some(rest) = key.strip_prefix(b"tenant:{") else { return false };
    rest.ends_with(b"}:tenant") || rest.ends_with(b"}:destinations") || split(rest, b"}:destination:").is_some()
}

fn is_summary(fields: &std::collections::BTreeMap<Bytes, Bytes>) -> bool {
    fields.values().all(|value| serde_json::from_slice::<serde_json::Value>(value).is_ok_and(|json| json.is_object()))
}

fn target(tenant: &[u8], rest: &[u8]) -> Bytes {
    [b"tenant:{", tenant, b"}:", rest].concat()
}

/// Splits at the last occurrence of a separator; both parts must hold something.
fn split<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(separator.len()).rposition(|window| window == separator)?;
    let (left, right) = (&text[..at], &text[at + separator.len()..]);
    (!left.is_empty() && !right.is_empty()).then_some((left, right))
}
