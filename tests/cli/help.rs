//! Help texts and tables as they are printed, word for word, in `tests/snapshots`.
//!
//! A text that differs, or has no snapshot, fails. To accept new ones: `INSTA_UPDATE=always cargo test --test cli
//! help::`, then read the difference.

use std::path::PathBuf;

use crate::shell::CommandLine;
use crate::support::engine::{LOCKS, hset, run_on_owner};
use crate::support::generator::{now_ms, unmigrated};
use crate::support::load::load;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Entry, Value};

fn assert_snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots"));
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[tokio::test]
async fn help_of_every_command() {
    let cli = CommandLine::bare();
    let root = cli.run(&["--help"]).await.expect(0);
    assert_eq!(root.stdout, cli.run(&["help"]).await.expect(0).stdout);
    assert_snapshot("help", &root.stdout);
    let commands = root.stdout.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let commands: Vec<&str> = commands
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|word| !word.is_empty()))
        .filter(|command| *command != "help")
        .collect();
    assert!(["init", "apply", "man"].iter().all(|it| commands.contains(it)), "{commands:?}");
    for command in commands {
        let help = cli.run(&[command, "--help"]).await.expect(0);
        assert!(help.stderr.is_empty(), "{help}");
        // The global flags are the root's; a table of their own keeps each snapshot to what is the command's.
        let (own, global) = split_global(&help.stdout, &root.stdout);
        assert!(global > 15, "{command} takes the global flags: {help}");
        assert_snapshot(&format!("help_{command}"), &own);
    }
}

/// Help without the lines that the root's help has too; and how many those were.
fn split_global(help: &str, root: &str) -> (String, usize) {
    let is_global = |line: &&str| line.starts_with("  ") && root.lines().any(|other| other == *line);
    let (global, mut own): (Vec<&str>, Vec<&str>) = help.lines().partition(is_global);
    own.dedup_by(|one, other| one.is_empty() && other.is_empty());
    (own.join("\n"), global.len())
}

/// A small keyspace of every kind.
fn entries() -> Vec<Entry> {
    let at = "2025-03-01T12:00:00Z";
    let tenant = |id: &str| Entry::new(format!("tenant:{id}"), Value::hash([("id", id), ("created_at", at)]));
    let destination = |tenant: &str, id: &str| {
        let fields = [("id", id), ("type", "webhook"), ("topics", "*"), ("created_at", at)];
        Entry::new(format!("tenant:{tenant}:destination:{id}"), Value::hash(fields))
    };
    let tombstone = Entry::new("tenant:gone", Value::hash([("deleted_at", at)])).expiring(now_ms() + 86_400_000);
    let summary = Value::hash([("des_1", r#"{"id":"des_1"}"#), ("des_2", r#"{"id":"des_2"}"#)]);
    let mut all = vec![
        tenant("acme"),
        destination("acme", "des_1"),
        destination("acme", "des_2"),
        Entry::new("tenant:acme:destinations", summary),
        tenant("org:umbrella"),
        tombstone,
        tenant("{braced}"),
    ];
    all.extend(unmigrated().into_iter().map(|one| one.entry));
    all
}

#[tokio::test]
async fn tables_of_an_upgrade() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    load(&endpoint, entries()).await;
    let cli = CommandLine::at(&endpoint);
    let shown = async |name: &str, arguments: &[&str], code: i32| {
        let done = cli.run(arguments).await.expect(code);
        let stderr = if done.stderr.is_empty() { String::new() } else { format!("--- stderr\n{}", done.stderr) };
        assert_snapshot(name, &settled(&format!("{}{stderr}", done.stdout)));
    };
    shown("list_pending", &["list"], 0).await;
    shown("status_pending", &["status"], 0).await;
    shown("plan", &["plan"], 0).await;
    shown("verify_pending", &["verify"], 1).await;
    shown("init_pending", &["init", "--current"], 1).await;
    let conflict = Value::hash([("id", "acme"), ("created_at", "2024-01-01T00:00:00Z")]);
    load(&endpoint, [Entry::new("tenant:{acme}:tenant", conflict)]).await;
    shown("plan_with_conflict", &["plan"], 0).await;
    shown("apply_with_conflict", &["apply", "--yes"], 1).await;
    run_on_owner(&endpoint, b"", redis::cmd("DEL").arg("tenant:{acme}:tenant")).await;

    shown("apply", &["apply", "--yes"], 0).await;
    shown("plan_second", &["plan"], 0).await;
    shown("apply_all", &["apply", "--all", "--yes"], 0).await;
    shown("apply_nothing", &["apply", "--yes"], 0).await;
    shown("plan_nothing", &["plan"], 0).await;
    shown("list_applied", &["list"], 0).await;
    shown("verify", &["verify"], 0).await;

    hset(&endpoint, b"tenant:{acme}:tenant", "created_at", "7").await;
    hset(&endpoint, b"tenant:{acme}:tenant", "metadata", "x").await;
    run_on_owner(&endpoint, b"", redis::cmd("DEL").arg("tenant:{acme}:destination:des_1")).await;
    shown("verify_with_differences", &["verify", "001_hash_tags"], 1).await;
    shown("rerun_of_a_rename", &["apply", "--rerun", "001_hash_tags", "--yes"], 0).await;
    shown("cleanup", &["cleanup", "--yes"], 0).await;
    shown("cleanup_forced", &["cleanup", "--yes", "--force"], 0).await;
    shown("list_cleaned_up", &["list"], 0).await;
    shown("status_applied", &["status"], 0).await;
}

#[tokio::test]
async fn tables_of_locks() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let taken = jiff::Timestamp::from_millisecond(now_ms() - 3_000_000).unwrap();
    let ours = format!(
        r#"{{"holder":"outpost-0","migration":"001_hash_tags","operation":"apply","token":"t","started_at":"{taken}","lease_seconds":3600}}"#
    );
    let plain = "migration=001_hash_tags, started=2025-07-01T00:00:00Z";
    for (key, value, life) in
        [(LOCKS[0], ours.as_str(), Some(3_590_000)), (LOCKS[1], plain, None), (LOCKS[2], &ours, Some(600_000))]
    {
        run_on_owner(&endpoint, b"", redis::cmd("SET").arg(key).arg(value)).await;
        if let Some(life) = life {
            run_on_owner(&endpoint, b"", redis::cmd("PEXPIRE").arg(key).arg(life)).await;
        }
    }
    for (name, arguments, code) in [
        ("status_locked", &["status"][..], 0),
        ("apply_locked", &["apply", "--yes"], 4),
        ("unlock_unanswered", &["unlock"], 2),
        ("unlock", &["unlock", "--yes"], 0),
        ("unlock_free", &["unlock"], 0),
    ] {
        let done = cli.run(arguments).await.expect(code);
        assert_snapshot(name, &settled(&format!("{}--- stderr\n{}", done.stdout, done.stderr)));
    }
}

/// The text without what is different each time: times, durations, hashes, sizes, ports; and without the width that they
/// give to columns.
fn settled(text: &str) -> String {
    let has_time = text.split_whitespace().any(|word| word.parse::<jiff::Timestamp>().is_ok());
    let line = |line: &str| {
        let mut words: Vec<String> = line.split(' ').map(settled_word).collect();
        let size = words.iter().position(|word| ["B", "KiB", "B,", "KiB,"].contains(&word.as_str()));
        if let Some(at) = size.filter(|at| *at > 0) {
            "<size>".clone_into(&mut words[at - 1]);
        }
        if has_time {
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        } else {
            words.join(" ")
        }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn settled_word(word: &str) -> String {
    let bare = word.trim_end_matches([';', ',', '.', ':']);
    let end = &word[bare.len()..];
    let is_duration = bare.starts_with(|c: char| c.is_ascii_digit())
        && bare.ends_with(['d', 'h', 'm', 's'])
        && bare.chars().all(|c| c.is_ascii_digit() || "dhms".contains(c));
    if bare.parse::<jiff::Timestamp>().is_ok() && !bare.starts_with("2025-0") {
        format!("<time>{end}")
    } else if is_duration {
        format!("<duration>{end}")
    } else if bare.starts_with("sha256:") {
        format!("sha256:<hash>{end}")
    } else if bare.strip_prefix("127.0.0.1:").is_some_and(|port| port.parse::<u16>().is_ok()) {
        format!("127.0.0.1:<port>{end}")
    } else {
        word.to_owned()
    }
}
