//! Configuration of the program as a child process: flags on either side, environment, files, `--verbose`, and the
//! examples that the earlier tool documents, through a stand-in for the wrapper that execs us.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::schema::load_with_canaries;
use crate::shell::{CANARY, CommandLine, PROGRAM};
use crate::support::engine::{Bench, LOCKS, run_on_owner};
use crate::support::redis_client::Endpoint;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use serde_json::Value as Json;

fn password() -> String {
    format!("{CANARY}-password")
}

async fn server() -> (Standalone, Endpoint, String) {
    let redis = Standalone::start(Options::password(&password())).await;
    let (endpoint, port) = (redis.endpoint(), redis.port().to_string());
    (redis, endpoint, port)
}

#[tokio::test]
async fn global_flags_work_before_and_after_the_command() {
    let (_redis, _, port) = server().await;
    let flags = ["--redis-host", "127.0.0.1", "--redis-port", &port, "--output", "json"];
    let bare = CommandLine::bare().env("REDIS_PASSWORD", &password());
    let before = bare.run(&[&flags[..], &["list"]].concat()).await.expect(0);
    let after = bare.run(&[&["list"], &flags[..]].concat()).await.expect(0);
    let around = bare.run(&[&flags[..2], &["list"], &flags[2..]].concat()).await.expect(0);
    assert!(before.stdout == after.stdout && before.stdout == around.stdout, "{before}\n{after}\n{around}");
}

#[tokio::test]
async fn each_source_is_read_and_the_higher_one_wins() {
    let (_redis, endpoint, port) = server().await;
    load_with_canaries(&endpoint, 1).await;
    let yaml = format!("redis:\n  host: 127.0.0.1\n  port: {port}\n  password: {}\n", password());
    let dotenv = format!("REDIS_HOST=127.0.0.1\nREDIS_PORT={port}\nREDIS_PASSWORD={}\n", password());

    let environment = CommandLine::bare().env("REDIS_HOST", "127.0.0.1").env("REDIS_PORT", &port);
    environment.env("REDIS_PASSWORD", &password()).run(&["list"]).await.expect(0);
    for (file, text) in [(".env", &dotenv), (".outpost.yaml", &yaml)] {
        let cli = CommandLine::bare();
        cli.write(file, text);
        cli.run(&["list"]).await.expect(0);
        cli.run(&["list", "--redis-port", "1"]).await.expect(3).fails_with(&["127.0.0.1:1"]);
        let cli = cli.env("REDIS_PORT", "2");
        cli.run(&["list"]).await.expect(3).fails_with(&["127.0.0.1:2"]);
        cli.run(&["list", "--redis-port", &port]).await.expect(0);
    }
    let cli = CommandLine::bare();
    let named = cli.write("named.yaml", &yaml);
    cli.run(&["--config", named.to_str().unwrap(), "plan"]).await.expect(0).says("Plan of 001_hash_tags");
    cli.run(&["list", "-c", "named.yaml"]).await.expect(0);
    cli.env("CONFIG", "named.yaml").run(&["list"]).await.expect(0);
}

#[tokio::test]
async fn a_password_comes_from_a_file_too() {
    let (_redis, _, port) = server().await;
    let cli = CommandLine::bare().flags(&["--redis-host", "127.0.0.1", "--redis-port", &port]);
    cli.write("password", &format!("{}\n", password()));
    cli.run(&["list"]).await.expect(3).fails_with(&["refused the credentials"]);
    cli.run(&["list", "--redis-password-file", "password"]).await.expect(0);
    let twice = cli.run(&["list", "--redis-password-file", "password", "--redis-password", "x"]).await.expect(2);
    twice.fails_with(&["--redis-password", "--redis-password-file"]);
}

#[tokio::test]
async fn verbose_shows_values_and_sources_and_no_password() {
    let (_redis, _, port) = server().await;
    let cli = CommandLine::bare().env("REDIS_PASSWORD", &password()).env("REDIS_HOST", "127.0.0.1");
    cli.write(".outpost.yaml", &format!("redis:\n  port: {port}\n"));
    // The driver refuses the canary in what is printed; the password holds it.
    let shown = cli.run(&["--verbose", "list", "--conflict-policy", "prefer-target"]).await.expect(0);
    for row in [
        ["configuration file", ".outpost.yaml", "first found"],
        ["redis host", "127.0.0.1", "environment REDIS_HOST"],
        ["redis port", &port, ".outpost.yaml: redis.port"],
        ["redis password", "***", "environment REDIS_PASSWORD"],
        ["redis cluster", "false", "default"],
        ["conflict policy", "prefer-target", "flag --conflict-policy"],
    ] {
        let is_row = |line: &str| line.starts_with(row[0]) && line.contains(row[1]) && line.ends_with(row[2]);
        assert!(shown.stderr.lines().any(is_row), "{row:?}: {shown}");
    }
    let typed = ["--redis-password", &password(), "--verbose", "status"];
    let typed = cli.run(&typed).await.expect(0);
    assert!(typed.stderr.contains("flag --redis-password"), "{typed}");
}

#[tokio::test]
async fn log_lines_are_json_when_asked_for() {
    let (_redis, endpoint, _) = server().await;
    load_with_canaries(&endpoint, 1).await;
    let waiting = ["init", "--current", "--wait", "1s"];
    let text = CommandLine::at(&endpoint).run(&waiting).await.expect(1);
    assert!(text.stderr.contains("INFO waiting: pending: 001_hash_tags"), "{text}");
    for cli in [
        CommandLine::at(&endpoint).flags(&["--log-format", "json"]),
        CommandLine::at(&endpoint).env("LOG_FORMAT", "json"),
    ] {
        let done = cli.run(&waiting).await.expect(1);
        let line: Json = serde_json::from_str(done.stderr.lines().next().expect("a log line")).expect("JSON");
        assert_eq!(line["level"], "INFO", "{done}");
        assert!(line["fields"]["message"].as_str().unwrap().starts_with("waiting: pending"), "{done}");
        assert!(done.stderr.lines().all(|line| serde_json::from_str::<Json>(line).is_ok()), "{done}");
    }
}

#[tokio::test]
async fn version_completions_and_manual_need_no_redis() {
    let cli = CommandLine::bare();
    let version = cli.run(&["--version"]).await.expect(0);
    let (name, commit) = version.stdout.trim().split_once(" (").expect("version and commit");
    assert_eq!(name, concat!("outpost-migrate-redis ", env!("CARGO_PKG_VERSION")));
    let commit = commit.strip_suffix(')').expect("a commit");
    let is_commit = commit.len() >= 12 && commit.chars().all(|c| c.is_ascii_hexdigit());
    assert!(is_commit || commit == "unknown commit", "{version}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = cli.run(&["completions", shell]).await.expect(0);
        assert!(script.stdout.contains("restore-missing") && script.stderr.is_empty(), "{shell}: {script}");
    }
    cli.run(&["completions", "dos"]).await.expect(2);
    let page = cli.run(&["man"]).await.expect(0).says(".TH outpost-migrate-redis 1");
    page.says("Exit codes").says("redis\\-password\\-file").says("outpost\\-migrate\\-redis\\-apply");
}

/// The examples of the earlier tool's documentation: `outpost migrate …`, where `outpost` is a script that execs us.
#[tokio::test]
async fn the_documented_examples_work_through_the_wrapper() {
    let redis = Standalone::start(Options::default()).await;
    let (endpoint, port) = (redis.endpoint(), redis.port().to_string());
    let cli = CommandLine::bare();
    let script = format!("#!/bin/sh\n[ \"$1\" = migrate ] || exit 64\nshift\nexec {PROGRAM} \"$@\"\n");
    let wrapper = cli.write("outpost", &script);
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let config = cli.write("config.yaml", &format!("redis:\n  host: localhost\n  port: {port}\n"));
    // Where the document relies on the default port, the environment has the test's.
    let cli = cli.program(&wrapper).env("REDIS_HOST", "localhost").env("REDIS_PORT", &port);
    let outpost = async |arguments: &str| {
        let words: Vec<&str> = arguments.split(' ').collect();
        cli.run(&words).await
    };
    outpost("migrate init").await.expect(0).says("Initialised");
    outpost("migrate init --current").await.expect(0).says("Current");
    run_on_owner(&endpoint, b"", &redis::cmd("FLUSHALL")).await;

    let expected = load_with_canaries(&endpoint, 10).await;
    outpost("migrate init").await.expect(0).says("Pending");
    outpost("migrate init --current").await.expect(1).says("001_hash_tags");
    outpost("migrate list").await.expect(0).says("001_hash_tags 1 pending");
    outpost("migrate plan").await.expect(0).says("Plan of 001_hash_tags");
    let verbose = outpost("migrate --redis-host localhost --verbose plan").await.expect(0);
    assert!(verbose.stderr.contains("flag --redis-host"), "{verbose}");
    let file = format!("migrate --config {} plan", config.display());
    outpost(&file).await.expect(0).says("Plan of 001_hash_tags");
    let cluster = outpost("migrate --redis-host localhost --redis-cluster --redis-tls --verbose plan").await;
    assert_eq!(cluster.code, 3, "the flags are understood, and this server has no TLS: {cluster}");

    outpost("migrate apply --yes").await.expect(0);
    expected.assert_migrated(&Bench::new(&endpoint)).await;
    outpost("migrate apply -y").await.expect(0).says("002_timestamps");
    outpost("migrate apply -y").await.expect(0).says("003_entity");
    outpost("migrate init --current").await.expect(0).says("Current");
    outpost("migrate verify").await.expect(0);
    outpost("migrate cleanup --yes").await.expect(0).says(&format!("{} originals removed", expected.sources()));
    outpost("migrate cleanup -y -f").await.expect(0).says("0 originals removed");
    outpost("migrate cleanup --yes --force").await.expect(0);
    run_on_owner(&endpoint, b"", redis::cmd("SET").arg(LOCKS[0]).arg("migration=x, started=now")).await;
    outpost("migrate unlock --yes").await.expect(0).says("migration=x");
    assert!(!snapshot(&endpoint).await.contains_key(LOCKS[0].as_bytes()));
    outpost("migrate unlock -y").await.expect(0).says("The lock is free.");
    let gate = "outpost migrate init --current || { echo 'Error: Database migrations required'; exit 1; }";
    let startup = cli.write("start.sh", &format!("#!/bin/sh\nPATH=.:$PATH\n{gate}\necho serving\n"));
    let started = CommandLine::bare().program("/bin/sh").env("REDIS_HOST", "localhost").env("REDIS_PORT", &port);
    let path = format!("{}:/usr/bin:/bin", cli.folder().display());
    started.env("PATH", &path).run(&[startup.to_str().unwrap()]).await.expect(0).says("serving");
}
