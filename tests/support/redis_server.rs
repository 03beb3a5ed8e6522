//! Real Redis servers: what all of them have in common, and the standalone one.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use super::certificates::Certificates;
use super::ports::free_port;
use super::process::{Process, Signal, temp_dir};
use super::redis_client::{Access, Endpoint, connect};
use super::wait::{STARTUP, eventually_true};

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only TLS connections, for clients, replication and the cluster bus.
    pub tls: bool,
    /// Refuse TLS clients without a certificate of the same authority.
    pub require_client_certificate: bool,
    /// Password of the default user, for clients and replication.
    pub password: Option<String>,
    /// Further users, as in an ACL file without the word `user`: `migrator on >secret ~* +@all`.
    pub acl_users: Vec<String>,
    /// As in redis.conf: `64mb`.
    pub maxmemory: Option<String>,
    /// As in redis.conf: `allkeys-lru`.
    pub maxmemory_policy: Option<String>,
    /// After how long a cluster calls a silent node failed.
    pub node_timeout: Duration,
    /// Keep the data over a restart. Without it a restarted primary comes back empty, and its
    /// replicas empty themselves after it.
    pub persistent: bool,
    /// A further version of Redis by its folder in `.cache/redis`; without one, the `redis-server` of the machine.
    pub server: Option<&'static str>,
    /// Further lines of redis.conf; they win over what the harness writes.
    pub extra: Vec<String>,
    /// Where to make the server's folder; the system's temporary folder without one.
    pub parent: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: false,
            require_client_certificate: false,
            password: None,
            acl_users: Vec::new(),
            maxmemory: None,
            maxmemory_policy: None,
            node_timeout: Duration::from_secs(2),
            persistent: false,
            server: None,
            extra: Vec::new(),
            parent: None,
        }
    }
}

impl Options {
    /// TLS on.
    pub fn tls() -> Self {
        Self { tls: true, ..Self::default() }
    }

    /// A password for the default user.
    pub fn password(password: &str) -> Self {
        Self { password: Some(password.to_owned()), ..Self::default() }
    }

    /// How the harness connects to such a server; makes its certificates in `folder`.
    pub(super) fn access(&self, folder: &Path) -> Access {
        Access { username: None, password: self.password.clone(), tls: self.tls.then(|| Certificates::make(folder)) }
    }

    fn program(&self) -> PathBuf {
        match self.server {
            None => PathBuf::from("redis-server"),
            Some(server) => {
                Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/redis").join(server).join("redis-server")
            }
        }
    }

    fn config(&self, port: u16, folder: &Path, access: &Access) -> String {
        let mut config = String::from("bind 127.0.0.1\nsave \"\"\nrepl-diskless-sync-delay 0\n");
        let mut line = |text: String| writeln!(config, "{text}").expect("writing to a string");
        // Redis 6.2 does not know the option, and needs none.
        if !self.server.is_some_and(|server| server.starts_with("redis-6.")) {
            line("enable-debug-command local".to_owned());
        }
        line(format!("dir {}", folder.display()));
        line(format!("appendonly {}", if self.persistent { "yes" } else { "no" }));
        match &access.tls {
            None => line(format!("port {port}")),
            Some(certificates) => {
                let clients = if self.require_client_certificate { "yes" } else { "optional" };
                line(format!(
                    "port 0\ntls-port {port}\ntls-cluster yes\ntls-replication yes\ntls-auth-clients {clients}"
                ));
                line(format!("tls-ca-cert-file {}", certificates.ca.display()));
                line(format!("tls-cert-file {}", certificates.server_cert.display()));
                line(format!("tls-key-file {}", certificates.server_key.display()));
            }
        }
        if let Some(password) = &self.password {
            line(format!("requirepass {password}\nmasterauth {password}"));
        }
        self.acl_users.iter().for_each(|user| line(format!("user {user}")));
        if let Some(limit) = &self.maxmemory {
            line(format!("maxmemory {limit}"));
        }
        if let Some(policy) = &self.maxmemory_policy {
            line(format!("maxmemory-policy {policy}"));
        }
        config
    }
}

/// One `redis-server` that can be killed and started again on the same port.
#[derive(Debug)]
pub struct Node {
    port: u16,
    program: PathBuf,
    folder: PathBuf,
    access: Access,
    // Shared, so that a task of its own can wait for the process' end.
    process: Mutex<Option<Arc<Process>>>,
}

impl Node {
    /// Writes the configuration, starts the server, does not wait for it.
    pub(super) fn start(port: u16, folder: PathBuf, access: Access, options: &Options, more: &str) -> Self {
        fs::create_dir_all(&folder).expect("folder of a Redis server");
        let mut config = options.config(port, &folder, &access);
        config.push_str(more);
        options.extra.iter().for_each(|line| writeln!(config, "{line}").expect("writing to a string"));
        fs::write(folder.join("redis.conf"), config).expect("redis.conf");
        let node = Self { port, program: options.program(), folder, access, process: Mutex::new(None) };
        node.launch();
        node
    }

    /// Its port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process; panics if it was killed.
    pub fn process(&self) -> Arc<Process> {
        self.slot().clone().expect("a running Redis server")
    }

    /// Whether its process was started and not killed since.
    pub fn is_up(&self) -> bool {
        self.slot().as_ref().is_some_and(|process| process.exit_status().is_none())
    }

    /// Ends it without a chance to say goodbye.
    pub fn kill(&self) {
        if let Some(process) = self.slot().take() {
            process.kill();
        }
    }

    /// Starts it again after a kill and waits until it answers.
    pub async fn restart(&self) {
        self.kill();
        self.launch();
        self.wait_ready().await;
    }

    /// A new connection; panics if there is none to be had.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.try_connection().await.unwrap_or_else(|error| panic!("connection to {}: {error}", self.addr()))
    }

    /// A new connection.
    pub async fn try_connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        connect("127.0.0.1", self.port, &self.access).await
    }

    /// Waits until it answers and has loaded its data.
    pub async fn wait_ready(&self) {
        eventually_true(STARTUP, &format!("Redis at {} answers", self.addr()), async || {
            self.process().assert_running();
            match self.try_connection().await {
                Ok(mut connection) => redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    /// `INFO` of one section, as a function from field to value.
    pub async fn info(&self, section: &str) -> redis::RedisResult<impl Fn(&str) -> Option<String>> {
        let mut connection = self.try_connection().await?;
        let text: String = redis::cmd("INFO").arg(section).query_async(&mut connection).await?;
        Ok(fields(text))
    }

    fn launch(&self) {
        let mut command = Command::new(&self.program);
        command.arg(self.folder.join("redis.conf"));
        *self.slot() = Some(Arc::new(Process::start(&command, &self.folder.join("redis.log"))));
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Looks up `field:value` lines.
pub(super) fn fields(text: String) -> impl Fn(&str) -> Option<String> {
    move |field| text.lines().find_map(|line| line.trim().strip_prefix(field)?.strip_prefix(':').map(str::to_owned))
}

/// One server without cluster mode.
#[derive(Debug)]
pub struct Standalone {
    // Before the folder, so that the server ends before its files go.
    node: Node,
    access: Access,
    _folder: TempDir,
}

impl Standalone {
    /// Starts a server and waits until it answers.
    pub async fn start(options: Options) -> Self {
        let folder = temp_dir("redis-", options.parent.as_deref());
        let access = options.access(folder.path());
        let node = Node::start(free_port(), folder.path().join("node"), access.clone(), &options, "");
        node.wait_ready().await;
        Self { node, access, _folder: folder }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.node.port
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> String {
        self.node.addr()
    }

    /// Credentials and certificates.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The whole server, for reading and loading.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::local(self.node.port, false, self.access.clone())
    }

    /// A new connection.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.node.connection().await
    }

    /// Ends it without a chance to say goodbye.
    pub fn kill(&self) {
        self.node.kill();
    }

    /// Starts it again on the same port; it is empty then unless `persistent`.
    pub async fn restart(&self) {
        self.node.restart().await;
    }

    /// Sends a signal (STOP and CONT make a server that hangs).
    pub fn signal(&self, signal: Signal) {
        self.node.process().signal(signal);
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.node.process().log()
    }
}
