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
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::conditions::Verdict;
use crate::api::rejected::Rejected;
use crate::model::time::UnixMillis;
use crate::operator::Context;
use crate::operator::case::{last_word, ready_reason, until};
use crate::operator::clock::now;
use crate::operator::decide::LastWord;
use crate::operator::metrics::ResourceLabels;
use crate::operator::reconcile::{MARGIN, resource_type};
use crate::operator::retry::ReconcileError;

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
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Said {
    observed_generation: Option<i64>,
    conditions: Vec<Condition>,
    lock: Option<SaidLock>,
    cleanup: SaidCleanup,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct SaidLock {
    holder: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SaidCleanup {
    not_before: Option<Time>,
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
        let said = self.said();
        self.context.metrics.stands(&self.labels(), ready_reason(&said.conditions).as_deref());
        if self.is_working() {
            return Ok(Action::requeue(WORK_ENDS));
        }

        let verdict = Verdict::new(rejected.reason(), rejected.to_string());
        let lease = self.context.settings.lease;
        match turn(&said, &self.context.settings.holder, self.generation(), self.unchanged_for, lease, now()) {
            Turn::Never => Ok(Action::await_change()),
            Turn::After(pause) => Ok(Action::requeue(pause + MARGIN)),
            Turn::Now => {
                self.write(&said, &verdict).await?;
                Ok(Action::await_change())
            }
        }
    }

    /// Whether a worker of ours is still at it; it is told to stop.
    fn is_working(&self) -> bool {
        self.context.desk.at(&self.uid(), |place| {
            if place.is_over() {
                place.worker = None;
            }
            match &place.worker {
                Some(worker) => {
                    worker.stop();
                    true
                }
                None => false,
            }
        })
    }

    async fn write(&self, said: &Said, verdict: &Verdict) -> Result<(), ReconcileError> {
        let generation = self.generation();
        let conditions = verdict.apply_to(&said.conditions, generation, now());
        if said.observed_generation == Some(generation) && said.conditions == conditions {
            return Ok(());
        }

        let mut object = self.object.clone();
        let status = &mut object.data["status"];
        if !status.is_object() {
            *status = json!({});
        }
        status["observedGeneration"] = json!(generation);
        status["conditions"] = json!(conditions);
        // Nobody works on it.
        status["lock"] = Value::Null;
        self.api.replace_status(&self.object.name_any(), &PostParams::default(), &object).await?;

        if ready_reason(&said.conditions) != Some(verdict.reason.to_string()) {
            self.context.metrics.failed(verdict.reason);
            let reference: ObjectReference = self.object.object_ref(&resource_type());
            self.context.events.transition(&reference, verdict).await;
        }
        tracing::info!(resource = %self.object.name_any(), reason = %verdict.reason, "can't be followed");
        Ok(())
    }

    /// What status says; a part that can't be read counts as not there.
    fn said(&self) -> Said {
        self.object.data.get("status").and_then(|status| Said::deserialize(status).ok()).unwrap_or_default()
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

/// When a replica that can't follow this generation of the spec may say so.
fn turn(said: &Said, me: &str, generation: i64, unchanged_for: Duration, lease: Duration, now: UnixMillis) -> Turn {
    let is_answered = said.observed_generation == Some(generation) && ready_reason(&said.conditions).is_some();
    let not_before = said.cleanup.not_before.as_ref().map(|at| UnixMillis(at.0.as_millisecond()));
    match last_word(&said.conditions) {
        // Somebody understood it, and nobody has to go on.
        LastWord::Done | LastWord::Asking if is_answered => return Turn::Never,
        LastWord::Soaking if is_answered && not_before.is_some_and(|at| at > now) => {
            return Turn::After(not_before.map_or(lease, until));
        }
        LastWord::Done | LastWord::Asking | LastWord::Soaking | LastWord::Open => {}
    }

    let is_anothers = said.lock.as_ref().is_some_and(|lock| lock.holder != me);
    match lease.checked_sub(unchanged_for).filter(|left| !left.is_zero()) {
        Some(left) if is_answered || is_anothers => Turn::After(left),
        Some(_) | None => Turn::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::Reason;

    const LEASE: Duration = Duration::from_secs(30);
    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn said(generation: Option<i64>, reason: Option<Reason>, holder: Option<&str>) -> Said {
        let conditions = reason.map(|reason| Verdict::new(reason, "said").apply_to(&[], 1, NOW)).unwrap_or_default();
        let lock = holder.map(|holder| SaidLock { holder: holder.to_owned() });
        Said { observed_generation: generation, conditions, lock, cleanup: SaidCleanup::default() }
    }

    fn turn_after(said: &Said, unchanged: u64) -> Turn {
        turn(said, "me", 1, Duration::from_secs(unchanged), LEASE, NOW)
    }

    #[test]
    fn a_fresh_resource_is_told_at_once() {
        assert_eq!(turn_after(&said(None, None, None), 0), Turn::Now);
    }

    #[test]
    fn a_changed_spec_is_told_at_once_unless_another_works() {
        assert_eq!(turn_after(&said(Some(0), Some(Reason::Complete), None), 0), Turn::Now);
        assert_eq!(turn_after(&said(Some(0), Some(Reason::Progressing), Some("me")), 0), Turn::Now);
        let anothers = said(Some(0), Some(Reason::Progressing), Some("other"));
        assert_eq!(turn_after(&anothers, 10), Turn::After(Duration::from_secs(20)));
        assert_eq!(turn_after(&anothers, 30), Turn::Now);
    }

    #[test]
    fn work_that_another_version_understands_is_not_talked_over() {
        let working = said(Some(1), Some(Reason::Progressing), Some("other"));
        assert_eq!(turn_after(&working, 29), Turn::After(Duration::from_secs(1)));
        let between = said(Some(1), Some(Reason::RedisUnavailable), None);
        assert_eq!(turn_after(&between, 0), Turn::After(LEASE));
    }

    #[test]
    fn work_that_nobody_goes_on_with_is_told_after_a_lease() {
        assert_eq!(turn_after(&said(Some(1), Some(Reason::Progressing), Some("other")), 31), Turn::Now);
    }

    #[test]
    fn what_is_ready_or_waits_for_a_person_stays_as_it_is() {
        for reason in [Reason::TargetReached, Reason::AwaitingApproval, Reason::Conflicts] {
            assert_eq!(turn_after(&said(Some(1), Some(reason), None), 300), Turn::Never, "{reason}");
        }
    }

    #[test]
    fn a_soak_is_told_of_when_it_is_over() {
        let mut soaking = said(Some(1), Some(Reason::Soaking), None);
        soaking.cleanup.not_before = Some(crate::api::v1alpha1::record::time(UnixMillis(NOW.0 - 1000)));
        assert_eq!(turn_after(&soaking, 31), Turn::Now);
    }
}
