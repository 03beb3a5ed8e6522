//! Writing status: after a fresh read, with its resource version, and only what changes something.
//!
//! Owns who may write: the lock's holder, as long as it surely holds it; and where nobody can have the lock,
//! any replica, but only what every replica would write.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::PostParams;
use kube::runtime::controller::Action;

use crate::api::conditions::Verdict;
use crate::api::request::MigrationRequest;
use crate::api::v1alpha1::status::LockStatus;
use crate::api::v1alpha1::{RedisMigrationStatus, record};
use crate::engine::Stop;
use crate::model::time::UnixMillis;
use crate::operator::case::{Case, ready_reason};
use crate::operator::clock::now;
use crate::operator::reconcile::{AFTER_LOSS, MARGIN};
use crate::operator::retry::ReconcileError;
use crate::operator::secrets::SecretProblem;
use crate::operator::words;
use crate::operator::worker::{Barrier, Worker};

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
            tracing::info!(resource = %request.name, reason = %verdict.reason, "this replica can't have the lock");
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

    /// For how long this replica, which has no lock, leaves status to the one that it names: until nothing has changed
    /// for a lease. Our own clock measures it, since clocks differ.
    fn silent_for(&self) -> Option<Duration> {
        let settings = &self.context.settings;
        let lock = self.status.lock.as_ref().filter(|lock| lock.holder != settings.holder)?;
        // The lock of somebody who works on another resource, or on none.
        let is_waited_for = ready_reason(&self.status.conditions).as_deref() == Some("LockHeld");
        if is_waited_for {
            return None;
        }
        let left = settings.lease.checked_sub(self.unchanged_for).filter(|left| !left.is_zero())?;
        tracing::debug!(resource = %self.resource.name_any(), holder = %lock.holder, "left to the holder");
        Some(left)
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

    /// Whether it was written: a holder that lost the lock writes nothing any more.
    pub(super) async fn write(
        &self,
        request: &MigrationRequest,
        holder: Option<&Worker>,
        mut next: RedisMigrationStatus,
        verdict: &Verdict,
    ) -> Result<bool, ReconcileError> {
        next.observed_generation = Some(request.generation);
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
        let mut object = self.object.clone();
        object.data["status"] = serde_json::to_value(&next).map_err(kube::Error::SerdeError)?;
        // The answer is taken as it is: nothing of it has to be understood.
        self.api.replace_status(&self.resource.name_any(), &PostParams::default(), &object).await?;
        if self.context.desk.written(&self.resource.uid().unwrap_or_default()) {
            tracing::info!(resource = %self.resource.name_any(), "the API server takes status again");
        }
        Ok(())
    }
}
