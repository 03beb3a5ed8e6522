//! From plan to cleanup, as far as a resource asks for it and lets it.

use std::time::Duration;

use crate::operator::{
    self, NAME, SOON, Site, assert_kstatus, assert_left_clean, cleaned_up, condition, data, locks, mark, migrated,
    phases, ready, sources, spec, targets, targets_present, wait_mid_apply, wait_unlocked,
};
use crate::support::generator::unmigrated;
use crate::support::load::load;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Keyspace, Value};
use crate::support::wait::eventually_true;
use crate::{condition_message, filled, tenants_only, window};
use outpost_migrate_redis::model::phase::Phase;
use serde_json::json;

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
