//! `list`: the migrations and where each stands.

use serde::Serialize;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::screen;
use crate::cli::session::Desk;
use crate::engine::survey::Standing;
use crate::model::mark::{Mark, Stamp};
use crate::model::time::UnixMillis;

/// Lists.
pub(super) async fn run(desk: &Desk) -> Result<ExitCode, Failure> {
    let keyspace = desk.connect().await?;
    let rows = rows(&desk.standings(&keyspace).await?, &desk.parameters());
    desk.screen.result(table(&rows), &Listed { migrations: &rows })?;
    Ok(ExitCode::Done)
}

#[derive(Serialize)]
struct Listed<'a> {
    migrations: &'a [Row],
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It has no mark.
    Pending,
    /// Another tool marked it; nothing proves it yet.
    Unproven,
    /// Proven and marked.
    Applied,
    /// Proven for another key layout than the one that is asked about.
    AppliedForOtherLayout,
    /// It never applies to this keyspace.
    NotApplicable,
}

impl State {
    pub(super) fn of(standing: &Standing, parameters: &str) -> Self {
        match (&standing.mark, standing.not_applicable) {
            (Mark::NotApplicable, _) | (_, Some(_)) => Self::NotApplicable,
            (Mark::Absent, None) => Self::Pending,
            (Mark::Unstamped, None) => Self::Unproven,
            (Mark::Stamped(stamp), None) if stamp.is_for(parameters) => Self::Applied,
            (Mark::Stamped(_), None) => Self::AppliedForOtherLayout,
        }
    }

    /// Whether apply has something to do about it.
    pub(super) fn is_pending(self) -> bool {
        match self {
            Self::Pending | Self::Unproven => true,
            Self::Applied | Self::AppliedForOtherLayout | Self::NotApplicable => false,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Unproven => "unproven",
            Self::Applied => "applied",
            Self::AppliedForOtherLayout => "applied (other layout)",
            Self::NotApplicable => "not applicable",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) name: &'static str,
    version: u32,
    pub(super) state: State,
    applied_at: Option<String>,
    verified_at: Option<String>,
    cleaned_up_at: Option<String>,
    description: &'static str,
}

impl Row {
    /// Whether its originals were removed.
    pub(super) fn has_been_cleaned_up(&self) -> bool {
        self.cleaned_up_at.is_some()
    }
}

/// Where each migration stands.
pub(super) fn rows(standings: &[Standing], parameters: &str) -> Vec<Row> {
    standings.iter().map(|standing| row(standing, parameters)).collect()
}

fn row(standing: &Standing, parameters: &str) -> Row {
    let stamp = match &standing.mark {
        Mark::Stamped(stamp) => Some(stamp),
        Mark::Absent | Mark::Unstamped | Mark::NotApplicable => None,
    };
    let time = |at: fn(&Stamp) -> Option<UnixMillis>| stamp.and_then(at).map(|at| at.to_string());
    Row {
        name: standing.migration.name(),
        version: standing.migration.version(),
        state: State::of(standing, parameters),
        applied_at: standing.applied_at.map(|at| at.to_string()),
        verified_at: time(|stamp| stamp.verified_at),
        cleaned_up_at: time(|stamp| stamp.cleaned_up_at),
        description: standing.migration.description(),
    }
}

/// The table for people.
pub(super) fn table(rows: &[Row]) -> String {
    let headings = ["NAME", "VERSION", "STATE", "APPLIED AT", "VERIFIED AT", "CLEANED UP AT", "DESCRIPTION"];
    let or_dash = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
    let cells = rows.iter().map(|row| {
        vec![
            row.name.to_owned(),
            row.version.to_string(),
            row.state.words().to_owned(),
            or_dash(&row.applied_at),
            or_dash(&row.verified_at),
            or_dash(&row.cleaned_up_at),
            row.description.to_owned(),
        ]
    });
    screen::table(&headings, cells.collect())
}
