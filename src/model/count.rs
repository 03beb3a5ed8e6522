//! Counts with bounded samples, additive so that each primary's scan can be counted by itself.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::key::RedisKey;
use crate::model::mapping::UnmigratedReason;

/// Most keys that a sample names.
pub const SAMPLE_LIMIT: usize = 10;

/// Entries per entity ("tenant").
pub type PerEntity = BTreeMap<&'static str, u64>;

/// A few examples (ten, unless another limit is named), smallest keys first, so that two runs over the same
/// keyspace agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample<T, const LIMIT: usize = SAMPLE_LIMIT>(Vec<T>);

impl<T, const LIMIT: usize> Default for Sample<T, LIMIT> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord, const LIMIT: usize> Sample<T, LIMIT> {
    /// Offers an example; only the smallest stay.
    pub fn offer(&mut self, example: T) {
        let at = self.0.partition_point(|held| *held < example);
        if at < LIMIT && self.0.get(at) != Some(&example) {
            self.0.insert(at, example);
            self.0.truncate(LIMIT);
        }
    }

    /// Offers all examples of another sample.
    pub fn merge(&mut self, other: Self) {
        for example in other.0 {
            self.offer(example);
        }
    }

    /// The examples, smallest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Keys under a legacy prefix that no rule maps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unmigrated {
    /// How many, by reason.
    pub by_reason: BTreeMap<UnmigratedReason, u64>,
    /// Examples with their reasons.
    pub sample: Sample<(RedisKey, UnmigratedReason)>,
}

impl Unmigrated {
    /// Counts one key.
    pub fn count(&mut self, key: RedisKey, reason: UnmigratedReason) {
        *self.by_reason.entry(reason).or_default() += 1;
        self.sample.offer((key, reason));
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_reason.values().sum()
    }

    /// Adds another count.
    pub fn merge(&mut self, other: Self) {
        for (reason, count) in other.by_reason {
            *self.by_reason.entry(reason).or_default() += count;
        }
        self.sample.merge(other.sample);
    }
}

/// Keys in current form that never expire. Others are left out of such counts: where the source of one has expired, its
/// target may have been looked at before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lasting {
    /// All of them that were seen.
    pub current: u64,
    /// Those that were compared with their source.
    pub targets: u64,
}

impl Lasting {
    /// Counts a target that was compared with its source.
    pub fn count_target(&mut self, expires: bool) {
        self.targets += u64::from(!expires);
    }

    /// How many have no source.
    #[must_use]
    pub fn sourceless(self) -> u64 {
        self.current.saturating_sub(self.targets)
    }

    /// Adds another count.
    pub fn merge(&mut self, other: Self) {
        self.current += other.current;
        self.targets += other.targets;
    }
}

/// Adds the counts of `other` to `counts`.
pub fn add(counts: &mut PerEntity, other: PerEntity) {
    for (entity, count) in other {
        *counts.entry(entity).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_keeps_the_ten_smallest_whatever_the_order() {
        let mut upwards = Sample::<_>::default();
        let mut downwards = Sample::<_>::default();
        (0..100).for_each(|n| upwards.offer(n));
        (0..100).rev().for_each(|n| downwards.offer(n));
        assert_eq!(upwards, downwards);
        assert_eq!(upwards.iter().copied().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }
}
