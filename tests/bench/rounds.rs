//! Limit, ours, limit, ours, …, limit: the steps of a migration as shares of what Redis can do with the same keys.
//!
//! Owns which commands make up the limit of which step, and the model of more primaries.

use crate::keys::Keys;
use crate::limits::Limits;
use crate::report::{Line, Report, median};
use crate::steps::{Cost, Order, Walk};

/// The part of the limits that bounds a step, in seconds.
type Bound = fn(&Limits) -> f64;

/// What was measured in turns.
pub struct Rounds {
    place: &'static str,
    primaries: usize,
    entries: f64,
    limits: Vec<Limits>,
    costs: Vec<Cost>,
}

impl Rounds {
    /// Runs so many rounds and one more look at the limit.
    pub async fn run(place: &'static str, keys: &Keys, rounds: usize) -> Self {
        let entries = keys.pairs.len() as f64;
        let mut all = Self { place, primaries: keys.ports.len(), entries, limits: Vec::new(), costs: Vec::new() };
        for round in 1..=rounds {
            eprintln!("{place}: round {round} of {rounds}");
            all.limits.push(Limits::measure(keys));
            // What was unlinked is freed in the background, which is nobody's time.
            keys.reload().await;
            all.costs.extend(Order::new(&keys.redis, Walk::Migrate).run());
            all.costs.extend(Order::new(&keys.redis, Walk::CleanUp).run());
            keys.reload().await;
        }
        all.limits.push(Limits::measure(keys));
        all
    }

    fn limit(&self, part: impl Fn(&Limits) -> f64) -> f64 {
        median(self.limits.iter().map(part))
    }

    fn cost(&self, step: &str, part: impl Fn(&Cost) -> f64) -> f64 {
        median(self.costs.iter().filter(|cost| cost.step == step).map(part))
    }

    fn rate(&self, seconds: f64) -> f64 {
        self.entries / seconds
    }

    /// A step's share of a limit in seconds.
    pub fn share(&self, step: &str, limit: impl Fn(&Limits) -> f64) -> f64 {
        self.limit(limit) / self.cost(step, |cost| cost.seconds)
    }

    /// Every line of these rounds.
    pub fn tell(&self, report: &mut Report) {
        let copy = if self.primaries == 1 { "COPY" } else { "DUMP+RESTORE" };
        for (name, part) in kinds(copy) {
            report.push(Line::new(self.place, format!("limit: {name}"), self.rate(self.limit(part)), "keys/s"));
        }
        let scan_copy = format!("SCAN+{copy}");
        let all_copy = format!("SCAN+probe+{copy}");
        let lines: [(&str, &str, Bound); 8] = [
            ("plan", "SCAN+probe+size+EXISTS", |limits| limits.scan + limits.probe + limits.size + limits.exists),
            ("apply", copy, copied),
            ("apply", &scan_copy, |limits| limits.scan + limits.copy),
            ("apply", &all_copy, |limits| limits.scan + limits.probe + limits.copy),
            ("verify", "2 SCAN+probe+reads", compared),
            ("verify again", "2 SCAN+probe+reads", compared),
            ("resume", "2 SCAN+probe+reads", compared),
            ("cleanup", "2 SCAN+probe+reads+UNLINK", |limits| compared(limits) + limits.unlink),
        ];
        for (step, name, limit) in lines {
            report.push(self.line(step).of(name, self.rate(self.limit(limit))));
        }
        report.push(self.line("resume").of("verify", self.rate(self.cost("verify", |cost| cost.seconds))));
        let walk = ["plan", "apply", "verify"].map(|step| self.cost(step, |cost| cost.seconds)).iter().sum();
        report.push(Line::new(self.place, "plan, apply, verify together", self.rate(walk), "keys/s"));
        self.tell_scaling(report);
    }

    fn line(&self, step: &str) -> Line {
        let peak = self.costs.iter().filter(|cost| cost.step == step).map(|cost| cost.peak).max().unwrap_or_default();
        Line::new(self.place, step, self.rate(self.cost(step, |cost| cost.seconds)), "keys/s").peak(peak)
    }

    /// What more primaries would give: each works on its share of the keys as fast as its core lets it, until our
    /// own processor time is the limit.
    fn tell_scaling(&self, report: &mut Report) {
        for step in ["apply", "verify"] {
            let server = self.cost(step, |cost| cost.server_cpu) / self.entries;
            let client = self.cost(step, |cost| cost.client_cpu) / self.entries;
            for (side, seconds) in [("servers", server), ("client", client)] {
                report.push(Line::new(self.place, format!("{step}: processor of {side}"), seconds * 1e6, "µs/key"));
            }
            // Copies between primaries take two of them, copies within one server are another command.
            let primaries: &[u32] = if self.primaries == 1 { &[1] } else { &[3, 6] };
            for &primaries in primaries {
                let rate = f64::from(primaries) / server;
                let what = format!("model: {step}, {primaries} primaries; client cores {:.1}", rate * client);
                report.push(Line::new(self.place, what, rate, "keys/s"));
            }
        }
    }
}

fn kinds(copy: &str) -> [(&str, Bound); 7] {
    [
        ("SCAN", |limits| limits.scan),
        ("probe", |limits| limits.probe),
        ("MEMORY USAGE", |limits| limits.size),
        ("EXISTS", |limits| limits.exists),
        (copy, copied),
        ("reads of both sides", |limits| limits.read),
        ("UNLINK", |limits| limits.unlink),
    ]
}

/// The copies alone.
pub fn copied(limits: &Limits) -> f64 {
    limits.copy
}

/// A comparison sees sources and targets in its scan, and reads both.
pub fn compared(limits: &Limits) -> f64 {
    2.0 * limits.scan + limits.probe + limits.read
}
