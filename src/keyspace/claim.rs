//! A key by which one process of many claims some work for itself.
//!
//! Owns taking, renewing and giving back such a key. It is no lock: nothing may rest on holding it.

use std::time::Duration;

use redis::Value;

use crate::keyspace::command::Command;
use crate::keyspace::fault::Fault;
use crate::keyspace::router::Keyspace;
use crate::keyspace::{script, value};
use crate::model::key::RedisKey;

impl Keyspace {
    /// Sets a key to `value` for `life` unless it exists. Returns whether it holds `value` now. A command without a
    /// script, so that a user who may not write is told so plainly.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn claim(&self, key: &RedisKey, value: &[u8], life: Duration) -> Result<bool, Fault> {
        let set = Command::on("SET", key).arg(value).arg("NX").arg("PX").arg(millis(life));
        if self.run_one(set).await? != Value::Nil {
            return Ok(true);
        }
        // An answer that got lost made the command be sent again, and ours may be what stands there.
        let held = self.run_one(Command::on("GET", key)).await?;
        Ok(held != Value::Nil && value::bytes(held)? == value)
    }

    /// Extends the life of a claim if the key still holds `value`. Returns whether it does.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn renew_claim(&self, key: &RedisKey, value: &[u8], life: Duration) -> Result<bool, Fault> {
        let command = Command::script(&script::RENEW_LOCK, &[key]).arg(value).arg(millis(life));
        Ok(value::int(self.run_one(command).await?)? == 1)
    }

    /// Deletes a claim if the key still holds `value`. Returns whether it did.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn give_back_claim(&self, key: &RedisKey, value: &[u8]) -> Result<bool, Fault> {
        let command = Command::script(&script::RELEASE_LOCK, &[key]).arg(value);
        Ok(value::int(self.run_one(command).await?)? == 1)
    }
}

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
}
