//! `man`: the manual page.

use std::io;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::cli::failure::{ExitCode, Failure};

/// Prints the page.
pub(super) fn run() -> Result<ExitCode, Failure> {
    clap_mangen::Man::new(Cli::command())
        .render(&mut io::stdout().lock())
        .map_err(|error| Failure::new(ExitCode::NotDone, format!("standard output can't be written: {error}")))?;
    Ok(ExitCode::Done)
}
