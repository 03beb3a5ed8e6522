//! What a migration's state hash says.
//!
//! Owns reading the hash's fields and writing ours. Refuses to believe a mark that we did not stamp:
//! other tools mark what they did not copy.

use std::collections::BTreeMap;

use crate::model::durability::Moment;
use crate::model::time::UnixMillis;

/// The field by which an initialisation of a fresh keyspace stamps a mark; its value is a random token.
pub const INIT_TOKEN: &str = "init_token";

/// The field that stands in for the stamp until the initialisation has looked once more.
pub const INIT_CLAIM: &str = "init_claim";

/// A migration's state in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// No state hash, one without a status that satisfies anybody, or one that an initialisation only claimed.
    Absent,
    /// `status` = `applied`, but nothing of ours beside it: a claim.
    Unstamped,
    /// `status` = `applied`, stamped by us.
    Stamped(Stamp),
    /// `status` = `not_applicable`.
    NotApplicable,
}

/// What we wrote beside `status` when a migration was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// When a complete comparison last found every entry; absent for a fresh keyspace's mark.
    pub verified_at: Option<UnixMillis>,
    /// When cleanup ended.
    pub cleaned_up_at: Option<UnixMillis>,
    /// When it was marked applied.
    pub applied_at: Option<UnixMillis>,
    /// The plan's hash under which it was applied.
    pub plan_hash: Option<String>,
    /// UID of the resource on whose behalf it was applied, and its namespace and name.
    pub owner: Option<(String, String)>,
    /// The migration's parameters under which it was applied; absent for a fresh keyspace's mark.
    pub parameters: Option<String>,
    /// When each primary held everything, by what tells that run of it from others.
    pub server_clocks: BTreeMap<String, Moment>,
    /// Keys under tenants with braced ids that were nobody's target when it was proven; absent where nobody counted.
    pub keys_apart: Option<u64>,
    /// Originals that a cleanup which has not ended removed so far.
    pub removed: Option<u64>,
}

impl Stamp {
    /// The field for [`Stamp::server_clocks`]: `<run>=<moment>`, with spaces between.
    pub const SERVER_CLOCKS: &'static str = "server_clocks";

    /// The field for [`Stamp::keys_apart`].
    pub const KEYS_APART: &'static str = "keys_apart";

    /// The field for [`Stamp::removed`]; empty once cleanup has ended.
    pub const REMOVED: &'static str = "cleanup_removed";

    /// Whether the mark speaks of these parameters too: a fresh keyspace's does of any.
    #[must_use]
    pub fn is_for(&self, parameters: &str) -> bool {
        self.parameters.as_deref().is_none_or(|stamped| stamped == parameters)
    }

    /// From when a soak counts.
    #[must_use]
    pub fn proven_at(&self) -> Option<UnixMillis> {
        self.verified_at.or(self.applied_at)
    }
}

impl Mark {
    /// Reads a state hash (empty: no such key).
    #[must_use]
    pub fn from_fields(fields: &BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        let text = |name: &str| fields.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
        let time = |name: &str| text(name).and_then(|value| UnixMillis::parse_rfc3339(&value));
        match text("status").as_deref() {
            Some("applied") => {
                if text("verified_at").is_none() && text(INIT_TOKEN).is_none() {
                    // An initialisation that did not end vouches for nothing.
                    return if text(INIT_CLAIM).is_some() { Self::Absent } else { Self::Unstamped };
                }
                Self::Stamped(Stamp {
                    verified_at: time("verified_at"),
                    cleaned_up_at: time("cleaned_up_at"),
                    applied_at: time("applied_at"),
                    plan_hash: text("plan_hash"),
                    parameters: text("parameters"),
                    owner: text("owner_uid").zip(text("owner")),
                    server_clocks: text(Stamp::SERVER_CLOCKS).map(|text| clocks(&text)).unwrap_or_default(),
                    keys_apart: text(Stamp::KEYS_APART).and_then(|count| count.parse().ok()),
                    removed: text(Stamp::REMOVED).and_then(|count| count.parse().ok()),
                })
            }
            Some("not_applicable") => Self::NotApplicable,
            Some(_) | None => Self::Absent,
        }
    }

    /// Whether whoever asks for the mark may go on without looking further.
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        match self {
            Self::Stamped(_) | Self::NotApplicable => true,
            Self::Absent | Self::Unstamped => false,
        }
    }
}

fn clocks(text: &str) -> BTreeMap<String, Moment> {
    let clock = |clock: &str| {
        let (run, moment) = clock.split_once('=')?;
        Some((run.to_owned(), Moment::parse(moment)?))
    };
    text.split(' ').filter_map(clock).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(fields: &[(&str, &str)]) -> Mark {
        Mark::from_fields(
            &fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect(),
        )
    }

    #[test]
    fn only_our_stamp_makes_a_mark() {
        assert_eq!(mark(&[]), Mark::Absent);
        assert_eq!(mark(&[("status", "running")]), Mark::Absent);
        assert_eq!(mark(&[("status", "applied"), ("applied_at", "2026-01-01T00:00:00Z")]), Mark::Unstamped);
        assert_eq!(mark(&[("status", "applied"), ("init_claim", "t")]), Mark::Absent);
        assert_eq!(mark(&[("status", "not_applicable"), ("reason", "x")]), Mark::NotApplicable);
        assert!(mark(&[("status", "applied"), ("init_token", "t")]).is_satisfied());
        assert!(mark(&[("status", "applied"), ("verified_at", "2026-01-01T00:00:00Z")]).is_satisfied());
    }

    #[test]
    fn a_stamp_tells_each_primarys_clock() {
        let stamped = [("status", "applied"), ("verified_at", "2026-01-01T00:00:00Z")];
        let clocks = |text| match mark(&[&stamped[..], &[("server_clocks", text)]].concat()) {
            Mark::Stamped(stamp) => stamp.server_clocks,
            other => panic!("{other:?}"),
        };
        let moment = |second, last_save| Moment { second, last_save };
        assert_eq!(
            clocks("a:1:5461=1700000000 b:2:5461=7/5"),
            [("a:1:5461".into(), moment(1_700_000_000, None)), ("b:2:5461".into(), moment(7, Some(5)))].into()
        );
        assert!(clocks("").is_empty() && clocks("a:1").is_empty());
    }
}
