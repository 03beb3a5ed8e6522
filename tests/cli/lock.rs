//! The lock, seen from the command line: ours and other tools', shown, respected and taken away.

use std::time::Duration;

use crate::schema::load_with_canaries;
use crate::shell::{CommandLine, names};
use crate::support::engine::{Bench, LOCKS, run_on_owner};
use crate::support::process::Signal;
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::Keyspace;
use crate::support::wait::eventually;

/// What the tools of other versions put there.
const PLAIN: &str = "migration=001_hash_tags, started=2025-07-01T00:00:00Z";

async fn set_if_absent(redis: &Endpoint, key: &str, value: &str) -> bool {
    let mut set = redis::cmd("SET");
    set.arg(key).arg(value).arg("NX").arg("EX").arg(3600);
    run_on_owner(redis, key.as_bytes(), &set).await != redis::Value::Nil
}

fn locks(keyspace: &Keyspace) -> Vec<&'static str> {
    LOCKS.into_iter().filter(|lock| keyspace.contains_key(lock.as_bytes())).collect()
}

/// A plain-text lock under any of the names stops whoever would write, is shown, and goes when told to.
async fn another_tools_lock(redis: &Endpoint) {
    let cli = CommandLine::at(redis);
    let expected = load_with_canaries(redis, 5).await;
    for lock in LOCKS {
        assert!(set_if_absent(redis, lock, PLAIN).await, "{lock} is free");
        let before = snapshot(redis).await;
        for command in ["apply", "cleanup"].into_iter().filter(|it| *it == "apply" || lock != LOCKS[0]) {
            let refused = cli.run(&[command, "--yes"]).await.expect(4);
            refused.fails_with(&[&format!("the lock {lock} is held by {PLAIN}"), "unlock"]);
        }
        cli.run(&["status"])
            .await
            .expect(0)
            .says(&format!("Lock: {lock} is held by {PLAIN}"))
            .says("does not tell whether it is renewed");
        for command in ["list", "plan"] {
            cli.run(&[command]).await.expect(0);
        }
        cli.run(&["verify"]).await;
        let unanswered = cli.run(&["unlock"]).await.expect(2).says(&format!("{lock} is held by {PLAIN}"));
        unanswered.fails_with(&["no terminal", "--yes"]);
        snapshot(redis).await.assert_same(&before, "a respected lock");

        let json = CommandLine::at(redis).flags(&["--output", "json"]).run(&["status"]).await.expect(0).json();
        let shown = &json["locks"][0];
        let members =
            ["age_seconds", "holder", "key", "migration", "operation", "remaining_seconds", "since", "still_renews"];
        assert_eq!(names(shown), members);
        assert_eq!((shown["key"].as_str(), shown["holder"].as_str()), (Some(lock), Some(PLAIN)));
        cli.run(&["unlock", "--yes"]).await.expect(0).says(PLAIN).says("The lock is free.");
        let others = |key: &[u8], _: &_| key != lock.as_bytes();
        before.filter(others).assert_same(&snapshot(redis).await, "unlock removes the lock and nothing else");
        if lock == LOCKS[0] {
            cli.run(&["apply", "--yes"]).await.expect(0);
            expected.assert_migrated(&Bench::new(redis)).await;
            // So that the others have something to do for apply and for cleanup.
        }
    }
}

#[tokio::test]
async fn another_tools_lock_on_a_standalone_server() {
    let redis = Standalone::start(Options::default()).await;
    another_tools_lock(&redis.endpoint()).await;
}

#[tokio::test]
async fn another_tools_lock_on_a_cluster() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    another_tools_lock(&cluster.endpoint()).await;
}

#[tokio::test]
async fn our_lock_blocks_every_tool_while_we_work_and_is_shown() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let expected = load_with_canaries(&endpoint, 200).await;
    let apply = cli.start(&["apply", "--yes", "--keys-per-second", "300"]);
    expected.wait_halfway(&endpoint).await;

    for lock in LOCKS {
        assert!(!set_if_absent(&endpoint, lock, PLAIN).await, "{lock} is ours, so that no other tool gets it");
    }
    let holder = format!("/{} (apply of 001_hash_tags)", apply.pid());
    cli.run(&["status"]).await.expect(0).says(&holder).says("its holder renews it: it is at work");
    cli.run(&["apply", "--yes"]).await.expect(4).fails_with(&["the lock outpost:migration:lock is held by", "unlock"]);
    cli.run(&["unlock"]).await.expect(2);
    cli.run(&["list"]).await.expect(0);
    apply.finish().await.expect(0);
    expected.assert_migrated(&Bench::new(&endpoint)).await;
    assert_eq!(locks(&snapshot(&endpoint).await), Vec::<&str>::new());
}

#[tokio::test]
async fn whoever_loses_the_lock_ends_and_the_next_one_completes() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let expected = load_with_canaries(&endpoint, 200).await;
    let apply = cli.start(&["apply", "--yes", "--keys-per-second", "100"]);
    expected.wait_halfway(&endpoint).await;
    let unlock = cli.run(&["unlock", "--yes"]).await.expect(0).says("The lock is free.");
    assert!(unlock.stderr.contains("Its holder is at work"), "a warning: {unlock}");
    let loser = apply.finish().await.expect(4);
    assert!(loser.stderr.contains("error: the lock was lost"), "{loser}");
    Bench::new(&endpoint).assert_no_mark().await;
    cli.run(&["apply", "--yes"]).await.expect(0);
    expected.assert_migrated(&Bench::new(&endpoint)).await;
    assert_eq!(locks(&snapshot(&endpoint).await), Vec::<&str>::new());
}

/// Connections whose name carries a lock's token.
async fn writers(redis: &Standalone) -> usize {
    let mut connection = redis.connection().await;
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.expect("CLIENT LIST");
    list.lines().filter(|line| line.contains(" name=outpost-migrate:db0:")).count()
}

/// Nobody takes the lock after `unlock`, so nobody else would close what a sleeping holder could go on over.
#[tokio::test]
async fn unlock_cuts_off_a_holder_that_sleeps() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let expected = load_with_canaries(&endpoint, 200).await;
    let apply = cli.start(&["apply", "--yes", "--keys-per-second", "100"]);
    expected.wait_halfway(&endpoint).await;
    apply.signal(Signal::STOP);
    assert!(writers(&redis).await > 0, "it has connections to go on over");

    cli.run(&["unlock", "--yes"]).await.expect(0).says("The lock is free.");
    let before = snapshot(&endpoint).await;
    assert_eq!(writers(&redis).await, 0, "they are closed");
    apply.signal(Signal::CONT);

    let loser = apply.finish().await.expect(4);
    assert!(loser.stderr.contains("error: the lock was lost"), "{loser}");
    before.assert_same(&snapshot(&endpoint).await, "woken, it writes nothing");
}

/// Who may not close connections is told to wait.
#[tokio::test]
async fn unlock_says_when_it_can_not_cut_off_the_holder() {
    let user = "nokill on >secret ~* &* +@all -client|kill";
    let redis = Standalone::start(Options { acl_users: vec![user.to_owned()], ..Options::default() }).await;
    let endpoint = redis.endpoint();
    let expected = load_with_canaries(&endpoint, 200).await;
    let apply = CommandLine::at(&endpoint).start(&["apply", "--yes", "--keys-per-second", "100"]);
    expected.wait_halfway(&endpoint).await;

    let as_user = CommandLine::at(&endpoint).env("REDIS_USERNAME", "nokill").env("REDIS_PASSWORD", "secret");
    let unlock = as_user.run(&["unlock", "--yes"]).await.expect(0).says("The lock is free.");

    assert!(unlock.stderr.contains("may not close them (CLIENT LIST, CLIENT KILL)"), "{unlock}");
    apply.finish().await.expect(4);
}

#[tokio::test]
async fn a_lock_that_ended_is_taken_over() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let cli = CommandLine::at(&endpoint);
    let expected = load_with_canaries(&endpoint, 5).await;
    for lock in LOCKS {
        let set = redis::cmd("SET").arg(lock).arg(PLAIN).arg("PX").arg(400).clone();
        run_on_owner(&endpoint, lock.as_bytes(), &set).await;
    }
    eventually(Duration::from_secs(30), "apply gets the lock", async || {
        let done = cli.run(&["apply", "--yes"]).await;
        assert!([0, 4].contains(&done.code), "{done}");
        (done.code == 0).then_some(())
    })
    .await;
    expected.assert_migrated(&Bench::new(&endpoint)).await;
}
