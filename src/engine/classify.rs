//! Asks a renaming migration what keys mean, and reads what it needs to tell.

use crate::engine::assignment::Assignment;
use crate::keyspace::{Fault, Keyspace};
use crate::migrations::Rename;
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, Mapping, Probe, UnmigratedReason};

/// Questions that a migration may ask in turn about one key; more means it can't tell.
const ROUNDS: usize = 8;

/// A source entry and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) key: RedisKey,
    pub(super) target: RedisKey,
    pub(super) entity: &'static str,
}

impl Source {
    pub(super) fn pair(&self) -> (RedisKey, RedisKey) {
        (self.key.clone(), self.target.clone())
    }
}

/// Keys by what they mean.
#[derive(Debug, Default)]
pub(super) struct Classified {
    pub(super) sources: Vec<Source>,
    pub(super) current: Vec<(RedisKey, &'static str)>,
    /// How many of these never expire, where that was asked.
    pub(super) current_lasting: u64,
    pub(super) unmigrated: Vec<(RedisKey, UnmigratedReason)>,
}

/// Tells what each key means; the order within each kind is that of the keys.
pub(super) async fn classify(
    keyspace: &Keyspace,
    assignment: &Assignment,
    rename: &dyn Rename,
    keys: Vec<RedisKey>,
) -> Result<Classified, Fault> {
    let mut classified = Classified::default();
    let mut open: Vec<(RedisKey, Answers)> = keys.into_iter().map(|key| (key, Answers::none())).collect();
    for _ in 0..ROUNDS {
        let mut asking = Vec::new();
        for (key, answers) in open {
            match rename.map(&assignment.scope, &key, &answers) {
                Mapping::Need(probes) => asking.push((key, answers, probes)),
                decided => classified.add(key, decided),
            }
        }
        if asking.is_empty() {
            return Ok(classified);
        }
        open = ask(keyspace, asking).await?;
    }
    classified.unmigrated.extend(open.into_iter().map(|(key, _)| (key, UnmigratedReason::Ambiguous)));
    Ok(classified)
}

async fn ask(
    keyspace: &Keyspace,
    asking: Vec<(RedisKey, Answers, Vec<Probe>)>,
) -> Result<Vec<(RedisKey, Answers)>, Fault> {
    let probes: Vec<Probe> = asking.iter().flat_map(|(_, _, probes)| probes.clone()).collect();
    let mut results = probes.iter().cloned().zip(keyspace.probe(&probes).await?);
    Ok(asking
        .into_iter()
        .map(|(key, mut answers, asked)| {
            for (probe, answer) in results.by_ref().take(asked.len()) {
                answers.insert(probe, answer);
            }
            (key, answers)
        })
        .collect())
}

impl Classified {
    fn add(&mut self, key: RedisKey, mapping: Mapping) {
        match mapping {
            Mapping::Target { key: target, entity } => self.sources.push(Source { key, target, entity }),
            Mapping::AlreadyCurrent { entity } => self.current.push((key, entity)),
            Mapping::Unmigrated(reason) => self.unmigrated.push((key, reason)),
            Mapping::NotOurs | Mapping::Need(_) => {}
        }
    }
}
