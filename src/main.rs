//! Parses the command line, sets up telemetry, dispatches, and turns the result into an exit code.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use outpost_migrate_redis::cli::operator::OperatorArgs;
use outpost_migrate_redis::cli::{Cli, Command, LogFormat, crd, ready};
use outpost_migrate_redis::operator;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong usage or configuration.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_standard_error(&cli);
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail(1, "no TLS provider could be installed");
    }
    match cli.command {
        Command::Crd => crd::run().map_or_else(|error| fail(1, error), |()| ExitCode::SUCCESS),
        Command::Operator(args) => run_operator(args).await,
        Command::Ready(args) => ready::run(&args).await.map_or_else(|error| fail(1, error), |()| ExitCode::SUCCESS),
    }
}

async fn run_operator(args: OperatorArgs) -> ExitCode {
    let settings = match args.settings() {
        Ok(settings) => settings,
        Err(error) => return fail(USAGE, error),
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone()));
    match operator::start(settings, shutdown).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(USAGE, error),
    }
}

async fn cancel_on_signal(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals can't be watched; stop with SIGKILL, locks end by themselves");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.cancel();
}

fn log_to_standard_error(cli: &Cli) {
    let level = if cli.verbose { "debug" } else { "info" };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,outpost_migrate_redis={level}")));
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match cli.log_format {
        LogFormat::Text => logger.with_target(false).init(),
        LogFormat::Json => logger.json().init(),
    }
}

fn fail(code: u8, error: impl Display) -> ExitCode {
    eprintln!("outpost-migrate-redis: {error}");
    ExitCode::from(code)
}
