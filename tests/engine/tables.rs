//! Hashes that Redis stores as tables: equal ones have different payloads, so they are compared field by field.

use crate::support::engine::{Bench, Expected, run_on_owner};
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Entry, Value};
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::migrations::KeyLayout;
use redis::{Cmd, cmd};
use rstest::rstest;

/// A value that keeps its hash from being stored in one piece.
fn long(letter: &str) -> String {
    letter.repeat(100)
}

fn tenant(id: &str) -> Entry {
    let created_at = "2025-01-19T22:17:29Z".to_owned();
    let fields = [("id", id.to_owned()), ("created_at", created_at), ("metadata", long("m"))];
    Entry::new(format!("tenant:{id}"), Value::hash(fields.iter().map(|(name, held)| (*name, held.as_str()))))
}

fn change(name: &str, key: &str, arguments: &[&str]) -> Cmd {
    cmd(name).arg(key).arg(arguments).take()
}

/// What the application may do to a table so that as many fields remain, or one more or one less.
fn changes(target: &str) -> [(&'static str, Vec<Cmd>); 5] {
    [
        ("untouched", vec![]),
        ("value", vec![change("HSET", target, &["metadata", &long("n")])]),
        ("name", vec![change("HDEL", target, &["metadata"]), change("HSET", target, &["metadatb", &long("m")])]),
        ("more", vec![change("HSET", target, &["updated_at", "2025-01-19T22:17:29Z"])]),
        ("less", vec![change("HDEL", target, &["created_at"])]),
    ]
}

async fn every_field_counts(redis: &Endpoint) {
    let names = changes("").map(|(name, _)| name);
    let expected = Expected::load_entries(redis, names.map(tenant).to_vec(), KeyLayout::Outpost).await;
    let bench = Bench::new(redis);
    bench.migrate(&Control::unattended()).await.expect("a mark");
    expected.assert_migrated(&bench).await;
    for name in names {
        let target = format!("tenant:{{{name}}}:tenant");
        let stored = run_on_owner(redis, target.as_bytes(), cmd("OBJECT").arg("ENCODING").arg(&target)).await;
        assert_eq!(stored, redis::Value::BulkString(b"hashtable".to_vec()));
        let (_, commands) = changes(&target).into_iter().find(|(it, _)| *it == name).expect("changes");
        for command in commands {
            run_on_owner(redis, target.as_bytes(), &command).await;
        }
    }
    let report = bench.compare().await.expect("a comparison");
    assert_eq!((report.equal, report.different, report.unapplied), (1, 4, 0));
    let report = bench.cleanup(&Control::unattended()).await.expect("a cleanup");
    assert_eq!((report.removed, report.kept_diverged), (1, 4));
    let (left, _) = bench.snapshot().await;
    for name in names {
        let is_kept = left.contains_key(format!("tenant:{name}").as_bytes());
        assert_eq!(is_kept, name != "untouched", "the original of {name}");
    }
}

#[rstest]
#[case::one_server(1)]
#[case::a_cluster(3)]
#[tokio::test]
async fn tables_are_compared_by_every_field(#[case] primaries: usize) {
    if primaries == 1 {
        every_field_counts(&Standalone::start(Options::default()).await.endpoint()).await;
    } else {
        every_field_counts(&Cluster::start(primaries, 0, Options::default()).await.endpoint()).await;
    }
}
