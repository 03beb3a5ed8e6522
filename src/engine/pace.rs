//! Who may go when, at so many keys a second.
//!
//! Owns the arithmetic: keys stand in one line, and each place in it has a moment. Reads no clock; times are
//! counted from a beginning that its user chose.

use std::time::Duration;

/// Lateness that is made up for; what was missed before that is lost, so that no burst follows a pause.
const CREDIT: Duration = Duration::from_millis(250);

/// A line of keys, of which so many a second may go.
#[derive(Debug)]
pub(super) struct Pacer {
    keys_per_second: Option<u32>,
    /// The place whose moment is `since`; those behind it follow at the rate.
    first: u64,
    since: Duration,
    /// The next place to be given away.
    next: u64,
}

impl Pacer {
    pub(super) fn new(keys_per_second: Option<u32>) -> Self {
        Self { keys_per_second, first: 0, since: Duration::ZERO, next: 0 }
    }

    /// Takes places for `keys` keys; gives the first of them.
    pub(super) fn line_up(&mut self, now: Duration, keys: u64) -> u64 {
        let latest = now.saturating_sub(CREDIT);
        if self.moment(self.next) < latest {
            (self.first, self.since) = (self.next, latest);
        }
        let place = self.next;
        self.next += keys;
        place
    }

    /// When a place may go.
    pub(super) fn moment(&self, place: u64) -> Duration {
        let Some(rate) = self.keys_per_second else { return Duration::ZERO };
        let nanos = u128::from(place.saturating_sub(self.first)) * 1_000_000_000 / u128::from(rate.max(1));
        self.since.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Another rate from now on: who waits, waits by the new one.
    pub(super) fn set_rate(&mut self, now: Duration, keys_per_second: Option<u32>) {
        if self.keys_per_second == keys_per_second {
            return;
        }
        self.first = match self.keys_per_second {
            None => self.next,
            Some(rate) => {
                let gone = now.saturating_sub(self.since).as_nanos() * u128::from(rate) / 1_000_000_000;
                self.first.saturating_add(u64::try_from(gone).unwrap_or(u64::MAX)).min(self.next)
            }
        };
        (self.since, self.keys_per_second) = (now, keys_per_second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn places_follow_each_other_at_the_rate() {
        let mut pacer = Pacer::new(Some(100));
        let places: Vec<u64> = (0..5).map(|_| pacer.line_up(Duration::ZERO, 50)).collect();
        let moments: Vec<u128> = places.iter().map(|&place| pacer.moment(place).as_millis()).collect();
        assert_eq!(moments, [0, 500, 1000, 1500, 2000]);
    }

    #[test]
    fn a_pause_is_no_credit_for_a_burst() {
        let mut pacer = Pacer::new(Some(100));
        pacer.line_up(Duration::ZERO, 50);
        let places: Vec<u64> = (0..4).map(|_| pacer.line_up(seconds(60), 50)).collect();
        let late: Vec<u128> = places.iter().map(|&place| pacer.moment(place).as_millis()).collect();
        assert_eq!(late, [59_750, 60_250, 60_750, 61_250]);
    }

    #[test]
    fn a_little_lateness_is_made_up_for() {
        let mut pacer = Pacer::new(Some(1000));
        for number in 0..100 {
            // Each batch asks a little late.
            pacer.line_up(Duration::from_millis(number * 100 + 40), 100);
        }
        let place = pacer.line_up(seconds(10), 0);
        assert_eq!(pacer.moment(place), seconds(10));
    }

    #[test]
    fn another_rate_holds_for_those_who_wait() {
        let mut pacer = Pacer::new(Some(10));
        pacer.line_up(Duration::ZERO, 1000);
        let behind = pacer.line_up(Duration::ZERO, 10);
        assert_eq!(pacer.moment(behind), seconds(100));
        pacer.set_rate(seconds(10), Some(900));
        assert_eq!(pacer.moment(behind), seconds(11), "100 of 1000 had gone, 900 go within a second");
        pacer.set_rate(seconds(10), None);
        assert_eq!(pacer.moment(behind), Duration::ZERO);
        pacer.set_rate(seconds(20), Some(10));
        let place = pacer.line_up(seconds(20), 10);
        assert_eq!(pacer.moment(place), seconds(20), "what went without a limit is past");
    }
}
