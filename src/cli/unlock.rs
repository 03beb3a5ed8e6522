//! `unlock`: shows who holds the lock, and takes it away.
//!
//! Takes away only the very lock that was shown: one that changed hands meanwhile stays. Whoever loses it is cut off,
//! so that nothing that it still has in flight lands later.

use std::fmt::{self, Display};

use clap::Args;
use serde::Serialize;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::prompt;
use crate::cli::screen;
use crate::cli::session::{Desk, now};
use crate::engine::lock::{self, Holder};
use crate::migrations::state_keys::StateKeys;
use crate::model::time::{UnixMillis, human_seconds};

const EXAMPLES: &str = "\
Examples:
  outpost-migrate-redis unlock        # show the holder and ask
  outpost-migrate-redis unlock --yes";

/// Options of `unlock`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UnlockArgs {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// A lock as it is shown.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LockView {
    key: String,
    holder: String,
    migration: Option<String>,
    operation: Option<String>,
    since: Option<String>,
    age_seconds: Option<u64>,
    remaining_seconds: Option<u64>,
    still_renews: Option<bool>,
}

impl LockView {
    pub(super) fn new(holder: &Holder) -> Self {
        let since = holder.since.as_deref().and_then(UnixMillis::parse_rfc3339);
        let age = since.and_then(|since| u64::try_from(now().0 - since.0).ok()).map(|millis| millis / 1000);
        Self {
            key: holder.key.to_string(),
            holder: holder.name.clone(),
            migration: holder.migration.clone(),
            operation: holder.operation.clone(),
            since: holder.since.clone(),
            age_seconds: age,
            remaining_seconds: holder.remaining_millis.map(|millis| millis.div_ceil(1000)),
            still_renews: holder.still_renews(),
        }
    }
}

impl Display for LockView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is held by {}", self.key, self.holder)?;
        if let (Some(operation), Some(migration)) = (&self.operation, &self.migration) {
            write!(f, " ({operation} of {migration})")?;
        }
        if let Some(age) = self.age_seconds {
            write!(f, " for {}", human_seconds(age))?;
        }
        match self.remaining_seconds {
            Some(seconds) => write!(f, "; ends in {} unless renewed", human_seconds(seconds))?,
            None => f.write_str("; never ends by itself")?,
        }
        f.write_str(match self.still_renews {
            Some(true) => "; its holder renews it: it is at work",
            Some(false) => "; its holder does not renew it any more",
            None => "; its value does not tell whether it is renewed",
        })
    }
}

#[derive(Serialize)]
struct Unlocked<'a> {
    locks: &'a [LockView],
    removed: usize,
}

/// Shows, asks, unlocks.
pub(super) async fn run(desk: &Desk, args: &UnlockArgs) -> Result<ExitCode, Failure> {
    let keyspace = desk.connect().await?;
    let keys = StateKeys::new(desk.configuration.scope.deployment_id.as_deref()).locks();
    let holders = lock::holders(&keyspace, &keys).await?;
    let views: Vec<LockView> = holders.iter().map(LockView::new).collect();
    if holders.is_empty() {
        desk.screen.result("The lock is free.", &Unlocked { locks: &[], removed: 0 })?;
        return Ok(ExitCode::Done);
    }
    for view in &views {
        desk.screen.text(view)?;
    }
    prompt::check_answerable(args.yes)?;
    if views.iter().any(|view| view.still_renews == Some(true)) {
        screen::say("Its holder is at work: it ends in the middle, and the next run completes what it leaves.");
    }
    if !prompt::confirm("Take the lock away?", args.yes, &desk.stop).await? {
        return Err(Failure::new(ExitCode::NotDone, "declined; the lock stays"));
    }
    let mut gone = Vec::new();
    for holder in &holders {
        if lock::break_lock(&keyspace, holder).await? {
            gone.push(holder);
        }
    }
    let obstacle = match lock::close_out(&keyspace, &gone).await {
        Ok(true) => None,
        Ok(false) => Some("the Redis user may not close them (CLIENT LIST, CLIENT KILL)".to_owned()),
        Err(stop) => Some(stop.to_string()),
    };
    if let Some(obstacle) = obstacle {
        screen::say(format!(
            "Its connections may stay ({obstacle}): it notices the loss within 10 seconds, or when its machine wakes. \
             Start nothing else on this Redis before it has ended."
        ));
    }

    let removed = gone.len();
    let text = if removed == holders.len() {
        "The lock is free.".to_owned()
    } else {
        format!("{removed} of {} keys taken away; the others changed hands or ended meanwhile.", holders.len())
    };
    desk.screen.result(text, &Unlocked { locks: &views, removed })?;
    Ok(if removed == holders.len() { ExitCode::Done } else { ExitCode::Locked })
}
