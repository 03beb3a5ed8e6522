//! Takes keys for what their names say, until the server says otherwise.
//!
//! Owns the guess: what a renaming migration would make of a key if its content is what its name promises, with the
//! premises on which that rests; and what follows for a batch: keys that are current already are confirmed, each
//! source waits for its turn once, and whatever a premise does not hold for is classified by reading. Refuses to
//! decide: the premise of a source is checked by the step that acts on it.

use std::collections::HashMap;

use crate::engine::assignment::Assignment;
use crate::engine::classify::{Classified, Source, classify};
use crate::engine::control::Control;
use crate::engine::equality;
use crate::engine::huge;
use crate::engine::stop::Stop;
use crate::keyspace::Keyspace;
use crate::keyspace::supposed::Supposed;
use crate::migrations::Rename;
use crate::model::key::RedisKey;
use crate::model::mapping::{Mapping, Premise, UnmigratedReason};

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

/// A batch of keys, as far as it is known what they are.
pub(super) struct Supposition<'a> {
    keyspace: &'a Keyspace,
    assignment: &'a Assignment,
    rename: &'a dyn Rename,
    control: &'a Control,
    /// Keys that are current already.
    current: Vec<(RedisKey, &'static str)>,
    /// How many of these never expire, as far as it was told with what confirmed them.
    current_lasting: u64,
    /// Those of which it was not; and keys of others that lie where a source's target would, since they are compared
    /// with it as targets are.
    of_unknown_life: Vec<RedisKey>,
    /// Keys of which nothing is known but by reading.
    open: Vec<RedisKey>,
    /// How many of those had their turn already.
    waited: usize,
}

impl<'a> Supposition<'a> {
    /// Takes keys for what their names say; gives the sources among them when it is their turn.
    pub(super) async fn of(
        keyspace: &'a Keyspace,
        assignment: &'a Assignment,
        rename: &'a dyn Rename,
        control: &'a Control,
        keys: Vec<RedisKey>,
    ) -> Result<(Self, Vec<Likely>), Stop> {
        let mut supposition = Self {
            keyspace,
            assignment,
            rename,
            control,
            current: Vec::new(),
            current_lasting: 0,
            of_unknown_life: Vec::new(),
            open: Vec::new(),
            waited: 0,
        };
        let (mut sources, mut current) = (Vec::with_capacity(keys.len()), Vec::new());
        for key in keys {
            match guess(assignment, rename, key) {
                Guess::Source(likely) => sources.push(likely),
                Guess::Current(key, entity, premises) => current.push((key, entity, premises)),
                Guess::Open(key) => supposition.open.push(key),
            }
        }
        supposition.confirm(current).await;
        control.pace(sources.len()).await?;
        Ok((supposition, sources))
    }

    /// Looks whether keys are current already as supposed.
    async fn confirm(&mut self, current: Vec<(RedisKey, &'static str, Vec<Premise>)>) {
        let premises: Vec<&Premise> = current.iter().flat_map(|(_, _, premises)| premises).collect();
        let mut holds = self.keyspace.hold(&premises).await.into_iter();
        for (key, entity, premises) in current {
            // Each of them has to be taken, whatever the first says.
            let held: Vec<Option<bool>> = holds.by_ref().take(premises.len()).collect();
            if held.len() < premises.len() || held.contains(&None) {
                self.open.push(key);
                continue;
            }
            match premises.iter().zip(held).find(|(premise, _)| *premise.key() == key) {
                Some((_, expires)) => self.current_lasting += u64::from(expires == Some(false)),
                None => self.of_unknown_life.push(key.clone()),
            }
            self.current.push((key, entity));
        }
    }

    /// Leaves a source to those that are read: the step that was to act on it could not.
    pub(super) fn leave(&mut self, likely: Likely) {
        self.open.push(likely.source.key);
        self.waited += 1;
    }

    /// Tells what the other keys mean; with the keys that are current already. Whether these expire is not asked.
    pub(super) async fn rest(mut self) -> Result<Classified, Stop> {
        let mut classified = self.read_open().await?;
        classified.current.extend(self.current);
        Ok(classified)
    }

    /// As [`Supposition::rest`], and counts the current keys that never expire.
    pub(super) async fn rest_with_lasting(mut self) -> Result<Classified, Stop> {
        let mut classified = self.read_open().await?;

        let mut of_unknown_life = self.of_unknown_life;
        of_unknown_life.extend(classified.current.iter().map(|(key, _)| key.clone()));
        let lasting = self.keyspace.last(&of_unknown_life).await?;
        classified.current_lasting = self.current_lasting + lasting.into_iter().filter(|lasts| *lasts).count() as u64;

        classified.current.extend(self.current);
        Ok(classified)
    }
}

impl Supposition<'_> {
    /// Reads the keys that are open, when it is their turn.
    async fn read_open(&mut self) -> Result<Classified, Stop> {
        let open = std::mem::take(&mut self.open);
        let mut classified = classify(self.keyspace, self.assignment, self.rename, open).await?;
        self.know_own_targets(&mut classified).await?;
        self.control.pace(classified.sources.len().saturating_sub(self.waited)).await?;
        Ok(classified)
    }

    /// What looks like somebody else's key may be the copy of a source that is still there: then it is no key apart.
    async fn know_own_targets(&mut self, classified: &mut Classified) -> Result<(), Stop> {
        let (apart, others): (Vec<_>, Vec<_>) = (std::mem::take(&mut classified.unmigrated).into_iter())
            .partition(|(_, reason)| *reason == UnmigratedReason::BracedTenant);
        classified.unmigrated = others;
        let mut sources = self.sources_at(&apart).await?;

        for (key, reason) in apart {
            match sources.remove(&key) {
                Some(Found { entity, is_copy: true }) => classified.current.push((key, entity)),
                Some(Found { is_copy: false, .. }) => {
                    self.of_unknown_life.push(key.clone());
                    classified.unmigrated.push((key, reason));
                }
                None => classified.unmigrated.push((key, reason)),
            }
        }
        Ok(())
    }

    /// The sources whose target would lie at one of these keys. That there is one proves nothing: both tenants may use
    /// the same names, so what lies there is compared.
    async fn sources_at(&self, apart: &[(RedisKey, UnmigratedReason)]) -> Result<HashMap<RedisKey, Found>, Stop> {
        let scope = &self.assignment.scope;
        let named: Vec<RedisKey> = apart.iter().flat_map(|(key, _)| self.rename.sources_of(scope, key)).collect();
        if named.is_empty() {
            return Ok(HashMap::new());
        }

        // What is not there at all looks like a summary without destinations.
        let exist = self.keyspace.exist(&named).await?;
        let originals = named.into_iter().zip(exist).filter(|(_, exists)| *exists).map(|(key, _)| key).collect();
        let sources = classify(self.keyspace, self.assignment, self.rename, originals).await?.sources;

        let pairs: Vec<_> = sources.iter().map(Source::pair).collect();
        let compared = huge::compare(self.keyspace, self.assignment, &pairs).await?;
        let found = sources.into_iter().zip(compared).map(|(Source { target, entity, .. }, comparison)| {
            let is_copy = equality::is_copy(self.assignment, &target, &comparison);
            (target, Found { entity, is_copy })
        });
        Ok(found.collect())
    }
}

/// A source, by what lies at its target's key.
struct Found {
    entity: &'static str,
    is_copy: bool,
}

enum Guess {
    Source(Likely),
    /// Current already if all premises hold.
    Current(RedisKey, &'static str, Vec<Premise>),
    /// The name does not say enough.
    Open(RedisKey),
}

/// What a key is if its content is what its name promises.
fn guess(assignment: &Assignment, rename: &dyn Rename, key: RedisKey) -> Guess {
    let answers = rename.likely_answers(&assignment.scope, &key);
    let mapping = rename.map(&assignment.scope, &key, &answers);
    match (mapping, answers.into_premises()) {
        (Mapping::Target { key: target, entity }, Some(premises)) => match <[Premise; 1]>::try_from(premises) {
            Ok([premise]) if *premise.key() == key => {
                Guess::Source(Likely { source: Source { key, target, entity }, premise })
            }
            Ok(_) | Err(_) => Guess::Open(key),
        },
        (Mapping::AlreadyCurrent { entity }, Some(premises)) => Guess::Current(key, entity, premises),
        (_, _) => Guess::Open(key),
    }
}
