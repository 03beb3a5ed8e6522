//! The product's binary as a child process, told of one Redis.
//!
//! Each call has a folder of its own to run in, without configuration files, and no variable of the
//! test's environment that the product would read.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, temp_dir};
use super::redis_client::Endpoint;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a call ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output and standard error, as they came.
    pub said: String,
}

impl Ran {
    /// Panics with what was said unless the exit code is this one.
    #[track_caller]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "it said: {}", self.said);
        self
    }

    /// Panics unless this was said.
    #[track_caller]
    pub fn assert_said(&self, text: &str) -> &Self {
        assert!(self.said.contains(text), "not said: {text:?}, but: {}", self.said);
        self
    }
}

/// The binary, and the Redis it is told of.
#[derive(Debug)]
pub struct CommandLine {
    program: &'static str,
    options: Vec<String>,
    folder: TempDir,
    calls: AtomicUsize,
}

impl CommandLine {
    /// A program that is told of this Redis; without password and TLS.
    pub fn new(program: &'static str, redis: &Endpoint) -> Self {
        let mut options = vec![format!("--redis-host={}", redis.host), format!("--redis-port={}", redis.port)];
        options.extend(redis.cluster.then(|| "--redis-cluster".to_owned()));
        Self { program, options, folder: temp_dir("command-line-", None), calls: AtomicUsize::new(0) }
    }

    /// With one more option in each call.
    pub fn with(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Begins a call.
    pub fn start(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(self.program);
        command.args(&self.options).args(arguments).current_dir(self.folder.path());
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let is_read =
            |name: &String| name.starts_with("REDIS_") || ["CONFIG", "DEPLOYMENT_ID"].contains(&name.as_str());
        names.filter(is_read).for_each(|name| {
            command.env_remove(name);
        });
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Process::start(&command, &self.folder.path().join(format!("call-{number}.log")))
    }

    /// Waits for a call's end.
    pub async fn end(process: &Process) -> Ran {
        let status = process.wait_exit(PATIENCE).await;
        let said = process.log();
        let status = status.unwrap_or_else(|| panic!("it did not end within {PATIENCE:?}: {said}"));
        Ran { code: status.code(), said }
    }

    /// Calls.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        Self::end(&self.start(arguments)).await
    }
}
