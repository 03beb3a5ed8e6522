//! Reads and compares huge hashes in pieces, so that no command holds the server long and memory stays bounded.
//!
//! Owns what is huge, how a hash is read piece by piece, and the comparison of two hashes by looking up each piece of
//! one in the other. Refuses every other type: migrations take nothing but hashes for their sources.

use std::collections::BTreeMap;

use redis::{Cmd, Value, cmd};

use crate::keyspace::command::Command;
use crate::keyspace::compare::Comparison;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::entry::{Bytes, Entry, Expiry, Value as Content};
use crate::model::key::RedisKey;

/// Entries that take more memory can't be copied in one piece without holding the server too long: what takes time
/// is members, and one that is stored by itself takes some 70 bytes at least, so that these are 15,000 or 10 ms.
pub const HUGE_BYTES: u64 = 1024 * 1024;

/// Fields and bytes of a piece, about.
const PIECE_FIELDS: u64 = 1_000;
const PIECE_BYTES: u64 = 256 * 1024;

/// Differing fields that a comparison keeps; more than any migration changes in one entry.
const CONTRAST_LIMIT: usize = 64;

const OTHER_TYPE: &str = "it is no hash; split or remove it";
const OLD_SERVER: &str =
    "Redis before 7.0 does not tell when an entry ends; update Redis, or split or remove the entry";
const EXPIRING: &str = "it has fields with an expiry of their own; let them expire, or HPERSIST them";

/// What is known of a hash before its pieces are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) fields: u64,
    pub(super) expiry: Expiry,
    /// Fields of one piece.
    step: u64,
    /// Whether the server knows expiries of single fields.
    fields_may_expire: bool,
}

/// Where the next piece begins.
pub(super) enum Cursor {
    Start,
    From(Bytes),
    End,
}

/// One piece of a hash.
pub(super) struct Piece {
    pairs: Vec<(Bytes, Bytes)>,
    /// Fields with an expiry of their own.
    expiring: Vec<Bytes>,
}

/// The fields in which two entries differ, each side's.
#[derive(Default)]
struct Contrast {
    source: BTreeMap<Bytes, Bytes>,
    target: BTreeMap<Bytes, Bytes>,
}

impl Contrast {
    fn is_full(&self) -> bool {
        self.source.len().max(self.target.len()) >= CONTRAST_LIMIT
    }

    fn is_empty(&self) -> bool {
        self.source.is_empty() && self.target.is_empty()
    }

    fn note(&mut self, field: &[u8], source: Option<Bytes>, target: Option<Bytes>) {
        if self.is_full() {
            return;
        }
        self.source.extend(source.map(|it| (field.to_vec(), it)));
        self.target.extend(target.map(|it| (field.to_vec(), it)));
    }

    fn flipped(self) -> Self {
        Self { source: self.target, target: self.source }
    }

    fn add(&mut self, other: Self) {
        self.source.extend(other.source);
        self.target.extend(other.target);
    }
}

impl Keyspace {
    /// Whether an entry can be read in pieces.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn is_divisible(&self, key: &RedisKey) -> Result<bool, Fault> {
        match self.shape(key).await {
            Err(fault) if fault.class == FaultClass::UnknownCommand => Ok(false),
            other => Ok(other?.is_some()),
        }
    }

    /// Why an entry can't be copied in pieces, if so. It is looked through only where fields may expire.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn obstacle_to_pieces(&self, key: &RedisKey) -> Result<Option<&'static str>, Fault> {
        let shape = match self.shape(key).await {
            Err(fault) if fault.class == FaultClass::UnknownCommand => return Ok(Some(OLD_SERVER)),
            other => other?,
        };
        let Some(shape) = shape else { return Ok(self.is_there(key).await?.then_some(OTHER_TYPE)) };
        let mut cursor = if shape.fields_may_expire { Cursor::Start } else { Cursor::End };
        while let Some(piece) = self.piece(key, &shape, &mut cursor).await? {
            if let Some(obstacle) = piece.obstacle() {
                return Ok(Some(obstacle));
            }
        }
        Ok(None)
    }

    /// Compares a hash with an entry of any type, in pieces. Where they differ, what it gives of each side is only
    /// the fields that differ (at most 64), never a whole value: nothing to build a conditional write on.
    ///
    /// # Errors
    /// [`FaultClass::Disturbed`] if a primary changed meanwhile, or the source became another type; the first fault
    /// that stayed.
    pub async fn compare_in_pieces(&self, source: &RedisKey, target: &RedisKey) -> Result<Comparison, Fault> {
        let Some(ours) = self.source_shape(source).await? else { return Ok(Comparison::SourceGone) };
        let Some(theirs) = self.shape(target).await? else {
            if !self.is_there(target).await? {
                return Ok(Comparison::TargetMissing);
            }
            let other_type = Content::Module { type_name: Bytes::new(), payload: Bytes::new() };
            return Ok(Comparison::Different {
                source: Entry { value: Content::Hash(BTreeMap::new()), expiry: ours.expiry },
                target: Entry { value: other_type, expiry: ours.expiry },
            });
        };
        let contrast = self.contrast((source, &ours), (target, &theirs), None).await?;
        if contrast.is_empty() && ours.expiry == theirs.expiry {
            return Ok(Comparison::Equal);
        }
        Ok(Comparison::Different {
            source: Entry { value: Content::Hash(contrast.source), expiry: ours.expiry },
            target: Entry { value: Content::Hash(contrast.target), expiry: theirs.expiry },
        })
    }

    /// Whether a staged copy holds what its source holds, expiry aside; `refresh` keeps it alive meanwhile.
    pub(super) async fn is_staged(
        &self,
        source: &RedisKey,
        staging: &RedisKey,
        refresh: &(dyn Fn() -> Command + Send + Sync),
    ) -> Result<bool, Fault> {
        let (Some(ours), Some(theirs)) = (self.source_shape(source).await?, self.shape(staging).await?) else {
            return Ok(false);
        };
        Ok(self.contrast((source, &ours), (staging, &theirs), Some(refresh)).await?.is_empty())
    }

    /// Both sides are looked through unless the first look finds everything, the numbers agree, and no field of the
    /// other side can end by itself: looking a field up does not tell.
    async fn contrast(
        &self,
        (source, ours): (&RedisKey, &Shape),
        (target, theirs): (&RedisKey, &Shape),
        refresh: Option<&(dyn Fn() -> Command + Send + Sync)>,
    ) -> Result<Contrast, Fault> {
        // A cursor belongs to one run of one server: carried to another it would miss fields.
        let undisturbed = self.disturbances();
        let mut contrast = self.contrast_one_way((source, ours), target, refresh).await?;
        let may_differ = !contrast.is_empty() || ours.fields != theirs.fields || theirs.fields_may_expire;
        if may_differ && !contrast.is_full() {
            contrast.add(self.contrast_one_way((target, theirs), source, refresh).await?.flipped());
        }
        if contrast.is_empty() && ours.fields != theirs.fields {
            contrast.note(b"length", Some(ours.fields.to_string().into()), Some(theirs.fields.to_string().into()));
        }
        if self.disturbances() == undisturbed { Ok(contrast) } else { Err(Fault::new(FaultClass::Disturbed)) }
    }

    async fn contrast_one_way(
        &self,
        (key, shape): (&RedisKey, &Shape),
        other: &RedisKey,
        refresh: Option<&(dyn Fn() -> Command + Send + Sync)>,
    ) -> Result<Contrast, Fault> {
        let mut contrast = Contrast::default();
        let mut cursor = Cursor::Start;
        while let Some(piece) = self.piece(key, shape, &mut cursor).await? {
            if let Some(refresh) = refresh {
                self.run_one(refresh()).await?;
            }
            self.look_up(piece, other, &mut contrast).await?;
            if contrast.is_full() {
                break;
            }
        }
        Ok(contrast)
    }

    async fn look_up(&self, piece: Piece, other: &RedisKey, contrast: &mut Contrast) -> Result<(), Fault> {
        if piece.pairs.is_empty() {
            return Ok(());
        }
        let names: Vec<&Bytes> = piece.pairs.iter().map(|(field, _)| field).collect();
        let found = value::list(self.run_one(Command::on("HMGET", other).arg(names)).await?)?;
        if found.len() != piece.pairs.len() {
            return Err(value::unexpected());
        }
        for ((field, ours), theirs) in piece.pairs.into_iter().zip(found) {
            let theirs = if theirs == Value::Nil { None } else { Some(value::bytes(theirs)?) };
            // An expiry of a single field is nothing that a lookup can prove equal.
            if piece.expiring.contains(&field) || theirs.as_ref() != Some(&ours) {
                let theirs = theirs.filter(|theirs| *theirs != ours);
                contrast.note(&field, Some(ours), theirs);
            }
        }
        Ok(())
    }

    /// As [`Keyspace::shape`], for a key that was a hash before.
    pub(super) async fn source_shape(&self, key: &RedisKey) -> Result<Option<Shape>, Fault> {
        match self.shape(key).await? {
            None if self.is_there(key).await? => Err(Fault::new(FaultClass::Disturbed)),
            shape => Ok(shape),
        }
    }

    async fn is_there(&self, key: &RedisKey) -> Result<bool, Fault> {
        Ok(self.exist(std::slice::from_ref(key)).await?.contains(&true))
    }

    /// An entry's shape, if it is a hash.
    pub(super) async fn shape(&self, key: &RedisKey) -> Result<Option<Shape>, Fault> {
        let asked =
            vec![Command::on("HLEN", key), Command::on("PEXPIRETIME", key), Command::sub("MEMORY", "USAGE", key)];
        let mut answers = self.run(asked).await.into_iter();
        let mut next = || answers.next().unwrap_or(Err(value::unexpected()));
        let fields = match next() {
            Err(fault) if fault.class == FaultClass::WrongType => return Ok(None),
            other => u64::try_from(value::int(other?)?).unwrap_or(0),
        };
        let expiry = Expiry::from_pexpiretime(value::int(next()?)?);
        let Value::Int(bytes) = next()? else { return Ok(None) };
        if fields == 0 {
            return Ok(None);
        }
        let each = (u64::try_from(bytes).unwrap_or(0) / fields).max(1);
        let step = (PIECE_BYTES / each).clamp(1, PIECE_FIELDS);
        Ok(Some(Shape { fields, expiry, step, fields_may_expire: self.fields_may_expire(key).await? }))
    }

    /// Servers before 7.4 do not know the command.
    async fn fields_may_expire(&self, key: &RedisKey) -> Result<bool, Fault> {
        let ask = Command::on("HPEXPIRETIME", key).arg("FIELDS").arg(1).arg("id");
        match self.run_one(ask).await {
            Err(fault) if fault.class == FaultClass::UnknownCommand => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// The next piece, if there is one. It may hold fields that another piece holds too.
    pub(super) async fn piece(
        &self,
        key: &RedisKey,
        shape: &Shape,
        cursor: &mut Cursor,
    ) -> Result<Option<Piece>, Fault> {
        let from = match cursor {
            Cursor::Start => b"0".to_vec(),
            Cursor::From(from) => from.clone(),
            Cursor::End => return Ok(None),
        };
        let answer = self.run_one(Command::on("HSCAN", key).arg(from).arg("COUNT").arg(shape.step)).await?;
        let [next, items] = <[Value; 2]>::try_from(value::list(answer)?).map_err(|_| value::unexpected())?;
        let next = value::bytes(next)?;
        *cursor = if next == b"0" { Cursor::End } else { Cursor::From(next) };
        let mut items = value::bytes_list(items)?.into_iter();
        let mut pairs = Vec::with_capacity(items.len() / 2);
        while let (Some(field), Some(content)) = (items.next(), items.next()) {
            pairs.push((field, content));
        }
        let mut expiring = Vec::new();
        if shape.fields_may_expire && !pairs.is_empty() {
            let names: Vec<&Bytes> = pairs.iter().map(|(field, _)| field).collect();
            let ask = Command::on("HPEXPIRETIME", key).arg("FIELDS").arg(names.len()).arg(&names);
            for ((field, _), at) in pairs.iter().zip(value::list(self.run_one(ask).await?)?) {
                if value::int(at)? >= 0 {
                    expiring.push(field.clone());
                }
            }
        }
        Ok(Some(Piece { pairs, expiring }))
    }
}

impl Piece {
    /// Why it can't be copied, if so.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        (!self.expiring.is_empty()).then_some(EXPIRING)
    }

    /// The command that adds it to a hash, if it holds anything.
    pub(super) fn addition(&self, to: &RedisKey) -> Option<Cmd> {
        let mut add = cmd("HSET").arg(to.as_bytes()).take();
        for (field, content) in &self.pairs {
            add.arg(field).arg(content);
        }
        (!self.pairs.is_empty()).then_some(add)
    }
}
