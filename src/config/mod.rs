//! What a command is told about its Redis: flags > environment > one file > defaults.
//!
//! Owns the names that every setting has in every source, the order of the sources, and the way
//! from their texts to an endpoint, a scope and a policy that need no further check. Reads files and
//! nothing else: the environment is handed in. Refuses to connect anywhere, and never shows a
//! password.

mod dotenv;
mod environment;
mod error;
mod files;
mod flags;
mod layers;
mod material;
mod provenance;
mod resolve;
mod setting;
mod value;
mod yaml;

pub use environment::Environment;
pub use error::{ConfigurationError, Shown, ValueProblem};
pub use files::Folders;
pub use flags::ConfigurationFlags;
pub use provenance::{Effective, Provenance, Source};

use crate::keyspace::endpoint::RedisEndpoint;
use crate::migrations::Scope;
use crate::model::policy::{ConflictPolicy, MinReplicas};

/// What a command is told. Whoever has one reads no flag, variable or file.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The Redis to work on.
    pub endpoint: RedisEndpoint,
    /// What migrations are told about its keyspace.
    pub scope: Scope,
    /// What happens to a target that differs from its source.
    pub conflict_policy: ConflictPolicy,
    /// How many replicas of each primary must acknowledge.
    pub min_replicas: MinReplicas,
    /// Where each value came from.
    pub provenance: Provenance,
}

#[cfg(test)]
mod tests;
