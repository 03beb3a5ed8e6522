//! The table of transitions, and what holds for all of them.

#![allow(clippy::wildcard_enum_match_arm)]

use rstest::rstest;

use super::*;

const CALM: Facts = Facts {
    last_word: LastWord::Open,
    is_news: false,
    suspended: false,
    is_outdated: false,
    planned_in_hold: true,
    plan_approved: true,
    plan_approved_by_hash: false,
    plan_has_missing: true,
    cleanup_approved: true,
    soaked: true,
    verify_again: false,
};

fn sights() -> Vec<Sight> {
    let mut sights = vec![Sight::Unseen, Sight::Resting, Sight::Opening, Sight::Barred];
    sights.extend(Standing::ALL.map(Sight::Held));
    for step in Step::ALL {
        sights.extend([Sight::Working(step), Sight::Finished(step), Sight::Stopped(step)]);
    }
    sights
}

/// Every combination of the facts.
fn all_facts() -> impl Iterator<Item = Facts> {
    let words = LastWord::ALL.into_iter().flat_map(|word| (0..1_u32 << 10).map(move |bits| (word, bits)));
    words.map(|(last_word, bits)| {
        let bit = |at: u32| bits & (1 << at) != 0;
        Facts {
            last_word,
            is_news: bit(0),
            suspended: bit(1),
            planned_in_hold: bit(2),
            plan_approved: bit(3),
            plan_approved_by_hash: bit(4),
            plan_has_missing: bit(5),
            cleanup_approved: bit(6),
            soaked: bit(7),
            verify_again: bit(8),
            is_outdated: bit(9),
        }
    })
}

fn everything() -> impl Iterator<Item = (Phase, TargetPhase, Sight, Facts)> {
    Phase::ALL.into_iter().flat_map(|phase| {
        TargetPhase::ALL.into_iter().flat_map(move |target| {
            sights().into_iter().flat_map(move |sight| all_facts().map(move |facts| (phase, target, sight, facts)))
        })
    })
}

#[rstest]
// From nothing to the target, the lock held and nothing in the way.
#[case(Phase::Pending, TargetPhase::Verified, Standing::Unmarked, Decision::Run(Step::Plan))]
#[case(Phase::Planning, TargetPhase::Verified, Standing::Unmarked, Decision::Run(Step::Plan))]
#[case(Phase::Planned, TargetPhase::Planned, Standing::Unmarked, Decision::Reach)]
#[case(Phase::Planned, TargetPhase::Applied, Standing::Unmarked, Decision::Run(Step::Apply))]
#[case(Phase::Planned, TargetPhase::Verified, Standing::Unmarked, Decision::Run(Step::Apply))]
#[case(Phase::Planned, TargetPhase::CleanedUp, Standing::Unmarked, Decision::Run(Step::Apply))]
#[case(Phase::Applying, TargetPhase::Verified, Standing::Unmarked, Decision::Run(Step::Apply))]
#[case(Phase::Applying, TargetPhase::Planned, Standing::Unmarked, Decision::Reach)]
#[case(Phase::Applied, TargetPhase::Planned, Standing::Unmarked, Decision::Reach)]
#[case(Phase::Applied, TargetPhase::Applied, Standing::Unmarked, Decision::Reach)]
#[case(Phase::Applied, TargetPhase::Verified, Standing::Unmarked, Decision::Run(Step::Verify))]
#[case(Phase::Applied, TargetPhase::CleanedUp, Standing::Unmarked, Decision::Run(Step::Verify))]
#[case(Phase::Verifying, TargetPhase::Verified, Standing::Unmarked, Decision::Run(Step::Verify))]
#[case(Phase::Verifying, TargetPhase::Applied, Standing::Unmarked, Decision::Reach)]
#[case(Phase::Verified, TargetPhase::Planned, Standing::Proven, Decision::Reach)]
#[case(Phase::Verified, TargetPhase::Verified, Standing::Proven, Decision::Reach)]
#[case(Phase::Verified, TargetPhase::CleanedUp, Standing::Proven, Decision::Run(Step::Cleanup))]
#[case(Phase::CleaningUp, TargetPhase::CleanedUp, Standing::Proven, Decision::Run(Step::Cleanup))]
#[case(Phase::CleaningUp, TargetPhase::Verified, Standing::Proven, Decision::Adopt(Phase::Verified))]
#[case(Phase::CleanedUp, TargetPhase::CleanedUp, Standing::CleanedUp, Decision::Reach)]
#[case(Phase::CleanedUp, TargetPhase::Planned, Standing::CleanedUp, Decision::Reach)]
// Redis outranks status.
#[case(Phase::Pending, TargetPhase::Verified, Standing::Proven, Decision::Adopt(Phase::Verified))]
#[case(Phase::Applying, TargetPhase::Planned, Standing::Proven, Decision::Adopt(Phase::Verified))]
#[case(Phase::CleanedUp, TargetPhase::CleanedUp, Standing::Proven, Decision::Adopt(Phase::Verified))]
#[case(Phase::Pending, TargetPhase::Verified, Standing::CleanedUp, Decision::Adopt(Phase::CleanedUp))]
#[case(Phase::CleaningUp, TargetPhase::CleanedUp, Standing::CleanedUp, Decision::Adopt(Phase::CleanedUp))]
#[case(Phase::Verified, TargetPhase::Verified, Standing::Unmarked, Decision::Adopt(Phase::Pending))]
#[case(Phase::CleanedUp, TargetPhase::CleanedUp, Standing::Unmarked, Decision::Adopt(Phase::Pending))]
// Somebody else's word, and what never applies.
#[case(Phase::Planned, TargetPhase::Verified, Standing::Unproven, Decision::Wait(Wait::MarkUnproven))]
#[case(Phase::Planned, TargetPhase::Planned, Standing::Unproven, Decision::Reach)]
#[case(Phase::Pending, TargetPhase::Verified, Standing::NotApplicable, Decision::NotApplicable)]
#[case(Phase::Pending, TargetPhase::Verified, Standing::PredecessorPending, Decision::Wait(Wait::Predecessor))]
#[case(Phase::Pending, TargetPhase::Verified, Standing::OwnedByOther, Decision::Duplicate)]
#[case(Phase::Pending, TargetPhase::CleanedUp, Standing::ProvenOtherwise, Decision::Wait(Wait::OtherParameters))]
fn the_lock_is_held(
    #[case] phase: Phase,
    #[case] target: TargetPhase,
    #[case] standing: Standing,
    #[case] expected: Decision,
) {
    assert_eq!(decide(phase, target, Sight::Held(standing), &CALM), expected);
}

#[rstest]
#[case::plan_first(Phase::Applying, Facts { planned_in_hold: false, ..CALM }, Decision::Run(Step::Plan))]
#[case::unapproved(Phase::Planned, Facts { plan_approved: false, ..CALM }, Decision::Wait(Wait::PlanApproval))]
#[case::changed_plan(Phase::Applied, Facts { plan_approved: false, ..CALM }, Decision::Wait(Wait::PlanApproval))]
#[case::suspended(Phase::Applying, Facts { suspended: true, ..CALM }, Decision::Wait(Wait::Suspended))]
fn before_the_mark(#[case] phase: Phase, #[case] facts: Facts, #[case] expected: Decision) {
    assert_eq!(decide(phase, TargetPhase::Verified, Sight::Held(Standing::Unmarked), &facts), expected);
}

#[rstest]
#[case::soak(Facts { soaked: false, ..CALM }, Decision::Wait(Wait::Soaking))]
#[case::soak_before_approval(Facts { soaked: false, cleanup_approved: false, ..CALM }, Decision::Wait(Wait::Soaking))]
#[case::approval(Facts { cleanup_approved: false, ..CALM }, Decision::Wait(Wait::CleanupApproval))]
#[case::again(Facts { verify_again: true, ..CALM }, Decision::Run(Step::Verify))]
fn before_cleanup(#[case] facts: Facts, #[case] expected: Decision) {
    assert_eq!(decide(Phase::Verified, TargetPhase::CleanedUp, Sight::Held(Standing::Proven), &facts), expected);
}

#[rstest]
#[case::plan_first(Facts { planned_in_hold: false, ..CALM }, Decision::Run(Step::Plan))]
#[case::nothing_missing(Facts { plan_has_missing: false, ..CALM }, Decision::Stamp)]
#[case::nothing_missing_but_unapproved(Facts { plan_has_missing: false, plan_approved: false, ..CALM }, Decision::Wait(Wait::PlanApproval))]
#[case::approved_by_hash(Facts { plan_approved_by_hash: true, ..CALM }, Decision::Run(Step::Apply))]
fn another_tools_mark(#[case] facts: Facts, #[case] expected: Decision) {
    assert_eq!(decide(Phase::Planned, TargetPhase::Verified, Sight::Held(Standing::Unproven), &facts), expected);
}

#[rstest]
#[case::begins(CALM, Decision::Begin)]
#[case::done(Facts { last_word: LastWord::Done, ..CALM }, Decision::Rest)]
#[case::asking(Facts { last_word: LastWord::Asking, ..CALM }, Decision::Rest)]
#[case::soaking(Facts { last_word: LastWord::Soaking, soaked: false, ..CALM }, Decision::Rest)]
#[case::soaked(Facts { last_word: LastWord::Soaking, ..CALM }, Decision::Begin)]
#[case::unsaid_suspension(Facts { suspended: true, ..CALM }, Decision::Begin)]
fn nobody_works_on_it(#[case] facts: Facts, #[case] expected: Decision) {
    // Phase and target phase do not matter: a phase may be reached before status says so.
    for phase in Phase::ALL {
        for target in TargetPhase::ALL {
            assert_eq!(decide(phase, target, Sight::Unseen, &facts), expected, "{phase} {target}");
            let news = Facts { is_news: true, ..facts };
            assert_eq!(decide(phase, target, Sight::Unseen, &news), Decision::Begin, "{phase} {target}");
        }
    }
}

#[test]
fn a_step_under_way_is_interrupted_by_other_choices() {
    for (phase, target, _, facts) in everything() {
        let interrupted = decide(phase, target, Sight::Working(Step::Apply), &facts) == Decision::Interrupt;
        assert_eq!(interrupted, facts.suspended || facts.is_outdated, "{phase} {target} {facts:?}");
    }
}

#[test]
fn a_resting_place_begins_only_on_news() {
    for (phase, target, _, facts) in everything() {
        let decision = decide(phase, target, Sight::Resting, &facts);
        assert_eq!(decision == Decision::Begin, facts.is_news, "{phase} {target} {facts:?}");
    }
}

#[test]
fn steps_are_ordered_only_with_the_lock_and_in_their_order() {
    for (phase, target, sight, facts) in everything() {
        let Decision::Run(step) = decide(phase, target, sight, &facts) else { continue };
        let at = format!("{phase} {target} {sight:?} {facts:?}");
        let Sight::Held(standing) = sight else { panic!("a step without the lock: {at}") };
        match step {
            Step::Plan => assert!(matches!(standing, Standing::Unmarked | Standing::Unproven), "{at}"),
            Step::Apply => {
                assert!(matches!(standing, Standing::Unmarked | Standing::Unproven), "{at}");
                assert!(facts.planned_in_hold, "copying without a plan: {at}");
                assert!(facts.plan_approved || facts.plan_approved_by_hash, "copying unapproved: {at}");
                assert!(target > TargetPhase::Planned, "a dry run that copies: {at}");
            }
            Step::Verify => {
                assert!(standing == Standing::Proven || target >= TargetPhase::Verified, "{at}");
            }
            Step::Cleanup => {
                assert_eq!(standing, Standing::Proven, "{at}");
                assert_eq!(target, TargetPhase::CleanedUp, "{at}");
                assert!(facts.soaked && facts.cleanup_approved, "{at}");
            }
        }
        assert!(!facts.suspended, "work although suspended: {at}");
    }
}

#[test]
fn nothing_is_copied_behind_our_mark_or_for_another_owner() {
    for (phase, target, sight, facts) in everything() {
        let sealed = [
            Standing::Proven,
            Standing::CleanedUp,
            Standing::ProvenOtherwise,
            Standing::NotApplicable,
            Standing::OwnedByOther,
            Standing::PredecessorPending,
        ];
        if sealed.map(Sight::Held).contains(&sight) {
            let decision = decide(phase, target, sight, &facts);
            assert_ne!(decision, Decision::Run(Step::Apply), "{phase} {target} {sight:?} {facts:?}");
        }
    }
}

#[test]
fn another_tools_mark_is_never_overruled_by_an_automatic_approval() {
    for (phase, target, _, facts) in everything() {
        if facts.plan_approved_by_hash {
            continue;
        }
        let decision = decide(phase, target, Sight::Held(Standing::Unproven), &facts);
        let writes = matches!(decision, Decision::Run(Step::Apply | Step::Verify | Step::Cleanup));
        assert!(!writes, "{phase} {target} {facts:?}");
    }
}

#[test]
fn what_ended_is_written_before_anything_else() {
    for step in Step::ALL {
        for (phase, target, _, facts) in everything() {
            assert_eq!(decide(phase, target, Sight::Finished(step), &facts), Decision::Record(step));
            assert_eq!(decide(phase, target, Sight::Stopped(step), &facts), Decision::Report(step));
        }
    }
}

/// Every hold of the lock ends: following decisions as if every step succeeded reaches an end.
#[test]
fn every_walk_ends() {
    for start in Phase::ALL {
        for target in TargetPhase::ALL {
            for first in [Standing::Unmarked, Standing::Proven, Standing::CleanedUp] {
                let (mut phase, mut standing) = (start, first);
                let mut facts = Facts { planned_in_hold: false, ..CALM };
                let mut steps = 0;
                loop {
                    match decide(phase, target, Sight::Held(standing), &facts) {
                        Decision::Run(Step::Plan) => {
                            facts.planned_in_hold = true;
                            phase = phase.max(Phase::Planned);
                        }
                        Decision::Run(Step::Apply) => phase = Phase::Applied,
                        Decision::Run(Step::Verify) => (phase, standing) = (Phase::Verified, Standing::Proven),
                        Decision::Run(Step::Cleanup) => (phase, standing) = (Phase::CleanedUp, Standing::CleanedUp),
                        Decision::Adopt(adopted) => phase = adopted,
                        Decision::Reach => break,
                        other => panic!("{start} {target} {first:?}: {other:?}"),
                    }
                    steps += 1;
                    assert!(steps < 10, "{start} {target} {first:?} does not end");
                }
                // A step under way beyond a lowered target counts: lowering changes nothing that has begun.
                assert!(phase >= target.phase(), "{start} {target} {first:?} ends at {phase}");
            }
        }
    }
}

#[test]
fn a_dry_run_stamps_no_mark() {
    for (phase, _, _, facts) in everything() {
        let decision = decide(phase, TargetPhase::Planned, Sight::Held(Standing::Unproven), &facts);
        assert_ne!(decision, Decision::Stamp, "{phase} {facts:?}");
    }
}
