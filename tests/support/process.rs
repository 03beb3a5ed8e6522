//! A child process that never outlives its test.
//!
//! Its output goes to a file; it is killed when the guard is dropped, and by the kernel when the
//! test process itself is killed.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

/// A running (or ended) child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts a command with its standard output and standard error in the file `log` (appended).
    ///
    /// Program, arguments, environment and folder of `command` count; its standard streams don't.
    pub fn start(command: &Command, log: &Path) -> Self {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let program = require(command.get_program());
        let output = File::options().create(true).append(true).open(log).expect("log file of a child process");

        let mut wrapped = Command::new(require("setpriv"));
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(program).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        wrapped.stdin(Stdio::null()).stdout(output.try_clone().expect("log file")).stderr(output);
        // Ctrl-C at a terminal is for the harness, which ends its children in order.
        wrapped.process_group(0);

        let child = spawn_from_lasting_thread(wrapped).unwrap_or_else(|error| panic!("starting {name}: {error}"));
        Self { name, child: Mutex::new(child), log: log.to_owned() }
    }

    /// The process id; `setpriv` replaces itself, so it is the program's own.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Sends a signal; does nothing if the process has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // An id that was waited for may belong to somebody else by now.
        if child.try_wait().expect("state of a child process").is_none() {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("process id");
            kill_process(pid, signal).unwrap_or_else(|error| panic!("signal to {}: {error}", self.name));
        }
    }

    /// How it ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("state of a child process")
    }

    /// Waits until it has ended by itself; `None` when time is up.
    pub async fn wait_exit(&self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks it to end (SIGTERM) and kills it if it has not ended within `grace`.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        match self.wait_exit(grace).await {
            Some(status) => status,
            None => self.kill(),
        }
    }

    /// Ends it at once (SIGKILL) and waits for its end.
    pub fn kill(&self) -> ExitStatus {
        let mut child = self.child();
        // Fails only if it has ended already.
        let _ = child.kill();
        child.wait().expect("end of a killed process")
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Panics with the end of its log if it has ended.
    pub fn assert_running(&self) {
        if let Some(status) = self.exit_status() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            panic!("{} ended unexpectedly ({status}); its last words:\n{}", self.name, tail.join("\n"));
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A fresh folder that is removed when dropped, inside `parent` if there is one.
pub fn temp_dir(prefix: &str, parent: Option<&Path>) -> TempDir {
    let parent = parent.map_or_else(env::temp_dir, Path::to_owned);
    fs::create_dir_all(&parent).unwrap_or_else(|error| panic!("creating {}: {error}", parent.display()));
    // Absolute, since servers change their working folder.
    let parent = parent.canonicalize().expect("parent of a temporary folder");
    tempfile::Builder::new().prefix(prefix).tempdir_in(parent).expect("temporary folder")
}

/// Runs a short-lived helper program to its end; panics with its output if it fails.
pub fn run(command: &mut Command) -> String {
    require(command.get_program());
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed ({}): {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The full path of a program; panics with the way to install it if it is missing.
pub fn require(program: impl AsRef<OsStr>) -> PathBuf {
    let program = Path::new(program.as_ref());
    let found = if program.components().count() > 1 {
        Some(program.to_owned()).filter(|path| path.is_file())
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
    };
    found.unwrap_or_else(|| panic!("{} is missing: {}", program.display(), how_to_install(program)))
}

fn how_to_install(program: &Path) -> &'static str {
    match program.file_name().and_then(OsStr::to_str) {
        Some("redis-server") if program.is_absolute() => "run tests/install.sh redis",
        Some("redis-server" | "redis-cli") => "apt-get install redis-server (7.0 or newer)",
        Some("etcd") => "apt-get install etcd-server, then tests/kubernetes/build.sh",
        Some("setpriv") => "apt-get install util-linux",
        Some("openssl") => "apt-get install openssl",
        Some("kube-apiserver" | "kube-controller-manager" | "kubectl") => {
            "run tests/kubernetes/build.sh, or point KUBEBUILDER_ASSETS at a folder that has it"
        }
        _ => "build or install it",
    }
}

type SpawnRequest = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns from one thread that lives as long as the test process: the kernel sends the parent-death
/// signal when the spawning *thread* ends, and each test runs on a thread of its own.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<SpawnRequest>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<SpawnRequest>();
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    // A requester that is gone drops the child's handle; the kernel ends the child with us.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("thread for child processes");
        requests
    });
    let (answer, result) = mpsc::channel();
    spawner.send((command, answer)).expect("thread for child processes");
    result.recv().expect("thread for child processes")
}
