//! The keyspaces that Outpost itself wrote.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rstest::rstest;
use serde::Deserialize;

use super::keyspace::{Keyspace, Stored};
use crate::migrations::KeyLayout;
use crate::model::mapping::Mapping;
use crate::model::mapping::UnmigratedReason::OtherLayout;

#[derive(Deserialize)]
struct Line {
    key: String,
    ttl_seconds: Option<u64>,
    fields_base64: Vec<(String, String)>,
}

fn keyspace(file: &str) -> Keyspace {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let entries: BTreeMap<_, _> = text.lines().map(|line| entry(serde_json::from_str(line).unwrap())).collect();
    assert!(entries.len() > 50);
    Keyspace(entries)
}

fn entry(line: Line) -> (crate::model::key::RedisKey, Stored) {
    let decode = |(name, value): (String, String)| (name.into_bytes(), STANDARD.decode(value).unwrap());
    let fields = line.fields_base64.into_iter().map(decode).collect();
    (line.key.into(), Stored::Hash { fields, expires: line.ttl_seconds.is_some() })
}

#[rstest]
#[case(KeyLayout::Outpost, "tenant:{")]
#[case(KeyLayout::TenantTag, "{tenant:")]
fn every_legacy_key_has_a_target(#[case] layout: KeyLayout, #[case] prefix: &str) {
    let keyspace = keyspace("outpost-v0.5-keyspace.jsonl");
    for key in keyspace.0.keys() {
        let mapping = keyspace.map(layout, key);
        let has_target =
            matches!(&mapping, Mapping::Target { key, .. } if key.as_bytes().starts_with(prefix.as_bytes()));
        assert!(has_target, "{key}: {mapping:?}");
    }
}

#[test]
fn every_current_key_is_current() {
    let keyspace = keyspace("outpost-v0.11-keyspace.jsonl");
    for key in keyspace.0.keys() {
        let mapping = keyspace.map(KeyLayout::Outpost, key);
        assert!(matches!(mapping, Mapping::AlreadyCurrent { .. }), "{key}: {mapping:?}");
        assert_eq!(keyspace.map(KeyLayout::TenantTag, key), Mapping::Unmigrated(OtherLayout), "{key}");
    }
}

#[test]
fn keys_of_a_deployment_are_not_ours() {
    let keyspace = keyspace("outpost-v0.11-deployment-keyspace.jsonl");
    for key in keyspace.0.keys() {
        assert_eq!(keyspace.map(KeyLayout::Outpost, key), Mapping::NotOurs, "{key}");
    }
}
