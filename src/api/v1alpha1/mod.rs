//! Version `v1alpha1` of the resource; it grows by addition only.
//!
//! Owns the shape on the wire. Refuses to interpret it: that is [`crate::api::request`]'s job.

mod fixed;
pub mod record;
mod samples;
pub mod spec;
pub mod status;

pub use samples::Samples;
pub use spec::{RedisMigration, RedisMigrationSpec};
pub use status::RedisMigrationStatus;

/// A changed value of this annotation retries, re-plans or re-verifies now.
pub const REQUESTED_AT_ANNOTATION: &str = "migrate.outpost.dev/requestedAt";
