//! Beside newer things: definitions that take more values, statuses of newer operators, namespaces that are not there.
//! One resource that a replica can't follow stops no other, and is told of only where nobody works on it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use outpost_migrate_redis::api::v1alpha1::RedisMigration;
use outpost_migrate_redis::model::phase::Phase;
use serde_json::{Value as Json, json};

use crate::operator::{
    ACCOUNT, BINARY, LOCKS, NAME, SOON, Site, assert_kstatus, condition, data, migrated, ready, spec, targets_present,
    wait_mid_apply, wait_unlocked,
};
use crate::support::control_plane::ControlPlaneOptions;
use crate::support::process::run;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::present;
use crate::support::wait::eventually_true;
use crate::{filled, tenants_only, window};

/// A value that no enum of this version has.
const FUTURE: &str = "FromTheFuture";

/// Written into a resource, and nowhere to be found in a log.
const IN_THE_BODY: &str = "only-in-the-body";

/// The resource's definition, each enum of which takes one value more; answers the enums' paths.
fn newer_definition(site: &Site) -> Vec<String> {
    let mut definition: Json = serde_norway::from_str(&run(Command::new(BINARY).arg("crd"))).expect("YAML");
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut paths = Vec::new();
    widen(schema, "", &mut paths);

    let path = site.control_plane.folder().join(format!("{}-newer.json", site.namespace));
    fs::write(&path, definition.to_string()).expect("a definition");
    site.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &path.display().to_string()]);
    paths
}

fn widen(schema: &mut Json, path: &str, paths: &mut Vec<String>) {
    if let Some(values) = schema.get_mut("enum").and_then(Json::as_array_mut) {
        values.push(json!(FUTURE));
        paths.push(path.trim_start_matches('.').to_owned());
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        for (name, property) in properties {
            widen(property, &format!("{path}.{name}"), paths);
        }
    }
    if let Some(items) = schema.get_mut("items") {
        widen(items, &format!("{path}[]"), paths);
    }
}

/// A document with one value, at a path.
fn at(path: &str) -> Json {
    path.rsplit('.').fold(json!(FUTURE), |inner, name| json!({ name: inner }))
}

fn raw(site: &Site) -> Api<DynamicObject> {
    let kind = ApiResource::erase::<RedisMigration>(&());
    Api::namespaced_with(site.client.clone(), &site.namespace, &kind)
}

/// `Ready`'s reason and message, whatever else the resource holds.
async fn raw_ready(site: &Site, name: &str) -> Option<(String, String)> {
    let object = raw(site).get(name).await.expect("the resource");
    let conditions = object.data["status"]["conditions"].as_array()?.clone();
    let ready = conditions.into_iter().find(|it| it["type"] == "Ready")?;
    Some((ready["reason"].as_str()?.to_owned(), ready["message"].as_str()?.to_owned()))
}

async fn wait_raw_reason(site: &Site, name: &str, reason: &str) -> String {
    let mut message = String::new();
    eventually_true(SOON, &format!("{name} has the reason {reason}"), async || match raw_ready(site, name).await {
        Some((found, text)) if found == reason => {
            message = text;
            true
        }
        Some(_) | None => false,
    })
    .await;
    message
}

#[tokio::test]
async fn values_from_the_future_stop_their_own_resource_alone() {
    let site = Site::alone("future", ControlPlaneOptions::default()).await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = filled(&endpoint, 60).await;
    let paths = newer_definition(&site);
    assert!(paths.iter().any(|path| path == "spec.conflictPolicy") && paths.len() >= 8, "{paths:?}");
    let of_spec: Vec<&str> = paths.iter().filter_map(|path| path.strip_prefix("spec.")).collect();

    for (number, path) in of_spec.iter().enumerate() {
        let mut unknown = spec(&endpoint, at(path));
        unknown["deploymentId"] = json!(IN_THE_BODY);
        site.apply(&format!("future-{number}"), &unknown).expect("the newer definition takes it");
    }
    let operator = site.operator().await;
    site.create(NAME, spec(&endpoint, json!({}))).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    for (number, path) in of_spec.iter().enumerate() {
        let message = wait_raw_reason(&site, &format!("future-{number}"), "InvalidSpec").await;
        assert!(message.starts_with(&format!("spec.{path}: ")), "{message}");
        assert!(message.contains(FUTURE) && message.contains("upgrade"), "{message}");
    }

    // A restarted replica lists them all, and works all the same.
    operator.process.kill();
    assert!(!operator.process.log().contains(IN_THE_BODY), "{}", operator.process.log());
    let operator = site.operator().await;
    site.patch(NAME, json!({ "targetPhase": "CleanedUp", "cleanup": { "after": "0s" } })).await;
    site.wait_ready(NAME, SOON, Phase::CleanedUp).await;
    assert_eq!(targets_present(&endpoint, &before).await, crate::operator::targets(&before).len());
    assert!(!operator.process.log().contains(IN_THE_BODY), "{}", operator.process.log());

    // A status that a newer operator wrote is left as it is, and told of.
    site.create("newer", spec(&endpoint, json!({ "suspend": true }))).await;
    site.wait_reason("newer", SOON, "Suspended").await;
    let status = json!({ "status": { "phase": FUTURE, "conditions": [], "observedGeneration": null } });
    raw(&site).patch_status("newer", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
    let message = wait_raw_reason(&site, "newer", "PlanVersionUnknown").await;
    assert!(message.starts_with("status.phase was written by a newer operator"), "{message}");
    assert_eq!(raw(&site).get("newer").await.expect("newer").data["status"]["phase"], FUTURE);
}

#[tokio::test]
async fn a_spec_that_becomes_unknown_in_the_middle_stops_the_work_and_says_so() {
    let site = Site::alone("unknown-middle", ControlPlaneOptions::default()).await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = filled(&endpoint, 300).await;
    newer_definition(&site);
    let _operator = site.operator().await;
    site.create(NAME, spec(&endpoint, json!({ "limits": { "keysPerSecond": 250 } }))).await;
    wait_mid_apply(&endpoint, &before).await;

    let unknown = Patch::Merge(json!({ "spec": at("conflictPolicy") }));
    raw(&site).patch(NAME, &PatchParams::default(), &unknown).await.expect("a value of the newer definition");
    wait_raw_reason(&site, NAME, "InvalidSpec").await;
    wait_unlocked(&endpoint, Duration::from_secs(5)).await;
    let held = data(&endpoint).await;
    assert!(held.len() < migrated(&before).len(), "it was over before the change");

    site.patch(NAME, json!({ "conflictPolicy": "Fail", "limits": { "keysPerSecond": null } })).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    data(&endpoint).await.assert_same(&migrated(&before), "it went on where it stopped");
}

#[tokio::test]
async fn a_namespace_that_cannot_be_listed_holds_up_no_other() {
    let site = Site::new("one-of-two").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = filled(&endpoint, 300).await;
    // Neither is it there, nor may it be listed.
    let _operator = site.replica(ACCOUNT, &["--namespace", "nowhere"]).await;
    site.create(NAME, spec(&endpoint, json!({ "limits": { "keysPerSecond": 250 } }))).await;
    wait_mid_apply(&endpoint, &before).await;

    site.delete(NAME).await;
    wait_unlocked(&endpoint, Duration::from_secs(5)).await;
    let held = data(&endpoint).await;
    assert!(held.len() < migrated(&before).len(), "it was over before the deletion");
    window(Duration::from_secs(3)).await;
    data(&endpoint).await.assert_same(&held, "work went on");
}

#[tokio::test]
async fn a_standby_without_a_way_to_redis_does_not_talk_over_the_holder() {
    let site = Site::new("standby").await;
    let redis = Standalone::start(Options::password("right-password")).await;
    let before = tenants_only(&redis.endpoint(), 300).await;
    site.secret("redis-password", "Opaque", &[("password", "right-password")]);
    let _holder = site.replica("replica-one", &[]).await;
    let more = json!({
        "redis": { "passwordSecretRef": { "name": "redis-password", "key": "password" } },
        "limits": { "keysPerSecond": 60 },
    });
    site.create(NAME, spec(&redis.endpoint(), more)).await;
    wait_mid_apply(&redis.endpoint(), &before).await;

    // Rotated before Redis is told: whoever connects now is refused.
    site.secret("redis-password", "Opaque", &[("password", "of-tomorrow")]);
    let standby = site.replica("replica-two", &[]).await;
    eventually_true(SOON, "the standby tried and was refused", async || {
        let series = "outpost_migrate_standby_failures_total{reason=\"AuthenticationFailed\"}";
        standby.metric(series).await.is_some_and(|count| count >= 1.0)
    })
    .await;
    // A measured window, longer than the lock's life.
    for _ in 0..40 {
        let status = site.status(NAME).await;
        assert_kstatus(&status);
        assert_eq!(ready(&status).1, "Progressing", "{:?}", condition(&status, "Ready"));
        assert!(status.lock.is_some_and(|lock| lock.holder.starts_with("replica-one")));
        window(Duration::from_millis(200)).await;
    }
    assert_eq!(present(&redis.endpoint(), LOCKS.map(str::as_bytes)).await, LOCKS.len(), "it was over");

    site.patch(NAME, json!({ "limits": { "keysPerSecond": null } })).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "every source is at its target");
}
