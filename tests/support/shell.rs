//! Drives the built program as a child process: a clean environment, an empty folder, everything captured.
//!
//! Whatever the program prints is checked on the way: no control characters, and never the canary, which the
//! tests put into every value and every password.

// Each test binary uses a part of it, as of the harness.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::support::process::{require, temp_dir};
use crate::support::redis_client::Endpoint;

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_outpost-migrate-redis");

/// Part of every value and every password of the tests: nothing that is printed may hold it.
pub const CANARY: &str = "c4n4ry";

/// Longest that one run may take; far more than any needs, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(90);

/// The program with what it is always called with.
#[derive(Debug)]
pub struct CommandLine {
    folder: TempDir,
    program: PathBuf,
    flags: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl CommandLine {
    /// Without any flag, in an empty folder; the environment is empty too.
    pub fn bare() -> Self {
        Self {
            folder: temp_dir("command-line-", None),
            program: PROGRAM.into(),
            flags: Vec::new(),
            environment: BTreeMap::new(),
        }
    }

    /// Pointed at a Redis, with all that it takes to be let in; the password goes through the environment.
    pub fn at(redis: &Endpoint) -> Self {
        let mut line = Self::bare().flags(&["--redis-host", &redis.host, "--redis-port", &redis.port.to_string()]);
        if redis.cluster {
            line = line.flags(&["--redis-cluster"]);
        }
        if let Some(username) = &redis.access.username {
            line = line.flags(&["--redis-username", username]);
        }
        if let Some(password) = &redis.access.password {
            line = line.env("REDIS_PASSWORD", password);
        }
        if let Some(tls) = &redis.access.tls {
            line = line
                .flags(&["--redis-tls", "--redis-tls-ca-file", &shown(&tls.ca)])
                .flags(&["--redis-tls-cert-file", &shown(&tls.client_cert)])
                .flags(&["--redis-tls-key-file", &shown(&tls.client_key)]);
        }
        line
    }

    /// With these flags before the subcommand, after those there are.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// With this variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Another program, such as a wrapper script.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// The folder in which it runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into its folder; answers the file's path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file in the folder of a command");
        path
    }

    /// Program, flags and arguments as words.
    pub fn words(&self, arguments: &[&str]) -> Vec<String> {
        let program = shown(&self.program);
        [program].into_iter().chain(self.flags.clone()).chain(arguments.iter().map(ToString::to_string)).collect()
    }

    /// The variables it gets; all others are unset.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Runs it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Done {
        self.start(arguments).finish().await
    }

    /// Starts it.
    pub fn start(&self, arguments: &[&str]) -> Started {
        let words = self.words(arguments);
        // The kernel ends it with the test.
        let mut command = Command::new(require("setpriv"));
        command.args(["--pdeathsig", "KILL", "--"]).args(&words);
        command.env_clear().envs(&self.environment).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program starts");
        let stdout = read_to_end(child.stdout.take().expect("standard output"));
        let stderr = read_to_end(child.stderr.take().expect("standard error"));
        let said = arguments.join(" ");
        Started { child, stdout, stderr, said, began: Instant::now() }
    }
}

fn shown(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn read_to_end(mut stream: impl AsyncReadExt + Unpin + Send + 'static) -> JoinHandle<Vec<u8>> {
    tokio::spawn(async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("output of the program");
        bytes
    })
}

/// The program at work.
#[derive(Debug)]
pub struct Started {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    said: String,
    began: Instant,
}

impl Started {
    /// Sends it a signal; panics if it has ended.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("a running program");
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a signal to the program");
    }

    /// Its process id; panics if it has ended.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("a running program")
    }

    /// Ends it at once (SIGKILL).
    pub async fn kill(mut self) {
        assert!(self.child.try_wait().expect("its state").is_none(), "{}: ended before it was killed", self.said);
        self.child.kill().await.expect("a kill");
    }

    /// Waits for its end; panics when that takes too long.
    pub async fn finish(mut self) -> Done {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("{}: no end within {PATIENCE:?}", self.said)).expect("an end");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output in UTF-8");
        let done = Done {
            code: status.code().unwrap_or_else(|| panic!("{}: ended by a signal", self.said)),
            stdout: text(self.stdout.await.expect("standard output")),
            stderr: text(self.stderr.await.expect("standard error")),
            took: self.began.elapsed(),
            said: self.said,
        };
        done.assert_plain();
        done
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Done {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    said: String,
}

impl Done {
    /// Panics with everything that was printed unless it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of {self}");
        self
    }

    /// Panics unless standard output holds this; several spaces, as tables have them, count as one.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(squeezed(&self.stdout).contains(&squeezed(text)), "{text:?} is not in the output of {self}");
        self
    }

    /// Panics unless standard output lacks this.
    #[track_caller]
    pub fn does_not_say(self, text: &str) -> Self {
        assert!(!self.stdout.contains(text), "{text:?} is in the output of {self}");
        self
    }

    /// Panics unless standard error is exactly one line, which starts with `error: ` and holds each of these.
    #[track_caller]
    pub fn fails_with(self, texts: &[&str]) -> Self {
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("error: "), "not one line that says the error: {self}");
        for text in texts {
            assert!(lines[0].contains(text), "{text:?} is not in the error of {self}");
        }
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// Standard output as one JSON object a line.
    #[track_caller]
    pub fn events(&self) -> Vec<Json> {
        let event = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("no event ({error}): {self}"));
        self.stdout.lines().map(event).collect()
    }

    /// The one event of that name.
    #[track_caller]
    pub fn event(&self, name: &str) -> Json {
        let mut found = self.events().into_iter().filter(|event| event["event"] == name);
        let first = found.next().unwrap_or_else(|| panic!("no event {name}: {self}"));
        assert!(found.next().is_none(), "more than one event {name}: {self}");
        first
    }

    /// Nothing that is piped holds control characters, and nothing at all a value or a password.
    #[track_caller]
    fn assert_plain(&self) {
        for text in [&self.stdout, &self.stderr] {
            let control = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
            assert!(control.is_none(), "the control character {control:?} is in {self}");
            assert!(!text.contains(CANARY), "a value or a password is in {self}");
        }
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr, said, .. } = self;
        write!(f, "`{said}` (exit code {code})\n--- standard output\n{stdout}\n--- standard error\n{stderr}")
    }
}

/// Each run of spaces as one space.
fn squeezed(text: &str) -> String {
    let lines =
        text.split('\n').map(|line| line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

/// The names of a JSON object's members, in the order of the alphabet.
#[track_caller]
pub fn names(object: &Json) -> Vec<&str> {
    let mut names: Vec<&str> = object.as_object().expect("a JSON object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
