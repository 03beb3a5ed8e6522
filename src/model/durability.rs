//! Whether what a primary holds in memory is on its disk too, or will be.
//!
//! Owns the decision and its words, as pure functions of what the server says about itself. Asking and waiting are
//! done elsewhere.

use crate::model::acceptance::how_to_accept;
use crate::model::finding::{Finding, FindingCode};
use crate::model::time::human_seconds;

/// How long after an idle look a further one proves that what was written before the first is synced: Redis syncs
/// once a second, and looks whether it has to ten times a second.
const SYNC_MILLIS: i64 = 2_000;

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
    /// The append-only file is being written anew, so the present one may lack what was there before it was on.
    pub rewriting: bool,
    /// The last write to the append-only file failed.
    pub append_failing: bool,
    /// A sync of the append-only file is under way or due.
    pub sync_pending: bool,
    /// The last snapshot of this run of the server.
    pub snapshot: Option<Snapshot>,
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
    /// Judges whether everything that was in memory at `since` (in seconds of the server's clock; `i64::MAX` where it
    /// can't be told) is on disk. With `may_ask` a snapshot comes because it is asked for.
    /// `idle_since` is when its append-only file was first seen without a sync under way, in milliseconds.
    #[must_use]
    pub fn judge(&self, since: i64, idle_since: Option<i64>, may_ask: bool) -> Disk {
        if self.clock.is_none() {
            return Disk::Unsure("it does not tell its time");
        }
        if self.append_only {
            return self.judge_append_only(idle_since);
        }
        // How long the last child took says nothing about the last snapshot if that child failed.
        if !self.snapshot_failing && self.snapshot.is_some_and(|snapshot| snapshot.began_after() > since) {
            return Disk::Holds;
        }
        if may_ask {
            return Disk::WillHold(format!("the snapshot of {} that was asked for", self.node));
        }

        match self.save_points.as_deref() {
            None => Disk::Unsure("whether it takes snapshots by itself can't be known without CONFIG GET"),
            Some([]) if self.snapshot.is_none() && !self.loaded => Disk::Volatile,
            Some([]) => Disk::Unsure("it takes no snapshots by itself, and the last is older than the migration"),
            Some(_) if self.snapshot_failing => Disk::Unsure("its last snapshot failed"),
            Some(points) => {
                match points.iter().filter(|point| point.changes <= self.changes).map(|it| it.seconds).min() {
                    Some(seconds) => Disk::WillHold(self.own_snapshot(seconds)),
                    None => Disk::Unsure("too little changes for a snapshot by itself"),
                }
            }
        }
    }

    fn judge_append_only(&self, idle_since: Option<i64>) -> Disk {
        if self.append_failing {
            return Disk::Unsure("the last write to its append-only file failed");
        }
        if self.rewriting {
            return Disk::WillHold(format!("{} to finish writing its append-only file anew", self.node));
        }
        let is_synced = |idle| self.clock.is_none_or(|clock| clock >= idle + SYNC_MILLIS);
        match idle_since {
            Some(idle) if !self.sync_pending && is_synced(idle) => Disk::Holds,
            Some(_) | None => Disk::WillHold(format!("{} to sync its append-only file", self.node)),
        }
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
mod tests {
    use super::*;
    use crate::model::finding::Severity;

    const SINCE: i64 = 1_000;

    fn facts() -> DiskFacts {
        DiskFacts {
            node: "h:1".into(),
            incarnation: "run".into(),
            clock: Some(2_000_000),
            append_only: false,
            rewriting: false,
            append_failing: false,
            sync_pending: false,
            snapshot: None,
            loaded: false,
            snapshot_running: false,
            snapshot_failing: false,
            changes: 5,
            save_points: Some(vec![
                SavePoint { seconds: 3600, changes: 1 },
                SavePoint { seconds: 60, changes: 10_000 },
            ]),
        }
    }

    fn severity(facts: &DiskFacts, may_ask: bool) -> Option<Severity> {
        finding(&facts.node, &facts.judge(SINCE, None, may_ask)).map(|finding| finding.severity)
    }

    #[test]
    fn a_snapshot_counts_by_when_it_began() {
        for (ended, took, holds) in [
            // It ended after the mark and may have begun before it.
            (1_010, 10, false),
            (1_011, 10, false),
            (1_012, 10, true),
            (1_001, 0, false),
            (1_002, 0, true),
            (900, 0, false),
        ] {
            let facts = DiskFacts { snapshot: Some(Snapshot { ended, took }), ..facts() };
            assert_eq!(facts.judge(SINCE, None, false) == Disk::Holds, holds, "{ended} {took}");
        }
        let failed_since =
            DiskFacts { snapshot: Some(Snapshot { ended: 1_500, took: 1 }), snapshot_failing: true, ..facts() };
        assert_eq!(
            failed_since.judge(SINCE, None, false),
            Disk::Unsure("its last snapshot failed"),
            "the time that it took is that of the one that failed"
        );
        let timeless = DiskFacts { clock: None, snapshot: Some(Snapshot { ended: 1_500, took: 1 }), ..facts() };
        assert_eq!(timeless.judge(SINCE, None, true), Disk::Unsure("it does not tell its time"));
    }

    #[test]
    fn what_comes_by_itself_is_waited_for_and_what_does_not_blocks() {
        assert_eq!(severity(&facts(), false), Some(Severity::Note));
        let idle = DiskFacts { changes: 0, ..facts() };
        assert_eq!(severity(&idle, false), Some(Severity::Error), "no change, no snapshot");
        let failing = DiskFacts { snapshot_failing: true, ..facts() };
        assert_eq!(severity(&failing, false), Some(Severity::Error));
        let unknown = DiskFacts { save_points: None, ..facts() };
        assert_eq!(severity(&unknown, false), Some(Severity::Error));
        assert_eq!(severity(&unknown, true), Some(Severity::Note), "it comes when asked for");
    }

    #[test]
    fn a_server_that_keeps_nothing_is_only_warned_of() {
        let volatile = DiskFacts { save_points: Some(Vec::new()), ..facts() };
        assert_eq!(severity(&volatile, false), Some(Severity::Warning));
        for stale in [
            DiskFacts { snapshot: Some(Snapshot { ended: 900, took: 0 }), ..volatile.clone() },
            DiskFacts { loaded: true, ..volatile.clone() },
        ] {
            assert_eq!(severity(&stale, false), Some(Severity::Error), "a restart would bring back how it was before");
        }
    }

    #[test]
    fn an_append_only_file_counts_once_it_is_synced() {
        let on = DiskFacts { append_only: true, ..facts() };
        assert_ne!(on.judge(SINCE, None, false), Disk::Holds);
        assert_ne!(on.judge(SINCE, Some(1_998_001), false), Disk::Holds);
        assert_eq!(on.judge(SINCE, Some(1_998_000), false), Disk::Holds);
        for not_yet in [DiskFacts { sync_pending: true, ..on.clone() }, DiskFacts { rewriting: true, ..on.clone() }] {
            assert!(matches!(not_yet.judge(SINCE, Some(0), false), Disk::WillHold(_)), "{not_yet:?}");
        }
        let failing = DiskFacts { append_failing: true, ..on };
        assert_eq!(severity(&failing, true), Some(Severity::Error));
    }

    #[test]
    fn save_points_are_read_as_redis_writes_them() {
        assert_eq!(save_points(""), []);
        let points = [SavePoint { seconds: 3600, changes: 1 }, SavePoint { seconds: 300, changes: 100 }];
        assert_eq!(save_points("3600 1 300 100"), points);
    }
}
