//! `apply`: plan, confirmation, copy, complete comparison, mark; all in one hold of the lock.

use std::fs;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::list::{self, Row, State};
use crate::cli::lost_expiry::Mended;
use crate::cli::prompt::{self, Approval};
use crate::cli::screen::{self, counted, number, table};
use crate::cli::session::{Acceptance, Desk, Pace, now};
use crate::cli::{lost_expiry, plan, progress, verify as verify_words};
use crate::engine::lock::Lease;
use crate::engine::restore::{self, RestoreReport};
use crate::engine::{Assignment, Stop, apply, journal, survey, verify};
use crate::keyspace::{Keyspace, Writer};
use crate::migrations::Rule;
use crate::model::finding::Finding;
use crate::model::key::RedisKey;
use crate::model::plan::Plan;
use crate::model::policy::DivergedPolicy;
use crate::model::report::{ApplyReport, VerifyReport};

const EXAMPLES: &str = "\
Examples:
  outpost-migrate-redis apply                    # the next pending migration; shows its plan and asks
  outpost-migrate-redis apply --all --yes
  outpost-migrate-redis apply --rerun 002_timestamps
  outpost-migrate-redis apply --rerun 001_hash_tags --restore-missing tenant:acme";

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ApplyArgs {
    /// Apply this migration. Default: the next pending one
    #[arg(conflicts_with_all = ["all", "rerun"])]
    migration: Option<String>,
    /// Apply every pending migration, in order
    #[arg(long, conflicts_with = "rerun")]
    all: bool,
    /// Do not ask; what has to be accepted by name still has to be
    #[arg(long, short)]
    yes: bool,
    /// Run this applied migration again: one that changes entries in place catches up; for one that renames keys,
    /// sources without target are reported
    #[arg(long, value_name = "MIGRATION")]
    rerun: Option<String>,
    /// With --rerun of a migration that renames keys: copy this source, whose target is missing; what the
    /// application deleted would return. May be given more than once; @FILE reads one key a line
    #[arg(long, value_name = "KEY", requires = "rerun")]
    restore_missing: Vec<String>,
    #[command(flatten)]
    acceptance: Acceptance,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Serialize)]
struct PlanEvent<'a> {
    event: &'static str,
    #[serde(flatten)]
    plan: plan::PlanView<'a>,
}

#[derive(Serialize)]
struct AppliedEvent<'a> {
    event: &'static str,
    migration: &'a str,
    copied: u64,
    changed: u64,
    replaced: u64,
    already_migrated: u64,
    conflicts: u64,
    kept_different: u64,
    ended: u64,
    compared_equal: u64,
    expiries_put_back: u64,
    /// Lost when they were planned, and neither put back nor lost still.
    expiries_unmended: u64,
    unmigrated: u64,
    /// What would have kept the mark back, and was accepted.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct ProvenEvent<'a> {
    event: &'static str,
    migration: &'a str,
    equal: u64,
    different: u64,
    lost_expiry: u64,
    expiries_put_back: u64,
    /// Lost when they were planned, and neither put back nor lost still.
    expiries_unmended: u64,
}

#[derive(Serialize)]
struct RestoredEvent<'a> {
    event: &'static str,
    migration: &'a str,
    copied: u64,
    target_exists: u64,
    no_source: Vec<String>,
}

/// Applies.
pub(super) async fn run(desk: &Desk, args: &ApplyArgs) -> Result<ExitCode, Failure> {
    let keyspace = desk.connect().await?;
    let rows = list::rows(&desk.standings(&keyspace).await?, &desk.parameters());
    let chosen = chosen(desk, &rows, args)?;
    let Some(first) = chosen.first() else { return nothing_to_apply(desk, &keyspace, &rows).await };
    if args.rerun.is_some() && args.restore_missing.is_empty() && !lost_expiry::is_accepted(first) && is_renaming(first)
    {
        return report_missing(desk, args.pace, &keyspace, first).await;
    }
    prompt::check_answerable(args.yes)?;
    let lease = desk.take_lock(first, "apply").await?;
    let done = apply_under(desk, args, &lease, &chosen).await;
    lease.release().await;
    if done? == Done::ByAnother {
        desk.screen.nothing(&format!("Nothing to apply: {} was applied meanwhile.", names(&chosen)))?;
        return Ok(ExitCode::Done);
    }
    if args.rerun.is_none() {
        let rows = list::rows(&desk.standings(&keyspace).await?, &desk.parameters());
        desk.screen.text(format!("Next: {}", after(&rows)))?;
    }
    Ok(ExitCode::Done)
}

#[derive(PartialEq, Eq)]
enum Done {
    ByUs,
    ByAnother,
}

/// Looks once more now that the lock is ours: another may have applied meanwhile what was pending, and behind its mark
/// nothing may be copied. What was not pending then is not begun now.
async fn apply_under(desk: &Desk, args: &ApplyArgs, lease: &Lease, before: &[Assignment]) -> Result<Done, Failure> {
    let writer = lease.writer().await?;
    let rows = list::rows(&desk.standings(&writer).await?, &desk.parameters());
    let mut chosen = chosen(desk, &rows, args)?;
    chosen.retain(|now| before.iter().any(|before| before.migration.name() == now.migration.name()));
    let Some(first) = chosen.first() else { return Ok(Done::ByAnother) };
    match &args.rerun {
        Some(_) => rerun(desk, args, lease, first).await?,
        None => apply_all(desk, args, lease, &chosen).await?,
    }
    Ok(Done::ByUs)
}

fn names(assignments: &[Assignment]) -> String {
    assignments.iter().map(|it| it.migration.name()).collect::<Vec<_>>().join(", ")
}

/// Outpost asks for a mark of every migration, also of those that never apply to its keyspace.
async fn nothing_to_apply(desk: &Desk, keyspace: &Keyspace, rows: &[Row]) -> Result<ExitCode, Failure> {
    let standings = desk.standings(keyspace).await?;
    if let Some(unmarked) = standings.iter().find(|it| it.not_applicable.is_some() && !it.mark.is_satisfied()) {
        let assignment = desk.assignment(&unmarked.migration, DivergedPolicy::Keep);
        let lease = desk.take_lock(&assignment, "apply").await?;
        let marked = async { mark_not_applicable(desk, &lease.writer().await?).await }.await;
        lease.release().await;
        marked?;
    }
    let pending: Vec<_> = rows.iter().filter(|row| row.state.is_pending()).map(|row| row.name).collect();
    let message = match pending[..] {
        [] => format!("Nothing to apply: all {} migrations are applied.", rows.len()),
        _ => format!("Nothing to apply: it is applied already. Still pending: {}.", pending.join(", ")),
    };
    desk.screen.nothing(&message)?;
    Ok(ExitCode::Done)
}

fn is_renaming(assignment: &Assignment) -> bool {
    match assignment.migration.rule() {
        Rule::Rename(_) => true,
        Rule::InPlace(_) => false,
    }
}

fn after(rows: &[Row]) -> String {
    match rows.iter().find(|row| row.state.is_pending()) {
        Some(row) => format!("`outpost-migrate-redis apply` goes on with {}", row.name),
        None => "start the new version of Outpost; when it serves, `outpost-migrate-redis cleanup` removes originals"
            .to_owned(),
    }
}

fn chosen(desk: &Desk, rows: &[Row], args: &ApplyArgs) -> Result<Vec<Assignment>, Failure> {
    let accepted = args.acceptance.accepted();
    let assignment = |name: &str| {
        Ok::<_, Failure>(desk.assignment(&desk.migration(name)?, DivergedPolicy::Keep).accepting(&accepted))
    };
    if let Some(row) = rows.iter().find(|row| row.state == State::AppliedForOtherLayout) {
        let message = format!("{} was applied for the other key layout: give --key-layout as it was then", row.name);
        return Err(Failure::new(ExitCode::NotDone, message));
    }
    let pending = rows.iter().filter(|row| row.state.is_pending());
    if let Some(name) = &args.rerun {
        let chosen = assignment(name)?;
        let is_applied = rows.iter().any(|row| row.name == name && row.state == State::Applied);
        if !is_applied {
            let message = format!("{name} is not applied, so it can't run again: leave --rerun out");
            return Err(Failure::new(ExitCode::NotDone, message));
        }
        return Ok(vec![chosen]);
    }
    if let Some(name) = &args.migration {
        let chosen = assignment(name)?;
        let Some(row) = rows.iter().find(|row| row.name == chosen.migration.name()) else { return Ok(Vec::new()) };
        return match pending.map(|row| row.name).next() {
            _ if !row.state.is_pending() => Ok(Vec::new()),
            Some(first) if first != row.name => {
                let message = format!("{first} comes before {name}: apply it first, or use --all");
                Err(Failure::new(ExitCode::NotDone, message))
            }
            Some(_) | None => Ok(vec![chosen]),
        };
    }
    // What never applies is marked so on the way.
    let limit = if args.all { usize::MAX } else { 1 };
    pending.take(limit).map(|row| assignment(row.name)).collect()
}

async fn apply_all(desk: &Desk, args: &ApplyArgs, lease: &Lease, chosen: &[Assignment]) -> Result<(), Failure> {
    let writer = lease.writer().await?;
    mark_not_applicable(desk, &writer).await?;
    let mut approval = Approval::by(args.yes);
    for (index, assignment) in chosen.iter().enumerate() {
        let question = match chosen.len() - index {
            1 => format!("Apply {}?", assignment.migration.name()),
            left => {
                format!("Apply {left} migrations ({})?", names(&chosen[index..]))
            }
        };
        approval = apply_one(desk, args.pace, lease, &writer, assignment, &question, approval).await?;
    }
    Ok(())
}

/// Marks what never applies to this keyspace, as Outpost asks for a mark of every migration.
async fn mark_not_applicable(desk: &Desk, writer: &Writer) -> Result<(), Failure> {
    for standing in desk.standings(writer).await? {
        if let (Some(reason), false) = (standing.not_applicable, standing.mark.is_satisfied()) {
            let assignment = desk.assignment(&standing.migration, DivergedPolicy::Keep);
            survey::mark_not_applicable(writer, &assignment, reason, now()).await?;
            desk.screen.text(format!("{}: not applicable: {reason}", standing.migration.name()))?;
        }
    }
    Ok(())
}

/// One migration from plan to mark. Returns who has said yes by then.
async fn apply_one(
    desk: &Desk,
    pace: Pace,
    lease: &Lease,
    writer: &Writer,
    assignment: &Assignment,
    question: &str,
    approval: Approval,
) -> Result<Approval, Failure> {
    let name = assignment.migration.name();
    let (plan, took) = make_plan(desk, pace, lease, writer, assignment).await?;
    show_plan(desk, assignment, &plan, took)?;
    let (plan, assignment) = lost_expiry::ask(desk, plan, assignment.clone(), approval).await?;
    let assignment = &assignment;
    if plan.seen.mark_is_unproven && plan.seen.to_copy() == 0 && plan.errors().next().is_none() {
        let (control, watched) = desk.control(pace);
        let total = Some(plan.seen.total_sources());
        let proving = verify::prove_mark(writer, assignment, &control, plan.hash.as_str(), total, now());
        let report = progress::shown(desk.screen, name, watched, proving).await?;
        if report.unapplied > 0 {
            return Err(Stop::MarkUnproven { missing: report.unapplied }.into());
        }
        let mended = Mended::of(&plan, assignment, report.expiries_put_back, report.lost_expiry);
        show_proven(desk, name, &report, mended)?;
        return Ok(approval);
    }
    let may_refresh = plan.seen.differences_are_ours || plan.seen.targets_before() == 0;
    apply::may_begin(&plan, may_refresh, assignment.conflict_policy).map_err(|stop| refused(desk, stop))?;
    if !prompt::confirm(question, approval.is_given(), &desk.stop).await? {
        return Err(Failure::new(ExitCode::NotDone, "declined; no entry was touched"));
    }
    let (applied, verified) = work(desk, pace, lease, writer, assignment, &plan).await?;
    let mended = Mended::of(&plan, assignment, applied.expiries_put_back, verified.lost_expiry);
    show_applied(desk, name, &applied, &verified, mended)?;
    Ok(if approval.is_given() { approval } else { Approval::ByPerson })
}

/// That another tool's mark is true, and what differs all the same.
fn show_proven(desk: &Desk, name: &str, report: &VerifyReport, mended: Mended) -> Result<(), Failure> {
    desk.screen.event(&ProvenEvent {
        event: "proven",
        migration: name,
        equal: report.equal,
        different: report.different,
        lost_expiry: report.lost_expiry,
        expiries_put_back: mended.put_back,
        expiries_unmended: mended.unmended,
    })?;
    let mut text = format!(
        "{name}: the other tool's mark has proven true, and is stamped now: {} compared by value and found right{}",
        counted(report.equal, "entry", "entries"),
        mended.text()
    );
    if let Some(differences) = verify_words::differences(report) {
        let count = number(report.different);
        text.push_str(&format!("\n{count} differ from their sources, and stay as the application left them:\n"));
        text.push_str(&differences);
    }
    desk.screen.text(text)
}

async fn make_plan(
    desk: &Desk,
    pace: Pace,
    lease: &Lease,
    writer: &Writer,
    assignment: &Assignment,
) -> Result<(Plan, Duration), Failure> {
    let (mut plan, took) = plan::make(desk, writer, assignment, pace).await?;
    plan.seen.findings.extend(lease.stale_connections());
    Ok((plan, took))
}

fn show_plan(desk: &Desk, assignment: &Assignment, plan: &Plan, took: Duration) -> Result<(), Failure> {
    desk.screen.event(&PlanEvent { event: "plan", plan: plan::view(assignment, plan, took) })?;
    desk.screen.text(format!("{}\n", plan::text(assignment, plan, took)))
}

/// Copies or changes, proves, marks.
async fn work(
    desk: &Desk,
    pace: Pace,
    lease: &Lease,
    writer: &Writer,
    assignment: &Assignment,
    plan: &Plan,
) -> Result<(ApplyReport, VerifyReport), Failure> {
    let name = assignment.migration.name();
    journal::keep_alive(lease, assignment);
    let run = journal::begin_run(writer, assignment, lease.token(), &plan.seen, now()).await?;
    let (control, watched) = desk.control(pace);
    let applying = apply::apply(writer, assignment, &control, plan, &run);
    let applied = progress::shown(desk.screen, name, watched, applying).await.map_err(|stop| refused(desk, stop))?;
    let (control, watched) = desk.control(pace);
    let proving = verify::prove(writer, assignment, &control, plan, &run);
    let proof = progress::shown(desk.screen, name, watched, proving).await.map_err(|stop| refused(desk, stop))?;
    let verified = verify::mark(writer, assignment, proof, now()).await?;
    Ok((applied, verified))
}

/// Shows which targets are concerned before the failure says how many.
fn refused(desk: &Desk, stop: Stop) -> Failure {
    if let Stop::SourcesGone { sample, .. } = &stop {
        let rows = sample.iter().map(|key| vec![key.to_string()]);
        let _ = desk.screen.text(table(&["WITHOUT A SOURCE, FOR EXAMPLE"], rows.collect()));
    }
    if let Stop::Conflicts(report) = &stop {
        let rows = report.conflict_sample.iter().map(|(source, target)| vec![source.to_string(), target.to_string()]);
        let shown = table(&["SOURCE", "TARGET IN CONFLICT, FOR EXAMPLE"], rows.collect());
        let _ = desk.screen.text(shown);
    }
    stop.into()
}

fn show_applied(
    desk: &Desk,
    name: &str,
    applied: &ApplyReport,
    verified: &VerifyReport,
    mended: Mended,
) -> Result<(), Failure> {
    desk.screen.event(&AppliedEvent {
        event: "applied",
        migration: name,
        copied: applied.copied,
        changed: applied.changed,
        replaced: applied.replaced,
        already_migrated: applied.already_migrated,
        conflicts: applied.conflicts,
        kept_different: verified.different,
        ended: applied.ended,
        compared_equal: verified.equal,
        expiries_put_back: mended.put_back,
        expiries_unmended: mended.unmended,
        unmigrated: verified.unmigrated.total(),
        findings: &verified.findings,
    })?;
    let counts = [
        (applied.copied, "copied"),
        (applied.changed, "changed"),
        (applied.replaced, "replaced"),
        (applied.already_migrated, "done before"),
        (verified.different, "different from their sources and kept"),
        (applied.ended, "ended meanwhile"),
    ];
    let told: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", number(*count)))
        .collect();
    let told = if told.is_empty() { "nothing to do".to_owned() } else { told.join(", ") };
    let accepted = |found: &Finding| format!("accepted as {}: {}", found.code, found.message);
    let marked: Vec<String> =
        std::iter::once("marked as applied".to_owned()).chain(verified.findings.iter().map(accepted)).collect();
    desk.screen.text(format!(
        "{name}: {told}; {} compared by value and found right{}; {}\n",
        counted(verified.equal, "entry", "entries"),
        mended.text(),
        marked.join("; ")
    ))
}

async fn rerun(desk: &Desk, args: &ApplyArgs, lease: &Lease, assignment: &Assignment) -> Result<(), Failure> {
    let writer = lease.writer().await?;
    match assignment.migration.rule() {
        Rule::InPlace(_) if args.restore_missing.is_empty() => {
            let question = format!("Run {} again?", assignment.migration.name());
            apply_one(desk, args.pace, lease, &writer, assignment, &question, Approval::by(args.yes)).await.map(|_| ())
        }
        Rule::InPlace(_) => {
            let message = "--restore-missing: this migration changes entries in place, so nothing can be missing: \
                           leave it out";
            Err(Failure::new(ExitCode::Usage, message))
        }
        Rule::Rename(_) => {
            if lost_expiry::is_accepted(assignment) {
                lost_expiry::put_back(desk, args.yes, args.pace, &writer, assignment).await?;
            }
            if args.restore_missing.is_empty() {
                Ok(())
            } else {
                restore_missing(desk, args, &writer, assignment).await
            }
        }
    }
}

async fn report_missing(
    desk: &Desk,
    pace: Pace,
    keyspace: &Keyspace,
    assignment: &Assignment,
) -> Result<ExitCode, Failure> {
    let name = assignment.migration.name();
    let (control, watched) = desk.control(pace);
    let comparing = verify::compare(keyspace, assignment, &control, None);
    let report = progress::shown(desk.screen, name, watched, comparing).await?;
    verify_words::show_missing(desk.screen, name, &report)?;
    Ok(ExitCode::Done)
}

async fn restore_missing(
    desk: &Desk,
    args: &ApplyArgs,
    writer: &Writer,
    assignment: &Assignment,
) -> Result<(), Failure> {
    let name = assignment.migration.name();
    let sources = named_sources(&args.restore_missing)?;
    screen::say(format!(
        "{} behind the mark of {name}: whatever the application deleted since would return.",
        counted(sources.len() as u64, "source is to be copied", "sources are to be copied")
    ));
    if !prompt::confirm("Copy?", args.yes, &desk.stop).await? {
        return Err(Failure::new(ExitCode::NotDone, "declined; nothing was written"));
    }
    let (control, _) = desk.control(args.pace);
    let report = restore::restore(writer, assignment, &control, &sources).await?;
    show_restored(desk, name, &report)
}

fn named_sources(named: &[String]) -> Result<Vec<RedisKey>, Failure> {
    let mut sources = Vec::new();
    for name in named {
        match name.strip_prefix('@') {
            None => sources.push(RedisKey::unescape(name)),
            Some(file) => {
                let text = fs::read_to_string(file).map_err(|error| {
                    let message = format!("--restore-missing @{file}: can't be read: {error}");
                    Failure::new(ExitCode::Usage, message)
                })?;
                sources.extend(text.lines().filter(|line| !line.is_empty()).map(RedisKey::unescape));
            }
        }
    }
    Ok(sources)
}

fn show_restored(desk: &Desk, name: &str, report: &RestoreReport) -> Result<(), Failure> {
    let no_source: Vec<String> = report.no_source.iter().map(ToString::to_string).collect();
    desk.screen.event(&RestoredEvent {
        event: "restored",
        migration: name,
        copied: report.copied,
        target_exists: report.target_exists,
        no_source: no_source.clone(),
    })?;
    let mut text = format!(
        "{name}: {} copied, {} left as they are since their target exists",
        number(report.copied),
        number(report.target_exists)
    );
    if report.copied > 0 {
        text.push_str(
            "\nMigrations after it have to go through what was copied: they are unproven until `outpost-migrate-redis \
             apply --all`",
        );
    }
    desk.screen.text(text)?;
    match no_source.first() {
        None => Ok(()),
        Some(first) => {
            let message = format!(
                "{} of the named keys are no sources of {name} ({first}): name keys as --rerun reports them",
                no_source.len()
            );
            Err(Failure::new(ExitCode::NotDone, message))
        }
    }
}
