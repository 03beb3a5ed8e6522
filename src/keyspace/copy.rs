//! Copies entries to keys that do not exist yet.
//!
//! Owns both ways of copying: `COPY` inside one server, `RESTORE` of an atomically read payload between
//! primaries. Never replaces anything.

use redis::Value;

use crate::keyspace::command::Command;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::read::Payload;
use crate::keyspace::value;
use crate::keyspace::writer::Writer;
use crate::model::key::RedisKey;

/// What became of one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The target was made now.
    Made,
    /// The target exists already; it was not touched.
    TargetExists,
    /// The source does not exist (any more).
    SourceGone,
}

impl Writer {
    /// Copies each source to its target with type, value and absolute expiry, unless the target exists.
    ///
    /// # Errors
    /// The first fault that stayed; other copies of the batch may have been made.
    pub async fn copy(&self, pairs: &[(RedisKey, RedisKey)]) -> Result<Vec<Copied>, Fault> {
        if self.endpoint().cluster { self.copy_across(pairs).await } else { self.copy_within(pairs).await }
    }

    async fn copy_within(&self, pairs: &[(RedisKey, RedisKey)]) -> Result<Vec<Copied>, Fault> {
        let commands =
            pairs.iter().map(|(source, target)| Command::on("COPY", source).arg(target.as_bytes())).collect();
        let mut results = Vec::with_capacity(pairs.len());
        let mut refused = Vec::new();
        for (index, answer) in self.run(commands).await.into_iter().enumerate() {
            if value::int(answer?)? == 1 {
                results.push(Copied::Made);
            } else {
                // COPY answers 0 both for a missing source and for an existing target.
                results.push(Copied::TargetExists);
                refused.push(index);
            }
        }
        let sources: Vec<RedisKey> = refused.iter().map(|&index| pairs[index].0.clone()).collect();
        for (index, exists) in refused.into_iter().zip(self.exist(&sources).await?) {
            if !exists {
                results[index] = Copied::SourceGone;
            }
        }
        Ok(results)
    }

    async fn copy_across(&self, pairs: &[(RedisKey, RedisKey)]) -> Result<Vec<Copied>, Fault> {
        let sources: Vec<RedisKey> = pairs.iter().map(|(source, _)| source.clone()).collect();
        let payloads = self.payloads(&sources).await?;
        let mut results = vec![Copied::SourceGone; pairs.len()];
        let mut read = Vec::with_capacity(pairs.len());
        for ((index, (_, target)), payload) in pairs.iter().enumerate().zip(payloads) {
            read.extend(payload.map(|payload| (index, (target, payload))));
        }
        let (indexes, restores): (Vec<usize>, Vec<_>) = read.into_iter().unzip();
        for (index, copied) in indexes.into_iter().zip(self.restore(restores).await?) {
            results[index] = copied;
        }
        Ok(results)
    }

    /// Writes each payload to its key, unless that exists.
    pub(super) async fn restore(&self, payloads: Vec<(&RedisKey, Payload)>) -> Result<Vec<Copied>, Fault> {
        // An expiry that passed meanwhile makes RESTORE say OK and create nothing, which is right.
        let command = |(target, payload): (&RedisKey, Payload)| {
            Command::on("RESTORE", target).arg(payload.expiry.restore_ttl()).arg(payload.bytes).arg("ABSTTL")
        };
        let restored = self.run(payloads.into_iter().map(command).collect()).await;
        restored
            .into_iter()
            .map(|answer| match answer {
                Ok(Value::Okay) => Ok(Copied::Made),
                Ok(_) => Err(value::unexpected()),
                Err(fault) if fault.class == FaultClass::TargetExists => Ok(Copied::TargetExists),
                Err(fault) => Err(fault),
            })
            .collect()
    }
}
