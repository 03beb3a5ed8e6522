//! A quick look at a few entries: as many as asked for, spread over the primaries, without a write.

use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::{Stop, sample};
use outpost_migrate_redis::model::report::VerifyReport;
use rstest::rstest;
use tokio_util::sync::CancellationToken;

use crate::support::engine::{Bench, Expected, run_on_owner};
use crate::support::events::Events;
use crate::support::redis_client::{Endpoint, slot};
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};

/// How many entries more than asked for may be compared on one primary.
const MORE: u64 = 16;

async fn some(bench: &Bench, count: u64) -> VerifyReport {
    let keyspace = bench.keyspace().await;
    sample::compare_some(&keyspace, &bench.assignment, &Control::unattended(), count).await.expect("a look")
}

/// Sources and their targets lie side by side under one prefix: not every key is an entry to compare.
async fn migrated(redis: &Endpoint) -> (Bench, Expected) {
    let expected = Expected::load(redis, 60).await;
    let bench = Bench::new(redis);
    bench.migrate(&Control::unattended()).await.expect("a mark");
    (bench, expected)
}

#[rstest]
#[case::one(1)]
#[case::ten(10)]
#[case::a_hundred(100)]
#[tokio::test]
async fn as_many_as_asked_for_are_compared(#[case] count: u64) {
    let redis = Standalone::start(Options::default()).await;
    let (bench, expected) = migrated(&redis.endpoint()).await;
    assert!(expected.sources() > 150, "{}", expected.sources());
    let events = Events::listen(&bench.redis).await;
    let report = some(&bench, count).await;
    events.assert_only(|_| false).await;
    assert!((count..count + MORE).contains(&report.processed()), "{} of {count}", report.processed());
    assert_eq!((report.equal, report.different), (report.processed(), 0));
}

#[rstest]
#[tokio::test]
async fn all_are_compared_where_there_are_fewer(#[values("001_hash_tags", "002_timestamps", "003_entity")] name: &str) {
    let redis = Standalone::start(Options::default()).await;
    let (bench, _) = migrated(&redis.endpoint()).await;
    let bench = bench.migration(name);
    let all = bench.compare().await.expect("a comparison");
    assert!(all.processed() > 50);
    assert_eq!(some(&bench, 1_000_000).await, all, "the sample is the whole");
}

#[tokio::test]
async fn every_primary_is_looked_at() {
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let (bench, expected) = migrated(&cluster.endpoint()).await;
    let report = some(&bench, 30).await;
    assert!((30..30 + 3 * MORE).contains(&report.processed()), "{} of 30", report.processed());
    assert_eq!(report.different, 0);

    // Whatever is wrong on one primary alone shows, as each gets its share.
    let mut before = 0;
    for primary in cluster.primaries().await {
        let mut gone = 0;
        for (source, target) in &expected.pairs {
            if cluster.owner(slot(source)).await == primary {
                run_on_owner(&bench.redis, target, redis::cmd("DEL").arg(target)).await;
                gone += 1;
            }
        }
        assert!(gone > 20, "{gone} sources on primary {primary}");
        let report = some(&bench, 30).await;
        assert!(report.different > before, "what is missing on primary {primary} was not seen");
        assert_eq!(report.unapplied, report.different);
        before = report.different;
    }
}

#[tokio::test]
async fn an_empty_keyspace_has_nothing_to_show() {
    let redis = Standalone::start(Options::default()).await;
    let bench = Bench::new(&redis.endpoint());
    assert_eq!(some(&bench, 10).await, VerifyReport::default());
}

#[tokio::test]
async fn a_look_can_be_stopped() {
    let redis = Standalone::start(Options::default()).await;
    let (bench, _) = migrated(&redis.endpoint()).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let keyspace = bench.keyspace().await;
    let control = Control::of(stop);
    let looked = sample::compare_some(&keyspace, &bench.assignment, &control, 10).await;
    assert_eq!(looked, Err(Stop::Interrupted));
}
