//! What a resource's status tells, how often it is written, and what may not be in it.

use std::fs;
use std::time::Duration;

use crate::operator::{
    self, NAME, SOON, Site, assert_left_clean, data, migrated, ready, spec, targets, targets_present, wait_mid_apply,
};
use crate::support::generator::Generator;
use crate::support::load::load;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Value};
use crate::{filled, tenants_only, window};
use outpost_migrate_redis::api::v1alpha1::RedisMigrationStatus;
use outpost_migrate_redis::model::phase::Phase;
use serde_json::{Value as Json, json};

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
async fn what_holds_is_waited_for_with_kubectl_after_an_edit_too() {
    let site = Site::new("edited").await;
    let redis = Standalone::start(Options::default()).await;
    tenants_only(&redis.endpoint(), 30).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&redis.endpoint(), json!({ "cleanup": { "after": "0s" } }))).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;

    // kubectl believes no condition of an older generation.
    let wait = |milestone: &str| {
        site.kubectl(&["wait", &format!("--for=condition={milestone}"), "--timeout=30s", &format!("rmig/{NAME}")]);
    };
    site.patch(NAME, json!({ "limits": { "keysPerSecond": 5000 } })).await;
    ["Ready", "Applied", "Verified"].into_iter().for_each(wait);
    site.patch(NAME, json!({ "targetPhase": "CleanedUp" })).await;
    ["CleanedUp", "Applied", "Verified", "Ready"].into_iter().for_each(wait);
    site.patch(NAME, json!({ "samples": "Off" })).await;
    ["Ready", "Applied", "Verified", "CleanedUp"].into_iter().for_each(wait);
    assert_left_clean(&site, &redis.endpoint()).await;
}
