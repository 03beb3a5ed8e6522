//! What the tests expect `002_timestamps` and `003_entity` to make of entries in current form, with or without
//! a deployment id, and keyspaces with a canary in every value.
//!
//! Written from the description of the migrations alone, so that it is a second opinion on the product's rules.

// Each test binary uses a part of it, as of the harness.
#![allow(dead_code, unreachable_pub)]

use jiff::Timestamp;

use crate::shell::CANARY;
use crate::support::engine::{Expected, entries};
use crate::support::generator::{Generator, noise, now_ms, unmigrated};
use crate::support::redis_client::Endpoint;
use crate::support::value::{Entry, Keyspace, Value};
use outpost_migrate_redis::migrations::KeyLayout;

/// Loads a generated keyspace with noise, unmigrated keys, and entries that hold the canary.
pub async fn load_with_canaries(redis: &Endpoint, tenants: usize) -> Expected {
    let generator = Generator::new(7, tenants);
    let around = noise(generator.now_ms).into_iter().chain(unmigrated().into_iter().map(|one| one.entry));
    let all = generator.entries().chain(around).chain(canaries()).collect();
    Expected::load_entries(redis, all, KeyLayout::Outpost).await
}

/// A tenant with two destinations, a tombstone and keys that no rule maps: the canary is in every value.
fn canaries() -> Vec<Entry> {
    let secret = |of: &str| format!("{CANARY}-{of}");
    let destination = |id: &str| {
        let text = [("id", id.to_owned()), ("type", secret("type")), ("topics", secret("topics"))];
        let more = [("credentials", secret("credentials")), ("config", secret("config"))];
        let times = [("created_at", "2025-03-01T12:00:00.123456789+02:00".to_owned())];
        Value::hash(text.into_iter().chain(more).chain(times))
    };
    let line = |id: &str| (id.to_owned(), format!(r#"{{"id":"{id}","type":"{}"}}"#, secret("summary")));
    let tenant = [
        ("id", "vault".to_owned()),
        ("metadata", secret("metadata")),
        ("created_at", "2025-03-01T12:00:00Z".to_owned()),
        ("updated_at", "2025-03-02T12:00:00.5Z".to_owned()),
    ];
    vec![
        Entry::new("tenant:vault", Value::hash(tenant)),
        Entry::new("tenant:vault:destination:des_a", destination("des_a")),
        Entry::new("tenant:vault:destination:des_b", destination("des_b")),
        Entry::new("tenant:vault:destinations", Value::hash([line("des_a"), line("des_b")])),
        Entry::new("tenant:vault:destination:des_gone", Value::hash([("deleted_at", secret("deleted_at"))]))
            .expiring(now_ms() + 3_600_001),
        Entry::new("tenant:vault:unmapped", Value::hash([("x", secret("unmapped"))])),
        Entry::new("tenant:vaultstring", Value::string(secret("string"))),
        Entry::new("elsewhere", Value::string(secret("elsewhere"))),
    ]
}

/// Entries after 002: `created_at` and `updated_at` of tenants and destinations in Unix milliseconds.
pub fn after_timestamps(keyspace: &Keyspace) -> Keyspace {
    changed(keyspace, |fields, _| {
        for name in ["created_at", "updated_at"] {
            let Some(time) = fields.get_mut(name.as_bytes()) else { continue };
            let Ok(at) = String::from_utf8_lossy(time).parse::<Timestamp>() else { continue };
            *time = at.as_millisecond().to_string().into_bytes();
        }
    })
}

/// Entries after 003: tenants and destinations say what they are.
pub fn after_entity(keyspace: &Keyspace) -> Keyspace {
    changed(keyspace, |fields, entity| {
        fields.insert(b"entity".to_vec(), entity.as_bytes().to_vec());
    })
}

/// Entries after both.
pub fn upgraded(keyspace: &Keyspace) -> Keyspace {
    after_entity(&after_timestamps(keyspace))
}

type Fields = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

fn changed(keyspace: &Keyspace, change: impl Fn(&mut Fields, &str)) -> Keyspace {
    entries(keyspace)
        .map(|mut entry| {
            if let (Some(entity), Value::Hash(fields)) = (entity(&entry.key), &mut entry.value) {
                change(fields, entity);
            }
            entry
        })
        .collect()
}

/// `tenant` or `destination` for a key in current form.
fn entity(key: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(key);
    let current = text.strip_prefix("dp_001:").unwrap_or(&text);
    let is_current = current.starts_with("tenant:{");
    if is_current && current.ends_with("}:tenant") {
        Some("tenant")
    } else if is_current && current.contains("}:destination:") {
        Some("destination")
    } else {
        None
    }
}
