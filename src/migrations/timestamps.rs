//! `002_timestamps`: `created_at` and `updated_at` of tenants and destinations become Unix milliseconds.
//!
//! Owns what counts as a time. `disabled_at` stays as it is, as Outpost reads it in either form and writes
//! the new one itself. Source: Outpost's migration of the same name, since v0.12.

use jiff::Timestamp;

use crate::migrations::{Applicability, InPlace, Migration, Rule, Scope, current};
use crate::model::change::{Change, FieldChange, Fields};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, Belongs, UnmigratedReason};

const TIMES: [&str; 2] = ["created_at", "updated_at"];

/// The migration `002_timestamps`.
#[derive(Debug)]
pub struct Timestamps;

impl Migration for Timestamps {
    fn name(&self) -> &'static str {
        "002_timestamps"
    }

    fn version(&self) -> u32 {
        2
    }

    fn description(&self) -> &'static str {
        "turns created_at and updated_at into Unix milliseconds"
    }

    fn is_applicable(&self, _: &Scope) -> Applicability {
        Applicability::Applicable
    }

    fn prefixes(&self, scope: &Scope) -> Vec<Vec<u8>> {
        current::prefixes(scope)
    }

    fn rule(&self) -> Rule<'_> {
        Rule::InPlace(self)
    }
}

impl InPlace for Timestamps {
    fn fields(&self) -> &'static [&'static str] {
        &[current::ID, current::DELETED_AT, "created_at", "updated_at"]
    }

    fn belongs(&self, scope: &Scope, key: &RedisKey, answers: &Answers) -> Belongs {
        current::belongs(scope, key, answers)
    }

    fn transform(&self, scope: &Scope, key: &RedisKey, hash: Option<&Fields>) -> Change {
        let (entity, hash) = match (current::entity_at(scope, key, hash), hash) {
            (Ok(entity), Some(hash)) => (entity.kind(), hash),
            (Ok(_), None) => return Change::NotOurs,
            (Err(decided), _) => return decided,
        };
        let mut fields = Vec::new();
        for name in TIMES {
            let Some(value) = hash.get(name) else { continue };
            match time(value) {
                Time::Number => {}
                Time::Rfc3339(millis) => {
                    fields.push(FieldChange { name, from: Some(value.to_vec()), to: millis.to_string().into_bytes() });
                }
                Time::Neither => return Change::Unmigrated(UnmigratedReason::NotATime),
            }
        }
        if fields.is_empty() { Change::AlreadyCurrent { entity } } else { Change::Set { fields, entity } }
    }
}

enum Time {
    /// A whole number, or nothing at all: left as it is.
    Number,
    /// RFC 3339, in Unix milliseconds.
    Rfc3339(i128),
    /// Something else.
    Neither,
}

fn time(value: &[u8]) -> Time {
    let Ok(text) = str::from_utf8(value) else { return Time::Neither };
    if text.is_empty() || text.parse::<i64>().is_ok() {
        return Time::Number;
    }
    match text.parse::<Timestamp>() {
        // Rounded down, before 1970 too, as Outpost does.
        Ok(at) => Time::Rfc3339(at.as_nanosecond().div_euclid(1_000_000)),
        Err(_) => Time::Neither,
    }
}

#[cfg(test)]
#[path = "timestamps_tests.rs"]
mod tests;
