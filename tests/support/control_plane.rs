//! A real Kubernetes control plane: etcd, kube-apiserver and, if asked for, kube-controller-manager.
//!
//! Binaries come from `KUBEBUILDER_ASSETS`, or from where `tests/kubernetes/build.sh` puts them.
//! Users are known by token; RBAC is on, so the operator's user may do only what a test grants it.
//!
//! A test run may start one for all its processes (`RUNNING`); who finds none starts its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use std::{env, fs};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{GetParams, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use super::ports::free_port;
use super::process::{Process, Signal, require, run, temp_dir};
use super::redis_client::install_crypto;
use super::wait::{STARTUP, eventually_true};

/// Where `tests/kubernetes/build.sh` puts the binaries.
const BUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/kubernetes/v1.36.3");

/// Names the folder of a control plane that runs already, of the command `control-plane` of the lab. A control plane takes
/// seconds of both processors to start, so the processes of a test run share one.
const RUNNING: &str = "OUTPOST_TEST_CONTROL_PLANE";

/// Everything that changes something, and everything that people and the operator read; the
/// control plane's own reads would fill the log.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
  userGroups: ["system:serviceaccounts:kube-system", "system:unauthenticated"]
- level: None
  verbs: [get, list, watch]
  users: ["system:apiserver", "system:kube-controller-manager"]
- level: None
  nonResourceURLs: ["/readyz*", "/livez*", "/healthz*"]
- level: Metadata
"#;

/// Who talks to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// In `system:masters`: may do anything.
    Admin,
    /// The operator; may do nothing until a test binds a role to the user `operator`.
    Operator,
    /// Somebody who edits resources; may do nothing until a test binds a role to the user `editor`.
    Editor,
}

impl User {
    const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::Editor];

    /// The user's name in role bindings and in the audit log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Editor => "editor",
        }
    }

    fn groups(self) -> &'static str {
        match self {
            Self::Admin => "system:masters",
            Self::Operator | Self::Editor => "",
        }
    }
}

/// How the control plane is set up.
#[derive(Debug, Clone, Default)]
pub struct ControlPlaneOptions {
    /// Namespaces are really deleted, and owned objects collected, only with it.
    pub controller_manager: bool,
    /// Where to make its folder; the system's temporary folder without one.
    pub parent: Option<PathBuf>,
}

/// One request in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Who asked.
    pub user: String,
    /// What for: `get`, `create`, `patch`, …
    pub verb: String,
    /// The resource in the plural, with its subresource: `redismigrations/status`.
    pub resource: String,
    /// Namespace, empty if there is none.
    pub namespace: String,
    /// Name, empty if there is none.
    pub name: String,
    /// The answer's HTTP status.
    pub code: u16,
}

impl AuditEvent {
    /// Whether it was to change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "")
    }
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    setup: Setup,
    /// None where somebody else started them, who ends them too.
    servers: Option<Servers>,
}

/// The processes of a control plane that this process started.
#[derive(Debug)]
struct Servers {
    // In the order in which they end; the folder goes last.
    controller_manager: Option<Process>,
    apiserver: Mutex<Process>,
    etcd: Process,
    etcd_port: u16,
    _folder: TempDir,
}

/// What stays the same over restarts.
#[derive(Debug)]
struct Setup {
    folder: PathBuf,
    port: u16,
}

impl ControlPlane {
    /// Starts it and waits until it is ready.
    pub async fn start(options: ControlPlaneOptions) -> Self {
        install_crypto();
        let folder = temp_dir("control-plane-", options.parent.as_deref());
        let setup = Setup { folder: folder.path().to_owned(), port: free_port() };
        setup.write_files();

        let etcd_port = free_port();
        let etcd = Process::start(&setup.etcd_command(etcd_port, free_port()), &setup.file("etcd.log"));
        let apiserver = Mutex::new(setup.start_apiserver(etcd_port));
        let servers = Servers { controller_manager: None, apiserver, etcd, etcd_port, _folder: folder };
        let mut control_plane = Self { setup, servers: Some(servers) };
        control_plane.wait_ready().await;

        if options.controller_manager {
            let command = control_plane.setup.controller_manager_command(free_port());
            let log = control_plane.setup.file("kube-controller-manager.log");
            let started = Process::start(&command, &log);
            control_plane.servers.as_mut().expect("just started").controller_manager = Some(started);
            control_plane.wait_controllers().await;
        }
        control_plane
    }

    /// The one that was started for the whole test run, if there is one; no test may stop it.
    pub fn of_this_run() -> Option<Self> {
        let folder = PathBuf::from(env::var_os(RUNNING)?);
        install_crypto();
        let kubeconfig = Kubeconfig::read_from(Setup { folder: folder.clone(), port: 0 }.kubeconfig_path(User::Admin))
            .unwrap_or_else(|error| panic!("{RUNNING} names {}: {error}", folder.display()));
        let url =
            kubeconfig.clusters[0].cluster.as_ref().and_then(|it| it.server.clone()).expect("the server's address");
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("the server's port");
        Some(Self { setup: Setup { folder, port }, servers: None })
    }

    /// The API server's address.
    pub fn url(&self) -> String {
        self.setup.url()
    }

    /// The folder with logs and kubeconfig files; removed at the end.
    pub fn folder(&self) -> &Path {
        &self.setup.folder
    }

    /// A kubeconfig file for a user.
    pub fn kubeconfig_path(&self, user: User) -> PathBuf {
        self.setup.kubeconfig_path(user)
    }

    /// A client for a user.
    pub async fn client(&self, user: User) -> Client {
        Client::try_from(self.config(user).await).expect("Kubernetes client")
    }

    /// A client's configuration for a user, for tests that change it.
    pub async fn config(&self, user: User) -> Config {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig_path(user)).expect("kubeconfig");
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("kubeconfig")
    }

    /// Runs `kubectl` as a user to its end; panics with its message if it fails.
    pub fn kubectl(&self, user: User, arguments: &[&str]) -> String {
        run(Command::new(binary("kubectl")).arg("--kubeconfig").arg(self.kubeconfig_path(user)).args(arguments))
    }

    /// Asks the API server to end and waits for its end; watches are closed in order.
    pub async fn stop_apiserver(&self) {
        self.apiserver().signal(Signal::TERM);
        let stopped = async || self.apiserver().exit_status().is_some();
        eventually_true(Duration::from_secs(90), "kube-apiserver ends", stopped).await;
    }

    /// Ends the API server without a chance to say goodbye.
    pub fn kill_apiserver(&self) {
        self.apiserver().kill();
    }

    /// Sends a signal to the API server (STOP and CONT make one that hangs).
    pub fn signal_apiserver(&self, signal: Signal) {
        self.apiserver().signal(signal);
    }

    /// Kills the API server if it runs, starts it on the same port and waits until it is ready.
    pub async fn restart_apiserver(&self) {
        self.kill_apiserver();
        let fresh = self.setup.start_apiserver(self.servers().etcd_port);
        *self.apiserver() = fresh;
        self.wait_ready().await;
    }

    /// All requests in the audit log; complete for requests that were answered.
    pub fn audit_events(&self) -> Vec<AuditEvent> {
        let text = fs::read_to_string(self.setup.file("audit.log")).unwrap_or_default();
        // The last line may be half-written.
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(parse_audit).collect()
    }

    /// The writes of a user in the audit log.
    pub fn writes_by(&self, user: User) -> Vec<AuditEvent> {
        self.audit_events().into_iter().filter(|event| event.is_write() && event.user == user.name()).collect()
    }

    /// Creates a namespace and waits until it can be used.
    pub async fn create_namespace(&self, name: &str) {
        let namespaces: Api<Namespace> = Api::all(self.client(User::Admin).await);
        let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).expect("namespace");
        namespaces.create(&kube::api::PostParams::default(), &namespace).await.expect("namespace");
    }

    async fn wait_ready(&self) {
        eventually_true(STARTUP, "kube-apiserver is ready", async || {
            self.servers().etcd.assert_running();
            self.apiserver().assert_running();
            self.setup.file("certificates/apiserver.crt").is_file() && self.is_ready().await
        })
        .await;
    }

    async fn is_ready(&self) -> bool {
        let client = self.client(User::Admin).await;
        let ready = Request::new("").get("readyz", &GetParams::default()).expect("request");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        // Ready comes before the first namespace.
        client.request_text(ready).await.is_ok() && matches!(namespaces.get_opt("default").await, Ok(Some(_)))
    }

    /// The controller of service accounts has done its work in `default`: the others run too.
    async fn wait_controllers(&self) {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(self.client(User::Admin).await, "default");
        eventually_true(STARTUP, "kube-controller-manager works", async || {
            self.servers().controller_manager.iter().for_each(Process::assert_running);
            matches!(accounts.get_opt("default").await, Ok(Some(_)))
        })
        .await;
    }

    fn servers(&self) -> &Servers {
        self.servers.as_ref().expect("a test that stops or restarts servers starts a control plane of its own")
    }

    fn apiserver(&self) -> MutexGuard<'_, Process> {
        self.servers().apiserver.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Setup {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn kubeconfig_path(&self, user: User) -> PathBuf {
        self.file(&format!("{}.kubeconfig", user.name()))
    }

    fn write_files(&self) {
        let write = |path: PathBuf, text: String| {
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        };
        let mut tokens = String::new();
        for user in User::ALL {
            let token = format!("{:032x}", rand::random::<u128>());
            let name = user.name();
            writeln!(tokens, r#"{token},{name},{name},"{}""#, user.groups()).expect("string");
            write(self.kubeconfig_path(user), self.kubeconfig(user, &token));
        }
        write(self.file("tokens.csv"), tokens);
        write(self.file("audit-policy.yaml"), AUDIT_POLICY.to_owned());
        run(Command::new("openssl").args(["genrsa", "-out"]).arg(self.file("service-accounts.key")).arg("2048"));
    }

    fn kubeconfig(&self, user: User, token: &str) -> String {
        let name = user.name();
        let cluster = json!({ "server": self.url(), "certificate-authority": self.file("certificates/apiserver.crt") });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "lab", "cluster": cluster }],
            "users": [{ "name": name, "user": { "token": token } }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": name } }],
            "current-context": "lab",
        });
        // JSON is YAML.
        serde_json::to_string_pretty(&kubeconfig).expect("kubeconfig")
    }

    fn etcd_command(&self, port: u16, peer_port: u16) -> Command {
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
        let mut command = Command::new(binary("etcd"));
        command.arg("--unsafe-no-fsync").arg("--data-dir").arg(self.file("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command
    }

    fn start_apiserver(&self, etcd_port: u16) -> Process {
        let path = |name: &str| self.file(name).display().to_string();
        let mut command = Command::new(binary("kube-apiserver"));
        for (flag, value) in [
            ("etcd-servers", format!("http://127.0.0.1:{etcd_port}")),
            ("secure-port", self.port.to_string()),
            ("bind-address", "127.0.0.1".to_owned()),
            ("cert-dir", path("certificates")),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("service-account-signing-key-file", path("service-accounts.key")),
            ("service-account-key-file", path("service-accounts.key")),
            ("token-auth-file", path("tokens.csv")),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            ("endpoint-reconciler-type", "none".to_owned()),
            ("audit-policy-file", path("audit-policy.yaml")),
            ("audit-log-path", path("audit.log")),
            // Written before the request's answer is sent, so that a test can count at once.
            ("audit-log-mode", "blocking-strict".to_owned()),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        Process::start(&command, &self.file("kube-apiserver.log"))
    }

    fn controller_manager_command(&self, port: u16) -> Command {
        let path = |name: &str| self.file(name).display().to_string();
        let mut command = Command::new(binary("kube-controller-manager"));
        for (flag, value) in [
            ("kubeconfig", self.kubeconfig_path(User::Admin).display().to_string()),
            ("service-account-private-key-file", path("service-accounts.key")),
            ("root-ca-file", path("certificates/apiserver.crt")),
            ("use-service-account-credentials", "true".to_owned()),
            ("leader-elect", "false".to_owned()),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", port.to_string()),
            ("cert-dir", path("controller-manager-certificates")),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        command
    }
}

/// The path of a control plane's binary; panics with the way to get it if it is missing.
pub fn binary(name: &str) -> PathBuf {
    let conventional = env::var_os("KUBEBUILDER_ASSETS").map(|folder| Path::new(&folder).join(name));
    // The convention's folder has no kube-controller-manager; ours may.
    let found = conventional.into_iter().chain([Path::new(BUILT).join(name)]).find(|path| path.is_file());
    found.unwrap_or_else(|| require(Path::new(BUILT).join(name)))
}

fn parse_audit(line: &str) -> Option<AuditEvent> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Line {
        verb: String,
        user: LineUser,
        object_ref: Option<Object>,
        response_status: Option<Status>,
        stage: String,
    }
    #[derive(Deserialize)]
    struct LineUser {
        username: String,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Object {
        resource: String,
        subresource: Option<String>,
        namespace: String,
        name: String,
    }
    #[derive(Deserialize)]
    struct Status {
        code: u16,
    }
    let line: Line = serde_json::from_str(line).expect("a line of the audit log");
    // A watch has a line for its start too.
    if line.stage != "ResponseComplete" && line.stage != "ResponseStarted" {
        return None;
    }
    let object = line.object_ref.unwrap_or_default();
    let subresource = object.subresource.map(|name| format!("/{name}")).unwrap_or_default();
    Some(AuditEvent {
        user: line.user.username,
        verb: line.verb,
        resource: object.resource + &subresource,
        namespace: object.namespace,
        name: object.name,
        code: line.response_status.map_or(0, |status| status.code),
    })
}
