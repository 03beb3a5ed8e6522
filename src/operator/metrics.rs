//! What Prometheus sees.
//!
//! Owns names and labels of the metrics. Labels name resources, never keys or hosts. A resource's
//! series come from the replica that works on it and vanish with the resource.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::api::conditions::Reason;
use crate::model::phase::{Phase, Step};
use crate::model::progress::Progress;
use crate::operator::retry::ErrorKind;

/// A resource, by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResourceLabels {
    namespace: String,
    name: String,
}

impl ResourceLabels {
    /// Labels of a resource.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    namespace: String,
    name: String,
    phase: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    namespace: String,
    name: String,
    reason: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    namespace: String,
    name: String,
    step: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    reason: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    kind: Word,
}

/// A word of ours as a label's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Word(String);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    phase: Family<PhaseLabels, Gauge>,
    reason: Family<ReasonLabels, Gauge>,
    processed: Family<StepLabels, Counter>,
    failures: Family<FailureLabels, Counter>,
    kept_to_itself: Family<FailureLabels, Counter>,
    reconcile_errors: Family<ErrorLabels, Counter>,
    lock_held: Family<ResourceLabels, Gauge>,
    plan_size: Family<ResourceLabels, Gauge>,
    reconciles: Histogram,
    seen: Mutex<HashMap<StepLabels, u64>>,
}

impl Metrics {
    /// Metrics that nothing was counted in.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("outpost_migrate");
        let metrics = Self {
            phase: Family::default(),
            reason: Family::default(),
            processed: Family::default(),
            failures: Family::default(),
            kept_to_itself: Family::default(),
            reconcile_errors: Family::default(),
            lock_held: Family::default(),
            plan_size: Family::default(),
            reconciles: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            seen: Mutex::default(),
            registry: Registry::default(),
        };
        registry.register("phase", "Phase of a RedisMigration: 1 for the one it is in", metrics.phase.clone());
        registry.register("reason", "Reason of a RedisMigration's Ready condition: 1", metrics.reason.clone());
        registry.register("entries_processed", "Source entries dealt with, by step", metrics.processed.clone());
        registry.register("failures", "Attempts that ended without being done, by reason", metrics.failures.clone());
        registry.register(
            "reconcile_errors",
            "Reconciles that the API server did not answer, or refused, by kind",
            metrics.reconcile_errors.clone(),
        );
        registry.register(
            "standby_failures",
            "Attempts of this replica to get the lock that failed while another replica worked, by reason",
            metrics.kept_to_itself.clone(),
        );
        registry.register(
            "lock_held",
            "Whether this replica holds the resource's Redis lock",
            metrics.lock_held.clone(),
        );
        registry.register_with_unit(
            "plan_copies",
            "Estimated memory that the copies of the last plan take",
            Unit::Bytes,
            metrics.plan_size.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long reconciles took",
            Unit::Seconds,
            metrics.reconciles.clone(),
        );
        // From zero on, or the first failure would be no increase.
        for reason in Reason::ALL.into_iter().filter(|reason| reason.is_trouble()) {
            for family in [&metrics.failures, &metrics.kept_to_itself] {
                family.get_or_create(&FailureLabels { reason: Word(reason.to_string()) }).inc_by(0);
            }
        }
        for kind in ErrorKind::ALL {
            metrics.reconcile_errors.get_or_create(&ErrorLabels { kind: Word(kind.to_string()) }).inc_by(0);
        }
        Self { registry, ..metrics }
    }

    /// The metrics in the text format.
    ///
    /// # Errors
    /// When formatting fails.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// A resource is in this phase.
    pub fn in_phase(&self, resource: &ResourceLabels, phase: Phase) {
        for each in Phase::ALL {
            self.phase.get_or_create(&phase_labels(resource, each)).set(i64::from(each == phase));
        }
    }

    /// A resource's Ready condition has this reason; a resource without the condition has none.
    pub fn stands(&self, resource: &ResourceLabels, current: Option<&str>) {
        for reason in
            Reason::ALL.map(|reason| reason.to_string()).iter().filter(|reason| Some(reason.as_str()) != current)
        {
            self.reason.remove(&reason_labels(resource, reason));
        }
        if let Some(reason) = current {
            self.reason.get_or_create(&reason_labels(resource, reason)).set(1);
        }
    }

    /// A step is so far.
    pub fn progress(&self, resource: &ResourceLabels, progress: &Progress) {
        let labels = step_labels(resource, progress.step);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.insert(labels.clone(), progress.processed).unwrap_or_default();
        // A new step of the same kind begins at zero again.
        let more = progress.processed.checked_sub(before).unwrap_or(progress.processed);
        self.processed.get_or_create(&labels).inc_by(more);
    }

    /// An attempt ended for this reason.
    pub fn failed(&self, reason: Reason) {
        if reason.is_trouble() {
            self.failures.get_or_create(&FailureLabels { reason: Word(reason.to_string()) }).inc();
        }
    }

    /// This replica could not get the lock, and left status to the one that works.
    pub fn kept_to_itself(&self, reason: Reason) {
        self.kept_to_itself.get_or_create(&FailureLabels { reason: Word(reason.to_string()) }).inc();
    }

    /// This replica has, or has no longer, the resource's lock.
    pub fn holds_lock(&self, resource: &ResourceLabels, holds: bool) {
        self.lock_held.get_or_create(resource).set(i64::from(holds));
    }

    /// This replica has the resource's lock no longer; nothing is said of one that nothing was said of.
    pub fn lock_released(&self, resource: &ResourceLabels) {
        if let Some(held) = self.lock_held.get(resource) {
            held.set(0);
        }
    }

    /// A plan's copies take so many bytes.
    pub fn planned(&self, resource: &ResourceLabels, bytes: u64) {
        self.plan_size.get_or_create(resource).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A reconcile took so long.
    pub fn reconciled(&self, took: Duration) {
        self.reconciles.observe(took.as_secs_f64());
    }

    /// The API server did not answer a reconcile, or refused.
    pub fn reconcile_failed(&self, kind: ErrorKind) {
        self.reconcile_errors.get_or_create(&ErrorLabels { kind: Word(kind.to_string()) }).inc();
    }

    /// The resource is gone, and its series with it.
    pub fn forget(&self, resource: &ResourceLabels) {
        for phase in Phase::ALL {
            self.phase.remove(&phase_labels(resource, phase));
        }
        self.stands(resource, None);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for step in Step::ALL {
            let labels = step_labels(resource, step);
            self.processed.remove(&labels);
            seen.remove(&labels);
        }
        self.lock_held.remove(resource);
        self.plan_size.remove(resource);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn phase_labels(resource: &ResourceLabels, phase: Phase) -> PhaseLabels {
    PhaseLabels { namespace: resource.namespace.clone(), name: resource.name.clone(), phase: Word(phase.to_string()) }
}

fn reason_labels(resource: &ResourceLabels, reason: &str) -> ReasonLabels {
    ReasonLabels { namespace: resource.namespace.clone(), name: resource.name.clone(), reason: Word(reason.to_owned()) }
}

fn step_labels(resource: &ResourceLabels, step: Step) -> StepLabels {
    StepLabels { namespace: resource.namespace.clone(), name: resource.name.clone(), step: Word(step.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_convention_and_vanish_with_the_resource() {
        let metrics = Metrics::new();
        let resource = ResourceLabels::new("outpost", "hash-tags");
        metrics.in_phase(&resource, Phase::Applying);
        metrics.stands(&resource, Some("LockHeld"));
        metrics.stands(&resource, Some("Progressing"));
        metrics.progress(&resource, &Progress { processed: 5, ..Progress::begin(Step::Apply, Some(9)) });
        metrics.progress(&resource, &Progress { processed: 7, ..Progress::begin(Step::Apply, Some(9)) });
        metrics.holds_lock(&resource, true);
        metrics.planned(&resource, 10);
        metrics.failed(Reason::OutOfMemory);
        metrics.reconciled(Duration::from_millis(3));
        let text = metrics.render().expect("text");
        for line in [
            "outpost_migrate_phase{namespace=\"outpost\",name=\"hash-tags\",phase=\"Applying\"} 1",
            "outpost_migrate_entries_processed_total{namespace=\"outpost\",name=\"hash-tags\",step=\"apply\"} 7",
            "outpost_migrate_reason{namespace=\"outpost\",name=\"hash-tags\",reason=\"Progressing\"} 1",
            "outpost_migrate_failures_total{reason=\"OutOfMemory\"} 1",
            "outpost_migrate_failures_total{reason=\"Conflicts\"} 0",
            "outpost_migrate_lock_held{namespace=\"outpost\",name=\"hash-tags\"} 1",
            "outpost_migrate_plan_copies_bytes{namespace=\"outpost\",name=\"hash-tags\"} 10",
            "outpost_migrate_reconcile_duration_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("LockHeld\"} 1"), "one reason at a time");
        metrics.forget(&resource);
        assert!(!metrics.render().expect("text").contains("hash-tags"));
    }
}
