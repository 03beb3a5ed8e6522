//! What to do next about a resource: one total function of where it stands, how far it is to go and
//! what is seen.
//!
//! Owns every transition. Pure: no clock, no Redis, no API server; whatever depends on these comes in
//! as a fact.

#![deny(clippy::wildcard_enum_match_arm)]

use crate::model::phase::{Phase, Step, TargetPhase};

/// What Redis says, as far as the next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// No mark stands.
    Unmarked,
    /// Another tool's mark stands.
    Unproven,
    /// Our mark stands; originals may still be there.
    Proven,
    /// Our mark stands and says that cleanup ended.
    CleanedUp,
    /// Our mark stands, but for other parameters: what it proves is not what is asked for.
    ProvenOtherwise,
    /// The migration never applies to this keyspace.
    NotApplicable,
    /// The migration before this one has no mark.
    PredecessorPending,
    /// A living resource other than this owns the migration.
    OwnedByOther,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 8] = [
        Self::Unmarked,
        Self::Unproven,
        Self::Proven,
        Self::CleanedUp,
        Self::ProvenOtherwise,
        Self::NotApplicable,
        Self::PredecessorPending,
        Self::OwnedByOther,
    ];
}

/// What is seen of a resource's work in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sight {
    /// Nobody works on it here, and nothing is known against beginning.
    Unseen,
    /// The last attempt ended; it is not yet time for another.
    Resting,
    /// A worker is connecting and asks for the lock.
    Opening,
    /// A worker ended without the lock.
    Barred,
    /// A worker has the lock and waits for a step.
    Held(Standing),
    /// A step is under way.
    Working(Step),
    /// A step is done; its result is not in status yet.
    Finished(Step),
    /// A step ended without being done; the reason is not in status yet.
    Stopped(Step),
}

/// What status said last, as far as it tells whether somebody has to go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum LastWord {
    /// Nothing yet, that work is under way, or trouble that may be over by now.
    #[default]
    Open,
    /// Originals stay until the soak has passed.
    Soaking,
    /// A person has to change the spec, or to ask again.
    Asking,
    /// Ready.
    Done,
}

impl LastWord {
    /// Every word.
    pub const ALL: [Self; 4] = [Self::Open, Self::Soaking, Self::Asking, Self::Done];
}

/// Facts beside phase, target phase and sight; each is a yes or no of its own.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// What status said last.
    pub last_word: LastWord,
    /// The spec, or the request to do it again, is newer than what status reflects.
    pub is_news: bool,
    /// The work is to stop.
    pub suspended: bool,
    /// The worker was told other choices than the spec makes now.
    pub is_outdated: bool,
    /// A plan was made in this hold of the lock.
    pub planned_in_hold: bool,
    /// The plan at hand is approved, or needs no approval.
    pub plan_approved: bool,
    /// The plan at hand is approved by its hash, whatever the mode.
    pub plan_approved_by_hash: bool,
    /// The plan at hand has sources without a target.
    pub plan_has_missing: bool,
    /// Cleanup is approved, or needs no approval.
    pub cleanup_approved: bool,
    /// The soak has passed.
    pub soaked: bool,
    /// Somebody asked to verify again, and it was not done in this hold yet.
    pub verify_again: bool,
}

/// Why nothing is done although the target phase is not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// `spec.suspend`.
    Suspended,
    /// The plan's hash has to be approved.
    PlanApproval,
    /// The cleanup's hash has to be approved.
    CleanupApproval,
    /// Another tool's mark stands over sources without a target.
    MarkUnproven,
    /// Originals stay until the soak has passed.
    Soaking,
    /// An earlier migration comes first.
    Predecessor,
    /// The mark speaks of other parameters.
    OtherParameters,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Nothing until something changes; status says all there is to say.
    Rest,
    /// Let a worker connect, take the lock and look.
    Begin,
    /// Leave the worker to it; write progress.
    Follow,
    /// Ask the worker to stop after its batch.
    Interrupt,
    /// Write the step into status, then let the worker do it.
    Run(Step),
    /// Write the step's result into status.
    Record(Step),
    /// Write why the step ended, then give the lock back.
    Report(Step),
    /// Write why the lock could not be had.
    ReportBarred,
    /// Redis is further than status, or less far: write what it says.
    Adopt(Phase),
    /// Another tool's mark has proven true: stamp it.
    Stamp,
    /// Write that nothing was to be done, mark it so, give the lock back.
    NotApplicable,
    /// Write that another resource owns the migration, give the lock back.
    Duplicate,
    /// Write what is waited for, give the lock back.
    Wait(Wait),
    /// The target phase is reached: write it, give the lock back.
    Reach,
}

/// What to do next.
#[must_use]
pub fn decide(phase: Phase, target: TargetPhase, sight: Sight, facts: &Facts) -> Decision {
    match sight {
        Sight::Working(_) if facts.suspended || facts.is_outdated => Decision::Interrupt,
        Sight::Opening | Sight::Working(_) => Decision::Follow,
        Sight::Barred => Decision::ReportBarred,
        Sight::Finished(step) => Decision::Record(step),
        Sight::Stopped(step) => Decision::Report(step),
        Sight::Resting if facts.is_news => Decision::Begin,
        Sight::Resting => Decision::Rest,
        Sight::Unseen => unseen(facts),
        Sight::Held(_) if facts.suspended => Decision::Wait(Wait::Suspended),
        Sight::Held(standing) => held(phase, target, standing, facts),
    }
}

/// Nobody works on it: is there a reason to begin? Not by the phase, since whoever worked last may have
/// ended between a phase and the last word about it.
fn unseen(facts: &Facts) -> Decision {
    let somebody_must_go_on = match facts.last_word {
        LastWord::Open => true,
        LastWord::Soaking => facts.soaked,
        // Whatever a person does about these is news.
        LastWord::Asking | LastWord::Done => false,
    };
    if facts.is_news || somebody_must_go_on { Decision::Begin } else { Decision::Rest }
}

/// The lock is held: Redis outranks status.
fn held(phase: Phase, target: TargetPhase, standing: Standing, facts: &Facts) -> Decision {
    match standing {
        Standing::OwnedByOther => Decision::Duplicate,
        Standing::NotApplicable => Decision::NotApplicable,
        Standing::PredecessorPending => Decision::Wait(Wait::Predecessor),
        Standing::ProvenOtherwise => Decision::Wait(Wait::OtherParameters),
        Standing::Unmarked => unmarked(phase, target, facts),
        Standing::Unproven => unproven(phase, target, facts),
        Standing::Proven => proven(phase, target, facts),
        Standing::CleanedUp => match phase {
            Phase::CleanedUp => Decision::Reach,
            Phase::Pending
            | Phase::Planning
            | Phase::Planned
            | Phase::Applying
            | Phase::Applied
            | Phase::Verifying
            | Phase::Verified
            | Phase::CleaningUp => Decision::Adopt(Phase::CleanedUp),
        },
    }
}

/// No mark stands: the source is the truth.
fn unmarked(phase: Phase, target: TargetPhase, facts: &Facts) -> Decision {
    match phase {
        // The mark that status tells of is gone: Redis was restored, or somebody removed it.
        Phase::Verified | Phase::CleaningUp | Phase::CleanedUp => Decision::Adopt(Phase::Pending),
        Phase::Pending | Phase::Planning | Phase::Planned | Phase::Applying | Phase::Applied | Phase::Verifying
            if !facts.planned_in_hold =>
        {
            Decision::Run(Step::Plan)
        }
        Phase::Pending | Phase::Planning => Decision::Run(Step::Plan),
        Phase::Planned | Phase::Applying => match target {
            TargetPhase::Planned => Decision::Reach,
            TargetPhase::Applied | TargetPhase::Verified | TargetPhase::CleanedUp if facts.plan_approved => {
                Decision::Run(Step::Apply)
            }
            TargetPhase::Applied | TargetPhase::Verified | TargetPhase::CleanedUp => Decision::Wait(Wait::PlanApproval),
        },
        Phase::Applied | Phase::Verifying => match target {
            TargetPhase::Planned | TargetPhase::Applied => Decision::Reach,
            TargetPhase::Verified | TargetPhase::CleanedUp if facts.plan_approved => Decision::Run(Step::Verify),
            TargetPhase::Verified | TargetPhase::CleanedUp => Decision::Wait(Wait::PlanApproval),
        },
    }
}

/// Another tool's mark stands: its targets may be the truth already, so what is missing is copied only
/// after a person approved this very plan.
fn unproven(phase: Phase, target: TargetPhase, facts: &Facts) -> Decision {
    if !facts.planned_in_hold {
        return Decision::Run(Step::Plan);
    }
    match (target, phase) {
        (TargetPhase::Applied | TargetPhase::Verified | TargetPhase::CleanedUp, _)
            if !facts.plan_has_missing && !facts.plan_approved =>
        {
            Decision::Wait(Wait::PlanApproval)
        }
        (TargetPhase::Applied | TargetPhase::Verified | TargetPhase::CleanedUp, _) if !facts.plan_has_missing => {
            Decision::Stamp
        }
        (TargetPhase::Applied | TargetPhase::Verified | TargetPhase::CleanedUp, _) if !facts.plan_approved_by_hash => {
            Decision::Wait(Wait::MarkUnproven)
        }
        (TargetPhase::Planned, _) | (TargetPhase::Applied, Phase::Applied | Phase::Verifying) => Decision::Reach,
        (TargetPhase::Verified | TargetPhase::CleanedUp, Phase::Applied | Phase::Verifying) => {
            Decision::Run(Step::Verify)
        }
        (
            TargetPhase::Applied | TargetPhase::Verified | TargetPhase::CleanedUp,
            Phase::Pending
            | Phase::Planning
            | Phase::Planned
            | Phase::Applying
            | Phase::Verified
            | Phase::CleaningUp
            | Phase::CleanedUp,
        ) => Decision::Run(Step::Apply),
    }
}

/// Our mark stands: the target is the truth, and nothing is copied any more.
fn proven(phase: Phase, target: TargetPhase, facts: &Facts) -> Decision {
    match (phase, target) {
        (
            Phase::Pending
            | Phase::Planning
            | Phase::Planned
            | Phase::Applying
            | Phase::Applied
            | Phase::Verifying
            | Phase::CleanedUp,
            _,
        ) => Decision::Adopt(Phase::Verified),
        (Phase::Verified | Phase::CleaningUp, _) if facts.verify_again => Decision::Run(Step::Verify),
        (Phase::Verified, TargetPhase::Planned | TargetPhase::Applied | TargetPhase::Verified) => Decision::Reach,
        (Phase::CleaningUp, TargetPhase::Planned | TargetPhase::Applied | TargetPhase::Verified) => {
            Decision::Adopt(Phase::Verified)
        }
        (Phase::Verified | Phase::CleaningUp, TargetPhase::CleanedUp) if !facts.soaked => Decision::Wait(Wait::Soaking),
        (Phase::Verified | Phase::CleaningUp, TargetPhase::CleanedUp) if !facts.cleanup_approved => {
            Decision::Wait(Wait::CleanupApproval)
        }
        (Phase::Verified | Phase::CleaningUp, TargetPhase::CleanedUp) => Decision::Run(Step::Cleanup),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
