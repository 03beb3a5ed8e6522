//! Tests of the harness itself, against real Redis servers.

use std::process::Command;
use std::time::Duration;

use crate::support::generator::{Generator, noise, unmigrated};
use crate::support::load::load;
use crate::support::process::{Process, Signal, temp_dir};
use crate::support::redis_client::slot;
use crate::support::redis_cluster::{Cluster, wait_replicated};
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Keyspace, Value};

/// Loads a keyspace of every kind of key and reads it back.
async fn load_all(endpoint: &crate::support::redis_client::Endpoint, tenants: usize) -> Keyspace {
    let generator = Generator::new(1, tenants);
    let others = noise(generator.now_ms).into_iter().chain(unmigrated().into_iter().map(|unmigrated| unmigrated.entry));
    let entries: Vec<Entry> = generator.entries().chain(others).collect();
    load(endpoint, entries.iter().cloned()).await;
    let expected: Keyspace = entries.into_iter().collect();
    let found = snapshot(endpoint).await;
    expected.assert_same(&found, "what was loaded is there");
    expected
}

#[tokio::test]
async fn a_process_ends_with_its_guard() {
    let folder = temp_dir("process-", None);
    let log = folder.path().join("log");
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap 'echo asked; exit 3' TERM; echo \"$WORD\"; while :; do sleep 0.01; done"])
        .env("WORD", "up");
    let process = Process::start(&command, &log);
    crate::support::wait::eventually_true(Duration::from_secs(10), "it says that it is up", async || {
        process.log() == "up\n"
    })
    .await;
    assert_eq!(process.wait_exit(Duration::ZERO).await, None);
    assert_eq!(process.stop(Duration::from_secs(10)).await.code(), Some(3));
    assert_eq!(process.log(), "up\nasked\n");

    let process = Process::start(&command, &log);
    let proc_entry = std::path::PathBuf::from(format!("/proc/{}", process.pid()));
    assert!(proc_entry.exists());
    drop(process);
    assert!(!proc_entry.exists());
}

/// This test starts its own program again, where it only starts a child, and kills it.
#[tokio::test]
async fn a_process_ends_with_a_killed_test() {
    let folder = temp_dir("process-", None);
    if let Some(file) = std::env::var_os("HARNESS_TELL_CHILD") {
        let child = Process::start(Command::new("sleep").arg("600"), &folder.path().join("log"));
        std::fs::write(file, child.pid().to_string()).unwrap();
        child.wait_exit(Duration::from_secs(600)).await;
        return;
    }
    let file = folder.path().join("pid");
    let mut again = Command::new(std::env::current_exe().unwrap());
    // Its own temporary folder survives the kill, so it lies in ours.
    again
        .args(["--exact", "servers::a_process_ends_with_a_killed_test"])
        .env("HARNESS_TELL_CHILD", &file)
        .env("TMPDIR", folder.path());
    let again = Process::start(&again, &folder.path().join("log"));
    let pid = crate::support::wait::eventually(Duration::from_secs(20), "it has a child", async || {
        again.assert_running();
        std::fs::read_to_string(&file).ok().filter(|text| !text.is_empty())
    });
    let state = format!("/proc/{}/stat", pid.await);
    // Z: dead, and not yet waited for by whoever inherited it.
    let lives = || std::fs::read_to_string(&state).is_ok_and(|text| text.contains("(sleep)") && !text.contains(") Z"));
    crate::support::wait::eventually_true(Duration::from_secs(10), "the child runs", async || lives()).await;
    again.kill();
    crate::support::wait::eventually_true(Duration::from_secs(10), "the kernel ends the child", async || !lives())
        .await;
}

#[test]
#[should_panic(expected = "tests/install.sh redis")]
fn a_missing_program_says_how_to_install_it() {
    crate::support::process::require("/nowhere/redis-server");
}

#[tokio::test]
async fn standalone_holds_what_was_loaded() {
    let redis = Standalone::start(Options::default()).await;
    load_all(&redis.endpoint(), 300).await;
    redis.restart().await;
    assert!(snapshot(&redis.endpoint()).await.is_empty(), "not persistent");
}

#[tokio::test]
async fn persistent_survives_a_kill() {
    let redis = Standalone::start(Options { persistent: true, ..Options::default() }).await;
    let loaded = load_all(&redis.endpoint(), 50).await;
    redis.restart().await;
    loaded.assert_same(&snapshot(&redis.endpoint()).await, "the same after a restart");
}

#[tokio::test]
async fn limits_users_and_passwords() {
    let redis = Standalone::start(Options {
        password: Some("secret".to_owned()),
        acl_users: vec!["reader on >look ~* +@read +ping".to_owned()],
        maxmemory: Some("3mb".to_owned()),
        maxmemory_policy: Some("noeviction".to_owned()),
        ..Options::default()
    })
    .await;
    let reader = crate::support::redis_client::Access {
        username: Some("reader".to_owned()),
        password: Some("look".to_owned()),
        ..Default::default()
    };
    let mut reader = crate::support::redis_client::connect("127.0.0.1", redis.port(), &reader)
        .await
        .expect("the reader may come in");
    let refused =
        redis::cmd("SET").arg("a").arg("b").exec_async(&mut reader).await.expect_err("the reader may not write");
    assert_eq!(refused.code(), Some("NOPERM"));
    let mut connection = redis.connection().await;
    let refused = crate::support::wait::eventually(Duration::from_secs(10), "memory is full", async || {
        redis::cmd("APPEND").arg("big").arg(vec![0_u8; 64 << 10]).exec_async(&mut connection).await.err()
    });
    assert_eq!(refused.await.code(), Some("OOM"));
}

#[tokio::test]
async fn tls_with_and_without_client_certificates() {
    let redis = Standalone::start(Options { require_client_certificate: true, ..Options::tls() }).await;
    load_all(&redis.endpoint(), 50).await;
    let plain = crate::support::redis_client::Access::default();
    let mut refused = crate::support::redis_client::connect("127.0.0.1", redis.port(), &plain).await;
    if let Ok(connection) = &mut refused {
        refused = redis::cmd("PING").exec_async(connection).await.map(|()| connection.clone());
    }
    assert!(refused.is_err(), "no plain text on a TLS port");
}

#[tokio::test]
async fn tls_cluster_with_a_password_moves_slots() {
    let cluster = Cluster::start(3, 1, Options { password: Some("secret".to_owned()), ..Options::tls() }).await;
    let loaded = load_all(&cluster.endpoint(), 100).await;
    let slot = slot(b"tenant:tenant_1");
    let from = cluster.owner(slot).await;
    cluster.move_slot(slot, from, (from + 1) % 3).await;
    loaded.assert_same(&snapshot(&cluster.endpoint()).await, "all keys are still there");
}

#[tokio::test]
async fn a_cluster_survives_failovers() {
    let cluster = Cluster::start(3, 1, Options::default()).await;
    assert_eq!(cluster.primaries().await, [0, 1, 2]);
    assert_eq!(cluster.replicas_of(1).await, [4]);
    let loaded = load_all(&cluster.endpoint(), 500).await;
    for primary in 0..3 {
        wait_acknowledged(&cluster, primary).await;
    }

    cluster.failover(3).await;
    assert_eq!(cluster.primaries().await, [1, 2, 3]);
    assert_eq!(cluster.replicas_of(3).await, [0]);
    cluster.kill_node(1);
    assert_eq!(cluster.wait_promoted(1).await, 4);
    loaded.assert_same(&snapshot(&cluster.endpoint()).await, "promoted replicas hold the same");

    cluster.restart(1).await;
    assert_eq!(cluster.primaries().await, [2, 3, 4]);
    assert_eq!(cluster.replicas_of(4).await, [1]);
}

/// `WAIT` counts the writes of its own connection, so it needs one.
async fn wait_acknowledged(cluster: &Cluster, primary: usize) {
    let mut connection = cluster.connection(primary).await;
    redis::cmd("PUBLISH").arg("c").arg("m").exec_async(&mut connection).await.expect("PUBLISH");
    wait_replicated(&mut connection, 1).await;
}

#[tokio::test]
async fn slots_open_close_and_move() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let tagged = (0..101).map(|n| Entry::new(format!("k{n}:{{tag}}"), Value::string(n.to_string())));
    let entries: Keyspace = tagged.clone().collect();
    load(&cluster.endpoint(), tagged).await;
    let slot = slot(b"tag");
    let from = cluster.owner(slot).await;
    let to = (from + 1) % 3;

    assert_eq!(cluster.open_slot(slot, from, to).await, (51, 50));
    assert_eq!(cluster.owner(slot).await, from);
    entries.assert_same(&snapshot(&cluster.endpoint()).await, "half-moved keys are seen");
    let mut connection = cluster.connection(from).await;
    let asks = entries.keys().map(|key| redis::cmd("GET").arg(key).clone());
    let mut ask = 0;
    for get in asks {
        if let Err(error) = get.exec_async(&mut connection).await {
            assert_eq!(error.kind(), redis::ErrorKind::Server(redis::ServerErrorKind::Ask));
            ask += 1;
        }
    }
    assert_eq!(ask, 51);

    cluster.close_slot(slot, from, to).await;
    assert_eq!(cluster.owner(slot).await, to);
    entries.assert_same(&snapshot(&cluster.endpoint()).await, "nothing is lost");
    cluster.move_slot(slot, to, from).await;
    assert_eq!(cluster.owner(slot).await, from);
    entries.assert_same(&snapshot(&cluster.endpoint()).await, "nothing is lost");
}

#[tokio::test]
async fn a_stopped_node_hangs_and_comes_back() {
    let redis = Standalone::start(Options::default()).await;
    let mut connection = redis.connection().await;
    redis.signal(Signal::STOP);
    let ping = redis::cmd("PING");
    let answer = tokio::time::timeout(Duration::from_millis(200), ping.exec_async(&mut connection)).await;
    assert!(answer.is_err(), "no answer while stopped");
    redis.signal(Signal::CONT);
    redis::cmd("PING").exec_async(&mut connection).await.expect("an answer afterwards");
}

#[tokio::test]
async fn streams_are_compared_by_value() {
    let redis = Standalone::start(Options::default()).await;
    let mut connection = redis.connection().await;
    let run = |text: &str| {
        let mut words = text.split(' ');
        let mut command = redis::cmd(words.next().expect("a command"));
        words.for_each(|word| {
            command.arg(word);
        });
        command
    };
    for text in [
        "XADD s 1-1 a b",
        "XADD s 1-2 c d",
        "XGROUP CREATE s g 0",
        "XREADGROUP GROUP g c COUNT 1 STREAMS s >",
        "COPY s t",
    ] {
        run(text).exec_async(&mut connection).await.expect(text);
    }
    let before = snapshot(&redis.endpoint()).await;
    assert_eq!(before[&b"s"[..]], before[&b"t"[..]]);
    run("XACK t g 1-1").exec_async(&mut connection).await.expect("XACK");
    let after = snapshot(&redis.endpoint()).await;
    assert_ne!(after[&b"s"[..]], after[&b"t"[..]]);
    assert_eq!(before.differences(&after).len(), 1);
}
