//! Redis older and newer than 7.0: the same walk, the same user, the same millisecond.
//!
//! The servers are those that `tests/install.sh redis` brings.

use std::collections::BTreeMap;
use std::time::Duration;

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::lock::{Lease, Taken};
use outpost_migrate_redis::keyspace::FaultClass;
use outpost_migrate_redis::keyspace::compare::Comparison;
use outpost_migrate_redis::keyspace::conditional::Outcome;
use outpost_migrate_redis::keyspace::copy::Copied;
use outpost_migrate_redis::keyspace::supposed::{Spare, Supposed};
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::finding::FindingCode;
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::mapping::{Answer, Premise, Probe};
use outpost_migrate_redis::model::policy::DivergedPolicy;
use rstest::rstest;

use crate::support::command_line::CommandLine;
use crate::support::engine::{Bench, Expected, RUN, Reins, hset, run_on_owner};
use crate::support::fixture::read_fixture;
use crate::support::generator::{Generator, noise, now_ms};
use crate::support::huge::Kind;
use crate::support::load::load;
use crate::support::process::temp_dir;
use crate::support::redis::Redis;
use crate::support::redis_client::Endpoint;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::Entry;
use crate::support::value::Value;
use crate::support::wait::eventually;

const PROGRAM: &str = env!("CARGO_BIN_EXE_outpost-migrate-redis");
const README: &str = include_str!("../../README.md");
const USER: &str = "outpost-migrate";
const PASSWORD: &str = "readme-password";
const DAY: i64 = 24 * 3600 * 1000;

const OLD: &str = "redis-6.2.14";

/// A server of that version, or a cluster of such, with README's user.
async fn start(server: &'static str, primaries: usize) -> Redis {
    let options = Options { server: Some(server), acl_users: vec![documented_user(server)], ..Options::default() };
    Redis::of(primaries, 0, options).await
}

/// README's user for a server, as a line of an ACL file.
fn documented_user(server: &str) -> String {
    let line = README.lines().find_map(|line| line.strip_prefix("ACL SETUSER ")).expect("README documents a user");
    let line = line.replace("PASSWORD", PASSWORD);
    let (newer, older) = (" +hpexpiretime +hpexpireat", " +time");
    assert!(README.contains(&format!("append `{newer}`")) && README.contains(&format!("`{older}` takes the place")));
    if server == OLD { line.replace(" +pexpiretime", older) } else { line + newer }
}

/// What README's user needs beside, where entries of other types than hashes are huge.
const OTHER_TYPES: &str = " +scard +sscan +smismember +sadd +zcard +zscan +zmscore +zadd +llen +rpush +xlen +xadd +xsetid +xinfo|groups +xinfo|consumers +xgroup|create +xgroup|createconsumer +xgroup|destroy +xpending +xclaim +time";

/// The engine as README's user.
fn bench(redis: &Endpoint) -> Bench {
    let mut bench = Bench::new(redis);
    bench.endpoint.username = Some(USER.to_owned());
    bench.endpoint.password = Some(PASSWORD.to_owned().into());
    // README's user may not ask when a server takes snapshots, and primaries here have no replicas.
    bench.accepting(&["NotOnDisk"])
}

/// What Outpost wrote, what a generator makes, and what is none of our business.
async fn loaded(redis: &Endpoint) -> Expected {
    let mut all = read_fixture("tests/fixtures/outpost-v0.5-keyspace.jsonl");
    assert!(all.len() > 20, "a fixture of {} entries", all.len());
    let generator = Generator::new(42, 150);
    all.extend(generator.entries().chain(noise(generator.now_ms)));
    let expected = Expected::load_entries(redis, all, KeyLayout::Outpost).await;
    assert!(expected.targets.values().filter(|held| held.expiry_ms.is_some()).count() > 5, "some targets expire");
    expected
}

/// What a script can't do, another way does: so that README's user has the quick way is seen by the scripts alone.
#[rstest]
#[tokio::test]
async fn scripts_work_for_the_documented_user(
    #[values("redis-6.2.14", "redis-7.4.1", "redis-8.2.3", "valkey-9.1.2")] server: &'static str,
    #[values(1, 3)] primaries: usize,
) {
    let redis = start(server, primaries).await;
    let redis = redis.endpoint();
    hset(&redis, b"tenant:quick", "id", "quick").await;
    let probe = Probe::Fields { key: "tenant:quick".into(), fields: &["id", "deleted_at"] };
    let premise = Premise::new(probe, Answer::Fields(vec![Some(b"quick".to_vec()), None])).expect("a premise");
    let target = "tenant:{quick}:tenant".into();
    let supposed = [Supposed { target: &target, premise: &premise }];
    let bench = bench(&redis);
    let held = bench.hold().await;
    let writer = &held.writer;
    assert_eq!(writer.hold(&[&premise]).await, [Some(false)]);
    assert!(writer.measure_supposed(&[&premise]).await[0].is_some_and(|bytes| bytes > 0));
    for spare in [Spare::None, Spare::Heavy] {
        assert_eq!(writer.compare_supposed(&supposed, spare).await, Ok(vec![Some(Comparison::TargetMissing)]));
    }
    assert_eq!(writer.copy_supposed(&supposed, Spare::Heavy).await, Ok(vec![Some(Copied::Made)]));
    assert_eq!(writer.copy_supposed(&supposed, Spare::None).await, Ok(vec![Some(Copied::TargetExists)]));
    for spare in [Spare::None, Spare::Heavy] {
        assert_eq!(
            writer.compare_supposed(&supposed, spare).await,
            Ok(vec![Some(Comparison::Equal { expires: false })])
        );
    }
    let unlinked = writer.unlink_supposed(&supposed, writer.disturbances()).await;
    assert_eq!(unlinked, Ok(vec![(!redis.cluster).then_some(Outcome::Done)]));
    held.release().await;
}

#[rstest]
#[tokio::test]
async fn from_plan_to_cleanup(
    #[values("redis-6.2.14", "redis-7.4.1", "redis-8.2.3", "valkey-9.1.2")] server: &'static str,
    #[values(1, 3)] primaries: usize,
) {
    let redis = start(server, primaries).await;
    let redis = redis.endpoint();
    let gate = CommandLine::new(PROGRAM, &redis);
    let expected = loaded(&redis).await;
    let bench = bench(&redis);
    gate.run(&["init", "--current"]).await.assert_code(1);

    let held = bench.hold().await;
    assert_eq!(held.lease.stale_connections(), [], "CLIENT LIST and KILL are granted");
    let walk = held.migrate(&Control::unattended()).await.expect("a mark");
    held.release().await;

    assert_eq!((walk.apply.copied, walk.verify.equal), (expected.sources(), expected.sources()));
    let asked = walk.plan.seen.findings.iter().filter(|it| it.code == FindingCode::CheckNotPermitted).count();
    assert_eq!(asked, usize::from(server == OLD), "{:?}", walk.plan.seen.findings);
    assert!(walk.plan.seen.findings.iter().all(|it| it.code != FindingCode::Permissions), "{:?}", walk.plan.seen);
    // Exact to the millisecond, and again when looked at again.
    expected.assert_migrated(&bench).await;
    expected.assert_migrated(&bench).await;
    for _ in 0..5 {
        assert_eq!(bench.compare().await.expect("a comparison").different, 0, "no drift");
    }
    gate.run(&["init", "--current", "--require", "001_hash_tags"]).await.assert_code(0);

    bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
    for name in ["002_timestamps", "003_entity"] {
        self::bench(&redis).migration(name).migrate(&Control::unattended()).await.expect("a mark");
    }
    gate.run(&["init", "--current"]).await.assert_code(0);
    let expiring = |keyspace: &crate::support::value::Keyspace| -> BTreeMap<Vec<u8>, i64> {
        keyspace.iter().filter_map(|(key, held)| Some((key.clone(), held.expiry_ms?))).collect()
    };
    assert_eq!(expiring(&bench.snapshot().await.0), expiring(&expected.cleaned_up()), "expiries stay in place");
}

#[rstest]
#[tokio::test]
async fn a_run_that_broke_off_is_taken_up(
    #[values("redis-6.2.14", "redis-7.4.1", "redis-8.2.3", "valkey-9.1.2")] server: &'static str,
    #[values(1, 3)] primaries: usize,
) {
    let redis = start(server, primaries).await;
    let expected = loaded(&redis.endpoint()).await;
    let mut bench = bench(&redis.endpoint());
    bench.life = Duration::from_secs(1);
    let reins = Reins::paced(200);
    tokio::select! {
        ended = bench.migrate(&reins.control) => panic!("it ended before it was broken off: {ended:?}"),
        () = expected.wait_halfway(&bench.redis) => {}
    }
    bench.assert_no_mark().await;

    eventually(Duration::from_secs(20), "the lock of the broken run ends", async || {
        match Lease::take(&bench.endpoint, bench.lock_request()).await.expect("an answer about the lock") {
            Taken::Ours(lease) => {
                lease.release().await;
                Some(())
            }
            Taken::Held(_) => None,
        }
    })
    .await;
    bench.migrate(&Control::unattended()).await.expect("a mark");

    expected.assert_migrated(&bench).await;
}

#[rstest]
#[tokio::test]
async fn a_fresh_server_is_marked_by_the_gate(
    #[values("redis-6.2.14", "redis-7.4.1", "redis-8.2.3", "valkey-9.1.2")] server: &'static str,
    #[values(1, 3)] primaries: usize,
) {
    let redis = start(server, primaries).await;
    let gate = CommandLine::new(PROGRAM, &redis.endpoint());

    gate.run(&["init", "--current"]).await.assert_code(0);

    gate.run(&["init", "--current"]).await.assert_code(0);
    assert_eq!(bench(&redis.endpoint()).snapshot().await.1.len(), 3, "three marks and nothing else");
}

/// Redis 6.2 wraps what it refuses inside of a script in an error of the script.
#[tokio::test]
async fn what_an_old_server_refuses_inside_of_scripts_is_named() {
    let redis = Standalone::start(Options { server: Some(OLD), ..Options::default() }).await;
    let bench = Bench::new(&redis.endpoint());
    let held = bench.hold().await;
    let run = RedisKey::new(RUN.to_vec());
    let write = async || held.writer.write_run(&run, Duration::from_secs(60), &[("token", "t".to_owned())]).await;
    let mut connection = redis.connection().await;
    let mut set = async |name: &str, to: &str| {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(to).exec_async(&mut connection).await.expect("CONFIG SET");
    };

    set("min-replicas-to-write", "1").await;
    assert_eq!(write().await.map_err(|fault| fault.class), Err(FaultClass::TooFewReplicas));
    set("min-replicas-to-write", "0").await;

    let gone = temp_dir("gone-", None);
    set("save", "3600 1").await;
    set("dir", gone.path().to_str().expect("a path")).await;
    drop(gone);
    redis::cmd("BGSAVE").exec_async(&mut redis.connection().await).await.expect("BGSAVE");
    eventually(Duration::from_secs(20), "the snapshot fails", async || {
        let mut connection = redis.connection().await;
        let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut connection).await.expect("INFO");
        info.contains("rdb_last_bgsave_status:err").then_some(())
    })
    .await;
    assert_eq!(write().await.map_err(|fault| fault.class), Err(FaultClass::PersistenceFailing));

    set("stop-writes-on-bgsave-error", "no").await;
    assert_eq!(write().await, Ok(()));
    held.release().await;
}

/// Each version has words of its own for what a user may not do inside of a script.
#[rstest]
#[tokio::test]
async fn what_a_user_may_not_do_inside_of_scripts_is_named(
    #[values(None, Some(OLD), Some("redis-7.4.1"), Some("redis-8.2.3"), Some("valkey-9.1.2"))] server: Option<
        &'static str,
    >,
) {
    let users = vec![
        "narrow on >secret ~outpost:* ~.outpost:* &* +@all".to_owned(),
        "unwriting on >secret ~* &* +@all -hset".to_owned(),
    ];
    let redis = Standalone::start(Options { server, acl_users: users, ..Options::default() }).await;
    let bench = |user: &str| {
        let mut bench = Bench::new(&redis.endpoint());
        bench.endpoint.username = Some(user.to_owned());
        bench.endpoint.password = Some("secret".to_owned().into());
        bench
    };
    let keys = [RedisKey::from("tenant:a".to_owned())];

    let narrow = bench("narrow");
    let read = narrow.keyspace().await.exist(&keys).await;
    assert_eq!(read.map_err(|fault| fault.class), Err(FaultClass::NotPermitted), "a key that it may not read");

    let unwriting = bench("unwriting");
    let held = unwriting.hold().await;
    let run = RedisKey::new(RUN.to_vec());
    let written = held.writer.write_run(&run, Duration::from_secs(60), &[("token", "t".to_owned())]).await;
    assert_eq!(written.map_err(|fault| fault.class), Err(FaultClass::NotPermitted), "a command that it may not run");
    held.release().await;
}

/// When the fields of a hash end, by the server's own word.
async fn field_ends(redis: &Endpoint, key: &str, fields: &[&str]) -> Vec<i64> {
    let mut command = redis::cmd("HPEXPIRETIME");
    command.arg(key).arg("FIELDS").arg(fields.len()).arg(fields);
    redis::from_redis_value(run_on_owner(redis, key.as_bytes(), &command).await).expect("times")
}

async fn end_field(redis: &Endpoint, key: &str, field: &str, at: i64) {
    let command = redis::cmd("HPEXPIREAT").arg(key).arg(at).arg("FIELDS").arg(1).arg(field).take();
    run_on_owner(redis, key.as_bytes(), &command).await;
}

fn tenant(id: &str) -> Entry {
    let fields = [("id", id), ("created_at", "2025-01-19T22:17:29.5Z"), ("note", "x"), ("other", "y")];
    Entry::new(format!("tenant:{id}"), Value::hash(fields))
}

#[rstest]
#[tokio::test]
async fn single_fields_that_end_are_kept_and_compared(
    #[values("redis-7.4.1", "redis-8.2.3", "valkey-9.1.2")] server: &'static str,
    #[values(1, 3)] primaries: usize,
) {
    let redis = start(server, primaries).await;
    let redis = redis.endpoint();
    let (end, fields) = (now_ms() + DAY + 1, ["created_at", "note", "other"]);
    load(&redis, ["a", "b", "c", "d"].map(tenant)).await;
    for source in ["tenant:a", "tenant:b", "tenant:c"] {
        end_field(&redis, source, "note", end).await;
        end_field(&redis, source, "created_at", end + 2).await;
    }
    let bench = bench(&redis).diverged(DivergedPolicy::Keep);

    bench.migrate(&Control::unattended()).await.expect("a mark");
    for id in ["a", "b", "c"] {
        let target = format!("tenant:{{{id}}}:tenant");
        assert_eq!(field_ends(&redis, &target, &fields).await, [end + 2, end, -1], "copied: {target}");
    }

    // The same values, but one field ends later, one no more, and one now does.
    end_field(&redis, "tenant:{a}:tenant", "note", end + 1).await;
    let persist = redis::cmd("HPERSIST").arg("tenant:{b}:tenant").arg("FIELDS").arg(1).arg("note").take();
    run_on_owner(&redis, b"tenant:{b}:tenant", &persist).await;
    end_field(&redis, "tenant:{d}:tenant", "note", end).await;
    assert_eq!(bench.compare().await.expect("a comparison").different, 3, "noticed");

    // In place, a field that ends keeps its end.
    self::bench(&redis).migration("002_timestamps").migrate(&Control::unattended()).await.expect("a mark");
    assert_eq!(field_ends(&redis, "tenant:{c}:tenant", &fields).await, [end + 2, end, -1], "in place");

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!(report.removed, 1, "{report:?}");
    let (data, _) = bench.snapshot().await;
    let left: Vec<&[u8]> = data.keys().map(Vec::as_slice).filter(|key| !key.ends_with(b"}:tenant")).collect();
    assert_eq!(left, [&b"tenant:a"[..], b"tenant:b", b"tenant:d"], "only the equal original went");
}

#[rstest]
#[tokio::test]
async fn a_conditional_write_sees_that_a_field_ends(
    #[values("redis-7.4.1", "redis-8.2.3", "valkey-9.1.2")] server: &'static str,
) {
    let redis = start(server, 1).await;
    let redis = redis.endpoint();
    load(&redis, [tenant("a"), tenant("b")]).await;
    end_field(&redis, "tenant:b", "note", now_ms() + DAY).await;
    let bench = bench(&redis);
    let held = bench.hold().await;
    let keys = ["tenant:a", "tenant:b"].map(|key| RedisKey::from(key.to_owned()));
    let read = held.writer.entries(&keys).await.expect("entries").into_iter().map(|entry| entry.expect("an entry"));
    let mut expected: Vec<_> = keys.iter().cloned().zip(read).collect();
    let payloads = held.writer.payloads(&keys).await.expect("payloads");
    let payload = payloads[1].clone().expect("a payload");
    // Since they were read, one has got a field that ends, and that of the other ends later.
    end_field(&redis, "tenant:a", "note", now_ms() + DAY).await;
    end_field(&redis, "tenant:b", "note", now_ms() + 2 * DAY).await;

    for (key, entry) in &expected {
        let replaced = held.writer.replace_if_unchanged(key, entry, &payload).await.expect("an answer");
        assert_eq!(replaced, Outcome::Changed, "{key}");
    }
    let still = held.writer.disturbances();
    let unlinked = held.writer.unlink_if_unchanged(&expected, still).await.expect("an answer");
    assert_eq!(unlinked, [Outcome::Changed, Outcome::Changed]);

    let read = held.writer.entries(&keys).await.expect("entries").into_iter().map(|entry| entry.expect("an entry"));
    expected = keys.iter().cloned().zip(read).collect();
    let unlinked = held.writer.unlink_if_unchanged(&expected, still).await.expect("an answer");
    assert_eq!(unlinked, [Outcome::Done, Outcome::Done], "as read");
    held.release().await;
}

/// A hash of more than 512 KiB.
async fn load_huge(redis: &Endpoint) -> Expected {
    let lines = (0..20_000).map(|number| (format!("des_{number}"), format!(r#"{{"id":"des_{number}"}}"#)));
    let tenant = Value::hash([("id", "huge"), ("created_at", "2025-01-19T22:17:29Z")]);
    let entries = vec![Entry::new("tenant:huge", tenant), Entry::new("tenant:huge:destinations", Value::hash(lines))];
    Expected::load_entries(redis, entries, KeyLayout::Outpost).await
}

async fn assert_refused(redis: &Endpoint) {
    let plan = bench(redis).plan().await.expect("a plan");
    assert!(plan.errors().any(|finding| finding.code == FindingCode::HugeEntries), "{:?}", plan.seen.findings);
}

#[rstest]
#[case::alone(1)]
#[case::cluster(3)]
#[tokio::test]
async fn a_huge_hash_is_refused_where_redis_can_not_tell_its_expiry(#[case] primaries: usize) {
    let redis = start(OLD, primaries).await;
    load_huge(&redis.endpoint()).await;
    assert_refused(&redis.endpoint()).await;
}

#[rstest]
#[tokio::test]
async fn a_huge_hash_is_copied_in_pieces_unless_its_fields_expire(
    #[values("redis-7.4.1", "valkey-9.1.2")] server: &'static str,
    #[values(1, 3)] primaries: usize,
) {
    let (redis, source, target) =
        (start(server, primaries).await, "tenant:huge:destinations", "tenant:{huge}:destinations");
    let expected = load_huge(&redis.endpoint()).await;
    let endpoint = redis.endpoint();
    let field = async |name: &str, key: &str, arguments: &[&str]| {
        let command = redis::cmd(name).arg(key).arg(arguments).arg("FIELDS").arg(1).arg("des_12345").take();
        run_on_owner(&endpoint, key.as_bytes(), &command).await;
    };
    field("HPEXPIRE", source, &["86400000"]).await;
    assert_refused(&endpoint).await;
    field("HPERSIST", source, &[]).await;
    let bench = bench(&endpoint);
    bench.migrate(&Control::unattended()).await.expect("a mark");
    expected.assert_migrated(&bench).await;

    // A field of the target alone that is going to end is a difference.
    field("HPEXPIRE", target, &["86400000"]).await;
    assert_eq!(bench.compare().await.expect("a comparison").different, 1);
    field("HPERSIST", target, &[]).await;
    assert_eq!(bench.compare().await.expect("a comparison").different, 0);
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (2, 0));
}

/// A stream whose commands the user may not run, and then all types, by a user who may.
#[rstest]
#[tokio::test]
async fn huge_entries_of_every_type_are_copied_in_pieces(
    #[values("redis-7.4.1", "redis-8.2.3", "valkey-9.1.2")] server: &'static str,
    #[values(1, 3)] primaries: usize,
) {
    let redis = start(server, primaries).await;
    let redis = redis.endpoint();
    load(&redis, [tenant("huge")]).await;
    for kind in Kind::ALL {
        let key = format!("tenant:huge:{kind:?}");
        kind.load(&redis, key.as_bytes(), 100_000, Some(now_ms() + DAY)).await;
    }
    let mut bench = Bench::with_layout(&redis, KeyLayout::TenantTag).accepting(&["NotOnDisk"]);
    bench.endpoint.username = Some(USER.to_owned());
    bench.endpoint.password = Some(PASSWORD.to_owned().into());
    assert!(README.contains(&format!("append `{OTHER_TYPES}`")));
    let plan = bench.plan().await.expect("a plan");
    let refused = plan.errors().find(|finding| finding.code == FindingCode::HugeEntries).expect("a refusal");
    assert!(refused.message.contains("ACL"), "{}", refused.message);
    for primary in redis.primaries().await {
        let mut grant = redis::cmd("ACL");
        grant.arg("SETUSER").arg(USER).arg(OTHER_TYPES.split_whitespace().collect::<Vec<_>>());
        grant.exec_async(&mut primary.connection.clone()).await.expect("more rights");
    }
    let before = bench.snapshot().await.0;

    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");

    assert_eq!((walk.plan.seen.huge, walk.apply.copied, walk.verify.equal), (5, 6, 6));
    let after = bench.snapshot().await.0;
    for kind in Kind::ALL {
        let (source, target) = (format!("tenant:huge:{kind:?}"), format!("{{tenant:huge}}:{kind:?}"));
        let (was, is) = (&before[source.as_bytes()], &after[target.as_bytes()]);
        assert!(was == is && *was == after[source.as_bytes()], "{kind:?}: {was:?} became {is:?}");
    }
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (6, 0));
}
