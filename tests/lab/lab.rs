//! The lab: the servers of the tests, by hand.
//!
//! `cargo run --example lab -- up --dir /tmp/lab --tenants 1000` starts a Redis Cluster with a
//! keyspace of Outpost before v0.6 and a Kubernetes control plane, and ends both with Ctrl-C.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use support::control_plane::{ControlPlane, ControlPlaneOptions, User};
use support::expectation::{Kind, kind};
use support::generator::{Generator, noise, unmigrated};
use support::load::load;
use support::redis_client::{Access, Endpoint};
use support::redis_cluster::Cluster;
use support::redis_server::{Options, Standalone};
use support::snapshot::snapshot;
use tokio::signal::unix::{SignalKind, signal};

/// Starts the servers that the tests use, and fills and counts keyspaces.
#[derive(Parser)]
#[command(name = "lab")]
struct Cli {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand)]
enum LabCommand {
    /// A Redis Cluster of three primaries and three replicas, until Ctrl-C.
    RedisCluster(Place),
    /// One Redis server without cluster mode, until Ctrl-C.
    Standalone(Place),
    /// etcd and kube-apiserver, until Ctrl-C.
    ControlPlane {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        kubernetes: Kubernetes,
    },
    /// Redis Cluster, control plane and a loaded keyspace, until Ctrl-C.
    Up {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        keyspace: KeyspaceArgs,
        #[command(flatten)]
        kubernetes: Kubernetes,
    },
    /// Writes a keyspace of Outpost before v0.6.
    Load {
        #[command(flatten)]
        keyspace: KeyspaceArgs,
        #[command(flatten)]
        redis: Redis,
    },
    /// Reads everything and counts it by kind.
    Snapshot(Redis),
}

#[derive(Args)]
struct Place {
    /// Folder for data, logs, kubeconfig files and the file `env`.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Args)]
struct Kubernetes {
    /// Start kube-controller-manager too: only with it are namespaces really deleted.
    #[arg(long)]
    with_controller_manager: bool,
}

#[derive(Args)]
struct KeyspaceArgs {
    /// How many tenants.
    #[arg(long, default_value_t = 1000)]
    tenants: usize,
    /// The same seed makes the same keyspace.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only tenants: no foreign keys, none that no rule maps.
    #[arg(long)]
    plain: bool,
}

#[derive(Args)]
struct Redis {
    /// The server, or any node of the cluster.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    redis: (String, u16),
    /// It is a cluster.
    #[arg(long)]
    cluster: bool,
}

impl Redis {
    fn endpoint(self) -> Endpoint {
        let (host, port) = self.redis;
        Endpoint { host, port, cluster: self.cluster, access: Access { password: password(), ..Access::default() } }
    }
}

/// The password of the servers; from the environment, since arguments show in process lists.
fn password() -> Option<String> {
    std::env::var("REDIS_PASSWORD").ok().filter(|password| !password.is_empty())
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("expected HOST:PORT")?;
    Ok((host.to_owned(), port.parse().map_err(|_| format!("{port} is no port"))?))
}

#[tokio::main]
async fn main() {
    match Cli::parse().command {
        LabCommand::RedisCluster(place) => {
            // Held until the end; what is dropped takes its servers down.
            let (_cluster, env) = start_cluster(&place.dir).await;
            stay(&place.dir, &env).await;
        }
        LabCommand::Standalone(place) => {
            let (_redis, env) = start_standalone(&place.dir).await;
            stay(&place.dir, &env).await;
        }
        LabCommand::ControlPlane { place, kubernetes } => {
            let (_control_plane, env) = start_control_plane(&place.dir, &kubernetes).await;
            stay(&place.dir, &env).await;
        }
        LabCommand::Up { place, keyspace, kubernetes } => {
            let ((cluster, mut env), (_control_plane, more)) =
                tokio::join!(start_cluster(&place.dir), start_control_plane(&place.dir, &kubernetes));
            fill(&cluster.endpoint(), &keyspace).await;
            env.extend(more);
            stay(&place.dir, &env).await;
        }
        LabCommand::Load { keyspace, redis } => fill(&redis.endpoint(), &keyspace).await,
        LabCommand::Snapshot(redis) => count(&redis.endpoint()).await,
    }
}

/// Variables for the shell.
type Env = Vec<(&'static str, String)>;

fn redis_env(endpoint: &Endpoint) -> Env {
    vec![
        ("REDIS_HOST", endpoint.host.clone()),
        ("REDIS_PORT", endpoint.port.to_string()),
        ("REDIS_CLUSTER_ENABLED", endpoint.cluster.to_string()),
    ]
}

async fn start_cluster(dir: &Path) -> (Cluster, Env) {
    let start = Instant::now();
    let options = Options { parent: Some(dir.to_owned()), password: password(), ..Options::default() };
    let cluster = Cluster::start(3, 1, options).await;
    let addresses: Vec<String> = (0..cluster.len()).map(|node| cluster.addr(node)).collect();
    say(start, &format!("Redis Cluster of 3 primaries and 3 replicas: {}", addresses.join(" ")));
    let env = redis_env(&cluster.endpoint());
    (cluster, env)
}

async fn start_standalone(dir: &Path) -> (Standalone, Env) {
    let start = Instant::now();
    let redis =
        Standalone::start(Options { parent: Some(dir.to_owned()), password: password(), ..Options::default() }).await;
    say(start, &format!("Redis server: {}", redis.addr()));
    let env = redis_env(&redis.endpoint());
    (redis, env)
}

async fn start_control_plane(dir: &Path, kubernetes: &Kubernetes) -> (ControlPlane, Env) {
    let start = Instant::now();
    let controller_manager = kubernetes.with_controller_manager;
    let options = ControlPlaneOptions { controller_manager, parent: Some(dir.to_owned()) };
    let control_plane = ControlPlane::start(options).await;
    let with = if controller_manager { " with controller manager" } else { "" };
    say(start, &format!("Kubernetes control plane{with}: {}", control_plane.url()));
    let env =
        [("KUBECONFIG", User::Admin), ("KUBECONFIG_OPERATOR", User::Operator), ("KUBECONFIG_EDITOR", User::Editor)]
            .map(|(variable, user)| (variable, control_plane.kubeconfig_path(user).display().to_string()));
    (control_plane, env.into())
}

async fn fill(endpoint: &Endpoint, keyspace: &KeyspaceArgs) {
    let start = Instant::now();
    let generator = Generator::new(keyspace.seed, keyspace.tenants);
    let mut keys = load(endpoint, generator.entries()).await;
    if !keyspace.plain {
        let others =
            noise(generator.now_ms).into_iter().chain(unmigrated().into_iter().map(|unmigrated| unmigrated.entry));
        keys += load(endpoint, others).await;
    }
    say(start, &format!("{} tenants loaded, {keys} keys", keyspace.tenants));
}

async fn count(endpoint: &Endpoint) {
    let start = Instant::now();
    let keyspace = snapshot(endpoint).await;
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for (key, entry) in keyspace.iter() {
        *counts.entry(kind(key, &entry.value)).or_default() += 1;
    }
    let of = |kind| counts.get(&kind).copied().unwrap_or_default();
    println!("sources {}\ntargets {}\nother {}", of(Kind::Source), of(Kind::Current), of(Kind::Other));
    say(start, &format!("{} keys read", keyspace.len()));
}

/// Writes `DIR/env`, says so, and waits until somebody ends the lab.
async fn stay(dir: &Path, env: &Env) {
    let file = dir.join("env");
    let lines: Vec<String> = env.iter().map(|(variable, value)| format!("export {variable}='{value}'\n")).collect();
    // All at once, so that a script that waits for the file never reads half of it.
    let draft = dir.join(".env.new");
    fs::write(&draft, lines.concat()).expect("the file env");
    fs::rename(&draft, &file).expect("the file env");
    eprintln!("lab: ready; `. {}` sets the variables, Ctrl-C ends the lab", file.display());

    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = pipe_closed() => {}
    }
    fs::remove_file(&file).expect("the file env");
    eprintln!("lab: ending");
}

/// Ends when whoever holds the other end of a pipe at standard input is gone. A terminal or
/// `/dev/null`, which the shell gives to background jobs, does not count.
async fn pipe_closed() {
    let is_pipe = fs::metadata("/proc/self/fd/0").is_ok_and(|stdin| stdin.file_type().is_fifo());
    if !is_pipe {
        return std::future::pending().await;
    }
    let (closed, end) = tokio::sync::oneshot::channel();
    // A thread of its own, not a runtime task: the runtime would wait for the blocking read at its end.
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while std::io::stdin().read(&mut buffer).is_ok_and(|count| count > 0) {}
        closed.send(())
    });
    let _ = end.await;
}

fn say(start: Instant, what: &str) {
    eprintln!("lab: {what} ({:.1} s)", start.elapsed().as_secs_f64());
}
