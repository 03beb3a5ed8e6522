//! Hash tags and slots, as the Redis Cluster specification defines them.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>.

use sha2::{Digest, Sha256};

use crate::model::key::RedisKey;

/// Number of slots in a Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// The part of a key that decides its slot: what stands between the first `{` and the first `}`
/// after it, if that is not empty; otherwise the whole key.
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else {
        return key;
    };
    let after = &key[open + 1..];
    match after.iter().position(|&b| b == b'}') {
        Some(0) | None => key,
        Some(close) => &after[..close],
    }
}

/// The slot of a key: CRC16 (XMODEM) of its hash tag, modulo 16384.
#[must_use]
pub fn slot_of(key: &RedisKey) -> u16 {
    slot_of_bytes(key.as_bytes())
}

/// As [`slot_of`], for a key's bytes.
#[must_use]
pub fn slot_of_bytes(key: &[u8]) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(hash_tag(key)) % SLOTS
}

/// A set of slots, 2 KiB whatever it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; SLOTS as usize / 64]>);

impl SlotSet {
    /// No slot.
    #[must_use]
    pub fn empty() -> Self {
        Self(Box::new([0; SLOTS as usize / 64]))
    }

    /// Every slot.
    #[must_use]
    pub fn full() -> Self {
        Self(Box::new([u64::MAX; SLOTS as usize / 64]))
    }

    /// Adds a slot; slots outside a cluster's range are ignored.
    pub fn insert(&mut self, slot: u16) {
        if slot < SLOTS {
            self.0[usize::from(slot / 64)] |= 1 << (slot % 64);
        }
    }

    /// Whether a slot is in the set.
    #[must_use]
    pub fn contains(&self, slot: u16) -> bool {
        slot < SLOTS && self.0[usize::from(slot / 64)] & (1 << (slot % 64)) != 0
    }

    /// Number of slots in the set.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether the set holds no slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// The slots that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// The slots of this set that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// The slots that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// The slots in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..SLOTS).filter(|&slot| self.contains(slot))
    }

    /// A short text that tells this set from others.
    #[must_use]
    pub fn digest(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_be_bytes()).collect();
        hex::encode(&Sha256::digest(&bytes)[..8])
    }

    fn zip(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = Self::empty();
        for (target, (&a, &b)) in result.0.iter_mut().zip(self.0.iter().zip(other.0.iter())) {
            *target = combine(a, b);
        }
        result
    }
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = Self::empty();
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SlotSet({} slots)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_tags_follow_the_specification() {
        assert_eq!(hash_tag(b"tenant:{a}:x"), b"a");
        assert_eq!(hash_tag(b"tenant:{a}b}:x"), b"a");
        assert_eq!(hash_tag(b"tenant:{{a}}:x"), b"{a");
        assert_eq!(hash_tag(b"tenant:{}:x"), b"tenant:{}:x");
        assert_eq!(hash_tag(b"tenant:a"), b"tenant:a");
        assert_eq!(hash_tag(b"tenant:{a"), b"tenant:{a");
    }

    #[test]
    fn slots_match_the_published_examples() {
        assert_eq!(slot_of(&RedisKey::from("123456789")), 12_739);
        assert_eq!(slot_of(&RedisKey::from("{user1000}.following")), slot_of(&RedisKey::from("user1000")));
    }

    #[test]
    fn sets_do_what_sets_do() {
        let low: SlotSet = (0..100).collect();
        let high: SlotSet = (50..SLOTS).collect();
        assert_eq!(low.union(&high), SlotSet::full());
        assert_eq!(low.intersection(&high).len(), 50);
        assert_eq!(low.difference(&high).iter().last(), Some(49));
        assert!(SlotSet::empty().is_empty());
    }
}
