//! Asks an in-place migration what is to change in entries, and changes it.
//!
//! Owns the reading of the fields in question and the writing under the condition that they still hold
//! what was read. An entry that went away meanwhile stays away.

use crate::engine::assignment::Assignment;
use crate::engine::control::Control;
use crate::engine::equality;
use crate::engine::huge;
use crate::engine::stop::Stop;
use crate::keyspace::compare::Comparison;
use crate::keyspace::conditional::Outcome;
use crate::keyspace::{Fault, Keyspace, Writer};
use crate::migrations::InPlace;
use crate::model::change::{Change, FieldChange, Fields};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answer, Answers, Belongs, Probe, UnmigratedReason};
use crate::model::report::ApplyReport;

/// Questions that a migration may ask in turn about whose one entry is.
const ROUNDS: usize = 4;

/// Times that an entry is read anew because it changed in our hands.
const ATTEMPTS: usize = 3;

/// An entry that is to be changed: its key, the changes, what it is.
type ToChange = (RedisKey, Vec<FieldChange>, &'static str);

/// Entries by what is to be done with them.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) to_change: Vec<ToChange>,
    pub(super) current: Vec<(RedisKey, &'static str)>,
    pub(super) unmigrated: Vec<(RedisKey, UnmigratedReason)>,
}

/// Tells what is to be done with each entry; the order within each kind is that of the keys.
pub(super) async fn judge(
    keyspace: &Keyspace,
    assignment: &Assignment,
    in_place: &dyn InPlace,
    keys: Vec<RedisKey>,
) -> Result<Judged, Fault> {
    let names = in_place.fields();
    let probes: Vec<Probe> = keys.iter().map(|key| Probe::Fields { key: key.clone(), fields: names }).collect();
    let mut judged = Judged::default();
    let mut without_fields = Vec::new();
    for (key, answer) in keys.into_iter().zip(keyspace.probe(&probes).await?) {
        let hash = match answer {
            Answer::Fields(values) => Some(Fields::new(names, values)),
            Answer::NotAHash | Answer::Shape { .. } => None,
        };
        let may_be_gone = hash.as_ref().is_some_and(Fields::are_absent);
        match in_place.transform(&assignment.scope, &key, hash.as_ref()) {
            Change::Set { fields, entity } => judged.to_change.push((key, fields, entity)),
            Change::AlreadyCurrent { entity } => judged.current.push((key, entity)),
            Change::Unmigrated(reason) if may_be_gone => without_fields.push((key, reason)),
            Change::Unmigrated(reason) => judged.unmigrated.push((key, reason)),
            Change::NotOurs => {}
        }
    }
    leave_what_is_others(keyspace, assignment, in_place, &mut judged).await?;
    let keys: Vec<RedisKey> = without_fields.iter().map(|(key, _)| key.clone()).collect();
    let exist = keyspace.exist(&keys).await?;
    judged.unmigrated.extend(without_fields.into_iter().zip(exist).filter(|(_, exists)| *exists).map(|(it, _)| it));
    Ok(judged)
}

/// Moves what belongs to somebody else than its name says from what is to be changed to what is left alone.
async fn leave_what_is_others(
    keyspace: &Keyspace,
    assignment: &Assignment,
    in_place: &dyn InPlace,
    judged: &mut Judged,
) -> Result<(), Fault> {
    let mut open: Vec<_> = judged.to_change.drain(..).map(|entry| (entry, Answers::none())).collect();
    let mut in_doubt = Vec::new();
    for _ in 0..ROUNDS {
        let (mut asking, mut probes) = (Vec::new(), Vec::new());
        for (entry, answers) in std::mem::take(&mut open) {
            match in_place.belongs(&assignment.scope, &entry.0, &answers) {
                Belongs::AsNamed => judged.to_change.push(entry),
                Belongs::Elsewhere(reason) => judged.unmigrated.push((entry.0, reason)),
                Belongs::IfCopyOf { originals, otherwise } => in_doubt.push(InDoubt { entry, originals, otherwise }),
                Belongs::Need(asked) => {
                    asking.push((entry, answers, asked.len()));
                    probes.extend(asked);
                }
            }
        }
        if asking.is_empty() {
            break;
        }

        let mut found = probes.iter().cloned().zip(keyspace.probe(&probes).await?);
        open = asking
            .into_iter()
            .map(|(entry, mut answers, asked)| {
                found.by_ref().take(asked).for_each(|(probe, answer)| answers.insert(probe, answer));
                (entry, answers)
            })
            .collect();
    }
    judged.unmigrated.extend(open.into_iter().map(|((key, _, _), _)| (key, UnmigratedReason::Ambiguous)));
    tell_copies(keyspace, assignment, in_doubt, judged).await
}

/// An entry that is its namesake's only if it is a copy of each of these originals.
struct InDoubt {
    entry: ToChange,
    originals: Vec<RedisKey>,
    otherwise: UnmigratedReason,
}

/// Compares what is in doubt with its originals. What the application changed since it was copied is no copy any more:
/// nothing tells it from somebody else's, so it is left alone too.
async fn tell_copies(
    keyspace: &Keyspace,
    assignment: &Assignment,
    in_doubt: Vec<InDoubt>,
    judged: &mut Judged,
) -> Result<(), Fault> {
    let mut pairs = Vec::new();
    for InDoubt { entry, originals, .. } in &in_doubt {
        pairs.extend(originals.iter().map(|original| (original.clone(), entry.0.clone())));
    }
    if pairs.is_empty() {
        return Ok(());
    }

    let mut compared = huge::compare(keyspace, assignment, &pairs).await?.into_iter();
    for InDoubt { entry, originals, otherwise } in in_doubt {
        // Each of them has to be taken, whatever the first says.
        let compared: Vec<Comparison> = compared.by_ref().take(originals.len()).collect();
        if compared.iter().all(|comparison| equality::is_copy(assignment, &entry.0, comparison)) {
            judged.to_change.push(entry);
        } else {
            judged.unmigrated.push((entry.0, otherwise));
        }
    }
    Ok(())
}

/// Changes batches.
pub(super) struct Changer<'a> {
    pub(super) writer: &'a Writer,
    pub(super) assignment: &'a Assignment,
    pub(super) in_place: &'a dyn InPlace,
    pub(super) control: &'a Control,
}

impl Changer<'_> {
    /// Changes what is to be changed. A batch that changes nothing has found every entry in current form.
    pub(super) async fn change(&self, mut keys: Vec<RedisKey>) -> Result<ApplyReport, Stop> {
        let mut report = ApplyReport::default();
        for attempt in 0..ATTEMPTS {
            let judged = judge(self.writer, self.assignment, self.in_place, std::mem::take(&mut keys)).await?;
            if attempt == 0 {
                self.control.pace(judged.to_change.len() + judged.current.len()).await?;
            }
            report.already_migrated += judged.current.len() as u64;
            for (key, reason) in judged.unmigrated {
                report.unmigrated.count(key, reason);
            }
            let changes: Vec<_> = judged.to_change.into_iter().map(|(key, fields, _)| (key, fields)).collect();
            if changes.is_empty() {
                return Ok(report);
            }
            let outcomes = self.writer.set_fields_if_unchanged(&changes).await?;
            for ((key, _), outcome) in changes.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Done => report.changed += 1,
                    Outcome::Gone => report.ended += 1,
                    Outcome::Changed => keys.push(key),
                }
            }
        }
        report.unsettled += keys.len() as u64;
        Ok(report)
    }
}
