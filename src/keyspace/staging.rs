//! Copies huge entries in pieces by way of a staging key, and holds the keys of a decision with `WATCH`.
//!
//! Owns the staging key: made in the target's slot, never without an expiry, renamed to the target in one
//! transaction. Its content is added over a connection of its own and never sent twice, so that no piece can land
//! in a later attempt.

use std::sync::atomic::{AtomicU64, Ordering};

use redis::{Cmd, Pipeline, Value, cmd};
use sha2::{Digest, Sha256};

use crate::keyspace::command::Command;
use crate::keyspace::compare::Comparison;
use crate::keyspace::connection::Connection;
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::pieces::{Cursor, Groups, Shape};
use crate::keyspace::value;
use crate::keyspace::writer::Writer;
use crate::model::entry::Expiry;
use crate::model::key::RedisKey;
use crate::model::slot::{hash_tag, slot_of};

/// How long an orphaned staging key stays.
const STAGING_LIFE_MILLIS: u64 = 60_000;

/// Commands of one transaction that fills a staging key.
const COMMANDS_AT_ONCE: usize = 1_000;

/// Times that a source is copied anew because it changed meanwhile.
const ATTEMPTS: usize = 3;

/// Tells the attempts of one process apart.
static ATTEMPT: AtomicU64 = AtomicU64::new(0);

/// What became of a copy in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staged {
    /// The target is the source's copy now.
    Made,
    /// The target exists already; it was not touched.
    TargetExists,
    /// The source does not exist (any more).
    SourceGone,
    /// Source or target kept changing; nothing was made.
    Changing,
    /// Somebody asked to stop; nothing was made.
    Interrupted,
    /// It can't be copied in pieces exactly, for this reason.
    Impossible(&'static str),
}

/// What stands at the target before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Nothing may stand there.
    Nothing,
    /// What stands there differs from the source, and is replaced if nobody touches it meanwhile.
    Stale,
}

/// Keys of one node whose change makes the transaction fail.
pub struct Watched {
    connection: Connection,
    node: NodeAddress,
    undisturbed: u64,
    /// What of the keys `WATCH` does not watch.
    unwatched: Vec<(RedisKey, Groups)>,
}

impl Writer {
    /// Watches a key, and `also` where it lies on the same server. Groups of a stream are no part of what Redis
    /// watches: those of both are read now, and once more before anything is done.
    ///
    /// # Errors
    /// [`FaultClass::Disturbed`] if the node is another run of the server than the one known; the fault that
    /// kept it from answering.
    pub async fn watch(&self, key: &RedisKey, also: &RedisKey) -> Result<Watched, Fault> {
        let undisturbed = self.disturbances();
        let topology = self.topology().await;
        let owner = topology.owner(slot_of(key)).ok_or(Fault::new(FaultClass::ClusterDown))?;
        let connection = self.borrow_connection(owner).await?;
        let mut watched =
            Watched { connection, node: owner.address.clone(), undisturbed, unwatched: Vec::with_capacity(2) };
        let mut watch = cmd("WATCH").arg(key.as_bytes()).take();
        if !self.endpoint().cluster {
            watch.arg(also.as_bytes());
        }
        watched.send(&watch).await?;
        for key in [key, also] {
            watched.unwatched.push((key.clone(), self.unwatched(key).await?));
        }
        Ok(watched)
    }

    /// Unlinks a key that is watched, if no watched key was touched and nothing was disturbed since.
    ///
    /// # Errors
    /// [`FaultClass::Disturbed`], [`FaultClass::LeaseEnded`], or the fault that kept it from answering.
    pub async fn unlink_watched(&self, watched: Watched, key: &RedisKey, undisturbed: u64) -> Result<bool, Fault> {
        if self.disturbances() != undisturbed {
            return Err(Fault::of(FaultClass::Disturbed, &watched.node));
        }
        self.commit(watched, &[cmd("UNLINK").arg(key.as_bytes()).take()]).await
    }

    /// Makes a key that is watched expire, at a Unix time in milliseconds, if no watched key was touched and nothing was
    /// disturbed since.
    ///
    /// # Errors
    /// As [`Writer::unlink_watched`].
    pub async fn expire_watched(&self, watched: Watched, key: &RedisKey, at: i64) -> Result<bool, Fault> {
        self.commit(watched, &[cmd("PEXPIREAT").arg(key.as_bytes()).arg(at).take()]).await
    }

    /// Copies an entry in pieces with type, value and absolute expiry, and asks `go_on` before each piece.
    ///
    /// # Errors
    /// The first fault: what was staged goes by itself.
    pub async fn copy_in_pieces(
        &self,
        source: &RedisKey,
        target: &RedisKey,
        over: Over,
        go_on: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Staged, Fault> {
        for _ in 0..ATTEMPTS {
            let staging = staging_key(self.name(), target);
            let attempt = self.attempt(source, target, &staging, over, go_on).await;
            let ended = match attempt {
                Ok(Some(Staged::Made)) => return Ok(Staged::Made),
                Ok(ended) => ended,
                // The source became another type under way.
                Err(fault) if fault.class == FaultClass::WrongType => None,
                Err(fault) => return Err(fault),
            };
            self.run_one(Command::on("UNLINK", &staging)).await?;
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
        Ok(Staged::Changing)
    }

    /// One attempt; `None` if something changed under way.
    async fn attempt(
        &self,
        source: &RedisKey,
        target: &RedisKey,
        staging: &RedisKey,
        over: Over,
        go_on: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Option<Staged>, Fault> {
        let mut watched = self.watch(target, source).await?;
        match over {
            Over::Nothing => {
                if value::int(watched.send(cmd("EXISTS").arg(target.as_bytes())).await?)? == 1 {
                    return Ok(Some(Staged::TargetExists));
                }
            }
            Over::Stale => match self.compare_in_pieces(source, target).await? {
                Comparison::SourceGone => return Ok(Some(Staged::SourceGone)),
                Comparison::Equal { .. } | Comparison::TargetMissing => return Ok(Some(Staged::Changing)),
                Comparison::Different { .. } => {}
            },
        }
        let Some(shape) = self.source_shape(source).await? else { return Ok(Some(Staged::SourceGone)) };
        // A connection that watches can't run transactions in between.
        let mut filling = self.own_connection(&watched.node).await?;
        if let Some(ended) = self.fill(&mut filling, &watched.node, source, &shape, staging, go_on).await? {
            return Ok(Some(ended));
        }
        // On one server the source is watched, as far as Redis watches; on a cluster it is compared.
        let refresh = || Command::on("PEXPIRE", staging).arg(STAGING_LIFE_MILLIS);
        let unwatched = if self.endpoint().cluster { Cursor::Start } else { shape.first_unwatched() };
        if !self.is_staged(source, staging, &unwatched, &refresh).await? {
            return Ok(None);
        }
        watched.send(cmd("WATCH").arg(staging.as_bytes())).await?;
        if !self.numbers_agree(source, &shape, staging).await? {
            return Ok(None);
        }
        let mut writes = Vec::new();
        if over == Over::Stale {
            writes.push(cmd("UNLINK").arg(target.as_bytes()).take());
        }
        writes.push(cmd("RENAMENX").arg(staging.as_bytes()).arg(target.as_bytes()).take());
        writes.push(match shape.expiry {
            Expiry::Never => cmd("PERSIST").arg(target.as_bytes()).take(),
            Expiry::At(at) => cmd("PEXPIREAT").arg(target.as_bytes()).arg(at).take(),
        });
        Ok(self.commit(watched, &writes).await?.then_some(Staged::Made))
    }

    /// Whether the source still has the shape that was copied, and what was staged has it too.
    async fn numbers_agree(&self, source: &RedisKey, shape: &Shape, staging: &RedisKey) -> Result<bool, Fault> {
        let (Some(now), Some(staged)) = (self.shape(source).await?, self.shape(staging).await?) else {
            return Ok(false);
        };
        let is_unchanged = (now.kind, now.members, now.expiry) == (shape.kind, shape.members, shape.expiry);
        Ok(is_unchanged && (staged.kind, staged.members) == (shape.kind, shape.members))
    }

    /// Adds every piece, each in one transaction with the staging key's expiry. Gives what ended it early.
    async fn fill(
        &self,
        connection: &mut Connection,
        node: &NodeAddress,
        source: &RedisKey,
        shape: &Shape,
        staging: &RedisKey,
        go_on: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Option<Staged>, Fault> {
        let mut cursor = Cursor::Start;
        while let Some(piece) = self.piece(source, shape, &mut cursor).await? {
            if !go_on() {
                return Ok(Some(Staged::Interrupted));
            }
            if let Some(obstacle) = piece.obstacle(self, source).await? {
                return Ok(Some(Staged::Impossible(obstacle)));
            }
            for additions in piece.additions(staging).chunks(COMMANDS_AT_ONCE) {
                self.add(connection, node, staging, additions).await?;
            }
        }
        Ok(None)
    }

    async fn add(
        &self,
        connection: &mut Connection,
        node: &NodeAddress,
        staging: &RedisKey,
        additions: &[Cmd],
    ) -> Result<(), Fault> {
        self.check_lease(node)?;
        let mut transaction = Pipeline::new();
        transaction.atomic();
        for addition in additions {
            transaction.add_command(addition.clone());
        }
        transaction.add_command(cmd("PEXPIRE").arg(staging.as_bytes()).arg(STAGING_LIFE_MILLIS).take());
        let answer: Result<Value, _> = transaction.query_async(&mut connection.inner).await;
        answer.map(|_| ()).map_err(|error| Fault::classify(&error, node))
    }

    /// `MULTI … EXEC`; false if a watched key was touched.
    async fn commit(&self, mut watched: Watched, writes: &[Cmd]) -> Result<bool, Fault> {
        for (key, groups) in &watched.unwatched {
            if self.unwatched(key).await? != *groups {
                return Ok(false);
            }
        }
        if self.disturbances() != watched.undisturbed {
            return Err(Fault::of(FaultClass::Disturbed, &watched.node));
        }
        self.check_lease(&watched.node)?;
        let mut transaction = Pipeline::new();
        transaction.atomic();
        for write in writes {
            transaction.add_command(write.clone());
        }
        let answer: Result<Value, _> = transaction.query_async(&mut watched.connection.inner).await;
        let answer = answer.map_err(|error| Fault::classify(&error, &watched.node))?;
        self.keep_idle(&watched.node, watched.connection).await;
        Ok(answer != Value::Nil)
    }
}

impl Watched {
    async fn send(&mut self, command: &Cmd) -> Result<Value, Fault> {
        command.query_async(&mut self.connection.inner).await.map_err(|error| Fault::classify(&error, &self.node))
    }
}

/// A name in the target's slot that no other attempt has.
fn staging_key(connection_name: &str, target: &RedisKey) -> RedisKey {
    let token = connection_name.rsplit(':').next().unwrap_or_default();
    let attempt = ATTEMPT.fetch_add(1, Ordering::Relaxed);
    let digest = hex::encode(&Sha256::digest(target.as_bytes())[..16]);
    let name = |tag: &[u8]| {
        let end = format!("}}:{token}-{attempt}:{digest}");
        RedisKey::concat(&[b"outpost:migration:staging:{", tag, end.as_bytes()])
    };
    let slot = slot_of(target);
    let by_tag = name(hash_tag(target.as_bytes()));
    if slot_of(&by_tag) == slot {
        return by_tag;
    }
    // A key without a tag may hold a brace, which would end the tag early: any other of the same slot does.
    (0..u32::MAX).map(|number| name(number.to_string().as_bytes())).find(|key| slot_of(key) == slot).unwrap_or(by_tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staging_key_lies_in_its_targets_slot_and_is_never_used_twice() {
        for target in ["tenant:{a}:tenant", "tenant:{{a}}:tenant", "tenant:{}:tenant", "a}b", "plain"] {
            let target = RedisKey::from(target);
            let (first, second) = (staging_key("omr:db0:token", &target), staging_key("omr:db0:token", &target));
            assert_eq!(slot_of(&first), slot_of(&target));
            assert_ne!(first, second);
        }
    }
}
