//! What was read of the keys in question.
//!
//! Owns which fields are asked for, always the same two in the same order so that equal probes are
//! equal, and what they say; and what is asked of a key that needs no more than its id. Refuses to know key names.

use crate::migrations::hash_tags::{Decision, unmigrated};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answer, Answers, Mapping, Premise, Probe, UnmigratedReason};

const FIELDS: &[&str] = &["id", "deleted_at"];
const ID: &[&str] = &["id"];

/// The fields of a hash that tell what it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hash<'a> {
    /// Its `id`.
    pub(super) id: Option<&'a [u8]>,
    /// When it was deleted, if it is a tombstone.
    pub(super) deleted_at: Option<&'a [u8]>,
}

impl Hash<'_> {
    /// Whether its `id` is this one.
    pub(super) fn has_id(&self, id: &[u8]) -> bool {
        self.id == Some(id)
    }

    /// Whether nothing speaks against a summary. Its fields are named by destination ids, so it may
    /// have a field `id` or `deleted_at`; but each of its values is a JSON object.
    pub(super) fn may_be_summary(&self) -> bool {
        self.id.is_none_or(is_json_object) && self.deleted_at.is_none_or(is_json_object)
    }

    /// Whether it says when it was deleted but not what it was, as legacy tombstones do.
    pub(super) fn may_be_tombstone(&self) -> bool {
        self.id.is_none() && self.deleted_at.is_some_and(|value| !is_json_object(value))
    }
}

/// How many fields a hash has and whether it expires.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Number of fields.
    pub(super) fields: u64,
    /// Whether it ends by itself.
    pub(super) expires: bool,
}

/// Reads several keys in one round; `None` stands for a key of another type than a hash.
pub(super) fn hashes_at<'a>(keys: &[RedisKey], answers: &'a Answers) -> Decision<Vec<Option<Hash<'a>>>> {
    let mut found = Vec::with_capacity(keys.len());
    let mut missing = Vec::new();
    for key in keys {
        let probe = Probe::Fields { key: key.clone(), fields: FIELDS };
        match answers.get(&probe) {
            Some(answer) => found.push(as_hash(answer)),
            None => missing.push(probe),
        }
    }
    if missing.is_empty() { Ok(found) } else { Err(Mapping::Need(missing)) }
}

/// Reads a key that must be a hash.
pub(super) fn hash_at<'a>(key: &RedisKey, answers: &'a Answers) -> Decision<Hash<'a>> {
    match hashes_at(std::slice::from_ref(key), answers)?.first() {
        Some(Some(hash)) => Ok(*hash),
        _ => unmigrated(UnmigratedReason::WrongType),
    }
}

/// Supposes a hash with this `id`, or a summary or nothing at all without one, that was not deleted.
pub(super) fn suppose(answers: &mut Answers, key: RedisKey, id: Option<&[u8]>) {
    let values = vec![id.map(<[u8]>::to_vec), None];
    answers.insert(Probe::Fields { key, fields: FIELDS }, Answer::Fields(values));
}

/// That a key is a hash with this `id`, whatever else it holds.
pub(super) fn has_id(key: RedisKey, id: &[u8]) -> Option<Premise> {
    Premise::new(Probe::Fields { key, fields: ID }, Answer::Fields(vec![Some(id.to_vec())]))
}

/// Measures a hash. A key that has gone since it was scanned is nobody's any more.
pub(super) fn shape_at(key: &RedisKey, answers: &Answers) -> Decision<Shape> {
    let probe = Probe::Shape { key: key.clone() };
    match answers.get(&probe) {
        Some(Answer::Shape { fields: 0, .. }) => Err(Mapping::NotOurs),
        Some(&Answer::Shape { fields, expires }) => Ok(Shape { fields, expires }),
        Some(_) => unmigrated(UnmigratedReason::WrongType),
        None => Err(Mapping::Need(vec![probe])),
    }
}

fn as_hash(answer: &Answer) -> Option<Hash<'_>> {
    let Answer::Fields(values) = answer else {
        return None;
    };
    let value = |at: usize| values.get(at).and_then(Option::as_deref);
    Some(Hash { id: value(0), deleted_at: value(1) })
}

fn is_json_object(value: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(value).is_ok()
}
