//! One resource as it is now, and what this process knows about its work.
//!
//! Owns the facts that a decision is made on. Reads status, the request and the worker's last report; writes
//! nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::DynamicObject;
use kube::{Api, Resource as _, ResourceExt as _};

use crate::api::conditions::{Reason, Standing as Readiness};
use crate::api::request::MigrationRequest;
use crate::api::v1alpha1::{RedisMigration, RedisMigrationStatus};
use crate::model::mark::Mark;
use crate::model::plan::PlanHash;
use crate::model::time::UnixMillis;
use crate::operator::Context;
use crate::operator::clock::now;
use crate::operator::decide::{Facts, LastWord, Sight};
use crate::operator::metrics::ResourceLabels;
use crate::operator::words;
use crate::operator::worker::{Hold, Report, Worker};

/// One resource as it is now.
pub(super) struct Case<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) api: Api<DynamicObject>,
    /// As it was read.
    pub(super) object: DynamicObject,
    pub(super) resource: RedisMigration,
    pub(super) status: RedisMigrationStatus,
    /// How long this process has seen the resource as it is.
    pub(super) unchanged_for: Duration,
}

/// What this process knows about the resource's work.
pub(super) struct Observed {
    pub(super) worker: Option<Arc<Worker>>,
    pub(super) report: Option<Report>,
    pub(super) rest_until: Option<Instant>,
    pub(super) sight: Sight,
    pub(super) facts: Facts,
}

impl Case<'_> {
    /// What is seen, and the facts beside it.
    pub(super) fn observe(&self, request: &MigrationRequest) -> Observed {
        let asked = (request.generation, request.requested_at.clone());
        let (worker, report, rest_until, tried) = self.context.desk.at(&request.uid, |place| {
            if place.is_over() {
                self.context.metrics.lock_released(&self.labels());
                place.worker = None;
                place.rest_until.get_or_insert_with(Instant::now);
            }
            (place.worker.clone(), place.report(), place.rest_until, place.tried.clone())
        });
        let rest_until = rest_until.max(stalled_until(&self.status));
        let is_news = !self.is_answered(request);
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

    pub(super) fn facts(
        &self,
        request: &MigrationRequest,
        worker: Option<&Worker>,
        hold: Option<&Hold>,
        is_news: bool,
    ) -> Facts {
        let plan = hold.and_then(|hold| hold.plan.as_ref());
        let consumed = self.status.approval.as_ref();
        let plan_is_consumed =
            |hash: &PlanHash| consumed.and_then(|approval| approval.plan_hash.as_deref()) == Some(hash.as_str());
        let cleanup_hash = request.terms().cleanup_hash();
        let cleanup_is_consumed =
            consumed.and_then(|approval| approval.cleanup_hash.as_deref()) == Some(cleanup_hash.as_str());
        Facts {
            last_word: last_word(&self.status.conditions),
            is_news,
            suspended: request.suspended,
            is_outdated: worker.is_some_and(|worker| chooses_otherwise(&worker.order.request, request)),
            planned_in_hold: plan.is_some(),
            plan_approved: plan
                .is_some_and(|plan| request.approval.allows_plan(&plan.hash) || plan_is_consumed(&plan.hash)),
            plan_approved_by_hash: plan
                .is_some_and(|plan| request.approval.names_plan(&plan.hash) || plan_is_consumed(&plan.hash)),
            plan_has_missing: plan.is_some_and(|plan| plan.seen.to_copy() > 0),
            cleanup_approved: request.approval.allows_cleanup(&cleanup_hash) || cleanup_is_consumed,
            soaked: self.not_before(request, hold).is_some_and(|at| at <= now()),
            verify_again: worker.is_some_and(|worker| worker.order.asked_again)
                && hold.is_some_and(|hold| !hold.compared),
        }
    }

    pub(super) fn sources_known(&self) -> Option<u64> {
        self.status.plan.as_ref().and_then(|plan| u64::try_from(plan.totals.sources).ok())
    }

    /// Whether status answers the spec, and the request to do it again, as they are now.
    pub(super) fn is_answered(&self, request: &MigrationRequest) -> bool {
        self.status.observed_generation == Some(request.generation) && !self.is_asked_again(request)
    }

    pub(super) fn is_asked_again(&self, request: &MigrationRequest) -> bool {
        request.requested_at.is_some() && request.requested_at != self.status.last_handled_request
    }

    /// When originals may go: by Redis' mark where it is known, else by status.
    pub(super) fn not_before(&self, request: &MigrationRequest, hold: Option<&Hold>) -> Option<UnixMillis> {
        let after = i64::try_from(request.cleanup_after.as_millis()).unwrap_or(i64::MAX);
        let by_mark = hold.and_then(|hold| match &hold.survey.mark {
            Mark::Stamped(stamp) => stamp.proven_at(),
            Mark::Absent | Mark::Unstamped | Mark::NotApplicable => None,
        });
        let remembered = self.status.cleanup.as_ref().and_then(|cleanup| cleanup.not_before.as_ref());
        if let (None, Some(not_before)) = (hold, remembered) {
            return Some(UnixMillis(not_before.0.as_millisecond()));
        }
        let by_status = || {
            let completed = self.status.verification.as_ref().and_then(|it| it.completed_at.as_ref())?;
            Some(UnixMillis(completed.0.as_millisecond()))
        };
        by_mark.or_else(by_status).map(|at| UnixMillis(at.0.saturating_add(after)))
    }

    /// The resource as events name it.
    pub(super) fn reference(&self) -> ObjectReference {
        self.resource.object_ref(&())
    }

    pub(super) fn labels(&self) -> ResourceLabels {
        ResourceLabels::new(&self.resource.namespace().unwrap_or_default(), &self.resource.name_any())
    }
}

pub(super) fn hold_of(report: Option<&Report>) -> Option<&Hold> {
    match report? {
        Report::Held(hold)
        | Report::Working(_, hold, _)
        | Report::Finished(_, hold, _)
        | Report::Stopped(_, hold, _) => Some(hold),
        Report::Opening | Report::Barred(_) | Report::Ended => None,
    }
}

/// The reasons themselves say whether somebody has to go on.
pub(super) fn last_word(conditions: &[Condition]) -> LastWord {
    let said = ready_reason(conditions);
    match Reason::ALL.into_iter().find(|reason| said.as_deref() == Some(reason.to_string().as_str())) {
        // A newer operator's reason: what it means shows all the same.
        None if has(conditions, "Ready", "True") => LastWord::Done,
        None if said.is_some() && !has(conditions, "Reconciling", "True") && !has(conditions, "Stalled", "True") => {
            LastWord::Asking
        }
        None => LastWord::Open,
        Some(Reason::Soaking) => LastWord::Soaking,
        Some(reason) if words::needs_somebody(reason) => LastWord::Asking,
        Some(reason) => match reason.standing() {
            Readiness::Ready => LastWord::Done,
            Readiness::Waiting => LastWord::Asking,
            Readiness::Reconciling | Readiness::Stalled => LastWord::Open,
        },
    }
}

fn has(conditions: &[Condition], kind: &str, status: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == status)
}

/// Until when nobody tries again what any replica found to need a person, so that replicas do not
/// take turns at it. A spec that was not understood is another matter: this operator may be newer.
pub(super) fn stalled_until(status: &RedisMigrationStatus) -> Option<Instant> {
    let stalled = status.conditions.iter().find(|condition| condition.type_ == "Stalled")?;
    let reason = Reason::ALL.into_iter().find(|reason| stalled.reason == reason.to_string())?;
    if matches!(reason, Reason::InvalidSpec | Reason::UnknownMigration | Reason::PlanVersionUnknown) {
        return None;
    }
    let pause = i64::try_from(words::retry_after(reason).as_millis()).unwrap_or(i64::MAX);
    let due = UnixMillis(stalled.last_transition_time.0.as_millisecond().saturating_add(pause));
    Some(Instant::now() + until(due))
}

pub(super) fn until(at: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(at.0.saturating_sub(now().0)).unwrap_or(0))
}

pub(super) fn ready_reason(conditions: &[Condition]) -> Option<String> {
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.reason.clone())
}

/// Whether work under way goes by choices that the spec does not make any more. Limits are told to it as it goes.
pub(super) fn chooses_otherwise(told: &MigrationRequest, asked: &MigrationRequest) -> bool {
    told.terms() != asked.terms() || told.min_replicas != asked.min_replicas || told.redis != asked.redis
}
