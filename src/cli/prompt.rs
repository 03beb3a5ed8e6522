//! Asks a person, where there is one.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::cli::failure::{ExitCode, Failure};

/// Who has said yes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Approval {
    /// Nobody yet.
    Open,
    /// `--yes`, whatever is found: nobody reads what is asked.
    ByFlag,
    /// A person, who can be asked more.
    ByPerson,
}

impl Approval {
    pub(super) fn by(yes: bool) -> Self {
        if yes { Self::ByFlag } else { Self::Open }
    }

    pub(super) fn is_given(self) -> bool {
        match self {
            Self::Open => false,
            Self::ByFlag | Self::ByPerson => true,
        }
    }

    /// Whether somebody may be asked about what was found.
    pub(super) fn has_reader(self) -> bool {
        match self {
            Self::ByFlag => false,
            Self::Open | Self::ByPerson => true,
        }
    }
}

/// Whether a command that would ask may ask: refuses before anything is done if nobody could answer.
///
/// # Errors
/// Without a terminal and without `--yes`.
pub(super) fn check_answerable(yes: bool) -> Result<(), Failure> {
    if yes || io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Usage, "standard input is no terminal, so nobody can be asked: add --yes to go ahead"))
}

/// Asks, unless `yes` has answered already. Anything but yes is no.
///
/// # Errors
/// When it is stopped while it waits for the answer.
pub(super) async fn confirm(question: &str, yes: bool, stop: &CancellationToken) -> Result<bool, Failure> {
    if yes {
        return Ok(true);
    }
    let _ = write!(anstream::stderr().lock(), "{question} [y/N] ");
    tokio::select! {
        answer = read_line() => Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")),
        () = stop.cancelled() => {
            let _ = writeln!(anstream::stderr().lock());
            Err(Failure::new(ExitCode::NotDone, "interrupted at the question; no entry was touched"))
        }
    }
}

/// Reads on a thread of its own, which nobody waits for: a read from a terminal can't be taken back.
async fn read_line() -> String {
    let (sender, answer) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        let _ = sender.send(if read.is_ok() { line } else { String::new() });
    });
    answer.await.unwrap_or_default()
}
