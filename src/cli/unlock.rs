//! `unlock`: shows who holds the lock, and takes it away.
//!
//! Takes away only the very lock that was shown: one that changed hands meanwhile stays. Whoever loses it is cut off,
//! so that nothing that it still has in flight lands later.

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use clap::Args;
use futures::future::join_all;
use serde::Serialize;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::prompt;
use crate::cli::screen;
use crate::cli::session::{Desk, now};
use crate::engine::Stop;
use crate::engine::lock::{self, Holder};
use crate::keyspace::Keyspace;
use crate::keyspace::closing::Unclosed;
use crate::migrations::state_keys::StateKeys;
use crate::model::key::RedisKey;
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

/// Shows, asks, unlocks. What can't be reached keeps nothing else from being done, and is told at the end.
pub(super) async fn run(desk: &Desk, args: &UnlockArgs) -> Result<ExitCode, Failure> {
    let keyspace = desk.connect().await?;
    let keys = StateKeys::new(desk.configuration.scope.deployment_id.as_deref()).locks();
    let Seen { holders, mut unreached } = look(&keyspace, &keys).await;
    let views: Vec<LockView> = holders.iter().map(LockView::new).collect();
    if holders.is_empty() {
        return match unreached.pop() {
            Some(key) => Err(key.into_failure()),
            None => {
                desk.screen.result("The lock is free.", &Unlocked { locks: &[], removed: 0 }).map(|()| ExitCode::Done)
            }
        };
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
        match lock::break_lock(&keyspace, holder).await {
            Ok(true) => gone.push(holder),
            Ok(false) => {}
            Err(stop) => unreached.push(Unreached { key: holder.key.clone(), stop }),
        }
    }
    cut_off(&keyspace, &gone).await;

    let removed = gone.len();
    let text = match (removed == holders.len(), unreached.is_empty()) {
        (true, true) => "The lock is free.".to_owned(),
        (false, true) => {
            format!("{removed} of {} keys taken away; the others changed hands or ended meanwhile.", holders.len())
        }
        (_, false) => format!("{removed} of {} keys taken away.", keys.len()),
    };
    desk.screen.result(text, &Unlocked { locks: &views, removed })?;
    match unreached.into_iter().next() {
        Some(key) => Err(key.into_failure()),
        None if removed == holders.len() => Ok(ExitCode::Done),
        None => Ok(ExitCode::Locked),
    }
}

/// Who holds which keys of the lock, as far as these could be read.
struct Seen {
    holders: Vec<Holder>,
    unreached: Vec<Unreached>,
}

/// A key of the lock that could not be read or taken away.
struct Unreached {
    key: RedisKey,
    stop: Stop,
}

impl Unreached {
    fn into_failure(self) -> Failure {
        let message = format!(
            "the key {} of the lock was not taken away ({}): mend that, then run `outpost-migrate-redis unlock` again",
            self.key, self.stop
        );
        Failure::new(Failure::from(self.stop).code, message)
    }
}

/// Reads all keys at the same time, since each that can't be reached takes its time.
async fn look(keyspace: &Keyspace, keys: &[RedisKey]) -> Seen {
    let looks = keys.iter().map(|key| lock::holders(keyspace, std::slice::from_ref(key)));
    let mut seen = Seen { holders: Vec::new(), unreached: Vec::new() };
    for (key, looked) in keys.iter().zip(join_all(looks).await) {
        match looked {
            Ok(holders) => seen.holders.extend(holders),
            Err(stop) => seen.unreached.push(Unreached { key: key.clone(), stop }),
        }
    }
    seen
}

/// Closes the connections of those who lost the lock, and says where they may have stayed.
async fn cut_off(keyspace: &Keyspace, gone: &[&Holder]) {
    let obstacles: BTreeSet<String> = match lock::close_out(keyspace, gone).await {
        Ok(unclosed) => unclosed.iter().map(obstacle).collect(),
        Err(stop) => BTreeSet::from([stop.to_string()]),
    };
    if !obstacles.is_empty() {
        screen::say(format!(
            "Its connections may stay ({}): it notices the loss within 10 seconds, or when its machine wakes. Start \
             nothing else on this Redis before it has ended.",
            obstacles.into_iter().collect::<Vec<_>>().join("; ")
        ));
    }
}

fn obstacle(unclosed: &Unclosed) -> String {
    if unclosed.is_forbidden() {
        "the Redis user may not close them (CLIENT LIST, CLIENT KILL)".to_owned()
    } else {
        unclosed.fault.to_string()
    }
}
