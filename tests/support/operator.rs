//! The operator as it runs in a cluster: its own binary and its own ServiceAccount, with the
//! permissions of `deploy/rbac.yaml` and no others.
//!
//! Status is read with the product's own types; what is compared with it is read independently.

// Each test binary uses a part of it, as of the harness.
#![allow(dead_code, clippy::doc_markdown)]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use outpost_migrate_redis::api::v1alpha1::{RedisMigration, RedisMigrationStatus};
use outpost_migrate_redis::model::phase::Phase;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use crate::support::control_plane::{AuditEvent, ControlPlane, ControlPlaneOptions, User};
use crate::support::expectation::expected_target;
use crate::support::ports::free_port;
use crate::support::process::{Process, run, temp_dir};
use crate::support::redis_client::Endpoint;
use crate::support::snapshot::{present, snapshot};
use crate::support::value::{Bytes, Entry, Keyspace, Snapshot};
use crate::support::wait::{STARTUP, eventually, eventually_true};

/// The product's program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_outpost-migrate-redis");

/// The ServiceAccount of `deploy/rbac.yaml`.
pub const ACCOUNT: &str = "outpost-migrate-redis";

/// The only migration of these tests.
pub const MIGRATION: &str = "001_hash_tags";

/// How long a step of a small keyspace may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// How long something that is retried once a minute may take.
pub const AFTER_A_RETRY: Duration = Duration::from_secs(150);

/// Names under which tools hold the lock, from the documents.
pub const LOCKS: [&str; 3] = ["outpost:migration:lock", ".outpost:migration:lock", ".outpost:migration_lock"];

/// How many tests of a binary work at the same time.
static ROOM: Semaphore = Semaphore::const_new(4);

static SHARED: Mutex<Weak<ControlPlane>> = Mutex::const_new(Weak::new());

/// The control plane that tests share: that of the whole test run, else one for this process, which ends with the last
/// of its tests.
pub async fn shared_control_plane() -> Arc<ControlPlane> {
    let mut shared = SHARED.lock().await;
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let fresh = match ControlPlane::of_this_run() {
        Some(running) => with_definition(running).await,
        None => control_plane(ControlPlaneOptions::default()).await,
    };
    *shared = Arc::downgrade(&fresh);
    fresh
}

/// A control plane of its own that knows the resource.
pub async fn control_plane(options: ControlPlaneOptions) -> Arc<ControlPlane> {
    with_definition(ControlPlane::start(options).await).await
}

/// Makes a control plane know the resource; does nothing where it does.
async fn with_definition(control_plane: ControlPlane) -> Arc<ControlPlane> {
    let folder = temp_dir("definition-", None);
    let definition = folder.path().join("crd.yaml");
    fs::write(&definition, run(Command::new(BINARY).arg("crd"))).expect("crd.yaml");
    control_plane.kubectl(User::Admin, &["apply", "--server-side", "-f", &definition.display().to_string()]);
    // Not `kubectl wait`: it fails where there are no conditions yet.
    let definitions: Api<CustomResourceDefinition> = Api::all(control_plane.client(User::Admin).await);
    eventually_true(STARTUP, "the definition is established", async || {
        let definition = definitions.get("redismigrations.migrate.outpost.dev").await.expect("the definition");
        let conditions = definition.status.and_then(|status| status.conditions).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
    })
    .await;
    Arc::new(control_plane)
}

/// A namespace of its own for a test.
pub struct Site {
    pub control_plane: Arc<ControlPlane>,
    pub namespace: String,
    pub client: Client,
    pub resources: Api<RedisMigration>,
    _room: SemaphorePermit<'static>,
}

impl Site {
    /// A namespace in the shared control plane.
    pub async fn new(namespace: &str) -> Self {
        let room = ROOM.acquire().await.expect("never closed");
        Self::make(shared_control_plane().await, namespace, room).await
    }

    /// A namespace in a control plane of its own.
    pub async fn alone(namespace: &str, options: ControlPlaneOptions) -> Self {
        let room = ROOM.acquire().await.expect("never closed");
        Self::make(control_plane(options).await, namespace, room).await
    }

    async fn make(control_plane: Arc<ControlPlane>, namespace: &str, room: SemaphorePermit<'static>) -> Self {
        control_plane.create_namespace(namespace).await;
        let client = control_plane.client(User::Admin).await;
        let resources = Api::namespaced(client.clone(), namespace);
        let site = Self { control_plane, namespace: namespace.to_owned(), client, resources, _room: room };
        site.kubectl(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac.yaml")]);
        site
    }

    /// Runs `kubectl` in the namespace as the admin.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments: Vec<&str> = ["-n", &self.namespace].into_iter().chain(arguments.iter().copied()).collect();
        self.control_plane.kubectl(User::Admin, &arguments)
    }

    /// The operator as it is installed: one replica, short locks.
    pub async fn operator(&self) -> Operator {
        self.replica(ACCOUNT, &[]).await
    }

    /// A replica with a ServiceAccount of its own, so that the audit log tells who wrote.
    pub async fn replica(&self, account: &str, more: &[&str]) -> Operator {
        if account != ACCOUNT {
            self.kubectl(&["create", "serviceaccount", account]);
            let subject = format!("--serviceaccount={}:{account}", self.namespace);
            self.kubectl(&["create", "rolebinding", account, &format!("--role={ACCOUNT}"), &subject]);
        }
        let operator = Operator::start(self, account, more);
        operator.wait_ready().await;
        operator
    }

    /// A kubeconfig file for a ServiceAccount.
    pub fn kubeconfig(&self, account: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", account, "--duration=2h"]);
        let authority = self.control_plane.folder().join("certificates/apiserver.crt");
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "lab",
                "cluster": { "server": self.control_plane.url(), "certificate-authority": authority },
            }],
            "users": [{ "name": account, "user": { "token": token.trim() } }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": account } }],
            "current-context": "lab",
        });
        let path = self.control_plane.folder().join(format!("{}-{account}.kubeconfig", self.namespace));
        fs::write(&path, kubeconfig.to_string()).expect("kubeconfig");
        path
    }

    /// Creates a resource.
    pub async fn create(&self, name: &str, spec: Value) -> RedisMigration {
        self.try_create(name, spec).await.expect("the API server takes the resource")
    }

    /// Creates a resource, or says why not.
    pub async fn try_create(&self, name: &str, spec: Value) -> Result<RedisMigration, String> {
        self.apply(name, &spec)?;
        Ok(self.resources.get(name).await.expect("the resource that was created"))
    }

    /// The same for a resource that our own types may not be able to read.
    pub fn apply(&self, name: &str, spec: &Value) -> Result<(), String> {
        let resource = json!({
            "apiVersion": "migrate.outpost.dev/v1alpha1",
            "kind": "RedisMigration",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": spec,
        });
        let path = self.control_plane.folder().join(format!("{}-{name}.json", self.namespace));
        fs::write(&path, resource.to_string()).expect("manifest");
        // As people do it, with kubectl; its message is what they see.
        let output = Command::new(crate::support::control_plane::binary("kubectl"))
            .arg("--kubeconfig")
            .arg(self.control_plane.kubeconfig_path(User::Admin))
            .args(["apply", "-f"])
            .arg(&path)
            .output()
            .expect("kubectl");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(())
    }

    /// Changes the spec.
    pub async fn patch(&self, name: &str, spec: Value) {
        self.try_patch(name, spec).await.expect("the API server takes the change");
    }

    /// Changes the spec, or says why not.
    pub async fn try_patch(&self, name: &str, spec: Value) -> Result<(), String> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.resources.patch(name, &PatchParams::default(), &patch).await.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Asks to do it again.
    pub async fn ask_again(&self, name: &str, at: &str) {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { "migrate.outpost.dev/requestedAt": at } } }));
        self.resources.patch(name, &PatchParams::default(), &patch).await.expect("an annotation");
    }

    /// Changes status as a restore from a backup would.
    pub async fn set_status(&self, name: &str, status: &RedisMigrationStatus) {
        let mut resource = self.resources.get(name).await.expect("the resource");
        resource.status = Some(status.clone());
        self.resources.replace_status(name, &PostParams::default(), &resource).await.expect("status");
    }

    /// Deletes a resource; it is gone when this returns.
    pub async fn delete(&self, name: &str) {
        self.resources.delete(name, &DeleteParams::default()).await.expect("deletion");
        eventually_true(Duration::from_secs(10), "nothing holds the resource back", async || {
            matches!(self.resources.get_opt(name).await, Ok(None))
        })
        .await;
    }

    /// The status now; empty if there is none.
    pub async fn status(&self, name: &str) -> RedisMigrationStatus {
        self.resources.get(name).await.expect("the resource").status.unwrap_or_default()
    }

    /// Waits until the status answers the present spec and satisfies a condition.
    pub async fn wait(
        &self,
        name: &str,
        within: Duration,
        what: &str,
        accept: impl Fn(&RedisMigrationStatus) -> bool,
    ) -> RedisMigrationStatus {
        let mut last = RedisMigrationStatus::default();
        let deadline = std::time::Instant::now() + within;
        loop {
            // The API server may be away: some tests take it away.
            if let Ok(resource) = self.resources.get(name).await {
                last = resource.status.clone().unwrap_or_default();
                if last.observed_generation == resource.metadata.generation && accept(&last) {
                    return last;
                }
            }
            assert!(
                std::time::Instant::now() < deadline,
                "waited {within:?} in vain for {what}; status is\n{}",
                serde_json::to_string_pretty(&last).expect("JSON")
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until `Ready` has this reason.
    pub async fn wait_reason(&self, name: &str, within: Duration, reason: &str) -> RedisMigrationStatus {
        self.wait(name, within, &format!("the reason {reason}"), |status| ready(status).1 == reason).await
    }

    /// Waits until the target phase is reached, this one.
    pub async fn wait_ready(&self, name: &str, within: Duration, phase: Phase) -> RedisMigrationStatus {
        let what = format!("Ready at {phase}");
        let status = self.wait(name, within, &what, |status| status.phase == phase && ready(status).0 == "True").await;
        assert_kstatus(&status);
        status
    }

    /// Successful writes of a resource's status in the audit log.
    pub fn status_writes(&self, name: &str) -> Vec<AuditEvent> {
        let is_one = |event: &AuditEvent| {
            event.is_write()
                && event.resource == "redismigrations/status"
                && event.namespace == self.namespace
                && event.name == name
                && event.user.starts_with("system:serviceaccount:")
                && event.code < 300
        };
        self.control_plane.audit_events().into_iter().filter(is_one).collect()
    }

    /// How many successful writes of a resource's status there are, to be compared with later. A write
    /// can be read back a moment before its line is in the audit log.
    pub async fn count_status_writes(&self, name: &str) -> usize {
        let mut count = usize::MAX;
        loop {
            let now = self.status_writes(name).len();
            if now == count {
                return now;
            }
            count = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Everything that the operator asked in this namespace and was only ever refused for want of permission.
    /// An API server that just started refuses for a moment what it allows once it has read its roles.
    pub fn forbidden(&self) -> Vec<AuditEvent> {
        let prefix = format!("system:serviceaccount:{}:", self.namespace);
        let events: Vec<_> =
            self.control_plane.audit_events().into_iter().filter(|event| event.user.starts_with(&prefix)).collect();
        let asked = |event: &AuditEvent| (event.verb.clone(), event.resource.clone());
        let allowed: std::collections::BTreeSet<_> =
            events.iter().filter(|event| (200..300).contains(&event.code)).map(asked).collect();
        events.into_iter().filter(|event| event.code == 403 && !allowed.contains(&asked(event))).collect()
    }

    /// Events about a resource: type, reason, note.
    pub fn events(&self, name: &str) -> Vec<(String, String, String)> {
        let list: Value =
            serde_json::from_str(&self.kubectl(&["get", "events.events.k8s.io", "-o", "json"])).expect("JSON");
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        list["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|event| event["regarding"]["name"] == name)
            .map(|event| (text(event, "type"), text(event, "reason"), text(event, "note")))
            .collect()
    }

    /// Creates or replaces a Secret.
    pub fn secret(&self, name: &str, kind: &str, data: &[(&str, &str)]) {
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": { "name": name }, "stringData": data,
        });
        let path = self.control_plane.folder().join(format!("{}-secret-{name}.json", self.namespace));
        fs::write(&path, secret.to_string()).expect("manifest");
        self.kubectl(&["apply", "-f", &path.display().to_string()]);
    }
}

/// A running replica.
pub struct Operator {
    pub process: Process,
    pub address: SocketAddr,
    /// Its user in the audit log.
    pub user: String,
    /// Its name in locks.
    pub holder: String,
}

impl Operator {
    fn start(site: &Site, account: &str, more: &[&str]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let holder = format!("{}-{}", account, address.port());
        let mut command = Command::new(BINARY);
        command.env("KUBECONFIG", site.kubeconfig(account)).env_remove("RUST_LOG");
        command.args(["operator", "--namespace", &site.namespace, "--address", &address.to_string()]);
        command.args(["--holder", &holder]);
        if !more.contains(&"--lease-seconds") {
            command.args(["--lease-seconds", "6"]);
        }
        command.args(more);
        let log = site.control_plane.folder().join(format!("{}-{holder}.log", site.namespace));
        let process = Process::start(&command, &log);
        let user = format!("system:serviceaccount:{}:{account}", site.namespace);
        Self { process, address, user, holder }
    }

    /// Waits until it has listed its resources.
    pub async fn wait_ready(&self) {
        eventually_true(STARTUP, "the operator is ready", async || {
            self.process.assert_running();
            self.get("/readyz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        })
        .await;
    }

    /// Its metrics.
    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.expect("metrics")
    }

    /// The value of one series.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics().await;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// An answer with its head.
    pub async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }
}

/// Status and reason of `Ready`.
pub fn ready(status: &RedisMigrationStatus) -> (String, String) {
    condition(status, "Ready").map(|(status, reason, _)| (status, reason)).unwrap_or_default()
}

/// Status, reason and message of a condition.
pub fn condition(status: &RedisMigrationStatus, kind: &str) -> Option<(String, String, String)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// `Reconciling` and `Stalled` only while true, and never beside `Ready`.
#[track_caller]
pub fn assert_kstatus(status: &RedisMigrationStatus) {
    let value = |kind: &str| condition(status, kind).map(|(status, _, _)| status);
    let (ready, reconciling, stalled) = (value("Ready"), value("Reconciling"), value("Stalled"));
    for present in [&reconciling, &stalled] {
        assert!(present.as_deref().is_none_or(|value| value == "True"), "{:?}", status.conditions);
    }
    assert!(reconciling.is_none() || stalled.is_none(), "{:?}", status.conditions);
    if ready.as_deref() == Some("True") {
        assert!(reconciling.is_none() && stalled.is_none(), "{:?}", status.conditions);
        assert_eq!(status.lock, None, "nobody works on what is ready");
    }
    for condition in &status.conditions {
        assert!(!condition.message.is_empty(), "{condition:?} does not say what to do next");
    }
}

/// The phases in the history.
pub fn phases(status: &RedisMigrationStatus) -> Vec<Phase> {
    status.history.iter().map(|entry| entry.phase).collect()
}

/// The spec for a Redis, with more fields.
pub fn spec(redis: &Endpoint, more: Value) -> Value {
    let mut spec = json!({
        "migration": MIGRATION,
        "redis": { "host": redis.host, "port": redis.port, "cluster": redis.cluster },
    });
    merge(&mut spec, more);
    spec
}

fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

/// A fresh resource's name in the tests.
pub const NAME: &str = "hash-tags";

/// Whether a key is the product's own: marks, run hashes, locks.
pub fn is_state_key(key: &[u8]) -> bool {
    LOCKS.iter().any(|lock| lock.as_bytes() == key) || key.windows(18).any(|part| part == b"outpost:migration:")
}

/// The keyspace without the product's own keys.
pub async fn data(redis: &Endpoint) -> Keyspace {
    snapshot(redis).await.filter(|key, _| !is_state_key(key))
}

/// The targets that a keyspace's sources are to have.
pub fn targets(before: &Keyspace) -> Keyspace {
    sources(before)
        .iter()
        .map(|(key, Snapshot { value, expiry_ms })| Entry {
            key: expected_target(key, value).expect("a source has a target"),
            value: value.clone(),
            expiry_ms: *expiry_ms,
        })
        .collect()
}

/// A keyspace's sources.
pub fn sources(before: &Keyspace) -> Keyspace {
    before.filter(|key, entry| expected_target(key, &entry.value).is_some())
}

/// What a clean run to `Verified` makes of a keyspace.
pub fn migrated(before: &Keyspace) -> Keyspace {
    let mut after = before.clone();
    after.extend(entries(&targets(before)));
    after
}

/// What a clean run to `CleanedUp` makes of a keyspace.
pub fn cleaned_up(before: &Keyspace) -> Keyspace {
    migrated(before).filter(|key, entry| expected_target(key, &entry.value).is_none())
}

fn entries(keyspace: &Keyspace) -> impl Iterator<Item = Entry> + '_ {
    keyspace.iter().map(|(key, Snapshot { value, expiry_ms })| Entry {
        key: key.clone(),
        value: value.clone(),
        expiry_ms: *expiry_ms,
    })
}

/// How many targets are there now.
pub async fn targets_present(redis: &Endpoint, before: &Keyspace) -> usize {
    present(redis, targets(before).keys().map(AsRef::as_ref)).await
}

/// Waits until apply is under way: some targets there, others not. Answers how many there are.
pub async fn wait_mid_apply(redis: &Endpoint, before: &Keyspace) -> usize {
    let wanted = targets(before);
    let all = wanted.len();
    let there = eventually(SOON, "apply is under way", async || {
        let there = present(redis, wanted.keys().map(AsRef::as_ref)).await;
        (there > 0).then_some(there)
    })
    .await;
    assert!(there < all, "apply was over before the fault could hit: {there} of {all}");
    there
}

/// The fields of the migration's mark; empty if there is none.
pub async fn mark(redis: &Endpoint) -> std::collections::BTreeMap<String, String> {
    let key = format!("outpost:migration:{MIGRATION}").into_bytes();
    let everything = snapshot(redis).await;
    let Some(Snapshot { value: crate::support::value::Value::Hash(fields), .. }) = everything.get(&key) else {
        return std::collections::BTreeMap::new();
    };
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(field, value)| (text(field), text(value))).collect()
}

/// The lock keys that somebody holds.
pub async fn locks(redis: &Endpoint) -> Vec<String> {
    let everything = snapshot(redis).await;
    LOCKS.iter().filter(|lock| everything.contains_key(lock.as_bytes())).map(|lock| (*lock).to_owned()).collect()
}

/// Waits until nobody holds the lock.
pub async fn wait_unlocked(redis: &Endpoint, within: Duration) {
    let names = LOCKS.map(str::as_bytes);
    eventually_true(within, "the lock is free", async || present(redis, names).await == 0).await;
}

/// What every walk ends with: the lock is free, nothing was refused for want of permission.
pub async fn assert_left_clean(site: &Site, redis: &Endpoint) {
    wait_unlocked(redis, Duration::from_secs(15)).await;
    let forbidden = site.forbidden();
    assert!(forbidden.is_empty(), "deploy/rbac.yaml is too narrow: {forbidden:?}");
    let staged = snapshot(redis).await;
    let staged: Vec<_> = staged.keys().filter(|key| key.starts_with(b"outpost:migration:staging:")).collect();
    assert!(staged.is_empty(), "{staged:?}");
}
