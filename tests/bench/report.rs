//! Results, as a table for people and as JSON for programs.
//!
//! Owns how a figure is written down, medians, and what is said of the machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use serde_json::json;

/// One line of the results.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// What was measured, and where: `standalone`, `cluster`, `latency`.
    pub place: String,
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    /// The limit, or what else it is to be held against, in words and in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<(String, f64)>,
    /// The value's share of the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Highest resident size in bytes of the process that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
}

impl Line {
    /// A bare figure.
    pub fn new(place: &str, what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { place: place.to_owned(), what: what.into(), value, unit, limit: None, share: None, peak: None }
    }

    /// With the limit that it is a share of.
    pub fn of(mut self, limit: &str, value: f64) -> Self {
        self.share = Some(self.value / value);
        self.limit = Some((limit.to_owned(), value));
        self
    }

    /// With what the same was elsewhere, which is no limit.
    pub fn beside(mut self, other: &str, value: f64) -> Self {
        self.limit = Some((other.to_owned(), value));
        self
    }

    /// With the memory that it took.
    pub fn peak(mut self, bytes: u64) -> Self {
        self.peak = Some(bytes);
        self
    }
}

/// Everything that a run found.
#[derive(Debug, Default)]
pub struct Report {
    pub lines: Vec<Line>,
    /// Sentences that go with them: assumptions and what was skipped.
    pub notes: Vec<String>,
}

impl Report {
    pub fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// The table.
    pub fn print(&self, entries: usize) {
        println!("{}\n{entries} entries; medians of interleaved rounds\n", machine().join("\n"));
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["", "", "measured", "", "limit", "", "share", "peak MiB"]);
        for line in &self.lines {
            let (limit, rate) = line.limit.as_ref().map_or(("", String::new()), |(name, rate)| (name, shown(*rate)));
            table.add_row([
                line.place.clone(),
                line.what.clone(),
                shown(line.value),
                line.unit.to_owned(),
                rate,
                limit.to_owned(),
                line.share.map(|share| format!("{:.0} %", share * 100.0)).unwrap_or_default(),
                line.peak.map(mib).unwrap_or_default(),
            ]);
        }
        for column in [2, 4, 6, 7] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        if !self.notes.is_empty() {
            println!("\n{}", self.notes.join("\n"));
        }
    }

    /// The same for programs.
    pub fn write(&self, entries: usize, path: &Path) {
        let all = json!({ "machine": machine(), "entries": entries, "lines": self.lines, "notes": self.notes });
        fs::write(path, serde_json::to_string_pretty(&all).expect("JSON") + "\n").expect("the JSON file");
    }
}

fn shown(value: f64) -> String {
    match value {
        value if value >= 1000.0 => {
            let digits = format!("{value:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().filter_map(|part| str::from_utf8(part).ok()).collect();
            groups.join(",")
        }
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The machine and the programs, a line each.
fn machine() -> Vec<String> {
    let first_line = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    vec![
        format!("{cores} cores, {}, Linux {}", model.unwrap_or("unknown processor"), kernel.trim()),
        format!("{}; {}", first_line("redis-server").unwrap_or_default(), first_line("rustc").unwrap_or_default()),
        format!(
            "outpost-migrate-redis {}, release build for {}-{}, mimalloc",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            if cfg!(target_env = "musl") { "musl" } else { "glibc" },
        ),
        "redis-server without snapshots and append-only file, on the loopback address".to_owned(),
    ]
}
