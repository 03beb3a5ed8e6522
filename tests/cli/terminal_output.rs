//! The program at a terminal: prompts, the progress bar, colour, Ctrl-C; and a process that is killed.

use std::time::Duration;

use crate::schema::load_with_canaries;
use crate::shell::{CANARY, CommandLine};
use crate::support::engine::{Bench, Expected, LOCKS, is_state};
use crate::support::generator::now_ms;
use crate::support::load::load;
use crate::support::redis_client::Endpoint;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Value};
use crate::support::wait::eventually;
use crate::terminal::{CTRL_C, Terminal};

const ESCAPE: char = '\u{1b}';

async fn stage(tenants: usize) -> (Standalone, Endpoint, CommandLine, Expected) {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let expected = load_with_canaries(&endpoint, tenants).await;
    let cli = CommandLine::at(&endpoint);
    (redis, endpoint, cli, expected)
}

async fn assert_no_lock(redis: &Endpoint) {
    let there = snapshot(redis).await;
    let locks: Vec<_> = LOCKS.iter().filter(|lock| there.contains_key(lock.as_bytes())).collect();
    assert!(locks.is_empty(), "locks left behind: {locks:?}");
}

/// Nothing was written: no target, no mark, no lock.
async fn assert_untouched(redis: &Endpoint, expected: &Expected) {
    expected.originals.assert_same(&snapshot(redis).await.filter(|key, _| !is_state(key)), "nothing was written");
    Bench::new(redis).assert_no_mark().await;
    assert_no_lock(redis).await;
}

/// What is found has a question of its own, which somebody at a terminal has read.
#[tokio::test]
async fn a_prompt_asks_about_expiries_that_another_tool_dropped() {
    let redis = Standalone::start(Options::default()).await;
    let (endpoint, end) = (redis.endpoint(), now_ms() + 3_600_000);
    let deleted = || Value::hash([("deleted_at", "2026-11-01T00:00:00Z")]);
    let found = [
        Entry::new("tenant:gone", deleted()).expiring(end),
        Entry::new("tenant:{gone}:tenant", deleted()),
        Entry::new("outpost:migration:001_hash_tags", Value::hash([("status", "applied")])),
    ];
    load(&endpoint, found).await;
    let cli = CommandLine::at(&endpoint);
    let expiry = async || snapshot(&endpoint).await[&b"tenant:{gone}:tenant"[..]].expiry_ms;

    for (answer, expected) in [("n\n", (1, None)), ("y\n", (0, Some(end)))] {
        let mut apply = Terminal::start(&cli, &["apply"]);
        apply.wait_for("Put back the expiry of 1 target? [y/N] ").await;
        apply.type_in(answer);
        let (code, drawn) = apply.finish().await;
        assert_eq!((code, expiry().await), expected, "{answer:?}\n{drawn}");
    }
}

#[tokio::test]
async fn a_prompt_takes_yes_and_no() {
    let (_redis, endpoint, cli, expected) = stage(20).await;
    for answer in ["n\n", "\n", "yess\n"] {
        let mut apply = Terminal::start(&cli, &["apply"]);
        apply.wait_for("Apply 001_hash_tags? [y/N] ").await;
        apply.type_in(answer);
        let (code, drawn) = apply.finish().await;
        assert!(code == 1 && drawn.contains("declined; no entry was touched"), "{answer:?}: {code}\n{drawn}");
        assert!(!drawn.contains(CANARY), "{drawn}");
        assert_untouched(&endpoint, &expected).await;
    }
    let mut apply = Terminal::start(&cli, &["apply"]);
    apply.wait_for("Apply 001_hash_tags? [y/N] ").await;
    apply.type_in("y\n");
    let (code, drawn) = apply.finish().await;
    assert_eq!(code, 0, "{drawn}");
    expected.assert_migrated(&Bench::new(&endpoint)).await;

    let mut cleanup = Terminal::start(&cli, &["cleanup"]);
    cleanup.wait_for("Remove originals of 001_hash_tags").await;
    cleanup.type_in("n\n");
    let (code, drawn) = cleanup.finish().await;
    assert!(code == 1 && drawn.contains("declined; nothing was removed"), "{code}\n{drawn}");
    expected.assert_migrated(&Bench::new(&endpoint)).await;
    let mut cleanup = Terminal::start(&cli, &["cleanup"]);
    cleanup.wait_for("Remove originals of 001_hash_tags").await;
    cleanup.type_in("YES\n");
    assert_eq!(cleanup.finish().await.0, 0);
    expected.cleaned_up().assert_same(&Bench::new(&endpoint).snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn ctrl_c_at_a_prompt_ends_and_frees_the_lock() {
    let (_redis, endpoint, cli, expected) = stage(20).await;
    let mut apply = Terminal::start(&cli, &["apply"]);
    apply.wait_for("Apply 001_hash_tags? [y/N] ").await;
    apply.type_in(CTRL_C);
    let (code, drawn) = apply.finish().await;
    assert!(code == 1 && drawn.contains("interrupted at the question"), "{code}\n{drawn}");
    assert_untouched(&endpoint, &expected).await;
}

#[tokio::test]
async fn unlock_asks_and_keeps_the_lock_when_declined() {
    let (_redis, endpoint, cli, _) = stage(1).await;
    let mut connection = endpoint.primaries().await.remove(0).connection;
    let text = "migration=001_hash_tags, started=2025-07-01T00:00:00Z";
    redis::cmd("SET").arg(LOCKS[1]).arg(text).exec_async(&mut connection).await.unwrap();
    let mut unlock = Terminal::start(&cli, &["unlock"]);
    unlock.wait_for("Take the lock away? [y/N] ").await;
    unlock.type_in("n\n");
    let (code, drawn) = unlock.finish().await;
    assert!(code == 1 && drawn.contains("declined; the lock stays") && drawn.contains(text), "{code}\n{drawn}");
    assert!(snapshot(&endpoint).await.contains_key(LOCKS[1].as_bytes()), "the lock stays");
    let mut unlock = Terminal::start(&cli, &["unlock"]);
    unlock.wait_for("Take the lock away? [y/N] ").await;
    unlock.type_in("y\n");
    assert_eq!(unlock.finish().await.0, 0);
    assert_no_lock(&endpoint).await;
}

#[tokio::test]
async fn a_bar_shows_share_and_rate() {
    let (_redis, endpoint, cli, expected) = stage(100).await;
    let apply = Terminal::start(&cli, &["apply", "--yes", "--keys-per-second", "150"]);
    let drawn = eventually(Duration::from_secs(60), "a bar with share and rate", async || {
        let drawn = apply.drawn();
        // A copy under way: `apply 001_hash_tags [=====>    ] 45% (200 of 450), 150 keys/s, 3s left`.
        let moving = |part: &str| {
            let bar = part.split("apply 001_hash_tags [").nth(1)?;
            let (bar, figures) = bar.split_once(']')?;
            let rate = figures.split(", ").find_map(|figure| figure.strip_suffix(" keys/s"))?;
            (bar.contains('>') && figures.contains("% (") && figures.contains(" of ") && rate != "0").then_some(())
        };
        drawn.split(['\r', '\n']).find_map(moving).map(|()| drawn.clone())
    })
    .await;
    assert!(drawn.contains(ESCAPE), "a bar is drawn over itself");
    let (code, drawn) = apply.finish().await;
    assert_eq!(code, 0, "{drawn}");
    expected.assert_migrated(&Bench::new(&endpoint)).await;
}

#[tokio::test]
async fn ctrl_c_in_the_middle_finishes_the_batch_and_the_next_run_completes() {
    let (_redis, endpoint, cli, expected) = stage(300).await;
    let mut apply = Terminal::start(&cli, &["apply", "--yes", "--keys-per-second", "400"]);
    expected.wait_halfway(&endpoint).await;
    apply.type_in(CTRL_C);
    let (code, drawn) = apply.finish().await;
    assert!(code == 1 && drawn.contains("stopped as asked") && drawn.contains("start again"), "{code}\n{drawn}");
    expected.assert_halfway(&endpoint).await;
    assert_no_lock(&endpoint).await;
    Bench::new(&endpoint).assert_no_mark().await;

    cli.run(&["apply", "--yes"]).await.expect(0).says("done before");
    expected.assert_migrated(&Bench::new(&endpoint)).await;
}

#[tokio::test]
async fn colour_is_for_terminals_and_nowhere_with_no_color() {
    let (_redis, endpoint, cli, _) = stage(1).await;
    // A braced id is a finding, and its severity is coloured.
    let braced = crate::support::value::Value::hash([("id", "{a}")]);
    load(&endpoint, [crate::support::value::Entry::new("tenant:{a}", braced)]).await;
    // The plan must be quick, so that no bar is drawn whose movements are control characters too.
    let (code, drawn) = Terminal::start(&cli, &["plan"]).finish().await;
    let colour = format!("{ESCAPE}[3");
    assert!(code == 0 && drawn.contains(&colour), "colour at a terminal: {code}\n{drawn}");
    let plain = CommandLine::at(&endpoint).env("NO_COLOR", "1");
    let (code, drawn) = Terminal::start(&plain, &["plan"]).finish().await;
    assert!(code == 0 && !drawn.contains(&colour) && drawn.contains("Findings:"), "{code}\n{drawn}");
    // Piped: the driver refuses any control character.
    cli.run(&["plan"]).await.expect(0).says("Findings:");
    cli.run(&["apply", "--yes", "--keys-per-second", "100"]).await;
}

#[tokio::test]
async fn a_killed_apply_is_completed_by_the_next_one() {
    let (_redis, endpoint, cli, expected) = stage(300).await;
    let apply = cli.start(&["apply", "--yes", "--keys-per-second", "400"]);
    expected.wait_halfway(&endpoint).await;
    let holder = format!("/{}", apply.pid());
    apply.kill().await;
    expected.assert_halfway(&endpoint).await;

    let status = cli.run(&["status"]).await.expect(0).says("(apply of 001_hash_tags)").says("unlock");
    assert!(status.stdout.contains(&holder), "the dead holder is named: {status}");
    cli.run(&["apply", "--yes"]).await.expect(4).fails_with(&["is held by", &holder, "unlock"]);
    cli.run(&["unlock"]).await.expect(2);
    cli.run(&["unlock", "--yes"]).await.expect(0).says(&holder).says("The lock is free.");
    assert_no_lock(&endpoint).await;
    cli.run(&["apply", "--yes"]).await.expect(0);
    expected.assert_migrated(&Bench::new(&endpoint)).await;
}

#[tokio::test]
async fn a_killed_cleanup_is_completed_by_the_next_one() {
    let (_redis, endpoint, cli, expected) = stage(300).await;
    cli.run(&["apply", "--yes"]).await.expect(0);
    let sources_there = async || {
        let there = snapshot(&endpoint).await;
        expected.pairs.keys().filter(|source| there.contains_key(*source)).count()
    };
    let cleanup = cli.start(&["cleanup", "--yes", "--force", "--keys-per-second", "400"]);
    eventually(Duration::from_secs(60), "a part of the originals is gone", async || {
        (sources_there().await < expected.pairs.len() * 4 / 5).then_some(())
    })
    .await;
    cleanup.kill().await;
    let left = sources_there().await;
    assert!(0 < left && left < expected.pairs.len(), "the kill did not hit: {left} originals are left");

    cli.run(&["status"]).await.expect(0).says("(cleanup of 001_hash_tags)");
    cli.run(&["cleanup", "--yes"]).await.expect(4).fails_with(&["is held by"]);
    cli.run(&["unlock", "--yes"]).await.expect(0);
    let completed = cli.run(&["cleanup", "--yes", "--output", "json"]).await.expect(0).event("cleaned_up");
    assert_eq!(completed["removed"], left, "the rest");
    expected.cleaned_up().assert_same(&Bench::new(&endpoint).snapshot().await.0, "as a clean run");
    assert_no_lock(&endpoint).await;
}
