//! What the text of a setting means.
//!
//! Owns one rule a setting, the same whatever source the text came from.

use std::net::IpAddr;

use super::error::{Shown, ValueProblem};
use crate::migrations::KeyLayout;
use crate::model::policy::{ConflictPolicy, MinReplicas};

/// Databases that a standalone server has by default.
const DATABASES: u8 = 16;

/// Longest deployment id, in characters.
const DEPLOYMENT_ID_LIMIT: usize = 63;

/// Longest host name, in bytes.
const HOST_LIMIT: usize = 253;

/// Names of the key layouts.
pub(super) const KEY_LAYOUTS: [(&str, KeyLayout); 2] =
    [("outpost", KeyLayout::Outpost), ("tenant-tag", KeyLayout::TenantTag)];

/// Names of the conflict policies.
pub(super) const CONFLICT_POLICIES: [(&str, ConflictPolicy); 3] = [
    ("fail", ConflictPolicy::Fail),
    ("prefer-source", ConflictPolicy::PreferSource),
    ("prefer-target", ConflictPolicy::PreferTarget),
];

pub(super) fn host(text: &str) -> Result<String, ValueProblem> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_name = name.len() <= HOST_LIMIT
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && !name.split('.').any(str::is_empty);
    if is_name || text.parse::<IpAddr>().is_ok() { Ok(text.to_owned()) } else { Err(ValueProblem::NotAHost) }
}

pub(super) fn port(text: &str) -> Result<u16, ValueProblem> {
    if text.starts_with("tcp://") {
        return Err(ValueProblem::ServiceLink(Shown::new(text)));
    }
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| ValueProblem::NotAPort(Shown::new(text)))
}

pub(super) fn database(text: &str) -> Result<u8, ValueProblem> {
    let database = text.parse().ok().filter(|number| *number < DATABASES);
    database.ok_or_else(|| ValueProblem::NotADatabase(Shown::new(text)))
}

pub(super) fn boolean(text: &str) -> Result<bool, ValueProblem> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(ValueProblem::NotABoolean(Shown::new(text))),
    }
}

pub(super) fn deployment_id(text: &str) -> Result<String, ValueProblem> {
    // Braces would move the hash tag of every key.
    if text.contains(|c: char| matches!(c, '{' | '}') || c.is_control()) {
        return Err(ValueProblem::NotADeploymentId);
    }
    if text.chars().count() > DEPLOYMENT_ID_LIMIT {
        return Err(ValueProblem::LongDeploymentId);
    }
    Ok(text.to_owned())
}

pub(super) fn key_layout(text: &str) -> Result<KeyLayout, ValueProblem> {
    choice(text, &KEY_LAYOUTS)
}

pub(super) fn conflict_policy(text: &str) -> Result<ConflictPolicy, ValueProblem> {
    choice(text, &CONFLICT_POLICIES)
}

pub(super) fn min_replicas(text: &str) -> Result<MinReplicas, ValueProblem> {
    text.parse().map(MinReplicas::Exactly).map_err(|_| ValueProblem::NotACountOfReplicas(Shown::new(text)))
}

/// The name of a choice, as it would be typed.
pub(super) fn name_of<T: PartialEq>(choice: &T, choices: &[(&'static str, T)]) -> &'static str {
    choices.iter().find(|(_, other)| other == choice).map_or("", |(name, _)| name)
}

fn choice<T: Copy>(text: &str, choices: &[(&'static str, T)]) -> Result<T, ValueProblem> {
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    found.ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        ValueProblem::NotAChoice { given: Shown::new(text), choices: names.join(", ") }
    })
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
