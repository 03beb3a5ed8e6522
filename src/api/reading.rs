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
    let spec: RedisMigrationSpec = match decode(&object.data, "spec") {
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

/// The path of the field that can't be decoded, and what is wrong there.
type Undecoded = (String, String);

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
    fn a_status_from_the_future_is_told_apart_from_its_spec() {
        let resource = json!({ "metadata": {}, "spec": spec(), "status": { "phase": "RollingBack" } });
        let Reading::Unknown(rejected) = read_json(resource) else { panic!("it was read") };
        assert_eq!(rejected, Rejected::NewerStatus { field: "status.phase".to_owned() });
    }
}
