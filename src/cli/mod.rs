//! The command line: one file a subcommand.
//!
//! Owns what is typed and what is printed. Speaks to the engine, never to Kubernetes.

pub mod crd;
pub mod operator;
pub mod ready;

use clap::{Parser, Subcommand, ValueEnum};

/// Moves the Redis keyspace of Outpost from schema to schema without losing a key.
#[derive(Debug, Parser)]
#[command(name = "outpost-migrate-redis", version, about, propagate_version = true)]
pub struct Cli {
    /// How log lines on standard error look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "LOG_FORMAT")]
    pub log_format: LogFormat,
    /// Log more.
    #[arg(long, global = true)]
    pub verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the `CustomResourceDefinition` of `RedisMigration`
    Crd,
    /// Run the Kubernetes operator
    Operator(operator::OperatorArgs),
    /// Ask whether an operator is ready, by its /readyz
    Ready(ready::ReadyArgs),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
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
