//! Hashes in pieces: fields with their values, by `HSCAN`.
//!
//! Refuses to copy fields with an expiry of their own, which Redis 7.4 and Valkey 9 know.

use redis::{Cmd, cmd};

use crate::keyspace::command::Command;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::pieces::contrast::Contrast;
use crate::keyspace::pieces::{Cursor, Shape};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::entry::Bytes;
use crate::model::key::RedisKey;

const EXPIRING: &str = "it has fields with an expiry of their own; let them expire, or HPERSIST them";

/// Some fields of a hash.
pub(in crate::keyspace) struct Fields {
    pairs: Vec<(Bytes, Bytes)>,
    /// Fields with an expiry of their own.
    expiring: Vec<Bytes>,
}

impl Keyspace {
    /// Servers before 7.4 do not know the command.
    pub(super) async fn fields_may_expire(&self, key: &RedisKey) -> Result<bool, Fault> {
        let ask = Command::on("HPEXPIRETIME", key).arg("FIELDS").arg(1).arg("id");
        match self.run_one(ask).await {
            Err(fault) if fault.class == FaultClass::UnknownCommand => Ok(false),
            other => other.map(|_| true),
        }
    }
}

impl Fields {
    pub(super) async fn read(
        keyspace: &Keyspace,
        key: &RedisKey,
        shape: &Shape,
        cursor: &mut Cursor,
    ) -> Result<Self, Fault> {
        let pairs = value::two_by_two(keyspace.scan_step("HSCAN", key, shape, cursor).await?);
        let mut expiring = Vec::new();
        if shape.fields_may_expire && !pairs.is_empty() {
            let names: Vec<&Bytes> = pairs.iter().map(|(field, _)| field).collect();
            let ask = Command::on("HPEXPIRETIME", key).arg("FIELDS").arg(names.len()).arg(&names);
            for ((field, _), at) in pairs.iter().zip(value::list(keyspace.run_one(ask).await?)?) {
                if value::int(at)? >= 0 {
                    expiring.push(field.clone());
                }
            }
        }
        Ok(Self { pairs, expiring })
    }

    pub(super) fn obstacle(&self) -> Option<&'static str> {
        (!self.expiring.is_empty()).then_some(EXPIRING)
    }

    pub(super) fn addition(&self, to: &RedisKey) -> Option<Cmd> {
        let mut add = cmd("HSET").arg(to.as_bytes()).take();
        for (field, content) in &self.pairs {
            add.arg(field).arg(content);
        }
        (!self.pairs.is_empty()).then_some(add)
    }

    pub(super) async fn look_up(
        self,
        keyspace: &Keyspace,
        other: &RedisKey,
        contrast: &mut Contrast,
    ) -> Result<(), Fault> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let names: Vec<&Bytes> = self.pairs.iter().map(|(field, _)| field).collect();
        let found = keyspace.answers_about(Command::on("HMGET", other).arg(&names), names.len()).await?;
        for ((field, ours), theirs) in self.pairs.into_iter().zip(found) {
            let theirs = value::bytes_if_any(theirs)?;
            // An expiry of a single field is nothing that a lookup can prove equal.
            if self.expiring.contains(&field) || theirs.as_ref() != Some(&ours) {
                let theirs = theirs.filter(|theirs| *theirs != ours);
                contrast.note(&field, Some(ours), theirs);
            }
        }
        Ok(())
    }
}
