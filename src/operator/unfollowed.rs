//! A resource that this replica can't follow: what it says about it, and when.
//!
//! Owns the restraint of a replica that may be the wrong one to ask. Another version of the operator may understand
//! the resource and be working on it, so status is written over only where nobody does, and no field of it is lost.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::PostParams;
use kube::core::DynamicObject;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::conditions::{Reason, Verdict};
use crate::api::rejected::Rejected;
use crate::api::v1alpha1::REQUESTED_AT_ANNOTATION;
use crate::api::v1alpha1::status::LockStatus;
use crate::model::time::UnixMillis;
use crate::operator::Context;
use crate::operator::case::{last_word, ready_reason, until};
use crate::operator::clock::now;
use crate::operator::decide::LastWord;
use crate::operator::metrics::ResourceLabels;
use crate::operator::reconcile::{MARGIN, resource_type};
use crate::operator::retry::ReconcileError;
use crate::operator::worker::Report;

/// How soon to look whether our own work on it has ended.
const WORK_ENDS: Duration = Duration::from_secs(1);

/// A resource that this replica can't follow.
pub(super) struct Unfollowed<'a> {
    pub(super) context: &'a Arc<Context>,
    pub(super) api: Api<DynamicObject>,
    pub(super) object: DynamicObject,
    /// How long this process has seen it as it is.
    pub(super) unchanged_for: Duration,
}

/// The parts of a status that any version of the operator writes alike.
#[derive(Debug, Clone, Default)]
struct Said {
    observed_generation: Option<i64>,
    last_handled_request: Option<String>,
    conditions: Vec<Condition>,
    holder: Option<String>,
    not_before: Option<UnixMillis>,
}

impl Said {
    /// Each part by itself: one that can't be read takes no other with it.
    fn of(status: &Value) -> Self {
        let lock: Option<LockStatus> = part(status, "lock");
        let not_before: Option<Time> = status.get("cleanup").and_then(|cleanup| part(cleanup, "notBefore"));
        Self {
            observed_generation: part(status, "observedGeneration"),
            last_handled_request: part(status, "lastHandledRequest"),
            conditions: part(status, "conditions").unwrap_or_default(),
            holder: lock.map(|lock| lock.holder),
            not_before: not_before.map(|at| UnixMillis(at.0.as_millisecond())),
        }
    }

    fn reason(&self) -> Option<String> {
        ready_reason(&self.conditions)
    }
}

fn part<T: DeserializeOwned>(status: &Value, name: &str) -> Option<T> {
    status.get(name).and_then(|part| T::deserialize(part).ok())
}

/// What this replica can't follow, and what it knows about it.
#[derive(Debug, Clone, Copy)]
struct Refusal<'a> {
    me: &'a str,
    lease: Duration,
    generation: i64,
    requested_at: Option<&'a str>,
    reason: Reason,
    /// Another version of the operator may be able to follow it.
    may_be_followed_elsewhere: bool,
    /// This replica told of this spec before.
    was_told: bool,
    /// How long this process has seen the resource as it is.
    unchanged_for: Duration,
}

/// When to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Status needs nothing from us.
    Never,
    /// Unless somebody else goes on with it until then.
    After(Duration),
    Now,
}

impl Unfollowed<'_> {
    /// Stops our own work on it, and says why it can't be followed, if nobody else goes on with it.
    pub(super) async fn refuse(&self, rejected: &Rejected) -> Result<Action, ReconcileError> {
        let said = self.object.data.get("status").map(Said::of).unwrap_or_default();
        self.context.metrics.stands(&self.labels(), said.reason().as_deref());
        if self.is_working() {
            return Ok(Action::requeue(WORK_ENDS));
        }

        let settings = &self.context.settings;
        let refusal = Refusal {
            me: &settings.holder,
            lease: settings.lease,
            generation: self.generation(),
            requested_at: self.object.annotations().get(REQUESTED_AT_ANNOTATION).map(String::as_str),
            reason: rejected.reason(),
            may_be_followed_elsewhere: rejected.may_be_followed_elsewhere(),
            was_told: self.context.desk.at(&self.uid(), |place| place.refused) == Some(self.generation()),
            unchanged_for: self.unchanged_for,
        };
        match turn(&said, &refusal, now()) {
            Turn::Never => Ok(Action::await_change()),
            Turn::After(pause) => Ok(Action::requeue(pause + MARGIN)),
            Turn::Now => {
                self.write(&said, &Verdict::new(refusal.reason, rejected.to_string()), refusal.requested_at).await?;
                Ok(Action::await_change())
            }
        }
    }

    /// Whether a worker of ours is still at it; it is told to stop.
    fn is_working(&self) -> bool {
        let is_working = self.context.desk.at(&self.uid(), |place| {
            // One that never got the lock has nothing to give back.
            if place.is_over() || matches!(place.report(), Some(Report::Barred(_))) {
                place.worker = None;
            }
            if let Some(worker) = &place.worker {
                worker.stop();
            }
            place.worker.is_some()
        });
        if !is_working {
            self.context.metrics.lock_released(&self.labels());
        }
        is_working
    }

    async fn write(&self, said: &Said, verdict: &Verdict, requested_at: Option<&str>) -> Result<(), ReconcileError> {
        let generation = self.generation();
        let conditions = verdict.apply_to(&said.conditions, generation, now());
        let is_answered = said.observed_generation == Some(generation);
        if is_answered && said.conditions == conditions && said.last_handled_request.as_deref() == requested_at {
            return Ok(());
        }

        let mut object = self.object.clone();
        let status = &mut object.data["status"];
        if !status.is_object() {
            *status = json!({});
        }
        status["observedGeneration"] = json!(generation);
        status["conditions"] = json!(conditions);
        status["lastHandledRequest"] = json!(requested_at);
        // Nobody works on it.
        status["lock"] = Value::Null;
        let name = self.object.name_any();
        self.api.replace_status(&name, &PostParams::default(), &object).await.map_err(ReconcileError::Write)?;

        self.context.desk.written(&self.uid());
        self.context.desk.at(&self.uid(), |place| place.refused = Some(generation));
        if said.reason() != Some(verdict.reason.to_string()) {
            self.context.metrics.failed(verdict.reason);
            let reference: ObjectReference = self.object.object_ref(&resource_type());
            self.context.events.transition(&reference, verdict).await;
        }
        tracing::info!(resource = %name, reason = %verdict.reason, "can't be followed");
        Ok(())
    }

    fn generation(&self) -> i64 {
        self.object.metadata.generation.unwrap_or_default()
    }

    fn uid(&self) -> String {
        self.object.uid().unwrap_or_default()
    }

    fn labels(&self) -> ResourceLabels {
        ResourceLabels::new(&self.object.namespace().unwrap_or_default(), &self.object.name_any())
    }
}

/// When a replica that can't follow a spec may say so.
fn turn(said: &Said, refusal: &Refusal<'_>, now: UnixMillis) -> Turn {
    let is_request_answered =
        refusal.requested_at.is_none() || refusal.requested_at == said.last_handled_request.as_deref();
    let is_answered =
        said.observed_generation == Some(refusal.generation) && said.reason().is_some() && is_request_answered;
    if is_answered && refusal.was_told && said.reason() != Some(refusal.reason.to_string()) {
        // Somebody who understands it said something else since: replicas must not take turns.
        return Turn::Never;
    }

    let unchanged_for = match last_word(&said.conditions) {
        // Somebody understood it, and nobody has to go on.
        LastWord::Done | LastWord::Asking if is_answered => return Turn::Never,
        // Whoever understands it goes on when the soak is over.
        LastWord::Soaking if is_answered => {
            let over_for = said.not_before.map_or(refusal.unchanged_for, |at| {
                Duration::from_millis(u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0))
            });
            if said.not_before.is_some_and(|at| at > now) {
                return Turn::After(said.not_before.map_or(refusal.lease, until) + refusal.lease);
            }
            refusal.unchanged_for.min(over_for)
        }
        LastWord::Done | LastWord::Asking | LastWord::Soaking | LastWord::Open => refusal.unchanged_for,
    };

    let is_anothers = said.holder.as_deref().is_some_and(|holder| holder != refusal.me);
    let silence = if is_answered || is_anothers {
        refusal.lease
    } else if refusal.may_be_followed_elsewhere {
        // Who can follow it says so within a moment.
        refusal.lease / 3
    } else {
        Duration::ZERO
    };
    match silence.checked_sub(unchanged_for).filter(|left| !left.is_zero()) {
        Some(left) => Turn::After(left),
        None => Turn::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn said(generation: Option<i64>, reason: Option<Reason>, holder: Option<&str>) -> Said {
        let conditions = reason.map(|reason| Verdict::new(reason, "said").apply_to(&[], 1, NOW)).unwrap_or_default();
        Said { observed_generation: generation, conditions, holder: holder.map(str::to_owned), ..Said::default() }
    }

    fn refusal(unchanged: u64) -> Refusal<'static> {
        Refusal {
            me: "me",
            lease: Duration::from_secs(30),
            generation: 1,
            requested_at: None,
            reason: Reason::InvalidSpec,
            may_be_followed_elsewhere: false,
            was_told: false,
            unchanged_for: Duration::from_secs(unchanged),
        }
    }

    fn turn_after(said: &Said, unchanged: u64) -> Turn {
        turn(said, &refusal(unchanged), NOW)
    }

    fn after(seconds: u64) -> Turn {
        Turn::After(Duration::from_secs(seconds))
    }

    #[test]
    fn what_nobody_can_follow_is_told_at_once() {
        assert_eq!(turn_after(&said(None, None, None), 0), Turn::Now);
        assert_eq!(turn_after(&said(Some(0), Some(Reason::Complete), None), 0), Turn::Now);
        assert_eq!(turn_after(&said(Some(0), Some(Reason::Progressing), Some("me")), 0), Turn::Now);
    }

    #[test]
    fn who_may_be_able_to_follow_it_speaks_first() {
        let elsewhere = |unchanged| Refusal { may_be_followed_elsewhere: true, ..refusal(unchanged) };
        assert_eq!(turn(&said(None, None, None), &elsewhere(4), NOW), after(6));
        assert_eq!(turn(&said(Some(0), Some(Reason::Complete), None), &elsewhere(10), NOW), Turn::Now);
    }

    #[test]
    fn work_that_another_version_understands_is_not_talked_over() {
        let changed = said(Some(0), Some(Reason::Progressing), Some("other"));
        assert_eq!([10, 30].map(|unchanged| turn_after(&changed, unchanged)), [after(20), Turn::Now]);
        let working = said(Some(1), Some(Reason::Progressing), Some("other"));
        assert_eq!([29, 31].map(|unchanged| turn_after(&working, unchanged)), [after(1), Turn::Now]);
        assert_eq!(turn_after(&said(Some(1), Some(Reason::RedisUnavailable), None), 0), after(30));
    }

    #[test]
    fn replicas_do_not_take_turns() {
        let told = Refusal { was_told: true, ..refusal(300) };
        let others_word = said(Some(1), Some(Reason::RedisUnavailable), None);
        assert_eq!(turn(&others_word, &told, NOW), Turn::Never);
        assert_eq!(turn(&said(Some(1), Some(Reason::InvalidSpec), None), &told, NOW), Turn::Now);
    }

    #[test]
    fn what_is_ready_or_waits_for_a_person_stays_as_it_is() {
        for reason in [Reason::TargetReached, Reason::AwaitingApproval, Reason::Conflicts] {
            let settled = said(Some(1), Some(reason), None);
            assert_eq!(turn_after(&settled, 300), Turn::Never, "{reason}");
            let asked = Refusal { requested_at: Some("again"), ..refusal(300) };
            assert_eq!(turn(&settled, &asked, NOW), Turn::Now, "{reason}: somebody asks again");
        }
    }

    #[test]
    fn the_reason_of_a_newer_operator_means_what_its_conditions_say() {
        let mut ready = said(Some(1), Some(Reason::TargetReached), None);
        ready.conditions[0].reason = "RolledBack".to_owned();
        assert_eq!(turn_after(&ready, 300), Turn::Never);
    }

    #[test]
    fn a_soak_is_told_of_when_nobody_goes_on_after_it() {
        let soaking = |over_for: i64| Said {
            not_before: Some(UnixMillis(NOW.0 - over_for * 1000)),
            ..said(Some(1), Some(Reason::Soaking), None)
        };
        assert_eq!([1, 31].map(|over_for| turn_after(&soaking(over_for), 300)), [after(29), Turn::Now]);
    }

    #[test]
    fn one_part_that_is_unreadable_takes_no_other_with_it() {
        let said = Said::of(&json!({ "observedGeneration": 3, "conditions": "none", "lock": { "holder": "pod" } }));
        assert_eq!((said.observed_generation, said.holder.as_deref()), (Some(3), Some("pod")));
    }
}
