//! `cleanup`: removes originals that equal their targets.

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::list::{self, Row, State};
use crate::cli::plan;
use crate::cli::progress;
use crate::cli::prompt;
use crate::cli::screen::{counted, number, table};
use crate::cli::session::{Acceptance, Desk, Pace, now};
use crate::cli::verify::differences;
use crate::engine::lock::Lease;
use crate::engine::{Assignment, Stop, cleanup, verify};
use crate::keyspace::Writer;
use crate::migrations::Rule;
use crate::model::finding::Finding;
use crate::model::policy::DivergedPolicy;
use crate::model::report::{CleanupReport, VerifyReport};

const EXAMPLES: &str = "\
Examples:
  outpost-migrate-redis cleanup
  outpost-migrate-redis cleanup --yes --diverged delete";

/// Options of `cleanup`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CleanupArgs {
    /// Clean up after this migration. Default: after every one that left originals
    migration: Option<String>,
    /// Do not ask; what has to be accepted by name still has to be
    #[arg(long, short)]
    yes: bool,
    /// Skip the pass that compares everything first; each original is compared before it is removed all the same
    #[arg(long, short)]
    force: bool,
    /// What happens to originals whose target is not equal (any more)
    #[arg(long, value_enum, default_value_t = Diverged::Keep)]
    diverged: Diverged,
    /// Ask for a snapshot (BGSAVE) of each primary that has neither replica nor append-only file, instead of waiting
    /// for its own; the fork takes memory
    #[arg(long)]
    save: bool,
    #[command(flatten)]
    acceptance: Acceptance,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Diverged {
    /// They stay, and are counted
    Keep,
    /// They go
    Delete,
}

/// What cleanup did, as JSON.
#[derive(Serialize)]
struct CleanedUp<'a> {
    event: &'static str,
    migration: &'a str,
    removed: u64,
    removed_before: u64,
    kept_diverged: u64,
    kept_changed: u64,
    kept_as_signs: u64,
    gone: u64,
    /// As the comparison before counted; `null` with `--force`, which leaves it out.
    unmigrated: Option<u64>,
    kept_sample: Vec<String>,
    findings: &'a [Finding],
}

/// Cleans up.
pub(super) async fn run(desk: &Desk, args: &CleanupArgs) -> Result<ExitCode, Failure> {
    let keyspace = desk.connect().await?;
    let rows = list::rows(&desk.standings(&keyspace).await?, &desk.parameters());
    let assignments = chosen(desk, &rows, args)?;
    let Some(first) = assignments.first() else {
        desk.screen.nothing("Nothing to clean up.")?;
        return Ok(ExitCode::Done);
    };
    prompt::check_answerable(args.yes)?;
    let lease = desk.take_lock(first, "cleanup").await?;
    let done = clean_up_all(desk, args, &lease, &assignments).await;
    lease.release().await;
    done.map(|()| ExitCode::Done)
}

/// What left originals and is proven; a migration that was named must be.
fn chosen(desk: &Desk, rows: &[Row], args: &CleanupArgs) -> Result<Vec<Assignment>, Failure> {
    let diverged = match args.diverged {
        Diverged::Keep => DivergedPolicy::Keep,
        Diverged::Delete => DivergedPolicy::Delete,
    };
    let accepted = args.acceptance.accepted();
    let mut assignments = Vec::new();
    let mut unproven = None;
    let named = args.migration.as_deref().map(|name| desk.migration(name)).transpose()?;
    for row in rows.iter().filter(|row| named.as_ref().is_none_or(|named| named.name() == row.name)) {
        let migration = desk.migration(row.name)?;
        let leaves_originals = match migration.rule() {
            Rule::Rename(_) => true,
            Rule::InPlace(_) => false,
        };
        match row.state {
            State::Applied if leaves_originals => {
                let mut assignment = desk.assignment(&migration, diverged).accepting(&accepted);
                assignment.terms.save = args.save;
                assignments.push(assignment);
            }
            State::Pending | State::Unproven | State::AppliedForOtherLayout if leaves_originals => {
                unproven = Some(row.name);
            }
            State::Applied | State::Pending | State::Unproven | State::AppliedForOtherLayout | State::NotApplicable => {
            }
        }
    }
    match unproven {
        Some(name) if assignments.is_empty() => {
            let message =
                format!("{name} is not verified, so nothing was removed: `outpost-migrate-redis apply` proves it");
            Err(Failure::new(ExitCode::NotDone, message))
        }
        Some(_) | None => Ok(assignments),
    }
}

async fn clean_up_all(
    desk: &Desk,
    args: &CleanupArgs,
    lease: &Lease,
    assignments: &[Assignment],
) -> Result<(), Failure> {
    desk.screen.text_if_any(plan::findings(&lease.stale_connections()))?;
    let writer = lease.writer().await?;
    for assignment in assignments {
        clean_up(desk, args, &writer, assignment).await?;
    }
    Ok(())
}

async fn clean_up(desk: &Desk, args: &CleanupArgs, writer: &Writer, assignment: &Assignment) -> Result<(), Failure> {
    let name = assignment.migration.name();
    let (mut total, mut unmigrated) = (None, None);
    if !args.force {
        let (control, progress) = desk.control(args.pace);
        let comparing = verify::compare(writer, assignment, &control, None);
        let report = progress::shown(desk.screen, name, progress, comparing).await?;
        desk.screen.text(compared(name, &report, args.diverged))?;
        total = Some(report.equal + report.different);
        unmigrated = Some(report.unmigrated.total());
    }
    if total != Some(0) {
        let findings = cleanup::findings(writer, assignment).await?;
        desk.screen.text_if_any(plan::findings(&findings))?;
        if findings.iter().any(Finding::blocks) {
            return Err(Stop::PreflightFailed(findings.into_iter().filter(Finding::blocks).collect()).into());
        }
    }
    let question = match total {
        Some(total) => format!("Remove originals of {name} ({})?", counted(total, "entry", "entries")),
        None => format!("Remove originals of {name}?"),
    };
    if total != Some(0) && !prompt::confirm(&question, args.yes, &desk.stop).await? {
        return Err(Failure::new(ExitCode::NotDone, "declined; nothing was removed"));
    }
    let (control, progress) = desk.control(args.pace);
    let removing = cleanup::cleanup(writer, assignment, &control, total, now());
    let report = progress::shown(desk.screen, name, progress, removing).await?;
    desk.screen.event(&view(name, &report, unmigrated))?;
    desk.screen.text(text(name, &report, unmigrated))
}

fn compared(name: &str, report: &VerifyReport, diverged: Diverged) -> String {
    let mut text = format!(
        "{name}: every entry compared: {} equal their targets, {} diverged",
        number(report.equal),
        number(report.different)
    );
    if report.different > 0 {
        text.push_str(match diverged {
            Diverged::Keep => " and will be kept (--diverged delete removes them too)",
            Diverged::Delete => " and will be removed too (--diverged delete)",
        });
    }
    if let (Diverged::Delete, missing @ 1..) = (diverged, report.unapplied) {
        text.push_str(&format!("; {} of them have no target, so that the only copy goes", number(missing)));
    }
    match differences(report) {
        Some(differences) => format!("{text}\n{differences}"),
        None => text,
    }
}

fn view<'a>(name: &'a str, report: &'a CleanupReport, unmigrated: Option<u64>) -> CleanedUp<'a> {
    CleanedUp {
        event: "cleaned_up",
        migration: name,
        removed: report.removed,
        removed_before: report.removed_before,
        kept_diverged: report.kept_diverged,
        kept_changed: report.kept_changed,
        kept_as_signs: report.kept_as_signs,
        gone: report.gone,
        unmigrated,
        kept_sample: report.kept_sample.iter().map(ToString::to_string).collect(),
        findings: &report.findings,
    }
}

fn text(name: &str, report: &CleanupReport, unmigrated: Option<u64>) -> String {
    let mut text = format!("{name}: {} removed", counted(report.removed, "original", "originals"));
    if report.removed_before > 0 {
        text.push_str(&format!(", after {} by attempts that were interrupted", number(report.removed_before)));
    }
    let kept = [
        (report.kept_diverged, "their target is diverged (--diverged delete removes them)"),
        (report.kept_changed, "they changed meanwhile"),
        (report.kept_as_signs, "they show whose keys under a braced id are"),
        (unmigrated.unwrap_or_default(), "no rule maps them"),
    ];
    let rows: Vec<Vec<String>> = kept
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, why)| vec![number(count), why.to_owned()])
        .collect();
    if !rows.is_empty() {
        text.push_str(&format!("\n{}", table(&["KEPT", "BECAUSE"], rows)));
    }
    let sample: Vec<String> = report.kept_sample.iter().map(ToString::to_string).collect();
    if !sample.is_empty() {
        text.push_str(&format!("\nFor example: {}", sample.join(", ")));
    }
    text
}
