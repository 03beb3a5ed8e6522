//! What stops a resource, and the words in which it says so.

use std::time::Duration;

use crate::operator::{
    self, NAME, SOON, Site, assert_kstatus, assert_left_clean, condition, data, migrated, ready, spec, targets,
    wait_unlocked,
};
use crate::support::load::load;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Value};
use crate::support::wait::eventually;
use crate::{command, tenants_only, window};
use outpost_migrate_redis::model::phase::Phase;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

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
        (json!({ "acceptFindings": ["Braced Tenant"] }), "spec.acceptFindings"),
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

    site.create("lenient", spec(&endpoint, json!({ "acceptFindings": ["Memory"] }))).await;
    let lenient = site.wait_reason("lenient", SOON, "InvalidSpec").await;
    assert!(condition(&lenient, "Stalled").expect("Stalled").2.contains("BracedTenant"), "the acceptable are listed");

    site.create("elsewhere", spec(&endpoint, json!({ "redis": { "host": "169.254.169.254" } }))).await;
    let elsewhere = site.wait_reason("elsewhere", SOON, "InvalidSpec").await;
    assert!(condition(&elsewhere, "Stalled").expect("Stalled").2.contains("allowed are: 127.0.0.1"));
    assert_left_clean(&site, &endpoint).await;
}

/// A server that takes every connection and hangs up after a while, without a word; told of each.
async fn hangs_up(listener: TcpListener, taken: mpsc::UnboundedSender<()>) {
    loop {
        let (connection, _) = listener.accept().await.expect("a connection");
        let _ = taken.send(());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(connection);
        });
    }
}

#[tokio::test]
async fn an_edit_that_is_refused_is_told_of_although_no_lock_can_be_had() {
    let site = Site::new("refused-away").await;
    let redis = Standalone::start(Options::default()).await;
    let operator = site.operator().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, mut taken) = mpsc::unbounded_channel();
    let _silent = AbortOnDropHandle::new(tokio::spawn(hangs_up(listener, sender)));

    site.create(NAME, spec(&redis.endpoint(), json!({ "redis": { "port": port } }))).await;
    taken.recv().await.expect("a worker asks for the lock");
    site.patch(NAME, json!({ "acceptFindings": ["Memory"] })).await;
    let refused = site.wait_reason(NAME, SOON, "InvalidSpec").await;
    assert_kstatus(&refused);
    assert_eq!(refused.lock, None);

    let looks = async || operator.metric("outpost_migrate_reconcile_duration_seconds_count").await.expect("a count");
    let before = looks().await;
    // A measured window: nobody looks again at what only an edit can change.
    window(Duration::from_secs(5)).await;
    assert!(looks().await - before <= 1.0, "it is looked at again and again");
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
async fn a_finding_stalls_until_it_is_accepted_by_name() {
    let site = Site::new("accepted").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let tenant = |id: &str| Entry::new(format!("tenant:{id}"), Value::hash([("id", id)]));
    let foreign = Entry::new("tenant:{a}:destination:d", Value::hash([("id", "d")]));
    load(&endpoint, [tenant("a"), tenant("{a}"), foreign]).await;
    let before = data(&endpoint).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&endpoint, json!({}))).await;
    let stalled = site.wait_reason(NAME, SOON, "PreflightFailed").await;
    assert_kstatus(&stalled);
    let message = condition(&stalled, "Ready").expect("Ready").2;
    assert!(message.contains("spec.acceptFindings: [BracedTenant]"), "{message}");
    data(&endpoint).await.assert_same(&before, "nothing is copied");

    site.patch(NAME, json!({ "acceptFindings": ["BracedTenant"] })).await;
    let done = site.wait_ready(NAME, SOON, Phase::Verified).await;
    let findings = done.plan.expect("a plan").findings;
    assert!(findings.iter().any(|finding| finding.code == "BracedTenant" && finding.accepted), "{findings:?}");
    eventually(SOON, "an event", async || {
        site.events(NAME).into_iter().find(|it| it.1 == "Applied" && it.2.contains("accepted by name: BracedTenant"))
    })
    .await;
    assert_left_clean(&site, &endpoint).await;
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
    let told = site.wait_reason(NAME, SOON, "PlanVersionUnknown").await;
    assert_kstatus(&told);
    assert_eq!((told.phase, told.plan), (status.phase, status.plan), "the rest of status is left alone");
    let writes = site.count_status_writes(NAME).await;
    // A measured window.
    window(Duration::from_secs(8)).await;
    assert_eq!(site.status_writes(NAME).len(), writes, "it is told once");
    snapshot(&redis.endpoint()).await.assert_same(&before, "and Redis is left alone");
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
