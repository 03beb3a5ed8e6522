//! What a primary says of its disk, and what follows.

use super::*;
use crate::model::finding::Severity;

const SINCE: Moment = Moment { second: 1_000, last_save: None };

fn wait() -> Wait {
    Wait::new(SINCE, false)
}

fn facts() -> DiskFacts {
    DiskFacts {
        node: "h:1".into(),
        incarnation: "run".into(),
        clock: Some(2_000_000),
        append_only: false,
        append_synced: Some(true),
        rewriting: false,
        rewrite_failing: false,
        append_failing: false,
        sync_pending: false,
        snapshot: None,
        last_save: Some(500),
        loaded: false,
        snapshot_running: false,
        snapshot_failing: false,
        changes: 5,
        save_points: Some(vec![SavePoint { seconds: 3600, changes: 1 }, SavePoint { seconds: 60, changes: 10_000 }]),
    }
}

fn severity(facts: &DiskFacts, may_ask: bool) -> Option<Severity> {
    finding(&facts.node, &facts.judge(&Wait::new(SINCE, may_ask))).map(|finding| finding.severity)
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
        assert_eq!(facts.judge(&wait()) == Disk::Holds, holds, "{ended} {took}");
    }
    let failed_since =
        DiskFacts { snapshot: Some(Snapshot { ended: 1_500, took: 1 }), snapshot_failing: true, ..facts() };
    assert_eq!(
        failed_since.judge(&wait()),
        Disk::Unsure("its last snapshot failed"),
        "the time that it took is that of the one that failed"
    );
    let timeless = DiskFacts { clock: None, snapshot: Some(Snapshot { ended: 1_500, took: 1 }), ..facts() };
    assert_eq!(timeless.judge(&Wait::new(SINCE, true)), Disk::Unsure("it does not tell its time"));
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

/// Seconds leave open which of two came first; that none was under way does not.
#[test]
fn another_snapshot_than_the_last_one_counts_if_none_was_under_way() {
    let since = |last_save| Wait::new(Moment { second: 1_000, last_save }, false);
    let saved = |ended| DiskFacts {
        snapshot: Some(Snapshot { ended, took: 0 }),
        last_save: Some(ended),
        clock: Some(1_003_000),
        ..facts()
    };
    assert_eq!(saved(1_001).judge(&since(Some(999))), Disk::Holds);
    assert_ne!(saved(1_001).judge(&since(None)), Disk::Holds, "one was under way");
    assert_ne!(saved(999).judge(&since(Some(999))), Disk::Holds, "it is the same");
    let failed_since = DiskFacts { snapshot_failing: true, ..saved(1_001) };
    assert_eq!(failed_since.judge(&since(Some(999))), Disk::Holds, "one succeeded before");

    let at = |second: i64| DiskFacts { clock: Some(second * 1_000), ..facts() };
    assert_eq!(at(1_000).moment(), Some(Moment { second: 1_000, last_save: Some(500) }));
    let running = DiskFacts { snapshot_running: true, ..at(1_000) };
    assert_eq!(running.moment(), Some(Moment { second: 1_000, last_save: None }));

    let asking = |last_save| Wait { may_ask: true, ..since(last_save) };
    assert!(at(1_001).is_to_be_asked(&asking(Some(1_000))) && !at(1_000).is_to_be_asked(&asking(Some(1_000))));
    assert!(at(1_003).is_to_be_asked(&asking(None)) && !at(1_002).is_to_be_asked(&asking(None)));
    assert!(!at(1_003).is_to_be_asked(&since(None)), "nobody wants it to be asked");
}

#[test]
fn who_is_asked_in_vain_is_not_asked_for_ever() {
    let asked = |asks| Wait { asks, ..Wait::new(SINCE, true) };
    assert!(matches!(facts().judge(&asked(9)), Disk::WillHold(_)));
    assert!(matches!(facts().judge(&asked(10)), Disk::Unsure(why) if why.contains("BGSAVE")));
    let running = DiskFacts { snapshot_running: true, ..facts() };
    assert!(matches!(running.judge(&asked(10)), Disk::WillHold(_)), "it comes");
    let failed = DiskFacts { snapshot_failing: true, ..facts() };
    assert!(matches!(failed.judge(&asked(0)), Disk::WillHold(_)), "that was another");
    assert!(matches!(failed.judge(&asked(1)), Disk::Unsure(_)));
}

#[test]
fn moments_are_read_as_they_are_written() {
    for moment in [Moment { second: 7, last_save: None }, Moment { second: 7, last_save: Some(5) }] {
        assert_eq!(Moment::parse(&moment.to_string()), Some(moment));
    }
    assert_eq!(Moment::parse("7/"), None);
    assert_eq!(Moment::parse(""), None);
}

#[test]
fn an_append_only_file_counts_once_it_is_synced() {
    let on = DiskFacts { append_only: true, ..facts() };
    let idle = |since| Wait { idle_since: Some(since), ..wait() };
    assert_ne!(on.judge(&wait()), Disk::Holds);
    assert_ne!(on.judge(&idle(1_998_001)), Disk::Holds);
    assert_eq!(on.judge(&idle(1_998_000)), Disk::Holds);
    for not_yet in [DiskFacts { sync_pending: true, ..on.clone() }, DiskFacts { rewriting: true, ..on.clone() }] {
        assert!(matches!(not_yet.judge(&idle(0)), Disk::WillHold(_)), "{not_yet:?}");
    }
    let failing = DiskFacts { append_failing: true, ..on };
    assert_eq!(severity(&failing, true), Some(Severity::Error));
}

#[test]
fn an_append_only_file_that_nobody_syncs_never_counts() {
    let on = |append_synced| DiskFacts { append_only: true, append_synced, ..facts() };
    let idle = Wait { idle_since: Some(0), ..wait() };
    assert_eq!(on(Some(true)).judge(&idle), Disk::Holds);
    assert!(matches!(on(Some(false)).judge(&idle), Disk::Unsure(why) if why.contains("appendfsync no")));
    assert!(matches!(on(Some(false)).judge(&wait()), Disk::Unsure(_)), "time changes nothing");
    assert!(matches!(on(None).judge(&wait()), Disk::WillHold(_)), "WAITAOF may tell");
    assert!(matches!(on(None).judge(&idle), Disk::Unsure(why) if why.contains("CONFIG GET")));
}

#[test]
fn what_keeps_failing_or_never_begins_is_not_waited_for_without_end() {
    let rewriting = DiskFacts { append_only: true, rewriting: true, rewrite_failing: true, ..facts() };
    assert!(matches!(rewriting.judge(&wait()), Disk::Unsure(why) if why.contains("in vain")));

    let at = |second: i64| DiskFacts { clock: Some(second * 1_000), ..facts() };
    let mut wait = wait();
    wait.note(&at(0));
    assert!(matches!(at(7_200).judge(&wait), Disk::WillHold(_)));
    assert!(matches!(at(7_201).judge(&wait), Disk::Unsure(why) if why.contains("takes no snapshot by itself")));

    wait.note(&DiskFacts { snapshot_running: true, ..at(7_201) });
    wait.note(&at(7_202));
    assert!(matches!(at(7_203).judge(&wait), Disk::WillHold(_)), "it began one");
}

#[test]
fn an_append_only_file_that_is_never_at_rest_is_not_waited_for_without_end() {
    let busy =
        |second: i64| DiskFacts { append_only: true, sync_pending: true, clock: Some(second * 1_000), ..facts() };
    let mut wait = wait();
    wait.note(&busy(1));
    assert!(matches!(busy(61).judge(&wait), Disk::WillHold(_)));
    assert!(matches!(busy(62).judge(&wait), Disk::Unsure(why) if why.contains("WAITAOF")));

    // Writing it anew takes as long as it takes.
    wait.note(&DiskFacts { rewriting: true, ..busy(70) });
    wait.note(&busy(71));
    assert!(matches!(busy(80).judge(&wait), Disk::WillHold(_)));
}

#[test]
fn save_points_are_read_as_redis_writes_them() {
    assert_eq!(save_points(""), []);
    let points = [SavePoint { seconds: 3600, changes: 1 }, SavePoint { seconds: 300, changes: 100 }];
    assert_eq!(save_points("3600 1 300 100"), points);
}
