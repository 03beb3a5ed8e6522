//! Runs the program at a pseudo-terminal, as a person would: reads what it draws, types answers.

// Each test binary uses a part of it, as of the harness.
#![allow(dead_code, unreachable_pub)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};

use crate::shell::CommandLine;
use crate::support::process::require;
use crate::support::wait::eventually;

/// Ctrl-C as it is typed.
pub const CTRL_C: &str = "\u{3}";

/// Longest that anything may take to appear; far more than any needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program at a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts the program with its standard streams at a new terminal of 120 columns, which controls it.
    pub fn start(line: &CommandLine, arguments: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&ours).expect("a pseudo-terminal");
        unlockpt(&ours).expect("a pseudo-terminal");
        tcsetwinsize(&ours, Winsize { ws_row: 30, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).expect("its size");
        let name = ptsname(&ours, Vec::new()).expect("its name").into_string().expect("its name");
        let theirs = OpenOptions::new().read(true).write(true).open(name).expect("the other end");

        // setsid makes the terminal the one that controls the program, so that Ctrl-C becomes a signal.
        let mut command = Command::new(require("setpriv"));
        command.args(["--pdeathsig", "KILL", "--"]).arg(require("setsid")).args(["--ctty", "--wait"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).args(line.words(arguments));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("TERM", "xterm-256color").envs(line.environment()).current_dir(line.folder());
        command.stdin(Stdio::from(theirs.try_clone().expect("the other end")));
        command.stdout(Stdio::from(theirs.try_clone().expect("the other end"))).stderr(Stdio::from(theirs));
        let child = command.kill_on_drop(true).spawn().expect("the program starts");

        let keyboard = File::from(ours);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, shown) = (keyboard.try_clone().expect("the terminal"), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The read fails when the last program at the other end is gone.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                shown.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, keyboard, screen }
    }

    /// Everything drawn so far, control characters included.
    pub fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until this is drawn.
    pub async fn wait_for(&self, text: &str) {
        let drawn = || self.drawn();
        let found = tokio::time::timeout(PATIENCE, async {
            eventually(PATIENCE * 2, text, async || drawn().contains(text).then_some(())).await;
        });
        assert!(found.await.is_ok(), "{text:?} does not appear; drawn so far:\n{}", self.drawn());
    }

    /// Types this.
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("typing");
    }

    /// Waits for the program's end; answers its exit code and everything it drew.
    pub async fn finish(mut self) -> (i32, String) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("no end; drawn so far:\n{}", self.drawn())).expect("an end");
        // What was drawn last is read by a thread of its own: the next read that finds nothing new is the end.
        let mut before = usize::MAX;
        let settled = eventually(PATIENCE, "the end of what is drawn", async || {
            let drawn = self.drawn();
            let is_settled = drawn.len() == before;
            before = drawn.len();
            is_settled.then_some(drawn)
        });
        let drawn = settled.await;
        (status.code().unwrap_or_else(|| panic!("ended by a signal; drawn:\n{drawn}")), drawn)
    }
}
