//! What a run may ask of a primary right now: how much at a time, or nothing until something has passed.
//!
//! Owns the decision and its bounds, as pure functions of what was measured. Measuring is done elsewhere.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::model::phase::Step;

/// How much of the full work may be in flight, in parts of [`Effort::FULL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort(u32);

impl Effort {
    /// Everything at once that the engine would ever ask for.
    pub const FULL: Self = Self(1024);
    /// So much is always asked for, since latency may have causes that no restraint of ours cures.
    const FLOOR: Self = Self(8);
    /// What a calm while adds.
    const STEP: u32 = 64;

    /// Additive increase while round trips stay well below the limit, multiplicative decrease once one was above.
    #[must_use]
    pub fn after(self, worst: Duration, limit: Option<Duration>) -> Self {
        match limit {
            None => Self::FULL,
            Some(limit) if worst > limit => Self(self.0 / 2).max(Self::FLOOR),
            // Close to the limit already: more would be too much.
            Some(limit) if worst > limit * 3 / 4 => self,
            Some(_) => Self(self.0 + Self::STEP).min(Self::FULL),
        }
    }

    /// Batches of one primary in flight, and keys in each, where full work is `full`. The number of batches
    /// shrinks first; a single one then gets smaller.
    #[must_use]
    pub fn window(self, full: Window) -> Window {
        let batches = u64::from(self.0) * u64::from(full.in_flight);
        let whole = u64::from(Self::FULL.0);
        let batch = (full.batch as u64 * batches.min(whole) / whole).max(1);
        Window {
            in_flight: u32::try_from(batches / whole).unwrap_or(full.in_flight).max(1),
            batch: usize::try_from(batch).unwrap_or(full.batch),
        }
    }
}

/// Batches in flight, and keys in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Batches of one primary that are worked on at the same time.
    pub in_flight: u32,
    /// Keys in one batch.
    pub batch: usize,
}

/// Percent of its memory limit at which a primary gets no more copies.
pub const MEMORY_HOLD: u64 = 95;
/// Percent of its memory limit below which copying goes on.
const MEMORY_GO: u64 = 93;

/// What a primary says about its memory and its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Bytes that count against the limit: without the buffers of replicas, as Redis itself counts.
    pub used_memory: u64,
    /// Memory limit in bytes; 0: none.
    pub max_memory: u64,
    /// Bytes of the stream of writes that the slowest attached replica has not acknowledged; acknowledgements
    /// come once a second.
    pub behind: u64,
    /// Bytes kept for replicas beyond the backlog, because they do not take them.
    pub buffered: u64,
    /// Bytes at which Redis drops a replica that does not take its buffer.
    pub buffer_limit: u64,
}

/// What a run waits for, for others' sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldBy {
    /// A primary is close to its memory limit.
    Memory,
    /// Replicas take their writes so slowly that a primary would drop them.
    Replicas,
}

/// A run that waits, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What for.
    pub by: HeldBy,
    /// The primary, by its address.
    pub node: String,
    /// Bytes now.
    pub bytes: u64,
    /// Bytes below which it goes on.
    pub go_below: u64,
    /// The limit in bytes that is kept clear of.
    pub limit: u64,
}

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, .. } = self;
        let (now, below, limit) = (mib(self.bytes), mib(self.go_below), mib(self.limit));
        match self.by {
            HeldBy::Memory => write!(
                f,
                "{node} uses {now} of {limit} MiB; raise its maxmemory or free memory, copying goes on by itself \
                 below {below} MiB"
            ),
            HeldBy::Replicas => write!(
                f,
                "replicas of {node} leave {now} MiB untaken and would be dropped at {limit} MiB; look after them, \
                 the work goes on by itself below {below} MiB"
            ),
        }
    }
}

fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1024 * 1024);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// What a run may ask of a primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Work, this much at a time.
    Go(Effort),
    /// Nothing, until something has passed.
    Hold(Held),
}

impl Admission {
    /// What holds where both hold: targets lie on other primaries than their sources, so the one that is worst
    /// off decides for all.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Hold(held), _) | (Self::Go(_), Self::Hold(held)) => Self::Hold(held),
            (Self::Go(one), Self::Go(other)) => Self::Go(one.min(other)),
        }
    }
}

/// Whether a step asks more of memory or of replicas than it gives back.
#[must_use]
pub fn strains(step: Step) -> &'static [HeldBy] {
    match step {
        Step::Apply => &[HeldBy::Memory, HeldBy::Replicas],
        Step::Cleanup => &[HeldBy::Replicas],
        Step::Plan | Step::Verify => &[],
    }
}

/// Why a step may ask nothing of a primary. `before` are the vitals of the look before, `held` is why it was
/// held then: what held it has to fall clearly before it goes on.
#[must_use]
pub fn hold(step: Step, node: &str, before: Option<Vitals>, now: Vitals, held: Option<HeldBy>) -> Option<Held> {
    strains(step).iter().find_map(|&by| {
        let (bytes, limit, hold_at, go_below) = match by {
            HeldBy::Memory => {
                let limit = now.max_memory;
                // What comes until the next look takes effect must fit too.
                let growth = before.map_or(0, |before| now.used_memory.saturating_sub(before.used_memory));
                let hold_at = (limit / 100 * MEMORY_HOLD).min(limit.saturating_sub(growth * 2));
                (now.used_memory, limit, hold_at, limit / 100 * MEMORY_GO)
            }
            HeldBy::Replicas => (now.buffered, now.buffer_limit, now.buffer_limit / 2, now.buffer_limit / 4),
        };
        let bound = if held == Some(by) { go_below } else { hold_at };
        (limit > 0 && bytes >= bound.max(1)).then(|| Held { by, node: node.to_owned(), bytes, go_below, limit })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Window = Window { in_flight: 4, batch: 500 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn effort_falls_by_half_and_rises_by_steps() {
        let limit = Some(ms(10));
        let table = [
            // effort, worst round trip, limit, effort after
            (1024, ms(11), limit, 512),
            (512, ms(100), limit, 256),
            (9, ms(11), limit, 8),
            (8, ms(1000), limit, 8),
            (512, ms(10), limit, 512),
            (512, ms(8), limit, 512),
            (512, ms(7), limit, 576),
            (1000, ms(1), limit, 1024),
            (8, ms(1000), None, 1024),
        ];
        for (effort, worst, limit, after) in table {
            assert_eq!(Effort(effort).after(worst, limit), Effort(after), "{effort} {worst:?} {limit:?}");
        }
    }

    #[test]
    fn fewer_batches_come_before_smaller_ones() {
        let table = [(1024, 4, 500), (800, 3, 500), (512, 2, 500), (256, 1, 500), (128, 1, 250), (8, 1, 15)];
        for (effort, in_flight, batch) in table {
            assert_eq!(Effort(effort).window(FULL), Window { in_flight, batch }, "{effort}");
        }
        assert_eq!(Effort(8).window(Window { in_flight: 1, batch: 10 }), Window { in_flight: 1, batch: 1 });
    }

    #[test]
    fn the_work_is_back_at_full_after_two_seconds_of_calm() {
        let mut effort = Effort::FLOOR;
        let looks = (0..).take_while(|_| {
            effort = effort.after(ms(1), Some(ms(10)));
            effort < Effort::FULL
        });
        assert!(looks.count() < 20, "a look is a tenth of a second");
    }

    #[test]
    fn memory_holds_copies_alone() {
        let vitals = |used_memory| Vitals { used_memory, max_memory: 10_000, ..Vitals::default() };
        let held = |step, before, now, held: Option<HeldBy>| {
            hold(step, "n", Some(vitals(before)), vitals(now), held).map(|held| held.by)
        };
        let memory = Some(HeldBy::Memory);
        assert_eq!(held(Step::Apply, 9_499, 9_499, None), None);
        assert_eq!(held(Step::Apply, 9_500, 9_500, None), memory);
        assert_eq!(held(Step::Apply, 9_400, 9_400, memory), memory, "it has to fall clearly");
        assert_eq!(held(Step::Apply, 9_299, 9_299, memory), None);
        assert_eq!(held(Step::Apply, 6_000, 8_000, None), memory, "the next look would come too late");
        assert_eq!(held(Step::Apply, 8_000, 8_000, None), None);
        for step in [Step::Plan, Step::Verify, Step::Cleanup] {
            assert_eq!(held(step, 9_999, 9_999, None), None, "{step}");
        }
        let unlimited = Vitals { used_memory: 1 << 40, ..Vitals::default() };
        assert_eq!(hold(Step::Apply, "n", None, unlimited, None), None);
    }

    #[test]
    fn replicas_hold_whatever_writes() {
        let vitals = |buffered| Vitals { buffered, buffer_limit: 100, ..Vitals::default() };
        let held = |step, now, held: Option<HeldBy>| hold(step, "n", None, vitals(now), held).map(|held| held.by);
        let replicas = Some(HeldBy::Replicas);
        for step in [Step::Apply, Step::Cleanup] {
            assert_eq!(held(step, 49, None), None);
            assert_eq!(held(step, 50, None), replicas);
            assert_eq!(held(step, 26, replicas), replicas);
            assert_eq!(held(step, 24, replicas), None);
        }
        assert_eq!(held(Step::Verify, 100, None), None);
    }

    #[test]
    fn the_worst_primary_decides_for_all() {
        let held = Held { by: HeldBy::Memory, node: "n".into(), bytes: 1, go_below: 1, limit: 1 };
        let refusal = Admission::Hold(held);
        let (little, much) = (Admission::Go(Effort(8)), Admission::Go(Effort::FULL));
        assert_eq!(little.clone().and(much.clone()), little);
        assert_eq!(much.clone().and(refusal.clone()), refusal);
        assert_eq!(refusal.clone().and(little), refusal);
    }
}
