//! Tests of the harness' pure parts: the generator, the expectations and the slots.

use std::collections::BTreeSet;

use crate::support::expectation::expected_target;
use crate::support::fixture::read_fixture;
use crate::support::generator::{Generator, noise, now_ms, unmigrated};
use crate::support::redis_client::slot;
use crate::support::value::{Bytes, Entry, Keyspace, Value};

const AT: i64 = 1_795_399_581_931;

fn all(seed: u64, tenants: usize) -> Vec<Entry> {
    Generator { seed, tenants, now_ms: AT }.entries().collect()
}

#[test]
fn the_same_seed_makes_the_same_keyspace() {
    assert_eq!(all(7, 500), all(7, 500));
    assert_ne!(all(7, 500), all(8, 500));
    assert!(all(7, 600).starts_with(&all(7, 500)), "a bigger keyspace contains a smaller one");
}

#[test]
fn keys_and_targets_are_distinct() {
    let entries = all(1, 3000);
    let count = entries.len();
    let targets: Vec<Bytes> = entries
        .iter()
        .map(|entry| expected_target(&entry.key, &entry.value).expect("a target for each entry"))
        .collect();
    let keyspace: Keyspace = entries.into_iter().collect();
    assert_eq!(keyspace.len(), count);
    assert!(targets.iter().all(|target| !keyspace.contains_key(target)));
    assert_eq!(targets.iter().collect::<BTreeSet<_>>().len(), count);
}

#[test]
fn the_mixture_is_as_described() {
    let entries = all(1, 3000);
    let is_tombstone = |entry: &&Entry| entry.value.field("deleted_at").is_some();
    let share = 100 * entries.iter().filter(is_tombstone).count() / entries.len();
    assert!((2..=6).contains(&share), "{share}% tombstones");
    assert!(entries.iter().filter(is_tombstone).all(|entry| entry.expiry_ms.is_some_and(|at| at % 2 == 1 && at > AT)));
    let credentials: Vec<usize> =
        entries.iter().filter_map(|entry| entry.value.field("credentials").map(<[u8]>::len)).collect();
    let mean = credentials.iter().sum::<usize>() / credentials.len();
    assert!((55..=65).contains(&mean), "mean credentials of {mean} bytes");
    for part in ["org:acme:", "a*b", "b{race", "sp ace ", "ünïcøde", "q?", "a}b"] {
        let prefix = format!("tenant:{part}");
        assert!(entries.iter().any(|entry| entry.key.starts_with(prefix.as_bytes())), "{part}");
    }
}

#[test]
fn summaries_list_the_live_destinations() {
    let keyspace: Keyspace = all(1, 1000).into_iter().collect();
    let live = |key: &[u8]| keyspace.get(key).is_some_and(|entry| entry.value.field("id").is_some());
    let mut listed = 0;
    for (key, entry) in keyspace.iter() {
        let (Some(tenant), Value::Hash(fields)) = (key.strip_suffix(b":destinations"), &entry.value) else { continue };
        assert!(fields.keys().all(|id| live(&[tenant, b":destination:", id].concat())));
        listed += fields.len();
    }
    assert_eq!(listed, keyspace.values().filter(|entry| entry.value.field("credentials").is_some()).count());
}

#[test]
fn noise_and_unmigrated_have_no_target() {
    let unmigrated = unmigrated().into_iter().map(|unmigrated| unmigrated.entry);
    for entry in noise(AT).into_iter().chain(unmigrated) {
        assert_eq!(expected_target(&entry.key, &entry.value), None, "{entry:?}");
    }
}

fn with_id(id: &str) -> Value {
    Value::hash([("id", id), ("created_at", "2025-05-07T19:19:32Z")])
}

fn tombstone() -> Value {
    Value::hash([("deleted_at", "2026-11-23T02:06:21.931801353Z")])
}

fn expect(key: &str, value: &Value, target: Option<&str>) {
    assert_eq!(expected_target(key.as_bytes(), value).as_deref(), target.map(str::as_bytes), "{key}");
}

#[test]
fn names_and_contents_decide() {
    expect("tenant:a", &with_id("a"), Some("tenant:{a}:tenant"));
    expect("tenant:org:acme", &with_id("org:acme"), Some("tenant:{org:acme}:tenant"));
    expect("tenant:org:acme", &tombstone(), Some("tenant:{org:acme}:tenant"));
    expect("tenant:a}b", &with_id("a}b"), Some("tenant:{a}b}:tenant"));
    expect("tenant:{a", &with_id("{a"), Some("tenant:{{a}:tenant"));
    expect("tenant:a:destination:d", &with_id("d"), Some("tenant:{a}:destination:d"));
    expect("tenant:a:destination:d", &tombstone(), Some("tenant:{a}:destination:d"));
    expect("tenant:a:destination:d", &with_id("a:destination:d"), Some("tenant:{a:destination:d}:tenant"));
    expect("tenant:a:destinations", &Value::hash([("d", "{}")]), Some("tenant:{a}:destinations"));
}

#[test]
fn the_rest_stays() {
    expect("tenant:a", &with_id("b"), None);
    expect("tenant:a", &Value::string("x"), None);
    expect("tenant:a:b:junk", &Value::hash([("x", "1")]), None);
    expect("tenant:{a}:tenant", &with_id("a"), None);
    expect("tenant:{a}:destination:d", &tombstone(), None);
    expect("tenancy:1", &with_id("1"), None);
    expect("destination_summary:t:d", &Value::hash([("x", "1")]), None);
}

#[test]
fn slots_are_as_the_specification_says() {
    assert_eq!(slot(b"123456789"), 0x31C3);
    assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
    assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    assert_ne!(slot(b"foo{}{bar}"), slot(b"bar"));
    assert_eq!(slot(b""), 0);
}

#[test]
fn fixtures_are_read_as_bytes_with_an_expiry() {
    let folder = crate::support::process::temp_dir("fixture-", None);
    let file = folder.path().join("keyspace.jsonl");
    let lines = [
        r#"{"key":"tenant:ünï","fields_base64":[["id","w7xuw68="],["credentials","AP8="]]}"#,
        r#"{"key":"tenant:a:destination:d","ttl_seconds":604800,"fields_base64":[["deleted_at","MjAyNg=="]]}"#,
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let entries = read_fixture(&file);
    assert_eq!(entries[0].key, "tenant:ünï".as_bytes());
    assert_eq!(entries[0].value.field("credentials"), Some(&[0, 255][..]));
    assert_eq!(entries[0].expiry_ms, None);
    let left = entries[1].expiry_ms.unwrap() - now_ms();
    assert!((604_700_000..=604_800_000).contains(&left), "{left} ms left");
    assert!(entries.iter().all(|entry| expected_target(&entry.key, &entry.value).is_some()));
}
