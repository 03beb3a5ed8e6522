//! A resource as the API server holds it, decoded here rather than by the client library.
//!
//! Owns the message about what this version can't decode: a newer definition may take values that an older operator
//! does not know, and one such object must neither stop the others nor get its body into a log.

use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::rejected::Rejected;
use super::v1alpha1::{RedisMigration, RedisMigrationSpec, RedisMigrationStatus};
use crate::model::plan::PLAN_VERSION;

/// Longest part of a decoder's message that is passed on, in characters; it may quote the value.
const PROBLEM_LIMIT: usize = 200;

/// A resource, or what stands in the way of reading it.
#[derive(Debug, Clone)]
pub enum Reading {
    /// Spec and status are understood.
    Whole(Box<RedisMigration>),
    /// Something that this version does not know.
    Unknown(Rejected),
}

/// Reads a resource.
#[must_use]
pub fn read(object: &DynamicObject) -> Reading {
    let spec: RedisMigrationSpec = match decode(&object.data, "spec").and_then(|spec| know_all(&object.data, spec)) {
        Ok(spec) => spec,
        Err((field, problem)) => return Reading::Unknown(Rejected::Undecodable { field, problem }),
    };
    let status: Option<RedisMigrationStatus> = match decode(&object.data, "status") {
        Ok(status) => status,
        // Nobody but an operator writes it, and each knows what it writes.
        Err((field, _)) => return Reading::Unknown(Rejected::NewerStatus { field }),
    };
    let plan_version = status.as_ref().and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.plan_version);
    if i64::from(plan_version) > i64::from(PLAN_VERSION) {
        return Reading::Unknown(Rejected::NewerStatus { field: "status.plan.planVersion".to_owned() });
    }
    Reading::Whole(Box::new(RedisMigration { metadata: object.metadata.clone(), spec, status }))
}

/// The resource with another status. Fields of a newer operator that `before`, as it was read, has no place for stay.
///
/// # Errors
/// When it can't be written as JSON.
pub fn with_status(
    object: &DynamicObject,
    before: &RedisMigrationStatus,
    next: &RedisMigrationStatus,
) -> Result<DynamicObject, serde_json::Error> {
    let (understood, mut status) = (serde_json::to_value(before)?, serde_json::to_value(next)?);
    let raw = object.data.get("status").and_then(Value::as_object);
    for (name, value) in raw.into_iter().flatten() {
        if understood.get(name).is_none() && status.get(name).is_none() && !value.is_null() {
            status[name] = value.clone();
        }
    }
    let mut object = object.clone();
    object.data["status"] = status;
    Ok(object)
}

/// The path of the field that can't be decoded, and what is wrong there.
type Undecoded = (String, String);

/// A field of a newer definition may forbid what this version would do without it.
fn know_all(data: &Value, spec: RedisMigrationSpec) -> Result<RedisMigrationSpec, Undecoded> {
    let mut unknown = None;
    let raw = data.get("spec").unwrap_or(&Value::Null);
    let note = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| format!("spec.{path}"));
    };
    // It was decoded before.
    let _: Result<RedisMigrationSpec, _> = serde_ignored::deserialize(raw, note);
    match unknown {
        None => Ok(spec),
        Some(field) => Err((field, "unknown field".to_owned())),
    }
}

fn decode<T: DeserializeOwned>(data: &Value, part: &str) -> Result<T, Undecoded> {
    let value = data.get(part).unwrap_or(&Value::Null);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { part.to_owned() } else { format!("{part}.{path}") };
        let problem = error.into_inner().to_string();
        (field, problem.chars().take(PROBLEM_LIMIT).collect())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_json(resource: Value) -> Reading {
        read(&serde_json::from_value(resource).expect("an object"))
    }

    fn spec() -> Value {
        json!({ "migration": "001_hash_tags", "redis": { "host": "redis" } })
    }

    #[test]
    fn what_is_known_is_read_whole() {
        let resource = json!({ "metadata": { "name": "n" }, "spec": spec(), "status": { "phase": "Applying" } });
        assert!(matches!(read_json(resource), Reading::Whole(read) if read.spec.redis.host == "redis"));
        let fresh = json!({ "metadata": { "name": "n" }, "spec": spec() });
        assert!(matches!(read_json(fresh), Reading::Whole(read) if read.status.is_none()));
    }

    #[test]
    fn a_value_from_the_future_is_named_with_its_path() {
        let mut spec = spec();
        spec["cleanup"] = json!({ "diverged": "Archive" });
        let Reading::Unknown(rejected) = read_json(json!({ "metadata": {}, "spec": spec })) else {
            panic!("it was read")
        };
        let message = rejected.to_string();
        assert!(message.starts_with("spec.cleanup.diverged: unknown variant `Archive`"), "{message}");
    }

    #[test]
    fn a_field_from_the_future_is_named_with_its_path() {
        let mut spec = spec();
        spec["cleanup"] = json!({ "after": "1h", "keepTenants": ["a"] });
        let Reading::Unknown(rejected) = read_json(json!({ "metadata": {}, "spec": spec })) else {
            panic!("it was read")
        };
        assert!(rejected.to_string().starts_with("spec.cleanup.keepTenants: unknown field"), "{rejected}");
    }

    #[test]
    fn fields_of_a_newer_status_stay_and_ours_go_when_they_are_over() {
        let resource = json!({
            "metadata": {}, "spec": spec(),
            "status": { "phase": "Applying", "progress": { "step": "apply" }, "rollback": { "to": "x" } },
        });
        let object: DynamicObject = serde_json::from_value(resource).expect("an object");
        let Reading::Whole(resource) = read(&object) else { panic!("it was not read") };
        let before = resource.status.expect("a status");
        let next = RedisMigrationStatus { progress: None, ..before.clone() };
        let written = with_status(&object, &before, &next).expect("JSON");
        assert_eq!(written.data["status"], json!({ "phase": "Applying", "rollback": { "to": "x" } }));
    }

    #[test]
    fn a_status_from_the_future_is_told_apart_from_its_spec() {
        let resource = json!({ "metadata": {}, "spec": spec(), "status": { "phase": "RollingBack" } });
        let Reading::Unknown(rejected) = read_json(resource) else { panic!("it was read") };
        assert_eq!(rejected, Rejected::NewerStatus { field: "status.phase".to_owned() });
    }
}
