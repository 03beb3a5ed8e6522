//! Reads huge entries in pieces, so that no command holds the server long and memory stays bounded.
//!
//! Owns what is huge, which types come in pieces, and what each does with a piece: read it, add it to a copy, look it
//! up in another entry. Refuses what a copy in pieces could not keep: fields that expire by themselves, pending
//! entries without their message, strings and values of modules.

mod contrast;
mod groups;
mod hash;
mod list;
mod permission;
mod set;
mod sorted_set;
mod stream;

use redis::{Cmd, Value};

use crate::keyspace::command::Command;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::entry::{Bytes, Expiry};
use crate::model::key::RedisKey;

use contrast::Contrast;
pub(super) use groups::Groups;
use permission::NOT_PERMITTED;

/// Entries that take more memory can't be copied in one piece without holding the server too long: what takes time
/// is members, and one that is stored by itself takes some 70 bytes at least, so that these are 15,000 or 10 ms.
pub const HUGE_BYTES: u64 = 1024 * 1024;

/// Members and bytes of a piece, about.
const PIECE_MEMBERS: u64 = 1_000;
const PIECE_BYTES: u64 = 256 * 1024;

const OTHER_TYPE: &str = "it is a string or a module's value; split or remove it";
const ONE_BLOCK: &str = "Redis stores it as one block, which can't be read in pieces; lower hash-max-listpack-entries and the like, then rewrite it";
const OLD_SERVER: &str =
    "Redis before 7.0 does not tell when an entry ends; update Redis, or split or remove the entry";

/// The types that come in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hash,
    Set,
    SortedSet,
    List,
    Stream,
}

impl Kind {
    /// The kind by what `TYPE` answers.
    fn named(type_name: &[u8]) -> Option<Self> {
        match type_name {
            b"hash" => Some(Self::Hash),
            b"set" => Some(Self::Set),
            b"zset" => Some(Self::SortedSet),
            b"list" => Some(Self::List),
            b"stream" => Some(Self::Stream),
            _ => None,
        }
    }

    fn length_command(self) -> &'static str {
        match self {
            Self::Hash => "HLEN",
            Self::Set => "SCARD",
            Self::SortedSet => "ZCARD",
            Self::List => "LLEN",
            Self::Stream => "XLEN",
        }
    }
}

/// What is known of an entry before its pieces are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) members: u64,
    pub(super) expiry: Expiry,
    /// Members of one piece.
    step: u64,
    /// Whether it is a hash and the server knows expiries of single fields.
    fields_may_expire: bool,
}

/// Where the next piece begins.
#[derive(Clone)]
pub(super) enum Cursor {
    Start,
    /// What a scan answered.
    Scan(Bytes),
    /// The index of a list's element.
    Index(u64),
    /// After the stream entry of this id.
    After(Bytes),
    /// The settings and groups of a stream.
    Groups,
    /// The pending entries of these groups of a stream, the last one first: from the start, or after this id.
    Pending(Vec<Bytes>, Option<Bytes>),
    End,
}

/// One piece of an entry.
pub(super) enum Piece {
    Fields(hash::Fields),
    Members(set::Members),
    Scores(sorted_set::Scores),
    Elements(list::Elements),
    Entries(stream::Entries),
    Groups(Groups),
    Pending(groups::Pending),
}

impl Shape {
    /// From where on pieces may hold something that a copy could not keep.
    fn first_doubt(&self) -> Cursor {
        match self.kind {
            Kind::Hash if self.fields_may_expire => Cursor::Start,
            Kind::Stream => Cursor::Groups,
            Kind::Hash | Kind::Set | Kind::SortedSet | Kind::List => Cursor::End,
        }
    }

    /// From where on pieces may change without `WATCH` noticing: no command on groups counts as a change of its key.
    pub(super) fn first_unwatched(&self) -> Cursor {
        if self.kind == Kind::Stream { Cursor::Groups } else { Cursor::End }
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

    /// Why an entry can't be copied in pieces, if so. It is looked through only as far as its type leaves a doubt.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn obstacle_to_pieces(&self, key: &RedisKey) -> Result<Option<&'static str>, Fault> {
        let shape = match self.shape(key).await {
            Err(fault) if fault.class == FaultClass::UnknownCommand => return Ok(Some(OLD_SERVER)),
            Err(fault) if fault.class == FaultClass::NotPermitted => return Ok(Some(NOT_PERMITTED)),
            other => other?,
        };
        let Some(shape) = shape else { return Ok(self.is_there(key).await?.then_some(OTHER_TYPE)) };
        if !self.may_copy(shape.kind, key).await? {
            return Ok(Some(NOT_PERMITTED));
        }
        if self.is_one_block(key, shape.kind).await? {
            return Ok(Some(ONE_BLOCK));
        }
        let mut cursor = shape.first_doubt();
        while let Some(piece) = self.piece(key, &shape, &mut cursor).await? {
            if let Some(obstacle) = piece.obstacle(self, key).await? {
                return Ok(Some(obstacle));
            }
        }
        Ok(None)
    }

    /// As [`Keyspace::shape`], for a key that came in pieces before.
    pub(super) async fn source_shape(&self, key: &RedisKey) -> Result<Option<Shape>, Fault> {
        match self.shape(key).await? {
            None if self.is_there(key).await? => Err(Fault::new(FaultClass::Disturbed)),
            shape => Ok(shape),
        }
    }

    async fn is_there(&self, key: &RedisKey) -> Result<bool, Fault> {
        Ok(self.exist(std::slice::from_ref(key)).await?.contains(&true))
    }

    async fn kind(&self, key: &RedisKey) -> Result<Option<Kind>, Fault> {
        Ok(Kind::named(&value::bytes(self.run_one(Command::on("TYPE", key)).await?)?))
    }

    /// Whether scans answer with the whole entry, as they do for what is small by the server's settings; and each
    /// member that is added to a copy would be looked for in all of it. Who may not ask is believed to have none.
    async fn is_one_block(&self, key: &RedisKey, kind: Kind) -> Result<bool, Fault> {
        if matches!(kind, Kind::List | Kind::Stream) {
            return Ok(false);
        }
        match self.run_one(Command::sub("OBJECT", "ENCODING", key)).await {
            Err(fault) if fault.class == FaultClass::NotPermitted => Ok(false),
            Ok(Value::Nil) => Ok(false),
            encoding => Ok(!matches!(value::bytes(encoding?)?.as_slice(), b"hashtable" | b"skiplist")),
        }
    }

    /// An entry's shape, if it comes in pieces.
    pub(super) async fn shape(&self, key: &RedisKey) -> Result<Option<Shape>, Fault> {
        let Some(kind) = self.kind(key).await? else { return Ok(None) };
        let asked = vec![
            Command::on(kind.length_command(), key),
            Command::on("PEXPIRETIME", key),
            Command::sub("MEMORY", "USAGE", key),
        ];
        let mut answers = self.run(asked).await.into_iter();
        let mut next = || answers.next().unwrap_or(Err(value::unexpected()));
        let members = match next() {
            Err(fault) if fault.class == FaultClass::WrongType => return Ok(None),
            other => u64::try_from(value::int(other?)?).unwrap_or(0),
        };
        let expiry = Expiry::from_pexpiretime(value::int(next()?)?);
        let Value::Int(bytes) = next()? else { return Ok(None) };
        // Only a stream exists without members.
        if members == 0 && kind != Kind::Stream {
            return Ok(None);
        }
        let each = (u64::try_from(bytes).unwrap_or(0) / members.max(1)).max(1);
        let step = (PIECE_BYTES / each).clamp(1, PIECE_MEMBERS);
        let fields_may_expire = kind == Kind::Hash && self.fields_may_expire(key).await?;
        Ok(Some(Shape { kind, members, expiry, step, fields_may_expire }))
    }

    /// The next piece, if there is one. It may hold members that another piece holds too, where order is none.
    pub(super) async fn piece(
        &self,
        key: &RedisKey,
        shape: &Shape,
        cursor: &mut Cursor,
    ) -> Result<Option<Piece>, Fault> {
        Ok(Some(match (shape.kind, &*cursor) {
            (_, Cursor::End) => return Ok(None),
            (Kind::Hash, _) => Piece::Fields(hash::Fields::read(self, key, shape, cursor).await?),
            (Kind::Set, _) => Piece::Members(set::Members::read(self, key, shape, cursor).await?),
            (Kind::SortedSet, _) => Piece::Scores(sorted_set::Scores::read(self, key, shape, cursor).await?),
            (Kind::List, _) => Piece::Elements(list::Elements::read(self, key, shape, cursor).await?),
            (Kind::Stream, Cursor::Groups) => Piece::Groups(Groups::read(self, key, cursor).await?),
            (Kind::Stream, Cursor::Pending(..)) => Piece::Pending(groups::Pending::read(self, key, cursor).await?),
            (Kind::Stream, _) => Piece::Entries(stream::Entries::read(self, key, shape, cursor).await?),
        }))
    }

    /// One step of `HSCAN` and the like.
    async fn scan_step(
        &self,
        name: &str,
        key: &RedisKey,
        shape: &Shape,
        cursor: &mut Cursor,
    ) -> Result<Vec<Bytes>, Fault> {
        let from = if let Cursor::Scan(from) = cursor { from.clone() } else { b"0".to_vec() };
        let answer = self.run_one(Command::on(name, key).arg(from).arg("COUNT").arg(shape.step)).await?;
        let [next, items] = <[Value; 2]>::try_from(value::list(answer)?).map_err(|_| value::unexpected())?;
        let next = value::bytes(next)?;
        *cursor = if next == b"0" { Cursor::End } else { Cursor::Scan(next) };
        value::bytes_list(items)
    }

    /// One command's list of answers about so many names.
    async fn answers_about(&self, ask: Command, names: usize) -> Result<Vec<Value>, Fault> {
        let answers = value::list(self.run_one(ask).await?)?;
        if answers.len() == names { Ok(answers) } else { Err(value::unexpected()) }
    }
}

impl Piece {
    /// Why it can't be copied from its key, if so.
    pub(super) async fn obstacle(&self, keyspace: &Keyspace, key: &RedisKey) -> Result<Option<&'static str>, Fault> {
        match self {
            Self::Fields(fields) => Ok(fields.obstacle()),
            Self::Groups(groups) => Ok(groups.obstacle()),
            Self::Pending(pending) => pending.obstacle(keyspace, key).await,
            Self::Members(_) | Self::Scores(_) | Self::Elements(_) | Self::Entries(_) => Ok(None),
        }
    }

    /// The commands that add it to a copy, in their order; none if it holds nothing.
    pub(super) fn additions(&self, to: &RedisKey) -> Vec<Cmd> {
        match self {
            Self::Fields(fields) => fields.addition(to).into_iter().collect(),
            Self::Members(members) => members.addition(to).into_iter().collect(),
            Self::Scores(scores) => scores.addition(to).into_iter().collect(),
            Self::Elements(elements) => elements.addition(to).into_iter().collect(),
            Self::Entries(entries) => entries.additions(to),
            Self::Groups(groups) => groups.additions(to),
            Self::Pending(pending) => pending.additions(to),
        }
    }

    /// Notes in what way another entry of the same type does not hold it.
    async fn look_up(self, keyspace: &Keyspace, other: &RedisKey, contrast: &mut Contrast) -> Result<(), Fault> {
        match self {
            Self::Fields(fields) => fields.look_up(keyspace, other, contrast).await,
            Self::Members(members) => members.look_up(keyspace, other, contrast).await,
            Self::Scores(scores) => scores.look_up(keyspace, other, contrast).await,
            Self::Elements(elements) => elements.look_up(keyspace, other, contrast).await,
            Self::Entries(entries) => entries.look_up(keyspace, other, contrast).await,
            Self::Groups(groups) => groups.look_up(keyspace, other, contrast).await,
            Self::Pending(pending) => pending.look_up(keyspace, other, contrast).await,
        }
    }
}
