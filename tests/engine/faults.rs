//! The engine against a lock that others want, limits, refusals and broken connections.

use std::time::{Duration, Instant};

use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::lock::{self, Holder, Lease, Taken};
use outpost_migrate_redis::keyspace::{FaultClass, Keyspace as Connected, RedisEndpoint};
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::plan::Plan;
use outpost_migrate_redis::model::policy::Limits;
use rstest::rstest;

use crate::support::certificates::{Certificates, SERVER_NAME};
use crate::support::engine::{
    Bench, Expected, LOCKS, RUN, Reins, assert_no_lock, hset, product_endpoint, run_on_owner,
};
use crate::support::events::Events;
use crate::support::load::load;
use crate::support::ports::free_port;
use crate::support::process::{Signal, temp_dir};
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Entry, Value};
use crate::support::wait::{STARTUP, eventually_true};

async fn start() -> Standalone {
    Standalone::start(Options::default()).await
}

async fn holder_of(bench: &Bench) -> Option<Holder> {
    match Lease::take(&bench.endpoint, bench.lock_request()).await.expect("an answer about the lock") {
        Taken::Ours(lease) => {
            lease.release().await;
            None
        }
        Taken::Held(holder) => Some(holder),
    }
}

async fn set(redis: &Endpoint, key: &str, value: &str) {
    run_on_owner(redis, key.as_bytes(), redis::cmd("SET").arg(key).arg(value)).await;
}

async fn delete(redis: &Endpoint, key: &str) {
    run_on_owner(redis, key.as_bytes(), redis::cmd("DEL").arg(key)).await;
}

#[tokio::test]
async fn two_can_not_hold_the_lock() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let held = bench.hold().await;
    let holder = holder_of(&bench).await.expect("a holder");
    assert_eq!(holder.to_string(), "test (apply of 001_hash_tags)");
    assert!(holder.remaining_millis.is_some_and(|left| left <= 6_000));
    let seen = lock::holder(&bench.keyspace().await, &bench.lock_request().keys).await.expect("an answer");
    assert_eq!(seen.map(|seen| seen.name), Some("test".to_owned()));
    held.release().await;
    assert_eq!(holder_of(&bench).await, None);
}

#[rstest]
#[case(LOCKS[0])]
#[case(LOCKS[1])]
#[case(LOCKS[2])]
#[tokio::test]
async fn another_tools_lock_is_respected_under_each_name(#[case] name: &str) {
    let redis = Cluster::start(3, 0, Options::default()).await;
    let bench = Bench::new(&redis.endpoint());
    let text = "migration=001_hash_tags, started=2026-01-01T00:00:00Z";
    set(&bench.redis, name, text).await;
    let holder = holder_of(&bench).await.expect("a holder");
    assert_eq!((holder.key, holder.name.as_str()), (RedisKey::from(name), text));
    assert_eq!(holder.remaining_millis, None);
    let (_, state) = bench.snapshot().await;
    assert_eq!(state.keys().collect::<Vec<_>>(), [name.as_bytes()], "a partial take is given back");
}

#[tokio::test]
async fn a_lease_is_renewed() {
    let redis = start().await;
    let mut bench = Bench::new(&redis.endpoint());
    bench.life = Duration::from_millis(1500);
    let held = bench.hold().await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(3500) {
        assert!(held.lease.holds() && bench.snapshot().await.1.len() == LOCKS.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    held.release().await;
    assert!(bench.snapshot().await.1.is_empty());
}

/// How a holder loses the lock.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Deleted,
    Replaced,
}

#[rstest]
#[case::deleted(0, Loss::Deleted)]
#[case::replaced(2, Loss::Replaced)]
#[tokio::test]
async fn a_writer_without_a_lease_writes_nothing(#[case] key: usize, #[case] loss: Loss) {
    let redis = start().await;
    let mut bench = Bench::new(&redis.endpoint());
    bench.life = Duration::from_secs(3);
    let expected = Expected::load(&bench.redis, 300).await;
    let reins = Reins::paced(150);
    let held = bench.hold().await;
    let lost = held.lease.lost();
    let losing = async {
        expected.wait_halfway(&bench.redis).await;
        match loss {
            Loss::Deleted => delete(&bench.redis, LOCKS[key]).await,
            Loss::Replaced => set(&bench.redis, LOCKS[key], "another").await,
        }
        tokio::time::timeout(bench.life, lost.cancelled()).await.expect("the loss is noticed");
        assert!(!held.lease.holds());
        Events::listen(&bench.redis).await
    };
    let (result, events) = tokio::join!(held.migrate(&reins.control), losing);
    assert_eq!(result.map(|_| ()), Err(Stop::LeaseLost));
    assert_eq!(
        held.writer.hash(&RedisKey::from("x")).await.map(|_| ()).map_err(|it| it.class),
        Err(FaultClass::LeaseEnded)
    );
    expected.assert_halfway(&bench.redis).await;
    held.release().await;
    let left = match loss {
        Loss::Deleted => 0,
        Loss::Replaced => 1,
    };
    events.assert_only(|key| LOCKS.iter().any(|lock| lock.as_bytes() == key)).await;
    let (_, state) = bench.snapshot().await;
    assert_eq!(state.keys().filter(|key| *key != RUN).count(), left, "only another's lock is left");
    bench.assert_no_mark().await;
}

#[tokio::test]
async fn who_takes_over_closes_connections_of_the_one_before() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let before = bench.hold().await;
    let key = RedisKey::from("tenant:x");
    before.writer.exist(std::slice::from_ref(&key)).await.expect("an answer");
    let names = async || {
        let mut connection = redis.connection().await;
        let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.unwrap();
        list.matches(before.lease.token()).count()
    };
    assert_eq!(names().await, 1);
    // As if it had ended.
    for lock in LOCKS {
        delete(&bench.redis, lock).await;
    }
    let after = bench.hold().await;
    assert_eq!(after.lease.stale_connections(), []);
    assert_eq!(names().await, 0, "the earlier holder is still connected");
    after.writer.exist(&[key]).await.expect("the new holder is connected");
    after.release().await;
}

#[tokio::test]
async fn a_lost_run_gets_no_mark() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    Expected::load(&bench.redis, 30).await;
    let held = bench.hold().await;
    let control = Control::unattended();
    let (plan, run) = held.begin(&control).await.expect("a plan");
    held.apply(&control, &plan, &run).await.expect("a copy");
    let proof = held.prove(&control, &plan, &run).await.expect("a proof");
    hset(&bench.redis, RUN, "token", "another").await;
    assert_eq!(held.mark(proof).await.map(|_| ()), Err(Stop::RunLost));
    held.release().await;
    bench.assert_no_mark().await;
}

fn has_error(plan: &Plan, code: FindingCode) -> bool {
    plan.seen.findings.iter().any(|finding| finding.code == code && finding.severity == Severity::Error)
}

/// Sets the memory limit to what is in use and a little more.
async fn limit_memory(redis: &Standalone, more: u64, policy: &str) {
    let mut connection = redis.connection().await;
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await.unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("used_memory");
    let limit = used.trim().parse::<u64>().expect("a number") + more;
    for (name, value) in [("maxmemory-policy", policy.to_owned()), ("maxmemory", limit.to_string())] {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(&mut connection).await.expect("CONFIG SET");
    }
}

#[tokio::test]
async fn copies_that_do_not_fit_are_found_before_and_wait_during() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 3000).await;
    limit_memory(&redis, 2 << 20, "noeviction").await;
    let held = bench.hold().await;
    let control = Control::unattended();
    let (plan, run) = held.begin(&control).await.expect("a plan");
    assert!(has_error(&plan, FindingCode::Memory), "{:?}", plan.seen.findings);
    let stop = held.apply(&control, &plan, &run).await.expect_err("a finding");
    assert!(matches!(stop, Stop::PreflightFailed(_)), "{stop:?}");
    assert_eq!(expected.targets_there(&bench.redis).await, 0);

    let mut forced = plan.clone();
    forced.seen.findings.clear();
    // Nothing paces it, so Redis refuses copies before anybody looks.
    let reins = Reins::new(Limits::default());
    let mut progress = reins.progress.clone();
    let makes_room = async {
        let waits = progress.wait_for(|now| now.as_ref().is_some_and(|now| now.held.is_some()));
        tokio::time::timeout(Duration::from_secs(20), waits).await.expect("it waits").expect("progress");
        expected.assert_halfway(&bench.redis).await;
        let there = bench.snapshot().await.0;
        expected.originals.assert_same(&there.filter(|key, _| !expected.targets.contains_key(key)), "sources");
        let counted = expected.targets_there(&bench.redis).await;
        // A measured window, longer than a lease: nothing is copied, and the lock is kept.
        tokio::time::sleep(bench.life + Duration::from_secs(1)).await;
        assert_eq!(expected.targets_there(&bench.redis).await, counted, "nothing is copied without room");
        assert!(held.lease.holds(), "the lock is renewed under OOM");
        bench.assert_no_mark().await;
        limit_memory(&redis, 1 << 30, "noeviction").await;
    };
    let (applied, ()) = tokio::join!(held.apply(&reins.control, &forced, &run), makes_room);
    let report = applied.expect("it goes on by itself once there is room");
    assert_eq!(report.processed(), expected.sources());
    assert!(reins.progress.borrow().as_ref().is_some_and(|now| now.held.is_none()), "it waits no more");
    let proof = held.prove(&control, &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;
    assert_no_lock(&bench.snapshot().await.1);
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn an_evicting_policy_blocks_apply() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 30).await;
    limit_memory(&redis, 1 << 30, "allkeys-lru").await;
    assert!(has_error(&bench.plan().await.expect("a plan"), FindingCode::EvictionPolicy));
    let stop = bench.migrate(&Control::unattended()).await.map(|_| ()).expect_err("a finding");
    assert!(matches!(stop, Stop::PreflightFailed(_)), "{stop:?}");
    expected.originals.assert_same(&bench.snapshot().await.0, "nothing was written");
}

#[tokio::test]
async fn a_user_who_may_not_copy_is_found_before() {
    let users = vec!["migrator on >secret ~* &* +@all -dump -copy".to_owned()];
    let redis = Standalone::start(Options { acl_users: users, ..Options::default() }).await;
    let mut bench = Bench::new(&redis.endpoint());
    Expected::load(&bench.redis, 10).await;
    bench.endpoint.username = Some("migrator".to_owned());
    bench.endpoint.password = Some("secret".into());
    let plan = bench.plan().await.expect("a plan");
    let denied: Vec<&str> = plan.errors().map(|finding| finding.message.as_str()).collect();
    assert_eq!(denied.len(), 2, "{denied:?}");
    assert!(["DUMP", "COPY"].iter().all(|name| denied.iter().any(|message| message.contains(name))), "{denied:?}");

    let held = bench.hold().await;
    let mut forced = plan.clone();
    forced.seen.findings.clear();
    let run = held.begin_run(&forced).await.expect("a run");
    let stop = held.apply(&Control::unattended(), &forced, &run).await.expect_err("no permission");
    assert!(matches!(&stop, Stop::Fault(fault) if fault.class == FaultClass::NotPermitted), "{stop:?}");
    held.release().await;
}

async fn refused(endpoint: RedisEndpoint) -> (FaultClass, Duration) {
    let began = Instant::now();
    match Connected::connect(endpoint, "test").await {
        Ok(_) => panic!("a connection"),
        Err(fault) => (fault.class, began.elapsed()),
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_from_other_trouble() {
    let redis = Standalone::start(Options::password("right")).await;
    let good = product_endpoint(&redis.endpoint());
    Connected::connect(good.clone(), "test").await.expect("the right password");
    for password in [Some("wrong".into()), None] {
        let endpoint = RedisEndpoint { password, ..good.clone() };
        assert_eq!(refused(endpoint).await.0, FaultClass::AuthenticationFailed);
    }
    let unknown = RedisEndpoint { username: Some("nobody".into()), ..good };
    assert_eq!(refused(unknown).await.0, FaultClass::AuthenticationFailed);
}

#[tokio::test]
async fn the_wrong_mode_is_told() {
    let redis = start().await;
    let cluster = Cluster::start(3, 0, Options::default()).await;
    for endpoint in [redis.endpoint(), cluster.endpoint()] {
        let right = product_endpoint(&endpoint);
        let wrong = RedisEndpoint { cluster: !right.cluster, ..right };
        assert_eq!(refused(wrong).await.0, FaultClass::ClusterMode);
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_soon() {
    for cluster in [false, true] {
        let (class, took) = refused(RedisEndpoint::new("127.0.0.1", free_port(), cluster)).await;
        assert_eq!(class, FaultClass::Connection);
        assert!(took < Duration::from_secs(2), "took {took:?}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_told_within_seconds() {
    let redis = start().await;
    redis.signal(Signal::STOP);
    let (class, took) = refused(product_endpoint(&redis.endpoint())).await;
    assert!(matches!(class, FaultClass::Timeout | FaultClass::Connection), "{class:?}");
    assert!(took < Duration::from_secs(15), "took {took:?}");
    redis.signal(Signal::CONT);
}

fn strict() -> Options {
    Options { require_client_certificate: true, ..Options::tls() }
}

#[tokio::test]
async fn tls_with_a_private_authority_and_client_certificates() {
    let redis = Standalone::start(strict()).await;
    let cluster = Cluster::start(3, 0, strict()).await;
    for endpoint in [redis.endpoint(), cluster.endpoint()] {
        let mut bench = Bench::new(&endpoint);
        let expected = Expected::load(&bench.redis, 50).await;
        bench.migrate(&Control::unattended()).await.expect("a mark");
        expected.assert_migrated(&bench).await;
        // Nodes that announce addresses while certificates name hosts.
        bench.endpoint.tls.as_mut().expect("TLS").server_name = Some(SERVER_NAME.to_owned());
        let report = bench.compare().await.expect("a comparison");
        assert_eq!(report.equal, expected.sources());
    }
}

#[tokio::test]
async fn tls_failures_are_told_from_other_trouble() {
    let redis = Standalone::start(strict()).await;
    let good = product_endpoint(&redis.endpoint());
    let with = |change: &dyn Fn(&mut outpost_migrate_redis::keyspace::endpoint::Tls)| {
        let mut endpoint = good.clone();
        change(endpoint.tls.as_mut().expect("TLS"));
        endpoint
    };
    let folder = temp_dir("other-authority-", None);
    let other = std::fs::read(Certificates::make(folder.path()).ca).expect("a certificate");
    assert_eq!(
        refused(with(&|tls| tls.ca_pem = Some(other.clone()))).await.0,
        FaultClass::CertificateUntrusted,
        "wrong CA"
    );
    let public_roots = with(&|tls| tls.ca_pem = None);
    assert_eq!(refused(public_roots).await.0, FaultClass::CertificateUntrusted, "public roots");
    let wrong_name = with(&|tls| tls.server_name = Some("other.example".to_owned()));
    assert_eq!(refused(wrong_name).await.0, FaultClass::CertificateName, "wrong name");
    // The server's last word may be lost when it closes the connection.
    let class = refused(with(&|tls| tls.client = None)).await.0;
    let is_told = matches!(class, FaultClass::ClientCertificate | FaultClass::ClosedAtOnce);
    assert!(is_told, "no client certificate: {class:?}");
    assert_eq!(
        refused(with(&|tls| tls.ca_pem = Some(b"nonsense".to_vec()))).await.0,
        FaultClass::CertificateUntrusted,
        "no PEM"
    );
    let trusting = with(&|tls| {
        tls.ca_pem = None;
        tls.insecure_skip_verify = true;
    });
    Connected::connect(trusting, "test").await.expect("any certificate will do");

    let plain = start().await;
    let mut endpoint = good.clone();
    endpoint.port = plain.port();
    // A plain server waits for the end of a line that never comes.
    let class = refused(endpoint).await.0;
    assert!(matches!(class, FaultClass::TlsFailed | FaultClass::TlsUnanswered), "TLS to a plain port: {class:?}");
}

#[tokio::test]
async fn connections_that_break_cost_no_key() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;
    let reins = Reins::paced(300);
    let breaking = async {
        expected.wait_halfway(&bench.redis).await;
        reins.pace(Some(50));
        let mut killed = 0;
        // How many there are to close depends on how fast they are opened again.
        for _ in 0..100 {
            if killed > 10 {
                break;
            }
            let mut connection = redis.connection().await;
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("normal");
            killed += kill.query_async::<u64>(&mut connection).await.expect("CLIENT KILL");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(killed > 10, "the fault did not hit");
        expected.assert_halfway(&bench.redis).await;
        reins.pace(None);
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), breaking);
    let walk = result.expect("a mark");
    assert_eq!(walk.verify.equal, expected.sources());
    expected.assert_migrated(&bench).await;
}

/// A server that has no room for another client says so where others ask for a password, and then hangs up.
#[rstest]
#[case::with_a_password(Options::password("right"))]
#[case::without_one(Options::default())]
#[tokio::test]
async fn a_server_that_is_full_of_clients_is_waited_for(#[case] options: Options) {
    let redis = Standalone::start(options).await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;
    let reins = Reins::paced(300);
    let filling = async {
        expected.wait_halfway(&bench.redis).await;
        let mut only = redis.connection().await;
        let full = redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).take();
        full.exec_async(&mut only).await.expect("CONFIG SET");
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec_async(&mut only).await.expect("CLIENT KILL");
        eventually_true(STARTUP, "clients are refused", async || {
            let stats: String = redis::cmd("INFO").arg("stats").query_async(&mut only).await.expect("INFO");
            let refused =
                stats.lines().find_map(|line| line.strip_prefix("rejected_connections:")?.trim().parse().ok());
            refused.is_some_and(|refused: u64| refused >= 5)
        })
        .await;
        let asked = RedisEndpoint { host: "127.0.0.1".to_owned(), ..bench.endpoint.clone() };
        eventually_true(STARTUP, "the reason is told", async || {
            // The server's last word may be lost when it closes the connection.
            match refused(asked.clone()).await.0 {
                FaultClass::TooManyClients => true,
                FaultClass::ClosedAtOnce | FaultClass::Connection => false,
                other => panic!("{other:?}"),
            }
        })
        .await;
        let room = redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1000).take();
        room.exec_async(&mut only).await.expect("CONFIG SET");
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), filling);
    result.expect("a mark");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 200).await;
    let reins = Reins::paced(300);
    let forgetting = async {
        expected.wait_halfway(&bench.redis).await;
        let mut connection = redis.connection().await;
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await.expect("SCRIPT FLUSH");
        expected.assert_halfway(&bench.redis).await;
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), forgetting);
    result.expect("a mark");
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_is_waited_for() {
    let redis = Standalone::start(Options { persistent: true, ..Options::default() }).await;
    let bench = Bench::new(&redis.endpoint());
    let mut bench = bench;
    bench.life = Duration::from_secs(20);
    let expected = Expected::load(&bench.redis, 300).await;
    let reins = Reins::paced(300);
    let failing = async {
        expected.wait_halfway(&bench.redis).await;
        redis.kill();
        tokio::time::sleep(Duration::from_secs(1)).await;
        redis.restart().await;
        expected.assert_halfway(&bench.redis).await;
    };
    let (result, ()) = tokio::join!(bench.migrate(&reins.control), failing);
    let walk = result.expect("a mark");
    assert_eq!(walk.verify.equal, expected.sources());
    expected.assert_migrated(&bench).await;
}

#[tokio::test]
async fn an_interrupt_is_heard_while_redis_is_away() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 200).await;
    let reins = Reins::paced(200);
    let held = bench.hold().await;
    let failing = async {
        expected.wait_halfway(&bench.redis).await;
        redis.signal(Signal::STOP);
        // Batches that were sent find no answer.
        tokio::time::sleep(Duration::from_secs(1)).await;
        reins.stop.cancel();
        Instant::now()
    };
    let working = async { (held.migrate(&reins.control).await, Instant::now()) };
    let ((result, ended), asked) = tokio::join!(working, failing);
    assert!(result.is_err());
    let took = ended.duration_since(asked);
    println!("stopped after {took:?}");
    assert!(took < Duration::from_secs(12), "took {took:?}");
    redis.signal(Signal::CONT);
    eventually_true(Duration::from_secs(10), "the server is back", async || {
        expected.targets_there(&bench.redis).await > 0
    })
    .await;
    bench.assert_no_mark().await;
}

#[tokio::test]
async fn a_connection_that_breaks_does_not_begin_the_scan_anew() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let others = (0..200_000).map(|number| Entry::new(format!("other:{number}"), Value::string("x")));
    load(&bench.redis, others).await;
    let scans = async || {
        let mut connection = redis.connection().await;
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_scan:calls=")?.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().expect("a number"))
    };
    bench.plan().await.expect("a plan");
    let pages = scans().await;

    let mut killer = redis.connection().await;
    let breaking = async {
        eventually_true(Duration::from_secs(10), "half is scanned", async || scans().await > pages * 3 / 2).await;
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("normal").exec_async(&mut killer).await.expect("CLIENT KILL");
        assert!(scans().await < pages * 2, "the fault did not hit");
    };
    let (plan, ()) = tokio::join!(bench.plan(), breaking);
    plan.expect("a plan");
    let again = scans().await - pages;
    assert!(again <= pages + 5, "{again} pages instead of {pages}");
}

#[tokio::test]
async fn a_server_that_comes_back_keeps_its_other_clients() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let keyspace = bench.keyspace().await;
    redis.restart().await;
    // The new run counts connections from the start, so one of these has the id that ours had before.
    let mut others = Vec::new();
    for _ in 0..30 {
        others.push(redis.connection().await);
    }
    keyspace.exist(&[RedisKey::from("k")]).await.expect("an answer after the restart");
    for other in &mut others {
        redis::cmd("PING").exec_async(other).await.expect("a client that has nothing to do with us");
    }
}

/// All that a full server holds.
async fn fill(endpoint: &Endpoint) {
    for mut primary in endpoint.primaries().await {
        for (name, value) in [("maxmemory-policy", "noeviction"), ("maxmemory", "1mb")] {
            let command = redis::cmd("CONFIG").arg("SET").arg(name).arg(value).take();
            command.query_async::<()>(&mut primary.connection).await.expect("CONFIG SET");
        }
        let refused = redis::cmd("SET").arg("x").arg(1).query_async::<()>(&mut primary.connection).await;
        let code = refused.expect_err("a refusal").code().map(str::to_owned);
        assert!(matches!(code.as_deref(), Some("OOM" | "MOVED")), "{code:?}");
    }
}

#[tokio::test]
async fn cleanup_frees_memory_where_nothing_else_can_be_written() {
    let redis = start().await;
    let bench = Bench::new(&redis.endpoint());
    let expected = Expected::load(&bench.redis, 20).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");
    fill(&bench.redis).await;

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup at the memory limit");

    assert_eq!(report.removed, expected.sources());
    let (data, state) = bench.snapshot().await;
    expected.cleaned_up().assert_same(&data, "cleaned up");
    assert!(state[crate::support::engine::MARK].value.field("cleaned_up_at").is_some(), "the mark tells of it");
    assert_no_lock(&state);
}

#[tokio::test]
async fn cleanup_frees_memory_where_replicas_have_to_acknowledge() {
    let cluster = Cluster::start(3, 1, Options::default()).await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 20).await;
    bench.migrate(&Control::unattended()).await.expect("migrated");
    fill(&bench.redis).await;

    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup at the memory limit");

    assert_eq!(report.removed, expected.sources());
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}
