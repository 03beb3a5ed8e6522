//! Keyspaces that Outpost itself wrote, kept as JSON lines.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::generator::now_ms;
use super::value::{Bytes, Entry, Value};

#[derive(Deserialize)]
struct Line {
    key: String,
    ttl_seconds: Option<i64>,
    fields_base64: Vec<(String, String)>,
}

/// The entries of a file; expiries count from now.
pub fn read_fixture(path: impl AsRef<Path>) -> Vec<Entry> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("fixture {}: {error}", path.display()));
    let now = now_ms();
    text.lines().filter(|line| !line.is_empty()).map(|line| entry(line, now)).collect()
}

fn entry(line: &str, now: i64) -> Entry {
    let line: Line = serde_json::from_str(line).expect("a line of a fixture");
    let bytes = |text: &str| -> Bytes { STANDARD.decode(text).expect("base64 in a fixture") };
    let fields = line.fields_base64.iter().map(|(field, value)| (field.as_bytes(), bytes(value)));
    Entry {
        key: line.key.into_bytes(),
        value: Value::hash(fields),
        expiry_ms: line.ttl_seconds.map(|ttl| now + ttl * 1000),
    }
}
