//! Work on sources that are supposed to be what their names say, for many keys by one command.
//!
//! Owns the fast way: a script looks whether the supposition holds and does the work in the same step, so nothing rests
//! on an older read. Refuses to insist: whatever a script could not do (another content, an entry too large for one
//! step, an error, a slot on the move) has no answer here, and the caller finds out in the ordinary way.

use redis::Value;

use crate::keyspace::bulk::Bulk;
use crate::keyspace::compare::{Comparison, by_payload, by_script};
use crate::keyspace::conditional::Outcome;
use crate::keyspace::copy::Copied;
use crate::keyspace::fault::Fault;
use crate::keyspace::read::{Payload, payload};
use crate::keyspace::router::Keyspace;
use crate::keyspace::script::{self, Script};
use crate::keyspace::value;
use crate::keyspace::writer::Writer;
use crate::model::entry::{Expiry, Value as Content};
use crate::model::key::RedisKey;
use crate::model::mapping::Premise;

/// A source, if the premise about it holds, and the target where it then belongs.
#[derive(Debug, Clone, Copy)]
pub struct Supposed<'a> {
    /// Where it belongs.
    pub target: &'a RedisKey,
    /// What the source must be.
    pub premise: &'a Premise,
}

/// Entries that take more memory are not worked on by a script for many: as many smaller ones as it may get take the
/// server a few milliseconds at most.
pub const HEAVY_BYTES: u64 = 8 * 1024;

/// Entries that a script must leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    /// None: it is known that none is heavy.
    None,
    /// Heavy ones.
    Heavy,
}

impl Spare {
    fn limit(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Heavy => HEAVY_BYTES,
        }
    }
}

/// The leading arguments of the scripts that look at what is supposed of each item.
pub(super) fn leading(fields: &[&str], spare: Spare) -> Vec<Vec<u8>> {
    let mut leading = vec![fields.len().to_string().into_bytes(), spare.limit().to_string().into_bytes()];
    leading.extend(fields.iter().map(|name| name.as_bytes().to_vec()));
    leading
}

impl Keyspace {
    /// For each premise that holds, whether its key expires; `None` for others, and where it could not be told.
    pub async fn hold(&self, premises: &[&Premise]) -> Vec<Option<bool>> {
        let answers = self.suppose(&script::WHICH_HOLD, premises, None, Spare::None, None).await;
        let expires = |answer: Option<Value>| match answer {
            Some(Value::Int(1)) => Some(false),
            Some(Value::Int(2)) => Some(true),
            _ => None,
        };
        answers.into_iter().map(expires).collect()
    }

    /// Bytes that each key takes of which the premise holds; 0 if it is gone.
    pub async fn measure_supposed(&self, premises: &[&Premise]) -> Vec<Option<u64>> {
        let answers = self.suppose(&script::MEASURE_SUPPOSED, premises, None, Spare::None, None).await;
        let bytes = |answer: Option<Value>| u64::try_from(value::int(answer?).ok()?).ok();
        answers.into_iter().map(bytes).collect()
    }

    /// Compares each source with its target as far as one step can tell; never says that they differ.
    ///
    /// # Errors
    /// [`FaultClass::UnexpectedAnswer`](crate::keyspace::FaultClass::UnexpectedAnswer), or the first fault that stayed.
    pub async fn compare_supposed(
        &self,
        supposed: &[Supposed<'_>],
        spare: Spare,
    ) -> Result<Vec<Option<Comparison>>, Fault> {
        let premises: Vec<&Premise> = supposed.iter().map(|it| it.premise).collect();
        let targets: Vec<&RedisKey> = supposed.iter().map(|it| it.target).collect();
        if self.endpoint().cluster {
            return self.compare_supposed_payloads(&premises, &targets, spare).await;
        }
        let answers = self.suppose(&script::COMPARE_PAIRS, &premises, Some(&targets), spare, None).await;
        answers.into_iter().map(|answer| Ok(by_script(answer)?.into_comparison())).collect()
    }

    async fn compare_supposed_payloads(
        &self,
        premises: &[&Premise],
        targets: &[&RedisKey],
        spare: Spare,
    ) -> Result<Vec<Option<Comparison>>, Fault> {
        let mut read = self.read_supposed(premises, spare).await?;
        let told: Vec<usize> = (0..read.len()).filter(|&index| matches!(read[index], Some(Some(_)))).collect();
        let asked: Vec<&[u8]> = told.iter().map(|&index| targets[index].as_bytes()).collect();
        let mut results: Vec<Option<Comparison>> =
            read.iter().map(|source| matches!(source, Some(None)).then_some(Comparison::SourceGone)).collect();
        let mut unsure = Vec::new();
        let bulk = Bulk { leading: leading(&[], spare), ..Bulk::of(&script::READ_SUPPOSED) };
        for (index, target) in told.into_iter().zip(self.in_bulk(&bulk, &asked).await) {
            // A heavy target, or one that nobody could read, is left for the ordinary way.
            let Some(target) = told_of(target) else { continue };
            results[index] = by_payload(&[read[index].take().flatten(), payload(target)?]);
            if results[index].is_none() {
                unsure.push(index);
            }
        }
        self.compare_supposed_hashes(premises, targets, &unsure, &mut results).await?;
        Ok(results)
    }

    /// Payloads of equal hashes may differ; their fields do not.
    async fn compare_supposed_hashes(
        &self,
        premises: &[&Premise],
        targets: &[&RedisKey],
        unsure: &[usize],
        results: &mut [Option<Comparison>],
    ) -> Result<(), Fault> {
        let keys: Vec<RedisKey> =
            unsure.iter().flat_map(|&index| [premises[index].key().clone(), targets[index].clone()]).collect();
        let entries = self.entries(&keys).await?;
        for (&index, pair) in unsure.iter().zip(entries.chunks(2)) {
            let [Some(source), Some(target)] = pair else { continue };
            let holds = matches!(&source.value, Content::Hash(fields) if premises[index].holds(fields));
            let expires = source.expiry != Expiry::Never;
            results[index] = (holds && source == target).then_some(Comparison::Equal { expires });
        }
        Ok(())
    }

    /// Payload and expiry of each key of which the premise holds, or that it is gone.
    async fn read_supposed(&self, premises: &[&Premise], spare: Spare) -> Result<Vec<Option<Option<Payload>>>, Fault> {
        let answers = self.suppose(&script::READ_SUPPOSED, premises, None, spare, None).await;
        answers.into_iter().map(|answer| told_of(answer).map(payload).transpose()).collect()
    }

    /// What a script says of each source; `undisturbed` is the count of disturbances after which nothing may be sent.
    async fn suppose(
        &self,
        script: &'static Script,
        premises: &[&Premise],
        targets: Option<&[&RedisKey]>,
        spare: Spare,
        undisturbed: Option<u64>,
    ) -> Vec<Option<Value>> {
        let mut results = vec![None; premises.len()];
        let Some(fields) = premises.first().map(|premise| premise.fields()) else { return results };
        let mut words: Vec<&[u8]> = Vec::with_capacity(premises.len() * (fields.len() + 2));
        let mut asked = Vec::with_capacity(premises.len());
        for (index, premise) in premises.iter().enumerate().filter(|(_, premise)| premise.fields() == fields) {
            asked.push(index);
            words.push(premise.key().as_bytes());
            words.extend(targets.map(|targets| targets[index].as_bytes()));
            words.extend(premise.values());
        }
        let words_each = fields.len() + 1 + usize::from(targets.is_some());
        let bulk = Bulk { leading: leading(fields, spare), words_each, undisturbed, ..Bulk::of(script) };
        for (index, answer) in asked.into_iter().zip(self.in_bulk(&bulk, &words).await) {
            results[index] = answer;
        }
        results
    }
}

impl Writer {
    /// Copies each source to its target unless that exists.
    ///
    /// # Errors
    /// The first fault that stayed; other copies of the batch may have been made.
    pub async fn copy_supposed(&self, supposed: &[Supposed<'_>], spare: Spare) -> Result<Vec<Option<Copied>>, Fault> {
        let premises: Vec<&Premise> = supposed.iter().map(|it| it.premise).collect();
        let targets: Vec<&RedisKey> = supposed.iter().map(|it| it.target).collect();
        if self.endpoint().cluster {
            return self.copy_supposed_across(&premises, &targets, spare).await;
        }
        let answers = self.suppose(&script::COPY_SUPPOSED, &premises, Some(&targets), spare, None).await;
        answers.into_iter().map(copied).collect()
    }

    async fn copy_supposed_across(
        &self,
        premises: &[&Premise],
        targets: &[&RedisKey],
        spare: Spare,
    ) -> Result<Vec<Option<Copied>>, Fault> {
        let mut results = vec![None; premises.len()];
        let mut read = Vec::with_capacity(premises.len());
        for (index, source) in self.read_supposed(premises, spare).await?.into_iter().enumerate() {
            match source {
                Some(Some(payload)) => read.push((index, payload)),
                Some(None) => results[index] = Some(Copied::SourceGone),
                None => {}
            }
        }
        let (indexes, restores): (Vec<usize>, Vec<_>) =
            read.into_iter().map(|(index, payload)| (index, (targets[index], payload))).unzip();
        for (index, copied) in indexes.into_iter().zip(self.restore(restores).await?) {
            results[index] = Some(copied);
        }
        Ok(results)
    }

    /// Unlinks each source that equals its target, compared and unlinked in one step. On a cluster nothing can be
    /// done in one step.
    ///
    /// # Errors
    /// [`FaultClass::UnexpectedAnswer`](crate::keyspace::FaultClass::UnexpectedAnswer); other sources of the batch may be
    /// unlinked.
    pub async fn unlink_supposed(
        &self,
        supposed: &[Supposed<'_>],
        undisturbed: u64,
    ) -> Result<Vec<Option<Outcome>>, Fault> {
        if self.endpoint().cluster {
            return Ok(vec![None; supposed.len()]);
        }
        let premises: Vec<&Premise> = supposed.iter().map(|it| it.premise).collect();
        let targets: Vec<&RedisKey> = supposed.iter().map(|it| it.target).collect();
        let unlink = &script::UNLINK_EQUAL;
        let answers = self.suppose(unlink, &premises, Some(&targets), Spare::Heavy, Some(undisturbed)).await;
        answers.into_iter().map(|answer| Ok(by_script(answer)?.into_outcome())).collect()
    }
}

/// A script's answer, if it tells anything.
fn told_of(answer: Option<Value>) -> Option<Value> {
    answer.filter(|answer| *answer != Value::Int(script::ASK))
}

fn copied(answer: Option<Value>) -> Result<Option<Copied>, Fault> {
    match told_of(answer).map(value::int).transpose()? {
        None => Ok(None),
        Some(1) => Ok(Some(Copied::Made)),
        Some(0) => Ok(Some(Copied::TargetExists)),
        Some(-1) => Ok(Some(Copied::SourceGone)),
        Some(_) => Err(value::unexpected()),
    }
}
