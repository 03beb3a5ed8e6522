//! Is the limit's client any good? The same commands by it and by `redis-benchmark -P 100`.

use std::process::Command;
use std::time::Instant;

use crate::keys::Keys;
use crate::raw::{self, LANES, PIPELINE};
use crate::report::{Line, Report, median};

const COMMANDS: usize = 300_000;

/// Interleaved, three times.
pub async fn measure(port: u16, keys: &Keys, report: &mut Report) {
    let key = String::from_utf8_lossy(&keys.pairs[0].source).into_owned();
    let set: (&str, &[&str]) = ("SET", &["SET", "bench:value", "xxxxxxxxxxxxxxxx"]);
    let dump: (&str, &[&str]) = ("DUMP", &["DUMP", &key]);
    for (name, words) in [set, dump] {
        let raw_words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            theirs.push(redis_benchmark(port, words));
            let began = Instant::now();
            raw::pipelined(port, COMMANDS, 1, |_, out| raw::encode(out, &raw_words), |_, _| {});
            ours.push(COMMANDS as f64 / began.elapsed().as_secs_f64());
        }
        let line = Line::new("client", format!("raw {name}"), median(ours), "commands/s");
        report.push(line.of("redis-benchmark -P 100", median(theirs)));
    }
    keys.reload().await;
}

fn redis_benchmark(port: u16, words: &[&str]) -> f64 {
    let output = Command::new("redis-benchmark")
        .args(["-p", &port.to_string(), "-P", &PIPELINE.to_string(), "-c", &LANES.to_string()])
        .args(["-n", &COMMANDS.to_string(), "--csv"])
        .args(words)
        .output()
        .expect("redis-benchmark is missing: apt-get install redis-tools");
    let text = String::from_utf8_lossy(&output.stdout);
    // The last line: the command, then its rate, in quotes.
    let rate = text.lines().last().and_then(|line| line.rsplit("\",\"").nth(6)).unwrap_or_default();
    rate.trim_matches('"').parse().unwrap_or_else(|_| panic!("redis-benchmark printed {text}"))
}
