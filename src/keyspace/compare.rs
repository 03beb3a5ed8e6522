//! Compares sources with their targets by value.
//!
//! Owns the two steps of a comparison: what one server can tell of both, or equal payloads, are a shortcut to yes;
//! whatever differs is read again and compared canonically.

use redis::Value;

use crate::keyspace::bulk::Bulk;
use crate::keyspace::conditional::Outcome;
use crate::keyspace::fault::Fault;
use crate::keyspace::read::Payload;
use crate::keyspace::router::Keyspace;
use crate::keyspace::supposed::{self, Spare};
use crate::keyspace::{script, value};
use crate::model::difference::Difference;
use crate::model::entry::{Entry, Expiry};
use crate::model::key::RedisKey;

/// How one source and its target compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// Same type, value and expiry.
    Equal {
        /// Whether they expire; then either may be gone at the next look.
        expires: bool,
    },
    /// The source ended before it could be compared.
    SourceGone,
    /// The target does not exist.
    TargetMissing,
    /// Both exist and differ; here is what was read, so that a write can name it as its condition.
    Different {
        /// The source as it was.
        source: Entry,
        /// The target as it was.
        target: Entry,
    },
}

impl Comparison {
    /// In what way they differ, if they do.
    #[must_use]
    pub fn difference(&self) -> Option<Difference> {
        match self {
            Self::Equal { .. } | Self::SourceGone => None,
            Self::TargetMissing => Some(Difference::Missing),
            Self::Different { source, target } => Difference::between(source, target),
        }
    }
}

impl Keyspace {
    /// Compares each source with its target.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn compare(&self, pairs: &[(RedisKey, RedisKey)]) -> Result<Vec<Comparison>, Fault> {
        let mut results = if self.endpoint().cluster {
            self.compare_payloads(pairs).await?
        } else {
            self.compare_within(pairs).await?
        };
        let unsure: Vec<usize> =
            results.iter().enumerate().filter(|(_, result)| result.is_none()).map(|(index, _)| index).collect();
        let pairs_left: Vec<(RedisKey, RedisKey)> = unsure.iter().map(|&index| pairs[index].clone()).collect();
        for (index, comparison) in unsure.into_iter().zip(self.compare_by_value(&pairs_left).await?) {
            results[index] = Some(comparison);
        }
        results.into_iter().map(|result| result.ok_or(value::unexpected())).collect()
    }

    /// Payloads of different primaries meet here.
    async fn compare_payloads(&self, pairs: &[(RedisKey, RedisKey)]) -> Result<Vec<Option<Comparison>>, Fault> {
        let keys: Vec<RedisKey> = pairs.iter().flat_map(|(source, target)| [source.clone(), target.clone()]).collect();
        Ok(self.payloads(&keys).await?.chunks(2).map(by_payload).collect())
    }

    /// Entries of one server are compared there.
    async fn compare_within(&self, pairs: &[(RedisKey, RedisKey)]) -> Result<Vec<Option<Comparison>>, Fault> {
        let keys: Vec<&[u8]> =
            pairs.iter().flat_map(|(source, target)| [source.as_bytes(), target.as_bytes()]).collect();
        let bulk =
            Bulk { leading: supposed::leading(&[], Spare::Heavy), words_each: 2, ..Bulk::of(&script::COMPARE_PAIRS) };
        self.in_bulk(&bulk, &keys).await.into_iter().map(|answer| Ok(by_script(answer)?.into_comparison())).collect()
    }

    /// Compares each source with its target canonically, whatever their payloads.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn compare_by_value(&self, pairs: &[(RedisKey, RedisKey)]) -> Result<Vec<Comparison>, Fault> {
        let keys: Vec<RedisKey> = pairs.iter().flat_map(|(source, target)| [source.clone(), target.clone()]).collect();
        let mut entries = self.entries(&keys).await?.into_iter();
        let mut results = Vec::with_capacity(pairs.len());
        while let (Some(source), Some(target)) = (entries.next(), entries.next()) {
            results.push(by_value(source, target));
        }
        Ok(results)
    }
}

/// How a script found a pair that lies on its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByScript {
    Equal {
        expires: bool,
    },
    /// They differ, as far as it looked, which proves nothing; or nobody could tell.
    Unsure,
    SourceGone,
    TargetMissing,
}

impl ByScript {
    pub(super) fn into_comparison(self) -> Option<Comparison> {
        match self {
            Self::Equal { expires } => Some(Comparison::Equal { expires }),
            Self::Unsure => None,
            Self::SourceGone => Some(Comparison::SourceGone),
            Self::TargetMissing => Some(Comparison::TargetMissing),
        }
    }

    /// Of a script that unlinks sources that equal their targets.
    pub(super) fn into_outcome(self) -> Option<Outcome> {
        match self {
            Self::Equal { .. } => Some(Outcome::Done),
            Self::SourceGone => Some(Outcome::Gone),
            Self::Unsure | Self::TargetMissing => None,
        }
    }
}

pub(super) fn by_script(answer: Option<Value>) -> Result<ByScript, Fault> {
    match answer.map(value::int).transpose()? {
        Some(1) => Ok(ByScript::Equal { expires: false }),
        Some(2) => Ok(ByScript::Equal { expires: true }),
        Some(script::ASK) | None => Ok(ByScript::Unsure),
        Some(-1) => Ok(ByScript::SourceGone),
        Some(-2) => Ok(ByScript::TargetMissing),
        Some(_) => Err(value::unexpected()),
    }
}

pub(super) fn by_payload(read: &[Option<Payload>]) -> Option<Comparison> {
    match read {
        [None, _] => Some(Comparison::SourceGone),
        [Some(_), None] => Some(Comparison::TargetMissing),
        [Some(source), Some(target)] if source == target => {
            Some(Comparison::Equal { expires: source.expiry != Expiry::Never })
        }
        _ => None,
    }
}

fn by_value(source: Option<Entry>, target: Option<Entry>) -> Comparison {
    match (source, target) {
        (None, _) => Comparison::SourceGone,
        (Some(_), None) => Comparison::TargetMissing,
        (Some(source), Some(target)) if source == target => {
            Comparison::Equal { expires: source.expiry != Expiry::Never }
        }
        (Some(source), Some(target)) => Comparison::Different { source, target },
    }
}
