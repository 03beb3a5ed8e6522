//! Huge entries: copied, compared and removed in pieces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::finding::{FindingCode, Severity};
use support::engine::{Bench, Expected};
use support::redis_client::Endpoint;
use support::redis_cluster::Cluster;
use support::redis_server::{Options, Standalone};
use support::value::{Entry, Value};

/// A summary of so many destinations.
fn summary(tenant: &str, fields: u32) -> Vec<Entry> {
    let lines = (0..fields).map(|number| (format!("des_{number}"), format!(r#"{{"id":"des_{number}"}}"#)));
    let far = support::generator::now_ms() + 86_400_000;
    vec![
        Entry::new(format!("tenant:{tenant}"), Value::hash([("id", tenant), ("created_at", "2025-01-19T22:17:29Z")])),
        Entry::new(format!("tenant:{tenant}:destinations"), Value::hash(lines)).expiring(far),
    ]
}

/// From plan to cleanup; the targets are recounted by the harness.
async fn walk(redis: &Endpoint, fields: u32) {
    let bench = Bench::new(redis);
    let expected = Expected::load_entries(redis, summary("huge", fields), KeyLayout::Outpost).await;
    assert_eq!(expected.pairs.len(), 2);
    let walk = bench.migrate(&Control::unattended()).await.expect("a mark");
    let found = walk.plan.seen.findings.iter().find(|it| it.code == FindingCode::HugeEntries).expect("a finding");
    assert_eq!((found.severity, walk.plan.seen.huge), (Severity::Note, 1));
    assert_eq!((walk.apply.copied, walk.verify.equal), (2, 2));
    expected.assert_migrated(&bench).await;
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept()), (2, 0));
    expected.cleaned_up().assert_same(&bench.snapshot().await.0, "cleaned up");
}

#[tokio::test]
async fn a_huge_hash_goes_all_the_way_on_one_server() {
    let redis = Standalone::start(Options::default()).await;
    walk(&redis.endpoint(), 200_000).await;
}

#[tokio::test]
async fn a_huge_hash_goes_all_the_way_on_a_cluster() {
    let cluster = Cluster::start(3, 1, Options::default()).await;
    walk(&cluster.endpoint(), 200_000).await;
}
