//! The product's steps, each measured in a process of its own, so that memory and processor time are theirs alone.
//!
//! Owns both ends: the child runs steps by the library with the program's own allocator and prints what they cost;
//! the parent starts it and reads that.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::policy::Limits;
use serde::{Deserialize, Serialize};

use crate::support::engine::{Bench, Held, Reins};
use crate::support::redis_client::{Access, Endpoint};

/// Ticks of `/proc/PID/stat` in a second; Linux has had no other number for programs for decades.
const TICKS: f64 = 100.0;

/// Longer than any step is away from the processor on a busy machine.
const LEASE: Duration = Duration::from_secs(60);

/// What the child is to do.
#[derive(Debug, Clone, Args)]
pub struct Order {
    /// Which steps.
    #[arg(value_enum)]
    pub walk: Walk,
    #[arg(long)]
    pub port: u16,
    #[arg(long)]
    pub cluster: bool,
    /// The key layout that takes along whatever a tenant has, of any type.
    #[arg(long)]
    pub tenant_tag: bool,
    /// Limit of the apply.
    #[arg(long)]
    pub keys_per_second: Option<u32>,
    /// Limit of the apply.
    #[arg(long)]
    pub max_latency_ms: Option<u64>,
    /// Ends the apply politely after so many seconds.
    #[arg(long)]
    pub seconds: Option<f64>,
}

/// Steps that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Walk {
    /// Plan, apply, apply again, prove and mark.
    Migrate,
    /// Plan and apply, no more.
    Apply,
    /// Compare everything again, then clean up.
    CleanUp,
}

/// What one step cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cost {
    pub step: String,
    /// When it began, in seconds since 1970.
    pub began: f64,
    pub seconds: f64,
    /// Processor seconds of the child.
    pub client_cpu: f64,
    /// Processor seconds of all primaries together.
    pub server_cpu: f64,
    /// Highest resident size in bytes while the step ran.
    pub peak: u64,
    /// Entries worked on.
    pub entries: u64,
}

impl Order {
    /// An order without limits.
    pub fn new(redis: &Endpoint, walk: Walk) -> Self {
        Self {
            walk,
            port: redis.port,
            cluster: redis.cluster,
            tenant_tag: false,
            keys_per_second: None,
            max_latency_ms: None,
            seconds: None,
        }
    }

    /// Runs the child to its end.
    pub fn run(&self) -> Vec<Cost> {
        let output = self.command().output().expect("a child process");
        assert!(output.status.success(), "{self:?} failed ({})", output.status);
        serde_json::from_slice(&output.stdout).expect("costs from the child")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        let walk = clap::ValueEnum::to_possible_value(&self.walk).expect("a named walk");
        command.args(["step", walk.get_name(), "--port", &self.port.to_string()]);
        if self.cluster {
            command.arg("--cluster");
        }
        if self.tenant_tag {
            command.arg("--tenant-tag");
        }
        if let Some(rate) = self.keys_per_second {
            command.args(["--keys-per-second", &rate.to_string()]);
        }
        if let Some(latency) = self.max_latency_ms {
            command.args(["--max-latency-ms", &latency.to_string()]);
        }
        if let Some(seconds) = self.seconds {
            command.args(["--seconds", &seconds.to_string()]);
        }
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    /// The child's side: does it and prints what it cost.
    pub async fn obey(self) {
        let redis = Endpoint::local(self.port, self.cluster, Access::default());
        let key_layout = if self.tenant_tag { KeyLayout::TenantTag } else { KeyLayout::Outpost };
        let mut bench = Bench::with_layout(&redis, key_layout);
        bench.life = LEASE;
        let costs = match self.walk {
            Walk::Migrate => migrate(&bench).await,
            Walk::Apply => self.apply(&bench).await,
            Walk::CleanUp => clean_up(&bench).await,
        };
        println!("{}", serde_json::to_string(&costs).expect("JSON"));
    }

    async fn apply(&self, bench: &Bench) -> Vec<Cost> {
        let max_latency = self.max_latency_ms.map(Duration::from_millis);
        let limits = Limits { keys_per_second: self.keys_per_second, max_latency };
        let reins = Reins::new(limits);
        let held = bench.hold().await;
        let (plan, run) = held.begin(&Reins::new(Limits::default()).control).await.expect("a plan");
        if let Some(seconds) = self.seconds {
            let stop = reins.stop.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                stop.cancel();
            });
        }
        let watch = Stopwatch::start(bench).await;
        let entries = match held.apply(&reins.control, &plan, &run).await {
            Ok(report) => report.processed(),
            Err(Stop::Interrupted) => reins.progress.borrow().as_ref().map_or(0, |progress| progress.processed),
            Err(stop) => panic!("apply stopped: {stop:?}"),
        };
        let cost = watch.stop("apply", entries).await;
        held.release().await;
        vec![cost]
    }
}

async fn migrate(bench: &Bench) -> Vec<Cost> {
    let reins = Reins::new(Limits::default());
    let control = &reins.control;
    let held: Held<'_> = bench.hold().await;

    let watch = Stopwatch::start(bench).await;
    let (plan, run) = held.begin(control).await.expect("a plan");
    let sources = plan.seen.total_sources();
    let planned = watch.stop("plan", sources).await;

    let watch = Stopwatch::start(bench).await;
    let report = held.apply(control, &plan, &run).await.expect("an apply");
    assert_eq!(report.copied, sources, "every source was copied");
    let applied = watch.stop("apply", sources).await;

    let watch = Stopwatch::start(bench).await;
    let report = held.apply(control, &plan, &run).await.expect("an apply of finished data");
    assert_eq!(report.already_migrated, sources, "nothing was left to copy");
    let resumed = watch.stop("resume", sources).await;

    let watch = Stopwatch::start(bench).await;
    let proof = held.prove(control, &plan, &run).await.expect("a proof");
    let verified = watch.stop("verify", sources).await;
    held.mark(proof).await.expect("a mark");
    held.release().await;
    vec![planned, applied, resumed, verified]
}

async fn clean_up(bench: &Bench) -> Vec<Cost> {
    let watch = Stopwatch::start(bench).await;
    let report = bench.compare().await.expect("a comparison");
    let compared = watch.stop("verify again", report.processed()).await;

    let held = bench.hold().await;
    let watch = Stopwatch::start(bench).await;
    let report = held.cleanup(&Reins::new(Limits::default()).control).await.expect("a cleanup");
    let removed = watch.stop("cleanup", report.removed).await;
    held.release().await;
    vec![compared, removed]
}

/// Costs from now on.
struct Stopwatch {
    redis: Endpoint,
    began: Instant,
    began_unix: f64,
    client_cpu: f64,
    server_cpu: f64,
}

impl Stopwatch {
    async fn start(bench: &Bench) -> Self {
        let redis = bench.redis.clone();
        let server_cpu = server_cpu(&redis).await;
        // The highest resident size starts over.
        fs::write("/proc/self/clear_refs", "5").expect("the highest resident size starts over");
        Self { redis, server_cpu, client_cpu: own_cpu(), began_unix: unix_now(), began: Instant::now() }
    }

    async fn stop(self, step: &str, entries: u64) -> Cost {
        let seconds = self.began.elapsed().as_secs_f64();
        let client_cpu = own_cpu() - self.client_cpu;
        let peak = status_bytes("self", "VmHWM");
        let server_cpu = server_cpu(&self.redis).await - self.server_cpu;
        Cost { step: step.to_owned(), began: self.began_unix, seconds, client_cpu, server_cpu, peak, entries }
    }
}

/// Seconds since 1970, the only clock that two processes share without further ado.
pub fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs_f64()
}

async fn server_cpu(redis: &Endpoint) -> f64 {
    let mut sum = 0.0;
    for mut primary in redis.primaries().await {
        let info: String =
            redis::cmd("INFO").arg("cpu").query_async(&mut primary.connection).await.expect("INFO of a primary");
        let fields = ["used_cpu_user:", "used_cpu_sys:"];
        let of = |field: &str| info.lines().find_map(|line| line.strip_prefix(field)?.trim().parse::<f64>().ok());
        sum += fields.iter().map(|field| of(field).expect("processor time")).sum::<f64>();
    }
    sum
}

fn own_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc/self/stat");
    // The name in brackets may hold spaces; user and system time are the 12th and 13th column after it.
    let (_, columns) = stat.rsplit_once(')').expect("/proc/self/stat");
    columns.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / TICKS
}

/// A line of `/proc/PID/status` in bytes.
pub fn status_bytes(pid: &str, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc/PID/status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("a field of status");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * 1024
}
