//! Writes that happen only if a key still holds exactly what was read.
//!
//! Owns the two ways to hold to that: a script for ordinary hashes, `WATCH` on a connection of its own
//! for everything else.

use redis::{Pipeline, Value};

use crate::keyspace::bulk::Bulk;
use crate::keyspace::command::Command;
use crate::keyspace::compare::by_script;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::read::Payload;
use crate::keyspace::script::{self, Script};
use crate::keyspace::supposed::{self, Spare};
use crate::keyspace::value;
use crate::keyspace::writer::Writer;
use crate::model::change::FieldChange;
use crate::model::entry::{Entry, Expiry, Value as EntryValue};
use crate::model::key::RedisKey;
use crate::model::slot::slot_of;

/// Largest hash that a script compares: more would hold the server too long.
const SCRIPT_MEMBERS: usize = 2_000;
const SCRIPT_BYTES: usize = 256 * 1024;

/// What became of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The key held what was expected, and the write happened.
    Done,
    /// The key holds something else; nothing was written.
    Changed,
    /// The key does not exist; nothing was written.
    Gone,
}

enum Write<'a> {
    Unlink,
    Replace(&'a Payload),
    /// Unix time in milliseconds.
    ExpireAt(i64),
}

impl Writer {
    /// Unlinks each key that still holds the entry beside it. Nothing is sent once the count of
    /// [`Keyspace::disturbances`](crate::keyspace::Keyspace::disturbances) is another than `undisturbed`: the
    /// decision to unlink was made on reads before.
    ///
    /// # Errors
    /// [`FaultClass::Disturbed`], or the first fault that stayed; other keys of the batch may be unlinked.
    pub async fn unlink_if_unchanged(
        &self,
        expected: &[(RedisKey, Entry)],
        undisturbed: u64,
    ) -> Result<Vec<Outcome>, Fault> {
        let mut outcomes = vec![None; expected.len()];
        let mut indexes = Vec::new();
        let mut commands = Vec::new();
        for (index, (key, entry)) in expected.iter().enumerate() {
            if let Some(command) = hash_script(&script::UNLINK_IF_HASH_IS, key, entry, &Write::Unlink) {
                indexes.push(index);
                commands.push(command);
            } else {
                let unlinked = self.watch_and_write(key, entry, &Write::Unlink, Some(undisturbed)).await?;
                outcomes[index] = Some(unlinked);
            }
        }
        for (index, answer) in indexes.into_iter().zip(self.run_undisturbed(commands, undisturbed).await) {
            outcomes[index] = Some(outcome(value::int(answer?)?));
        }
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Changed)).collect())
    }

    /// Unlinks each source that equals its target, compared and unlinked in one step; gives
    /// `None` for each pair that is still to be decided. On a cluster nothing can be done in one step: all are.
    ///
    /// # Errors
    /// [`FaultClass::UnexpectedAnswer`]; other sources of the batch may be unlinked.
    pub async fn unlink_equal(
        &self,
        pairs: &[(RedisKey, RedisKey)],
        undisturbed: u64,
    ) -> Result<Vec<Option<Outcome>>, Fault> {
        if self.endpoint().cluster {
            return Ok(vec![None; pairs.len()]);
        }
        let keys: Vec<&[u8]> =
            pairs.iter().flat_map(|(source, target)| [source.as_bytes(), target.as_bytes()]).collect();
        let leading = supposed::leading(&[], Spare::Heavy);
        let bulk = Bulk { leading, words_each: 2, undisturbed: Some(undisturbed), ..Bulk::of(&script::UNLINK_EQUAL) };
        self.in_bulk(&bulk, &keys).await.into_iter().map(|answer| Ok(by_script(answer)?.into_outcome())).collect()
    }

    /// Replaces a key's entry by a payload if it still holds `expected`.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn replace_if_unchanged(
        &self,
        key: &RedisKey,
        expected: &Entry,
        payload: &Payload,
    ) -> Result<Outcome, Fault> {
        let write = Write::Replace(payload);
        match hash_script(&script::REPLACE_IF_HASH_IS, key, expected, &write) {
            Some(command) => Ok(outcome(value::int(self.run_one(command).await?)?)),
            None => self.watch_and_write(key, expected, &write, None).await,
        }
    }

    /// Makes each key that still holds the entry beside it expire, at a Unix time in milliseconds. Returns for each what
    /// became of it, or the fault that stayed.
    pub async fn expire_if_unchanged(&self, expected: &[(RedisKey, Entry, i64)]) -> Vec<Result<Outcome, Fault>> {
        let mut outcomes: Vec<Result<Outcome, Fault>> = vec![Ok(Outcome::Changed); expected.len()];
        let (mut indexes, mut commands) = (Vec::new(), Vec::new());
        for (index, (key, entry, at)) in expected.iter().enumerate() {
            let write = Write::ExpireAt(*at);
            if let Some(command) = hash_script(&script::EXPIRE_IF_HASH_IS, key, entry, &write) {
                indexes.push(index);
                commands.push(command);
            } else {
                outcomes[index] = self.watch_and_write(key, entry, &write, None).await;
            }
        }
        for (index, answer) in indexes.into_iter().zip(self.run(commands).await) {
            outcomes[index] = answer.and_then(value::int).map(outcome);
        }
        outcomes
    }

    /// Sets fields of each hash in which they all still are as they were; sets all of a hash or none.
    ///
    /// # Errors
    /// The first fault that stayed; other hashes of the batch may have been changed.
    pub async fn set_fields_if_unchanged(
        &self,
        changes: &[(RedisKey, Vec<FieldChange>)],
    ) -> Result<Vec<Outcome>, Fault> {
        let commands = changes.iter().map(|(key, fields)| set_fields(key, fields)).collect();
        self.run(commands).await.into_iter().map(|answer| Ok(outcome(value::int(answer?)?))).collect()
    }

    /// `WATCH`, read, compare, `MULTI … EXEC`: the transaction fails if the key was touched in between, and is not
    /// sent once the count of disturbances is another than `undisturbed`.
    async fn watch_and_write(
        &self,
        key: &RedisKey,
        expected: &Entry,
        write: &Write<'_>,
        undisturbed: Option<u64>,
    ) -> Result<Outcome, Fault> {
        let topology = self.topology().await;
        let owner = topology.owner(slot_of(key)).ok_or(Fault::new(FaultClass::ClusterDown))?;
        let node = &owner.address;
        let mut connection = self.borrow_connection(owner).await?;
        connection.send_one(Command::on("WATCH", key), node).await?;
        let read = connection.send_one(Command::script(&script::READ_ENTRY, &[key]), node).await?;
        let refused = match value::entry(read)? {
            None => Some(Outcome::Gone),
            Some(found) => (found != *expected).then_some(Outcome::Changed),
        };
        if let Some(refused) = refused {
            connection.send(std::iter::once(redis::cmd("UNWATCH")), &[], node).await?;
            self.keep_idle(node, connection).await;
            return Ok(refused);
        }

        self.check_lease(node)?;
        if undisturbed.is_some_and(|count| count != self.disturbances()) {
            return Err(Fault::of(FaultClass::Disturbed, node));
        }
        let mut transaction = Pipeline::new();
        transaction.atomic();
        match write {
            Write::Unlink => transaction.add_command(redis::cmd("UNLINK").arg(key.as_bytes()).take()),
            Write::ExpireAt(at) => transaction.add_command(redis::cmd("PEXPIREAT").arg(key.as_bytes()).arg(*at).take()),
            Write::Replace(payload) => transaction.add_command(
                redis::cmd("RESTORE")
                    .arg(key.as_bytes())
                    .arg(payload.expiry.restore_ttl())
                    .arg(&payload.bytes)
                    .arg("REPLACE")
                    .arg("ABSTTL")
                    .take(),
            ),
        };
        let answer: Value =
            transaction.query_async(&mut connection.inner).await.map_err(|error| Fault::classify(&error, node))?;
        self.keep_idle(node, connection).await;
        Ok(if answer == Value::Nil { Outcome::Changed } else { Outcome::Done })
    }
}

fn set_fields(key: &RedisKey, fields: &[FieldChange]) -> Command {
    fields.iter().fold(Command::script(&script::SET_FIELDS_IF_UNCHANGED, &[key]), |command, field| {
        let had = u8::from(field.from.is_some());
        command.arg(field.name).arg(had).arg(field.from.as_deref().unwrap_or_default()).arg(&field.to)
    })
}

/// The script's call, if the entry is a hash that a script may compare.
fn hash_script(script: &'static Script, key: &RedisKey, entry: &Entry, write: &Write<'_>) -> Option<Command> {
    let EntryValue::Hash(fields) = &entry.value else { return None };
    if fields.len() > SCRIPT_MEMBERS || entry.value.bytes() > SCRIPT_BYTES {
        return None;
    }
    let mut command = Command::script(script, &[key]).arg(pexpiretime(entry.expiry));
    command = match write {
        Write::Unlink => command,
        Write::Replace(payload) => command.arg(&payload.bytes).arg(payload.expiry.restore_ttl()),
        Write::ExpireAt(at) => command.arg(*at),
    };
    for (name, content) in fields {
        command = command.arg(name).arg(content);
    }
    Some(command)
}

fn pexpiretime(expiry: Expiry) -> i64 {
    match expiry {
        Expiry::Never => -1,
        Expiry::At(at) => at,
    }
}

fn outcome(answer: i64) -> Outcome {
    match answer {
        1 => Outcome::Done,
        -1 => Outcome::Gone,
        _ => Outcome::Changed,
    }
}
