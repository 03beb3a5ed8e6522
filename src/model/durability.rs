//! Whether what a primary holds in memory is on its disk too, or will be.
//!
//! Owns the decision and its words, as pure functions of what the server says about itself. Asking and waiting are
//! done elsewhere.

use std::fmt;

use crate::model::acceptance::how_to_accept;
use crate::model::finding::{Finding, FindingCode};
use crate::model::time::human_seconds;

/// How long after an idle look a further one proves that what was written before the first is synced: Redis syncs
/// once a second, and looks whether it has to ten times a second.
const SYNC_MILLIS: i64 = 2_000;

/// How long an append-only file is watched that is never seen without a sync under way.
const BUSY_MILLIS: i64 = 60_000;

/// A snapshot that is asked for sooner after what it must hold could not be told by its duration from one that began
/// before.
const APART_SECONDS: i64 = 2;

/// How often a server is asked for a snapshot before it counts as one that takes none.
const ASKS_LIMIT: u32 = 10;

/// `save 60 10000`: a snapshot is taken when so many seconds have passed and so many keys were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavePoint {
    /// Seconds since the last snapshot.
    pub seconds: u64,
    /// Changes since the last snapshot.
    pub changes: u64,
}

/// Reads the points of a `save` setting: `3600 1 300 100`.
#[must_use]
pub fn save_points(setting: &str) -> Vec<SavePoint> {
    let numbers: Vec<u64> = setting.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    numbers.chunks_exact(2).map(|point| SavePoint { seconds: point[0], changes: point[1] }).collect()
}

/// A moment of a primary's own clock at which its memory held everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The second, or the one before.
    pub second: i64,
    /// The second at which its last snapshot had ended, if none was under way then.
    pub last_save: Option<i64>,
}

impl Moment {
    /// After everything that can have happened: no snapshot holds what is still to come.
    pub const AHEAD: Self = Self { second: i64::MAX, last_save: None };

    /// Reads what [`Moment`]'s display wrote, or the second alone that earlier versions wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (second, last_save) = match text.split_once('/') {
            Some((second, last_save)) => (second, Some(last_save.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { second: second.parse().ok()?, last_save })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last_save {
            Some(last_save) => write!(f, "{}/{last_save}", self.second),
            None => write!(f, "{}", self.second),
        }
    }
}

/// A snapshot that was taken since the server started, by the server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// When it ended, in seconds.
    pub ended: i64,
    /// How many seconds it took.
    pub took: i64,
}

impl Snapshot {
    /// Returns a second before which it surely had not begun. Both figures are cut to seconds, one clock apart.
    fn began_after(self) -> i64 {
        self.ended - self.took - 1
    }
}

/// What waiting for a primary's disk goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// From when on a snapshot holds the targets.
    pub since: Moment,
    /// Whether a snapshot may be asked for.
    pub may_ask: bool,
    /// How often one was asked for.
    pub asks: u32,
    /// When its append-only file was first seen that is not being written anew, in milliseconds of its clock.
    pub appends_since: Option<i64>,
    /// When that file was first seen without a sync under way.
    pub idle_since: Option<i64>,
    /// Since when it was seen to take no snapshot.
    pub resting_since: Option<i64>,
}

impl Wait {
    /// At its beginning.
    #[must_use]
    pub fn new(since: Moment, may_ask: bool) -> Self {
        Self { since, may_ask, asks: 0, appends_since: None, idle_since: None, resting_since: None }
    }

    /// Takes note of another look.
    pub fn note(&mut self, facts: &DiskFacts) {
        self.resting_since = self.resting_since.or(facts.clock).filter(|_| !facts.snapshot_running);
        if facts.rewriting {
            (self.appends_since, self.idle_since) = (None, None);
            return;
        }
        self.appends_since = self.appends_since.or(facts.clock);
        if !facts.sync_pending {
            self.idle_since = self.idle_since.or(facts.clock);
        }
    }
}

/// What a primary says about its disk.
#[allow(clippy::struct_excessive_bools, reason = "each is a field of INFO of its own")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFacts {
    /// The primary, by its address.
    pub node: String,
    /// What tells this run of this server, with these slots, from others.
    pub incarnation: String,
    /// The server's clock, in milliseconds, if it tells.
    pub clock: Option<i64>,
    /// The append-only file is on.
    pub append_only: bool,
    /// Whether the append-only file is synced without anybody's doing (`appendfsync`); `None` where the user may not ask.
    pub append_synced: Option<bool>,
    /// The append-only file is being written anew, so the present one may lack what was there before it was on.
    pub rewriting: bool,
    /// The append-only file was last written anew in vain.
    pub rewrite_failing: bool,
    /// The last write to the append-only file failed.
    pub append_failing: bool,
    /// A sync of the append-only file is under way or due.
    pub sync_pending: bool,
    /// The last snapshot of this run of the server.
    pub snapshot: Option<Snapshot>,
    /// When the last snapshot ended that succeeded, in seconds; the server's start before the first.
    pub last_save: Option<i64>,
    /// Whether a file of an earlier run was loaded at the start.
    pub loaded: bool,
    /// A snapshot is being taken.
    pub snapshot_running: bool,
    /// The last snapshot failed.
    pub snapshot_failing: bool,
    /// Changes since the last snapshot.
    pub changes: u64,
    /// When it takes snapshots by itself; `None` where the user may not ask.
    pub save_points: Option<Vec<SavePoint>>,
}

/// Where the targets of a primary are, beside its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    /// On its disk.
    Holds,
    /// On its disk soon, without anybody's doing: what is waited for.
    WillHold(String),
    /// Nobody knows, or never: why.
    Unsure(&'static str),
    /// Nowhere: the server keeps nothing over a restart, whatever is done.
    Volatile,
}

impl DiskFacts {
    /// Returns this moment, if the server tells its time.
    #[must_use]
    pub fn moment(&self) -> Option<Moment> {
        let last_save = self.last_save.filter(|_| !self.snapshot_running);
        self.clock.map(|clock| Moment { second: clock / 1000, last_save })
    }

    /// Judges whether everything that was in memory at [`Wait::since`] is on disk.
    #[must_use]
    pub fn judge(&self, wait: &Wait) -> Disk {
        let Some(clock) = self.clock else { return Disk::Unsure("it does not tell its time") };
        if self.append_only {
            return self.judge_append_only(clock, wait);
        }
        if self.has_saved_since(wait.since) {
            return Disk::Holds;
        }
        if wait.may_ask {
            return self.judge_asked(wait);
        }

        match self.save_points.as_deref() {
            None => Disk::Unsure("whether it takes snapshots by itself can't be known without CONFIG GET"),
            Some([]) if self.snapshot.is_none() && !self.loaded => Disk::Volatile,
            Some([]) => Disk::Unsure("it takes no snapshots by itself, and the last is older than the migration"),
            Some(_) if self.snapshot_failing => Disk::Unsure("its last snapshot failed"),
            Some(points) => {
                let met = || points.iter().filter(|point| point.changes <= self.changes).map(|it| it.seconds);
                match (met().min(), met().max()) {
                    (Some(_), Some(longest)) if has_waited_twice(clock, wait.resting_since, longest) => {
                        Disk::Unsure("it takes no snapshot by itself, though it should have long ago (save)")
                    }
                    (Some(soonest), _) => Disk::WillHold(self.own_snapshot(soonest)),
                    (None, _) => Disk::Unsure("too little changes for a snapshot by itself"),
                }
            }
        }
    }

    /// Why what is written to the append-only file can't be trusted to be on disk, however long it is waited for.
    #[must_use]
    pub fn append_only_flaw(&self) -> Option<&'static str> {
        match (self.append_failing, self.append_synced, self.rewrite_failing) {
            (true, _, _) => Some("the last write to its append-only file failed"),
            (false, Some(false), _) => Some("it leaves the syncing of its append-only file to others (appendfsync no)"),
            (false, Some(true) | None, true) => {
                Some("its append-only file was last written anew in vain, and may lack what is older: its log says why")
            }
            (false, Some(true) | None, false) => None,
        }
    }

    /// Whether a snapshot asked for now could be told from one that began too early, and may be needed.
    #[must_use]
    pub fn is_to_be_asked(&self, wait: &Wait) -> bool {
        let is_apart = |clock: i64| match wait.since.last_save {
            Some(last_save) => clock / 1000 > last_save,
            None => clock / 1000 > wait.since.second.saturating_add(APART_SECONDS),
        };
        wait.may_ask && !self.append_only && !self.snapshot_running && self.clock.is_some_and(is_apart)
    }

    fn has_saved_since(&self, since: Moment) -> bool {
        // None was under way then, so one that ended since has begun since.
        let is_another = since.last_save.is_some() && self.last_save.is_some() && self.last_save != since.last_save;
        // How long the last child took says nothing about the last snapshot if that child failed.
        let began_later =
            !self.snapshot_failing && self.snapshot.is_some_and(|snapshot| snapshot.began_after() > since.second);
        is_another || began_later
    }

    fn judge_asked(&self, wait: &Wait) -> Disk {
        if wait.asks > 0 && self.snapshot_failing && !self.snapshot_running {
            return Disk::Unsure("the snapshot that it was asked for failed: its log says why");
        }
        if wait.asks >= ASKS_LIMIT && !self.snapshot_running {
            return Disk::Unsure("it takes no snapshot when it is asked for one (BGSAVE)");
        }
        Disk::WillHold(format!("the snapshot of {} that was asked for", self.node))
    }

    fn judge_append_only(&self, clock: i64, wait: &Wait) -> Disk {
        if let Some(flaw) = self.append_only_flaw() {
            return Disk::Unsure(flaw);
        }
        if self.rewriting {
            return Disk::WillHold(format!("{} to finish writing its append-only file anew", self.node));
        }
        if !self.sync_pending && wait.idle_since.is_some_and(|idle| clock >= idle + SYNC_MILLIS) {
            return match self.append_synced {
                Some(_) => Disk::Holds,
                None => Disk::Unsure(
                    "whether its append-only file is synced can't be known without CONFIG GET, or WAITAOF since Redis 7.2",
                ),
            };
        }
        if wait.appends_since.is_some_and(|since| clock > since + BUSY_MILLIS) {
            return Disk::Unsure(
                "it writes so much that its append-only file is never seen synced; WAITAOF, since Redis 7.2, would tell",
            );
        }
        Disk::WillHold(format!("{} to sync its append-only file", self.node))
    }

    fn own_snapshot(&self, seconds: u64) -> String {
        if self.snapshot_running {
            return format!("the snapshot that {} is taking", self.node);
        }
        format!(
            "the next snapshot of {}, which it begins within {} (--save, in a resource spec.cleanup.save, asks for one \
             at once)",
            self.node,
            human_seconds(seconds)
        )
    }
}

/// Whether a snapshot that is due after so many seconds did not even begin in twice that time: then none will.
fn has_waited_twice(clock: i64, since: Option<i64>, seconds: u64) -> bool {
    let patience = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(2_000);
    since.is_some_and(|since| clock.saturating_sub(since) > patience)
}

/// What a person should know before originals are removed; errors block cleanup.
#[must_use]
pub fn finding(node: &str, disk: &Disk) -> Option<Finding> {
    match disk {
        Disk::Holds => None,
        Disk::WillHold(what) => Some(Finding::note(
            FindingCode::NotOnDisk,
            format!("no replica acknowledges what {node} holds, so cleanup waits for {what}"),
        )),
        Disk::Unsure(why) => Some(Finding::error(
            FindingCode::NotOnDisk,
            format!(
                "the targets of {node} may be in its memory alone when cleanup removes their originals: no replica \
                 acknowledges them, and {why}. Attach a replica, let cleanup ask for a snapshot (--save, in a resource \
                 spec.cleanup.save), or {}",
                how_to_accept(FindingCode::NotOnDisk)
            ),
        )),
        Disk::Volatile => Some(Finding::warning(
            FindingCode::NotOnDisk,
            format!(
                "{node} has no replica and keeps nothing on disk: what it holds is lost with its process, and after \
                 cleanup there are no originals on other primaries"
            ),
        )),
    }
}

#[cfg(test)]
#[path = "durability_tests.rs"]
mod tests;
