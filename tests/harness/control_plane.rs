//! Tests of the harness' Kubernetes control plane.

use std::time::Duration;

use crate::support::control_plane::{ControlPlane, ControlPlaneOptions, User};
use crate::support::wait::eventually_true;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name } })).expect("config map")
}

#[tokio::test]
async fn users_audit_and_restart() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await;
    control_plane.create_namespace("lab").await;
    let as_admin: Api<ConfigMap> = Api::namespaced(control_plane.client(User::Admin).await, "lab");
    let as_operator: Api<ConfigMap> = Api::namespaced(control_plane.client(User::Operator).await, "lab");
    as_admin.create(&PostParams::default(), &config_map("one")).await.expect("the admin may");
    let refused = as_operator.create(&PostParams::default(), &config_map("two")).await.expect_err("RBAC is on");
    assert!(refused.to_string().contains("forbidden"), "{refused}");

    let writes = control_plane.writes_by(User::Operator);
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!((writes[0].verb.as_str(), writes[0].resource.as_str(), writes[0].code), ("create", "configmaps", 403));

    control_plane.restart_apiserver().await;
    let names: Vec<String> = as_admin
        .list(&ListParams::default())
        .await
        .expect("the same client goes on")
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert!(names.contains(&"one".to_owned()), "{names:?}");
    let shown = control_plane.kubectl(User::Admin, &["-n", "lab", "get", "configmap", "one", "-o", "name"]);
    assert_eq!(shown.trim(), "configmap/one");

    control_plane.stop_apiserver().await;
    as_admin.get("one").await.expect_err("stopped");
}

#[tokio::test]
async fn namespaces_are_deleted_with_a_controller_manager() {
    let options = ControlPlaneOptions { controller_manager: true, ..ControlPlaneOptions::default() };
    let control_plane = ControlPlane::start(options).await;
    control_plane.create_namespace("short-lived").await;
    let client = control_plane.client(User::Admin).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "short-lived");
    maps.create(&PostParams::default(), &config_map("inside")).await.expect("created");
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete("short-lived", &DeleteParams::default()).await.expect("deletion accepted");
    eventually_true(Duration::from_secs(60), "the namespace is gone", async || {
        matches!(namespaces.get_opt("short-lived").await, Ok(None))
    })
    .await;
}
