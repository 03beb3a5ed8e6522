//! What apply would do, and the hash that an approval names.
//!
//! Owns the plan's value and which decisions its hash covers. A hash covers decisions, never counts:
//! counts do not stand still on a live system.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::acceptance::AcceptedFindings;
use crate::model::count::{Lasting, PerEntity, Sample, Unmigrated};
use crate::model::finding::{Finding, FindingCode, Severity};
use crate::model::key::RedisKey;
use crate::model::phase::Step;

/// Version of what a plan decides; raised when the same decisions would mean different work.
pub const PLAN_VERSION: u32 = 1;

/// `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanHash(String);

impl PlanHash {
    /// Hashes named decisions; the order of naming matters, so callers keep it fixed.
    #[must_use]
    pub fn of(decisions: &[(&str, String)]) -> Self {
        let mut text = String::new();
        for (name, value) in decisions {
            // Lengths keep two different lists from reading the same.
            let _ = writeln!(text, "{name}={}:{value}", value.len());
        }
        Self(format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes()))))
    }

    /// The hash as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Choices made before anything was read, which a plan's hash covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The migration's name.
    pub migration: String,
    /// Host, port, database and mode of the Redis that is meant.
    pub redis: String,
    /// The deployment id, empty without one.
    pub deployment_id: String,
    /// The migration's parameters as text.
    pub parameters: String,
    /// The conflict policy.
    pub conflict_policy: String,
    /// The policy for originals whose target is diverged.
    pub diverged_policy: String,
    /// The findings that a person accepted by name.
    pub accepted: AcceptedFindings,
    /// Cleanup asks for a snapshot where it would else wait for the server's own.
    pub save: bool,
}

impl Terms {
    fn common(&self) -> Vec<(&'static str, String)> {
        vec![
            ("version", PLAN_VERSION.to_string()),
            ("migration", self.migration.clone()),
            ("redis", self.redis.clone()),
            ("deployment", self.deployment_id.clone()),
            ("parameters", self.parameters.clone()),
        ]
    }

    /// The hash that an approval of apply names.
    #[must_use]
    pub fn plan_hash(&self, seen: &Seen) -> PlanHash {
        let mut findings: Vec<String> = seen
            .findings
            .iter()
            // Notes decide nothing, and these warnings come and go by themselves; as errors they block anyway.
            .filter(|finding| finding.severity > Severity::Note)
            .filter(|finding| {
                !matches!(
                    finding.code,
                    FindingCode::Memory
                        | FindingCode::OpenSlots
                        | FindingCode::FailedPrimary
                        | FindingCode::Certificate
                        | FindingCode::NotOnDisk
                )
            })
            .map(|finding| finding.code.to_string())
            .collect();
        findings.sort();
        findings.dedup();
        let reasons: Vec<String> = seen.unmigrated.by_reason.keys().map(|reason| format!("{reason:?}")).collect();
        let mut decisions = self.common();
        decisions.extend([
            ("conflictPolicy", self.conflict_policy.clone()),
            ("findings", findings.join(",")),
            ("unmigrated", reasons.join(",")),
            ("conflicts", (seen.conflicts > 0 && !seen.differences_are_ours).to_string()),
            ("unprovenMark", seen.mark_is_unproven.to_string()),
        ]);
        decisions.extend(self.accepted_for(Step::Apply));
        PlanHash::of(&decisions)
    }

    /// The hash that an approval of cleanup names.
    #[must_use]
    pub fn cleanup_hash(&self) -> PlanHash {
        let mut decisions = self.common();
        decisions.push(("cleanup.diverged", self.diverged_policy.clone()));
        if self.save {
            decisions.push(("cleanup.save", true.to_string()));
        }
        decisions.extend(self.accepted_for(Step::Cleanup));
        PlanHash::of(&decisions)
    }

    /// What a hash covers of the accepted findings; nothing without any, so that earlier approvals stay valid.
    fn accepted_for(&self, step: Step) -> Option<(&'static str, String)> {
        self.accepted.names_for(step).map(|names| ("acceptedFindings", names))
    }
}

/// What a complete pass over the keyspace saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Source entries per entity.
    pub sources: PerEntity,
    /// Keys already in current form, per entity.
    pub current: PerEntity,
    /// Sources whose target exists and equals them.
    pub already_migrated: u64,
    /// Sources whose target exists and differs.
    pub conflicts: u64,
    /// Of these, targets that lost the expiry of their source and equal it otherwise; told by a finding.
    #[serde(skip)]
    pub lost_expiry: u64,
    /// Examples of conflicts: source and target.
    pub conflict_sample: Sample<(RedisKey, RedisKey)>,
    /// Estimated bytes of the copies still to be made.
    pub estimated_bytes: u64,
    /// Examples of what goes where.
    pub sample: Sample<(RedisKey, RedisKey)>,
    /// Sources that take more than 8 KiB of memory themselves or at their targets, huge ones among them.
    #[serde(skip)]
    pub heavy: u64,
    /// Entries too big for one piece, among sources and their targets; told by a finding.
    #[serde(skip)]
    pub huge: u64,
    /// Keys that no rule maps.
    pub unmigrated: Unmigrated,
    /// Keys in current form that never expire; to tell what a run left behind, not for people.
    #[serde(skip)]
    pub lasting: Lasting,
    /// A run under way began over no target: what differs are its own stale copies, no conflicts.
    pub differences_are_ours: bool,
    /// Another tool says that the migration was applied: what differs is the application's, and what is
    /// missing may have been deleted since.
    pub mark_is_unproven: bool,
    /// Results of the preflight checks.
    pub findings: Vec<Finding>,
}

impl Seen {
    /// All source entries.
    #[must_use]
    pub fn total_sources(&self) -> u64 {
        self.sources.values().sum()
    }

    /// Source entries whose target does not exist yet.
    #[must_use]
    pub fn to_copy(&self) -> u64 {
        self.total_sources().saturating_sub(self.already_migrated + self.conflicts)
    }

    /// Of the expiries that were found lost, those that were neither put back nor are lost still: the source ended, or
    /// the target was touched, before its turn came.
    #[must_use]
    pub fn expiries_unmended(&self, put_back: u64, still_lost: u64) -> u64 {
        self.lost_expiry.saturating_sub(put_back + still_lost)
    }

    /// Targets that exist already, equal or not: a run that began with none may refresh its own copies.
    #[must_use]
    pub fn targets_before(&self) -> u64 {
        self.already_migrated + self.conflicts
    }
}

/// What apply would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The hash that an approval names.
    pub hash: PlanHash,
    /// What was seen.
    #[serde(flatten)]
    pub seen: Seen,
}

impl Plan {
    /// Findings that block apply.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.seen.findings.iter().filter(|finding| finding.blocks())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mapping::UnmigratedReason;

    fn terms() -> Terms {
        Terms {
            migration: "001_hash_tags".into(),
            redis: "redis:6379/0".into(),
            deployment_id: String::new(),
            parameters: "keyLayout=Outpost".into(),
            conflict_policy: "Fail".into(),
            diverged_policy: "Keep".into(),
            accepted: AcceptedFindings::default(),
            save: false,
        }
    }

    #[test]
    fn a_hash_without_accepted_findings_is_what_it_was_before_there_were_any() {
        let mut seen = Seen::default();
        let plan = "sha256:3d062784f673dbd8addb8fdb2110eab0643b53b8c02c5ef8eebd8956560597ad";
        assert_eq!(terms().plan_hash(&seen).as_str(), plan);
        let cleanup = "sha256:2d21c3125ff9584cf46dd57e3ca5ee55066948b7b0eae7cb871133315e664f9c";
        assert_eq!(terms().cleanup_hash().as_str(), cleanup);

        seen.findings.push(Finding::warning(FindingCode::BracedTenant, "as it was"));
        let as_warning = terms().plan_hash(&seen);
        seen.findings = vec![Finding::error(FindingCode::BracedTenant, "as it is")];
        assert_eq!(terms().plan_hash(&seen), as_warning, "how severe it is changes no hash");
    }

    #[test]
    fn an_accepted_finding_changes_the_hash_of_the_step_that_it_blocks() {
        let accepted = AcceptedFindings::parse(["BracedTenant"]).expect("an acceptable name");
        let accepting = Terms { accepted, ..terms() };
        assert_ne!(accepting.plan_hash(&Seen::default()), terms().plan_hash(&Seen::default()));
        assert_eq!(accepting.cleanup_hash(), terms().cleanup_hash());

        let accepted = AcceptedFindings::parse(["NotOnDisk"]).expect("an acceptable name");
        let accepting = Terms { accepted, ..terms() };
        assert_eq!(accepting.plan_hash(&Seen::default()), terms().plan_hash(&Seen::default()));
        assert_ne!(accepting.cleanup_hash(), terms().cleanup_hash());
    }

    #[test]
    fn a_hash_covers_decisions_and_not_counts() {
        let mut seen = Seen::default();
        let before = terms().plan_hash(&seen);
        seen.sources.insert("tenant", 5);
        seen.estimated_bytes = 7;
        assert_eq!(terms().plan_hash(&seen), before);

        seen.unmigrated.count(RedisKey::from("tenant:x"), UnmigratedReason::WrongType);
        let with_unmigrated = terms().plan_hash(&seen);
        assert_ne!(with_unmigrated, before);
        seen.unmigrated.count(RedisKey::from("tenant:y"), UnmigratedReason::WrongType);
        assert_eq!(terms().plan_hash(&seen), with_unmigrated);

        seen.findings.push(Finding::note(FindingCode::Replicas, "none"));
        assert_eq!(terms().plan_hash(&seen), with_unmigrated);
        seen.findings.push(Finding::warning(FindingCode::Replicas, "none"));
        assert_ne!(terms().plan_hash(&seen), with_unmigrated);
    }

    #[test]
    fn each_term_changes_the_hash() {
        let base = terms();
        let seen = Seen::default();
        for change in [
            Terms { migration: "x".into(), ..base.clone() },
            Terms { redis: "x".into(), ..base.clone() },
            Terms { deployment_id: "x".into(), ..base.clone() },
            Terms { parameters: "x".into(), ..base.clone() },
            Terms { conflict_policy: "x".into(), ..base.clone() },
        ] {
            assert_ne!(change.plan_hash(&seen), base.plan_hash(&seen));
        }
        let delete = Terms { diverged_policy: "Delete".into(), ..base.clone() };
        assert_eq!(delete.plan_hash(&seen), base.plan_hash(&seen));
        assert_ne!(delete.cleanup_hash(), base.cleanup_hash());
        let save = Terms { save: true, ..base.clone() };
        assert_ne!(save.cleanup_hash(), base.cleanup_hash());
    }
}
