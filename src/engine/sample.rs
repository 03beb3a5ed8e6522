//! A quick comparison of a few entries: a look, never a proof.

use std::pin::pin;

use futures::StreamExt;

use crate::engine::assignment::Assignment;
use crate::engine::control::Control;
use crate::engine::gaps;
use crate::engine::stop::Stop;
use crate::engine::verify::compare_batch;
use crate::keyspace::Keyspace;
use crate::keyspace::scan::Look;
use crate::model::report::VerifyReport;
use crate::model::slot::SlotSet;

/// Keys looked at together, however few entries are still wanted.
const SMALLEST_BATCH: usize = 16;

/// Compares the first `count` entries or a few more, spread over the primaries; writes nothing.
///
/// # Errors
/// What kept Redis from answering.
pub async fn compare_some(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    count: u64,
) -> Result<VerifyReport, Stop> {
    let mut looks = keyspace.all_looks().await?;
    if looks.iter().all(Look::is_for_strays) {
        return Err(gaps::incomplete(keyspace.topology().await.as_ref(), &SlotSet::empty()));
    }
    // They give no entries, so they take no share of them.
    looks.retain(|look| !look.is_for_strays());
    let prefixes = assignment.prefixes();
    let mut report = VerifyReport::default();
    for (index, look) in looks.iter().enumerate() {
        let primaries_left = (looks.len() - index) as u64;
        // What others gave too many of is no reason to leave a primary out.
        let share = count.saturating_sub(report.processed()).div_ceil(primaries_left).max(1);
        let wanted = report.processed() + share;
        let mut pages = pin!(keyspace.scan(look, &prefixes));
        while report.processed() < wanted {
            control.check()?;
            let Some(page) = pages.next().await else { break };
            let mut keys = page?;
            while !keys.is_empty() && report.processed() < wanted {
                let missing = usize::try_from(wanted - report.processed()).unwrap_or(usize::MAX);
                // Not every key is an entry of the migration.
                let look_at = missing.clamp(SMALLEST_BATCH, control.batch_size()).min(keys.len());
                let rest = keys.split_off(look_at);
                report.merge(compare_batch(keyspace, assignment, control, keys).await?);
                keys = rest;
            }
        }
    }
    Ok(report)
}
