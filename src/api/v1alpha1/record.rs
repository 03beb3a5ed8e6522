//! Writes what the engine found into status.
//!
//! Owns the way from the model's reports to status fields, and the promise of `samples: Off`: with
//! it no key name gets through here.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::status::{
    CleanupStatus, EntityScope, FindingStatus, HISTORY_LIMIT, HistoryEntry, KeyPair, KeyReason, PlanStatus, PlanTotals,
    ProgressStatus, RedisMigrationStatus, UnmigratedStatus, VerificationStatus,
};
use crate::model::count::{SAMPLE_LIMIT, Sample, Unmigrated};
use crate::model::finding::Finding;
use crate::model::key::RedisKey;
use crate::model::phase::Phase;
use crate::model::plan::{PLAN_VERSION, Plan, Seen};
use crate::model::progress::Progress;
use crate::model::report::{CleanupReport, VerifyReport};
use crate::model::time::{UnixMillis, human_seconds};

/// A point in time as Kubernetes writes it: whole seconds, so that what was written reads back equal.
#[must_use]
pub fn time(at: UnixMillis) -> Time {
    Time(Timestamp::from_second(at.0.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH))
}

impl RedisMigrationStatus {
    /// Enters a phase and remembers it in the history; the phase it is in already is not a change.
    pub fn enter(&mut self, phase: Phase, message: impl Into<String>, now: UnixMillis) {
        if self.phase == phase && !self.history.is_empty() {
            return;
        }
        self.phase = phase;
        self.history.push(HistoryEntry { at: time(now), phase, message: message.into() });
        let surplus = self.history.len().saturating_sub(HISTORY_LIMIT);
        self.history.drain(..surplus);
    }
}

impl RedisMigrationStatus {
    /// Takes out every key name, for whoever turns samples off later.
    pub fn forget_samples(&mut self) {
        if let Some(plan) = &mut self.plan {
            plan.sample.clear();
            plan.conflict_sample.clear();
            plan.unmigrated.sample.clear();
        }
        if let Some(verification) = &mut self.verification {
            verification.sample.clear();
        }
        if let Some(cleanup) = &mut self.cleanup {
            cleanup.sample.clear();
        }
    }
}

impl PlanStatus {
    /// A plan as status shows it; `samples` says whether keys may be named.
    #[must_use]
    pub fn new(plan: &Plan, computed_at: UnixMillis, samples: bool) -> Self {
        let seen = &plan.seen;
        Self {
            hash: plan.hash.to_string(),
            plan_version: i32::try_from(PLAN_VERSION).unwrap_or(i32::MAX),
            computed_at: Some(time(computed_at)),
            scope: scope(seen),
            totals: PlanTotals {
                sources: number(seen.total_sources()),
                to_copy: number(seen.to_copy()),
                already_migrated: number(seen.already_migrated),
                conflicts: number(seen.conflicts),
                targets_before: number(seen.targets_before()),
            },
            estimated_bytes: number(seen.estimated_bytes),
            sample: pairs(&seen.sample, samples),
            conflict_sample: pairs(&seen.conflict_sample, samples),
            unmigrated: UnmigratedStatus::new(&seen.unmigrated, samples),
            findings: seen.findings.iter().map(FindingStatus::from).collect(),
        }
    }
}

impl UnmigratedStatus {
    /// Unmigrated keys as status shows them; `samples` says whether keys may be named.
    #[must_use]
    pub fn new(unmigrated: &Unmigrated, samples: bool) -> Self {
        Self {
            count: number(unmigrated.total()),
            by_reason: unmigrated
                .by_reason
                .iter()
                .map(|(reason, count)| (format!("{reason:?}"), number(*count)))
                .collect(),
            sample: named(&unmigrated.sample, samples, |(key, reason)| KeyReason {
                key: key.to_string(),
                reason: format!("{reason:?}: {}", reason.explain()),
            }),
        }
    }
}

impl From<&Finding> for FindingStatus {
    fn from(finding: &Finding) -> Self {
        Self {
            code: finding.code.to_string(),
            severity: format!("{:?}", finding.severity),
            message: finding.message.clone(),
            accepted: finding.accepted,
        }
    }
}

impl From<Progress> for ProgressStatus {
    fn from(progress: Progress) -> Self {
        let percent = progress.percent().map(i32::from);
        Self {
            step: progress.step.to_string(),
            processed: number(progress.processed),
            total: progress.total.map(number),
            skipped: number(progress.skipped),
            failed: number(progress.failed),
            conflicts: number(progress.conflicts),
            percent,
            display: percent.map(|percent| format!("{percent}%")),
            keys_per_second: number(progress.keys_per_second),
            eta: progress.eta_seconds().filter(|seconds| *seconds > 0).map(human_seconds),
            held: match (&progress.held, progress.waits_for) {
                (Some(held), _) => Some(held.to_string()),
                (None, waits_for) => waits_for.map(|what| format!("waits for {what}")),
            },
            replica_lag_bytes: progress.replica_lag_bytes.map(number),
        }
    }
}

impl VerificationStatus {
    /// A comparison as status shows it; `samples` says whether keys may be named.
    #[must_use]
    pub fn new(report: &VerifyReport, completed_at: UnixMillis, samples: bool) -> Self {
        Self {
            equal: number(report.equal),
            different: number(report.different),
            ended: number(report.ended),
            sample: named(&report.sample, samples, |(key, difference)| KeyReason {
                key: key.to_string(),
                reason: difference.to_string(),
            }),
            completed_at: Some(time(completed_at)),
        }
    }
}

impl CleanupStatus {
    /// Records what cleanup did; hash and soak stay as they are, and so do the unmigrated keys, which it does not count.
    pub fn complete(&mut self, report: &CleanupReport, completed_at: UnixMillis, samples: bool) {
        self.removed = number(report.removed + report.removed_before);
        self.kept = [
            ("Diverged", report.kept_diverged),
            ("ChangedMeanwhile", report.kept_changed),
            ("BracedTenant", report.kept_as_signs),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.to_owned(), number(count)))
        .collect();
        self.gone = number(report.gone);
        self.findings = report.findings.iter().map(FindingStatus::from).collect();
        self.sample = named(&report.kept_sample, samples, ToString::to_string);
        self.completed_at = Some(time(completed_at));
    }
}

fn scope(seen: &Seen) -> Vec<EntityScope> {
    let mut entities: BTreeMap<&str, EntityScope> = BTreeMap::new();
    for (entity, count) in &seen.sources {
        entities.entry(entity).or_default().sources = number(*count);
    }
    for (entity, count) in &seen.current {
        entities.entry(entity).or_default().current = number(*count);
    }
    entities.into_iter().map(|(entity, scope)| EntityScope { entity: entity.to_owned(), ..scope }).collect()
}

fn pairs(sample: &Sample<(RedisKey, RedisKey)>, samples: bool) -> Vec<KeyPair> {
    named(sample, samples, |(source, target)| KeyPair { source: source.to_string(), target: target.to_string() })
}

/// The one way by which key names reach status.
fn named<T: Ord, U, const LIMIT: usize>(sample: &Sample<T, LIMIT>, samples: bool, show: impl Fn(&T) -> U) -> Vec<U> {
    if samples { sample.iter().take(SAMPLE_LIMIT).map(show).collect() } else { Vec::new() }
}

/// A count as the API tells it.
#[must_use]
pub fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
