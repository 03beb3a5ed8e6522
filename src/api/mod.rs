//! The resource `RedisMigration`: its schema, its status, its conditions, and the request made of it.
//!
//! Owns every word a person writes into or reads from the resource. Refuses to act on it: no
//! Redis, no API server, no clock. After [`request`] has parsed a resource, nobody reads the raw
//! spec again.

pub mod allowed_hosts;
pub mod conditions;
pub mod crd;
mod duration;
pub mod reading;
pub mod redis_target;
pub mod rejected;
pub mod request;
pub mod v1alpha1;
