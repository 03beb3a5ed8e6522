//! Apply: copies every source to its target, or changes every entry in place. The gate stays closed; the mark
//! comes with verify.

use crate::engine::assignment::Assignment;
use crate::engine::control::{Control, Meter};
use crate::engine::in_place::Changer;
use crate::engine::journal::Run;
use crate::engine::lost_expiry;
use crate::engine::pass;
use crate::engine::settle::{OnDifference, Reopening, Settler, on_difference};
use crate::engine::stop::Stop;
use crate::keyspace::Writer;
use crate::migrations::Rule;
use crate::model::finding::Finding;
use crate::model::phase::Step;
use crate::model::plan::Plan;
use crate::model::policy::ConflictPolicy;
use crate::model::report::ApplyReport;

/// Whether a plan lets apply begin under this run and policy.
///
/// # Errors
/// [`Stop::PreflightFailed`] with the findings that block; [`Stop::Conflicts`] if targets of others
/// differ and the policy is to fail.
pub fn may_begin(plan: &Plan, run_may_refresh: bool, policy: ConflictPolicy) -> Result<(), Stop> {
    let errors: Vec<Finding> = plan.errors().cloned().collect();
    if !errors.is_empty() {
        return Err(Stop::PreflightFailed(errors));
    }
    let seen = &plan.seen;
    if seen.conflicts > 0 && policy == ConflictPolicy::Fail && !run_may_refresh && !seen.mark_is_unproven {
        return Err(Stop::Conflicts(Box::new(ApplyReport {
            already_migrated: seen.already_migrated,
            conflicts: seen.conflicts,
            conflict_sample: seen.conflict_sample.clone(),
            unmigrated: seen.unmigrated.clone(),
            ..ApplyReport::default()
        })));
    }
    Ok(())
}

/// Copies every source whose target is missing, and deals with targets that differ as run and policy say; or
/// changes every entry that is to be changed in place.
///
/// # Errors
/// What kept it from being complete, or [`Stop::Conflicts`].
pub async fn apply(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    plan: &Plan,
    run: &Run,
) -> Result<ApplyReport, Stop> {
    may_begin(plan, run.may_refresh(), assignment.conflict_policy)?;
    // Where sources are the truth, a target without its expiry is a conflict like others.
    let expiries_put_back = if plan.seen.mark_is_unproven {
        lost_expiry::put_back_if_accepted(writer, assignment, control).await?
    } else {
        0
    };

    let meter = control.meter(Step::Apply, Some(plan.seen.total_sources()));
    let on_difference = on_difference(run, assignment.conflict_policy, plan.seen.mark_is_unproven);
    let reopening = Reopening::default();
    let manner = Manner { on_difference, order: Order::CopyFirst, reopening: &reopening };
    let report = work_through(writer, assignment, control, &meter, plan, manner).await?;
    let report = ApplyReport { expiries_put_back, ..report };
    unless_conflicts(report, assignment.conflict_policy, plan.seen.mark_is_unproven)
}

/// Whether targets are compared before sources are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Quickest where targets are missing.
    CopyFirst,
    /// A pass that writes nothing has compared everything.
    CompareFirst,
}

/// How a pass goes about its work.
#[derive(Clone, Copy)]
pub(super) struct Manner<'a> {
    pub(super) on_difference: OnDifference,
    pub(super) order: Order,
    /// Knows afterwards whether anything was written, also by looks that do not count.
    pub(super) reopening: &'a Reopening,
}

/// One complete pass that brings every entry to where it should be.
pub(super) async fn work_through(
    writer: &Writer,
    assignment: &Assignment,
    control: &Control,
    meter: &Meter<'_>,
    plan: &Plan,
    manner: Manner<'_>,
) -> Result<ApplyReport, Stop> {
    let Manner { on_difference, order, reopening } = manner;
    match assignment.rule() {
        Rule::Rename(rename) => {
            let (has_heavy, has_huge) = (plan.seen.heavy > 0, plan.seen.huge > 0);
            let settler =
                Settler { writer, assignment, rename, control, on_difference, has_heavy, has_huge, reopening };
            // Where nothing is missing, trying to copy would only reopen later migrations in vain.
            let order = if plan.seen.to_copy() == 0 { Order::CompareFirst } else { order };
            let settle = |keys| settler.settle(keys, order);
            pass::complete(writer, &assignment.prefixes(), control, meter, settle).await
        }
        Rule::InPlace(in_place) => {
            let changer = Changer { writer, assignment, in_place, control };
            pass::complete(writer, &assignment.prefixes(), control, meter, |keys| changer.change(keys)).await
        }
    }
}

/// A report with conflicts is a stop under `Fail`, unless targets are the truth already.
pub(super) fn unless_conflicts(
    report: ApplyReport,
    policy: ConflictPolicy,
    mark_is_unproven: bool,
) -> Result<ApplyReport, Stop> {
    let blocks = match policy {
        ConflictPolicy::Fail | ConflictPolicy::PreferSource => !mark_is_unproven,
        ConflictPolicy::PreferTarget => false,
    };
    if report.conflicts > 0 && blocks { Err(Stop::Conflicts(Box::new(report))) } else { Ok(report) }
}
