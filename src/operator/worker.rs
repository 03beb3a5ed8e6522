//! The task that works for one resource: connects, holds the lock, does one step after the other.
//!
//! Owns the lock's hold and what is known within it. Takes commands, reports what is seen, and decides
//! nothing: which step comes next is the reconcile's to say, after status says so.

use std::sync::Arc;
use std::time::Duration;

use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::request::MigrationRequest;
use crate::api::v1alpha1::RedisMigration;
use crate::engine::journal::{self, Owner, Run};
use crate::engine::lock::{Holder, Lease, LockRequest, Taken};
use crate::engine::survey::{self, Survey};
use crate::engine::{Assignment, Control, Stop, apply, cleanup, plan, verify};
use crate::keyspace::Writer;
use crate::keyspace::lease::LeaseClock;
use crate::model::finding::{Finding, FindingCode};
use crate::model::mark::Mark;
use crate::model::phase::Step;
use crate::model::plan::Plan;
use crate::model::policy::Limits;
use crate::model::progress::Progress;
use crate::model::report::{ApplyReport, CleanupReport, VerifyReport};
use crate::model::time::UnixMillis;
use crate::operator::clock::now;
use crate::operator::decide::Standing;
use crate::operator::secrets::{self, SecretProblem};
use crate::operator::settings::Settings;

/// A worker that hears nothing for so long gives the lock back: the API server may be away.
const IDLE: Duration = Duration::from_secs(30);

/// How long a worker that is told to stop while it connects still tries to give back what it took.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long the API server may take to answer a worker; the lock is not held for longer on its account.
const API_PATIENCE: Duration = Duration::from_secs(10);

/// How often progress is reported.
const TICK: Duration = Duration::from_secs(2);

/// Why the lock could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Barrier {
    /// A Secret is missing or unreadable.
    Secret(SecretProblem),
    /// Somebody else has the lock.
    Held(Holder),
    /// Redis did not answer, or refused.
    Stop(Stop),
}

/// What a finished step gave.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A plan.
    Planned(Arc<Plan>),
    /// Entries were copied.
    Applied(ApplyReport),
    /// Everything was proven, and the mark stands.
    Verified(VerifyReport),
    /// Everything was compared again behind our mark.
    Compared(VerifyReport),
    /// Originals were removed; and how many keys no rule maps, where no plan had counted them.
    CleanedUp(CleanupReport, Option<u64>),
}

/// What is known within one hold of the lock.
#[derive(Debug, Clone)]
pub struct Hold {
    /// What Redis says.
    pub survey: Survey,
    /// A living owner other than this resource.
    pub other_owner: Option<Owner>,
    /// The plan made in this hold.
    pub plan: Option<Arc<Plan>>,
    /// Whether everything was compared in this hold.
    pub compared: bool,
    /// The parameters that the mark must speak of.
    pub parameters: String,
}

impl Hold {
    /// What the next step depends on.
    #[must_use]
    pub fn standing(&self) -> Standing {
        if self.other_owner.is_some() {
            return Standing::OwnedByOther;
        }
        match (&self.survey.mark, self.survey.not_applicable, self.survey.predecessor_pending) {
            (Mark::NotApplicable, _, _) | (_, Some(_), _) => Standing::NotApplicable,
            (Mark::Stamped(stamp), None, _) if !stamp.is_for(&self.parameters) => Standing::ProvenOtherwise,
            (Mark::Stamped(stamp), None, _) if stamp.cleaned_up_at.is_some() => Standing::CleanedUp,
            (Mark::Stamped(_), None, _) => Standing::Proven,
            (Mark::Absent | Mark::Unstamped, None, Some(_)) => Standing::PredecessorPending,
            (Mark::Unstamped, None, None) => Standing::Unproven,
            (Mark::Absent, None, None) => Standing::Unmarked,
        }
    }
}

/// What a worker reports.
#[derive(Debug, Clone)]
pub enum Report {
    /// It connects and asks for the lock.
    Opening,
    /// It ended without the lock.
    Barred(Barrier),
    /// It has the lock and waits for a step.
    Held(Hold),
    /// A step is under way.
    Working(Step, Hold, Option<Progress>),
    /// A step is done.
    Finished(Step, Hold, Outcome),
    /// A step ended without being done.
    Stopped(Step, Hold, Stop),
    /// It gave the lock back, or lost it while idle.
    Ended,
}

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Do a step.
    Run(Step),
    /// The result is in status: go on holding.
    Recorded,
    /// Stamp another tool's mark, then look again.
    Stamp,
    /// Mark the migration as not applicable, then end.
    MarkNotApplicable,
    /// Give the lock back.
    End,
}

/// What a worker is started for.
#[derive(Debug, Clone)]
pub struct Order {
    /// The request to follow.
    pub request: MigrationRequest,
    /// Whether it asks to do again what is done.
    pub asked_again: bool,
    /// Source entries that an earlier plan counted, for the progress where no plan is made.
    pub sources_known: Option<u64>,
}

/// A handle on a running worker.
pub struct Worker {
    /// What it was started for.
    pub order: Order,
    /// What it reported last.
    pub report: watch::Receiver<Report>,
    /// Whether it holds the lock, by its own clock.
    pub lease: watch::Receiver<Option<LeaseClock>>,
    commands: mpsc::Sender<Command>,
    limits: watch::Sender<Limits>,
    stop: CancellationToken,
    interrupt: CancellationToken,
}

impl Worker {
    /// Starts a worker; `wake` is called whenever there is something new to see.
    pub fn start(
        client: Client,
        settings: Arc<Settings>,
        order: Order,
        shutdown: &CancellationToken,
        tasks: &TaskTracker,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (report_sender, report) = watch::channel(Report::Opening);
        let (lease_sender, lease) = watch::channel(None);
        let (commands, inbox) = mpsc::channel(4);
        let (limits, told_limits) = watch::channel(order.request.limits);
        let stop = shutdown.child_token();
        let interrupt = stop.child_token();
        let task = Task {
            client,
            settings,
            request: order.request.clone(),
            sources_known: order.sources_known,
            limits: told_limits,
            report: report_sender,
            lease: lease_sender,
            stop: stop.clone(),
            interrupt: interrupt.clone(),
            wake: Box::new(wake),
        };
        tasks.spawn(task.run(inbox));
        Self { order, report, lease, commands, limits, stop, interrupt }
    }

    /// Tells it what to do next; a worker that ended hears nothing, and its report says so.
    pub fn command(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    /// Tells it how hard it may press Redis from now on.
    pub fn limit(&self, limits: Limits) {
        self.limits.send_if_modified(|told| {
            let is_news = *told != limits;
            *told = limits;
            is_news
        });
    }

    /// Whether it surely holds the lock.
    #[must_use]
    pub fn holds_lock(&self) -> bool {
        self.lease.borrow().as_ref().is_some_and(LeaseClock::holds)
    }

    /// Lets it finish its batch and end its step; it holds the lock until told to end.
    pub fn interrupt(&self) {
        self.interrupt.cancel();
    }

    /// Lets it finish its batch, give the lock back and end.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

struct Task {
    client: Client,
    settings: Arc<Settings>,
    request: MigrationRequest,
    sources_known: Option<u64>,
    limits: watch::Receiver<Limits>,
    report: watch::Sender<Report>,
    lease: watch::Sender<Option<LeaseClock>>,
    stop: CancellationToken,
    interrupt: CancellationToken,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Task {
    async fn run(self, inbox: mpsc::Receiver<Command>) {
        let assignment = self.assignment();
        let opened = {
            let mut opening = std::pin::pin!(self.open(&assignment));
            tokio::select! {
                opened = &mut opening => Some(opened),
                // A lock that is just being taken is given back rather than left to expire.
                () = self.stop.cancelled() => tokio::time::timeout(FAREWELL, opening).await.ok(),
            }
        };
        let Some(opened) = opened else { return self.say(Report::Ended) };
        let (lease, writer, hold) = match opened {
            Ok(opened) => opened,
            Err(barrier) => return self.say(Report::Barred(barrier)),
        };
        self.lease.send_replace(Some(lease.clock()));
        self.say(Report::Held(hold.clone()));
        let last = self.serve(&lease, &writer, &assignment, hold, inbox).await;
        lease.release().await;
        if let Some(last) = last {
            self.say(last);
        }
    }

    /// Connects, takes the lock, looks at what Redis says and claims the migration.
    async fn open(&self, assignment: &Assignment) -> Result<(Lease, Writer, Hold), Barrier> {
        let reading = secrets::resolve(&self.client, &self.request.namespace, &self.request.redis);
        let endpoint = tokio::time::timeout(API_PATIENCE, reading)
            .await
            .unwrap_or(Err(SecretProblem::Unreachable(String::new())))
            .map_err(Barrier::Secret)?;
        let lease = match Lease::take(&endpoint, self.lock_request(assignment)).await.map_err(Barrier::Stop)? {
            Taken::Ours(lease) => lease,
            Taken::Held(holder) => return Err(Barrier::Held(holder)),
        };
        match self.look(&lease, assignment).await {
            Ok((writer, hold)) => Ok((lease, writer, hold)),
            Err(stop) => {
                lease.release().await;
                Err(Barrier::Stop(stop))
            }
        }
    }

    async fn look(&self, lease: &Lease, assignment: &Assignment) -> Result<(Writer, Hold), Stop> {
        let writer = lease.writer().await?;
        let survey = survey::survey(&writer, assignment).await?;
        let me = self.owner();
        let other_owner = match survey.other_owner(&me) {
            Some(other) if self.is_alive(other).await => Some(other.clone()),
            Some(_) | None => None,
        };
        if other_owner.is_none() {
            journal::claim(&writer, assignment, &me, &survey.mark).await?;
            journal::keep_alive(lease, assignment);
        }
        Ok((
            writer,
            Hold { survey, other_owner, plan: None, compared: false, parameters: assignment.terms.parameters.clone() },
        ))
    }

    /// Whether a claim's resource still exists. One that we may not look at counts as living; its
    /// claim ends with the run hash.
    async fn is_alive(&self, owner: &Owner) -> bool {
        let Some((namespace, name)) = owner.resource.split_once('/') else { return false };
        let resources: Api<RedisMigration> = Api::namespaced(self.client.clone(), namespace);
        match tokio::time::timeout(API_PATIENCE, resources.get_metadata_opt(name)).await {
            Ok(Ok(found)) => found.is_some_and(|found| found.metadata.uid.as_ref() == Some(&owner.uid)),
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// Serves commands until told to end. Gives the last report, unless one was made that stays.
    async fn serve(
        &self,
        lease: &Lease,
        writer: &Writer,
        assignment: &Assignment,
        mut hold: Hold,
        mut inbox: mpsc::Receiver<Command>,
    ) -> Option<Report> {
        let lost = lease.lost();
        loop {
            let command = tokio::select! {
                command = inbox.recv() => command,
                () = lost.cancelled() => None,
                () = self.stop.cancelled() => None,
                () = tokio::time::sleep(IDLE) => None,
            };
            match command {
                None | Some(Command::End) => return Some(Report::Ended),
                Some(Command::Recorded) => self.say(Report::Held(hold.clone())),
                Some(Command::Stamp) => {
                    let stamped = self.stamp(lease, writer, assignment, &mut hold).await;
                    if self.stop.is_cancelled() {
                        return None;
                    }
                    self.say_held(&hold, stamped);
                }
                Some(Command::MarkNotApplicable) => {
                    let marked = self.mark_not_applicable(writer, assignment, &mut hold).await;
                    self.say_held(&hold, marked);
                }
                Some(Command::Run(step)) => {
                    self.step(lease, writer, assignment, &mut hold, step).await;
                    if self.stop.is_cancelled() {
                        // Nobody will record this any more; the lock goes back at once.
                        return None;
                    }
                }
            }
        }
    }

    async fn step(&self, lease: &Lease, writer: &Writer, assignment: &Assignment, hold: &mut Hold, step: Step) {
        let (control, progress) = self.control();
        self.say(Report::Working(step, hold.clone(), None));
        let sources_known = hold.plan.as_ref().map(|plan| plan.seen.total_sources()).or(self.sources_known);
        let work = Work { writer, assignment, control: &control, token: lease.token(), sources_known };
        let before = hold.clone();
        let ended = self.watch(lease, step, &before, &progress, work.step(step, hold, lease)).await;
        self.say(match ended {
            Ok(outcome) => Report::Finished(step, hold.clone(), outcome),
            Err(reason) => Report::Stopped(step, hold.clone(), reason),
        });
    }

    /// Proves another tool's mark and stamps it, as a step like others: at the same pace, and as easily interrupted.
    async fn stamp(
        &self,
        lease: &Lease,
        writer: &Writer,
        assignment: &Assignment,
        hold: &mut Hold,
    ) -> Result<(), Stop> {
        if let (Mark::Unstamped, Some(plan)) = (&hold.survey.mark, &hold.plan) {
            let (control, progress) = self.control();
            self.say(Report::Working(Step::Verify, hold.clone(), None));
            let total = Some(plan.seen.total_sources());
            let proof = verify::prove_mark(writer, assignment, &control, plan.hash.as_str(), total, now());
            let refused: Vec<Finding> =
                plan.errors().filter(|finding| finding.code == FindingCode::LostExpiry).cloned().collect();
            if !refused.is_empty() {
                return Err(Stop::PreflightFailed(refused));
            }
            let report = self.watch(lease, Step::Verify, hold, &progress, proof).await?;
            if report.unapplied > 0 {
                return Err(Stop::MarkUnproven { missing: report.unapplied });
            }
        }
        hold.survey = survey::survey(writer, assignment).await?;
        Ok(())
    }

    async fn mark_not_applicable(&self, writer: &Writer, assignment: &Assignment, hold: &mut Hold) -> Result<(), Stop> {
        if let Some(reason) = hold.survey.not_applicable {
            survey::mark_not_applicable(writer, assignment, reason, now()).await?;
        }
        hold.survey = survey::survey(writer, assignment).await?;
        Ok(())
    }

    /// Control of a step by the present limits, and the progress that comes of it.
    fn control(&self) -> (Control, watch::Receiver<Option<Progress>>) {
        let (sender, progress) = watch::channel(None);
        (Control::limited(self.interrupt.clone(), self.limits.clone(), sender), progress)
    }

    /// Tells the progress of work until it is done or the lock is lost.
    async fn watch<T>(
        &self,
        lease: &Lease,
        step: Step,
        hold: &Hold,
        progress: &watch::Receiver<Option<Progress>>,
        work: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        let mut work = std::pin::pin!(work);
        let lost = lease.lost();
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        loop {
            tokio::select! {
                ended = &mut work => return ended,
                () = lost.cancelled() => return Err(Stop::LeaseLost),
                _ = tick.tick() => {
                    let seen = progress.borrow().clone();
                    self.say(Report::Working(step, hold.clone(), seen));
                }
            }
        }
    }

    fn say_held(&self, hold: &Hold, written: Result<(), Stop>) {
        self.say(match written {
            Ok(()) => Report::Held(hold.clone()),
            Err(stop) => Report::Stopped(Step::Verify, hold.clone(), stop),
        });
    }

    fn say(&self, report: Report) {
        self.report.send_replace(report);
        (self.wake)();
    }

    fn owner(&self) -> Owner {
        let request = &self.request;
        Owner { uid: request.uid.clone(), resource: format!("{}/{}", request.namespace, request.name) }
    }

    fn assignment(&self) -> Assignment {
        let request = &self.request;
        Assignment {
            migration: Arc::clone(&request.migration),
            registry: self.settings.registry.clone(),
            scope: request.scope.clone(),
            terms: request.terms(),
            conflict_policy: request.conflict_policy,
            diverged_policy: request.diverged_policy,
            min_replicas: request.min_replicas,
        }
    }

    fn lock_request(&self, assignment: &Assignment) -> LockRequest {
        LockRequest {
            keys: assignment.state_keys().locks(),
            holder: self.settings.holder.clone(),
            migration: assignment.migration.name().to_owned(),
            operation: "reconcile".to_owned(),
            life: self.settings.lease,
            resource_uid: Some(self.request.uid.clone()),
            now: now(),
        }
    }
}

/// One step's work.
struct Work<'a> {
    writer: &'a Writer,
    assignment: &'a Assignment,
    control: &'a Control,
    token: &'a str,
    sources_known: Option<u64>,
}

impl Work<'_> {
    async fn step(&self, step: Step, hold: &mut Hold, lease: &Lease) -> Result<Outcome, Stop> {
        match step {
            Step::Plan => self.plan(hold, lease).await,
            Step::Apply => self.apply(hold).await,
            Step::Verify => self.verify(hold).await,
            Step::Cleanup => self.cleanup(hold).await,
        }
    }

    async fn plan(&self, hold: &mut Hold, lease: &Lease) -> Result<Outcome, Stop> {
        let mut plan = plan::plan(self.writer, self.assignment, self.control).await?;
        plan.seen.findings.extend(lease.stale_connections());
        let plan = Arc::new(plan);
        hold.plan = Some(Arc::clone(&plan));
        Ok(Outcome::Planned(plan))
    }

    async fn apply(&self, hold: &Hold) -> Result<Outcome, Stop> {
        let (plan, run) = self.begin(hold).await?;
        let report = apply::apply(self.writer, self.assignment, self.control, &plan, &run).await?;
        Ok(Outcome::Applied(report))
    }

    async fn verify(&self, hold: &mut Hold) -> Result<Outcome, Stop> {
        if matches!(hold.survey.mark, Mark::Stamped(_)) {
            let report = verify::compare(self.writer, self.assignment, self.control, self.sources_known).await?;
            hold.compared = true;
            return Ok(Outcome::Compared(report));
        }
        let (plan, run) = self.begin(hold).await?;
        apply::may_begin(&plan, run.may_refresh(), self.assignment.conflict_policy)?;
        let proof = verify::prove(self.writer, self.assignment, self.control, &plan, &run).await?;
        let report = verify::mark(self.writer, self.assignment, proof, now()).await?;
        hold.survey = survey::survey(self.writer, self.assignment).await?;
        hold.compared = true;
        Ok(Outcome::Verified(report))
    }

    /// Cleanup does not look at every key. Where no plan did, as for a resource that found the mark there already,
    /// everything is compared before, so that the same keys are counted as everywhere.
    async fn cleanup(&self, hold: &mut Hold) -> Result<Outcome, Stop> {
        let counted = match self.sources_known {
            Some(_) => None,
            None => Some(verify::compare(self.writer, self.assignment, self.control, None).await?),
        };
        let total = self.sources_known.or(counted.as_ref().map(VerifyReport::processed));

        let report = cleanup::cleanup(self.writer, self.assignment, self.control, total, now()).await?;
        hold.survey = survey::survey(self.writer, self.assignment).await?;
        Ok(Outcome::CleanedUp(report, counted.map(|report| report.unmigrated.total())))
    }

    async fn begin(&self, hold: &Hold) -> Result<(Arc<Plan>, Run), Stop> {
        let plan = hold.plan.clone().ok_or(Stop::NotVerified)?;
        let run = journal::begin_run(self.writer, self.assignment, self.token, &plan.seen, UnixMillis(now().0)).await?;
        Ok((plan, run))
    }
}
