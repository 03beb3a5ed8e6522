//! Tells the build which commit it is made of: from the environment, where an image is built without the
//! repository, or from git.

use std::env;
use std::path::Path;
use std::process::Command;

const VARIABLE: &str = "OUTPOST_MIGRATE_COMMIT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    // A checkout beside another one has its log elsewhere; a file that is not there would mean a build each time.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit = env::var(VARIABLE).ok().filter(|commit| !commit.is_empty()).or_else(commit_of_checkout);
    println!("cargo::rustc-env={VARIABLE}={}", commit.as_deref().unwrap_or("unknown commit"));
}

fn commit_of_checkout() -> Option<String> {
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// What git answers, if it is there and answers anything.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
