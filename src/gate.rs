//! Whether the schema is current: what `init` and the init container decide.
//!
//! Owns that decision, the initialisation of a fresh keyspace, and the proof of other tools' marks: of many gates that
//! wait, one reads the keyspace for it, and the others watch the marks. Knows of Outpost only what makes its keyspace
//! fresh. Prints nothing, and leaves it to the caller to wait.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::engine::claim::{Claim, Claimed};
use crate::engine::init::{self, Initialised};
use crate::engine::lock::{self, Holder, Lease, LockRequest, Taken};
use crate::engine::survey::{self, Standing};
use crate::engine::{Assignment, Control, Stop, emptiness, verify};
use crate::keyspace::{Fault, FaultClass, Keyspace, Writer};
use crate::migrations::{Registry, Scope};
use crate::model::mark::Mark;
use crate::model::plan::{PlanHash, Seen};
use crate::model::report::VerifyReport;
use crate::model::time::UnixMillis;

/// How long the gate's lock stands unrenewed: a killed init container does not block the others for longer.
pub const LEASE: Duration = Duration::from_secs(30);

/// Times that everything is looked at anew because it changed while it was acted on.
const ATTEMPTS: usize = 5;

/// What the gate is told.
pub struct Gate {
    /// Every migration known, in order, each with the choices made for it.
    pub assignments: Vec<Assignment>,
    /// The migrations known.
    pub registry: Registry,
    /// What they are told about the keyspace.
    pub scope: Scope,
    /// Names of the migrations that have to be applied; `None`: all.
    pub required: Option<Vec<String>>,
    /// Believe other tools' marks without a proof.
    pub trust_marks: bool,
    /// Who asks: pod name, or host and process id.
    pub holder: String,
    /// Ends the looking.
    pub stop: CancellationToken,
    /// The wall clock.
    pub now: fn() -> UnixMillis,
    /// The claim on comparing everything, from the first time on until [`Gate::end`].
    pub claim: Mutex<Option<Claim>>,
}

/// What the gate found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything required is applied; `initialised` tells whether this call marked a fresh keyspace.
    Current {
        /// Whether this call initialised the keyspace.
        initialised: bool,
        /// What is not as its source is, behind marks of another tool that this call proved.
        left: Vec<Left>,
    },
    /// Something required is not applied.
    Pending(Vec<Pending>),
    /// Somebody else holds the lock that it takes to go on.
    Locked(Box<Holder>),
}

/// Targets that differ from their sources behind a mark that is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The migration.
    pub migration: &'static str,
    /// How many differ.
    pub different: u64,
    /// Of these, how many only lost the expiry of their source.
    pub lost_expiry: u64,
}

/// A migration that is required and not known to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its name.
    pub migration: &'static str,
    /// Why it is not.
    pub why: Why,
}

/// Why a migration is not known to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It has no mark.
    NotApplied,
    /// Its mark was made for other parameters.
    OtherParameters,
    /// Another tool marked it, and these many entries show that it was not applied; `None`: not counted, since
    /// a migration before it is pending.
    Unproven {
        /// Sources without a target, or entries still to be changed.
        entries: Option<u64>,
    },
    /// Another tool marked it, and another gate is at proving that.
    ProvenElsewhere,
}

/// What the marks mean, to tell whether anything changed: what a cleanup counts in them on its way is no change.
#[derive(Debug, PartialEq, Eq)]
pub struct Marks(Vec<(Readiness, Option<UnixMillis>, Option<String>)>);

/// What a mark says to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Applied,
    Unmarked,
    /// An initialisation began to mark it and did not end.
    Claimed,
    NotApplicableButUnmarked,
    OtherParameters,
    Unproven,
}

fn readiness(standing: &Standing, parameters: &str, trust_marks: bool) -> Readiness {
    match (&standing.mark, standing.not_applicable) {
        (Mark::NotApplicable, _) | (Mark::Stamped(_) | Mark::Unstamped, Some(_)) => Readiness::Applied,
        (Mark::Stamped(stamp), None) if stamp.is_for(parameters) => Readiness::Applied,
        (Mark::Stamped(_), None) => Readiness::OtherParameters,
        (Mark::Unstamped, None) if trust_marks => Readiness::Applied,
        (Mark::Unstamped, None) => Readiness::Unproven,
        (Mark::Absent, Some(_)) => Readiness::NotApplicableButUnmarked,
        (Mark::Absent, None) if standing.claim.is_some() => Readiness::Claimed,
        (Mark::Absent, None) => Readiness::Unmarked,
    }
}

/// A migration, what Redis says of it, and what that means.
type Open<'a> = (&'a Assignment, Standing, Readiness);

/// What marks over a used keyspace come to.
#[derive(Default)]
struct JudgedMarks {
    /// Required migrations that are not applied.
    pending: Vec<Pending>,
    /// Whether there is a mark to be written, stamped or withdrawn.
    is_to_write: bool,
    /// What differs behind marks that prove true.
    left: Vec<Left>,
}

impl JudgedMarks {
    fn verdict(self) -> Verdict {
        if self.pending.is_empty() {
            Verdict::Current { initialised: false, left: self.left }
        } else {
            Verdict::Pending(self.pending)
        }
    }
}

/// Whether a mark of this kind may have to be written, stamped or withdrawn.
fn may_write(readiness: Readiness) -> bool {
    matches!(readiness, Readiness::Unproven | Readiness::Claimed | Readiness::NotApplicableButUnmarked)
}

impl Gate {
    /// Whether everything required is applied. Initialises a fresh keyspace, and stamps other tools' marks that
    /// prove true, under the lock.
    ///
    /// # Errors
    /// Whatever kept Redis from answering; nothing is called current then.
    pub async fn look(&self, keyspace: &Keyspace) -> Result<Verdict, Stop> {
        let mut initialised = false;
        for _ in 0..ATTEMPTS {
            let open = self.open(keyspace).await?;
            if open.is_empty() {
                return Ok(Verdict::Current { initialised, left: Vec::new() });
            }
            if !self.may_be_fresh(keyspace, &open).await? {
                return self.judge_existing(keyspace, open).await;
            }
            let lease = match self.take_lock(keyspace).await? {
                Taken::Ours(lease) => lease,
                Taken::Held(holder) => return Ok(Verdict::Locked(Box::new(holder))),
            };
            let done = self.initialise(&lease).await;
            lease.release().await;
            initialised |= done? == Initialised::Done;
        }
        Err(Stop::SourceChanging { changed: 1 })
    }

    /// Gives back what it holds; to be called once it is not to look again.
    pub async fn end(&self) {
        if let Some(claim) = self.claim.lock().await.take() {
            claim.give_back().await;
        }
    }

    /// What the marks mean now. Costs the same however much the keyspace holds, which a look behind another
    /// tool's mark does not.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn marks(&self, keyspace: &Keyspace) -> Result<Marks, Stop> {
        let judged = self.judged(keyspace).await?;
        let said = |(_, standing, readiness): Open<'_>| (readiness, standing.applied_at, standing.claim);
        Ok(Marks(judged.into_iter().map(said).collect()))
    }

    /// The required migrations that are not known to be applied.
    async fn open(&self, keyspace: &Keyspace) -> Result<Vec<Open<'_>>, Stop> {
        let mut judged = self.judged(keyspace).await?;
        judged.retain(|(_, standing, readiness)| *readiness != Readiness::Applied && self.is_required(standing));
        Ok(judged)
    }

    fn is_required(&self, standing: &Standing) -> bool {
        self.required.as_ref().is_none_or(|names| names.iter().any(|it| it == standing.migration.name()))
    }

    async fn judged(&self, keyspace: &Keyspace) -> Result<Vec<Open<'_>>, Stop> {
        let standings = survey::standings(keyspace, &self.registry, &self.scope).await?;
        Ok(self
            .assignments
            .iter()
            .zip(standings)
            .map(|(assignment, standing)| {
                let readiness = readiness(&standing, &assignment.terms.parameters, self.trust_marks);
                (assignment, standing, readiness)
            })
            .collect())
    }

    /// Only a keyspace that lacks a mark, or whose initialisation did not end, can be fresh.
    async fn may_be_fresh(&self, keyspace: &Keyspace, open: &[Open<'_>]) -> Result<bool, Stop> {
        let lacks_mark = open.iter().any(|(_, _, readiness)| match readiness {
            Readiness::Unmarked | Readiness::Claimed | Readiness::NotApplicableButUnmarked => true,
            Readiness::Unproven | Readiness::Applied | Readiness::OtherParameters => false,
        });
        Ok(lacks_mark && emptiness::is_empty(keyspace, &self.scope.entity_prefixes(), &self.stop).await?)
    }

    async fn initialise(&self, lease: &Lease) -> Result<Initialised, Stop> {
        let writer = lease.writer().await?;
        let judged = self.judged(&writer).await?;
        let unmarked: Vec<_> = judged
            .iter()
            .filter(|(_, _, readiness)| *readiness != Readiness::Applied)
            .map(|(assignment, standing, _)| (*assignment, standing))
            .collect();
        if unmarked.is_empty() {
            // Another process was quicker; it is for it to say that it initialised.
            return Ok(Initialised::NotFresh);
        }
        let prefixes = self.scope.entity_prefixes();
        init::initialise(&writer, &unmarked, &prefixes, lease.token(), (self.now)(), &self.stop).await
    }

    /// The keyspace holds entries: proves other tools' marks, and says what is pending.
    ///
    /// A look without the lock comes first: who waits behind a false mark must not keep others from applying. Who may
    /// only read leaves it at that, and believes what it has seen.
    async fn judge_existing(&self, keyspace: &Keyspace, open: Vec<Open<'_>>) -> Result<Verdict, Stop> {
        if !open.iter().any(|(_, _, readiness)| may_write(*readiness)) {
            return Ok(Verdict::Pending(open.iter().filter_map(|open| pending(open, None)).collect()));
        }
        let seen = self.judge_marks(keyspace, None).await?;
        if !seen.is_to_write {
            // Somebody else may have stamped meanwhile what was open before.
            return Ok(seen.verdict());
        }
        let taken = match self.take_lock(keyspace).await {
            Err(Stop::Fault(Fault { class: FaultClass::NotPermitted, .. })) => return Ok(seen.verdict()),
            taken => taken?,
        };
        let lease = match taken {
            Taken::Ours(lease) => lease,
            Taken::Held(holder) if seen.pending.is_empty() => return Ok(Verdict::Locked(Box::new(holder))),
            Taken::Held(_) => return Ok(Verdict::Pending(seen.pending)),
        };
        let judged = self.judge_marks_under(&lease).await;
        lease.release().await;
        Ok(judged?.verdict())
    }

    async fn judge_marks_under(&self, lease: &Lease) -> Result<JudgedMarks, Stop> {
        let writer = lease.writer().await?;
        self.judge_marks(&writer, Some(&writer)).await
    }

    /// Tells which required migrations are pending. With a writer, stamps what proves true and withdraws what an
    /// unfinished initialisation left. Behind a migration that is pending nothing can be proven: what it brings
    /// to its targets is still to come.
    async fn judge_marks(&self, keyspace: &Keyspace, writer: Option<&Writer>) -> Result<JudgedMarks, Stop> {
        let judged = self.judged(keyspace).await?;
        let last = judged.iter().rposition(|(_, standing, _)| self.is_required(standing)).map_or(0, |last| last + 1);
        let mut all = JudgedMarks::default();
        let mut is_behind_pending = false;
        for open in &judged[..last] {
            let (assignment, standing, readiness) = open;
            let found = match readiness {
                Readiness::Unproven if is_behind_pending => pending(open, None),
                Readiness::Unproven if !self.may_compare(keyspace).await? => {
                    Some(Pending { migration: standing.migration.name(), why: Why::ProvenElsewhere })
                }
                Readiness::Unproven => {
                    let report = self.prove(keyspace, writer, assignment).await?;
                    let entries = report.unapplied;
                    all.is_to_write |= entries == 0;
                    all.left.extend((entries == 0 && report.different > 0).then(|| Left {
                        migration: standing.migration.name(),
                        different: report.different,
                        lost_expiry: report.lost_expiry,
                    }));
                    pending(open, Some(entries)).filter(|_| entries > 0)
                }
                Readiness::Claimed => {
                    all.is_to_write = true;
                    if let (Some(writer), Some(token)) = (writer, &standing.claim) {
                        init::withdraw(writer, assignment, token).await?;
                    }
                    pending(open, None)
                }
                Readiness::NotApplicableButUnmarked => {
                    all.is_to_write = true;
                    if let Some(writer) = writer {
                        let reason = standing.not_applicable.unwrap_or_default();
                        survey::mark_not_applicable(writer, assignment, reason, (self.now)()).await?;
                    }
                    None
                }
                Readiness::Applied | Readiness::Unmarked | Readiness::OtherParameters => pending(open, None),
            };
            is_behind_pending |= found.is_some();
            all.pending.extend(found.filter(|_| self.is_required(standing)));
        }
        Ok(all)
    }

    /// Whether this gate is the one that compares everything. One that may not claim that compares for itself.
    async fn may_compare(&self, keyspace: &Keyspace) -> Result<bool, Stop> {
        let mut claim = self.claim.lock().await;
        if claim.as_ref().is_some_and(Claim::holds) {
            return Ok(true);
        }
        let Some(first) = self.assignments.first() else { return Ok(true) };
        let key = first.state_keys().gate_claim();
        match Claim::take(keyspace, key, &self.holder).await? {
            Claimed::Ours(ours) => {
                *claim = Some(ours);
                Ok(true)
            }
            Claimed::ByAnother => Ok(false),
            Claimed::Refused => Ok(true),
        }
    }

    /// What differs, and how much of it shows that a migration was not applied; with a writer, the mark is stamped if
    /// nothing does.
    async fn prove(
        &self,
        keyspace: &Keyspace,
        writer: Option<&Writer>,
        assignment: &Assignment,
    ) -> Result<VerifyReport, Stop> {
        let control = Control::of(self.stop.clone());
        match writer {
            None => verify::compare(keyspace, assignment, &control, None).await,
            Some(writer) => {
                let hash = plan_hash(assignment);
                verify::prove_mark(writer, assignment, &control, hash.as_str(), None, (self.now)()).await
            }
        }
    }

    async fn take_lock(&self, keyspace: &Keyspace) -> Result<Taken, Stop> {
        let request = LockRequest {
            keys: self.assignments.first().map(|first| first.state_keys().locks()).unwrap_or_default(),
            holder: self.holder.clone(),
            migration: "all".to_owned(),
            operation: lock::INIT.to_owned(),
            life: LEASE,
            resource_uid: None,
            now: (self.now)(),
        };
        Lease::take(keyspace.endpoint(), request).await
    }
}

fn pending((_, standing, readiness): &Open<'_>, entries: Option<u64>) -> Option<Pending> {
    let why = match readiness {
        // Its mark is written as soon as the lock is free; nothing is to be applied.
        Readiness::Applied | Readiness::NotApplicableButUnmarked => return None,
        Readiness::Unmarked | Readiness::Claimed => Why::NotApplied,
        Readiness::OtherParameters => Why::OtherParameters,
        Readiness::Unproven => Why::Unproven { entries },
    };
    Some(Pending { migration: standing.migration.name(), why })
}

/// The hash of what stamping a mark that has proven true decides.
fn plan_hash(assignment: &Assignment) -> PlanHash {
    assignment.terms.plan_hash(&Seen { mark_is_unproven: true, ..Seen::default() })
}
