//! Whole commands of the program as people run them, from the start of the process to its end.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::keys::Keys;
use crate::operator::BINARY;
use crate::report::{Line, Report};

/// How often the resident size is read; the kernel remembers the highest, so only the last moments can be missed.
const POLL: Duration = Duration::from_millis(2);

/// Once each: shares are measured step by step elsewhere.
pub async fn measure(place: &str, keys: &Keys, report: &mut Report) {
    keys.reload().await;
    for words in [&["plan"][..], &["apply", "--yes"], &["verify"], &["cleanup", "--yes"]] {
        let (seconds, peak) = run(keys, words);
        let rate = keys.pairs.len() as f64 / seconds;
        report.push(Line::new(place, format!("command: {}", words[0]), rate, "keys/s").peak(peak));
    }
}

fn run(keys: &Keys, words: &[&str]) -> (f64, u64) {
    let mut command = Command::new(BINARY);
    command.args(words).args(["--redis-host", &keys.redis.host, "--redis-port", &keys.redis.port.to_string()]);
    command.arg(format!("--redis-cluster={}", keys.redis.cluster));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().expect("the program");
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("state of a child process") {
            break status;
        }
        peak = highest(child.id()).unwrap_or(0).max(peak);
        thread::sleep(POLL);
    };
    let seconds = began.elapsed().as_secs_f64();
    assert!(status.success(), "{words:?} failed ({status})");
    (seconds, peak)
}

/// Nothing once the process has ended.
fn highest(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
