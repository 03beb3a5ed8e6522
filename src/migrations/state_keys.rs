//! Names of the keys in which Outpost and its tools keep migration state and locks.
//!
//! Sources: Outpost's `internal/migrator` (state `outpost:migration:<name>`), the documented lock
//! name, the name the earlier tool really takes, and Outpost's own since v0.16.

use crate::model::key::RedisKey;

/// Prefix of what the engine stages while copying.
pub const STAGING_PREFIX: &str = "outpost:migration:staging:";

/// Names of state and lock keys for one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateKeys {
    prefix: String,
}

impl StateKeys {
    /// Names for a deployment id, or for a keyspace without one.
    #[must_use]
    pub fn new(deployment_id: Option<&str>) -> Self {
        Self { prefix: deployment_id.map(|id| format!("{id}:")).unwrap_or_default() }
    }

    /// The state hash of a migration.
    #[must_use]
    pub fn mark(&self, migration: &str) -> RedisKey {
        RedisKey::from(format!("{}outpost:migration:{migration}", self.prefix))
    }

    /// The hash of a run under way, in the slot of the migration's state hash.
    #[must_use]
    pub fn run(&self, migration: &str) -> RedisKey {
        RedisKey::from(format!("{{{}outpost:migration:{migration}}}:run", self.prefix))
    }

    /// Claimed by the gate that compares everything behind another tool's mark, so that others need not.
    #[must_use]
    pub fn gate_claim(&self) -> RedisKey {
        RedisKey::from(format!("{}outpost:migration:gate", self.prefix))
    }

    /// Every name under which a tool may hold the lock, in the order in which they are taken.
    #[must_use]
    pub fn locks(&self) -> Vec<RedisKey> {
        vec![
            RedisKey::from("outpost:migration:lock"),
            RedisKey::from(".outpost:migration:lock"),
            RedisKey::from(format!("{}.outpost:migration_lock", self.prefix)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::slot::slot_of;

    #[test]
    fn run_and_mark_share_a_slot() {
        for deployment in [None, Some("dp_001")] {
            let keys = StateKeys::new(deployment);
            assert_eq!(slot_of(&keys.run("001_hash_tags")), slot_of(&keys.mark("001_hash_tags")));
        }
    }

    #[test]
    fn locks_are_the_three_that_tools_take() {
        let locks = StateKeys::new(Some("dp_001")).locks();
        let names: Vec<String> = locks.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["outpost:migration:lock", ".outpost:migration:lock", "dp_001:.outpost:migration_lock"]);
    }
}
