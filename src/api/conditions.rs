//! What the conditions say, and how they change.
//!
//! Owns the closed lists of types and reasons, and the rules of kstatus: `Ready` is always there,
//! `Reconciling` and `Stalled` only while true. What a reason means for readiness follows from the
//! reason, so no verdict can contradict itself.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::v1alpha1::record::time;
use crate::model::phase::TargetPhase;
use crate::model::time::UnixMillis;

/// Types of conditions, in the order in which they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The target phase is reached.
    Ready,
    /// The operator is at it, or waits for something that may come by itself.
    Reconciling,
    /// It won't go on until somebody acts.
    Stalled,
    /// A plan was made.
    Planned,
    /// Everything was copied.
    Applied,
    /// Everything was proven and the migration is marked.
    Verified,
    /// Cleanup ended.
    CleanedUp,
}

impl ConditionType {
    /// Every type, in order.
    pub const ALL: [Self; 7] =
        [Self::Ready, Self::Reconciling, Self::Stalled, Self::Planned, Self::Applied, Self::Verified, Self::CleanedUp];

    /// The type's name in the resource.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Planned => "Planned",
            Self::Applied => "Applied",
            Self::Verified => "Verified",
            Self::CleanedUp => "CleanedUp",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The condition that records a target phase as reached.
impl From<TargetPhase> for ConditionType {
    fn from(milestone: TargetPhase) -> Self {
        match milestone {
            TargetPhase::Planned => Self::Planned,
            TargetPhase::Applied => Self::Applied,
            TargetPhase::Verified => Self::Verified,
            TargetPhase::CleanedUp => Self::CleanedUp,
        }
    }
}

/// Why a resource stands where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A step is under way.
    Progressing,
    /// Somebody else has the Redis lock.
    LockHeld,
    /// A Secret, or a key in it, is missing.
    SecretMissing,
    /// Redis can't be reached, or can't serve yet.
    RedisUnavailable,
    /// An earlier migration has no mark.
    PredecessorPending,
    /// Sources keep changing while they are compared.
    SourceChanging,
    /// Originals stay until the soak has passed.
    Soaking,
    /// Redis has no memory left for copies.
    OutOfMemory,
    /// Fewer replicas acknowledge than must.
    ReplicasMissing,
    /// Replicas take their writes so slowly that a primary would drop them.
    ReplicasBehind,
    /// The mark that stood in Redis is gone.
    MarkMissing,

    /// A field can't be followed.
    InvalidSpec,
    /// Another resource owns this migration.
    Duplicate,
    /// Targets exist and differ from their sources.
    Conflicts,
    /// A preflight check found an error.
    PreflightFailed,
    /// No migration has that name here.
    UnknownMigration,
    /// Redis refused the credentials, or a command; tried again slowly.
    AuthenticationFailed,
    /// The plan in status is of a version that this operator does not know.
    PlanVersionUnknown,

    /// A person has to approve a plan or a cleanup.
    AwaitingApproval,
    /// Another tool's mark stands over sources without a target.
    MarkUnproven,
    /// `spec.suspend` is set.
    Suspended,

    /// The target phase is reached.
    TargetReached,
    /// More has happened than the target phase asks for.
    TargetLowered,
    /// The migration has nothing to do with this keyspace.
    NotApplicable,
    /// It is done.
    Complete,
    /// Cleanup is done; some originals were kept.
    KeptOriginals,
    /// The marks in Redis said that it is done.
    Adopted,
}

/// What a reason means for readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The target phase is reached.
    Ready,
    /// Under way, or waiting for something that may come by itself.
    Reconciling,
    /// Won't go on until somebody acts.
    Stalled,
    /// Waits because a person wants it to: neither reconciling nor stalled.
    Waiting,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 27] = [
        Self::Progressing,
        Self::LockHeld,
        Self::SecretMissing,
        Self::RedisUnavailable,
        Self::PredecessorPending,
        Self::SourceChanging,
        Self::Soaking,
        Self::OutOfMemory,
        Self::ReplicasMissing,
        Self::ReplicasBehind,
        Self::MarkMissing,
        Self::InvalidSpec,
        Self::Duplicate,
        Self::Conflicts,
        Self::PreflightFailed,
        Self::UnknownMigration,
        Self::AuthenticationFailed,
        Self::PlanVersionUnknown,
        Self::AwaitingApproval,
        Self::MarkUnproven,
        Self::Suspended,
        Self::TargetReached,
        Self::TargetLowered,
        Self::NotApplicable,
        Self::Complete,
        Self::KeptOriginals,
        Self::Adopted,
    ];

    /// What the reason means for readiness.
    #[must_use]
    pub fn standing(self) -> Standing {
        match self {
            Self::Progressing
            | Self::LockHeld
            | Self::SecretMissing
            | Self::RedisUnavailable
            | Self::PredecessorPending
            | Self::SourceChanging
            | Self::Soaking
            | Self::OutOfMemory
            | Self::ReplicasMissing
            | Self::ReplicasBehind
            | Self::MarkMissing => Standing::Reconciling,
            Self::InvalidSpec
            | Self::Duplicate
            | Self::Conflicts
            | Self::PreflightFailed
            | Self::UnknownMigration
            | Self::AuthenticationFailed
            | Self::PlanVersionUnknown => Standing::Stalled,
            Self::AwaitingApproval | Self::MarkUnproven | Self::Suspended => Standing::Waiting,
            Self::TargetReached
            | Self::TargetLowered
            | Self::NotApplicable
            | Self::Complete
            | Self::KeptOriginals
            | Self::Adopted => Standing::Ready,
        }
    }
}

impl Reason {
    /// Whether somebody may want to look: what is under way, waits as asked or waits for its turn is no trouble.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        let is_ordinary = matches!(self, Self::Progressing | Self::Soaking | Self::LockHeld | Self::PredecessorPending);
        !is_ordinary && matches!(self.standing(), Standing::Reconciling | Standing::Stalled)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How a resource stands, to be written into its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// What happened and what to do next.
    pub message: String,
    /// What has happened beside; milestones not named here stay as they are.
    pub records: Vec<Record>,
    /// Milestones that were seen to hold still, whatever spec they were reached under.
    pub seen: Vec<TargetPhase>,
}

/// That a milestone was reached, or holds no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which.
    pub milestone: TargetPhase,
    /// Whether it holds.
    pub holds: bool,
    /// How it came about.
    pub reason: Reason,
    /// What happened.
    pub message: String,
}

impl Verdict {
    /// A verdict that records nothing beside.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), records: Vec::new(), seen: Vec::new() }
    }

    /// Says of milestones that were reached before that they were looked for, and hold.
    #[must_use]
    pub fn seeing(mut self, milestones: impl IntoIterator<Item = TargetPhase>) -> Self {
        self.seen.extend(milestones);
        self
    }

    /// Records that a milestone was reached.
    #[must_use]
    pub fn reached(mut self, milestone: TargetPhase, reason: Reason, message: impl Into<String>) -> Self {
        self.records.push(Record { milestone, holds: true, reason, message: message.into() });
        self
    }

    /// Records that a milestone holds no longer.
    #[must_use]
    pub fn lost(mut self, milestone: TargetPhase, reason: Reason, message: impl Into<String>) -> Self {
        self.records.push(Record { milestone, holds: false, reason, message: message.into() });
        self
    }

    /// The conditions after this verdict on `generation` of the spec. Conditions of types that are
    /// not ours stay behind ours; nothing new gives back what was there.
    #[must_use]
    pub fn apply_to(&self, conditions: &[Condition], generation: i64, now: UnixMillis) -> Vec<Condition> {
        let now = time(now);
        let held = |kind: ConditionType| conditions.iter().find(|condition| condition.type_ == kind.as_str());
        let ours = ConditionType::ALL.into_iter().filter_map(|kind| match self.says(kind) {
            Some(fresh) => fresh.condition(kind, held(kind), generation, &now),
            None => held(kind).cloned().map(|held| self.restamped(kind, held, generation)),
        });
        let foreign = conditions
            .iter()
            .filter(|condition| !ConditionType::ALL.iter().any(|kind| condition.type_ == kind.as_str()));
        ours.chain(foreign.cloned()).collect()
    }

    /// A milestone that was seen to hold holds for this generation: who waits for a condition believes no older one.
    fn restamped(&self, kind: ConditionType, mut held: Condition, generation: i64) -> Condition {
        if held.status == "True" && self.seen.iter().any(|milestone| ConditionType::from(*milestone) == kind) {
            held.observed_generation = Some(generation);
        }
        held
    }

    /// What this verdict says about one type; `None` leaves it as it is.
    fn says(&self, kind: ConditionType) -> Option<Saying<'_>> {
        let standing = self.reason.standing();
        let own = |status| Some(Saying { status, reason: self.reason, message: &self.message });
        match kind {
            ConditionType::Ready => own(Status::of(standing == Standing::Ready)),
            ConditionType::Reconciling => own(Status::only_while(standing == Standing::Reconciling)),
            ConditionType::Stalled => own(Status::only_while(standing == Standing::Stalled)),
            ConditionType::Planned | ConditionType::Applied | ConditionType::Verified | ConditionType::CleanedUp => {
                let record = self.records.iter().rfind(|record| ConditionType::from(record.milestone) == kind)?;
                Some(Saying { status: Status::of(record.holds), reason: record.reason, message: &record.message })
            }
        }
    }
}

/// What a verdict says about one type.
struct Saying<'a> {
    status: Status,
    reason: Reason,
    message: &'a str,
}

/// A condition's status, or that it is not to be listed.
#[derive(Clone, Copy)]
enum Status {
    True,
    False,
    Absent,
}

impl Status {
    fn of(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }

    fn only_while(holds: bool) -> Self {
        if holds { Self::True } else { Self::Absent }
    }
}

impl Saying<'_> {
    fn condition(
        &self,
        kind: ConditionType,
        before: Option<&Condition>,
        generation: i64,
        now: &Time,
    ) -> Option<Condition> {
        let status = match self.status {
            Status::True => "True",
            Status::False => "False",
            Status::Absent => return None,
        };
        let since = before.filter(|before| before.status == status).map(|before| &before.last_transition_time);
        Some(Condition {
            type_: kind.to_string(),
            status: status.to_owned(),
            reason: self.reason.to_string(),
            message: self.message.to_owned(),
            observed_generation: Some(generation),
            last_transition_time: since.unwrap_or(now).clone(),
        })
    }
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
