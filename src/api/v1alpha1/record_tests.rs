//! Status against the reports it is written from.

use super::*;
use crate::model::difference::Difference;
use crate::model::finding::FindingCode;
use crate::model::mapping::UnmigratedReason;
use crate::model::phase::Step;
use crate::model::plan::PlanHash;

const NOW: UnixMillis = UnixMillis(1_800_000_000_500);

/// A word that only key names hold.
const CANARY: &str = "canary";

fn key(number: u32) -> RedisKey {
    RedisKey::from(format!("tenant:{CANARY}{number}"))
}

fn plan() -> Plan {
    let mut seen = Seen { already_migrated: 1, conflicts: 2, estimated_bytes: 9, ..Seen::default() };
    seen.sources.insert("tenant", 10);
    seen.sources.insert("destination", 5);
    seen.current.insert("tenant", 3);
    seen.sample.offer((key(1), key(2)));
    seen.conflict_sample.offer((key(3), key(4)));
    seen.unmigrated.count(key(5), UnmigratedReason::WrongType);
    seen.findings.push(Finding::warning(FindingCode::Memory, "little is left"));
    Plan { hash: PlanHash::of(&[]), seen }
}

fn verification() -> VerifyReport {
    let mut report = VerifyReport { equal: 8, different: 1, ended: 2, ..VerifyReport::default() };
    report.sample.offer((key(1), Difference::Expiry));
    report
}

fn cleanup() -> CleanupReport {
    let mut report = CleanupReport { removed: 5, kept_diverged: 2, gone: 1, ..CleanupReport::default() };
    report.kept_sample.offer(key(1));
    report
}

fn all(samples: bool) -> String {
    let mut cleaned = CleanupStatus { hash: Some("h".into()), ..CleanupStatus::default() };
    cleaned.complete(&cleanup(), NOW, samples);
    let status = RedisMigrationStatus {
        plan: Some(PlanStatus::new(&plan(), NOW, samples)),
        verification: Some(VerificationStatus::new(&verification(), NOW, samples)),
        cleanup: Some(cleaned),
        ..RedisMigrationStatus::default()
    };
    serde_json::to_string(&status).unwrap()
}

#[test]
fn without_samples_no_key_is_named() {
    assert_eq!(all(true).matches(CANARY).count(), 7);
    assert_eq!(all(false).matches(CANARY).count(), 0);
}

#[test]
fn a_plan_is_counted() {
    let status = PlanStatus::new(&plan(), NOW, true);
    let scope: Vec<(&str, i64, i64)> =
        status.scope.iter().map(|scope| (scope.entity.as_str(), scope.sources, scope.current)).collect();
    assert_eq!(scope, [("destination", 5, 0), ("tenant", 10, 3)]);
    assert_eq!(
        status.totals,
        PlanTotals { sources: 15, to_copy: 12, already_migrated: 1, conflicts: 2, targets_before: 3 }
    );
    assert_eq!(status.unmigrated.count, 1);
    assert_eq!(status.unmigrated.by_reason, BTreeMap::from([("WrongType".to_owned(), 1)]));
    assert!(status.unmigrated.sample[0].reason.starts_with("WrongType: "));
    assert_eq!(status.findings[0].severity, "Warning");
}

#[test]
fn cleanup_says_why_it_kept() {
    let mut status = CleanupStatus { hash: Some("h".into()), unmigrated: 4, ..CleanupStatus::default() };
    status.complete(&cleanup(), NOW, true);
    assert_eq!(status.hash.as_deref(), Some("h"));
    assert_eq!((status.removed, status.gone, status.unmigrated), (5, 1, 4));
    assert_eq!(status.kept, BTreeMap::from([("Diverged".to_owned(), 2)]));
}

#[test]
fn progress_is_shown_for_columns() {
    let progress = Progress { processed: 450, keys_per_second: 2, ..Progress::begin(Step::Apply, Some(1000)) };
    let status = ProgressStatus::from(progress.clone());
    assert_eq!((status.step.as_str(), status.percent, status.display.as_deref()), ("apply", Some(45), Some("45%")));
    assert_eq!(status.eta.as_deref(), Some("4m35s"));
    let done = ProgressStatus::from(Progress { processed: 1000, ..progress });
    assert_eq!((done.display.as_deref(), done.eta), (Some("100%"), None));
    assert_eq!(ProgressStatus::from(Progress::begin(Step::Plan, None)).display, None);
}

#[test]
fn history_is_bounded_and_holds_changes_only() {
    let mut status = RedisMigrationStatus::default();
    status.enter(Phase::Pending, "created", NOW);
    status.enter(Phase::Pending, "again", NOW);
    assert_eq!(status.history.len(), 1);
    for round in 0..20 {
        let phase = if round % 2 == 0 { Phase::Planning } else { Phase::Planned };
        status.enter(phase, round.to_string(), NOW);
    }
    assert_eq!(status.history.len(), HISTORY_LIMIT);
    assert_eq!(status.history.last().map(|entry| entry.message.as_str()), Some("19"));
}

#[test]
fn what_was_written_reads_back_equal() {
    let mut status = RedisMigrationStatus { plan: Some(PlanStatus::new(&plan(), NOW, true)), ..Default::default() };
    status.enter(Phase::Planned, "m", NOW);
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<RedisMigrationStatus>(&text).unwrap(), status);
    assert!(!text.contains("null"), "{text}");
}
