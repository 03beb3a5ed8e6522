//! Names targets whose source is gone.
//!
//! Owns the one pass that goes from targets to sources. It costs as much as a comparison, so it is taken only when the
//! sums of another pass do not come out. Removes nothing: whether an entry should be gone is not for us to say.

use crate::engine::assignment::Assignment;
use crate::engine::classify::classify;
use crate::engine::control::{Advance, Control, Meter};
use crate::engine::pass::{self, Tally};
use crate::engine::stop::Stop;
use crate::keyspace::Keyspace;
use crate::migrations::{Rename, Rule};
use crate::model::count::Sample;
use crate::model::key::RedisKey;

/// Keys in current form that have no source and never expire.
#[derive(Debug, Default)]
pub(super) struct Sourceless {
    pub(super) entries: u64,
    pub(super) sample: Sample<RedisKey>,
}

impl Tally for Sourceless {
    fn merge(&mut self, other: Self) {
        self.entries += other.entries;
        self.sample.merge(other.sample);
    }

    fn advance(&self) -> Advance {
        Advance::default()
    }
}

/// Finds them.
///
/// # Errors
/// What kept the pass from being complete.
pub(super) async fn find(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    meter: &Meter<'_>,
) -> Result<Sourceless, Stop> {
    match assignment.rule() {
        Rule::Rename(rename) => {
            let look = |keys| look_at(keyspace, assignment, control, rename, keys);
            pass::complete(keyspace, &assignment.prefixes(), control, meter, look).await
        }
        // Its entries are their own sources.
        Rule::InPlace(_) => Ok(Sourceless::default()),
    }
}

async fn look_at(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    rename: &dyn Rename,
    keys: Vec<RedisKey>,
) -> Result<Sourceless, Stop> {
    let mut targets = Vec::new();
    let mut sources = Vec::new();
    for key in keys.into_iter().filter(|key| !rename.may_be_source(&assignment.scope, key)) {
        let of_it = rename.sources_of(&assignment.scope, &key);
        targets.push((key, of_it.len()));
        sources.extend(of_it);
    }
    control.pace(targets.len()).await?;

    let mut exist = keyspace.exist(&sources).await?.into_iter();
    let mut without = Vec::new();
    for (key, count) in targets {
        let exists = exist.by_ref().take(count).filter(|exists| *exists).count() > 0;
        without.extend((!exists).then_some(key));
    }

    // What a run counts when it begins: not what others left under such names.
    let current = classify(keyspace, assignment, rename, without).await?.current;
    let without: Vec<RedisKey> = current.into_iter().map(|(key, _)| key).collect();

    let mut found = Sourceless::default();
    for (key, lasts) in without.iter().zip(keyspace.last(&without).await?) {
        if lasts {
            found.entries += 1;
            found.sample.offer(key.clone());
        }
    }
    Ok(found)
}
