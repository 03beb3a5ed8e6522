//! `verify`: compares every entry by value. Takes no lock and writes nothing.

use clap::Args;
use serde::Serialize;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::list::{self, Row, State};
use crate::cli::progress;
use crate::cli::screen::{Screen, counted, number, table};
use crate::cli::session::{Desk, Pace};
use crate::engine::{Assignment, sample, verify};
use crate::keyspace::Keyspace;
use crate::migrations::Rule;
use crate::model::difference::Difference;
use crate::model::key::RedisKey;
use crate::model::policy::DivergedPolicy;
use crate::model::report::VerifyReport;

const EXAMPLES: &str = "\
Examples:
  outpost-migrate-redis verify
  outpost-migrate-redis verify --sample 1000   # a quick look, no proof";

/// Options of `verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Verify this migration. Default: every one that is marked; without any, the next pending one
    migration: Option<String>,
    /// Compare about this many entries only: a quick look, which proves nothing
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    #[command(flatten)]
    pace: Pace,
}

/// A comparison as JSON.
#[derive(Serialize)]
pub(super) struct Compared<'a> {
    event: &'static str,
    migration: &'a str,
    state: State,
    complete: bool,
    equal: u64,
    different: u64,
    ended: u64,
    unmigrated: u64,
    differences: Vec<DifferenceView>,
}

#[derive(Serialize)]
struct DifferenceView {
    key: String,
    #[serde(flatten)]
    difference: Difference,
}

/// Verifies.
pub(super) async fn run(desk: &Desk, args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let keyspace = desk.connect().await?;
    let rows = list::rows(&desk.standings(&keyspace).await?, &desk.parameters());
    let mut differs = false;
    for row in chosen(desk, &rows, args.migration.as_deref())? {
        let assignment = desk.assignment(&desk.migration(row.name)?, DivergedPolicy::Keep);
        let report = Box::pin(compare(desk, &keyspace, &assignment, args)).await?;
        let is_in_place = match assignment.migration.rule() {
            Rule::InPlace(_) => true,
            Rule::Rename(_) => false,
        };
        show(desk.screen, row, &report, args.sample.is_none(), is_in_place)?;
        differs |= report.different > 0;
    }
    Ok(if differs { ExitCode::NotDone } else { ExitCode::Done })
}

fn chosen<'r>(desk: &Desk, rows: &'r [Row], name: Option<&str>) -> Result<Vec<&'r Row>, Failure> {
    if let Some(name) = name {
        let migration = desk.migration(name)?;
        return Ok(rows.iter().filter(|row| row.name == migration.name()).collect());
    }
    let is_marked = |row: &&Row| match row.state {
        State::Applied | State::Unproven => true,
        State::Pending | State::AppliedForOtherLayout | State::NotApplicable => false,
    };
    let marked: Vec<&Row> = rows.iter().filter(is_marked).collect();
    if marked.is_empty() {
        Ok(rows.iter().find(|row| row.state.is_pending()).into_iter().collect())
    } else {
        Ok(marked)
    }
}

async fn compare(
    desk: &Desk,
    keyspace: &Keyspace,
    assignment: &Assignment,
    args: &VerifyArgs,
) -> Result<VerifyReport, Failure> {
    let (control, progress) = desk.control(args.pace);
    let work = async {
        match args.sample {
            Some(count) => sample::compare_some(keyspace, assignment, &control, count).await,
            None => verify::compare(keyspace, assignment, &control, None).await,
        }
    };
    Ok(Box::pin(progress::shown(desk.screen, assignment.migration.name(), progress, work)).await?)
}

fn show(screen: Screen, row: &Row, report: &VerifyReport, is_complete: bool, is_in_place: bool) -> Result<(), Failure> {
    screen.event(&view(row, report, is_complete))?;
    screen.text(text(row, report, is_complete, is_in_place))
}

fn view<'a>(row: &'a Row, report: &VerifyReport, complete: bool) -> Compared<'a> {
    let difference = |(key, difference): &(_, Difference)| DifferenceView {
        key: ToString::to_string(key),
        difference: difference.clone(),
    };
    Compared {
        event: "verified",
        migration: row.name,
        state: row.state,
        complete,
        equal: report.equal,
        different: report.different,
        ended: report.ended,
        unmigrated: report.unmigrated.total(),
        differences: report.sample.iter().map(|it: &(RedisKey, Difference)| difference(it)).collect(),
    }
}

fn text(row: &Row, report: &VerifyReport, is_complete: bool, is_in_place: bool) -> String {
    let looked_at = if is_complete { "every entry compared" } else { "a sample compared, which proves nothing" };
    let mut text = format!(
        "{}: {looked_at}: {} as they should be, {} differ",
        row.name,
        number(report.equal),
        number(report.different)
    );
    if report.lost_expiry > 0 {
        text.push_str(&format!(" ({} of them only in an expiry that was dropped)", number(report.lost_expiry)));
    }
    if report.unmigrated.total() > 0 {
        text.push_str(&format!("; {} unmigrated, left alone", counted(report.unmigrated.total(), "key", "keys")));
    }
    if let Some(differences) = differences(report) {
        text.push_str(&format!("\n{differences}"));
    }
    if report.different > 0 {
        text.push_str(match row.state {
            State::Applied if is_in_place => "\nNext: `outpost-migrate-redis apply --rerun` with its name catches up.",
            State::Applied => {
                "\nThe migration was proven; what differs since is the application's, and stays as it is."
            }
            State::Unproven | State::Pending => "\nNext: `outpost-migrate-redis plan` shows what apply would do.",
            State::AppliedForOtherLayout | State::NotApplicable => "",
        });
    }
    text
}

/// What differs: keys and field names, never values.
pub(super) fn differences(report: &VerifyReport) -> Option<String> {
    if report.sample.is_empty() {
        return None;
    }
    let rows = report.sample.iter().map(|(key, difference)| vec![key.to_string(), difference.to_string()]);
    let mut text = table(&["KEY", "DIFFERENCE"], rows.collect());
    let more = report.different.saturating_sub(report.sample.len() as u64);
    if more > 0 {
        text.push_str(&format!("\n… and {} more", number(more)));
    }
    Some(text)
}

#[derive(Serialize)]
struct MissingEvent<'a> {
    event: &'static str,
    migration: &'a str,
    missing: u64,
    keys: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    lost_expiry: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a rerun of a renaming migration reports: sources without target.
pub(super) fn show_missing(screen: Screen, name: &str, report: &VerifyReport) -> Result<(), Failure> {
    let keys: Vec<String> = report.unapplied_sample.iter().map(RedisKey::escaped).collect();
    let more = report.unapplied.saturating_sub(keys.len() as u64);
    let mut text = format!("{name}: {} without target", counted(report.unapplied, "source", "sources"));
    for key in &keys {
        text.push_str(&format!("\n  {key}"));
    }
    if more > 0 {
        text.push_str(&format!("\n  … and {} more", number(more)));
    }
    if report.unapplied > 0 {
        text.push_str(
            "\nThey may have been deleted by the application since. To copy one all the same: --restore-missing KEY",
        );
    }
    if report.lost_expiry > 0 {
        text.push_str(&format!(
            "\n{} lost the expiry of their source, and equal it otherwise. To put it back: --accept-finding LostExpiry",
            counted(report.lost_expiry, "target", "targets")
        ));
    }
    let lost_expiry = report.lost_expiry;
    screen.event(&MissingEvent { event: "missing", migration: name, missing: report.unapplied, keys, lost_expiry })?;
    screen.text(text)
}
