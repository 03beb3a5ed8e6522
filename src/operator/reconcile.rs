//! One look at one resource: fetch, understand, observe, decide, carry out.
//!
//! Never blocks on Redis: data work is done by a worker, whose reports it reads. Status is written
//! after a fresh read, with its resource version, and only by the lock's holder, but for the few
//! conditions that any replica may write where nobody can have the lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::PostParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::api::conditions::{Reason, Standing as Readiness, Verdict};
use crate::api::request::MigrationRequest;
use crate::api::v1alpha1::status::{
    ApprovalStatus, CleanupStatus, LockStatus, PlanStatus, ProgressStatus, VerificationStatus,
};
use crate::api::v1alpha1::{RedisMigration, RedisMigrationStatus, record};
use crate::engine::Stop;
use crate::model::mark::Mark;
use crate::model::phase::{Phase, Step};
use crate::model::plan::{PLAN_VERSION, PlanHash};
use crate::model::progress::Progress;
use crate::model::time::UnixMillis;
use crate::operator::Context;
use crate::operator::clock::now;
use crate::operator::decide::{Decision, Facts, LastWord, Sight, Wait, decide};
use crate::operator::metrics::ResourceLabels;
use crate::operator::secrets::SecretProblem;
use crate::operator::words;
use crate::operator::worker::{Barrier, Command, Hold, Outcome, Report, Worker};

/// So much later than due, that it surely is due then.
const MARGIN: Duration = Duration::from_millis(100);

/// When to try again after the lock was lost.
const AFTER_LOSS: Duration = Duration::from_secs(1);

/// At most one write of progress in this time.
const PROGRESS_PAUSE: Duration = Duration::from_secs(2);

/// Why a reconcile ended early; it is tried again soon.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server did not answer, or refused.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
}

/// Reconciles one resource.
///
/// # Errors
/// When the API server does not answer.
pub async fn reconcile(object: Arc<RedisMigration>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let result = Box::pin(look(&object, &context)).await;
    context.metrics.reconciled(began.elapsed());
    result
}

/// After an error: soon again.
#[must_use]
pub fn on_error(_object: Arc<RedisMigration>, error: &ReconcileError, _context: Arc<Context>) -> Action {
    tracing::warn!(%error, "reconcile failed; trying again");
    Action::requeue(Duration::from_secs(2))
}

async fn look(object: &RedisMigration, context: &Arc<Context>) -> Result<Action, ReconcileError> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<RedisMigration> = Api::namespaced(context.client.clone(), &namespace);
    let Some(resource) = api.get_opt(&object.name_any()).await? else { return Ok(Action::await_change()) };
    let status = resource.status.clone().unwrap_or_default();
    if status.plan.as_ref().is_some_and(|plan| plan.plan_version > plan_version()) {
        tracing::info!(resource = %resource.name_any(), "made by a newer operator; left alone");
        return Ok(Action::await_change());
    }
    let case = Case { context, api, resource, status };
    match MigrationRequest::from_resource(&case.resource, &context.settings.registry, &context.settings.allowed_hosts) {
        Err(rejected) => case.reject(&Verdict::new(rejected.reason(), rejected.to_string())).await,
        Ok(request) => case.proceed(&request).await,
    }
}

fn plan_version() -> i32 {
    i32::try_from(PLAN_VERSION).unwrap_or(i32::MAX)
}

/// One resource as it is now.
struct Case<'a> {
    context: &'a Arc<Context>,
    api: Api<RedisMigration>,
    resource: RedisMigration,
    status: RedisMigrationStatus,
}

/// What this process knows about the resource's work.
struct Observed {
    worker: Option<Arc<Worker>>,
    report: Option<Report>,
    rest_until: Option<Instant>,
    sight: Sight,
    facts: Facts,
}

impl Case<'_> {
    async fn proceed(&self, request: &MigrationRequest) -> Result<Action, ReconcileError> {
        let observed = self.observe(request);
        let decision = decide(self.status.phase, request.target, observed.sight, &observed.facts);
        self.context.metrics.in_phase(&self.labels(), self.status.phase);
        match (decision, observed.worker.as_ref(), observed.report.as_ref()) {
            (Decision::Rest, _, _) => Ok(self.rest(&observed)),
            (Decision::Begin, _, _) => Ok(self.begin(request)),
            (Decision::Interrupt, Some(worker), _) => {
                worker.interrupt();
                Ok(Action::await_change())
            }
            (Decision::ReportBarred, _, Some(Report::Barred(barrier))) => self.report_barred(request, barrier).await,
            (decision, Some(worker), Some(report)) => self.as_holder(request, worker, report, decision).await,
            (_, None, _) | (_, _, None) => Ok(Action::requeue(Duration::from_secs(1))),
        }
    }

    /// What is seen, and the facts beside it.
    fn observe(&self, request: &MigrationRequest) -> Observed {
        let asked = (request.generation, request.requested_at.clone());
        let (worker, report, rest_until, tried) = self.context.desk.at(&request.uid, |place| {
            if matches!(place.report(), Some(Report::Ended)) {
                self.context.metrics.holds_lock(&self.labels(), false);
                place.worker = None;
                place.rest_until.get_or_insert_with(Instant::now);
            }
            (place.worker.clone(), place.report(), place.rest_until, place.tried.clone())
        });
        let rest_until = rest_until.max(stalled_until(&self.status));
        let is_news = self.status.observed_generation != Some(request.generation) || self.is_asked_again(request);
        let sight = match &report {
            Some(Report::Opening) => Sight::Opening,
            Some(Report::Barred(_)) => Sight::Barred,
            Some(Report::Held(hold)) => Sight::Held(hold.standing()),
            Some(Report::Working(step, _, _)) => Sight::Working(*step),
            Some(Report::Finished(step, _, _)) => Sight::Finished(*step),
            Some(Report::Stopped(step, _, _)) => Sight::Stopped(*step),
            Some(Report::Ended) | None => match rest_until {
                Some(until) if until > Instant::now() => Sight::Resting,
                Some(_) | None => Sight::Unseen,
            },
        };
        // What was tried already is no news to a resting place, or every look would be another try.
        let is_news = is_news && !(sight == Sight::Resting && tried.as_ref() == Some(&asked));
        let facts = self.facts(request, worker.as_deref(), hold_of(report.as_ref()), is_news);
        Observed { worker, report, rest_until, sight, facts }
    }

    fn facts(&self, request: &MigrationRequest, worker: Option<&Worker>, hold: Option<&Hold>, is_news: bool) -> Facts {
        let plan = hold.and_then(|hold| hold.plan.as_ref());
        let consumed = self.status.approval.as_ref();
        let plan_is_consumed =
            |hash: &PlanHash| consumed.and_then(|approval| approval.plan_hash.as_deref()) == Some(hash.as_str());
        let cleanup_hash = request.terms().cleanup_hash();
        let cleanup_is_consumed =
            consumed.and_then(|approval| approval.cleanup_hash.as_deref()) == Some(cleanup_hash.as_str());
        Facts {
            last_word: last_word(&self.status),
            is_news,
            suspended: request.suspended,
            is_outdated: worker.is_some_and(|worker| chooses_otherwise(&worker.request, request)),
            planned_in_hold: plan.is_some(),
            plan_approved: plan
                .is_some_and(|plan| request.approval.allows_plan(&plan.hash) || plan_is_consumed(&plan.hash)),
            plan_approved_by_hash: plan
                .is_some_and(|plan| request.approval.names_plan(&plan.hash) || plan_is_consumed(&plan.hash)),
            plan_has_missing: plan.is_some_and(|plan| plan.seen.to_copy() > 0),
            cleanup_approved: request.approval.allows_cleanup(&cleanup_hash) || cleanup_is_consumed,
            soaked: self.not_before(request, hold).is_some_and(|at| at <= now()),
            verify_again: worker.is_some_and(|worker| worker.asked_again) && hold.is_some_and(|hold| !hold.compared),
        }
    }

    fn is_asked_again(&self, request: &MigrationRequest) -> bool {
        request.requested_at.is_some() && request.requested_at != self.status.last_handled_request
    }

    /// When originals may go: by Redis' mark where it is known, else by status.
    fn not_before(&self, request: &MigrationRequest, hold: Option<&Hold>) -> Option<UnixMillis> {
        let after = i64::try_from(request.cleanup_after.as_millis()).unwrap_or(i64::MAX);
        let by_mark = hold.and_then(|hold| match &hold.survey.mark {
            Mark::Stamped(stamp) => Some(stamp.verified_at.unwrap_or(UnixMillis(0))),
            Mark::Absent | Mark::Unstamped | Mark::NotApplicable => None,
        });
        let by_status = || {
            let completed = self.status.verification.as_ref().and_then(|it| it.completed_at.as_ref())?;
            Some(UnixMillis(completed.0.as_millisecond()))
        };
        by_mark.or_else(by_status).map(|at| UnixMillis(at.0.saturating_add(after)))
    }

    fn rest(&self, observed: &Observed) -> Action {
        let due = match observed.facts.last_word {
            LastWord::Open => observed.rest_until.map(|until| until.saturating_duration_since(Instant::now())),
            LastWord::Soaking => {
                let not_before = self.status.cleanup.as_ref().and_then(|cleanup| cleanup.not_before.as_ref());
                not_before.map(|at| until(UnixMillis(at.0.as_millisecond())))
            }
            LastWord::Asking | LastWord::Done => None,
        };
        due.map_or_else(Action::await_change, |due| Action::requeue(due + MARGIN))
    }

    fn begin(&self, request: &MigrationRequest) -> Action {
        if self.context.shutdown.is_cancelled() {
            return Action::await_change();
        }
        let reference = ObjectRef::from_obj(&self.resource);
        let wake = self.context.wake.clone();
        let worker = Worker::start(
            self.context.client.clone(),
            Arc::clone(&self.context.settings),
            request.clone(),
            self.is_asked_again(request),
            &self.context.shutdown,
            &self.context.tasks,
            move || {
                // Nobody listens once the operator shuts down.
                let _ = wake.unbounded_send(reference.clone());
            },
        );
        self.context.desk.at(&request.uid, |place| {
            place.worker = Some(Arc::new(worker));
            place.rest_until = None;
            place.tried = Some((request.generation, request.requested_at.clone()));
            place.progress_written = None;
        });
        Action::await_change()
    }

    /// Everything that the lock's holder does.
    async fn as_holder(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        report: &Report,
        decision: Decision,
    ) -> Result<Action, ReconcileError> {
        let now = now();
        match (decision, report) {
            (Decision::Follow, Report::Working(step, _, Some(progress))) => {
                self.follow(request, worker, *step, progress).await
            }
            (_, Report::Held(_)) if is_outdated(&worker.request, request) => {
                worker.command(Command::End);
                self.context.desk.rest(&request.uid, Duration::ZERO);
                Ok(Action::requeue(Duration::from_millis(500)))
            }
            (Decision::Run(step), Report::Held(hold)) => self.run(request, worker, hold, step).await,
            (Decision::Record(_), Report::Finished(_, _, outcome)) => self.record(request, worker, outcome).await,
            (Decision::Report(ended), Report::Stopped(_, _, stop)) => {
                let mut verdict = words::stopped(stop);
                if request.suspended {
                    verdict = words::suspended();
                } else if chooses_otherwise(&worker.request, request) && *stop == Stop::Interrupted {
                    verdict = words::changed();
                }
                tracing::info!(resource = %request.name, step = %ended, reason = %verdict.reason, "step ended");
                self.end(request, worker, self.status.clone(), &verdict).await
            }
            (Decision::Adopt(phase), Report::Held(_)) => {
                let verdict = words::adopted(phase);
                let mut next = self.status.clone();
                next.enter(phase, verdict.message.clone(), now);
                if phase == Phase::Pending {
                    // What they tell of is no longer so.
                    (next.verification, next.cleanup) = (None, None);
                }
                if !self.write_as_holder(request, worker, next, &verdict).await? {
                    return Ok(Action::await_change());
                }
                self.context.events.transition(&self.resource, &verdict).await;
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

    async fn follow(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        step: Step,
        progress: &Progress,
    ) -> Result<Action, ReconcileError> {
        self.context.metrics.progress(&self.labels(), progress);
        let due = self.context.desk.at(&request.uid, |place| {
            let due = place.progress_written.is_none_or(|at| at.elapsed() >= PROGRESS_PAUSE);
            if due {
                place.progress_written = Some(Instant::now());
            }
            due
        });
        if due {
            let mut next = self.status.clone();
            next.progress = Some((*progress).into());
            self.write_as_holder(request, worker, next, &words::beginning(step)).await?;
        }
        Ok(Action::await_change())
    }

    /// Status says so first, then the worker does it: no phase is skipped.
    async fn run(
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
        next.progress = Some(Progress::begin(step, hold.plan.as_ref().map(|plan| plan.seen.total_sources())).into());
        self.consume_approval(request, hold, step, &mut next);
        if self.write_as_holder(request, worker, next, &verdict).await? {
            worker.command(Command::Run(step));
        }
        Ok(Action::await_change())
    }

    /// An approval that work relies on is remembered; removing it from the spec later changes nothing.
    fn consume_approval(&self, request: &MigrationRequest, hold: &Hold, step: Step, next: &mut RedisMigrationStatus) {
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

    async fn record(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        outcome: &Outcome,
    ) -> Result<Action, ReconcileError> {
        let now = now();
        let verdict = words::done(outcome);
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
            Outcome::CleanedUp(report) => {
                next.cleanup.get_or_insert_default().complete(report, now, request.samples);
                Some(Phase::CleanedUp)
            }
        };
        if let Some(phase) = reached {
            next.enter(phase, verdict.message.clone(), now);
        }
        if self.write_as_holder(request, worker, next, &verdict).await? {
            self.context.events.transition(&self.resource, &verdict).await;
            worker.command(Command::Recorded);
        }
        Ok(Action::await_change())
    }

    async fn wait(
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
    async fn end(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        mut next: RedisMigrationStatus,
        verdict: &Verdict,
    ) -> Result<Action, ReconcileError> {
        next.lock = None;
        if !matches!(verdict.reason.standing(), Readiness::Reconciling)
            && let Some(progress) = &mut next.progress
        {
            progress.eta = None;
            progress.keys_per_second = 0;
        }
        if worker.request.requested_at == request.requested_at {
            next.last_handled_request.clone_from(&request.requested_at);
        }
        let won = match self.write(request, Some(worker), next, verdict).await {
            // Somebody wrote in between: read and decide again, still holding the lock.
            Err(error) if worker.holds_lock() => return Err(error),
            Err(_) => false,
            Ok(won) => won,
        };
        worker.command(Command::End);
        self.context.metrics.holds_lock(&self.labels(), false);
        if !won {
            // The lock was lost before this could be told; whoever has it next tells.
            self.context.desk.rest(&request.uid, AFTER_LOSS);
            return Ok(Action::requeue(AFTER_LOSS + MARGIN));
        }
        self.tell(verdict).await;
        let pause = match (verdict.reason, verdict.reason.standing()) {
            (Reason::Soaking, _) => self.not_before(request, None).map_or(AFTER_LOSS, until),
            (reason, Readiness::Reconciling | Readiness::Stalled) => words::retry_after(reason),
            // Status itself says that there is nothing to try again.
            (_, Readiness::Ready | Readiness::Waiting) => {
                self.context.desk.rest(&request.uid, Duration::ZERO);
                return Ok(Action::await_change());
            }
        };
        self.context.desk.rest(&request.uid, pause);
        Ok(Action::requeue(pause + MARGIN))
    }

    /// An event and a metric, if the reason in status was another.
    async fn tell(&self, verdict: &Verdict) {
        if ready_reason(&self.status).as_deref() != Some(verdict.reason.to_string().as_str()) {
            self.context.metrics.failed(verdict.reason);
            self.context.events.transition(&self.resource, verdict).await;
        }
    }

    /// Nobody here has the lock. What may be written is the same for every replica, and only if it
    /// changes something.
    async fn report_barred(&self, request: &MigrationRequest, barrier: &Barrier) -> Result<Action, ReconcileError> {
        let verdict = if request.suspended { words::suspended() } else { words::barred(barrier) };
        let pause = words::retry_after(verdict.reason);
        let mut next = self.status.clone();
        match barrier {
            // Another replica works on this very resource, and tells of it.
            Barrier::Held(holder) if holder.resource_uid.as_ref() == Some(&request.uid) => {
                self.context.desk.rest(&request.uid, pause);
                return Ok(Action::requeue(pause));
            }
            Barrier::Held(holder) => {
                next.lock = Some(LockStatus {
                    holder: holder.name.clone(),
                    operation: holder.operation.clone(),
                    migration: holder.migration.clone(),
                    since: holder.since.as_deref().and_then(UnixMillis::parse_rfc3339).map(record::time),
                });
            }
            // Had and lost: whoever has it now tells. And where the API server did not answer, no Secret is missing.
            Barrier::Stop(Stop::Interrupted | Stop::LeaseLost | Stop::RunLost)
            | Barrier::Secret(SecretProblem::Unreachable(_)) => {
                self.context.desk.rest(&request.uid, AFTER_LOSS);
                return Ok(Action::requeue(AFTER_LOSS + MARGIN));
            }
            Barrier::Secret(_) | Barrier::Stop(_) => next.lock = None,
        }
        let said = self.status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let says_so = said.is_some_and(|it| it.reason == verdict.reason.to_string() && it.message == verdict.message)
            && self.status.observed_generation == Some(request.generation)
            && self.status.lock == next.lock;
        if !says_so {
            self.write(request, None, next, &verdict).await?;
            self.tell(&verdict).await;
        }
        self.context.desk.rest(&request.uid, pause);
        Ok(Action::requeue(pause))
    }

    /// The spec can't be followed: no replica could have a lock for it.
    async fn reject(&self, verdict: &Verdict) -> Result<Action, ReconcileError> {
        let generation = self.resource.metadata.generation.unwrap_or_default();
        let mut next = self.status.clone();
        next.observed_generation = Some(generation);
        next.conditions = verdict.apply_to(&self.status.conditions, generation, now());
        self.replace(next).await?;
        self.tell(verdict).await;
        Ok(Action::await_change())
    }

    /// Whether it was written: not by whom the lock was lost.
    async fn write_as_holder(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        mut next: RedisMigrationStatus,
        verdict: &Verdict,
    ) -> Result<bool, ReconcileError> {
        next.lock = Some(LockStatus {
            holder: self.context.settings.holder.clone(),
            operation: next.progress.as_ref().map(|progress| progress.step.clone()),
            migration: Some(request.migration.name().to_owned()),
            since: self
                .status
                .lock
                .as_ref()
                .filter(|lock| lock.holder == self.context.settings.holder)
                .and_then(|lock| lock.since.clone())
                .or(Some(record::time(now()))),
        });
        self.context.metrics.holds_lock(&self.labels(), worker.holds_lock());
        self.write(request, Some(worker), next, verdict).await
    }

    /// Whether it was written: a holder that lost the lock writes nothing any more.
    async fn write(
        &self,
        request: &MigrationRequest,
        holder: Option<&Worker>,
        mut next: RedisMigrationStatus,
        verdict: &Verdict,
    ) -> Result<bool, ReconcileError> {
        next.observed_generation = Some(request.generation);
        next.conditions = verdict.apply_to(&self.status.conditions, request.generation, now());
        if holder.is_some_and(|worker| !worker.holds_lock()) {
            return Ok(false);
        }
        self.context.metrics.in_phase(&self.labels(), next.phase);
        self.replace(next).await?;
        Ok(true)
    }

    async fn replace(&self, next: RedisMigrationStatus) -> Result<(), ReconcileError> {
        if self.resource.status.as_ref() == Some(&next) {
            return Ok(());
        }
        let mut resource = self.resource.clone();
        resource.status = Some(next);
        self.api.replace_status(&self.resource.name_any(), &PostParams::default(), &resource).await?;
        Ok(())
    }

    fn labels(&self) -> ResourceLabels {
        ResourceLabels::new(&self.resource.namespace().unwrap_or_default(), &self.resource.name_any())
    }
}

fn hold_of(report: Option<&Report>) -> Option<&Hold> {
    match report? {
        Report::Held(hold)
        | Report::Working(_, hold, _)
        | Report::Finished(_, hold, _)
        | Report::Stopped(_, hold, _) => Some(hold),
        Report::Opening | Report::Barred(_) | Report::Ended => None,
    }
}

/// Whether another worker has to be told what the spec, or a request, says now.
fn is_outdated(told: &MigrationRequest, asked: &MigrationRequest) -> bool {
    chooses_otherwise(told, asked) || told.requested_at != asked.requested_at
}

/// Whether work under way goes by choices that the spec does not make any more.
fn chooses_otherwise(told: &MigrationRequest, asked: &MigrationRequest) -> bool {
    told.terms() != asked.terms()
        || told.limits != asked.limits
        || told.min_replicas != asked.min_replicas
        || told.redis != asked.redis
}

/// The reasons themselves say whether somebody has to go on.
fn last_word(status: &RedisMigrationStatus) -> LastWord {
    let said = ready_reason(status);
    match Reason::ALL.into_iter().find(|reason| said.as_deref() == Some(reason.to_string().as_str())) {
        None => LastWord::Open,
        Some(Reason::Soaking) => LastWord::Soaking,
        Some(reason) => match reason.standing() {
            Readiness::Ready => LastWord::Done,
            Readiness::Waiting => LastWord::Asking,
            Readiness::Reconciling | Readiness::Stalled => LastWord::Open,
        },
    }
}

/// Until when nobody tries again what any replica found to need a person, so that replicas do not
/// take turns at it. A spec that was not understood is another matter: this operator may be newer.
fn stalled_until(status: &RedisMigrationStatus) -> Option<Instant> {
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled")?;
    let reason = Reason::ALL.into_iter().find(|reason| stalled.reason == reason.to_string())?;
    if matches!(reason, Reason::InvalidSpec | Reason::UnknownMigration) {
        return None;
    }
    let pause = i64::try_from(words::retry_after(reason).as_millis()).unwrap_or(i64::MAX);
    let due = UnixMillis(stalled.last_transition_time.0.as_millisecond().saturating_add(pause));
    Some(Instant::now() + until(due))
}

fn until(at: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(at.0.saturating_sub(now().0)).unwrap_or(0))
}

fn ready_reason(status: &RedisMigrationStatus) -> Option<String> {
    status.conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.reason.clone())
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
        Outcome::CleanedUp(report) => (Step::Cleanup, report.processed(), report.kept() + report.gone, 0),
    };
    Progress { processed, skipped, conflicts, ..Progress::begin(step, Some(processed)) }
}
