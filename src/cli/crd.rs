//! `crd`: prints the `CustomResourceDefinition`.

use std::io::{self, Write as _};

use crate::api::crd::crd_yaml;
use crate::cli::failure::{ExitCode, Failure};

/// Prints the definition on standard output.
pub(super) fn run() -> Result<ExitCode, Failure> {
    crd_yaml()
        .map_err(io::Error::other)
        .and_then(|yaml| io::stdout().lock().write_all(yaml.as_bytes()))
        .map_err(|error| Failure::new(ExitCode::NotDone, error))?;
    Ok(ExitCode::Done)
}
