//! Sorted sets in pieces: members with their scores, by `ZSCAN`.
//!
//! Owns when two scores are equal: as Redis takes them, by number. Their text depends on the command, the version and
//! the encoding (`0.1` and `0.10000000000000001`), but gives back the same number: 17 digits do for every one.

use redis::{Cmd, cmd};

use crate::keyspace::command::Command;
use crate::keyspace::fault::Fault;
use crate::keyspace::pieces::contrast::Contrast;
use crate::keyspace::pieces::{Cursor, Shape};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::entry::Bytes;
use crate::model::key::RedisKey;

/// Some members of a sorted set with their scores as `ZSCAN` tells them.
pub(in crate::keyspace) struct Scores(Vec<(Bytes, Bytes)>);

impl Scores {
    pub(super) async fn read(
        keyspace: &Keyspace,
        key: &RedisKey,
        shape: &Shape,
        cursor: &mut Cursor,
    ) -> Result<Self, Fault> {
        keyspace.scan_step("ZSCAN", key, shape, cursor).await.map(|items| Self(value::two_by_two(items)))
    }

    pub(super) fn addition(&self, to: &RedisKey) -> Option<Cmd> {
        let mut add = cmd("ZADD").arg(to.as_bytes()).take();
        for (member, score) in &self.0 {
            add.arg(score).arg(member);
        }
        (!self.0.is_empty()).then_some(add)
    }

    pub(super) async fn look_up(
        self,
        keyspace: &Keyspace,
        other: &RedisKey,
        contrast: &mut Contrast,
    ) -> Result<(), Fault> {
        if self.0.is_empty() {
            return Ok(());
        }
        let names: Vec<&Bytes> = self.0.iter().map(|(member, _)| member).collect();
        let found = keyspace.answers_about(Command::on("ZMSCORE", other).arg(&names), names.len()).await?;
        for ((member, ours), theirs) in self.0.into_iter().zip(found) {
            let theirs = value::bytes_if_any(theirs)?;
            let is_same = match &theirs {
                None => false,
                Some(theirs) => is_same_score(&ours, theirs)?,
            };
            if !is_same {
                contrast.note(&member, Some(ours), theirs);
            }
        }
        Ok(())
    }
}

/// By number, and exactly. 0 and -0 are one score to Redis: it orders them alike, keeps the one when the other is
/// set, and forgets the sign itself where a sorted set is small.
#[allow(clippy::float_cmp)]
fn is_same_score(ours: &[u8], theirs: &[u8]) -> Result<bool, Fault> {
    Ok(number(ours)? == number(theirs)?)
}

fn number(score: &[u8]) -> Result<f64, Fault> {
    std::str::from_utf8(score).ok().and_then(|text| text.parse().ok()).ok_or(value::unexpected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_numbers() {
        for (ours, theirs) in
            [("0.1", "0.10000000000000001"), ("5e-324", "4.9406564584124654e-324"), ("inf", "inf"), ("0", "-0")]
        {
            assert_eq!(is_same_score(ours.as_bytes(), theirs.as_bytes()), Ok(true), "{ours} {theirs}");
        }
        for (ours, theirs) in
            [("0.1", "0.10000000000000002"), ("inf", "-inf"), ("9007199254740992", "9007199254740994")]
        {
            assert_eq!(is_same_score(ours.as_bytes(), theirs.as_bytes()), Ok(false), "{ours} {theirs}");
        }
        assert_eq!(is_same_score(b"much", b"1"), Err(value::unexpected()));
    }
}
