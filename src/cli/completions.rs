//! `completions`: a completion script for a shell.

use std::io;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::cli::failure::{ExitCode, Failure};

const EXAMPLES: &str = "\
Example:
  outpost-migrate-redis completions bash > /etc/bash_completion.d/outpost-migrate-redis";

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script.
#[allow(clippy::unnecessary_wraps, reason = "as every command")]
pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut io::stdout().lock());
    Ok(ExitCode::Done)
}
