//! `plan`: what apply would do. Takes no lock and writes nothing.

use std::time::{Duration, Instant};

use anstyle::AnsiColor;
use clap::Args;
use serde::Serialize;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::list::{self, Row};
use crate::cli::progress;
use crate::cli::screen::{bytes, coloured, counted, number, table};
use crate::cli::session::{Acceptance, Desk, Pace};
use crate::cli::status;
use crate::engine::{Assignment, plan};
use crate::keyspace::Keyspace;
use crate::migrations::Rule;
use crate::model::count::Unmigrated;
use crate::model::finding::{Finding, Severity};
use crate::model::plan::{Plan, Seen};
use crate::model::policy::{ConflictPolicy, DivergedPolicy};
use crate::model::time::human_seconds;

/// Apply takes about so many times as long as its plan took, its comparison included: measured on one server and on a
/// cluster of three primaries (3.7 and 6.5 with a million keys for a migration that renames keys, 3.3 and 3.4 with
/// 107,000 for one in place).
fn apply_by_plan(rule: Rule<'_>) -> u32 {
    match rule {
        Rule::Rename(_) => 5,
        Rule::InPlace(_) => 4,
    }
}

const EXAMPLES: &str = "\
Examples:
  outpost-migrate-redis plan
  outpost-migrate-redis plan 002_timestamps --output json";

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    /// Plan this migration. Default: the next pending one
    migration: Option<String>,
    #[command(flatten)]
    acceptance: Acceptance,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Serialize)]
struct Planned<'a> {
    migrations: &'a [Row],
    plan: Option<PlanView<'a>>,
    next: String,
}

/// A plan as JSON.
#[derive(Serialize)]
pub(super) struct PlanView<'a> {
    migration: &'a str,
    total_sources: u64,
    to_apply: u64,
    estimated_seconds: u64,
    #[serde(flatten)]
    plan: &'a Plan,
}

/// Plans the next pending migration, or the named one.
pub(super) async fn run(desk: &Desk, args: &PlanArgs) -> Result<ExitCode, Failure> {
    let accepted = args.acceptance.accepted();
    let named = args.migration.as_ref().map(|name| desk.migration(name)).transpose()?;
    let keyspace = desk.connect().await?;
    let rows = list::rows(&desk.standings(&keyspace).await?, &desk.parameters());
    desk.screen.text(list::table(&rows))?;
    let pending = rows.iter().find(|row| row.state.is_pending()).map(|row| row.name);
    let chosen = match named {
        Some(migration) => Some(migration),
        None => pending.map(|name| desk.migration(name)).transpose()?,
    };
    let Some(migration) = chosen else {
        let next = status::next(&rows, false);
        let text = format!("\nNext: {next}");
        desk.screen.result(text, &Planned { migrations: &rows, plan: None, next })?;
        return Ok(ExitCode::Done);
    };
    let assignment = desk.assignment(&migration, DivergedPolicy::Keep).accepting(&accepted);
    let (plan, took) = make(desk, &keyspace, &assignment, args.pace).await?;
    let next = next(desk, &plan, assignment.migration.name(), pending);
    let text = format!("\n{}\n\nNext: {next}", text(&assignment, &plan, took));
    let view = view(&assignment, &plan, took);
    desk.screen.result(text, &Planned { migrations: &rows, plan: Some(view), next })?;
    Ok(ExitCode::Done)
}

/// Makes a plan and shows how far it is; gives how long it took, too.
pub(super) async fn make(
    desk: &Desk,
    keyspace: &Keyspace,
    assignment: &Assignment,
    pace: Pace,
) -> Result<(Plan, Duration), Failure> {
    let (control, progress) = desk.control(pace);
    let began = Instant::now();
    let making = plan::plan(keyspace, assignment, &control);
    let plan = progress::shown(desk.screen, assignment.migration.name(), progress, making).await?;
    Ok((plan, began.elapsed()))
}

/// A plan as JSON.
pub(super) fn view<'a>(assignment: &'a Assignment, plan: &'a Plan, took: Duration) -> PlanView<'a> {
    PlanView {
        migration: assignment.migration.name(),
        total_sources: plan.seen.total_sources(),
        to_apply: plan.seen.to_copy(),
        estimated_seconds: estimate(assignment, &plan.seen, took),
        plan,
    }
}

/// A plan for people.
pub(super) fn text(assignment: &Assignment, plan: &Plan, took: Duration) -> String {
    let seen = &plan.seen;
    let mut parts = vec![
        format!("Plan of {}: {}", assignment.migration.name(), assignment.migration.description()),
        scope(seen),
        size(assignment, seen, took),
    ];
    parts.extend(examples(seen));
    parts.extend(unmigrated(&seen.unmigrated));
    parts.extend(findings(seen));
    parts.extend(warnings(assignment, seen));
    parts.push(format!("Hash: {}", plan.hash));
    parts.join("\n\n")
}

fn scope(seen: &Seen) -> String {
    let mut entities: Vec<&str> = seen.sources.keys().chain(seen.current.keys()).copied().collect();
    entities.sort_unstable();
    entities.dedup();
    let count =
        |counts: &crate::model::count::PerEntity, entity: &str| number(counts.get(entity).copied().unwrap_or(0));
    let row = |entity: &&str| vec![(*entity).to_owned(), count(&seen.sources, entity), count(&seen.current, entity)];
    table(&["ENTITY", "LEGACY", "CURRENT"], entities.iter().map(row).collect())
}

fn size(assignment: &Assignment, seen: &Seen, took: Duration) -> String {
    let mut text = format!("To do: {}", counted(seen.to_copy(), "entry", "entries"));
    if seen.to_copy() > 0 {
        let seconds = human_seconds(estimate(assignment, seen, took).max(1));
        if seen.estimated_bytes > 0 {
            text.push_str(&format!(", about {}", bytes(seen.estimated_bytes)));
        }
        text.push_str(&format!(", in about {seconds}"));
    }
    if seen.already_migrated > 0 {
        text.push_str(&format!("; {} done already", number(seen.already_migrated)));
    }
    if seen.conflicts > 0 && seen.differences_are_ours {
        text.push_str(&format!("; {} stale copies of an earlier run to refresh", number(seen.conflicts)));
    } else if seen.conflicts > 0 {
        text.push_str(&format!("; {} in conflict: their targets exist and differ", number(seen.conflicts)));
    }
    text
}

fn estimate(assignment: &Assignment, seen: &Seen, took: Duration) -> u64 {
    let times = apply_by_plan(assignment.migration.rule());
    if seen.to_copy() == 0 { 0 } else { (took * times).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX) }
}

fn examples(seen: &Seen) -> Option<String> {
    let (source, target) = seen.sample.iter().next()?;
    let mut text =
        if source == target { format!("For example: {source}") } else { format!("For example: {source} → {target}") };
    if let Some((source, target)) = seen.conflict_sample.iter().next().filter(|_| !seen.differences_are_ours) {
        text.push_str(&format!("\nIn conflict, for example: {source} and {target}"));
    }
    Some(text)
}

/// Keys that stay where they are, with reasons.
pub(super) fn unmigrated(unmigrated: &Unmigrated) -> Option<String> {
    if unmigrated.total() == 0 {
        return None;
    }
    let reasons = unmigrated.by_reason.iter().map(|(reason, count)| vec![number(*count), reason.explain().to_owned()]);
    let keys = unmigrated.sample.iter().map(|(key, reason)| vec![key.to_string(), reason.explain().to_owned()]);
    Some(format!(
        "Unmigrated, and left alone: {}\n{}\n\n{}",
        counted(unmigrated.total(), "key", "keys"),
        table(&["COUNT", "REASON"], reasons.collect()),
        table(&["KEY, FOR EXAMPLE", "REASON"], keys.collect())
    ))
}

fn findings(seen: &Seen) -> Option<String> {
    if seen.findings.is_empty() {
        return None;
    }
    let line = |finding: &Finding| {
        let (word, colour) = match finding.severity {
            Severity::Error => ("error  ", AnsiColor::Red),
            Severity::Warning => ("warning", AnsiColor::Yellow),
            Severity::Note => ("note   ", AnsiColor::Cyan),
        };
        let accepted = if finding.accepted { "accepted: " } else { "" };
        format!("  {}  {accepted}{}", coloured(word, colour), finding.message)
    };
    let lines: Vec<String> = seen.findings.iter().map(line).collect();
    Some(format!("Findings:\n{}", lines.join("\n")))
}

/// What a person has to know before saying yes.
fn warnings(assignment: &Assignment, seen: &Seen) -> Vec<String> {
    let mut warnings = Vec::new();
    if seen.mark_is_unproven && seen.to_copy() > 0 {
        warnings.push(format!(
            "{} is marked as applied, but nothing proves it: {} not migrated. If the application has run since, some of \
             them may have been deleted by it, and would come back.",
            assignment.migration.name(),
            if seen.to_copy() == 1 {
                "1 entry is".to_owned()
            } else {
                format!("{} entries are", number(seen.to_copy()))
            },
        ));
    }
    if seen.to_copy() > 0 {
        warnings.push(
            "The old version of Outpost must not write from now on until it is replaced: what it writes behind a copy \
             would be missing."
                .to_owned(),
        );
    }
    warnings
}

fn next(desk: &Desk, plan: &Plan, name: &str, pending: Option<&str>) -> String {
    if plan.errors().next().is_some() {
        return "mend what the errors name; they block apply".to_owned();
    }
    let seen = &plan.seen;
    let is_conflict = seen.conflicts > 0 && !seen.differences_are_ours && !seen.mark_is_unproven;
    if is_conflict && desk.configuration.conflict_policy == ConflictPolicy::Fail {
        return "compare the targets in conflict with their sources, then choose a --conflict-policy".to_owned();
    }
    match pending {
        Some(first) if first == name => {
            "stop the old version of Outpost, then `outpost-migrate-redis apply`".to_owned()
        }
        Some(first) => format!("{first} comes first: `outpost-migrate-redis apply`"),
        None => "nothing; everything is applied".to_owned(),
    }
}
