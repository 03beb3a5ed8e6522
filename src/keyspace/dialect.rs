//! What a server of some version understands.
//!
//! Owns the one reading of version numbers. Scripts ask the server that runs them (see `script`), so that a
//! failover to another version in the middle changes nothing; what is sent outside of scripts asks here.

use std::collections::HashMap;

/// What a server understands, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// Redis 6.2: `COPY`, but an expiry is told only as what is left of it.
    Relative,
    /// Redis 7.0, Valkey 7.2: `PEXPIRETIME`, `ACL DRYRUN`.
    Absolute,
    /// Redis 7.4, Valkey 9.0: single fields of a hash may expire.
    FieldExpiry,
}

impl Dialect {
    /// The dialect of a server that says so of itself in `INFO server`; `None` if it is too old for us.
    #[must_use]
    pub fn of(info: &HashMap<String, String>) -> Option<Self> {
        let number = |name: &str| info.get(name).map(|text| version(text));
        // Valkey answers 7.2.4 as its redis_version for good.
        match (number("valkey_version"), number("redis_version")) {
            (Some((9.., _, _)), _) | (None, Some((8.., _, _) | (7, 4.., _))) => Some(Self::FieldExpiry),
            (Some(_), _) | (None, Some((7, _, _))) => Some(Self::Absolute),
            (None, Some((6, 2.., _))) => Some(Self::Relative),
            (None, Some((0..=6, _, _)) | None) => None,
        }
    }

    /// Whether it answers `ACL DRYRUN`.
    #[must_use]
    pub fn has_dry_run(self) -> bool {
        match self {
            Self::Relative => false,
            Self::Absolute | Self::FieldExpiry => true,
        }
    }
}

/// `7.0.15` as numbers; what is no number counts as 0.
pub(super) fn version(text: &str) -> (u32, u32, u32) {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(fields: &[(&str, &str)]) -> Option<Dialect> {
        Dialect::of(&fields.iter().map(|&(name, content)| (name.to_owned(), content.to_owned())).collect())
    }

    #[test]
    fn versions_are_read_as_numbers() {
        assert_eq!(version("7.0.15"), (7, 0, 15));
        assert!(version("6.2.14") < version("7.0.0"));
        assert_eq!(version(""), (0, 0, 0));
    }

    #[test]
    fn each_version_has_its_dialect() {
        for (redis, expected) in [
            ("6.0.16", None),
            ("6.2.14", Some(Dialect::Relative)),
            ("7.0.15", Some(Dialect::Absolute)),
            ("7.2.4", Some(Dialect::Absolute)),
            ("7.4.0", Some(Dialect::FieldExpiry)),
            ("8.2.3", Some(Dialect::FieldExpiry)),
            ("10.0.0", Some(Dialect::FieldExpiry)),
        ] {
            assert_eq!(dialect(&[("redis_version", redis)]), expected, "{redis}");
        }
        for (valkey, expected) in [("8.1.3", Dialect::Absolute), ("9.1.2", Dialect::FieldExpiry)] {
            assert_eq!(dialect(&[("redis_version", "7.2.4"), ("valkey_version", valkey)]), Some(expected), "{valkey}");
        }
        assert_eq!(dialect(&[]), None);
    }
}
