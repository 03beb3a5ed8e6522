//! The command line: one file a subcommand.
//!
//! Owns what is typed and what is printed. Its commands speak to the engine and the gate, never to
//! Kubernetes; only `operator` and `crd` hand over to those who do.

mod apply;
mod cleanup;
mod completions;
mod crd;
mod failure;
mod init;
mod list;
mod lost_expiry;
mod man;
mod operator;
mod plan;
mod progress;
mod prompt;
mod ready;
mod screen;
mod session;
mod status;
mod unlock;
mod verify;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

pub use failure::{ExitCode, Failure};

use crate::config::ConfigurationFlags;

/// Version and commit of this build.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("OUTPOST_MIGRATE_COMMIT"), ")");

const AFTER_HELP: &str = "\
Exit codes:
  0  done, or current
  1  pending, not verified, declined, or conflicts
  2  wrong usage or configuration
  3  Redis can't be reached, or refused us
  4  somebody else holds the lock

Examples:
  outpost-migrate-redis plan
  outpost-migrate-redis --redis-host redis.example --redis-tls apply
  outpost-migrate-redis init --current --wait 10m";

/// Moves the Redis keyspace of Outpost from schema to schema without losing a key.
#[derive(Debug, Parser)]
#[command(
    name = "outpost-migrate-redis",
    version = VERSION,
    about,
    propagate_version = true,
    after_help = AFTER_HELP,
    max_term_width = 100
)]
pub struct Cli {
    /// Which Redis, and what else holds for every command.
    #[command(flatten)]
    pub configuration: ConfigurationFlags,
    /// How results on standard output look
    #[arg(long, global = true, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    pub output: Output,
    /// How log lines on standard error look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT", env = "LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Log more, and show the configuration in force and where each value came from
    #[arg(long, global = true)]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mark a fresh Redis as current, or say what is pending (what Outpost's pods run as init container)
    Init(init::InitArgs),
    /// List the migrations and where each stands
    #[command(after_help = "Example:\n  outpost-migrate-redis list --output json")]
    List,
    /// Show what apply would do; writes nothing
    Plan(plan::PlanArgs),
    /// Apply the next pending migration: plan, ask, copy, compare everything, mark
    Apply(apply::ApplyArgs),
    /// Compare every entry by value; writes nothing
    Verify(verify::VerifyArgs),
    /// Remove originals that equal their targets
    Cleanup(cleanup::CleanupArgs),
    /// Show who holds the lock, and take it away
    Unlock(unlock::UnlockArgs),
    /// Show where each migration stands, who holds the lock, and what to do next
    #[command(after_help = "Example:\n  outpost-migrate-redis status --redis-host redis.example --redis-cluster")]
    Status,
    /// Run the Kubernetes operator
    Operator(operator::OperatorArgs),
    /// Ask whether an operator is ready, by its /readyz
    Ready(ready::ReadyArgs),
    /// Print the `CustomResourceDefinition` of `RedisMigration`
    #[command(after_help = "Example:\n  outpost-migrate-redis crd | kubectl apply -f -")]
    Crd,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page
    #[command(after_help = "Example:\n  outpost-migrate-redis man | man -l -")]
    Man,
}

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// JSON: one document, or one object a line for commands that take their time.
    Json,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Cli {
    /// Does what was typed; `stop` ends it after the batch under way.
    ///
    /// # Errors
    /// Why it was not done, with its exit code.
    pub async fn run(self, stop: CancellationToken) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Operator(args) => return Box::pin(operator::run(args, &self.configuration, stop)).await,
            Command::Ready(args) => return ready::run(&args).await,
            Command::Crd => return crd::run(),
            Command::Completions(args) => return completions::run(&args),
            Command::Man => return man::run(),
            Command::Init(_)
            | Command::List
            | Command::Plan(_)
            | Command::Apply(_)
            | Command::Verify(_)
            | Command::Cleanup(_)
            | Command::Unlock(_)
            | Command::Status => {}
        }
        let screen = screen::Screen::new(self.output);
        let desk = session::Desk::read(&self.configuration, self.verbose, screen, stop)?;
        match self.command {
            Command::Init(args) => Box::pin(init::run(&desk, &args)).await,
            Command::List => Box::pin(list::run(&desk)).await,
            Command::Plan(args) => Box::pin(plan::run(&desk, &args)).await,
            Command::Apply(args) => Box::pin(apply::run(&desk, &args)).await,
            Command::Verify(args) => Box::pin(verify::run(&desk, &args)).await,
            Command::Cleanup(args) => Box::pin(cleanup::run(&desk, &args)).await,
            Command::Unlock(args) => Box::pin(unlock::run(&desk, &args)).await,
            Command::Status => Box::pin(status::run(&desk)).await,
            Command::Operator(_) | Command::Ready(_) | Command::Crd | Command::Completions(_) | Command::Man => {
                Ok(ExitCode::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
