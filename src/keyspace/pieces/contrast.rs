//! Compares two huge entries by looking up each piece of one in the other.
//!
//! Owns what a comparison in pieces tells: the members that differ, never a whole value. Types differ, whatever they
//! hold.

use std::collections::BTreeMap;

use crate::keyspace::command::Command;
use crate::keyspace::compare::Comparison;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::pieces::{Cursor, Kind, Shape};
use crate::keyspace::router::Keyspace;
use crate::model::entry::{Bytes, Entry, Expiry, Value as Content};
use crate::model::key::RedisKey;

/// Differing members that a comparison keeps; more than any migration changes in one entry.
const CONTRAST_LIMIT: usize = 64;

/// What keeps a staged copy alive.
pub(in crate::keyspace) type Refresh<'a> = &'a (dyn Fn() -> Command + Send + Sync);

/// What one side holds under a name, and what the other does; never the same.
type Sides = (Option<Bytes>, Option<Bytes>);

/// The members in which two entries differ, each side's: fields, members, indexes of a list, ids of a stream.
#[derive(Default)]
pub(super) struct Contrast(BTreeMap<Bytes, Sides>);

impl Contrast {
    fn is_full(&self) -> bool {
        self.0.len() >= CONTRAST_LIMIT
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes a name under which the sides hold different things.
    pub(super) fn note(&mut self, name: &[u8], ours: Option<Bytes>, theirs: Option<Bytes>) {
        if !self.is_full() {
            self.0.insert(name.to_vec(), (ours, theirs));
        }
    }

    /// Adds what a look the other way found.
    fn add_flipped(&mut self, other: Self) {
        self.0.extend(other.0.into_iter().map(|(name, (ours, theirs))| (name, (theirs, ours))));
    }

    /// The differing members of both sides, each as a value of its type.
    fn into_contents(self, kind: Kind) -> (Content, Content) {
        let (mut source, mut target) = (BTreeMap::new(), BTreeMap::new());
        for (name, (ours, theirs)) in self.0 {
            source.extend(ours.map(|it| (name.clone(), it)));
            target.extend(theirs.map(|it| (name, it)));
        }
        (content(kind, source), content(kind, target))
    }
}

fn content(kind: Kind, held: BTreeMap<Bytes, Bytes>) -> Content {
    match kind {
        Kind::Hash => Content::Hash(held),
        Kind::Set => Content::Set(held.into_iter().map(|(member, note)| [member, note].concat()).collect()),
        Kind::SortedSet => Content::SortedSet(held),
        Kind::List => Content::List(held.into_values().collect()),
        Kind::Stream => Content::Stream {
            entries: held.into_iter().map(|(id, fields)| (id, vec![fields])).collect(),
            groups: Vec::new(),
        },
    }
}

/// A value of which nothing is known but that it has another type.
fn another_type() -> Content {
    Content::Module { type_name: Bytes::new(), payload: Bytes::new() }
}

impl Keyspace {
    /// Compares an entry that comes in pieces with one of any type, in pieces. Where they differ, what it gives of
    /// each side is only the members that differ (at most 64), never a whole value: nothing to build a conditional
    /// write on.
    ///
    /// # Errors
    /// [`FaultClass::Disturbed`] if a primary or an entry changed meanwhile, or the source became another type; the
    /// first fault that stayed.
    pub async fn compare_in_pieces(&self, source: &RedisKey, target: &RedisKey) -> Result<Comparison, Fault> {
        let Some(ours) = self.source_shape(source).await? else { return Ok(Comparison::SourceGone) };
        let theirs = match self.shape(target).await? {
            Some(theirs) if theirs.kind == ours.kind => theirs,
            None if !self.is_there(target).await? => return Ok(Comparison::TargetMissing),
            _ => {
                return Ok(Comparison::Different {
                    source: Entry { value: content(ours.kind, BTreeMap::new()), expiry: ours.expiry },
                    target: Entry { value: another_type(), expiry: ours.expiry },
                });
            }
        };
        let contrast = self.contrast((source, &ours), (target, &theirs), &Cursor::Start, None).await?;
        let is_same = contrast.is_empty();
        if is_same && ours.expiry == theirs.expiry {
            return Ok(Comparison::Equal { expires: ours.expiry != Expiry::Never });
        }
        let (held, wanted) = contrast.into_contents(ours.kind);
        // What moved between the two looks may seem to be on both sides: that is no proof of anything.
        if !is_same && held == wanted {
            return Err(Fault::new(FaultClass::Disturbed));
        }
        Ok(Comparison::Different {
            source: Entry { value: held, expiry: ours.expiry },
            target: Entry { value: wanted, expiry: theirs.expiry },
        })
    }

    /// Whether a staged copy holds what its source holds, expiry aside, from a place on; `refresh` keeps it alive.
    pub(in crate::keyspace) async fn is_staged(
        &self,
        source: &RedisKey,
        staging: &RedisKey,
        from: &Cursor,
        refresh: Refresh<'_>,
    ) -> Result<bool, Fault> {
        match (self.source_shape(source).await?, self.shape(staging).await?) {
            (Some(ours), Some(theirs)) if ours.kind == theirs.kind => {
                Ok(self.contrast((source, &ours), (staging, &theirs), from, Some(refresh)).await?.is_empty())
            }
            _ => Ok(false),
        }
    }

    /// Both sides are looked through unless the first look finds everything, the numbers agree, and no field of the
    /// other side can end by itself: looking a field up does not tell.
    async fn contrast(
        &self,
        (source, ours): (&RedisKey, &Shape),
        (target, theirs): (&RedisKey, &Shape),
        from: &Cursor,
        refresh: Option<Refresh<'_>>,
    ) -> Result<Contrast, Fault> {
        // A cursor belongs to one run of one server: carried to another it would miss members.
        let undisturbed = self.disturbances();
        let mut contrast = self.contrast_one_way((source, ours), target, from, refresh).await?;
        let may_differ = !contrast.is_empty() || ours.members != theirs.members || theirs.fields_may_expire;
        if may_differ && !contrast.is_full() {
            contrast.add_flipped(self.contrast_one_way((target, theirs), source, from, refresh).await?);
        }
        if contrast.is_empty() && ours.members != theirs.members {
            let told = |members: u64| Some(members.to_string().into_bytes());
            contrast.note(b"length", told(ours.members), told(theirs.members));
        }
        if self.disturbances() == undisturbed { Ok(contrast) } else { Err(Fault::new(FaultClass::Disturbed)) }
    }

    async fn contrast_one_way(
        &self,
        (key, shape): (&RedisKey, &Shape),
        other: &RedisKey,
        from: &Cursor,
        refresh: Option<Refresh<'_>>,
    ) -> Result<Contrast, Fault> {
        let mut contrast = Contrast::default();
        let mut cursor = from.clone();
        while let Some(piece) = self.piece(key, shape, &mut cursor).await? {
            if let Some(refresh) = refresh {
                self.run_one(refresh()).await?;
            }
            piece.look_up(self, other, &mut contrast).await?;
            if contrast.is_full() {
                break;
            }
        }
        Ok(contrast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        text.as_bytes().to_vec()
    }

    #[test]
    fn what_is_noted_differs_whatever_the_type() {
        for kind in [Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List, Kind::Stream] {
            for sides in [(Some(bytes("1")), Some(bytes("2"))), (Some(bytes("")), None), (None, Some(bytes("")))] {
                let mut contrast = Contrast::default();
                contrast.note(b"name", sides.0, sides.1);
                let (source, target) = contrast.into_contents(kind);
                assert_ne!(source, target, "{kind:?}");
                assert_eq!(source.type_name(), target.type_name());
            }
        }
    }

    #[test]
    fn a_look_the_other_way_is_told_from_the_same_side() {
        let mut there = Contrast::default();
        there.note(b"only theirs", Some(bytes("x")), None);
        let mut contrast = Contrast::default();
        contrast.add_flipped(there);
        let (source, target) = contrast.into_contents(Kind::Hash);
        assert_eq!((source.members(), target.members()), (0, 1));
    }
}
