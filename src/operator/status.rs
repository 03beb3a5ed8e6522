//! Writing status: after a fresh read, with its resource version, and only what changes something.
//!
//! Owns who may write: the lock's holder, as long as it surely holds it; and where nobody can have the lock,
//! any replica, but only what every replica would write.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::PostParams;
use kube::runtime::controller::Action;

use crate::api::conditions::{Reason, Verdict};
use crate::api::reading;
use crate::api::request::MigrationRequest;
use crate::api::v1alpha1::status::LockStatus;
use crate::api::v1alpha1::{RedisMigrationStatus, record};
use crate::engine::Stop;
use crate::model::phase::TargetPhase;
use crate::model::time::UnixMillis;
use crate::operator::case::{Case, hold_of, ready_reason};
use crate::operator::clock::now;
use crate::operator::decide::Standing;
use crate::operator::reconcile::{AFTER_LOSS, MARGIN};
use crate::operator::retry::ReconcileError;
use crate::operator::secrets::SecretProblem;
use crate::operator::words;
use crate::operator::worker::{Barrier, Report, Worker};

impl Case<'_> {
    /// An event and a metric, if the reason in status was another.
    pub(super) async fn tell(&self, verdict: &Verdict) {
        if ready_reason(&self.status.conditions).as_deref() != Some(verdict.reason.to_string().as_str()) {
            self.context.metrics.failed(verdict.reason);
            self.context.events.transition(&self.reference(), verdict).await;
        }
    }

    /// Nobody here has the lock. What may be written is the same for every replica, and only if it
    /// changes something.
    pub(super) async fn report_barred(
        &self,
        request: &MigrationRequest,
        barrier: &Barrier,
    ) -> Result<Action, ReconcileError> {
        let verdict = if request.suspended { words::suspended() } else { words::barred(barrier, &request.redis) };
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
                    renewed_at: None,
                    holder: holder.name.clone(),
                    operation: holder.operation.clone(),
                    migration: holder.migration.clone(),
                    since: holder.since.as_deref().and_then(UnixMillis::parse_rfc3339).map(record::time),
                });
            }
            // Had and lost, so that whoever has it now tells; or the API server was away, which can't be told.
            Barrier::Stop(Stop::Interrupted | Stop::LeaseLost | Stop::RunLost)
            | Barrier::Secret(SecretProblem::Unreachable(_)) => {
                self.context.desk.rest(&request.uid, AFTER_LOSS);
                return Ok(Action::requeue(AFTER_LOSS + MARGIN));
            }
            Barrier::Secret(_) | Barrier::Stop(_) => next.lock = None,
        }
        if let Some(left) = self.silent_for() {
            self.context.metrics.kept_to_itself(verdict.reason);
            let before = self.context.desk.at(&request.uid, |place| place.kept.replace(verdict.reason));
            if before != Some(verdict.reason) {
                tracing::info!(resource = %request.name, reason = %verdict.reason, "this replica can't get the lock");
            }
            self.context.desk.rest(&request.uid, pause);
            return Ok(Action::requeue(pause.min(left) + MARGIN));
        }
        if request.suspended {
            // Nobody looks again until it goes on, so nothing that passes by itself may stand there.
            next.lock = None;
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

    /// For how long this replica, which has no lock, leaves status as it is: until nothing has changed for a lease where
    /// a working holder is named, and longer where another replica told of its own trouble, since it tries again in
    /// between. Our own clock measures it, since clocks differ.
    fn silent_for(&self) -> Option<Duration> {
        let settings = &self.context.settings;
        let ready = self.status.conditions.iter().find(|condition| condition.type_ == "Ready")?;
        let word = Some((ready.reason.clone(), ready.message.clone()));
        let uid = self.resource.uid().unwrap_or_default();
        if self.context.desk.at(&uid, |place| place.said.clone()) == word {
            return None;
        }

        let said = Reason::ALL.into_iter().find(|reason| reason.to_string() == ready.reason);
        // Of who waits for a lock, status names the one that has it.
        let lock = self.status.lock.as_ref().filter(|_| said != Some(Reason::LockHeld));
        let is_holders = lock.is_some_and(|lock| lock.holder != settings.holder);
        let silence = match said {
            _ if is_holders => settings.lease,
            Some(reason) if lock.is_none() && reason.is_trouble() => settings.lease + words::retry_after(reason),
            Some(_) | None => return None,
        };
        silence.checked_sub(self.unchanged_for).filter(|left| !left.is_zero())
    }

    /// Whether it was written: not by whom the lock was lost.
    pub(super) async fn write_as_holder(
        &self,
        request: &MigrationRequest,
        worker: &Worker,
        mut next: RedisMigrationStatus,
        verdict: &Verdict,
    ) -> Result<bool, ReconcileError> {
        next.lock = Some(LockStatus {
            renewed_at: Some(self.renewed_at()),
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

    /// Status of a working holder changes at least every third of a lease, so that others see that it lives.
    fn renewed_at(&self) -> Time {
        let now = now();
        let third = i64::try_from(self.context.settings.lease.as_millis() / 3).unwrap_or(i64::MAX);
        let before = self.status.lock.as_ref().filter(|lock| lock.holder == self.context.settings.holder);
        before
            .and_then(|lock| lock.renewed_at.clone())
            .filter(|at| (0..third).contains(&now.0.saturating_sub(at.0.as_millisecond())))
            .unwrap_or_else(|| record::time(now))
    }

    /// The milestones that this hold of the lock has seen to hold, by the mark and by its own plan.
    fn seen_to_hold(&self, report: &Report) -> Vec<TargetPhase> {
        let Some(hold) = hold_of(Some(report)) else { return Vec::new() };
        let known = self.status.plan.as_ref().map(|plan| plan.hash.as_str());
        let is_same_plan = hold.plan.as_ref().is_some_and(|plan| Some(plan.hash.as_str()) == known);
        let by_mark: &[TargetPhase] = match hold.standing() {
            Standing::Proven => &[TargetPhase::Applied, TargetPhase::Verified],
            Standing::CleanedUp => &[TargetPhase::Applied, TargetPhase::Verified, TargetPhase::CleanedUp],
            Standing::Unmarked
            | Standing::Unproven
            | Standing::ProvenOtherwise
            | Standing::NotApplicable
            | Standing::PredecessorPending
            | Standing::OwnedByOther => &[],
        };
        is_same_plan.then_some(TargetPhase::Planned).into_iter().chain(by_mark.iter().copied()).collect()
    }

    /// Whether it was written: a holder that lost the lock writes nothing any more.
    pub(super) async fn write(
        &self,
        request: &MigrationRequest,
        holder: Option<&Worker>,
        mut next: RedisMigrationStatus,
        verdict: &Verdict,
    ) -> Result<bool, ReconcileError> {
        next.observed_generation = Some(request.generation);
        let seen = holder.map(|worker| self.seen_to_hold(&worker.report.borrow())).unwrap_or_default();
        let verdict = verdict.clone().seeing(seen);
        next.conditions = verdict.apply_to(&self.status.conditions, request.generation, now());
        if !request.samples {
            next.forget_samples();
        }
        if holder.is_some_and(|worker| !worker.holds_lock()) {
            return Ok(false);
        }
        self.context.metrics.in_phase(&self.labels(), next.phase);
        self.replace(next).await?;
        Ok(true)
    }

    pub(super) async fn replace(&self, next: RedisMigrationStatus) -> Result<(), ReconcileError> {
        if self.resource.status.as_ref() == Some(&next) {
            return Ok(());
        }
        let word = next.conditions.iter().find(|condition| condition.type_ == "Ready");
        let word = word.map(|ready| (ready.reason.clone(), ready.message.clone()));
        let object = reading::with_status(&self.object, &self.status, &next)
            .map_err(|error| ReconcileError::Write(kube::Error::SerdeError(error)))?;
        let name = self.resource.name_any();
        // The answer is taken as it is: nothing of it has to be understood.
        self.api.replace_status(&name, &PostParams::default(), &object).await.map_err(ReconcileError::Write)?;
        self.context.desk.at(&self.resource.uid().unwrap_or_default(), |place| {
            place.said = word;
            place.kept = None;
        });
        if self.context.desk.written(&self.resource.uid().unwrap_or_default()) {
            tracing::info!(resource = %self.resource.name_any(), "the API server takes status again");
        }
        Ok(())
    }
}
