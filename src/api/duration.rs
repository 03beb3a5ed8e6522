//! Durations as the spec writes them: `24h`, `90m`, `1h30m`, `0s`.
//!
//! Owns reading them. Refuses days, fractions and signs, as the schema does.

use std::time::Duration;

use crate::model::policy::{LONGEST_LATENCY, SHORTEST_LATENCY};

/// Reads a duration; the largest unit comes first and each unit at most once.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((count, behind)) = rest.split_once(unit) {
            if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            seconds = seconds.checked_add(count.parse::<u64>().ok()?.checked_mul(length)?)?;
            rest = behind;
        }
    }
    (rest.is_empty() && !text.is_empty()).then(|| Duration::from_secs(seconds))
}

/// Reads a round trip in milliseconds or seconds: `10ms`, `1s`.
pub(super) fn parse_latency(text: &str) -> Option<Duration> {
    let (count, unit) = match text.strip_suffix("ms") {
        Some(count) => (count, 1),
        None => (text.strip_suffix('s')?, 1000),
    };
    if !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let latency = Duration::from_millis(count.parse::<u64>().ok()?.checked_mul(unit)?);
    (SHORTEST_LATENCY..=LONGEST_LATENCY).contains(&latency).then_some(latency)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("24h", Some(86_400))]
    #[case("90m", Some(5400))]
    #[case("30s", Some(30))]
    #[case("0s", Some(0))]
    #[case("1h30m", Some(5400))]
    #[case("1h0m5s", Some(3605))]
    #[case("", None)]
    #[case("h", None)]
    #[case("24", None)]
    #[case("1d", None)]
    #[case("-1h", None)]
    #[case("+1h", None)]
    #[case("1.5h", None)]
    #[case("30m1h", None)]
    #[case("1h1h", None)]
    #[case("99999999999999999999h", None)]
    fn durations(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(parse(text), seconds.map(Duration::from_secs));
    }

    #[rstest]
    #[case("1ms", Some(1))]
    #[case("10ms", Some(10))]
    #[case("2s", Some(2000))]
    #[case("10s", Some(10_000))]
    #[case("0ms", None)]
    #[case("11s", None)]
    #[case("10", None)]
    #[case("ms", None)]
    #[case("+1ms", None)]
    #[case("1m", None)]
    fn latencies(#[case] text: &str, #[case] millis: Option<u64>) {
        assert_eq!(parse_latency(text), millis.map(Duration::from_millis));
    }
}
