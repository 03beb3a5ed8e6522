//! `status`: where each migration stands, who holds the lock, and what to do next.

use serde::Serialize;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::list::{self, Row, State};
use crate::cli::session::Desk;
use crate::cli::unlock::LockView;
use crate::engine::lock;
use crate::migrations::state_keys::StateKeys;

#[derive(Serialize)]
struct Status<'a> {
    migrations: &'a [Row],
    locks: &'a [LockView],
    next: String,
}

/// Shows it.
pub(super) async fn run(desk: &Desk) -> Result<ExitCode, Failure> {
    let keyspace = desk.connect().await?;
    let rows = list::rows(&desk.standings(&keyspace).await?, &desk.parameters());
    let keys = StateKeys::new(desk.configuration.scope.deployment_id.as_deref()).locks();
    let locks: Vec<LockView> = lock::holders(&keyspace, &keys).await?.iter().map(LockView::new).collect();
    let next = next(&rows, !locks.is_empty());
    let lock_lines = if locks.is_empty() {
        "Lock: free".to_owned()
    } else {
        locks.iter().map(|lock| format!("Lock: {lock}")).collect::<Vec<_>>().join("\n")
    };
    let text = format!("{}\n\n{lock_lines}\nNext: {next}", list::table(&rows));
    desk.screen.result(text, &Status { migrations: &rows, locks: &locks, next: next.clone() })?;
    Ok(ExitCode::Done)
}

/// What to do next, in one sentence.
pub(super) fn next(rows: &[Row], is_locked: bool) -> String {
    if is_locked {
        return "wait until the lock is free, or see `outpost-migrate-redis unlock`".to_owned();
    }
    let first = |state: State| rows.iter().find(|row| row.state == state).map(|row| row.name);
    let pending = rows.iter().find(|row| row.state.is_pending());
    match (pending, first(State::AppliedForOtherLayout)) {
        (Some(row), _) if row.state == State::Unproven => format!(
            "another tool marked {}, which proves nothing: `outpost-migrate-redis apply` compares everything",
            row.name
        ),
        (Some(row), _) => format!("{} is pending: see `outpost-migrate-redis plan`", row.name),
        (None, Some(name)) => format!("{name} was applied for the other key layout: see --key-layout"),
        (None, None) if rows.iter().any(Row::has_been_cleaned_up) => "nothing; everything is applied".to_owned(),
        (None, None) => "nothing; everything is applied. Originals go with `outpost-migrate-redis cleanup`".to_owned(),
    }
}
