//! Parses the command line, sets up telemetry, dispatches, and turns the result into an exit code.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use outpost_migrate_redis::cli::{self, Cli, LogFormat};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_standard_error(&cli);
    keep_pages_small();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::error!("no TLS provider could be installed");
        return cli::ExitCode::Usage.into();
    }
    let stop = CancellationToken::new();
    let twice = CancellationToken::new();
    tokio::spawn(cancel_on_signals(stop.clone(), twice.clone()));
    let done = tokio::select! {
        done = cli.run(stop) => done,
        () = twice.cancelled() => {
            let message = "left at once, without finishing the batch: if the lock is still there, \
                           `outpost-migrate-redis unlock` shows and frees it";
            Err(cli::Failure::new(cli::ExitCode::NotDone, message))
        }
    };
    match done {
        Ok(code) => code.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.code.into()
        }
    }
}

/// Huge pages, which the allocator asks for, hold much more memory than is in use: of an idle operator nearly half.
fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("memory stays in huge pages: {error}");
    }
}

/// The first signal asks for an end after the batch under way, the second for one at once.
async fn cancel_on_signals(stop: CancellationToken, twice: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals can't be watched; stop with SIGKILL, locks end by themselves");
        return;
    };
    either(&mut terminate, &mut interrupt).await;
    stop.cancel();
    either(&mut terminate, &mut interrupt).await;
    twice.cancel();
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
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
