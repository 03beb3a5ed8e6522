//! Signs: originals that show, as long as they are there, whose keys under a current name are.
//!
//! Owns what cleanup has to know of them before it removes anything: which may go, since no key of their own lies under
//! them, and beside which of the others an original's target lies. Such an original shows in turn that the target is not
//! the sign's, so the two stay together. Where no sign is found nothing more is asked.

use std::collections::BTreeSet;

use crate::engine::assignment::Assignment;
use crate::engine::control::{Advance, Control, Meter};
use crate::engine::pass::{self, Tally};
use crate::engine::stop::Stop;
use crate::engine::suppose::Supposition;
use crate::keyspace::{Fault, Keyspace};
use crate::migrations::Rename;
use crate::model::key::RedisKey;
use crate::model::mapping::{Premise, Probe, UnmigratedReason};

/// Most signs that are kept in memory; where there are more, all stay.
const SIGNS_LIMIT: usize = 10_000;

/// Finds signs, and returns those under which nothing of their own lies; `None` where there is no sign at all.
///
/// # Errors
/// What kept the pass from being complete.
pub(super) async fn find(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    rename: &dyn Rename,
    meter: &Meter<'_>,
) -> Result<Option<BTreeSet<RedisKey>>, Stop> {
    let look = |keys| look_at(keyspace, assignment, control, rename, keys);
    let seen: Seen = pass::complete(keyspace, &assignment.prefixes(), control, meter, look).await?;
    Ok(seen.free())
}

/// Tells for each key whether a sign stands over it: one look for all of them.
///
/// # Errors
/// The first fault that stayed.
pub(super) async fn stand_over<'k>(
    keyspace: &Keyspace,
    assignment: &Assignment,
    rename: &dyn Rename,
    keys: impl Iterator<Item = &'k RedisKey>,
) -> Result<Vec<bool>, Fault> {
    let over: Vec<Vec<RedisKey>> = keys.map(|key| rename.signs_over(&assignment.scope, key)).collect();
    let asked: BTreeSet<&RedisKey> = over.iter().flatten().collect();

    let standing = among(keyspace, assignment, rename, asked.into_iter()).await?;
    Ok(over.iter().map(|signs| signs.iter().any(|sign| standing.contains(sign))).collect())
}

/// The signs among these keys: by what they hold, since anything may have such a name. Others are not read.
///
/// # Errors
/// The first fault that stayed.
pub(super) async fn among<'k>(
    keyspace: &Keyspace,
    assignment: &Assignment,
    rename: &dyn Rename,
    keys: impl Iterator<Item = &'k RedisKey>,
) -> Result<BTreeSet<RedisKey>, Fault> {
    let premises: Vec<Premise> = keys.filter_map(|key| rename.sign(&assignment.scope, key)).collect();
    if premises.is_empty() {
        return Ok(BTreeSet::new());
    }

    let probes: Vec<Probe> = premises.iter().map(Premise::probe).collect();
    let answers = keyspace.probe(&probes).await?;
    let standing = premises.iter().zip(&answers).filter(|(premise, answer)| premise.agrees_with(answer));
    Ok(standing.map(|(premise, _)| premise.key().clone()).collect())
}

/// Signs, and those that are needed.
#[derive(Debug, Default)]
struct Seen {
    signs: BTreeSet<RedisKey>,
    needed: BTreeSet<RedisKey>,
}

impl Seen {
    fn are_too_many(&self) -> bool {
        self.signs.len() >= SIGNS_LIMIT || self.needed.len() >= SIGNS_LIMIT
    }

    fn free(self) -> Option<BTreeSet<RedisKey>> {
        if self.signs.is_empty() {
            None
        } else if self.are_too_many() {
            Some(BTreeSet::new())
        } else {
            Some(self.signs.difference(&self.needed).cloned().collect())
        }
    }
}

impl Tally for Seen {
    fn merge(&mut self, other: Self) {
        remember(&mut self.signs, other.signs);
        remember(&mut self.needed, other.needed);
    }

    fn advance(&self) -> Advance {
        Advance::default()
    }
}

fn remember(held: &mut BTreeSet<RedisKey>, more: BTreeSet<RedisKey>) {
    for key in more {
        if held.len() < SIGNS_LIMIT {
            held.insert(key);
        }
    }
}

async fn look_at(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    rename: &dyn Rename,
    keys: Vec<RedisKey>,
) -> Result<Seen, Stop> {
    let scope = &assignment.scope;
    let (sources, named_current): (Vec<RedisKey>, Vec<RedisKey>) =
        keys.into_iter().partition(|key| rename.may_be_source(scope, key));
    let signs = among(keyspace, assignment, rename, sources.iter()).await?;

    let are_under = stand_over(keyspace, assignment, rename, named_current.iter()).await?;
    let under: Vec<RedisKey> =
        named_current.into_iter().zip(are_under).filter(|(_, is_under)| *is_under).map(|(key, _)| key).collect();
    if under.is_empty() {
        return Ok(Seen { signs, needed: BTreeSet::new() });
    }

    let (supposition, _) = Supposition::of(keyspace, assignment, rename, control, under).await?;
    let others = supposition.rest().await?.unmigrated.into_iter();
    let needed = others
        .filter(|(_, reason)| *reason == UnmigratedReason::BracedTenant)
        .flat_map(|(key, _)| rename.signs_over(scope, &key))
        .collect();
    Ok(Seen { signs, needed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(signs: usize, needed: usize) -> Seen {
        let named = |count| (0..count).map(|number: usize| RedisKey::from(number.to_string().as_str())).collect();
        Seen { signs: named(signs), needed: named(needed) }
    }

    #[test]
    fn what_is_too_much_to_remember_stays() {
        assert_eq!(seen(0, 0).free(), None);
        assert_eq!(seen(3, 1).free().map(|free| free.len()), Some(2));

        let mut many = seen(SIGNS_LIMIT - 1, 0);
        assert_eq!(many.signs.len(), SIGNS_LIMIT - 1);
        many.merge(Seen { signs: ["a".into(), "b".into()].into(), ..Seen::default() });
        assert_eq!(many.signs.len(), SIGNS_LIMIT, "memory is bounded");
        assert_eq!(many.free(), Some(BTreeSet::new()), "nobody knows of the others");
    }
}
