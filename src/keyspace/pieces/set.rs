//! Sets in pieces: members, by `SSCAN`.

use redis::{Cmd, cmd};

use crate::keyspace::command::Command;
use crate::keyspace::fault::Fault;
use crate::keyspace::pieces::contrast::Contrast;
use crate::keyspace::pieces::{Cursor, Shape};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::entry::Bytes;
use crate::model::key::RedisKey;

/// Some members of a set.
pub(in crate::keyspace) struct Members(Vec<Bytes>);

impl Members {
    pub(super) async fn read(
        keyspace: &Keyspace,
        key: &RedisKey,
        shape: &Shape,
        cursor: &mut Cursor,
    ) -> Result<Self, Fault> {
        keyspace.scan_step("SSCAN", key, shape, cursor).await.map(Self)
    }

    pub(super) fn addition(&self, to: &RedisKey) -> Option<Cmd> {
        (!self.0.is_empty()).then(|| cmd("SADD").arg(to.as_bytes()).arg(&self.0).take())
    }

    pub(super) async fn look_up(
        self,
        keyspace: &Keyspace,
        other: &RedisKey,
        contrast: &mut Contrast,
    ) -> Result<(), Fault> {
        if self.0.is_empty() {
            return Ok(());
        }
        let ask = Command::on("SMISMEMBER", other).arg(&self.0);
        for (member, is_held) in self.0.iter().zip(keyspace.answers_about(ask, self.0.len()).await?) {
            if value::int(is_held)? != 1 {
                contrast.note(member, Some(Bytes::new()), None);
            }
        }
        Ok(())
    }
}
