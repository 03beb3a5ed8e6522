//! How far a step is, as one value of the engine's stream.

use serde::Serialize;

use crate::model::admission::Held;
use crate::model::phase::Step;

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// Which step.
    pub step: Step,
    /// Source entries dealt with so far.
    pub processed: u64,
    /// Source entries in all, where a plan has counted them.
    pub total: Option<u64>,
    /// Of these, entries that were already as they should be.
    pub skipped: u64,
    /// Of these, entries that could not be dealt with.
    pub failed: u64,
    /// Of these, entries whose target exists and differs.
    pub conflicts: u64,
    /// Source entries a second, over the last seconds.
    pub keys_per_second: u64,
    /// What the step waits for, for others' sake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// What the step waits for before it does what can't be undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Bytes that the slowest replica has not acknowledged, where the step writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_lag_bytes: Option<u64>,
}

impl Progress {
    /// The start of a step.
    #[must_use]
    pub fn begin(step: Step, total: Option<u64>) -> Self {
        Self {
            step,
            processed: 0,
            total,
            skipped: 0,
            failed: 0,
            conflicts: 0,
            keys_per_second: 0,
            held: None,
            waits_for: None,
            replica_lag_bytes: None,
        }
    }

    /// Share of the total in whole percent; 100 only when everything is dealt with.
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        let total = self.total?;
        if self.processed >= total {
            return Some(100);
        }
        u8::try_from(self.processed.saturating_mul(100) / total).ok()
    }

    /// Seconds that the rest will take at the present rate.
    #[must_use]
    pub fn eta_seconds(&self) -> Option<u64> {
        let rest = self.total?.saturating_sub(self.processed);
        (self.keys_per_second > 0).then(|| rest.div_ceil(self.keys_per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_percent_means_all() {
        let progress = |processed, total| Progress { processed, ..Progress::begin(Step::Apply, Some(total)) };
        assert_eq!(progress(0, 0).percent(), Some(100));
        assert_eq!(progress(999, 1000).percent(), Some(99));
        assert_eq!(progress(1000, 1000).percent(), Some(100));
        assert_eq!(Progress::begin(Step::Plan, None).percent(), None);
    }

    #[test]
    fn eta_needs_a_rate() {
        let mut progress = Progress::begin(Step::Apply, Some(100));
        assert_eq!(progress.eta_seconds(), None);
        progress.keys_per_second = 30;
        assert_eq!(progress.eta_seconds(), Some(4));
    }
}
