//! The operator on migrations that change entries in place: each waits for the one before it, and the first
//! one's originals go after the others have changed its targets.

use std::time::Duration;

use crate::operator::{SOON, Site, data, sources, spec, targets};
use crate::support::generator::{Generator, noise};
use crate::support::load::load;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::Options;
use crate::support::snapshot::snapshot;
use outpost_migrate_redis::model::phase::Phase;
use serde_json::json;

const TIME: Duration = Duration::from_secs(120);

#[tokio::test]
async fn in_place_migrations_follow_each_other_and_the_first_is_cleaned_up_last() {
    let site = Site::new("in-place").await;
    let cluster = Cluster::start(3, 3, Options::default()).await;
    let redis = cluster.endpoint();
    let generator = Generator::new(11, 400);
    let around = noise(generator.now_ms);
    load(&redis, generator.entries().chain(around)).await;
    let before = snapshot(&redis).await;
    let _operator = site.operator().await;

    // Asked for in the wrong order: each waits for the one before it.
    for (name, migration) in [("entity", "003_entity"), ("timestamps", "002_timestamps")] {
        site.create(name, spec(&redis, json!({ "migration": migration }))).await;
        site.wait_reason(name, SOON, "PredecessorPending").await;
    }
    site.create("hash-tags", spec(&redis, json!({}))).await;
    site.wait_ready("hash-tags", TIME, Phase::Verified).await;
    for name in ["timestamps", "entity"] {
        site.ask_again(name, "now").await;
        let status = site.wait_ready(name, TIME, Phase::Verified).await;
        let plan = status.plan.expect("a plan");
        assert!(plan.totals.to_copy > 0, "{name} had something to do");
        assert_eq!(status.verification.expect("a comparison").different, 0);
    }
    let after = data(&redis).await;
    for (key, held) in targets(&before).iter().filter(|(key, _)| !key.ends_with(b":destinations")) {
        let now = &after[key];
        assert_eq!(now.expiry_ms, held.expiry_ms, "expiries stay");
        let entity = if key.ends_with(b":tenant") { &b"tenant"[..] } else { b"destination" };
        assert_eq!(now.value.field("entity"), Some(entity));
        for field in ["created_at", "updated_at"].into_iter().filter_map(|field| now.value.field(field)) {
            assert!(field.iter().all(u8::is_ascii_digit), "a time as a number");
        }
    }

    site.patch("hash-tags", json!({ "targetPhase": "CleanedUp", "cleanup": { "after": "0s" } })).await;
    let status = site.wait_ready("hash-tags", TIME, Phase::CleanedUp).await;
    let cleanup = status.cleanup.expect("a cleanup");
    assert_eq!((cleanup.removed, cleanup.kept.len()), (i64::try_from(sources(&before).len()).unwrap(), 0));
    let left = data(&redis).await;
    assert!(sources(&before).keys().all(|source| !left.contains_key(source)), "every original is gone");
    left.assert_same(&after.filter(|key, _| !sources(&before).contains_key(key)), "nothing else changed");
}
