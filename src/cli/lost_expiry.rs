//! Expiries that another tool dropped, at the command line: asks about them, and has them put back.

use serde::Serialize;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::prompt::{self, Approval};
use crate::cli::screen::counted;
use crate::cli::session::{Desk, Pace};
use crate::engine::{Assignment, lost_expiry};
use crate::keyspace::Writer;
use crate::model::finding::FindingCode;
use crate::model::plan::Plan;

#[derive(Serialize)]
struct PutBackEvent<'a> {
    event: &'static str,
    migration: &'a str,
    count: u64,
}

/// What became of the expiries that a plan found lost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mended {
    pub(super) put_back: u64,
    /// Neither put back nor lost still.
    pub(super) unmended: u64,
}

impl Mended {
    /// `still_lost` were found by the comparison that came after. Nothing was to be mended unless it was accepted,
    /// behind another tool's mark.
    pub(super) fn of(plan: &Plan, assignment: &Assignment, put_back: u64, still_lost: u64) -> Self {
        if !plan.seen.mark_is_unproven || !is_accepted(assignment) {
            return Self::default();
        }
        Self { put_back, unmended: plan.seen.expiries_unmended(put_back, still_lost) }
    }

    /// What is to be said of it; nothing if there was nothing to mend.
    pub(super) fn text(self) -> String {
        let mut text = String::new();
        if self.put_back > 0 {
            text.push_str(&format!("; {} got their expiry back", counted(self.put_back, "target", "targets")));
        }
        if self.unmended > 0 {
            text.push_str(&format!(
                "; {} could not get it back, since the source ended or somebody wrote the target before: look whether \
                 deleted tenants and destinations stay there for ever",
                counted(self.unmended, "target", "targets")
            ));
        }
        text
    }
}

/// Whether putting expiries back was accepted by name.
pub(super) fn is_accepted(assignment: &Assignment) -> bool {
    assignment.terms.accepted.contains(FindingCode::LostExpiry)
}

/// Asks whether expiries that the other tool dropped are to be put back; nothing else can be done about them. `--yes`
/// answers a question that was foreseen, and accepts nothing that was found.
pub(super) async fn ask(
    desk: &Desk,
    mut plan: Plan,
    mut assignment: Assignment,
    approval: Approval,
) -> Result<(Plan, Assignment), Failure> {
    let lost = plan.seen.lost_expiry;
    let is_asked = plan.errors().any(|finding| finding.code == FindingCode::LostExpiry);
    let blocks_anyway = plan.errors().any(|finding| finding.code != FindingCode::LostExpiry);
    if !is_asked || blocks_anyway || !approval.has_reader() {
        return Ok((plan, assignment));
    }

    let question = format!("Put back the expiry of {}?", counted(lost, "target", "targets"));
    if !prompt::confirm(&question, false, &desk.stop).await? {
        return Err(Failure::new(ExitCode::NotDone, "declined; no entry was touched"));
    }
    assignment.terms.accepted = assignment.terms.accepted.with(FindingCode::LostExpiry);
    for finding in &mut plan.seen.findings {
        finding.accepted |= finding.code == FindingCode::LostExpiry;
    }
    plan.hash = assignment.terms.plan_hash(&plan.seen);
    Ok((plan, assignment))
}

/// Puts back expiries of a migration whose mark is ours already, as somebody asked for by name.
pub(super) async fn put_back(
    desk: &Desk,
    yes: bool,
    pace: Pace,
    writer: &Writer,
    assignment: &Assignment,
) -> Result<(), Failure> {
    let name = assignment.migration.name();
    let question = format!("Put back expiries that targets of {name} lost, where all else is equal?");
    if !prompt::confirm(&question, yes, &desk.stop).await? {
        return Err(Failure::new(ExitCode::NotDone, "declined; nothing was written"));
    }
    let (control, _) = desk.control(pace);
    let count = lost_expiry::put_back(writer, assignment, &control).await?;
    desk.screen.event(&PutBackEvent { event: "expiries_put_back", migration: name, count })?;
    desk.screen.text(format!("{name}: {} got their expiry back", counted(count, "target", "targets")))
}
