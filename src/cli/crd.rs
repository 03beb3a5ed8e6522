//! `crd`: prints the `CustomResourceDefinition`.

use std::io::{self, Write as _};

use crate::api::crd::crd_yaml;

/// Prints the definition on standard output.
///
/// # Errors
/// When standard output can't be written.
pub fn run() -> io::Result<()> {
    let yaml = crd_yaml().map_err(io::Error::other)?;
    io::stdout().lock().write_all(yaml.as_bytes())
}
