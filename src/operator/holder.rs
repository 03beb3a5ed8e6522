//! What the lock's holder does about a decision: orders steps, writes their results, ends.
//!
//! Owns the order of status and work: status says what begins before it begins, and what is done only when it
//! is done. Writes through `status`, says through `words`.

use std::time::{Duration, Instant};

use kube::runtime::controller::Action;

use crate::api::conditions::{Reason, Standing as Readiness, Verdict};
use crate::api::request::MigrationRequest;
use crate::api::v1alpha1::status::{ApprovalStatus, CleanupStatus, PlanStatus, ProgressStatus, VerificationStatus};
use crate::api::v1alpha1::{RedisMigrationStatus, record};
use crate::engine::Stop;
use crate::model::mark::Mark;
use crate::model::phase::{Phase, Step};
use crate::model::progress::Progress;
use crate::model::time::UnixMillis;
use crate::operator::case::{Case, chooses_otherwise, until};
use crate::operator::clock::now;
use crate::operator::decide::{Decision, Wait};
use crate::operator::reconcile::{AFTER_LOSS, MARGIN};
use crate::operator::retry::ReconcileError;
use crate::operator::words;
use crate::operator::worker::{Command, Hold, Outcome, Report, Worker};

/// At most one write of progress in this time.
const PROGRESS_PAUSE: Duration = Duration::from_secs(2);

impl Case<'_> {
    /// Everything that the lock's holder does.
    pub(super) async fn as_holder(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        report: &Report,
        decision: Decision,
    ) -> Result<Action, ReconcileError> {
        let now = now();
        match (decision, report) {
            (Decision::Follow, Report::Working(step, _, progress)) => {
                self.follow(request, worker, *step, progress.as_ref()).await
            }
            (_, Report::Held(_)) if is_outdated(&worker.order.request, request) => {
                worker.command(Command::End);
                self.context.metrics.lock_released(&self.labels());
                self.context.desk.rest(&request.uid, Duration::ZERO);
                Ok(Action::requeue(Duration::from_millis(500)))
            }
            (Decision::Run(step), Report::Held(hold)) => self.run(request, worker, hold, step).await,
            (Decision::Record(_), Report::Finished(_, hold, outcome)) => {
                self.record(request, worker, hold, outcome).await
            }
            (Decision::Report(step), Report::Stopped(_, _, why)) => {
                let mut verdict = words::stopped(why, &worker.order.request.redis, request.samples);
                if request.suspended {
                    verdict = words::suspended();
                } else if chooses_otherwise(&worker.order.request, request) && *why == Stop::Interrupted {
                    verdict = words::changed();
                }
                tracing::info!(resource = %request.name, %step, reason = %verdict.reason, "step ended");
                self.end(request, worker, self.status.clone(), &verdict).await
            }
            (Decision::Adopt(phase), Report::Held(_)) => {
                let verdict = words::adopted(self.status.phase, phase);
                let mut next = self.status.clone();
                next.enter(phase, verdict.message.clone(), now);
                // Of a step that is over; what was found stands in the conditions.
                next.progress = None;
                if self.status.phase == Phase::CleanedUp {
                    next.cleanup = None;
                }
                if phase == Phase::Pending {
                    // What they tell of is no longer so, and what was approved is over.
                    (next.verification, next.cleanup, next.approval) = (None, None, None);
                }
                if !self.write_as_holder(request, worker, next, &verdict).await? {
                    return Ok(Action::await_change());
                }
                self.context.events.transition(&self.reference(), &verdict).await;
                Ok(Action::requeue(Duration::from_millis(10)))
            }
            (Decision::Stamp, Report::Held(_)) => {
                worker.command(Command::Stamp);
                Ok(Action::await_change())
            }
            (Decision::NotApplicable, Report::Held(hold)) if hold.survey.mark == Mark::Absent => {
                worker.command(Command::MarkNotApplicable);
                Ok(Action::await_change())
            }
            (Decision::NotApplicable, Report::Held(hold)) => {
                self.end(request, worker, self.status.clone(), &words::not_applicable(hold)).await
            }
            (Decision::Duplicate, Report::Held(hold)) => {
                self.end(request, worker, self.status.clone(), &words::duplicate(hold)).await
            }
            (Decision::Wait(wait), Report::Held(hold)) => self.wait(request, worker, hold, wait).await,
            (Decision::Reach, Report::Held(_)) => {
                let kept = self.status.cleanup.as_ref().is_some_and(|cleanup| !cleanup.kept.is_empty());
                let verdict = words::reached(self.status.phase, request.target, kept);
                self.end(request, worker, self.status.clone(), &verdict).await
            }
            _ => Ok(Action::await_change()),
        }
    }

    pub(super) async fn follow(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        step: Step,
        progress: Option<&Progress>,
    ) -> Result<Action, ReconcileError> {
        if let Some(progress) = progress {
            self.context.metrics.progress(&self.labels(), progress);
        }
        let due = self.context.desk.at(&request.uid, |place| {
            let due = place.progress_written.is_none_or(|at| at.elapsed() >= PROGRESS_PAUSE);
            if due {
                place.progress_written = Some(Instant::now());
            }
            due
        });
        if due {
            let mut next = self.status.clone();
            if let Some(progress) = progress {
                next.progress = Some(progress.clone().into());
            }
            let verdict = progress.map_or_else(|| words::beginning(step), |progress| words::under_way(step, progress));
            let is_held = progress.is_some_and(|progress| progress.held.is_some());
            if self.write_as_holder(request, worker, next, &verdict).await? && is_held {
                self.tell(&verdict).await;
            }
        }
        Ok(Action::await_change())
    }

    /// Status says so first, then the worker does it: no phase is skipped.
    pub(super) async fn run(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        hold: &Hold,
        step: Step,
    ) -> Result<Action, ReconcileError> {
        let verdict = words::beginning(step);
        let mut next = self.status.clone();
        // Reading again what a run under way needs to know is no step back.
        let phase = match (step, self.status.phase) {
            (Step::Plan, phase @ (Phase::Applying | Phase::Applied | Phase::Verifying))
            | (Step::Verify, phase @ (Phase::Verified | Phase::CleanedUp)) => phase,
            (step, _) => step.phase_during(),
        };
        next.enter(phase, verdict.message.clone(), now());
        let total = hold.plan.as_ref().map(|plan| plan.seen.total_sources()).or(self.sources_known());
        next.progress = Some(Progress::begin(step, total.filter(|_| step != Step::Plan)).into());
        self.consume_approval(request, hold, step, &mut next);
        if self.write_as_holder(request, worker, next, &verdict).await? {
            worker.command(Command::Run(step));
        }
        Ok(Action::await_change())
    }

    /// An approval that work relies on is remembered; removing it from the spec later changes nothing.
    pub(super) fn consume_approval(
        &self,
        request: &MigrationRequest,
        hold: &Hold,
        step: Step,
        next: &mut RedisMigrationStatus,
    ) {
        let mut approval: ApprovalStatus = self.status.approval.clone().unwrap_or_default();
        let plan_hash = hold.plan.as_ref().map(|plan| &plan.hash).filter(|hash| request.approval.names_plan(hash));
        match (step, plan_hash) {
            (Step::Apply | Step::Verify, Some(hash)) => approval.plan_hash = Some(hash.to_string()),
            (Step::Cleanup, _) if request.approval.is_manual() => {
                approval.cleanup_hash = Some(request.terms().cleanup_hash().to_string());
            }
            (Step::Plan | Step::Apply | Step::Verify | Step::Cleanup, _) => return,
        }
        let before = self.status.approval.as_ref();
        if before.is_none_or(|before| {
            (&before.plan_hash, &before.cleanup_hash) != (&approval.plan_hash, &approval.cleanup_hash)
        }) {
            approval.at = Some(record::time(now()));
        }
        next.approval = Some(approval);
    }

    pub(super) async fn record(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        hold: &Hold,
        outcome: &Outcome,
    ) -> Result<Action, ReconcileError> {
        let now = now();
        let unmigrated = self.unmigrated(outcome);
        let verdict = words::done(hold, outcome, unmigrated);
        let mut next = self.status.clone();
        let finished = finished_progress(outcome);
        self.context.metrics.progress(&self.labels(), &finished);
        let keys_per_second = next.progress.as_ref().map_or(0, |progress| progress.keys_per_second);
        next.progress = Some(ProgressStatus { keys_per_second, ..finished.into() });
        let reached = match outcome {
            Outcome::Planned(plan) => {
                next.plan = Some(PlanStatus::new(plan, now, request.samples));
                self.context.metrics.planned(&self.labels(), plan.seen.estimated_bytes);
                // A plan made again for a run under way is no step back.
                (self.status.phase <= Phase::Planned).then_some(Phase::Planned)
            }
            Outcome::Applied(_) => Some(Phase::Applied),
            Outcome::Verified(report) => {
                next.verification = Some(VerificationStatus::new(report, now, request.samples));
                Some(Phase::Verified)
            }
            Outcome::Compared(report) => {
                let completed_at = self.status.verification.as_ref().and_then(|it| it.completed_at.clone());
                let fresh = VerificationStatus::new(report, now, request.samples);
                // The soak counts from the proof, not from a later look.
                next.verification =
                    Some(VerificationStatus { completed_at: completed_at.or(fresh.completed_at), ..fresh });
                None
            }
            Outcome::CleanedUp(report, _) => {
                let cleanup = next.cleanup.get_or_insert_default();
                cleanup.complete(report, now, request.samples);
                cleanup.unmigrated = unmigrated.unwrap_or(cleanup.unmigrated);
                Some(Phase::CleanedUp)
            }
        };
        if let Some(phase) = reached {
            next.enter(phase, verdict.message.clone(), now);
        }
        if self.write_as_holder(request, worker, next, &verdict).await? {
            self.context.events.transition(&self.reference(), &verdict).await;
            worker.command(Command::Recorded);
        }
        Ok(Action::await_change())
    }

    /// How many keys no rule maps, as a step counted that looked at every key: cleanup itself does not.
    fn unmigrated(&self, outcome: &Outcome) -> Option<i64> {
        match outcome {
            Outcome::CleanedUp(_, Some(counted)) => Some(record::number(*counted)),
            Outcome::CleanedUp(_, None)
            | Outcome::Planned(_)
            | Outcome::Applied(_)
            | Outcome::Verified(_)
            | Outcome::Compared(_) => self.status.plan.as_ref().map(|plan| plan.unmigrated.count),
        }
    }

    pub(super) async fn wait(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        hold: &Hold,
        wait: Wait,
    ) -> Result<Action, ReconcileError> {
        let not_before = self.not_before(request, Some(hold));
        let mut next = self.status.clone();
        if matches!(wait, Wait::Soaking | Wait::CleanupApproval) {
            let cleanup: &mut CleanupStatus = next.cleanup.get_or_insert_default();
            cleanup.hash = Some(request.terms().cleanup_hash().to_string());
            cleanup.not_before = not_before.map(record::time);
        }
        self.end(request, worker, next, &words::waiting(wait, request, hold, not_before)).await
    }

    /// Writes where it stands, then lets the worker give the lock back.
    pub(super) async fn end(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        mut next: RedisMigrationStatus,
        verdict: &Verdict,
    ) -> Result<Action, ReconcileError> {
        next.lock = None;
        if verdict.reason != Reason::Progressing
            && let Some(progress) = &mut next.progress
        {
            progress.eta = None;
            progress.keys_per_second = 0;
        }
        if worker.order.request.requested_at == request.requested_at {
            next.last_handled_request.clone_from(&request.requested_at);
        }
        let soaked_at = next.cleanup.as_ref().and_then(|cleanup| cleanup.not_before.clone());
        let won = match self.write(request, Some(worker), next, verdict).await {
            // Somebody wrote in between: read and decide again, still holding the lock.
            Err(error) if worker.holds_lock() => return Err(error),
            Err(_) => false,
            Ok(won) => won,
        };
        worker.command(Command::End);
        self.context.metrics.lock_released(&self.labels());
        if !won {
            // The lock was lost before this could be told; whoever has it next tells.
            self.context.desk.rest(&request.uid, AFTER_LOSS);
            return Ok(Action::requeue(AFTER_LOSS + MARGIN));
        }
        self.tell(verdict).await;
        let pause = match (verdict.reason, verdict.reason.standing()) {
            (Reason::Soaking, _) => soaked_at.map_or(AFTER_LOSS, |at| until(UnixMillis(at.0.as_millisecond()))),
            (reason, Readiness::Reconciling | Readiness::Stalled) if !words::needs_somebody(reason) => {
                words::retry_after(reason)
            }
            // Status itself says that there is nothing to try again.
            (_, Readiness::Reconciling | Readiness::Stalled | Readiness::Ready | Readiness::Waiting) => {
                self.context.desk.rest(&request.uid, Duration::ZERO);
                return Ok(Action::await_change());
            }
        };
        self.context.desk.rest(&request.uid, pause);
        Ok(Action::requeue(pause + MARGIN))
    }
}

/// Whether another worker has to be told what the spec, or a request, says now.
fn is_outdated(told: &MigrationRequest, asked: &MigrationRequest) -> bool {
    chooses_otherwise(told, asked) || told.requested_at != asked.requested_at
}

/// The progress of a step that is done: everything was dealt with.
fn finished_progress(outcome: &Outcome) -> Progress {
    let (step, processed, skipped, conflicts) = match outcome {
        Outcome::Planned(plan) => {
            (Step::Plan, plan.seen.total_sources(), plan.seen.already_migrated, plan.seen.conflicts)
        }
        Outcome::Applied(report) => {
            (Step::Apply, report.processed(), report.already_migrated + report.ended, report.conflicts)
        }
        Outcome::Verified(report) | Outcome::Compared(report) => {
            (Step::Verify, report.processed(), report.ended, report.different)
        }
        Outcome::CleanedUp(report, _) => (Step::Cleanup, report.processed(), report.kept() + report.gone, 0),
    };
    Progress { processed, skipped, conflicts, ..Progress::begin(step, Some(processed)) }
}
