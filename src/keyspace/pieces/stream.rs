//! The entries of streams in pieces: ids with their fields, by `XRANGE`; groups follow them.
//!
//! Owns how a range of ids of two streams is told apart.

use std::collections::BTreeMap;

use redis::{Cmd, Value, cmd};

use crate::keyspace::command::Command;
use crate::keyspace::fault::Fault;
use crate::keyspace::pieces::contrast::Contrast;
use crate::keyspace::pieces::{Cursor, Shape};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::entry::Bytes;
use crate::model::key::RedisKey;

/// Entries in a row.
pub(in crate::keyspace) struct Entries {
    /// The id before, if these are not the first.
    after: Option<Bytes>,
    entries: Vec<(Bytes, Vec<Bytes>)>,
}

impl Entries {
    pub(super) async fn read(
        keyspace: &Keyspace,
        key: &RedisKey,
        shape: &Shape,
        cursor: &mut Cursor,
    ) -> Result<Self, Fault> {
        let after = if let Cursor::After(id) = cursor { Some(id.clone()) } else { None };
        let entries = range(keyspace, key, after.as_ref(), b"+", shape.step).await?;
        *cursor = match entries.last() {
            Some((id, _)) if entries.len() as u64 >= shape.step => Cursor::After(id.clone()),
            _ => Cursor::Groups,
        };
        Ok(Self { after, entries })
    }

    pub(super) fn additions(&self, to: &RedisKey) -> Vec<Cmd> {
        let mut additions = Vec::with_capacity(self.entries.len() + 2);
        if self.after.is_none() {
            // Makes a stream that is there though it has no entries.
            let group = |name| cmd("XGROUP").arg(name).arg(to.as_bytes()).arg("staging").take();
            additions.extend([group("CREATE").arg(0).arg("MKSTREAM").take(), group("DESTROY")]);
        }
        additions
            .extend(self.entries.iter().map(|(id, fields)| cmd("XADD").arg(to.as_bytes()).arg(id).arg(fields).take()));
        additions
    }

    pub(super) async fn look_up(
        self,
        keyspace: &Keyspace,
        other: &RedisKey,
        contrast: &mut Contrast,
    ) -> Result<(), Fault> {
        let Some((last, _)) = self.entries.last() else { return Ok(()) };
        // One more shows that there is one more.
        let found = range(keyspace, other, self.after.as_ref(), last, self.entries.len() as u64 + 1).await?;
        let told = |entries: Vec<(Bytes, Vec<Bytes>)>| {
            entries.into_iter().map(|(id, fields)| (id, in_one(&fields))).collect::<Vec<_>>()
        };
        tell_apart(b"", told(self.entries), told(found), contrast);
        Ok(())
    }
}

/// So many entries after one id, up to another.
async fn range(
    keyspace: &Keyspace,
    key: &RedisKey,
    after: Option<&Bytes>,
    last: &[u8],
    count: u64,
) -> Result<Vec<(Bytes, Vec<Bytes>)>, Fault> {
    let ask = Command::on("XRANGE", key).arg(start(after)).arg(last).arg("COUNT").arg(count);
    let mut entries = Vec::new();
    for entry in value::list(keyspace.run_one(ask).await?)? {
        let [id, fields] = <[Value; 2]>::try_from(value::list(entry)?).map_err(|_| value::unexpected())?;
        entries.push((value::bytes(id)?, value::bytes_list(fields)?));
    }
    Ok(entries)
}

/// The start of a range as Redis takes it.
pub(super) fn start(after: Option<&Bytes>) -> Bytes {
    after.map_or(b"-".to_vec(), |id| [b"(", id.as_slice()].concat())
}

/// Several byte strings as one, so that different ones stay different.
pub(super) fn in_one(parts: &[Bytes]) -> Bytes {
    parts.iter().flat_map(|part| [format!("{}:", part.len()).into_bytes(), part.clone()]).flatten().collect()
}

/// Notes how two ranges of ids differ of which the second was read up to one more than the first holds. If it holds
/// that one more, it may lack some of the first only since it was cut off there, so only what is too much is told.
pub(super) fn tell_apart(
    prefix: &[u8],
    ours: Vec<(Bytes, Bytes)>,
    theirs: Vec<(Bytes, Bytes)>,
    contrast: &mut Contrast,
) {
    let is_cut_off = theirs.len() > ours.len();
    let mut theirs: BTreeMap<Bytes, Bytes> = theirs.into_iter().collect();
    for (id, ours) in ours {
        let name = [prefix, &id].concat();
        match theirs.remove(&id) {
            None if is_cut_off => {}
            Some(theirs) if theirs == ours => {}
            theirs => contrast.note(&name, Some(ours), theirs),
        }
    }
    for (id, theirs) in theirs {
        contrast.note(&[prefix, &id].concat(), None, Some(theirs));
    }
}
