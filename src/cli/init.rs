//! `init`: whether the schema is current; marks a fresh Redis as such. What Outpost's pods run as init container.
//!
//! Owns the waiting and what is said meanwhile; the gate decides.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use clap::Args;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::screen::{counted, number, table};
use crate::cli::session::{self, Desk};
use crate::engine::Stop;
use crate::engine::lock::{Holder, INIT};
use crate::gate::{Gate, Left, Marks, Pending, Verdict, Why};
use crate::keyspace::Keyspace;
use crate::model::policy::DivergedPolicy;

/// Without `--wait`, how long another process is waited for that initialises, or compares what this one would compare:
/// it renews its lock, or its claim, or is gone.
const INIT_PATIENCE: Duration = Duration::from_secs(120);

/// What is waited for is said again after this long, so that nobody takes the waiting for hanging.
const REMINDER: Duration = Duration::from_secs(30);

/// Behind another tool's mark a look compares the whole keyspace: while the marks stay as they are, the next one comes
/// after so many times what the last one took.
const LOOKS_APART: u32 = 20;

const EXAMPLES: &str = "\
Examples:
  outpost-migrate-redis init --current             # a gate: exit 1 while anything is pending
  outpost-migrate-redis init --current --wait 10m
  outpost-migrate-redis init --current --require 001_hash_tags,002_timestamps";

/// Options of `init`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InitArgs {
    /// Exit 1 if a migration is pending
    #[arg(long)]
    current: bool,
    /// Ask for these migrations only, so that a newer gate does not hold back an older application
    #[arg(long, value_name = "MIGRATION", value_delimiter = ',')]
    require: Vec<String>,
    /// Wait up to this long (30s, 10m, 1h) instead of exiting
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// Believe marks of other tools without a proof
    #[arg(long)]
    trust_marks: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    current: bool,
    initialised: bool,
    pending: Vec<PendingView<'a>>,
    /// Behind marks that were proven now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<LeftView<'a>>,
}

#[derive(Serialize)]
struct LeftView<'a> {
    migration: &'a str,
    different: u64,
    lost_expiry: u64,
}

#[derive(Serialize)]
struct PendingView<'a> {
    migration: &'a str,
    reason: &'static str,
    entries: Option<u64>,
}

/// Looks, and waits if asked to.
pub(super) async fn run(desk: &Desk, args: &InitArgs) -> Result<ExitCode, Failure> {
    let gate = gate(desk, args)?;
    let ended = look_until_current(desk, args, &gate).await;
    gate.end().await;
    ended
}

async fn look_until_current(desk: &Desk, args: &InitArgs, gate: &Gate) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let mut pauses = pauses();
    let mut said = Said::default();
    let mut keyspace = None;
    loop {
        let looked_at = Instant::now();
        let looked = look(desk, gate, &mut keyspace, args.wait.is_some()).await;
        let took = looked_at.elapsed();
        let (hurdle, patience, marks) = match looked {
            Ok((Verdict::Current { initialised, left }, _)) => return current(desk, gate, initialised, &left),
            Ok((Verdict::Pending(pending), marks)) if is_proven_elsewhere(&pending) => {
                (Hurdle::Pending(pending), Some(args.wait.unwrap_or(INIT_PATIENCE)), marks)
            }
            Ok((Verdict::Pending(pending), marks)) => (Hurdle::Pending(pending), args.wait, marks),
            Ok((Verdict::Locked(holder), marks)) if holder.operation.as_deref() == Some(INIT) => {
                (Hurdle::Locked(holder), Some(args.wait.unwrap_or(INIT_PATIENCE)), marks)
            }
            Ok((Verdict::Locked(holder), marks)) => (Hurdle::Locked(holder), args.wait, marks),
            Err(stop) if may_pass(&stop) => {
                keyspace = None;
                // Who can't look must not keep others from it.
                gate.end().await;
                (Hurdle::Trouble(stop), args.wait, None)
            }
            Err(stop) => return Err(stop.into()),
        };
        let patience = patience.unwrap_or_default();
        loop {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                return hurdle.end(desk, args);
            }
            said.say(&hurdle);
            pause(desk, pauses.next().unwrap_or(Duration::from_secs(5)).min(left)).await?;
            // With the last of its time it looks once more, whatever the marks say.
            let is_due = looked_at.elapsed() >= took * LOOKS_APART || began.elapsed() >= patience;
            if is_due || !are_unchanged(gate, &mut keyspace, marks.as_ref()).await {
                break;
            }
        }
    }
}

async fn pause(desk: &Desk, pause: Duration) -> Result<(), Failure> {
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        () = desk.stop.cancelled() => Err(Stop::Interrupted.into()),
    }
}

/// Whether the marks are known to stand as they did, so that another look would find nothing new. Lets go of a
/// connection that does not tell.
async fn are_unchanged(gate: &Gate, keyspace: &mut Option<Keyspace>, before: Option<&Marks>) -> bool {
    let (Some(connected), Some(before)) = (keyspace.as_ref(), before) else { return false };
    let now = gate.marks(connected).await;
    if now.is_err() {
        *keyspace = None;
    }
    now.is_ok_and(|now| now == *before)
}

fn gate(desk: &Desk, args: &InitArgs) -> Result<Gate, Failure> {
    for name in &args.require {
        desk.migration(name)?;
    }
    Ok(Gate {
        assignments: desk.registry.iter().map(|migration| desk.assignment(migration, DivergedPolicy::Keep)).collect(),
        registry: desk.registry.clone(),
        scope: desk.configuration.scope.clone(),
        required: (!args.require.is_empty()).then(|| args.require.clone()),
        trust_marks: args.trust_marks,
        holder: session::holder(),
        stop: desk.stop.clone(),
        now: session::now,
        claim: Mutex::new(None),
    })
}

/// The verdict; if it may come to waiting, also the marks as they were before.
async fn look(
    desk: &Desk,
    gate: &Gate,
    keyspace: &mut Option<Keyspace>,
    may_wait: bool,
) -> Result<(Verdict, Option<Marks>), Stop> {
    let connected = match keyspace.take() {
        Some(connected) => connected,
        None => Keyspace::connect(desk.configuration.endpoint.clone(), session::CONNECTION_NAME).await?,
    };
    let keyspace = keyspace.insert(connected);
    let marks = if may_wait { Some(gate.marks(keyspace).await?) } else { None };
    Ok((gate.look(keyspace).await?, marks))
}

/// Whether another gate is at finding out what this one asks for.
fn is_proven_elsewhere(pending: &[Pending]) -> bool {
    pending.iter().any(|it| it.why == Why::ProvenElsewhere)
}

/// Whether waiting may cure it.
fn may_pass(stop: &Stop) -> bool {
    match stop {
        Stop::Fault(fault) => fault.class.is_passing(),
        Stop::LeaseLost
        | Stop::RunLost
        | Stop::Incomplete { .. }
        | Stop::Unseen { .. }
        | Stop::SourceChanging { .. }
        | Stop::SourcesGone { .. }
        | Stop::ReplicasMissing(_) => true,
        Stop::Interrupted
        | Stop::PreflightFailed(_)
        | Stop::Conflicts(_)
        | Stop::MarkUnproven { .. }
        | Stop::NotVerified => false,
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}

/// What stands in the way.
enum Hurdle {
    Pending(Vec<Pending>),
    Locked(Box<Holder>),
    Trouble(Stop),
}

impl Hurdle {
    /// In one line, without anything that varies by itself.
    fn line(&self) -> String {
        match self {
            Self::Pending(pending) => {
                let names: Vec<String> =
                    pending.iter().map(|it| format!("{} ({})", it.migration, reason(it.why))).collect();
                format!("pending: {}", names.join(", "))
            }
            Self::Locked(holder) => format!("the lock {} is held by {holder}", holder.key),
            Self::Trouble(stop) => stop.to_string(),
        }
    }

    /// Nobody waits any longer.
    fn end(self, desk: &Desk, args: &InitArgs) -> Result<ExitCode, Failure> {
        match self {
            Self::Locked(holder) => Err(Failure::locked(&holder)),
            Self::Trouble(stop) => Err(stop.into()),
            Self::Pending(pending) => {
                desk.screen.result(text(&pending), &answer(&pending))?;
                Ok(if args.current { ExitCode::NotDone } else { ExitCode::Done })
            }
        }
    }
}

/// Says what is waited for when it changes, and from time to time.
#[derive(Default)]
struct Said(Option<(String, Instant)>);

impl Said {
    fn say(&mut self, hurdle: &Hurdle) {
        let line = hurdle.line();
        let is_news = self.0.as_ref().is_none_or(|(last, at)| *last != line || at.elapsed() > REMINDER);
        if is_news {
            tracing::info!("waiting: {line}");
            self.0 = Some((line, Instant::now()));
        }
    }
}

fn current(desk: &Desk, gate: &Gate, initialised: bool, left: &[Left]) -> Result<ExitCode, Failure> {
    let all = gate.assignments.len() as u64;
    let mut text = match (&gate.required, initialised) {
        (_, true) => format!("Initialised: Redis was fresh; {} marked.", counted(all, "migration", "migrations")),
        (None, false) => format!("Current: all {} are applied.", counted(all, "migration", "migrations")),
        (Some(names), false) => format!("Current: {} applied.", names.join(", ")),
    };
    for left in left {
        text.push_str(&format!("\n{}", what_is_left(left)));
    }
    let view = |it: &Left| LeftView { migration: it.migration, different: it.different, lost_expiry: it.lost_expiry };
    let left = left.iter().map(view).collect();
    desk.screen.result(text, &Answer { current: true, initialised, pending: Vec::new(), left })?;
    Ok(ExitCode::Done)
}

fn answer(pending: &[Pending]) -> Answer<'_> {
    let view = |it: &Pending| {
        let (reason, entries) = match it.why {
            Why::NotApplied => ("not_applied", None),
            Why::OtherParameters => ("other_layout", None),
            Why::Unproven { entries } => ("unproven", entries),
            Why::ProvenElsewhere => ("unproven", None),
        };
        PendingView { migration: it.migration, reason, entries }
    };
    Answer { current: false, initialised: false, pending: pending.iter().map(view).collect(), left: Vec::new() }
}

/// What differs behind a mark of another tool that has proven true, and what can be done about it.
fn what_is_left(left: &Left) -> String {
    let Left { migration, different, lost_expiry } = left;
    let differ = counted(*different, "target differs from its source", "targets differ from their sources");
    let mut text = format!("{migration}: marked by another tool, and applied to every entry; {differ}");
    if *lost_expiry > 0 {
        text.push_str(&format!(
            ", {} of them only in an expiry that was dropped: `outpost-migrate-redis apply --rerun {migration} \
             --accept-finding LostExpiry` puts it back",
            number(*lost_expiry)
        ));
    }
    text
}

fn reason(why: Why) -> String {
    match why {
        Why::NotApplied => "not applied".to_owned(),
        Why::OtherParameters => "applied for the other key layout".to_owned(),
        Why::Unproven { entries: Some(entries) } => {
            format!("marked by another tool, but not applied to {}", counted(entries, "entry", "entries"))
        }
        Why::Unproven { entries: None } => "marked by another tool, not proven yet".to_owned(),
        Why::ProvenElsewhere => "marked by another tool, not proven yet: another gate is comparing".to_owned(),
    }
}

fn text(pending: &[Pending]) -> String {
    let rows = pending.iter().map(|it| vec![it.migration.to_owned(), reason(it.why)]);
    let mut text = format!("Pending:\n{}", table(&[], rows.collect()));
    text.push_str("\nNext: `outpost-migrate-redis plan`, then `outpost-migrate-redis apply`");
    if pending.iter().any(|it| matches!(it.why, Why::Unproven { .. } | Why::ProvenElsewhere)) {
        text.push_str(
            "\nTo believe other tools' marks knowingly: `outpost-migrate-redis init --current --trust-marks`",
        );
    }
    text
}
