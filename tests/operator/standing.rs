//! What Redis says already outranks what a resource remembers: marks, locks, owners, predecessors.

use std::time::Duration;

use crate::operator::{
    self, AFTER_A_RETRY, LOCKS, NAME, SOON, Site, assert_kstatus, assert_left_clean, condition, data, mark, migrated,
    phases, ready, sources, spec, targets, wait_unlocked,
};
use crate::support::engine::Bench;
use crate::support::generator::now_ms;
use crate::support::load::load;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Value};
use crate::support::wait::eventually;
use crate::{command, condition_message, filled, tenants_only, window};
use outpost_migrate_redis::api::v1alpha1::RedisMigrationStatus;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::model::phase::Phase;
use serde_json::json;

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

/// Cleanup itself does not look at every key, and here no plan did.
#[tokio::test]
async fn a_resource_that_never_planned_counts_what_cleanup_leaves_alone() {
    let site = Site::new("counts-anew").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    filled(&endpoint, 20).await;
    load(&endpoint, [Entry::new("tenant:{odd}:tenant", Value::hash([("id", "another")]))]).await;
    let elsewhere = Bench::new(&endpoint);
    let walk = elsewhere.migrate(&Control::unattended()).await.expect("a mark of the command line's");
    let unmigrated = walk.plan.seen.unmigrated.total();
    let _operator = site.operator().await;

    site.create(NAME, spec(&endpoint, json!({ "targetPhase": "CleanedUp", "cleanup": { "after": "0s" } }))).await;
    let status = site.wait_ready(NAME, SOON, Phase::CleanedUp).await;

    let cleanup = status.cleanup.clone().expect("a cleanup");
    assert_eq!(u64::try_from(cleanup.unmigrated).ok(), Some(unmigrated));
    let said = condition(&status, "CleanedUp").expect("a condition").2;
    assert!(said.contains(&format!("{unmigrated} unmigrated keys left alone")), "{said}");
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
    let progressing = |mut status: RedisMigrationStatus, phase| {
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

/// A proof of another tool's mark keeps the pace, and gives the lock back when it is told to.
#[tokio::test]
async fn the_proof_of_another_tools_mark_is_paced_and_can_be_suspended() {
    let site = Site::new("unproven-suspend").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let before = tenants_only(&endpoint, 200).await;
    Bench::new(&endpoint).migrate(&Control::unattended()).await.expect("a mark");
    let claim = format!("outpost:migration:{}", operator::MIGRATION);
    command(&redis, &["DEL", &claim, &format!("{{{claim}}}:run")]).await;
    command(&redis, &["HSET", &claim, "status", "applied", "applied_at", "2026-01-01T00:00:00Z"]).await;
    let _operator = site.operator().await;
    // Some seconds for the plan, and as many for the proof.
    let limits = json!({ "keysPerSecond": sources(&before).keys().count() / 6 });
    site.create(NAME, spec(&endpoint, json!({ "limits": limits }))).await;
    let is_proving = |status: &RedisMigrationStatus| {
        status.progress.as_ref().is_some_and(|progress| progress.step == "verify" && progress.processed > 0)
    };
    site.wait(NAME, SOON, "the proof", is_proving).await;
    site.patch(NAME, json!({ "suspend": true })).await;
    site.wait_reason(NAME, SOON, "Suspended").await;
    wait_unlocked(&endpoint, Duration::from_secs(3)).await;
    // A measured window, longer than the rest of the proof.
    window(Duration::from_secs(8)).await;
    assert!(!mark(&endpoint).await.contains_key("verified_at"), "it went on while suspended");

    site.patch(NAME, json!({ "suspend": false, "limits": null })).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    assert!(mark(&endpoint).await.contains_key("verified_at"));
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
        let told = async || site.events(&name).into_iter().find(|event| event.1 == "LockHeld");
        assert_eq!(eventually(SOON, "an event", told).await.0, "Normal", "to wait for its turn is ordinary");
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
    use outpost_migrate_redis::operator::run;
    use outpost_migrate_redis::operator::settings::{Namespaces, Settings};
    let site = Site::new("predecessor").await;
    let redis = Standalone::start(Options::default()).await;
    load(&redis.endpoint(), (0..20).map(|n| Entry::new(format!("one:{n}"), Value::string("x")))).await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let settings = Settings {
        namespaces: Namespaces::Named([site.namespace.clone()].into()),
        allowed_hosts: AllowedHosts::default(),
        holder: "in-process".to_owned(),
        lease: Duration::from_secs(6),
        addresses: vec![([127, 0, 0, 1], crate::support::ports::free_port()).into()],
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

/// The earlier tool copies without expiries: putting them back is a person's to ask for.
#[tokio::test]
async fn an_expiry_that_another_tool_dropped_is_put_back_once_that_is_accepted() {
    let site = Site::new("lost-expiry").await;
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    let end = now_ms() + 3_600_000;
    let deleted = || Value::hash([("deleted_at", "2026-11-01T00:00:00Z")]);
    let tombstone = [Entry::new("tenant:gone", deleted()).expiring(end), Entry::new("tenant:{gone}:tenant", deleted())];
    load(&endpoint, tombstone).await;
    let claim = format!("outpost:migration:{}", operator::MIGRATION);
    command(&redis, &["HSET", &claim, "status", "applied", "applied_at", "2026-01-01T00:00:00Z"]).await;
    let _operator = site.operator().await;
    site.create(NAME, spec(&endpoint, json!({}))).await;

    let refused = site.wait_reason(NAME, SOON, "PreflightFailed").await;
    assert_kstatus(&refused);
    assert!(condition_message(&site, "Ready").await.contains("acceptFindings: [LostExpiry]"));
    wait_unlocked(&endpoint, SOON).await;
    assert!(!mark(&endpoint).await.contains_key("verified_at"), "nothing is called proven");

    site.patch(NAME, json!({ "acceptFindings": ["LostExpiry"] })).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    let target = data(&endpoint).await[&b"tenant:{gone}:tenant"[..]].clone();
    assert_eq!(target.expiry_ms, Some(end));
    assert!(mark(&endpoint).await.contains_key("verified_at"));
    assert_left_clean(&site, &endpoint).await;
}
