//! The operator's walks: a real API server, real Redis, the real program with the permissions that
//! it is installed with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::items_after_statements, missing_docs, unreachable_pub)]

mod support;

#[path = "support/operator.rs"]
mod operator;

use std::fs;
use std::time::Duration;

use operator::{
    AFTER_A_RETRY, LOCKS, NAME, SOON, Site, assert_kstatus, assert_left_clean, cleaned_up, condition, data, locks,
    mark, migrated, phases, ready, sources, spec, targets, targets_present, wait_mid_apply, wait_unlocked,
};
use outpost_migrate_redis::api::v1alpha1::RedisMigrationStatus;
use outpost_migrate_redis::model::phase::Phase;
use serde_json::{Value as Json, json};
use support::certificates::SERVER_NAME;
use support::generator::{Generator, noise, unmigrated};
use support::load::load;
use support::redis_client::Endpoint;
use support::redis_cluster::Cluster;
use support::redis_server::{Options, Standalone};
use support::snapshot::snapshot;
use support::value::{Entry, Keyspace, Value};
use support::wait::{eventually, eventually_true};

/// Loads tenants and what lies around them; answers what is there.
async fn filled(redis: &Endpoint, tenants: usize) -> Keyspace {
    let generator = Generator::new(7, tenants);
    let around = noise(generator.now_ms).into_iter().chain(unmigrated().into_iter().map(|it| it.entry));
    load(redis, generator.entries().chain(around)).await;
    snapshot(redis).await
}

/// Loads tenants only.
async fn tenants_only(redis: &Endpoint, tenants: usize) -> Keyspace {
    load(redis, Generator::new(7, tenants).entries()).await;
    snapshot(redis).await
}

async fn command(redis: &Standalone, words: &[&str]) -> redis::Value {
    let mut connection = redis.connection().await;
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Milliseconds of a measured window in which nothing may happen.
async fn window(length: Duration) {
    tokio::time::sleep(length).await;
}

#[tokio::test]
async fn a_whole_walk_on_a_cluster() {
    let site = Site::new("whole-walk").await;
    let cluster = Cluster::start(3, 3, Options::default()).await;
    let redis = cluster.endpoint();
    let before = filled(&redis, 6000).await;
    let operator = site.operator().await;
    site.create(NAME, spec(&redis, json!({ "limits": { "keysPerSecond": 4000 } }))).await;

    // While it runs, status is never ahead of the data, and people see it move.
    let all = targets(&before).len();
    let mut shown_while_running = Vec::new();
    let (mut compared, mut saw_eta) = (0, false);
    eventually_true(Duration::from_secs(180), "the migration is verified", async || {
        let status = site.status(NAME).await;
        assert_kstatus(&status);
        if status.phase == Phase::Applying {
            let claimed = status.progress.as_ref().map_or(0, |progress| progress.processed);
            let present = targets_present(&redis, &before).await;
            assert!(present >= usize::try_from(claimed).unwrap(), "status says {claimed}, there are {present}");
            compared += usize::from(claimed > 0 && present < all);
            saw_eta |= status.progress.is_some_and(|progress| progress.eta.is_some() && progress.keys_per_second > 0);
            shown_while_running.push(site.kubectl(&["get", "rmig", NAME, "--no-headers"]));
        }
        status.phase == Phase::Verified
    })
    .await;
    assert!(compared > 0, "no look at a run under way");
    assert!(saw_eta, "how long it takes was never told");
    let moving = shown_while_running.iter().any(|line| line.contains("Applying") && line.contains('%'));
    assert!(moving, "{shown_while_running:#?}");
    site.kubectl(&["wait", "rmig", NAME, "--for=condition=Verified", "--timeout=30s"]);
    site.kubectl(&["wait", "rmig", NAME, "--for=condition=Ready", "--timeout=30s"]);

    let status = site.wait_ready(NAME, SOON, Phase::Verified).await;
    use Phase::{Applied, Applying, CleanedUp, CleaningUp, Planned, Planning, Verified, Verifying};
    let walked = [Planning, Planned, Applying, Applied, Verifying, Verified];
    assert_eq!(phases(&status), walked);
    data(&redis).await.assert_same(&migrated(&before), "every source is at its target, nothing else changed");
    assert_eq!(mark(&redis).await.get("status").map(String::as_str), Some("applied"));

    let count = |keyspace: &Keyspace| i64::try_from(keyspace.len()).unwrap();
    let sources = sources(&before);
    let plan = status.plan.clone().expect("a plan");
    assert_eq!(plan.totals.sources, count(&sources));
    assert_eq!(plan.totals.to_copy, count(&sources));
    assert_eq!(plan.unmigrated.count, i64::try_from(unmigrated().len()).unwrap());
    assert_eq!(plan.scope.iter().map(|entity| entity.sources).sum::<i64>(), count(&sources));
    let verification = status.verification.clone().expect("a comparison");
    assert_eq!((verification.equal, verification.different, verification.ended), (count(&sources), 0, 0));
    let progress = status.progress.clone().expect("progress");
    assert_eq!((progress.processed, progress.percent, progress.eta), (count(&sources), Some(100), None));
    for milestone in ["Planned", "Applied", "Verified"] {
        assert_eq!(condition(&status, milestone).expect(milestone).0, "True");
    }

    site.patch(NAME, json!({ "targetPhase": "CleanedUp", "cleanup": { "after": "0s" } })).await;
    let status = site.wait_ready(NAME, Duration::from_secs(120), Phase::CleanedUp).await;
    assert_eq!(phases(&status), [walked.as_slice(), &[CleaningUp, CleanedUp]].concat());
    data(&redis).await.assert_same(&cleaned_up(&before), "every original is gone, nothing else");
    let cleanup = status.cleanup.clone().expect("a cleanup");
    assert_eq!((cleanup.removed, cleanup.kept.len(), cleanup.gone), (count(&sources), 0, 0));
    assert_eq!(condition(&status, "CleanedUp").expect("CleanedUp").1, "Complete");

    let events = site.events(NAME);
    for reason in ["Planned", "Applied", "Verified", "CleanedUp"] {
        assert_eq!(events.iter().filter(|event| event.1 == reason).count(), 1, "{reason} in {events:?}");
    }
    assert!(events.iter().all(|event| event.0 == "Normal"), "{events:?}");
    let labels = format!("namespace=\"{}\",name=\"{NAME}\"", site.namespace);
    let applied = operator.metric(&format!("outpost_migrate_entries_processed_total{{{labels},step=\"apply\"}}")).await;
    #[allow(clippy::cast_precision_loss)]
    let expected = sources.len() as f64;
    assert_eq!(applied, Some(expected));
    assert_eq!(operator.metric(&format!("outpost_migrate_lock_held{{{labels}}}")).await, Some(0.0));
    assert_eq!(operator.metric(&format!("outpost_migrate_phase{{{labels},phase=\"CleanedUp\"}}")).await, Some(1.0));
    assert_left_clean(&site, &redis).await;
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_raising_the_target_goes_on() {
    let site = Site::new("dry-run").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint(), 150).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({ "targetPhase": "Planned" }))).await;
    let planned = site.wait_ready(NAME, SOON, Phase::Planned).await;
    wait_unlocked(&redis.endpoint(), SOON).await;
    let after = snapshot(&redis.endpoint()).await;
    let claim = format!("{{outpost:migration:{}}}:run", operator::MIGRATION).into_bytes();
    let added: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).cloned().collect();
    assert_eq!(added, std::slice::from_ref(&claim), "only the claim of the migration is written");
    after.filter(|key, _| key != claim).assert_same(&before, "a dry run leaves every entry as it was");

    site.patch(NAME, json!({ "targetPhase": "Applied" })).await;
    let applied = site.wait_ready(NAME, SOON, Phase::Applied).await;
    assert!(mark(&redis.endpoint()).await.is_empty(), "the gate stays closed");
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "everything is copied");
    assert_eq!(applied.plan.as_ref().map(|plan| &plan.hash), planned.plan.as_ref().map(|plan| &plan.hash));

    site.patch(NAME, json!({ "targetPhase": "Verified" })).await;
    let verified = site.wait_ready(NAME, SOON, Phase::Verified).await;
    let history = verified.history.clone();
    let unlocked = snapshot(&redis.endpoint()).await;
    site.patch(NAME, json!({ "targetPhase": "Planned" })).await;
    let lowered = site.wait_reason(NAME, SOON, "TargetLowered").await;
    assert_eq!((lowered.phase, ready(&lowered).0.as_str()), (Phase::Verified, "True"));
    assert_eq!(lowered.history, history);
    wait_unlocked(&redis.endpoint(), SOON).await;
    let ours = |keyspace: Keyspace| keyspace.filter(|key, _| !key.ends_with(b":run"));
    ours(snapshot(&redis.endpoint()).await).assert_same(&ours(unlocked), "lowering the target changes nothing");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn a_plan_and_a_cleanup_are_carried_out_only_when_approved() {
    let site = Site::new("approval").await;
    let redis = Standalone::start(Options::default()).await;
    let mut before = tenants_only(&redis.endpoint(), 100).await;
    let _operator = site.operator().await;
    let manual = json!({ "approval": { "mode": "Manual" }, "targetPhase": "CleanedUp", "cleanup": { "after": "0s" } });
    site.create(NAME, spec(&redis.endpoint(), manual)).await;
    let awaiting = site.wait_reason(NAME, SOON, "AwaitingApproval").await;
    assert_kstatus(&awaiting);
    assert_eq!((awaiting.phase, awaiting.lock.as_ref()), (Phase::Planned, None));
    assert!(condition(&awaiting, "Reconciling").is_none() && condition(&awaiting, "Stalled").is_none());
    let first = awaiting.plan.expect("a plan").hash;
    assert!(condition_message(&site, "Ready").await.contains(&first), "the message says which hash to approve");

    let wrong = format!("sha256:{}", "0".repeat(64));
    site.patch(NAME, json!({ "approval": { "planHash": wrong } })).await;
    site.wait_reason(NAME, SOON, "AwaitingApproval").await;
    wait_unlocked(&redis.endpoint(), SOON).await;
    data(&redis.endpoint()).await.assert_same(&before, "a wrong hash approves nothing");

    // What the plan decides changes: the first plan's approval is no approval of this one.
    load(&redis.endpoint(), [Entry::new("tenant:wrongtype", Value::string("x"))]).await;
    before = data(&redis.endpoint()).await;
    site.patch(NAME, json!({ "approval": { "planHash": first } })).await;
    let changed = site
        .wait(NAME, SOON, "a plan with another hash", |status| {
            ready(status).1 == "AwaitingApproval" && status.plan.as_ref().is_some_and(|plan| plan.hash != first)
        })
        .await;
    wait_unlocked(&redis.endpoint(), SOON).await;
    data(&redis.endpoint()).await.assert_same(&before, "an approval of another plan approves nothing");

    let second = changed.plan.expect("a plan").hash;
    site.patch(NAME, json!({ "approval": { "planHash": second } })).await;
    let soaked = site
        .wait(NAME, SOON, "cleanup waits for its approval", |status| {
            status.phase == Phase::Verified && ready(status).1 == "AwaitingApproval"
        })
        .await;
    assert_eq!(soaked.approval.as_ref().and_then(|approval| approval.plan_hash.as_ref()), Some(&second));
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "approved, copied and not cleaned up");
    let cleanup_hash = soaked.cleanup.as_ref().and_then(|cleanup| cleanup.hash.clone()).expect("a hash to approve");

    // Consumed: removing it changes nothing.
    site.patch(NAME, json!({ "approval": { "planHash": null } })).await;
    let still = site.wait_reason(NAME, SOON, "AwaitingApproval").await;
    assert_eq!((still.phase, &still.history), (Phase::Verified, &soaked.history));

    site.patch(NAME, json!({ "approval": { "cleanupHash": wrong } })).await;
    site.wait_reason(NAME, SOON, "AwaitingApproval").await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "a wrong hash cleans nothing up");
    site.patch(NAME, json!({ "approval": { "cleanupHash": cleanup_hash } })).await;
    let done = site.wait_ready(NAME, SOON, Phase::CleanedUp).await;
    data(&redis.endpoint()).await.assert_same(&cleaned_up(&before), "cleaned up");
    let approval = done.approval.clone().expect("what was approved");
    assert_eq!((approval.plan_hash, approval.cleanup_hash), (Some(second), Some(cleanup_hash)));
    site.patch(NAME, json!({ "approval": { "cleanupHash": null } })).await;
    let after = site.wait_ready(NAME, SOON, Phase::CleanedUp).await;
    assert_eq!((after.approval, after.history), (done.approval, done.history));
    assert_left_clean(&site, &redis.endpoint()).await;
}

async fn condition_message(site: &Site, kind: &str) -> String {
    condition(&site.status(NAME).await, kind).expect("the condition").2
}

#[tokio::test]
async fn a_soak_keeps_originals_without_a_lock() {
    let site = Site::new("soak").await;
    let redis = Standalone::start(Options::default()).await;
    let before = tenants_only(&redis.endpoint(), 100).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({ "targetPhase": "CleanedUp" }))).await;
    let soaking = site.wait_reason(NAME, SOON, "Soaking").await;
    assert_kstatus(&soaking);
    assert_eq!((soaking.phase, soaking.lock.as_ref()), (Phase::Verified, None));
    let verified_at = soaking.verification.and_then(|it| it.completed_at).expect("when it was verified").0.as_second();
    let not_before = soaking.cleanup.and_then(|it| it.not_before).expect("until when").0.as_second();
    assert!((not_before - verified_at - 24 * 3600).abs() <= 2, "{verified_at} and 24 hours are not {not_before}");
    wait_unlocked(&redis.endpoint(), SOON).await;
    // A measured window: while it soaks, nobody takes the lock.
    let until = std::time::Instant::now() + Duration::from_secs(8);
    while std::time::Instant::now() < until {
        assert!(locks(&redis.endpoint()).await.is_empty(), "a soak holds no lock");
        window(Duration::from_millis(100)).await;
    }
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "originals stay");

    site.patch(NAME, json!({ "cleanup": { "after": "0s" } })).await;
    site.wait_ready(NAME, SOON, Phase::CleanedUp).await;
    data(&redis.endpoint()).await.assert_same(&cleaned_up(&before), "originals are gone");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn a_short_soak_ends_by_itself_when_it_is_over() {
    let site = Site::new("short-soak").await;
    let redis = Standalone::start(Options::default()).await;
    let before = tenants_only(&redis.endpoint(), 50).await;
    let _operator = site.operator().await;
    let soak = json!({ "targetPhase": "CleanedUp", "cleanup": { "after": "12s" } });
    site.create(NAME, spec(&redis.endpoint(), soak)).await;
    site.wait_reason(NAME, SOON, "Soaking").await;
    let done = site.wait_ready(NAME, Duration::from_secs(45), Phase::CleanedUp).await;
    let moment = |phase| done.history.iter().find(|entry| entry.phase == phase).expect("a phase").at.0.as_second();
    assert!(moment(Phase::CleaningUp) - moment(Phase::Verified) >= 11, "{:?}", done.history);
    data(&redis.endpoint()).await.assert_same(&cleaned_up(&before), "originals are gone");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn a_soak_that_is_made_shorter_ends_at_its_new_time() {
    let site = Site::new("shorter-soak").await;
    let redis = Standalone::start(Options::default()).await;
    let before = tenants_only(&redis.endpoint(), 50).await;
    let _operator = site.operator().await;
    let day = json!({ "targetPhase": "CleanedUp", "cleanup": { "after": "24h" } });
    site.create(NAME, spec(&redis.endpoint(), day)).await;
    site.wait_reason(NAME, SOON, "Soaking").await;
    site.patch(NAME, json!({ "cleanup": { "after": "10s" } })).await;
    site.wait_ready(NAME, Duration::from_secs(45), Phase::CleanedUp).await;
    data(&redis.endpoint()).await.assert_same(&cleaned_up(&before), "originals are gone");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn turning_samples_off_later_takes_key_names_out_of_status() {
    let site = Site::new("samples-later").await;
    let redis = Standalone::start(Options::default()).await;
    tenants_only(&redis.endpoint(), 50).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({}))).await;
    let shown = site.wait_ready(NAME, SOON, Phase::Verified).await;
    assert!(!shown.plan.expect("a plan").sample.is_empty(), "there were samples to take out");
    site.patch(NAME, json!({ "samples": "Off" })).await;
    site.wait(NAME, SOON, "the samples are gone", |status| {
        status.plan.as_ref().is_some_and(|plan| plan.sample.is_empty()) && ready(status).0 == "True"
    })
    .await;
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn a_suspended_run_gives_the_lock_back_and_goes_on_later() {
    let site = Site::new("suspend").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint(), 300).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({ "limits": { "keysPerSecond": 250 } }))).await;
    wait_mid_apply(&redis.endpoint(), &before).await;
    site.patch(NAME, json!({ "suspend": true })).await;
    let suspended = site.wait_reason(NAME, SOON, "Suspended").await;
    assert_kstatus(&suspended);
    assert_eq!((suspended.phase, suspended.lock.as_ref()), (Phase::Applying, None));
    assert!(condition(&suspended, "Reconciling").is_none() && condition(&suspended, "Stalled").is_none());
    wait_unlocked(&redis.endpoint(), Duration::from_secs(3)).await;
    let there = targets_present(&redis.endpoint(), &before).await;
    assert!(there < targets(&before).len(), "it was over before it was suspended");
    let held = snapshot(&redis.endpoint()).await;
    // A measured window: nothing happens while suspended.
    let writes = site.count_status_writes(NAME).await;
    window(Duration::from_secs(8)).await;
    snapshot(&redis.endpoint()).await.assert_same(&held, "nothing is written while suspended");
    assert_eq!(site.status_writes(NAME).len(), writes, "a suspended resource causes no writes");

    site.patch(NAME, json!({ "suspend": false, "limits": { "keysPerSecond": null } })).await;
    let done = site.wait_ready(NAME, SOON, Phase::Verified).await;
    use Phase::{Applied, Applying, Planned, Planning, Verified, Verifying};
    assert_eq!(phases(&done), [Planning, Planned, Applying, Applied, Verifying, Verified]);
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "the same end as of a clean run");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn a_changed_limit_while_the_last_step_runs_does_not_lose_ready() {
    let site = Site::new("late-change").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint(), 200).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({ "limits": { "keysPerSecond": 150 } }))).await;
    site.wait(NAME, SOON, "verify is under way", |status| status.phase == Phase::Verifying).await;
    site.patch(NAME, json!({ "limits": { "keysPerSecond": 149 } })).await;
    assert_eq!(site.status(NAME).await.phase, Phase::Verifying, "the change came while verify ran");
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "every source is at its target");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn writes_of_status_are_few_and_an_idle_resource_causes_none() {
    let site = Site::new("few-writes").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint(), 300).await;
    let _operator = site.operator().await;
    let began = std::time::Instant::now();
    site.create(NAME, spec(&redis.endpoint(), json!({ "limits": { "keysPerSecond": 250 } }))).await;
    let done = site.wait_ready(NAME, SOON, Phase::Verified).await;
    let took = began.elapsed();
    assert!(took > Duration::from_secs(10), "not paced: {took:?}");
    let writes = site.count_status_writes(NAME).await;
    // One for each phase, one for Ready, and one of progress in two seconds.
    let allowed = done.history.len() + 1 + usize::try_from(took.as_secs() / 2 + 1).unwrap();
    assert!(writes <= allowed, "{writes} writes in {took:?}, {allowed} are allowed");
    assert!(writes > done.history.len() + 2, "no progress was written in {took:?}");

    // A measured window: an idle resource causes no writes, of status or anything else.
    let all = || {
        let prefix = format!("system:serviceaccount:{}:", site.namespace);
        let ours = site.control_plane.audit_events();
        ours.into_iter().filter(|event| event.is_write() && event.user.starts_with(&prefix)).count()
    };
    site.count_status_writes(NAME).await;
    let (writes, held) = (all(), snapshot(&redis.endpoint()).await);
    window(Duration::from_secs(15)).await;
    assert_eq!(all(), writes, "an idle resource causes no writes");
    snapshot(&redis.endpoint()).await.assert_same(&held, "an idle resource touches nothing");
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "every source is at its target");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn credentials_come_from_secrets_and_a_rotated_one_needs_no_restart() {
    let site = Site::new("secrets").await;
    let user = "migrator on >right-password ~* &* +@all";
    let options = Options { acl_users: vec![user.to_owned()], ..Options::password("of-the-default-user") };
    let redis = Standalone::start(options).await;
    let before = tenants_only(&redis.endpoint(), 50).await;
    let _operator = site.operator().await;
    let refs = json!({ "redis": {
        "usernameSecretRef": { "name": "redis-user", "key": "username" },
        "passwordSecretRef": { "name": "redis-password", "key": "password" },
    } });
    site.create(NAME, spec(&redis.endpoint(), refs)).await;

    let missing = site.wait_reason(NAME, SOON, "SecretMissing").await;
    assert_kstatus(&missing);
    assert!(condition_message(&site, "Ready").await.contains("redis-user"), "the message names the Secret");
    // The next one that is missing is named in its turn.
    site.secret("redis-user", "Opaque", &[("username", "migrator\n")]);
    site.wait(NAME, SOON, "the other Secret is named", |status| {
        condition(status, "Ready").is_some_and(|it| it.1 == "SecretMissing" && it.2.contains("redis-password"))
    })
    .await;
    site.secret("redis-password", "Opaque", &[("other", "x")]);
    site.wait(NAME, SOON, "the missing key is named", |status| {
        condition(status, "Ready").is_some_and(|it| it.1 == "SecretMissing" && it.2.contains("\"password\""))
    })
    .await;

    site.secret("redis-password", "Opaque", &[("password", "wrong-password")]);
    let refused = site.wait_reason(NAME, SOON, "AuthenticationFailed").await;
    assert_kstatus(&refused);
    assert!(condition(&refused, "Stalled").is_some());
    let message = condition_message(&site, "Ready").await;
    assert!(message.contains("redis-user") && message.contains("redis-password"), "it names the Secrets: {message}");
    let event = eventually(SOON, "an event", async || {
        site.events(NAME).into_iter().find(|event| event.1 == "AuthenticationFailed")
    })
    .await;
    assert_eq!(event.0, "Warning");

    site.secret("redis-password", "Opaque", &[("password", "right-password")]);
    site.wait_ready(NAME, AFTER_A_RETRY, Phase::Verified).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "every source is at its target");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn tls_with_a_private_authority_a_client_certificate_and_a_server_name() {
    let site = Site::new("tls").await;
    let redis = Standalone::start(Options { require_client_certificate: true, ..Options::tls() }).await;
    let before = tenants_only(&redis.endpoint(), 50).await;
    let certificates = redis.access().tls.clone().expect("certificates");
    let read = |path| fs::read_to_string(path).expect("a certificate");
    let _operator = site.operator().await;
    site.secret("redis-ca", "Opaque", &[("ca.crt", &read(&certificates.ca))]);
    let client = [("tls.crt", read(&certificates.client_cert)), ("tls.key", read(&certificates.client_key))];
    let client = client.each_ref().map(|(key, value)| (*key, value.as_str()));
    let tls = |client: bool, server_name: &str| {
        let mut tls = json!({ "caSecretRef": { "name": "redis-ca", "key": "ca.crt" }, "serverName": server_name });
        if client {
            tls["clientCertSecretRef"] = json!({ "name": "redis-client" });
        }
        json!({ "redis": { "tls": tls } })
    };
    site.create("other-name", spec(&redis.endpoint(), tls(true, "other.example"))).await;
    site.wait_reason("other-name", SOON, "SecretMissing").await;
    site.secret("redis-client", "kubernetes.io/tls", &client);
    site.wait_reason("other-name", SOON, "RedisUnavailable").await;
    site.delete("other-name").await;
    data(&redis.endpoint()).await.assert_same(&before, "a server with another name gets nothing");

    site.create(NAME, spec(&redis.endpoint(), tls(true, SERVER_NAME))).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "every source is at its target");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_with_words_to_act_on() {
    let site = Site::new("refused").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let _operator = site.replica(operator::ACCOUNT, &["--allowed-redis-host", "127.0.0.1"]).await;

    site.create(NAME, spec(&endpoint, json!({ "targetPhase": "Planned" }))).await;
    for (change, field) in [
        (json!({ "migration": "002_timestamps" }), "spec.migration"),
        (json!({ "deploymentId": "dp_1" }), "spec.deploymentId"),
        (json!({ "redis": { "host": "127.0.0.2" } }), "spec.redis.host"),
        (json!({ "redis": { "port": 1 } }), "spec.redis.port"),
        (json!({ "redis": { "cluster": true } }), "spec.redis.cluster"),
        (json!({ "redis": { "database": 1 } }), "spec.redis.database"),
        (json!({ "redis": { "tls": { "enabled": true } } }), "spec.redis.tls.enabled"),
        (json!({ "parameters": { "keyLayout": "TenantTag" } }), "spec.parameters.keyLayout"),
    ] {
        let refused = site.try_patch(NAME, change).await.expect_err(field);
        assert!(refused.contains(&format!("{field} can't change after creation")), "{field}: {refused}");
        assert!(refused.contains("nothing in Redis is touched"), "{refused}");
    }
    site.patch(NAME, json!({ "redis": { "passwordSecretRef": { "name": "x", "key": "y" } } })).await;

    for (bad, word) in [
        (json!({ "redis": { "host": "redis://x" } }), "spec.redis.host"),
        (json!({ "redis": { "port": 70000 } }), "spec.redis.port"),
        (json!({ "redis": { "cluster": true, "database": 3 } }), "database must be 0"),
        (json!({ "redis": { "usernameSecretRef": { "name": "x", "key": "y" } } }), "passwordSecretRef"),
        (json!({ "targetPhase": "Done" }), "spec.targetPhase"),
        (json!({ "cleanup": { "after": "1d" } }), "spec.cleanup.after"),
        (json!({ "limits": { "keysPerSecond": 0 } }), "spec.limits.keysPerSecond"),
        (json!({ "approval": { "planHash": "abc" } }), "spec.approval.planHash"),
        (json!({ "migration": "hash tags" }), "spec.migration"),
        (json!({ "minReplicas": -1 }), "spec.minReplicas"),
    ] {
        let refused = site.try_create("bad", spec(&endpoint, bad)).await.expect_err(word);
        assert!(refused.contains(word), "{word}: {refused}");
    }

    site.create("unknown", spec(&endpoint, json!({ "migration": "099_future" }))).await;
    let unknown = site.wait_reason("unknown", SOON, "UnknownMigration").await;
    assert_kstatus(&unknown);
    assert!(condition(&unknown, "Stalled").expect("Stalled").2.contains(operator::MIGRATION), "known ones are listed");
    let event =
        eventually(SOON, "an event", async || site.events("unknown").into_iter().find(|it| it.1 == "UnknownMigration"))
            .await;
    assert_eq!(event.0, "Warning");

    site.create("elsewhere", spec(&endpoint, json!({ "redis": { "host": "169.254.169.254" } }))).await;
    let elsewhere = site.wait_reason("elsewhere", SOON, "InvalidSpec").await;
    assert!(condition(&elsewhere, "Stalled").expect("Stalled").2.contains("allowed are: 127.0.0.1"));
    assert_left_clean(&site, &endpoint).await;
}

#[tokio::test]
async fn a_resource_made_anew_takes_up_where_the_mark_says() {
    let site = Site::new("made-anew").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = filled(&endpoint, 100).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&endpoint, json!({}))).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    let stamped = mark(&endpoint).await;

    // A tenant is deleted by the new version: it must not come back.
    let deleted = targets(&before).keys().next().expect("a target").clone();
    let removed: i64 = redis::cmd("UNLINK").arg(&deleted).query_async(&mut redis.connection().await).await.unwrap();
    assert_eq!(removed, 1);
    let living = data(&endpoint).await;
    site.delete(NAME).await;
    site.create(NAME, spec(&endpoint, json!({}))).await;
    let adopted = site.wait_ready(NAME, SOON, Phase::Verified).await;
    for milestone in ["Applied", "Verified"] {
        let found = condition(&adopted, milestone).expect(milestone);
        assert_eq!((found.0.as_str(), found.1.as_str()), ("True", "Adopted"), "{milestone}");
    }
    data(&endpoint).await.assert_same(&living, "nothing is copied again");
    let (mut adopted_mark, mut stamped) = (mark(&endpoint).await, stamped);
    assert_ne!(adopted_mark.remove("owner_uid"), stamped.remove("owner_uid"), "the new resource owns it");
    assert_eq!(adopted_mark, stamped);

    // A status from before, as out of a backup: Redis says otherwise, and is believed.
    for phase in [Phase::Applying, Phase::Planned, Phase::Verifying, Phase::CleanedUp] {
        let mut old = site.status(NAME).await;
        old.phase = phase;
        old.observed_generation = None;
        site.set_status(NAME, &old).await;
        site.wait_ready(NAME, SOON, Phase::Verified).await;
        data(&endpoint).await.assert_same(&living, "nothing is copied again");
    }

    // Compared again on request; what the application did since is diverged, neither failure nor conflict.
    site.ask_again(NAME, "now").await;
    let again = site
        .wait(NAME, SOON, "the request is echoed", |status| {
            status.last_handled_request.as_deref() == Some("now") && ready(status).0 == "True"
        })
        .await;
    let verification = again.verification.expect("a comparison");
    assert_eq!((verification.different, again.phase), (1, Phase::Verified));
    data(&endpoint).await.assert_same(&living, "comparing writes nothing");

    // The mark is gone: somebody restored Redis, so it starts over.
    command(&redis, &["DEL", &format!("outpost:migration:{}", operator::MIGRATION)]).await;
    site.ask_again(NAME, "after the restore").await;
    let over = site.wait(NAME, SOON, "it starts over", |status| {
        status.last_handled_request.as_deref() == Some("after the restore") && ready(status).0 == "True"
    });
    let over = over.await;
    assert!(phases(&over).contains(&Phase::Pending), "{:?}", over.history);
    assert!(
        site.events(NAME).iter().any(|event| event.1 == "MarkMissing" || event.2.contains("the mark in Redis is gone")),
        "{:?}",
        site.events(NAME)
    );
    data(&endpoint).await.assert_same(&migrated(&before), "everything is at its target again");
    assert_eq!(mark(&endpoint).await.get("status").map(String::as_str), Some("applied"));
    assert_left_clean(&site, &endpoint).await;
}

#[tokio::test]
async fn a_status_that_nobody_works_on_is_taken_up_wherever_it_stopped() {
    let site = Site::new("taken-up").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = filled(&endpoint, 60).await;
    let operator = site.operator().await;
    site.create(NAME, spec(&endpoint, json!({}))).await;
    let verified = site.wait_ready(NAME, SOON, Phase::Verified).await;
    operator.process.kill();
    let progressing = |mut status: outpost_migrate_redis::api::v1alpha1::RedisMigrationStatus, phase| {
        status.phase = phase;
        for condition in &mut status.conditions {
            if condition.type_ == "Ready" {
                condition.status = "False".to_owned();
                condition.reason = "Progressing".to_owned();
            }
        }
        status
    };

    // A replica died after it wrote that the migration is verified, and before it wrote Ready.
    site.set_status(NAME, &progressing(verified.clone(), Phase::Verified)).await;
    let operator = site.operator().await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    operator.process.kill();

    // One died between the plan and the first copy; approval is automatic.
    for key in targets(&before).keys() {
        let _: i64 = redis::cmd("UNLINK").arg(key).query_async(&mut redis.connection().await).await.unwrap();
    }
    command(&redis, &["DEL", &format!("outpost:migration:{}", operator::MIGRATION)]).await;
    for phase in [Phase::Planned, Phase::Planning, Phase::Applied] {
        site.set_status(NAME, &progressing(verified.clone(), phase)).await;
        let operator = site.operator().await;
        site.wait_ready(NAME, SOON, Phase::Verified).await;
        data(&endpoint).await.assert_same(&migrated(&before), "every source is at its target");
        operator.process.kill();
        command(&redis, &["DEL", &format!("outpost:migration:{}", operator::MIGRATION)]).await;
    }
}

#[tokio::test]
async fn another_tools_mark_is_stamped_only_when_nothing_is_missing() {
    let site = Site::new("unproven").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = tenants_only(&endpoint, 60).await;
    let claim = format!("outpost:migration:{}", operator::MIGRATION);
    let claimed = ["HSET", &claim, "status", "applied", "applied_at", "2026-01-01T00:00:00Z"];
    command(&redis, &claimed).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&endpoint, json!({}))).await;

    // Everything is missing: in the automatic mode too it waits for a person.
    let waiting = site.wait_reason(NAME, SOON, "MarkUnproven").await;
    assert_kstatus(&waiting);
    assert!(condition(&waiting, "Reconciling").is_none() && condition(&waiting, "Stalled").is_none());
    wait_unlocked(&endpoint, SOON).await;
    data(&endpoint).await.assert_same(&before, "nothing is copied unasked");
    assert!(!mark(&endpoint).await.contains_key("verified_at"));
    let hash = waiting.plan.expect("a plan").hash;
    assert!(condition_message(&site, "Ready").await.contains(&hash));

    site.patch(NAME, json!({ "approval": { "planHash": hash } })).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    data(&endpoint).await.assert_same(&migrated(&before), "approved, so it is copied");
    assert!(mark(&endpoint).await.contains_key("verified_at"));
    site.delete(NAME).await;

    // Nothing is missing: the mark has proven true.
    command(&redis, &["DEL", &claim]).await;
    command(&redis, &claimed).await;
    site.create(NAME, spec(&endpoint, json!({}))).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    let stamped = mark(&endpoint).await;
    assert_eq!(stamped.get("applied_at").map(String::as_str), Some("2026-01-01T00:00:00Z"), "what stood there stays");
    assert!(stamped.contains_key("verified_at"), "{stamped:?}");
    data(&endpoint).await.assert_same(&migrated(&before), "nothing is written to entries");
    assert_left_clean(&site, &endpoint).await;
}

#[tokio::test]
async fn one_resource_owns_a_migration_of_a_redis() {
    let site = Site::new("duplicate").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = tenants_only(&endpoint, 40).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&endpoint, json!({ "targetPhase": "Planned" }))).await;
    site.wait_ready(NAME, SOON, Phase::Planned).await;
    // By another name of the same host.
    let mut alias = endpoint.clone();
    alias.host = "localhost".to_owned();
    site.create("second", spec(&alias, json!({}))).await;
    let second = site.wait_reason("second", SOON, "Duplicate").await;
    assert_kstatus(&second);
    assert!(condition(&second, "Stalled").expect("Stalled").2.contains(&format!("{}/{NAME}", site.namespace)));
    data(&endpoint).await.assert_same(&before, "the second does nothing");
    site.delete(NAME).await;
    site.wait_ready("second", AFTER_A_RETRY, Phase::Verified).await;
    data(&endpoint).await.assert_same(&migrated(&before), "the second goes on alone");
    assert_left_clean(&site, &endpoint).await;
}

#[tokio::test]
async fn a_migration_that_does_not_apply_ends_at_once() {
    let site = Site::new("not-applicable").await;
    let redis = Standalone::start(Options::default()).await;
    let before = tenants_only(&redis.endpoint(), 20).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({ "deploymentId": "dp_001" }))).await;
    let done = site.wait_reason(NAME, SOON, "NotApplicable").await;
    assert_kstatus(&done);
    assert_eq!(ready(&done).0, "True");
    let key = format!("dp_001:outpost:migration:{}", operator::MIGRATION);
    let status: String = redis::from_redis_value(command(&redis, &["HGET", &key, "status"]).await).unwrap();
    assert_eq!(status, "not_applicable");
    data(&redis.endpoint()).await.assert_same(&before, "nothing is touched");
    let writes = site.count_status_writes(NAME).await;
    window(Duration::from_secs(6)).await;
    assert_eq!(site.status_writes(NAME).len(), writes, "it is done");
}

#[tokio::test]
async fn a_lock_of_another_tool_is_respected_and_shown() {
    let site = Site::new("lock-held").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = tenants_only(&endpoint, 40).await;
    let _operator = site.operator().await;
    for (index, lock) in LOCKS.into_iter().enumerate() {
        let text = format!("migration=001_hash_tags, started={index}");
        command(&redis, &["SET", lock, &text]).await;
        let held = snapshot(&endpoint).await;
        let name = format!("behind-{index}");
        site.create(&name, spec(&endpoint, json!({}))).await;
        let waiting = site.wait_reason(&name, SOON, "LockHeld").await;
        assert_kstatus(&waiting);
        assert_eq!(waiting.lock.as_ref().map(|lock| lock.holder.as_str()), Some(text.as_str()));
        assert!(condition(&waiting, "Reconciling").is_some());
        let writes = site.count_status_writes(&name).await;
        // A measured window: nothing is done, and nothing said twice.
        window(Duration::from_secs(7)).await;
        snapshot(&endpoint).await.assert_same(&held, "nothing is touched behind another's lock");
        assert_eq!(site.status_writes(&name).len(), writes);
        command(&redis, &["DEL", lock]).await;
        site.wait_ready(&name, SOON, Phase::Verified).await;
        site.delete(&name).await;
        wait_unlocked(&endpoint, SOON).await;
    }
    data(&endpoint).await.assert_same(&migrated(&before), "it went on when the lock was free");
    assert_left_clean(&site, &endpoint).await;
}

#[tokio::test]
async fn conflicts_stall_until_a_policy_is_chosen() {
    let site = Site::new("conflicts").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = tenants_only(&endpoint, 40).await;
    let (target, _) = targets(&before).iter().next().map(|(key, entry)| (key.clone(), entry.clone())).unwrap();
    load(&endpoint, [Entry::new(&target, Value::hash([("id", "somebody-else")]))]).await;
    let before = data(&endpoint).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&endpoint, json!({}))).await;
    let stalled = site.wait_reason(NAME, SOON, "Conflicts").await;
    assert_kstatus(&stalled);
    assert!(condition(&stalled, "Stalled").is_some());
    let plan = stalled.plan.as_ref().expect("a plan");
    assert_eq!((plan.totals.conflicts, plan.conflict_sample.len()), (1, 1));
    wait_unlocked(&endpoint, SOON).await;
    data(&endpoint).await.assert_same(&before, "nothing is overwritten");

    site.ask_again(NAME, "look again").await;
    let again = site
        .wait(NAME, SOON, "the request is echoed", |status| {
            status.last_handled_request.as_deref() == Some("look again") && ready(status).1 == "Conflicts"
        })
        .await;
    assert_eq!(again.phase, stalled.phase);
    data(&endpoint).await.assert_same(&before, "nothing is overwritten");

    site.patch(NAME, json!({ "conflictPolicy": "PreferTarget" })).await;
    let done = site.wait_ready(NAME, SOON, Phase::Verified).await;
    let verification = done.verification.expect("a comparison");
    assert_eq!(verification.different, 1);
    let after = data(&endpoint).await;
    assert_eq!(after.get(&target), before.get(&target), "the target is kept");
    assert_eq!(after.len(), migrated(&before).len());
    assert_left_clean(&site, &endpoint).await;
}

#[tokio::test]
async fn preflight_stops_before_an_eviction_could_push_originals_out() {
    let site = Site::new("preflight").await;
    let options = Options {
        maxmemory: Some("64mb".to_owned()),
        maxmemory_policy: Some("allkeys-lru".to_owned()),
        ..Options::default()
    };
    let redis = Standalone::start(options).await;
    let before = tenants_only(&redis.endpoint(), 40).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({}))).await;
    let stalled = site.wait_reason(NAME, SOON, "PreflightFailed").await;
    assert_kstatus(&stalled);
    let finding = stalled.plan.and_then(|plan| plan.findings.into_iter().find(|it| it.severity == "Error"));
    assert!(finding.is_some_and(|finding| finding.message.contains("noeviction")));
    wait_unlocked(&redis.endpoint(), SOON).await;
    data(&redis.endpoint()).await.assert_same(&before, "nothing is copied");
    command(&redis, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    site.ask_again(NAME, "mended").await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "it went on");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn a_plan_of_a_newer_operator_is_left_alone() {
    let site = Site::new("newer-plan").await;
    let redis = Standalone::start(Options::default()).await;
    let before = tenants_only(&redis.endpoint(), 20).await;
    // No operator yet: status is there before it looks.
    site.create(NAME, spec(&redis.endpoint(), json!({}))).await;
    let mut status = site.status(NAME).await;
    status.plan = Some(serde_json::from_value(json!({ "hash": "x", "planVersion": 99 })).unwrap());
    status.phase = Phase::Planned;
    site.set_status(NAME, &status).await;
    let _operator = site.operator().await;
    site.ask_again(NAME, "please").await;
    // A measured window.
    window(Duration::from_secs(8)).await;
    assert_eq!(site.status_writes(NAME).len(), 0, "status is left alone");
    snapshot(&redis.endpoint()).await.assert_same(&before, "and so is Redis");
}

#[tokio::test]
async fn no_secret_and_no_value_appears_anywhere() {
    const PASSWORD: &str = "canary-password-8c1f";
    const VALUE: &str = "canary-value-77ab";
    let site = Site::new("canary").await;
    let redis = Standalone::start(Options::password(PASSWORD)).await;
    let endpoint = redis.endpoint();
    let mut entries: Vec<Entry> = Generator::new(3, 40).entries().collect();
    for number in 0..20 {
        let id = format!("canary{number}");
        let fields = [("id", id.as_str()), ("config", VALUE), ("credentials", VALUE)];
        entries.push(Entry::new(format!("tenant:{id}"), Value::hash(fields)));
        // A conflict, and an unmigrated key, each with the canary in its values.
        if number == 0 {
            entries.push(Entry::new(format!("tenant:{{{id}}}:tenant"), Value::hash([("id", VALUE)])));
        }
        entries.push(Entry::new(format!("tenant:{id}:junk"), Value::hash([("x", VALUE)])));
    }
    load(&endpoint, entries).await;
    let operator = site.replica(operator::ACCOUNT, &["--verbose"]).await;
    site.secret("redis", "Opaque", &[("password", PASSWORD)]);
    let refs = json!({ "redis": { "passwordSecretRef": { "name": "redis", "key": "password" } } });
    site.create(NAME, spec(&endpoint, refs)).await;
    site.wait_reason(NAME, SOON, "Conflicts").await;
    site.patch(
        NAME,
        json!({ "conflictPolicy": "PreferTarget", "targetPhase": "CleanedUp", "cleanup": { "after": "0s" } }),
    )
    .await;
    site.wait_ready(NAME, SOON, Phase::CleanedUp).await;
    redis.kill();
    site.ask_again(NAME, "with Redis away").await;
    site.wait_reason(NAME, SOON, "RedisUnavailable").await;

    let pid = operator.process.pid();
    let read = |file: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned();
    let resource = site.kubectl(&["get", "rmig", NAME, "-o", "json"]);
    let places: [(&str, String); 7] = [
        ("status", resource),
        ("description", site.kubectl(&["describe", "rmig", NAME])),
        ("log", operator.process.log()),
        ("events", site.kubectl(&["get", "events.events.k8s.io", "-o", "json"])),
        ("metrics", operator.metrics().await),
        ("argv", read("cmdline")),
        ("environment", read("environ")),
    ];
    for (place, text) in places {
        assert!(!text.is_empty(), "{place}");
        for canary in [PASSWORD, VALUE] {
            assert!(!text.contains(canary), "{canary} in {place}");
        }
    }
}

#[tokio::test]
async fn samples_can_be_kept_out_of_status() {
    let site = Site::new("no-samples").await;
    let redis = Standalone::start(Options::default()).await;
    let before = filled(&redis.endpoint(), 40).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({ "samples": "Off" }))).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    let status: Json = serde_json::from_str(&site.kubectl(&["get", "rmig", NAME, "-o", "json"])).unwrap();
    let text = status["status"].to_string();
    for key in before.keys().filter(|key| key.starts_with(b"tenant:")) {
        assert!(!text.contains(&*String::from_utf8_lossy(key)), "{}", String::from_utf8_lossy(key));
    }
}

/// A migration of the tests' own: moves `<from>:*` to `<to>:*`.
#[derive(Debug)]
struct Rename {
    name: &'static str,
    version: u32,
    from: &'static str,
    to: &'static str,
}

impl outpost_migrate_redis::migrations::Migration for Rename {
    fn name(&self) -> &'static str {
        self.name
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn description(&self) -> &'static str {
        "renames keys"
    }
    fn is_applicable(
        &self,
        _: &outpost_migrate_redis::migrations::Scope,
    ) -> outpost_migrate_redis::migrations::Applicability {
        outpost_migrate_redis::migrations::Applicability::Applicable
    }
    fn prefixes(&self, _: &outpost_migrate_redis::migrations::Scope) -> Vec<Vec<u8>> {
        vec![self.from.as_bytes().to_vec()]
    }
    fn rule(&self) -> outpost_migrate_redis::migrations::Rule<'_> {
        outpost_migrate_redis::migrations::Rule::Rename(self)
    }
}

impl outpost_migrate_redis::migrations::Rename for Rename {
    fn map(
        &self,
        _: &outpost_migrate_redis::migrations::Scope,
        key: &outpost_migrate_redis::model::key::RedisKey,
        _: &outpost_migrate_redis::model::mapping::Answers,
    ) -> outpost_migrate_redis::model::mapping::Mapping {
        use outpost_migrate_redis::model::mapping::Mapping;
        match key.as_bytes().strip_prefix(self.from.as_bytes()) {
            Some(rest) => Mapping::Target {
                key: outpost_migrate_redis::model::key::RedisKey::new([self.to.as_bytes(), rest].concat()),
                entity: "thing",
            },
            None => Mapping::NotOurs,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_waits_for_the_one_before_it() {
    use outpost_migrate_redis::api::allowed_hosts::AllowedHosts;
    use outpost_migrate_redis::migrations::Registry;
    use outpost_migrate_redis::operator::{run, settings::Settings};
    let site = Site::new("predecessor").await;
    let redis = Standalone::start(Options::default()).await;
    load(&redis.endpoint(), (0..20).map(|n| Entry::new(format!("one:{n}"), Value::string("x")))).await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let settings = Settings {
        namespaces: vec![site.namespace.clone()],
        allowed_hosts: AllowedHosts::default(),
        holder: "in-process".to_owned(),
        lease: Duration::from_secs(6),
        address: ([127, 0, 0, 1], support::ports::free_port()).into(),
        registry: Registry::new(vec![
            std::sync::Arc::new(Rename { name: "002_second", version: 2, from: "two:", to: "three:" }),
            std::sync::Arc::new(Rename { name: "001_first", version: 1, from: "one:", to: "two:" }),
        ]),
    };
    let kubeconfig = kube::config::Kubeconfig::read_from(site.kubeconfig(operator::ACCOUNT)).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let running = tokio::spawn(run(client, settings, shutdown.clone()));

    site.create("second", spec(&redis.endpoint(), json!({ "migration": "002_second" }))).await;
    let waiting = site.wait_reason("second", SOON, "PredecessorPending").await;
    assert_kstatus(&waiting);
    assert!(condition(&waiting, "Reconciling").expect("Reconciling").2.contains("001_first"));
    wait_unlocked(&redis.endpoint(), SOON).await;
    site.create("first", spec(&redis.endpoint(), json!({ "migration": "001_first" }))).await;
    site.wait_ready("first", SOON, Phase::Verified).await;
    site.wait_ready("second", SOON, Phase::Verified).await;
    let after = data(&redis.endpoint()).await;
    let count = |prefix: &str| after.keys().filter(|key| key.starts_with(prefix.as_bytes())).count();
    assert_eq!((count("one:"), count("two:"), count("three:")), (20, 20, 20));
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("it ends").unwrap().unwrap();
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn a_changed_limit_counts_at_once() {
    const SLOW: usize = 20;
    const FAST: usize = 200;
    let site = Site::new("faster").await;
    let redis = Standalone::start(Options::default()).await;
    let before = tenants_only(&redis.endpoint(), 900).await;
    let _operator = site.operator().await;
    // Copying alone would take minutes; the plan is made at full speed.
    site.create(NAME, spec(&redis.endpoint(), json!({ "targetPhase": "Planned" }))).await;
    site.wait_ready(NAME, SOON, Phase::Planned).await;
    let limits = |limit: Option<usize>| json!({ "targetPhase": "Verified", "limits": { "keysPerSecond": limit } });
    site.patch(NAME, limits(Some(1000))).await;
    wait_mid_apply(&redis.endpoint(), &before).await;
    site.patch(NAME, limits(Some(SLOW))).await;
    let planned = site.status(NAME).await;
    let rate = async || {
        // What a change may take, then a measured window.
        window(Duration::from_secs(2)).await;
        let (there, began) = (targets_present(&redis.endpoint(), &before).await, std::time::Instant::now());
        window(Duration::from_secs(4)).await;
        let more = targets_present(&redis.endpoint(), &before).await - there;
        more * 1000 / usize::try_from(began.elapsed().as_millis()).unwrap()
    };
    let slow = rate().await;
    site.patch(NAME, limits(Some(FAST))).await;
    let fast = rate().await;
    println!("{slow} targets/s at {SLOW}, {fast} at {FAST}");
    assert!(slow <= SLOW * 3 / 2, "{slow} targets/s at a limit of {SLOW}");
    assert!(fast.abs_diff(FAST) <= FAST / 5, "{fast} targets/s at a limit of {FAST}");
    assert!(targets_present(&redis.endpoint(), &before).await < targets(&before).len());

    site.patch(NAME, limits(None)).await;
    let done = site.wait_ready(NAME, Duration::from_secs(15), Phase::Verified).await;
    let computed_at = |status: &RedisMigrationStatus| status.plan.as_ref().and_then(|plan| plan.computed_at.clone());
    assert_eq!(computed_at(&done), computed_at(&planned), "nothing was begun again");
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "every source is at its target");
    assert_left_clean(&site, &redis.endpoint()).await;
}
