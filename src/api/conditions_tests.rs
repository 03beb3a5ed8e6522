//! Tables over what conditions become after a verdict.

use std::collections::BTreeSet;

use rstest::rstest;

use super::*;

const THEN: UnixMillis = UnixMillis(1_800_000_000_000);
const NOW: UnixMillis = UnixMillis(1_800_000_060_000);

fn shown(conditions: &[Condition]) -> Vec<String> {
    conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect()
}

#[rstest]
#[case(Reason::Progressing, &["Ready=False Progressing", "Reconciling=True Progressing"])]
#[case(Reason::LockHeld, &["Ready=False LockHeld", "Reconciling=True LockHeld"])]
#[case(Reason::InvalidSpec, &["Ready=False InvalidSpec", "Stalled=True InvalidSpec"])]
#[case(Reason::AwaitingApproval, &["Ready=False AwaitingApproval"])]
#[case(Reason::Suspended, &["Ready=False Suspended"])]
#[case(Reason::TargetReached, &["Ready=True TargetReached"])]
#[case(Reason::NotApplicable, &["Ready=True NotApplicable"])]
fn a_reason_decides_the_standing(#[case] reason: Reason, #[case] expected: &[&str]) {
    assert_eq!(shown(&Verdict::new(reason, "m").apply_to(&[], 1, NOW)), expected);
}

#[test]
fn what_held_before_goes_away_and_records_stay() {
    let before = Verdict::new(Reason::Progressing, "m")
        .reached(TargetPhase::Planned, Reason::Complete, "planned")
        .apply_to(&[], 1, THEN);
    let after = Verdict::new(Reason::Conflicts, "m").apply_to(&before, 2, NOW);
    assert_eq!(shown(&after), ["Ready=False Conflicts", "Stalled=True Conflicts", "Planned=True Complete"]);
    assert_eq!(after[2].observed_generation, Some(1), "a record tells which spec it was about");
}

#[test]
fn a_record_that_was_seen_to_hold_is_about_the_present_spec() {
    let before = Verdict::new(Reason::Progressing, "m")
        .reached(TargetPhase::Applied, Reason::Complete, "applied")
        .lost(TargetPhase::Verified, Reason::MarkMissing, "gone")
        .apply_to(&[], 1, THEN);
    let seen = [TargetPhase::Applied, TargetPhase::Verified, TargetPhase::CleanedUp];
    let after = Verdict::new(Reason::TargetReached, "m").seeing(seen).apply_to(&before, 2, NOW);
    assert_eq!(shown(&after), ["Ready=True TargetReached", "Applied=True Complete", "Verified=False MarkMissing"]);
    assert_eq!((after[1].observed_generation, &after[1].last_transition_time), (Some(2), &time(THEN)));
    assert_eq!(after[2].observed_generation, Some(1), "what does not hold was not seen");
}

#[test]
fn the_transition_time_moves_with_the_status_only() {
    let before = Verdict::new(Reason::Progressing, "a").apply_to(&[], 1, THEN);
    let waiting = Verdict::new(Reason::LockHeld, "b").apply_to(&before, 2, NOW);
    assert_eq!(waiting[0].last_transition_time, time(THEN));
    assert_eq!((waiting[0].message.as_str(), waiting[0].observed_generation), ("b", Some(2)));
    let ready = Verdict::new(Reason::TargetReached, "c").apply_to(&waiting, 2, NOW);
    assert_eq!(ready[0].last_transition_time, time(NOW));
}

#[test]
fn the_same_verdict_again_changes_nothing() {
    let verdict = Verdict::new(Reason::Soaking, "m").reached(TargetPhase::Verified, Reason::Adopted, "v");
    let before = verdict.apply_to(&[], 1, THEN);
    assert_eq!(verdict.apply_to(&before, 1, NOW), before);
}

#[test]
fn order_is_stable_and_foreign_conditions_stay() {
    let foreign =
        Condition { type_: "Backup".into(), ..Verdict::new(Reason::Complete, "").apply_to(&[], 1, THEN)[0].clone() };
    let mut before = Verdict::new(Reason::Progressing, "m")
        .reached(TargetPhase::Applied, Reason::Complete, "")
        .reached(TargetPhase::Planned, Reason::Complete, "")
        .apply_to(&[foreign], 1, THEN);
    before.reverse();
    let after = Verdict::new(Reason::Progressing, "m").apply_to(&before, 1, NOW);
    let types: Vec<&str> = after.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(types, ["Ready", "Reconciling", "Planned", "Applied", "Backup"]);
}

#[test]
fn a_lost_milestone_is_false_not_absent() {
    let before = Verdict::new(Reason::TargetReached, "m")
        .reached(TargetPhase::Verified, Reason::Complete, "")
        .apply_to(&[], 1, THEN);
    let after = Verdict::new(Reason::Progressing, "m")
        .lost(TargetPhase::Verified, Reason::MarkMissing, "gone")
        .apply_to(&before, 1, NOW);
    assert_eq!(shown(&after)[2], "Verified=False MarkMissing");
}

#[test]
fn names_are_what_the_api_server_admits() {
    let reasons: BTreeSet<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(reasons.len(), Reason::ALL.len());
    assert!(
        reasons
            .iter()
            .all(|reason| reason.starts_with(char::is_uppercase) && reason.chars().all(char::is_alphanumeric))
    );
}
