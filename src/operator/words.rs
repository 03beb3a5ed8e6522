//! What status says about each decision, outcome and trouble: a reason and a sentence with the next step.
//!
//! Pure. Sentences name no key, no value and no credential; those that any replica may write name no
//! address either, so that all replicas write the same.

use std::time::Duration;

use crate::api::conditions::{Reason, Verdict};
use crate::api::redis_target::{RedisTarget, SecretKey};
use crate::api::request::MigrationRequest;
use crate::api::v1alpha1::REQUESTED_AT_ANNOTATION;
use crate::engine::Stop;
use crate::keyspace::{Fault, FaultClass};
use crate::model::admission::HeldBy;
use crate::model::finding::{Finding, FindingCode};
use crate::model::mark::Mark;
use crate::model::phase::{Phase, Step, TargetPhase};
use crate::model::plan::Plan;
use crate::model::progress::Progress;
use crate::model::report::{ApplyReport, CleanupReport, VerifyReport};
use crate::model::time::{UnixMillis, human_seconds};
use crate::operator::decide::Wait;
use crate::operator::worker::{Barrier, Hold, Outcome};

/// When to try again after trouble.
#[must_use]
pub fn retry_after(reason: Reason) -> Duration {
    let seconds = match reason {
        Reason::Progressing => 1,
        Reason::LockHeld => 5,
        Reason::SecretMissing | Reason::RedisUnavailable => 10,
        Reason::PredecessorPending | Reason::ReplicasMissing | Reason::ReplicasBehind => 15,
        Reason::OutOfMemory | Reason::SourceChanging => 30,
        Reason::AuthenticationFailed | Reason::Duplicate => 60,
        Reason::Soaking
        | Reason::MarkMissing
        | Reason::InvalidSpec
        | Reason::Conflicts
        | Reason::PreflightFailed
        | Reason::UnknownMigration
        | Reason::PlanVersionUnknown
        | Reason::AwaitingApproval
        | Reason::MarkUnproven
        | Reason::Suspended
        | Reason::TargetReached
        | Reason::TargetLowered
        | Reason::NotApplicable
        | Reason::Complete
        | Reason::KeptOriginals
        | Reason::Adopted => 300,
    };
    Duration::from_secs(seconds)
}

/// A step that begins.
#[must_use]
pub fn beginning(step: Step) -> Verdict {
    let message = match step {
        Step::Plan => "reading the keyspace; nothing is written",
        Step::Apply => "bringing entries to where they belong; the old version of Outpost must not write any more",
        Step::Verify => "comparing every entry by value",
        Step::Cleanup => "removing originals that equal their targets",
    };
    Verdict::new(Reason::Progressing, message)
}

/// A step that is under way, or waits for others' sake.
#[must_use]
pub fn under_way(step: Step, progress: &Progress) -> Verdict {
    match &progress.held {
        None => match &progress.waits_for {
            None => beginning(step),
            Some(what) => Verdict::new(Reason::Progressing, format!("{step} waits for {what}")),
        },
        Some(held) => {
            let reason = match held.by {
                HeldBy::Memory => Reason::OutOfMemory,
                HeldBy::Replicas => Reason::ReplicasBehind,
            };
            Verdict::new(reason, format!("{step} waits: {held}"))
        }
    }
}

/// A step that is done, and what comes next.
#[must_use]
pub fn done(hold: &Hold, outcome: &Outcome, unmigrated: Option<i64>) -> Verdict {
    match outcome {
        Outcome::Planned(plan) => planned(plan),
        Outcome::Applied(report) => applied(hold, report),
        Outcome::Verified(report) => verified(report),
        Outcome::Compared(report) => compared(report),
        Outcome::CleanedUp(report, _) => cleaned_up(report, unmigrated),
    }
}

fn planned(plan: &Plan) -> Verdict {
    let seen = &plan.seen;
    let message = format!(
        "{} entries to migrate, {} migrated already, {} conflicts, {} unmigrated keys",
        seen.to_copy(),
        seen.already_migrated,
        seen.conflicts,
        seen.unmigrated.total()
    ) + &accepted(&seen.findings);
    Verdict::new(Reason::Progressing, format!("planned: {message}")).reached(
        TargetPhase::Planned,
        Reason::Complete,
        message,
    )
}

/// What goes on although it was found, since a person accepted it; nothing without any.
fn accepted(findings: &[Finding]) -> String {
    let mut names: Vec<String> =
        findings.iter().filter(|finding| finding.accepted).map(|finding| finding.code.to_string()).collect();
    names.dedup();
    if names.is_empty() { String::new() } else { format!("; accepted by name: {}", names.join(", ")) }
}

fn applied(hold: &Hold, report: &ApplyReport) -> Verdict {
    let put_back = match report.expiries_put_back {
        0 => String::new(),
        count => format!(", {count} lost expiries put back"),
    };
    // An event that comes again only counts up, so a plan made anew can't tell what was accepted since.
    let findings = hold.plan.as_ref().map(|plan| plan.seen.findings.as_slice()).unwrap_or_default();
    let message = format!(
        "{} entries migrated, {} were so already, {} replaced, {} targets kept, {} ended meanwhile",
        report.copied + report.changed,
        report.already_migrated,
        report.replaced,
        report.conflicts,
        report.ended
    ) + &put_back
        + &accepted(findings);
    Verdict::new(Reason::Progressing, format!("applied: {message}")).reached(
        TargetPhase::Applied,
        Reason::Complete,
        message,
    )
}

fn verified(report: &VerifyReport) -> Verdict {
    let message = format!("{} entries are as they should be; the mark is written", report.equal);
    let message = message + &accepted(&report.findings);
    Verdict::new(Reason::Progressing, format!("verified: {message}"))
        .reached(TargetPhase::Applied, Reason::Complete, "every entry is at its target")
        .reached(TargetPhase::Verified, Reason::Complete, message)
}

fn compared(report: &VerifyReport) -> Verdict {
    let message = format!(
        "{} entries are as they should be, {} are diverged since the application went on living",
        report.equal, report.different
    );
    Verdict::new(Reason::Progressing, format!("compared again: {message}"))
}

fn cleaned_up(report: &CleanupReport, unmigrated: Option<i64>) -> Verdict {
    let left_alone = unmigrated.map(|count| format!(", {count} unmigrated keys left alone")).unwrap_or_default();
    let removed = report.removed + report.removed_before;
    let message = format!("{removed} originals removed, {} kept{left_alone}", report.kept());
    let message = message + &accepted(&report.findings);
    let reason = if report.kept() > 0 { Reason::KeptOriginals } else { Reason::Complete };
    Verdict::new(Reason::Progressing, format!("cleaned up: {message}")).reached(TargetPhase::CleanedUp, reason, message)
}

/// What is waited for.
#[must_use]
pub fn waiting(wait: Wait, request: &MigrationRequest, hold: &Hold, not_before: Option<UnixMillis>) -> Verdict {
    match wait {
        Wait::Suspended => suspended(),
        Wait::PlanApproval => {
            let hash = hold.plan.as_ref().map(|plan| plan.hash.to_string()).unwrap_or_default();
            let message = format!("look at status.plan, then approve it: set spec.approval.planHash to {hash}");
            Verdict::new(Reason::AwaitingApproval, message)
        }
        Wait::CleanupApproval => {
            let hash = request.terms().cleanup_hash();
            let message = format!("originals stay until cleanup is approved: set spec.approval.cleanupHash to {hash}");
            Verdict::new(Reason::AwaitingApproval, message)
        }
        Wait::MarkUnproven => {
            let plan = hold.plan.as_ref();
            let missing = plan.map(|plan| plan.seen.to_copy()).unwrap_or_default();
            let hash = plan.map(|plan| plan.hash.to_string()).unwrap_or_default();
            let message = format!(
                "another tool marked this migration applied, but {missing} entries are not migrated; to migrate them \
                 (deleted ones among them would return), set spec.approval.planHash to {hash}"
            );
            Verdict::new(Reason::MarkUnproven, message)
        }
        Wait::Soaking => {
            let after = human_seconds(request.cleanup_after.as_secs());
            let until = not_before.map(|at| format!(", until {at}")).unwrap_or_default();
            let message = format!(
                "originals stay for {after} after verification{until}; to remove them sooner, lower spec.cleanup.after"
            );
            Verdict::new(Reason::Soaking, message)
        }
        Wait::OtherParameters => {
            let proven = match &hold.survey.mark {
                Mark::Stamped(stamp) => stamp.parameters.as_deref().unwrap_or("others"),
                Mark::Absent | Mark::Unstamped | Mark::NotApplicable => "others",
            };
            let message = format!(
                "the mark in Redis proves this migration for {proven}, not for {}; delete this RedisMigration and \
                 create one with the parameters that were applied",
                hold.parameters
            );
            Verdict::new(Reason::InvalidSpec, message)
        }
        Wait::Predecessor => {
            let name = hold.survey.predecessor_pending.unwrap_or("the migration before");
            Verdict::new(
                Reason::PredecessorPending,
                format!("{name} comes first and is not proven yet; migrate it, this goes on by itself then"),
            )
        }
    }
}

/// `spec.suspend` is set.
#[must_use]
pub fn suspended() -> Verdict {
    Verdict::new(Reason::Suspended, "spec.suspend is set; nothing is done here. Set it to false to go on")
}

/// The spec changed while a step was under way.
#[must_use]
pub fn changed() -> Verdict {
    Verdict::new(Reason::Progressing, "the spec has changed; going on by what it says now")
}

/// The target phase is reached.
#[must_use]
pub fn reached(phase: Phase, target: TargetPhase, kept_originals: bool) -> Verdict {
    if phase > target.phase() {
        let message = format!(
            "{phase} already, beyond spec.targetPhase {target}; what has happened stays. Raise spec.targetPhase to \
             match"
        );
        return Verdict::new(Reason::TargetLowered, message);
    }
    let message = match target {
        TargetPhase::Planned => "planned; nothing was written. Raise spec.targetPhase to go on",
        TargetPhase::Applied => "copied; the gate stays closed until spec.targetPhase is raised to Verified",
        TargetPhase::Verified => {
            "every entry is proven at its target; start the new version of Outpost. Originals stay until \
             spec.targetPhase is raised to CleanedUp"
        }
        TargetPhase::CleanedUp if kept_originals => {
            "done; some originals were kept, see status.cleanup. This resource may be deleted"
        }
        TargetPhase::CleanedUp => "done; originals are gone. This resource may be deleted",
    };
    Verdict::new(Reason::TargetReached, message)
}

/// Redis says otherwise than status did.
#[must_use]
pub fn adopted(before: Phase, phase: Phase) -> Verdict {
    match phase {
        Phase::Verified => {
            let verdict = Verdict::new(Reason::Progressing, "Redis says that the migration is verified already")
                .reached(TargetPhase::Applied, Reason::Adopted, "the mark in Redis says so")
                .reached(TargetPhase::Verified, Reason::Adopted, "the mark in Redis says so");
            if before != Phase::CleanedUp {
                return verdict;
            }
            let restored = "the mark in Redis tells of no cleanup: Redis was restored";
            verdict.lost(TargetPhase::CleanedUp, Reason::MarkMissing, restored)
        }
        Phase::CleanedUp => Verdict::new(Reason::Progressing, "Redis says that the migration is cleaned up already")
            .reached(TargetPhase::Applied, Reason::Adopted, "the mark in Redis says so")
            .reached(TargetPhase::Verified, Reason::Adopted, "the mark in Redis says so")
            .reached(TargetPhase::CleanedUp, Reason::Adopted, "the mark in Redis says so"),
        Phase::Pending
        | Phase::Planning
        | Phase::Planned
        | Phase::Applying
        | Phase::Applied
        | Phase::Verifying
        | Phase::CleaningUp => {
            let gone = "the mark in Redis is gone: Redis was restored, or somebody removed it";
            Verdict::new(Reason::MarkMissing, format!("{gone}; starting over"))
                .lost(TargetPhase::Applied, Reason::MarkMissing, gone)
                .lost(TargetPhase::Verified, Reason::MarkMissing, gone)
                .lost(TargetPhase::CleanedUp, Reason::MarkMissing, gone)
        }
    }
}

/// The migration has nothing to do with this keyspace.
#[must_use]
pub fn not_applicable(hold: &Hold) -> Verdict {
    let reason = hold.survey.not_applicable.unwrap_or("Redis says that it is not applicable");
    Verdict::new(Reason::NotApplicable, format!("nothing to do: {reason}"))
}

/// Another resource owns the migration.
#[must_use]
pub fn duplicate(hold: &Hold) -> Verdict {
    let owner = hold.other_owner.as_ref().map_or("another resource", |owner| owner.resource.as_str());
    let message = format!("{owner} migrates this keyspace already; delete one of the two");
    Verdict::new(Reason::Duplicate, message)
}

/// Why a step ended without being done; names keys only where samples are wanted.
#[must_use]
pub fn stopped(stop: &Stop, redis: &RedisTarget, samples: bool) -> Verdict {
    let reason = reason_of(stop);
    if let (Stop::SourcesGone { sample, .. }, true) = (stop, samples) {
        let names: Vec<String> = sample.iter().map(ToString::to_string).collect();
        return Verdict::new(reason, format!("{stop}. Without a source, for example: {}", names.join(", ")));
    }
    if is_refused_login(stop) {
        return Verdict::new(reason, refused_login(redis));
    }
    if !needs_somebody(reason) {
        return Verdict::new(reason, stop.to_string());
    }
    Verdict::new(reason, format!("{stop}. Then change the spec, or the annotation {REQUESTED_AT_ANNOTATION}"))
}

/// Whether nothing is tried again before the spec or the request changes.
#[must_use]
pub fn needs_somebody(reason: Reason) -> bool {
    match reason {
        Reason::Conflicts
        | Reason::PreflightFailed
        | Reason::AwaitingApproval
        | Reason::MarkUnproven
        | Reason::Suspended => true,
        // A newer operator may understand what an older one did not.
        Reason::InvalidSpec
        | Reason::UnknownMigration
        | Reason::PlanVersionUnknown
        | Reason::Progressing
        | Reason::LockHeld
        | Reason::SecretMissing
        | Reason::RedisUnavailable
        | Reason::PredecessorPending
        | Reason::SourceChanging
        | Reason::Soaking
        | Reason::OutOfMemory
        | Reason::ReplicasMissing
        | Reason::ReplicasBehind
        | Reason::MarkMissing
        | Reason::Duplicate
        | Reason::AuthenticationFailed
        | Reason::TargetReached
        | Reason::TargetLowered
        | Reason::NotApplicable
        | Reason::Complete
        | Reason::KeptOriginals
        | Reason::Adopted => false,
    }
}

/// Why the lock could not be had, in words that every replica would choose.
#[must_use]
pub fn barred(barrier: &Barrier, redis: &RedisTarget) -> Verdict {
    match barrier {
        Barrier::Stop(stop) if is_refused_login(stop) => Verdict::new(reason_of(stop), refused_login(redis)),
        Barrier::Secret(problem) => Verdict::new(Reason::SecretMissing, problem.to_string()),
        Barrier::Held(holder) => {
            let message = format!(
                "the Redis lock is held by {holder}; waiting. If nobody works there any more, it ends by itself; \
                 `outpost-migrate-redis unlock` takes one away that never ends"
            );
            Verdict::new(Reason::LockHeld, message)
        }
        Barrier::Stop(stop) => match (reason_of(stop), stop) {
            // These never differ between replicas, and say more than that something is away.
            (
                Reason::RedisUnavailable,
                Stop::Fault(Fault {
                    class:
                        class @ (FaultClass::ClusterMode
                        | FaultClass::CertificateExpired
                        | FaultClass::CertificateUntrusted
                        | FaultClass::CertificateName
                        | FaultClass::ClientCertificate
                        | FaultClass::TlsFailed
                        | FaultClass::UnknownCommand
                        | FaultClass::PersistenceFailing),
                    ..
                }),
            ) => Verdict::new(Reason::RedisUnavailable, class.explain()),
            (Reason::RedisUnavailable, _) => Verdict::new(
                Reason::RedisUnavailable,
                "Redis can't be reached or can't serve; tried again by itself. Check spec.redis, the Service and its \
                 pods",
            ),
            (reason, Stop::Fault(fault)) => Verdict::new(reason, fault.class.explain()),
            (reason, other) => Verdict::new(reason, other.to_string()),
        },
    }
}

fn is_refused_login(stop: &Stop) -> bool {
    matches!(stop, Stop::Fault(fault) if fault.class == FaultClass::AuthenticationFailed)
}

/// Where the credentials are that Redis refused: the names of the Secrets, never their content.
fn refused_login(redis: &RedisTarget) -> String {
    let place = |what, at: &Option<SecretKey>| {
        at.as_ref().map(|at| format!("the {what} in key {:?} of Secret {:?}", at.key, at.name))
    };
    let given: Vec<_> =
        [place("user name", &redis.username), place("password", &redis.password)].into_iter().flatten().collect();
    if given.is_empty() {
        return "Redis asks for a password; name its Secret in spec.redis.passwordSecretRef".to_owned();
    }
    format!("Redis refused {}; mend what is wrong there, it is read again at each try", given.join(" and "))
}

/// The reason that a stop has in conditions.
#[must_use]
pub fn reason_of(stop: &Stop) -> Reason {
    match stop {
        Stop::Interrupted | Stop::LeaseLost | Stop::RunLost => Reason::Progressing,
        Stop::Fault(fault) => reason_of_fault(fault.class),
        Stop::Incomplete { .. } | Stop::Unseen { .. } => Reason::RedisUnavailable,
        // Replicas come back by themselves.
        Stop::PreflightFailed(findings) if findings.iter().all(|it| it.code == FindingCode::Replicas) => {
            Reason::ReplicasMissing
        }
        Stop::PreflightFailed(_) => Reason::PreflightFailed,
        Stop::Conflicts(_) => Reason::Conflicts,
        Stop::SourceChanging { .. } | Stop::SourcesGone { .. } => Reason::SourceChanging,
        Stop::ReplicasMissing(_) => Reason::ReplicasMissing,
        Stop::MarkUnproven { .. } => Reason::MarkUnproven,
        Stop::NotVerified => Reason::MarkMissing,
    }
}

fn reason_of_fault(class: FaultClass) -> Reason {
    match class {
        FaultClass::AuthenticationFailed | FaultClass::NotPermitted => Reason::AuthenticationFailed,
        FaultClass::OutOfMemory => Reason::OutOfMemory,
        FaultClass::TooFewReplicas => Reason::ReplicasMissing,
        FaultClass::LeaseEnded => Reason::Progressing,
        FaultClass::Moved
        | FaultClass::Ask
        | FaultClass::TryAgain
        | FaultClass::ClusterDown
        | FaultClass::Loading
        | FaultClass::Busy
        | FaultClass::ReadOnly
        | FaultClass::NoScript
        | FaultClass::Timeout
        | FaultClass::Disturbed
        | FaultClass::Connection
        | FaultClass::PersistenceFailing
        | FaultClass::UnknownHost
        | FaultClass::ClosedAtOnce
        | FaultClass::TooManyClients
        | FaultClass::ProtectedMode
        | FaultClass::TlsUnanswered
        | FaultClass::CertificateExpired
        | FaultClass::CertificateUntrusted
        | FaultClass::CertificateName
        | FaultClass::ClientCertificate
        | FaultClass::TlsFailed
        | FaultClass::CrossSlot
        | FaultClass::PayloadVersion
        | FaultClass::TargetExists
        | FaultClass::WrongType
        | FaultClass::ClusterMode
        | FaultClass::UnknownCommand
        | FaultClass::Refused
        | FaultClass::UnexpectedAnswer => Reason::RedisUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::finding::Finding;

    #[test]
    fn missing_replicas_are_waited_for_unless_something_else_blocks_too() {
        let error = |code| Finding::error(code, "x");
        let reason = |findings: &[Finding]| reason_of(&Stop::PreflightFailed(findings.to_vec()));
        let replicas = error(FindingCode::Replicas);
        assert_eq!(reason(&[replicas.clone(), replicas.clone()]), Reason::ReplicasMissing);
        assert_eq!(reason(&[replicas, error(FindingCode::Memory)]), Reason::PreflightFailed);
        assert_eq!(reason(&[error(FindingCode::Memory)]), Reason::PreflightFailed);
    }
}
