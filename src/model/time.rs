//! Points in time as plain numbers; the clock itself is read elsewhere.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A Unix time in milliseconds, shown as RFC 3339 in UTC with seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Reads RFC 3339 text.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<Timestamp>().ok().map(|at| Self(at.as_millisecond()))
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0.div_euclid(1000)) {
            Ok(at) => write!(f, "{at}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// A duration in seconds as people write it: `4m30s`, `2h05m`, `12s`, `3d04h`.
#[must_use]
pub fn human_seconds(seconds: u64) -> String {
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}d{hours:02}h")
    } else if hours > 0 {
        format!("{hours}h{minutes:02}m")
    } else if minutes > 0 {
        format!("{minutes}m{rest:02}s")
    } else {
        format!("{rest}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trips_to_the_second() {
        let at = UnixMillis::parse_rfc3339("2026-11-23T02:06:21.931801353Z");
        assert_eq!(at, Some(UnixMillis(1_795_399_581_931)));
        assert_eq!(at.map(|at| at.to_string()).as_deref(), Some("2026-11-23T02:06:21Z"));
        assert_eq!(UnixMillis::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(human_seconds(12), "12s");
        assert_eq!(human_seconds(270), "4m30s");
        assert_eq!(human_seconds(7500), "2h05m");
        assert_eq!(human_seconds(86_400), "1d00h");
    }
}
