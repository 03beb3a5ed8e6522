//! An estimate of a sum from some of its parts.
//!
//! Owns mean, spread and error; takes parts in any order and adds up in any order. Keeps no part.

/// A sum over many entries, of which all or some were measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// Entries in the sum.
    count: u64,
    /// Of these, measured ones.
    measured: u64,
    mean: f64,
    /// Sum of squared differences from the mean.
    spread: f64,
}

#[allow(clippy::cast_precision_loss, reason = "an estimate")]
impl Estimate {
    /// Counts an entry that was measured.
    pub fn measured(&mut self, bytes: u64) {
        self.count += 1;
        self.measured += 1;
        let off = bytes as f64 - self.mean;
        self.mean += off / self.measured as f64;
        self.spread += off * (bytes as f64 - self.mean);
    }

    /// Counts entries that were not measured: they count as the measured ones on average.
    pub fn unmeasured(&mut self, count: u64) {
        self.count += count;
    }

    /// Adds another part of the sum. (Chan, Golub and `LeVeque`'s way to join two means and spreads.)
    pub fn merge(&mut self, other: Self) {
        let measured = self.measured + other.measured;
        if measured > 0 {
            let off = other.mean - self.mean;
            let share = other.measured as f64 / measured as f64;
            self.mean += off * share;
            self.spread += other.spread + off * off * self.measured as f64 * share;
        }
        self.measured = measured;
        self.count += other.count;
    }

    /// Entries in the sum.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        whole(self.mean * self.count as f64)
    }

    /// How far off the sum may be: twice its standard error, 0 where everything was measured.
    #[must_use]
    pub fn error(&self) -> u64 {
        if self.measured < 2 || self.measured == self.count {
            return 0;
        }
        let (all, measured) = (self.count as f64, self.measured as f64);
        let variance = self.spread / (measured - 1.0);
        // The larger the measured share, the less is left to be wrong about.
        whole(2.0 * all * (variance / measured * (1.0 - measured / all)).sqrt())
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturating")]
fn whole(bytes: f64) -> u64 {
    bytes.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: impl IntoIterator<Item = u64>) -> Estimate {
        let mut estimate = Estimate::default();
        parts.into_iter().for_each(|bytes| estimate.measured(bytes));
        estimate
    }

    #[test]
    fn what_was_measured_whole_is_exact() {
        let estimate = of(1..=1000);
        assert_eq!((estimate.count(), estimate.bytes(), estimate.error()), (1000, 500_500, 0));
        assert_eq!(Estimate::default().bytes(), 0);
    }

    #[test]
    fn parts_add_up_in_any_order() {
        let whole = of(1..=1000);
        let mut joined = of(701..=1000);
        joined.merge(Estimate::default());
        joined.merge(of(1..=700));
        assert_eq!(joined.bytes(), whole.bytes());
        assert!((joined.spread - whole.spread).abs() < 1.0, "{joined:?} {whole:?}");
        let mut onto_nothing = Estimate::default();
        onto_nothing.merge(whole);
        assert_eq!(onto_nothing, whole);
    }

    #[test]
    fn a_sample_states_its_error() {
        // Every seventh of 7,000 entries of 100 to 299 bytes.
        let sizes = |number: u64| 100 + number * 7919 % 200;
        let all: u64 = (0..7000).map(sizes).sum();
        let mut estimate = of((0..7000).step_by(7).map(sizes));
        estimate.unmeasured(6000);
        assert_eq!(estimate.count(), 7000);
        assert!(estimate.bytes().abs_diff(all) <= estimate.error(), "{} {all} {}", estimate.bytes(), estimate.error());
        assert!(estimate.error() < all / 50, "{}", estimate.error());
    }
}
