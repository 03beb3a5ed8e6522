//! Takes keys for what their names say, until the server says otherwise.
//!
//! Owns the guess: what a renaming migration would make of a key if its content is what its name promises, with the
//! premises on which that rests. Refuses to decide: a premise is checked by the step that acts on it, and whatever it
//! does not hold for is classified by reading.

use crate::engine::assignment::Assignment;
use crate::engine::classify::Source;
use crate::keyspace::Keyspace;
use crate::keyspace::supposed::Supposed;
use crate::migrations::Rename;
use crate::model::key::RedisKey;
use crate::model::mapping::{Mapping, Premise};

/// A key that is a source if its premise holds.
pub(super) struct Likely {
    pub(super) source: Source,
    premise: Premise,
}

impl Likely {
    pub(super) fn supposed(&self) -> Supposed<'_> {
        Supposed { target: &self.source.target, premise: &self.premise }
    }

    pub(super) fn premise(&self) -> &Premise {
        &self.premise
    }
}

/// Keys by what their names say.
#[derive(Default)]
pub(super) struct Supposition {
    pub(super) sources: Vec<Likely>,
    /// Keys that are current already if all their premises hold.
    pub(super) current: Vec<(RedisKey, &'static str, Vec<Premise>)>,
    /// Keys of which the name does not say enough.
    pub(super) open: Vec<RedisKey>,
}

/// What each key is if its content is what its name promises.
pub(super) fn suppose(assignment: &Assignment, rename: &dyn Rename, keys: Vec<RedisKey>) -> Supposition {
    let mut supposition = Supposition::default();
    for key in keys {
        let answers = rename.likely_answers(&assignment.scope, &key);
        let mapping = rename.map(&assignment.scope, &key, &answers);
        match (mapping, answers.into_premises()) {
            (Mapping::Target { key: target, entity }, Some(premises)) => match <[Premise; 1]>::try_from(premises) {
                Ok([premise]) if *premise.key() == key => {
                    supposition.sources.push(Likely { source: Source { key, target, entity }, premise });
                }
                Ok(_) | Err(_) => supposition.open.push(key),
            },
            (Mapping::AlreadyCurrent { entity }, Some(premises)) => supposition.current.push((key, entity, premises)),
            (_, _) => supposition.open.push(key),
        }
    }
    supposition
}

impl Supposition {
    /// Looks whether keys are current already as supposed, and gives those that are. The others are open then.
    pub(super) async fn confirm_current(&mut self, keyspace: &Keyspace) -> Vec<(RedisKey, &'static str)> {
        let premises: Vec<&Premise> = self.current.iter().flat_map(|(_, _, premises)| premises).collect();
        let mut holds = keyspace.hold(&premises).await.into_iter();
        let mut confirmed = Vec::with_capacity(self.current.len());
        for (key, entity, premises) in std::mem::take(&mut self.current) {
            // Each of them has to be taken, whatever the first says.
            let held = holds.by_ref().take(premises.len()).filter(|&holds| holds).count();
            if held == premises.len() { confirmed.push((key, entity)) } else { self.open.push(key) }
        }
        confirmed
    }
}
