//! Batched reads: what migrations ask for, sizes, payloads, whole entries.
//!
//! Every function gives its answers in the order of its keys: by scripts that read many keys each, few of them under
//! way at a time, and one pipelined round trip per primary for what they could not answer.

use std::collections::BTreeMap;

use redis::Value;

use crate::keyspace::bulk::Bulk;
use crate::keyspace::command::Command;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::{script, value};
use crate::model::entry::{Bytes, Entry, Expiry};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answer, Probe};

/// A serialized value with its expiry, read in one atomic step.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// What `DUMP` answers; equal payloads mean equal values, different ones prove nothing.
    pub bytes: Bytes,
    /// When the entry ends.
    pub expiry: Expiry,
}

impl Keyspace {
    /// Answers probes.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn probe(&self, probes: &[Probe]) -> Result<Vec<Answer>, Fault> {
        let mut answers = self.probe_fields(probes).await?;
        let open: Vec<usize> = (0..probes.len()).filter(|&index| answers[index].is_none()).collect();
        let alone: Vec<&Probe> = open.iter().map(|&index| &probes[index]).collect();
        for (index, answer) in open.into_iter().zip(self.probe_alone(&alone).await?) {
            answers[index] = Some(answer);
        }
        answers.into_iter().map(|answer| answer.ok_or(value::unexpected())).collect()
    }

    /// Answers the probes that ask for the same fields as the first does.
    async fn probe_fields(&self, probes: &[Probe]) -> Result<Vec<Option<Answer>>, Fault> {
        let mut answers = vec![None; probes.len()];
        let Some(asked) = probes.iter().find_map(Probe::fields) else { return Ok(answers) };
        let (indexes, keys): (Vec<usize>, Vec<&[u8]>) = (probes.iter().enumerate())
            .filter(|(_, probe)| probe.fields() == Some(asked))
            .map(|(index, probe)| (index, probe.key().as_bytes()))
            .unzip();
        let mut leading = vec![asked.len().to_string().into_bytes()];
        leading.extend(asked.iter().map(|name| name.as_bytes().to_vec()));
        let bulk = Bulk { leading, ..Bulk::of(&script::READ_FIELDS) };
        for (index, answer) in indexes.into_iter().zip(self.in_bulk(&bulk, &keys).await) {
            answers[index] = match answer {
                None => None,
                Some(Value::Int(0)) => Some(Answer::NotAHash),
                Some(values) => Some(fields(values)?),
            };
        }
        Ok(answers)
    }

    async fn probe_alone(&self, probes: &[&Probe]) -> Result<Vec<Answer>, Fault> {
        let mut commands = Vec::new();
        for probe in probes {
            match probe {
                Probe::Fields { key, fields } => commands.push(Command::on("HMGET", key).arg(fields)),
                Probe::Shape { key } => {
                    commands.push(Command::on("HLEN", key));
                    commands.push(Command::on("PTTL", key));
                }
            }
        }
        let mut answers = self.run(commands).await.into_iter();
        let mut next = || answers.next().unwrap_or(Err(value::unexpected()));
        let mut results = Vec::with_capacity(probes.len());
        for probe in probes {
            let answer = match probe {
                Probe::Fields { .. } => next().and_then(fields),
                Probe::Shape { .. } => shape(next(), next()),
            };
            results.push(match answer {
                Err(fault) if fault.class == FaultClass::WrongType => Answer::NotAHash,
                other => other?,
            });
        }
        Ok(results)
    }

    /// One answer for each key: by a script for many keys, and by a command for those that it left out.
    async fn answers(
        &self,
        script: &'static script::Script,
        keys: &[RedisKey],
        alone: impl Fn(&RedisKey) -> Command,
    ) -> Result<Vec<Value>, Fault> {
        let asked: Vec<&[u8]> = keys.iter().map(RedisKey::as_bytes).collect();
        let mut answers = self.in_bulk(&Bulk::of(script), &asked).await;
        let open: Vec<usize> = (0..keys.len()).filter(|&index| answers[index].is_none()).collect();
        let commands = open.iter().map(|&index| alone(&keys[index])).collect();
        for (index, answer) in open.into_iter().zip(self.run(commands).await) {
            answers[index] = Some(answer?);
        }
        answers.into_iter().map(|answer| answer.ok_or(value::unexpected())).collect()
    }

    async fn numbers(
        &self,
        script: &'static script::Script,
        keys: &[RedisKey],
        alone: impl Fn(&RedisKey) -> Command,
    ) -> Result<Vec<u64>, Fault> {
        let number = |answer| match answer {
            Value::Nil => Ok(0),
            number => Ok(u64::try_from(value::int(number)?).unwrap_or(0)),
        };
        self.answers(script, keys, alone).await?.into_iter().map(number).collect()
    }

    /// Which keys exist.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn exist(&self, keys: &[RedisKey]) -> Result<Vec<bool>, Fault> {
        let exist = self.numbers(&script::WHICH_EXIST, keys, |key| Command::on("EXISTS", key)).await?;
        Ok(exist.into_iter().map(|count| count == 1).collect())
    }

    /// Which keys exist and never expire.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn last(&self, keys: &[RedisKey]) -> Result<Vec<bool>, Fault> {
        let lives = self.answers(&script::REMAINING_LIVES, keys, |key| Command::on("PTTL", key)).await?;
        lives.into_iter().map(|life| Ok(value::int(life)? == -1)).collect()
    }

    /// Bytes that each key takes with its overhead, estimated by the server; 0 for a missing key.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn memory_usage(&self, keys: &[RedisKey]) -> Result<Vec<u64>, Fault> {
        self.numbers(&script::MEMORY_USAGES, keys, |key| Command::sub("MEMORY", "USAGE", key)).await
    }

    /// Payload and expiry of each key, each read in one atomic step.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn payloads(&self, keys: &[RedisKey]) -> Result<Vec<Option<Payload>>, Fault> {
        let alone = |key: &RedisKey| Command::script(&script::READ_PAYLOAD, &[key]);
        self.answers(&script::READ_PAYLOADS, keys, alone).await?.into_iter().map(payload).collect()
    }

    /// Type, value and expiry of each key, each read in one atomic step.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn entries(&self, keys: &[RedisKey]) -> Result<Vec<Option<Entry>>, Fault> {
        let alone = |key: &RedisKey| Command::script(&script::READ_ENTRY, &[key]);
        self.answers(&script::READ_ENTRIES, keys, alone).await?.into_iter().map(value::entry).collect()
    }

    /// All fields of each hash; empty for one that does not exist.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn hashes(&self, keys: &[RedisKey]) -> Result<Vec<BTreeMap<Bytes, Bytes>>, Fault> {
        let commands = keys.iter().map(|key| Command::on("HGETALL", key)).collect();
        self.run(commands).await.into_iter().map(|answer| value::pairs(answer?)).collect()
    }

    /// All fields of a hash; empty if it does not exist.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn hash(&self, key: &RedisKey) -> Result<BTreeMap<Bytes, Bytes>, Fault> {
        value::pairs(self.run_one(Command::on("HGETALL", key)).await?)
    }

    /// A string and its remaining life in milliseconds, if it exists.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn string(&self, key: &RedisKey) -> Result<Option<(Bytes, Option<u64>)>, Fault> {
        let mut answers = self.run(vec![Command::on("GET", key), Command::on("PTTL", key)]).await.into_iter();
        let mut next = || answers.next().unwrap_or(Err(value::unexpected()));
        let content = match next() {
            Ok(Value::Nil) => return Ok(None),
            Err(fault) if fault.class == FaultClass::WrongType => Vec::new(),
            other => value::bytes(other?)?,
        };
        Ok(Some((content, u64::try_from(value::int(next()?)?).ok())))
    }
}

fn fields(answer: Value) -> Result<Answer, Fault> {
    let values: Result<Vec<Option<Bytes>>, Fault> = value::list(answer)?.into_iter().map(value::bytes_if_any).collect();
    Ok(Answer::Fields(values?))
}

fn shape(length: Result<Value, Fault>, life: Result<Value, Fault>) -> Result<Answer, Fault> {
    let fields = u64::try_from(value::int(length?)?).unwrap_or(0);
    Ok(Answer::Shape { fields, expires: value::int(life?)? >= 0 })
}

pub(super) fn payload(answer: Value) -> Result<Option<Payload>, Fault> {
    if answer == Value::Nil {
        return Ok(None);
    }
    let [bytes, expiry] = <[Value; 2]>::try_from(value::list(answer)?).map_err(|_| value::unexpected())?;
    Ok(Some(Payload { bytes: value::bytes(bytes)?, expiry: Expiry::from_pexpiretime(value::int(expiry)?) }))
}
