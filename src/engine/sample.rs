//! A quick comparison of a few entries: a look, never a proof.

use std::pin::pin;

use futures::StreamExt;

use crate::engine::assignment::Assignment;
use crate::engine::control::Control;
use crate::engine::stop::Stop;
use crate::engine::verify::compare_batch;
use crate::keyspace::Keyspace;
use crate::model::report::VerifyReport;
use crate::model::slot::SlotSet;

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
    let looks = keyspace.looks(&SlotSet::empty()).await?;
    let prefixes = assignment.prefixes();
    let mut report = VerifyReport::default();
    for (index, look) in looks.iter().enumerate() {
        let primaries_left = (looks.len() - index) as u64;
        let wanted = report.processed() + count.saturating_sub(report.processed()).div_ceil(primaries_left);
        let mut pages = pin!(keyspace.scan(look, &prefixes));
        while report.processed() < wanted {
            control.check()?;
            let Some(page) = pages.next().await else { break };
            for batch in page?.chunks(control.batch_size()) {
                let missing = usize::try_from(wanted.saturating_sub(report.processed())).unwrap_or(usize::MAX);
                let some = batch.iter().take(missing).cloned().collect();
                report.merge(compare_batch(keyspace, assignment, control, some).await?);
            }
        }
    }
    Ok(report)
}
