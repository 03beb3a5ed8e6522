//! Faults around the operator: replicas that die, hang or lose their lock, Redis and the API server
//! away, resources deleted under a run.

use std::time::{Duration, Instant};

use crate::operator::{
    ACCOUNT, LOCKS, NAME, Operator, SOON, Site, assert_kstatus, assert_left_clean, condition, data, locks, mark,
    migrated, phases, ready, spec, targets, targets_present, wait_mid_apply, wait_unlocked,
};
use crate::support::control_plane::ControlPlaneOptions;
use crate::support::generator::{Generator, noise, unmigrated};
use crate::support::load::load;
use crate::support::process::Signal;
use crate::support::redis_client::Endpoint;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Keyspace, Value};
use crate::support::wait::eventually_true;
use kube::Api;
use kube::api::DeleteParams;
use outpost_migrate_redis::model::phase::Phase;
use serde_json::json;

/// Of the locks in these tests, unless said otherwise.
const LEASE: Duration = Duration::from_secs(6);

/// A paced run: apply of these tenants takes about six seconds.
const PACE: u32 = 250;
const TENANTS: usize = 300;

async fn filled(redis: &Endpoint) -> Keyspace {
    let generator = Generator::new(11, TENANTS);
    let around = noise(generator.now_ms).into_iter().chain(unmigrated().into_iter().map(|it| it.entry));
    load(redis, generator.entries().chain(around)).await;
    snapshot(redis).await
}

async fn paced(site: &Site, redis: &Endpoint) {
    site.create(NAME, spec(redis, json!({ "limits": { "keysPerSecond": PACE } }))).await;
}

async fn unpace(site: &Site) {
    site.patch(NAME, json!({ "limits": { "keysPerSecond": null } })).await;
}

const CLEAN_WALK: [Phase; 6] =
    [Phase::Planning, Phase::Planned, Phase::Applying, Phase::Applied, Phase::Verifying, Phase::Verified];

/// The end of a run is that of a clean one.
async fn assert_clean_end(site: &Site, redis: &Endpoint, before: &Keyspace) {
    assert_walked(site, redis, before).await;
    assert_left_clean(site, redis).await;
}

/// The same, where an API server that was just started may have refused what it did not know yet.
async fn assert_walked(site: &Site, redis: &Endpoint, before: &Keyspace) {
    let status = site.wait_ready(NAME, Duration::from_secs(120), Phase::Verified).await;
    assert_eq!(phases(&status), CLEAN_WALK, "no phase is skipped or told twice");
    data(redis).await.assert_same(&migrated(before), "the same end as of a clean run");
    assert!(mark(redis).await.contains_key("verified_at"));
    wait_unlocked(redis, SOON).await;
}

/// The holder's name in the lock now.
async fn lock_holder(redis: &Endpoint) -> Option<String> {
    let everything = snapshot(redis).await;
    let lock = everything.get(LOCKS[0].as_bytes())?;
    let Value::String(text) = &lock.value else { return None };
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    Some(value["holder"].as_str()?.to_owned())
}

/// Two replicas: first the one that works, then the other.
async fn two_replicas(site: &Site, redis: &Endpoint, before: &Keyspace) -> (Operator, Operator) {
    let one = site.replica("replica-one", &[]).await;
    let other = site.replica("replica-two", &[]).await;
    paced(site, redis).await;
    wait_mid_apply(redis, before).await;
    let holder = lock_holder(redis).await.expect("somebody works");
    if one.holder == holder { (one, other) } else { (other, one) }
}

fn writes_by(site: &Site, operator: &Operator) -> usize {
    site.status_writes(NAME).iter().filter(|event| event.user == operator.user).count()
}

#[tokio::test]
async fn a_killed_replica_is_replaced_after_its_lock_ended() {
    let site = Site::new("killed").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let (worker, other) = two_replicas(&site, &redis.endpoint(), &before).await;
    worker.process.kill();
    let there = targets_present(&redis.endpoint(), &before).await;
    assert!(there < targets(&before).len(), "it was over before the kill");
    assert_eq!(lock_holder(&redis.endpoint()).await, Some(worker.holder.clone()), "a dead holder's lock stands");
    let killed = Instant::now();
    eventually_true(LEASE + Duration::from_secs(15), "the other takes over", async || {
        lock_holder(&redis.endpoint()).await.as_ref() == Some(&other.holder)
    })
    .await;
    assert!(killed.elapsed() > LEASE / 2, "the lock was taken before it ended: {:?}", killed.elapsed());
    assert_clean_end(&site, &redis.endpoint(), &before).await;
    assert!(writes_by(&site, &other) > 0 && writes_by(&site, &worker) > 0);
}

#[tokio::test]
async fn a_replica_asked_to_end_hands_over_at_once() {
    let site = Site::new("terminated").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let (worker, other) = two_replicas(&site, &redis.endpoint(), &before).await;
    let asked = Instant::now();
    worker.process.signal(Signal::TERM);
    eventually_true(Duration::from_secs(3), "the lock is given back at once", async || {
        lock_holder(&redis.endpoint()).await.as_ref() != Some(&worker.holder)
    })
    .await;
    assert!(targets_present(&redis.endpoint(), &before).await < targets(&before).len(), "over before the signal");
    let status = worker.process.wait_exit(Duration::from_secs(10)).await.expect("it ends within ten seconds");
    assert!(status.success(), "{status} after {:?}", asked.elapsed());
    assert_clean_end(&site, &redis.endpoint(), &before).await;
    assert!(writes_by(&site, &other) > 0);
}

#[tokio::test]
async fn a_replica_that_hung_writes_nothing_when_it_wakes() {
    let site = Site::new("hung").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let (worker, other) = two_replicas(&site, &redis.endpoint(), &before).await;
    worker.process.signal(Signal::STOP);
    let written = writes_by(&site, &worker);
    assert!(targets_present(&redis.endpoint(), &before).await < targets(&before).len(), "over before it hung");
    // A measured window: three lives of the lock.
    tokio::time::sleep(LEASE * 3).await;
    assert!(lock_holder(&redis.endpoint()).await.is_none_or(|holder| holder == other.holder));
    // The other is far: everything that the sleeper may still want to say is out of date.
    site.wait_ready(NAME, Duration::from_secs(120), Phase::Verified).await;
    wait_unlocked(&redis.endpoint(), SOON).await;
    let (held, status) = (snapshot(&redis.endpoint()).await, site.status(NAME).await);
    worker.process.signal(Signal::CONT);
    // A measured window: it woke up and has had every chance.
    tokio::time::sleep(LEASE * 2).await;
    worker.process.assert_running();
    assert_eq!(writes_by(&site, &worker), written, "it wrote status after its lock had ended");
    snapshot(&redis.endpoint()).await.assert_same(&held, "it wrote to Redis after its lock had ended");
    assert_eq!(site.status(NAME).await, status);
    assert_clean_end(&site, &redis.endpoint(), &before).await;
}

#[tokio::test]
async fn a_replica_that_wakes_beside_a_working_one_does_not_disturb_it() {
    let site = Site::new("woken").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let (worker, other) = two_replicas(&site, &redis.endpoint(), &before).await;
    worker.process.signal(Signal::STOP);
    let written = writes_by(&site, &worker);
    eventually_true(LEASE * 4, "the other works", async || {
        lock_holder(&redis.endpoint()).await.as_ref() == Some(&other.holder)
    })
    .await;
    worker.process.signal(Signal::CONT);
    assert_clean_end(&site, &redis.endpoint(), &before).await;
    assert_eq!(writes_by(&site, &worker), written, "it wrote status although the other works");
}

#[tokio::test]
async fn a_lock_taken_away_in_the_middle_is_a_lock_lost() {
    let site = Site::new("taken-away").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let operator = site.operator().await;
    paced(&site, &redis.endpoint()).await;
    wait_mid_apply(&redis.endpoint(), &before).await;
    // `unlock`, or another tool that does not look: one of the three keys is somebody else's.
    let mut connection = redis.connection().await;
    let _: () = redis::cmd("SET").arg(LOCKS[1]).arg("somebody else").query_async(&mut connection).await.unwrap();
    let shown = site.wait_reason(NAME, SOON, "LockHeld").await;
    assert_kstatus(&shown);
    assert_eq!(shown.lock.map(|lock| lock.holder), Some("somebody else".to_owned()));
    let held = data(&redis.endpoint()).await;
    assert!(held.len() < migrated(&before).len(), "it was over before the lock was lost");
    // A measured window: nothing is written without the lock.
    tokio::time::sleep(LEASE).await;
    data(&redis.endpoint()).await.assert_same(&held, "written without the lock");
    let labels = format!("namespace=\"{}\",name=\"{NAME}\"", site.namespace);
    assert_eq!(operator.metric(&format!("outpost_migrate_lock_held{{{labels}}}")).await, Some(0.0));
    let _: () = redis::cmd("DEL").arg(LOCKS[1]).query_async(&mut connection).await.unwrap();
    assert_clean_end(&site, &redis.endpoint(), &before).await;
}

#[tokio::test]
async fn deleting_the_resource_stops_the_work_and_frees_the_lock() {
    let site = Site::new("deleted").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let operator = site.operator().await;
    paced(&site, &redis.endpoint()).await;
    wait_mid_apply(&redis.endpoint(), &before).await;
    site.delete(NAME).await;
    wait_unlocked(&redis.endpoint(), Duration::from_secs(10)).await;
    let held = data(&redis.endpoint()).await;
    assert!(held.len() < migrated(&before).len(), "it was over before the deletion");
    // A measured window: nobody works for a resource that is gone.
    tokio::time::sleep(Duration::from_secs(5)).await;
    data(&redis.endpoint()).await.assert_same(&held, "work went on");
    assert!(locks(&redis.endpoint()).await.is_empty());
    let metrics = operator.metrics().await;
    assert!(!metrics.contains(&format!("name=\"{NAME}\"")), "{metrics}");

    // Made anew, it takes up what is there.
    site.create(NAME, spec(&redis.endpoint(), json!({}))).await;
    assert_clean_end(&site, &redis.endpoint(), &before).await;
}

#[tokio::test]
async fn a_status_that_may_not_be_written_holds_no_lock() {
    let site = Site::new("forbidden").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let operator = site.operator().await;
    paced(&site, &redis.endpoint()).await;
    wait_mid_apply(&redis.endpoint(), &before).await;

    let without_status = r#"[{ "op": "remove", "path": "/rules/1" }]"#;
    site.kubectl(&["patch", "role", ACCOUNT, "--type=json", "-p", without_status]);
    wait_unlocked(&redis.endpoint(), Duration::from_secs(10)).await;
    // A measured window: each further attempt takes the lock for a moment, later each time.
    let mut held = 0;
    for _ in 0..40 {
        held += usize::from(!locks(&redis.endpoint()).await.is_empty());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(held <= 8, "the lock was held in {held} of 40 looks");
    let errors = operator.metric("outpost_migrate_reconcile_errors_total{kind=\"Forbidden\"}").await;
    assert!(errors.is_some_and(|count| count >= 2.0), "{errors:?}");
    let log = operator.process.log();
    assert_eq!(log.matches("WARN").count(), 1, "one line a change: {log}");
    assert!(log.contains("reconcile failed"), "{log}");
    assert_eq!(
        operator
            .metric(&format!("outpost_migrate_lock_held{{namespace=\"{}\",name=\"{NAME}\"}}", site.namespace))
            .await,
        Some(0.0)
    );

    site.kubectl(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac.yaml")]);
    unpace(&site).await;
    assert_walked(&site, &redis.endpoint(), &before).await;
}

#[tokio::test]
async fn an_approval_whose_status_was_refused_is_followed_when_the_rights_are_back() {
    let site = Site::new("refused-once").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({ "approval": { "mode": "Manual" } }))).await;
    let planned = site.wait_reason(NAME, SOON, "AwaitingApproval").await;

    site.kubectl(&["patch", "role", ACCOUNT, "--type=json", "-p", r#"[{ "op": "remove", "path": "/rules/1" }]"#]);
    site.patch(NAME, json!({ "approval": { "planHash": planned.plan.expect("a plan").hash } })).await;
    eventually_true(SOON, "two writes are refused", async || {
        let series = "outpost_migrate_reconcile_errors_total{kind=\"Forbidden\"}";
        operator.metric(series).await.is_some_and(|count| count >= 2.0)
    })
    .await;
    site.kubectl(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac.yaml")]);
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "every source is at its target");
}

#[tokio::test]
async fn deleting_resource_and_namespace_never_hangs_even_with_redis_away() {
    let options = ControlPlaneOptions { controller_manager: true, ..ControlPlaneOptions::default() };
    let site = Site::alone("going", options).await;
    let redis = Standalone::start(Options { persistent: true, ..Options::default() }).await;
    let before = filled(&redis.endpoint()).await;
    let operator = site.operator().await;
    paced(&site, &redis.endpoint()).await;
    wait_mid_apply(&redis.endpoint(), &before).await;
    redis.kill();
    site.wait_reason(NAME, SOON, "RedisUnavailable").await;
    site.delete(NAME).await;
    eventually_true(SOON, "the metrics vanish", async || {
        !operator.metrics().await.contains(&format!("name=\"{NAME}\""))
    })
    .await;

    redis.restart().await;
    paced(&site, &redis.endpoint()).await;
    site.wait(NAME, SOON, "it works again", |status| status.phase >= Phase::Applying).await;
    assert!(site.status(NAME).await.phase < Phase::Verified, "it was over before the deletion");
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(site.client.clone());
    namespaces.delete(&site.namespace, &DeleteParams::default()).await.expect("deletion accepted");
    eventually_true(SOON, "the namespace is gone", async || {
        matches!(namespaces.get_opt(&site.namespace).await, Ok(None))
    })
    .await;
    wait_unlocked(&redis.endpoint(), LEASE + Duration::from_secs(10)).await;
    operator.process.assert_running();
}

#[tokio::test]
async fn with_redis_away_replicas_say_so_once() {
    let site = Site::new("away").await;
    let redis = Standalone::start(Options { persistent: true, ..Options::default() }).await;
    let before = filled(&redis.endpoint()).await;
    redis.kill();
    let mut replicas = Vec::new();
    for account in ["replica-one", "replica-two", "replica-three"] {
        replicas.push(site.replica(account, &[]).await);
    }
    site.create(NAME, spec(&redis.endpoint(), json!({}))).await;
    let said = site.wait_reason(NAME, SOON, "RedisUnavailable").await;
    assert_kstatus(&said);
    assert!(condition(&said, "Reconciling").is_some());
    // A measured window, several times as long as the pause between two tries.
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(site.status_writes(NAME).len(), 1, "{:?}", site.status_writes(NAME));
    let events = site.events(NAME);
    assert_eq!(events.iter().filter(|event| event.1 == "RedisUnavailable").count(), 1, "{events:?}");
    redis.restart().await;
    assert_clean_end(&site, &redis.endpoint(), &before).await;
}

#[tokio::test]
async fn trouble_with_a_finished_migration_passes_too() {
    let site = Site::new("passing").await;
    let redis = Standalone::start(Options { persistent: true, ..Options::default() }).await;
    let before = filled(&redis.endpoint()).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({}))).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    redis.kill();
    // Any change of the spec makes it look.
    site.patch(NAME, json!({ "samples": "Off" })).await;
    let away = site.wait_reason(NAME, SOON, "RedisUnavailable").await;
    assert_eq!((away.phase, ready(&away).0.as_str()), (Phase::Verified, "False"));
    redis.restart().await;
    assert_clean_end(&site, &redis.endpoint(), &before).await;
}

#[tokio::test]
async fn redis_killed_in_the_middle_is_waited_for() {
    let site = Site::new("redis-killed").await;
    // Every write is on disk before it is answered.
    let options = Options { persistent: true, extra: vec!["appendfsync always".to_owned()], ..Options::default() };
    let redis = Standalone::start(options).await;
    let before = filled(&redis.endpoint()).await;
    let _operator = site.operator().await;
    paced(&site, &redis.endpoint()).await;
    wait_mid_apply(&redis.endpoint(), &before).await;
    redis.kill();
    let away = site.wait_reason(NAME, SOON, "RedisUnavailable").await;
    assert_kstatus(&away);
    assert_eq!(away.phase, Phase::Applying, "trouble is no phase");
    redis.restart().await;
    assert!(targets_present(&redis.endpoint(), &before).await < targets(&before).len(), "over before the kill");
    assert_clean_end(&site, &redis.endpoint(), &before).await;
}

#[tokio::test]
async fn an_api_server_restarted_in_the_middle_is_survived() {
    let site = Site::alone("api-restart", ControlPlaneOptions::default()).await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let operator = site.operator().await;
    paced(&site, &redis.endpoint()).await;
    wait_mid_apply(&redis.endpoint(), &before).await;
    site.control_plane.restart_apiserver().await;
    operator.process.assert_running();
    assert_walked(&site, &redis.endpoint(), &before).await;
}

#[tokio::test]
async fn an_api_server_away_for_long_lets_the_worker_give_the_lock_back() {
    let site = Site::alone("api-away", ControlPlaneOptions::default()).await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let operator = site.operator().await;
    paced(&site, &redis.endpoint()).await;
    wait_mid_apply(&redis.endpoint(), &before).await;
    site.control_plane.kill_apiserver();
    // The step goes on and ends; nobody hears of it, so after a while the lock is free.
    wait_unlocked(&redis.endpoint(), Duration::from_secs(90)).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "the step under way was finished");
    assert!(mark(&redis.endpoint()).await.is_empty(), "no step was begun that status does not tell of");
    operator.process.assert_running();
    site.control_plane.restart_apiserver().await;
    assert_walked(&site, &redis.endpoint(), &before).await;
}

#[tokio::test]
async fn an_api_server_that_hangs_does_not_keep_a_replica_from_ending() {
    let site = Site::alone("api-hangs", ControlPlaneOptions::default()).await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let operator = site.operator().await;
    paced(&site, &redis.endpoint()).await;
    wait_mid_apply(&redis.endpoint(), &before).await;
    site.control_plane.signal_apiserver(Signal::STOP);
    // A measured pause: the next write of progress hangs by now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    operator.process.signal(Signal::TERM);
    let ended = operator.process.wait_exit(Duration::from_secs(10)).await;
    let free = locks(&redis.endpoint()).await;
    site.control_plane.signal_apiserver(Signal::CONT);
    assert!(ended.expect("it ends within ten seconds").success());
    assert!(free.is_empty(), "{free:?}");
    unpace(&site).await;
    let _operator = site.replica(ACCOUNT, &[]).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "the same end as of a clean run");
}

#[tokio::test]
async fn replicas_do_not_take_turns_at_what_is_settled() {
    let site = Site::new("turns").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint()).await;
    let target = targets(&before).keys().next().expect("a target").clone();
    load(&redis.endpoint(), [Entry::new(&target, Value::hash([("id", "somebody-else")]))]).await;
    let mut replicas = Vec::new();
    for account in ["replica-one", "replica-two"] {
        replicas.push(site.replica(account, &[]).await);
    }
    site.create(NAME, spec(&redis.endpoint(), json!({}))).await;
    site.wait_reason(NAME, SOON, "Conflicts").await;
    let writes = site.count_status_writes(NAME).await;
    // A measured window, longer than the pause of a replica that found the lock taken.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(site.status_writes(NAME).len(), writes, "the other replica tried what is stalled");

    // One change is followed once.
    site.patch(NAME, json!({ "conflictPolicy": "PreferTarget" })).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    let writes = site.count_status_writes(NAME).await;
    site.patch(NAME, json!({ "samples": "Off" })).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    // A measured window: whoever came second finds it done.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(site.status_writes(NAME).len() - writes <= 1, "{:?}", site.status_writes(NAME));
    assert!(locks(&redis.endpoint()).await.is_empty());
}
