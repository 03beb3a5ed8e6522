//! The benchmark: every figure a share of a limit that was measured in the same run, on the same server, with the
//! same keys. `run.sh` runs it; README.md beside it says what the lines mean.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]
// Rates and shares: 52 bits of a count are plenty.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/operator.rs"]
mod operator;

mod commands;
mod gate;
mod huge;
mod idle;
mod keys;
mod latency;
mod limits;
mod raw;
mod report;
mod rounds;
mod steps;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use keys::Keys;
use report::Report;
use rounds::{Rounds, compared, copied};
use steps::Order;
use support::redis_client::{Access, Endpoint};
use support::redis_cluster::Cluster;
use support::redis_server::{Options, Standalone};

// The program's own allocator: memory and speed are measured as they are shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Entries of a check: enough for tenths of seconds a step.
const CHECKED: usize = 60_000;

/// The least shares that a check lets pass, about 60 % of the least that was measured on two cores.
const FLOORS: [(&str, f64); 3] = [("standalone apply", 0.13), ("cluster apply", 0.16), ("standalone verify", 0.20)];

/// Measures outpost-migrate-redis against what Redis can do.
#[derive(Parser)]
#[command(name = "tests/bench/run.sh", args_conflicts_with_subcommands = true)]
struct Cli {
    /// Entries in the keyspace: 100k, 1m, 10m or a number.
    #[arg(long, default_value = "100k", value_parser = entries)]
    entries: usize,
    /// Rounds of limit and ours; the table has medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// These parts alone.
    #[arg(long, value_enum, num_args = 1..)]
    only: Vec<Part>,
    /// Writes the results here too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Fails if a share is below its floor; measures nothing else.
    #[arg(long)]
    check: bool,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

#[derive(Subcommand)]
enum Child {
    /// One process of a measurement.
    #[command(hide = true)]
    Step(Order),
    /// Loads the keyspace into servers that run already, to look at single steps with a profiler.
    #[command(hide = true)]
    Load {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        cluster: bool,
        #[arg(long, value_parser = entries)]
        entries: usize,
    },
}

/// Parts of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Validate,
    Standalone,
    Cluster,
    Commands,
    Latency,
    Huge,
    Gate,
    Operator,
}

fn entries(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.to_ascii_lowercase().split_at_checked(text.len().saturating_sub(1)) {
        Some((digits, "k")) => (digits.to_owned(), 1000),
        Some((digits, "m")) => (digits.to_owned(), 1_000_000),
        _ => (text.to_owned(), 1),
    };
    let number: usize = digits.parse().map_err(|_| format!("{text} is no number of entries"))?;
    if number == 0 { Err("at least one entry".to_owned()) } else { Ok(number * unit) }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // As the program does.
    rustix::thread::disable_transparent_huge_pages(true).expect("pages stay small");
    match cli.child {
        Some(Child::Step(order)) => {
            order.obey().await;
            return ExitCode::SUCCESS;
        }
        Some(Child::Load { port, cluster, entries }) => {
            Keys::load(Endpoint::local(port, cluster, Access::default()), entries).await;
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    if cli.check {
        return check().await;
    }
    let report = measure(&cli).await;
    report.print(cli.entries);
    if let Some(path) = &cli.json {
        report.write(cli.entries, path);
    }
    ExitCode::SUCCESS
}

async fn measure(cli: &Cli) -> Report {
    let mut report = Report::default();
    let wanted = |part: Part| cli.only.is_empty() || cli.only.contains(&part);
    if [Part::Validate, Part::Standalone, Part::Commands, Part::Latency].into_iter().any(wanted) {
        let server = Standalone::start(Options::default()).await;
        let keys = Keys::load(server.endpoint(), cli.entries).await;
        if wanted(Part::Validate) {
            validate::measure(server.port(), &keys, &mut report).await;
        }
        if wanted(Part::Standalone) {
            Rounds::run("standalone", &keys, cli.rounds).await.tell(&mut report);
        }
        if wanted(Part::Commands) {
            commands::measure("standalone", &keys, &mut report).await;
        }
        if wanted(Part::Latency) {
            latency::measure(&keys, &mut report).await;
        }
    }
    if wanted(Part::Cluster) || wanted(Part::Commands) {
        let cluster = Cluster::start(3, 0, Options::default()).await;
        let keys = Keys::load(cluster.endpoint(), cli.entries).await;
        if wanted(Part::Cluster) {
            Rounds::run("cluster of 3", &keys, cli.rounds).await.tell(&mut report);
        }
        if wanted(Part::Commands) {
            commands::measure("cluster of 3", &keys, &mut report).await;
        }
    }
    if wanted(Part::Huge) {
        huge::measure(&mut report).await;
    }
    if wanted(Part::Gate) {
        gate::measure([cli.entries / 100, cli.entries], &mut report).await;
    }
    // A control plane has to be there, and costs a minute: by hand.
    if cli.only.contains(&Part::Operator) {
        idle::measure(&mut report).await;
    }
    report
}

async fn check() -> ExitCode {
    let server = Standalone::start(Options::default()).await;
    let keys = Keys::load(server.endpoint(), CHECKED).await;
    let standalone = Rounds::run("standalone", &keys, 3).await;
    drop(server);
    let cluster = Cluster::start(3, 0, Options::default()).await;
    let keys = Keys::load(cluster.endpoint(), CHECKED).await;
    let clustered = Rounds::run("cluster of 3", &keys, 3).await;
    let shares =
        [standalone.share("apply", copied), clustered.share("apply", copied), standalone.share("verify", compared)];
    let mut code = ExitCode::SUCCESS;
    for ((name, floor), share) in FLOORS.into_iter().zip(shares) {
        let verdict = if share < floor {
            code = ExitCode::FAILURE;
            "TOO SLOW"
        } else {
            "fast enough"
        };
        println!("{name}: {:.0} % of the limit, at least {:.0} %: {verdict}", share * 100.0, floor * 100.0);
    }
    code
}
