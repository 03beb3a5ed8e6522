//! One look at one resource: fetch, understand, observe, decide, carry out.
//!
//! Owns the order of these, and when to look again. Never blocks on Redis: data work is done by a worker, whose
//! reports are read here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::api::conditions::Verdict;
use crate::api::request::MigrationRequest;
use crate::api::v1alpha1::RedisMigration;
use crate::model::plan::PLAN_VERSION;
use crate::model::time::UnixMillis;
use crate::operator::Context;
use crate::operator::case::{Case, Observed, ready_reason, until};
use crate::operator::decide::{Decision, LastWord, decide};
use crate::operator::worker::{Order, Report, Worker};

/// So much later than due, that it surely is due then.
pub(super) const MARGIN: Duration = Duration::from_millis(100);

/// When to try again after the lock was lost.
pub(super) const AFTER_LOSS: Duration = Duration::from_secs(1);

/// How long the API server may take for one reconcile.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a reconcile ended early; it is tried again soon.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server did not answer, or refused.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// The API server took too long.
    #[error("the API server did not answer in time")]
    Timeout,
}

impl ReconcileError {
    /// Somebody else wrote in between: read and decide again at once.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 409)
    }
}

/// Reconciles one resource.
///
/// # Errors
/// When the API server does not answer.
pub async fn reconcile(object: Arc<RedisMigration>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let result = tokio::time::timeout(PATIENCE, Box::pin(look(&object, &context))).await;
    context.metrics.reconciled(began.elapsed());
    result.unwrap_or(Err(ReconcileError::Timeout))
}

/// After an error: soon again.
#[must_use]
pub fn on_error(_object: Arc<RedisMigration>, error: &ReconcileError, _context: Arc<Context>) -> Action {
    if error.is_conflict() {
        return Action::requeue(Duration::from_millis(100));
    }
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
    context.metrics.stands(&case.labels(), ready_reason(&case.status).as_deref());
    match MigrationRequest::from_resource(&case.resource, &context.settings.registry, &context.settings.allowed_hosts) {
        Err(rejected) => case.reject(&Verdict::new(rejected.reason(), rejected.to_string())).await,
        Ok(request) => case.proceed(&request).await,
    }
}

fn plan_version() -> i32 {
    i32::try_from(PLAN_VERSION).unwrap_or(i32::MAX)
}

impl Case<'_> {
    async fn proceed(&self, request: &MigrationRequest) -> Result<Action, ReconcileError> {
        let observed = self.observe(request);
        if let Some(worker) = &observed.worker {
            worker.limit(request.limits);
        }
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
            Order {
                request: request.clone(),
                asked_again: self.is_asked_again(request),
                sources_known: self.sources_known(),
            },
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
}
