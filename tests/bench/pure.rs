//! Micro-benchmarks of what needs no Redis: what one key costs us before and after it is asked about.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use divan::{Bencher, black_box};
use outpost_migrate_redis::migrations::{KeyLayout, Parameters, Registry, Rule, Scope};
use outpost_migrate_redis::model::entry::{Entry, Expiry, Value};
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::mapping::{Answer, Answers, Mapping, Probe};
use outpost_migrate_redis::model::slot::slot_of;

fn main() {
    divan::main();
}

const DESTINATION: &str = "tenant:tenant_12345:destination:des_0a1b2c3d";

/// A destination's key with everything known that the mapping asks for.
#[divan::bench]
fn map_a_destination(bencher: Bencher) {
    let migration = Registry::outpost().get("001_hash_tags").expect("a known migration");
    let Rule::Rename(rename) = migration.rule() else { panic!("a renaming migration") };
    let scope = Scope { deployment_id: None, parameters: Parameters { key_layout: KeyLayout::Outpost } };
    let key = RedisKey::new(DESTINATION);
    let mut answers = Answers::none();
    while let Mapping::Need(probes) = rename.map(&scope, &key, &answers) {
        for probe in probes {
            let answer = match &probe {
                Probe::Fields { key: asked, fields } => Answer::Fields(
                    fields
                        .iter()
                        .map(|field| (*field == "id" && *asked == key).then(|| b"des_0a1b2c3d".to_vec()))
                        .collect(),
                ),
                Probe::Shape { .. } => Answer::Shape { fields: 6, expires: false },
            };
            answers.insert(probe, answer);
        }
    }
    assert!(matches!(rename.map(&scope, &key, &answers), Mapping::Target { .. }), "a destination");
    bencher.bench(|| rename.map(black_box(&scope), black_box(&key), black_box(&answers)));
}

#[divan::bench]
fn slot_of_a_target(bencher: Bencher) {
    let key = RedisKey::new("tenant:{tenant_12345}:destination:des_0a1b2c3d");
    bencher.bench(|| slot_of(black_box(&key)));
}

#[divan::bench]
fn equality_of_a_destination(bencher: Bencher) {
    let entry = || {
        let fields = ["id", "type", "topics", "config", "credentials", "created_at"];
        let fields = fields.map(|field| (field.as_bytes().to_vec(), vec![b'x'; 60]));
        Entry { value: Value::Hash(fields.into()), expiry: Expiry::Never }
    };
    let (source, target) = (entry(), entry());
    bencher.bench(|| black_box(&source) == black_box(&target));
}
