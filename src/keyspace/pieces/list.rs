//! Lists in pieces: elements by their index, by `LRANGE`.
//!
//! Owns that order counts, and how often an element comes.

use redis::{Cmd, cmd};

use crate::keyspace::command::Command;
use crate::keyspace::fault::Fault;
use crate::keyspace::pieces::contrast::Contrast;
use crate::keyspace::pieces::{Cursor, Shape};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::entry::Bytes;
use crate::model::key::RedisKey;

/// Elements in a row, and the index of the first.
pub(in crate::keyspace) struct Elements {
    from: u64,
    elements: Vec<Bytes>,
}

impl Elements {
    pub(super) async fn read(
        keyspace: &Keyspace,
        key: &RedisKey,
        shape: &Shape,
        cursor: &mut Cursor,
    ) -> Result<Self, Fault> {
        let from = if let Cursor::Index(from) = cursor { *from } else { 0 };
        let elements = range(keyspace, key, from, shape.step).await?;
        let read = elements.len() as u64;
        *cursor = if read < shape.step { Cursor::End } else { Cursor::Index(from + read) };
        Ok(Self { from, elements })
    }

    pub(super) fn addition(&self, to: &RedisKey) -> Option<Cmd> {
        (!self.elements.is_empty()).then(|| cmd("RPUSH").arg(to.as_bytes()).arg(&self.elements).take())
    }

    pub(super) async fn look_up(
        self,
        keyspace: &Keyspace,
        other: &RedisKey,
        contrast: &mut Contrast,
    ) -> Result<(), Fault> {
        if self.elements.is_empty() {
            return Ok(());
        }
        let mut found = range(keyspace, other, self.from, self.elements.len() as u64).await?.into_iter();
        for (index, ours) in (self.from..).zip(self.elements) {
            let theirs = found.next();
            if theirs.as_ref() != Some(&ours) {
                // In the order of the list.
                contrast.note(format!("{index:020}").as_bytes(), Some(ours), theirs);
            }
        }
        Ok(())
    }
}

/// So many elements, as far as there are.
async fn range(keyspace: &Keyspace, key: &RedisKey, from: u64, count: u64) -> Result<Vec<Bytes>, Fault> {
    let to = from + count.saturating_sub(1);
    value::bytes_list(keyspace.run_one(Command::on("LRANGE", key).arg(from).arg(to)).await?)
}
