//! One look at one resource: fetch, understand, observe, decide, carry out.
//!
//! Owns the order of these, and when to look again. Never blocks on Redis: data work is done by a worker, whose
//! reports are read here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::core::{ApiResource, DynamicObject};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::api::reading::{self, Reading};
use crate::api::request::MigrationRequest;
use crate::api::v1alpha1::RedisMigration;
use crate::model::time::UnixMillis;
use crate::operator::Context;
use crate::operator::case::{Case, Observed, ready_reason, until};
use crate::operator::decide::{Decision, LastWord, decide};
use crate::operator::retry::{self, ErrorKind, ReconcileError};
use crate::operator::unfollowed::Unfollowed;
use crate::operator::watches::{self, Watched};
use crate::operator::worker::{Order, Report, Worker};

/// So much later than due, that it surely is due then.
pub(super) const MARGIN: Duration = Duration::from_millis(100);

/// When to try again after the lock was lost.
pub(super) const AFTER_LOSS: Duration = Duration::from_secs(1);

/// When to read again what somebody else wrote meanwhile.
const AFTER_CONFLICT: Duration = Duration::from_millis(100);

/// After so many writes in a row that failed, the lock is given back: the API server may be broken for long.
const WRITES_TRIED: u32 = 4;

/// The longest pause while the API server is away or busy.
const OUTAGE: Duration = Duration::from_secs(20);

/// The longest pause while a worker waits for its next command: it gives up after a while.
const WORKER_WAITS: Duration = Duration::from_secs(8);

/// How long the API server may take for one reconcile.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reconciles one resource.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn reconcile(object: Arc<Watched>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let began = Instant::now();
    let looked = tokio::time::timeout(PATIENCE, Box::pin(look(&object, &context))).await;
    context.metrics.reconciled(began.elapsed());

    let result = looked.unwrap_or(Err(ReconcileError::Timeout));
    if result.is_ok() && context.desk.answered(&object.uid().unwrap_or_default()) {
        tracing::info!(resource = %object.name_any(), "the API server answers again");
    }
    result
}

/// After an error: again, later each time. An error that waiting can't mend gives the lock back meanwhile.
#[allow(clippy::needless_pass_by_value, reason = "the controller hands both over")]
#[must_use]
pub fn on_error(object: Arc<Watched>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let kind = error.kind();
    context.metrics.reconcile_failed(kind);
    if kind == ErrorKind::Conflict {
        // Somebody else wrote in between: read and decide again at once.
        return Action::requeue(AFTER_CONFLICT);
    }

    let uid = object.uid().unwrap_or_default();
    let (is_news, attempt) = context.desk.failed(&uid, kind, error.is_of_writing());
    let mut pause = retry::pause(attempt, rand::random_range(0.0..1.0));
    if is_news {
        tracing::warn!(resource = %object.name_any(), %error, "reconcile failed; trying again, later each time");
    }
    if !kind.needs_somebody() {
        // An API server that was away is back without anybody saying so.
        pause = pause.min(OUTAGE);
    }
    if kind.needs_somebody() || error.is_of_writing() && attempt >= WRITES_TRIED && !context.desk.is_at_work(&uid) {
        context.desk.give_up(&uid, pause);
        context.metrics.lock_released(&watches::labels(&object));
    } else if context.desk.has_worker(&uid) {
        // It waits for us, and not for ever.
        pause = pause.min(WORKER_WAITS);
    }
    Action::requeue(pause + MARGIN)
}

async fn look(watched: &Watched, context: &Arc<Context>) -> Result<Action, ReconcileError> {
    let namespace = watched.namespace().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &resource_type());
    let found = api.get_opt(&watched.name_any()).await.map_err(ReconcileError::Read)?;
    let Some(object) = found.filter(|found| found.metadata.uid == watched.metadata.uid) else {
        // Gone, or another under its name: the watch may be late to say so, or away.
        context.desk.dismiss(&watched.uid().unwrap_or_default());
        return Ok(Action::await_change());
    };
    let version = object.resource_version().unwrap_or_default();
    let unchanged_for = context.desk.unchanged_for(&object.uid().unwrap_or_default(), &version);
    let rejected = match reading::read(&object) {
        Reading::Whole(resource) => {
            let settings = &context.settings;
            match MigrationRequest::from_resource(&resource, &settings.registry, &settings.allowed_hosts) {
                Ok(request) => {
                    let status = resource.status.clone().unwrap_or_default();
                    let case = Case { context, api, object, resource: *resource, status, unchanged_for };
                    return case.proceed(&request).await;
                }
                Err(rejected) => rejected,
            }
        }
        Reading::Unknown(rejected) => rejected,
    };
    Unfollowed { context, api, object, unchanged_for }.refuse(&rejected).await
}

/// What the API server calls the resource.
pub(super) fn resource_type() -> ApiResource {
    ApiResource::erase::<RedisMigration>(&())
}

impl Case<'_> {
    async fn proceed(&self, request: &MigrationRequest) -> Result<Action, ReconcileError> {
        self.context.metrics.stands(&self.labels(), ready_reason(&self.status.conditions).as_deref());
        let observed = self.observe(request);
        if let Some(worker) = &observed.worker {
            worker.limit(request.limits);
        }
        let decision = decide(self.status.phase, request.target, observed.sight, &observed.facts);
        self.context.metrics.in_phase(&self.labels(), self.status.phase);
        match (decision, observed.worker.as_ref(), observed.report.as_ref()) {
            (Decision::Rest, _, _) => Ok(self.rest(request, &observed)),
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

    fn rest(&self, request: &MigrationRequest, observed: &Observed) -> Action {
        let due = match observed.facts.last_word {
            // What was tried for this spec and came to nothing is due again, whatever was said of an earlier one.
            _ if !self.is_answered(request) => {
                observed.rest_until.map(|until| until.saturating_duration_since(Instant::now()))
            }
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
        let reference = ObjectRef::new(&request.name).within(&request.namespace);
        let wake = self.context.wake.clone();
        let order = Order {
            request: request.clone(),
            asked_again: self.is_asked_again(request),
            sources_known: self.sources_known(),
        };
        self.context.desk.begin(&request.uid, (request.generation, request.requested_at.clone()), || {
            Worker::start(
                self.context.client.clone(),
                Arc::clone(&self.context.settings),
                order,
                &self.context.shutdown,
                &self.context.tasks,
                move || {
                    // Nobody listens once the operator shuts down.
                    let _ = wake.unbounded_send(reference.clone());
                },
            )
        });
        Action::await_change()
    }
}
