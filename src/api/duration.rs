//! Durations as the spec writes them: `24h`, `90m`, `1h30m`, `0s`.
//!
//! Owns reading them. Refuses days, fractions and signs, as the schema does.

use std::time::Duration;

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
}
