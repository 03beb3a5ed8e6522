//! The definition against the derived schema: bounded, explained, classified, and the same as committed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

/// Fields of the spec that a rule keeps as they were created.
const FIXED: [&str; 9] = [
    "migration",
    "deploymentId",
    "redis.host",
    "redis.port",
    "redis.cluster",
    "redis.database",
    "redis.tls.enabled",
    "redis.tls.serverName",
    "parameters.keyLayout",
];

/// Fields of the spec that may change at any time.
const MUTABLE: [&str; 20] = [
    "redis.usernameSecretRef.name",
    "redis.usernameSecretRef.key",
    "redis.passwordSecretRef.name",
    "redis.passwordSecretRef.key",
    "redis.tls.caSecretRef.name",
    "redis.tls.caSecretRef.key",
    "redis.tls.clientCertSecretRef.name",
    "targetPhase",
    "approval.mode",
    "approval.planHash",
    "approval.cleanupHash",
    "conflictPolicy",
    "limits.keysPerSecond",
    "limits.maxLatency",
    "minReplicas",
    "acceptFindings",
    "cleanup.after",
    "cleanup.diverged",
    "samples",
    "suspend",
];

fn schema() -> Value {
    let crd = serde_json::to_value(crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        found.insert(path.to_owned());
        return;
    };
    for (name, property) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        leaves(property, &path, found);
    }
}

fn every_node(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        every_node(property, &format!("{path}.{name}"), visit);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            every_node(&schema[inner], &format!("{path}[]"), visit);
        }
    }
}

#[test]
fn the_committed_definition_is_the_derived_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/redismigrations.yaml");
    let derived = crd_yaml().unwrap();
    if std::env::var_os("UPDATE_CRDS").is_some() {
        std::fs::write(path, &derived).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == derived, "{path} is out of date: run `cargo run -- crd > crds/redismigrations.yaml`");
}

#[test]
fn yaml_1_1_reads_the_same_as_yaml_1_2() {
    let yaml = crd_yaml().unwrap();
    assert_eq!(serde_norway::from_str::<CustomResourceDefinition>(&yaml).unwrap(), crd());
    assert!(yaml.contains("default: 'On'\n") && yaml.contains("- 'Off'\n"), "kubectl would read booleans");
}

#[test]
fn every_spec_field_is_fixed_or_mutable() {
    let mut found = BTreeSet::new();
    leaves(&schema()["properties"]["spec"], "", &mut found);
    let classified: BTreeSet<String> = FIXED.iter().chain(&MUTABLE).map(ToString::to_string).collect();
    assert_eq!(found, classified, "decide for each field of the spec whether it may change, and list it here");
}

#[test]
fn every_fixed_field_has_its_rule() {
    let rules = schema()["properties"]["spec"]["x-kubernetes-validations"].clone();
    let paths: BTreeSet<String> =
        rules.as_array().unwrap().iter().map(|rule| rule["fieldPath"].as_str().unwrap().to_owned()).collect();
    assert_eq!(paths, FIXED.iter().map(|path| format!(".{path}")).collect());
    for rule in rules.as_array().unwrap() {
        let message = rule["message"].as_str().unwrap();
        assert!(message.starts_with("spec.") && message.contains("nothing in Redis is touched"), "{message}");
    }
}

#[test]
fn the_spec_is_bounded_and_explained() {
    every_node(&schema()["properties"]["spec"], "spec", &mut |path, node| {
        assert!(node["description"].as_str().is_some_and(|text| text.ends_with('.')), "{path} has no full sentence");
        if node["type"] == "string" && node["enum"].is_null() {
            assert!(node["maxLength"].is_u64() && node["pattern"].is_string(), "{path} is unbounded");
        }
        if node["type"] == "integer" {
            assert!(node["minimum"].is_number() && node["maximum"].is_number(), "{path} is unbounded");
        }
    });
}

#[test]
fn nothing_is_nullable_or_unsigned_and_status_has_no_defaults() {
    every_node(&schema(), "", &mut |path, node| {
        assert!(node["nullable"].is_null(), "{path} is nullable");
        assert!(!node["format"].as_str().is_some_and(|format| format.starts_with("uint")), "{path} is unsigned");
        assert!(!path.starts_with(".status") || node["default"].is_null(), "{path} has a default");
        let explained = node["description"].is_string() || path.ends_with("[]");
        assert!(!path.starts_with(".status") || explained, "{path} has no description");
    });
}

#[test]
fn a_status_may_leave_out_anything() {
    every_node(&schema()["properties"]["status"], "status", &mut |path, node| {
        let in_lists = path.contains("[]");
        assert!(in_lists || node["required"].is_null(), "{path} requires {}", node["required"]);
    });
}

#[test]
fn names_columns_and_selectors() {
    let crd = serde_json::to_value(crd()).unwrap();
    assert_eq!(crd["metadata"]["name"], "redismigrations.migrate.outpost.dev");
    assert_eq!(crd["spec"]["scope"], "Namespaced");
    assert_eq!(crd["spec"]["names"]["shortNames"], serde_json::json!(["rmig"]));
    assert_eq!(crd["spec"]["names"]["categories"], serde_json::json!(["outpost"]));
    let version = &crd["spec"]["versions"][0];
    assert_eq!(version["selectableFields"], serde_json::json!([{ "jsonPath": ".spec.migration" }]));
    assert!(version["subresources"]["status"].is_object());
    let columns: Vec<(&str, &str, i64)> = version["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap(), c["type"].as_str().unwrap(), c["priority"].as_i64().unwrap_or(0)))
        .collect();
    assert_eq!(
        columns,
        [
            ("Migration", "string", 0),
            ("Phase", "string", 0),
            ("Progress", "string", 0),
            ("ETA", "string", 0),
            ("Ready", "string", 0),
            ("Reason", "string", 0),
            ("Target", "string", 1),
            ("Holder", "string", 1),
            ("Keys/s", "integer", 1),
            ("Age", "date", 0),
        ]
    );
}
