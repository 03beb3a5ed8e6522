//! Initialises a fresh keyspace: marks every migration without having moved anything.
//!
//! Owns the order that strands nobody: claim every mark, let replicas acknowledge, look once more, and only
//! then stamp. A claim is no mark: whoever finds one without its holder completes it, or withdraws it if
//! entries have appeared since.

use crate::engine::assignment::Assignment;
use crate::engine::stop::Stop;
use crate::engine::survey::{self, Standing};
use crate::engine::verify::wait_for_replicas;
use crate::engine::{emptiness, journal};
use crate::keyspace::Writer;
use crate::model::mark::{INIT_CLAIM, INIT_TOKEN, Mark};
use crate::model::time::UnixMillis;

use tokio_util::sync::CancellationToken;

/// What initialising came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialised {
    /// Every migration is marked.
    Done,
    /// The keyspace is not empty (any more); no mark of ours was left.
    NotFresh,
}

/// One migration of the keyspace that is initialised, with what Redis says about it.
pub type Candidate<'a> = (&'a Assignment, &'a Standing);

/// Marks every migration if no key starts with one of `prefixes`, before and after.
///
/// # Errors
/// Whatever kept it from being done; claims may be left, which the next call completes or withdraws.
pub async fn initialise(
    writer: &Writer,
    candidates: &[Candidate<'_>],
    prefixes: &[Vec<u8>],
    token: &str,
    now: UnixMillis,
    stop: &CancellationToken,
) -> Result<Initialised, Stop> {
    if !emptiness::is_empty(writer, prefixes, stop).await? {
        return Ok(Initialised::NotFresh);
    }
    // Where replicas are missing, nothing is left behind for it.
    acknowledge(writer, candidates).await?;
    for (assignment, standing) in candidates {
        claim(writer, assignment, standing, token, now).await?;
    }
    acknowledge(writer, candidates).await?;
    if !emptiness::is_empty(writer, prefixes, stop).await? {
        // The last first: what is left if this ends halfway says no more than it should.
        for (assignment, standing) in candidates.iter().rev() {
            for token in [Some(token), standing.claim.as_deref()].into_iter().flatten() {
                withdraw(writer, assignment, token).await?;
            }
        }
        return Ok(Initialised::NotFresh);
    }
    for (assignment, standing) in candidates {
        confirm(writer, assignment, standing, token).await?;
    }
    acknowledge(writer, candidates).await?;
    Ok(Initialised::Done)
}

/// Withdraws the mark that the initialisation of this token made, since it did not end; any other mark stays. Gives
/// whether there was one.
///
/// # Errors
/// The fault that stayed.
pub async fn withdraw(writer: &Writer, assignment: &Assignment, token: &str) -> Result<bool, Stop> {
    Ok(writer.withdraw_mark(&assignment.mark_key(), INIT_CLAIM, INIT_TOKEN, token).await?)
}

/// Whether it is another tool's mark, which is stamped at the end and never withdrawn.
fn is_foreign(standing: &Standing) -> bool {
    standing.mark == Mark::Unstamped
}

async fn claim(
    writer: &Writer,
    assignment: &Assignment,
    standing: &Standing,
    token: &str,
    now: UnixMillis,
) -> Result<(), Stop> {
    if let Some(reason) = standing.not_applicable {
        return survey::mark_not_applicable(writer, assignment, reason, now).await;
    }
    if !is_foreign(standing) {
        let mut fields = vec![("status", "applied".to_owned()), ("applied_at", now.to_string())];
        fields.push(journal::tool_version());
        writer.claim_mark(&assignment.mark_key(), INIT_CLAIM, token, &fields).await?;
    }
    Ok(())
}

async fn confirm(writer: &Writer, assignment: &Assignment, standing: &Standing, token: &str) -> Result<(), Stop> {
    let mark = assignment.mark_key();
    if standing.not_applicable.is_none() && is_foreign(standing) {
        writer.stamp_mark(&mark, &[(INIT_TOKEN, token.to_owned())]).await?;
    } else {
        writer.confirm_mark(&mark, INIT_CLAIM, token, INIT_TOKEN).await?;
    }
    Ok(())
}

async fn acknowledge(writer: &Writer, candidates: &[Candidate<'_>]) -> Result<(), Stop> {
    match candidates.first() {
        Some((assignment, _)) => wait_for_replicas(writer, assignment).await,
        None => Ok(()),
    }
}
