//! What keeps a lost server, a late command or another layout from becoming a lost entry.

use std::pin::Pin;
use std::time::Duration;

use crate::support::engine::{Bench, Expected, Held, LOCKS, MARK, RUN, Reins, hset, run_on_owner};
use crate::support::load::load;
use crate::support::proxy::Proxy;
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Value};
use crate::support::wait::{STARTUP, eventually_true};
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::journal::{self, Owner};
use outpost_migrate_redis::engine::stop::Stop;
use outpost_migrate_redis::engine::survey;
use outpost_migrate_redis::keyspace::FaultClass;
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::mark::Mark;
use outpost_migrate_redis::model::policy::DivergedPolicy;
use outpost_migrate_redis::model::slot::slot_of;
use rstest::rstest;
use tokio::runtime::{Builder, Runtime};

fn nothing_in_the_way() -> Control {
    Control::unattended()
}

fn key(bytes: &[u8]) -> RedisKey {
    RedisKey::new(bytes.to_vec())
}

#[tokio::test]
async fn a_delete_is_not_sent_again_after_the_connection_broke() {
    let redis = Standalone::start(Options { persistent: true, ..Options::default() }).await;
    let expected = Expected::load(&redis.endpoint(), 20).await;
    let bench = Bench::new(&redis.endpoint());
    bench.migrate(&nothing_in_the_way()).await.expect("a mark");
    let held = bench.hold().await;
    let source = key(expected.pairs.keys().next().expect("a source"));
    let entry = held.writer.entries(std::slice::from_ref(&source)).await.unwrap().remove(0).expect("the source");
    let compared = held.writer.disturbances();

    redis.kill();
    redis.restart().await;
    // The writer notices only when it next sends; whatever it was about to delete must be compared again.
    eventually_true(STARTUP, "the writer is connected again", async || {
        held.writer.entries(std::slice::from_ref(&source)).await.is_ok()
    })
    .await;
    let refused = held.writer.unlink_if_unchanged(&[(source.clone(), entry)], compared).await.expect_err("refused");

    assert_eq!(refused.class, FaultClass::Disturbed);
    assert!(snapshot(&redis.endpoint()).await.contains_key(source.as_bytes()), "the original stands");
}

/// An original that is too large for a script takes several steps; what breaks between them counts as well.
#[tokio::test]
async fn a_large_original_is_not_unlinked_after_a_connection_broke_meanwhile() {
    let redis = Standalone::start(Options::default()).await;
    let proxy = Proxy::start(redis.port()).await;
    let large = Value::hash((0..3000).map(|number| (format!("field:{number}"), "value")));
    load(&redis.endpoint(), [Entry::new("tenant:large", large)]).await;
    let bench = Bench::new(&proxy.endpoint());
    let held = bench.hold().await;
    let source = key(b"tenant:large");
    let entry = held.writer.entries(std::slice::from_ref(&source)).await.unwrap().remove(0).expect("the source");
    let compared = held.writer.disturbances();

    proxy.stop_at(0, |request| request.windows(5).any(|word| word == b"WATCH"));
    let expected = [(source.clone(), entry)];
    let breaking = async {
        proxy.wait_caught().await;
        let mut connection = redis.connection().await;
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.expect("CLIENT LIST");
        // The writer's first connection is the one that the others share.
        let shared = list.lines().find(|line| line.contains(held.lease.token()));
        let id = shared.and_then(|line| line.split(' ').next()?.strip_prefix("id=")).expect("the writer's connection");
        let killed: i64 =
            redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(&mut connection).await.unwrap();
        assert_eq!(killed, 1);
        eventually_true(STARTUP, "the writer has noticed", async || {
            let _ = held.writer.entries(std::slice::from_ref(&source)).await;
            held.writer.disturbances() > compared
        })
        .await;
        proxy.let_go();
    };
    let (refused, ()) = tokio::join!(held.writer.unlink_if_unchanged(&expected, compared), breaking);
    assert_eq!(refused.expect_err("refused").class, FaultClass::Disturbed);
    assert!(snapshot(&redis.endpoint()).await.contains_key(source.as_bytes()), "the original stands");
}

#[tokio::test]
async fn cleanup_stops_when_the_mark_is_gone_even_if_told_to_delete() {
    let redis = Standalone::start(Options::default()).await;
    let expected = Expected::load(&redis.endpoint(), 50).await;
    let bench = Bench::new(&redis.endpoint()).diverged(DivergedPolicy::Delete);
    bench.migrate(&nothing_in_the_way()).await.expect("a mark");
    run_on_owner(&redis.endpoint(), MARK, &redis::cmd("DEL").arg(MARK).take()).await;

    let stopped = bench.cleanup(&nothing_in_the_way()).await.expect_err("no mark, no cleanup");

    assert_eq!(stopped, Stop::NotVerified);
    expected.migrated().assert_same(&bench.snapshot().await.0, "untouched");
}

#[tokio::test]
async fn a_mark_for_one_layout_allows_no_cleanup_of_the_other() {
    let redis = Standalone::start(Options::default()).await;
    let expected = Expected::load(&redis.endpoint(), 50).await;
    Bench::new(&redis.endpoint()).migrate(&nothing_in_the_way()).await.expect("a mark");
    let other = Bench::with_layout(&redis.endpoint(), KeyLayout::TenantTag).diverged(DivergedPolicy::Delete);

    let stopped = other.cleanup(&nothing_in_the_way()).await.expect_err("the mark is another layout's");

    assert_eq!(stopped, Stop::NotVerified);
    expected.migrated().assert_same(&other.snapshot().await.0, "untouched");
}

#[tokio::test]
async fn after_a_lost_mark_the_applications_writes_are_conflicts_and_not_stale_copies() {
    let redis = Standalone::start(Options::default()).await;
    let expected = Expected::load(&redis.endpoint(), 30).await;
    let bench = Bench::new(&redis.endpoint());
    let held = bench.hold().await;
    let (plan, run) = held.begin(&nothing_in_the_way()).await.unwrap();
    held.apply(&nothing_in_the_way(), &plan, &run).await.unwrap();
    let _proof_of_a_mark_that_is_lost = held.prove(&nothing_in_the_way(), &plan, &run).await.unwrap();
    held.release().await;
    let target = expected.pairs.values().next().expect("a target").clone();
    hset(&redis.endpoint(), &target, "updated_at", "2026-01-01T00:00:00Z").await;

    let stopped = bench.migrate(&nothing_in_the_way()).await.expect_err("a conflict");

    assert!(matches!(stopped, Stop::Conflicts(_)), "{stopped:?}");
    let kept = snapshot(&redis.endpoint()).await[&target].value.field("updated_at").map(<[u8]>::to_vec);
    assert_eq!(kept.as_deref(), Some(&b"2026-01-01T00:00:00Z"[..]), "what the application wrote stands");
}

#[tokio::test]
async fn a_new_holder_makes_an_earlier_holders_late_mark_be_refused() {
    let redis = Standalone::start(Options::default()).await;
    Expected::load(&redis.endpoint(), 10).await;
    let bench = Bench::new(&redis.endpoint());
    let first = bench.hold().await;
    let (plan, run) = first.begin(&nothing_in_the_way()).await.unwrap();
    first.apply(&nothing_in_the_way(), &plan, &run).await.unwrap();
    let proof = first.prove(&nothing_in_the_way(), &plan, &run).await.unwrap();

    let owner = Owner { uid: "uid".into(), resource: "ns/name".into() };
    journal::claim(&first.writer, &bench.assignment, &owner, &Mark::Absent).await.unwrap();
    let stopped = first.mark(proof).await.expect_err("the run is another's");

    assert_eq!(stopped, Stop::RunLost);
    bench.assert_no_mark().await;
    first.release().await;
}

#[tokio::test]
async fn the_run_hash_lives_as_long_as_the_lock_is_held() {
    let redis = Standalone::start(Options::default()).await;
    Expected::load(&redis.endpoint(), 5).await;
    let bench = Bench::new(&redis.endpoint());
    let held = bench.hold().await;
    held.begin(&nothing_in_the_way()).await.unwrap();
    journal::keep_alive(&held.lease, &bench.assignment);
    run_on_owner(&redis.endpoint(), RUN, &redis::cmd("PEXPIRE").arg(RUN).arg(60_000).take()).await;

    eventually_true(STARTUP, "the run hash is renewed with the lock", async || {
        let life = run_on_owner(&redis.endpoint(), RUN, &redis::cmd("PTTL").arg(RUN).take()).await;
        matches!(life, redis::Value::Int(millis) if millis > 3_600_000)
    })
    .await;
    held.release().await;
}

#[tokio::test]
async fn the_mark_remembers_the_owner_when_the_run_hash_has_ended() {
    let redis = Standalone::start(Options::default()).await;
    Expected::load(&redis.endpoint(), 5).await;
    let bench = Bench::new(&redis.endpoint());
    let owner = Owner { uid: "uid".into(), resource: "ns/name".into() };
    let held = bench.hold().await;
    journal::claim(&held.writer, &bench.assignment, &owner, &Mark::Absent).await.unwrap();
    held.migrate(&nothing_in_the_way()).await.expect("a mark");
    run_on_owner(&redis.endpoint(), RUN, &redis::cmd("DEL").arg(RUN).take()).await;

    let seen = survey::survey(&held.writer, &bench.assignment).await.unwrap();

    assert_eq!(seen.owner, Some(owner));
    held.release().await;
}

/// A worker whose process stands still between two calls of [`Sleeper::awake`], with its timers and its clocks: as on
/// a machine that sleeps. Its lock stands so long that its own clock tells of no end.
struct Sleeper {
    runtime: Runtime,
    bench: &'static Bench,
}

impl Sleeper {
    fn new(redis: &Endpoint) -> Self {
        let mut bench = Bench::new(redis);
        bench.life = Duration::from_secs(3600);
        // Tasks of this runtime, the renewal of the lock among them, go on only while somebody blocks on it.
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, bench: Box::leak(Box::new(bench)) }
    }

    fn awake<T>(&self, during: impl Future<Output = T>) -> T {
        self.runtime.block_on(during)
    }
}

/// A run from plan to mark, in its hold of the lock.
type Run<'a> = Pin<Box<dyn Future<Output = Result<(), Stop>> + 'a>>;

/// Falls asleep in the middle of an apply.
fn fall_asleep<'a>(sleeper: &Sleeper, held: &'a Held<'a>, expected: &Expected, reins: &'a Reins) -> Run<'a> {
    let mut run: Run<'a> = Box::pin(async { held.migrate(&reins.control).await.map(|_| ()) });
    sleeper.awake(async {
        tokio::select! {
            ended = &mut run => panic!("the run ended before it fell asleep: {ended:?}"),
            () = expected.wait_halfway(&sleeper.bench.redis) => {}
        }
    });
    run
}

/// The lock's life ends, as the server counts it.
async fn end_the_lock(redis: &Endpoint) {
    for lock in LOCKS {
        run_on_owner(redis, lock.as_bytes(), redis::cmd("PEXPIRE").arg(lock).arg(1)).await;
    }
    eventually_true(STARTUP, "the lock has ended", async || {
        let there = snapshot(redis).await;
        LOCKS.iter().all(|lock| !there.contains_key(lock.as_bytes()))
    })
    .await;
}

/// Behind the mark the application removes every target.
async fn remove_targets(redis: &Endpoint, expected: &Expected) {
    for target in expected.targets.keys() {
        run_on_owner(redis, target, redis::cmd("UNLINK").arg(target)).await;
    }
    assert_eq!(expected.targets_there(redis).await, 0, "the application removed what it no longer needs");
}

#[rstest]
#[case::standalone(1)]
#[case::cluster(3)]
fn a_worker_that_slept_through_its_lock_puts_nothing_back(#[case] primaries: usize) {
    let outside = Runtime::new().expect("a runtime");
    let (standalone, cluster);
    let redis = if primaries == 1 {
        standalone = outside.block_on(Standalone::start(Options::default()));
        standalone.endpoint()
    } else {
        cluster = outside.block_on(Cluster::start(primaries, 0, Options::default()));
        cluster.endpoint()
    };
    let expected = outside.block_on(Expected::load(&redis, 100));
    let (sleeper, reins) = (Sleeper::new(&redis), Reins::paced(200));
    let held = sleeper.awake(sleeper.bench.hold());
    let run = fall_asleep(&sleeper, &held, &expected, &reins);
    outside.block_on(async {
        end_the_lock(&redis).await;
        Bench::new(&redis).migrate(&nothing_in_the_way()).await.expect("another run's mark");
        remove_targets(&redis, &expected).await;
    });
    assert!(held.lease.holds(), "its own clock tells the sleeper of no end");

    let ended = sleeper.awake(run);

    assert_eq!(outside.block_on(expected.targets_there(&redis)), 0, "what the application removed stays away");
    assert_eq!(ended, Err(Stop::LeaseLost));
}

/// A connection to a primary that was a replica when the lock changed hands is closed as well.
#[test]
fn a_worker_that_slept_through_two_failovers_puts_nothing_back() {
    let outside = Runtime::new().expect("a runtime");
    let cluster = outside.block_on(Cluster::start(3, 1, Options::default()));
    let redis = cluster.endpoint();
    let expected = outside.block_on(Expected::load(&redis, 100));
    let (sleeper, reins) = (Sleeper::new(&redis), Reins::paced(200));
    let held = sleeper.awake(sleeper.bench.hold());
    let run = fall_asleep(&sleeper, &held, &expected, &reins);
    outside.block_on(async {
        let demoted = cluster.owner(slot_of(&key(expected.targets.keys().next().expect("a target")))).await;
        let promoted = cluster.replicas_of(demoted).await[0];
        cluster.failover(promoted).await;
        end_the_lock(&redis).await;
        Bench::new(&redis).migrate(&nothing_in_the_way()).await.expect("another run's mark");
        cluster.failover(demoted).await;
        remove_targets(&redis, &expected).await;
    });
    assert!(held.lease.holds(), "its own clock tells the sleeper of no end");

    let ended = sleeper.awake(run);

    assert_eq!(outside.block_on(expected.targets_there(&redis)), 0, "what the application removed stays away");
    assert_eq!(ended, Err(Stop::LeaseLost));
}

/// Nobody has closed anything yet: what a connection of one's own was opened for is not begun.
#[test]
fn a_connection_that_is_opened_after_the_lock_was_lost_is_not_used() {
    let outside = Runtime::new().expect("a runtime");
    let redis = outside.block_on(Standalone::start(Options::default()));
    let entry = Entry::new("tenant:text", Value::String(b"before".to_vec()));
    outside.block_on(load(&redis.endpoint(), [entry]));
    let sleeper = Sleeper::new(&redis.endpoint());
    let held = sleeper.awake(sleeper.bench.hold());
    let keys = [key(b"tenant:text")];
    let (read, payload) = sleeper.awake(async {
        let read = held.writer.entries(&keys).await.expect("an entry").remove(0).expect("the text");
        (read, held.writer.payloads(&keys).await.expect("a payload").remove(0).expect("the text"))
    });
    outside.block_on(end_the_lock(&redis.endpoint()));

    let refused = sleeper.awake(held.writer.replace_if_unchanged(&keys[0], &read, &payload));

    assert_eq!(refused.expect_err("refused").class, FaultClass::LeaseEnded);
    assert!(!held.lease.holds(), "what was found out is kept");
}
