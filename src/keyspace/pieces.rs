//! Reads and compares huge entries in pieces, so that no command holds the server long and memory stays bounded.
//!
//! Owns what is huge, how an entry of each type is read piece by piece, and the comparison of two entries by
//! looking up each piece of one in the other. Refuses module types, which only `DUMP` can read.

use std::collections::BTreeMap;

use redis::{Cmd, Value, cmd};

use crate::keyspace::command::Command;
use crate::keyspace::compare::Comparison;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::entry::{Bytes, Entry, Expiry, Value as Content};
use crate::model::key::RedisKey;

/// Entries above either size can't be copied in one piece without holding the server too long.
const HUGE_BYTES: u64 = 1024 * 1024;
const HUGE_MEMBERS: u64 = 10_000;

/// Members and bytes of a piece, about.
const PIECE_MEMBERS: u64 = 1_000;
const PIECE_BYTES: u64 = 256 * 1024;

/// Differing members that a comparison keeps; more than any migration changes in one entry.
const CONTRAST_LIMIT: usize = 64;

/// How big an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes that the server estimates, with its overhead.
    pub bytes: u64,
    /// Whether it has to be read in pieces.
    pub is_huge: bool,
    /// Whether it would have to be, and can't: a module's type.
    pub is_indivisible: bool,
}

/// Types that can be read in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Hash,
    List,
    Set,
    SortedSet,
    Stream,
}

impl Kind {
    fn of(type_name: &[u8]) -> Option<Self> {
        match type_name {
            b"string" => Some(Self::String),
            b"hash" => Some(Self::Hash),
            b"list" => Some(Self::List),
            b"set" => Some(Self::Set),
            b"zset" => Some(Self::SortedSet),
            b"stream" => Some(Self::Stream),
            _ => None,
        }
    }

    fn length_command(self) -> &'static str {
        match self {
            Self::String => "STRLEN",
            Self::Hash => "HLEN",
            Self::List => "LLEN",
            Self::Set => "SCARD",
            Self::SortedSet => "ZCARD",
            Self::Stream => "XLEN",
        }
    }

    /// A reduced value that holds these members only.
    fn value(self, members: BTreeMap<Bytes, Bytes>) -> Content {
        match self {
            Self::String => Content::String(members.into_values().collect::<Vec<_>>().concat()),
            Self::Hash => Content::Hash(members),
            Self::List => Content::List(members.into_values().collect()),
            Self::Set => Content::Set(members.into_keys().collect()),
            Self::SortedSet => Content::SortedSet(members),
            Self::Stream => Content::Stream { entries: Vec::new(), groups: members.into_values().collect() },
        }
    }
}

/// What is known of an entry before its pieces are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) kind: Kind,
    pub(super) length: u64,
    pub(super) expiry: Expiry,
    /// Members of one piece.
    step: u64,
    /// Whether the server knows expiries of single fields.
    fields_may_expire: bool,
}

/// Where the next piece begins.
pub(super) enum Cursor {
    Start,
    Scan(Bytes),
    Index(u64),
    After(Bytes),
    End,
}

/// One piece of an entry.
pub(super) enum Piece {
    /// Fields with values, or members with scores; and the fields with an expiry of their own.
    Pairs {
        pairs: Vec<(Bytes, Bytes)>,
        expiring: Vec<Bytes>,
    },
    Members(Vec<Bytes>),
    Elements {
        from: u64,
        elements: Vec<Bytes>,
    },
    Chunk {
        from: u64,
        bytes: Bytes,
    },
    Entries(Vec<(Bytes, Vec<Bytes>)>),
}

/// What a stream holds beside its entries.
pub(super) struct StreamFacts {
    pub(super) last_id: Bytes,
    pub(super) max_deleted_id: Bytes,
    pub(super) entries_added: Bytes,
    pub(super) groups: Vec<Group>,
}

pub(super) struct Group {
    pub(super) name: Bytes,
    pub(super) last_id: Bytes,
    /// Absent where the server can't tell.
    pub(super) entries_read: Option<Bytes>,
    pub(super) pending: i64,
    pub(super) consumers: Vec<Bytes>,
}

/// The members in which two entries differ, each side's.
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

    fn note(&mut self, member: &[u8], source: Option<Bytes>, target: Option<Bytes>) {
        if self.is_full() {
            return;
        }
        self.source.extend(source.map(|it| (member.to_vec(), it)));
        self.target.extend(target.map(|it| (member.to_vec(), it)));
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
    /// How big each entry is; the number of members is asked for only where it can matter.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn sizes(&self, keys: &[RedisKey]) -> Result<Vec<Size>, Fault> {
        let bytes = self.memory_usage(keys).await?;
        let mut sizes: Vec<Size> =
            bytes.iter().map(|&bytes| Size { bytes, is_huge: false, is_indivisible: false }).collect();
        // No type stores a member in less than a byte.
        let unsure: Vec<usize> = (0..keys.len()).filter(|&index| bytes[index] > HUGE_MEMBERS).collect();
        let types = unsure.iter().map(|&index| Command::on("TYPE", &keys[index])).collect();
        let mut divisible = Vec::new();
        for (&index, answer) in unsure.iter().zip(self.run(types).await) {
            match Kind::of(&value::bytes(answer?)?) {
                Some(Kind::String) => sizes[index].is_huge = bytes[index] > HUGE_BYTES,
                Some(kind) => divisible.push((index, kind)),
                None => sizes[index].is_indivisible = bytes[index] > HUGE_BYTES,
            }
        }
        let lengths = divisible.iter().map(|(index, kind)| Command::on(kind.length_command(), &keys[*index])).collect();
        for ((index, _), answer) in divisible.into_iter().zip(self.run(lengths).await) {
            let members = match answer {
                // It became another type just now; its bytes decide.
                Err(fault) if fault.class == FaultClass::WrongType => 0,
                other => u64::try_from(value::int(other?)?).unwrap_or(0),
            };
            sizes[index].is_huge = bytes[index] > HUGE_BYTES || members > HUGE_MEMBERS;
        }
        Ok(sizes)
    }

    /// Why an entry can't be copied in pieces, if so. A hash is looked through only where fields may expire.
    ///
    /// # Errors
    /// The first fault that stayed.
    pub async fn obstacle_to_pieces(&self, key: &RedisKey) -> Result<Option<&'static str>, Fault> {
        let Some(shape) = self.shape(key).await? else { return Ok(None) };
        match shape.kind {
            Kind::Stream => {
                let facts = self.stream_facts(key).await?;
                Ok(facts.groups.iter().any(|group| group.pending > 0).then_some(PENDING))
            }
            Kind::Hash if shape.fields_may_expire => {
                let mut cursor = Cursor::Start;
                while let Some(piece) = self.piece(key, &shape, &mut cursor).await? {
                    if let Some(obstacle) = piece.obstacle() {
                        return Ok(Some(obstacle));
                    }
                }
                Ok(None)
            }
            Kind::Hash | Kind::String | Kind::List | Kind::Set | Kind::SortedSet => Ok(None),
        }
    }

    /// Compares two entries in pieces. Where they differ, what it gives of each side is only the members that
    /// differ (at most 64), never a whole value: nothing to build a conditional write on.
    ///
    /// # Errors
    /// [`FaultClass::Disturbed`] if a primary changed meanwhile; the first fault that stayed.
    pub async fn compare_in_pieces(&self, source: &RedisKey, target: &RedisKey) -> Result<Comparison, Fault> {
        let (Some(ours), theirs) = (self.shape(source).await?, self.shape(target).await?) else {
            return Ok(Comparison::SourceGone);
        };
        let Some(theirs) = theirs else {
            // A type that can't be read in pieces exists all the same.
            return Ok(match self.exist(std::slice::from_ref(target)).await?.first() {
                Some(true) => different(
                    Entry { value: ours.kind.value(BTreeMap::new()), expiry: ours.expiry },
                    Entry {
                        value: Content::Module { type_name: Bytes::new(), payload: Bytes::new() },
                        expiry: ours.expiry,
                    },
                ),
                Some(false) | None => Comparison::TargetMissing,
            });
        };
        let contrast = if ours.kind == theirs.kind {
            self.contrast((source, &ours), (target, &theirs), None).await?
        } else {
            Contrast::default()
        };
        if ours.kind == theirs.kind && contrast.is_empty() && ours.expiry == theirs.expiry {
            return Ok(Comparison::Equal);
        }
        Ok(different(
            Entry { value: ours.kind.value(contrast.source), expiry: ours.expiry },
            Entry { value: theirs.kind.value(contrast.target), expiry: theirs.expiry },
        ))
    }

    /// Whether a staged copy holds what its source holds, expiry aside; `refresh` keeps it alive meanwhile.
    pub(super) async fn is_staged(
        &self,
        source: &RedisKey,
        staging: &RedisKey,
        refresh: &(dyn Fn() -> Command + Send + Sync),
    ) -> Result<bool, Fault> {
        let (Some(ours), Some(theirs)) = (self.shape(source).await?, self.shape(staging).await?) else {
            return Ok(false);
        };
        Ok(ours.kind == theirs.kind
            && self.contrast((source, &ours), (staging, &theirs), Some(refresh)).await?.is_empty())
    }

    /// Both sides are looked through unless the first look finds everything and the numbers agree.
    async fn contrast(
        &self,
        (source, ours): (&RedisKey, &Shape),
        (target, theirs): (&RedisKey, &Shape),
        refresh: Option<&(dyn Fn() -> Command + Send + Sync)>,
    ) -> Result<Contrast, Fault> {
        // A cursor belongs to one run of one server: carried to another it would miss members.
        let undisturbed = self.disturbances();
        let mut contrast = self.contrast_one_way((source, ours), target, refresh).await?;
        if (!contrast.is_empty() || ours.length != theirs.length) && !contrast.is_full() {
            contrast.add(self.contrast_one_way((target, theirs), source, refresh).await?.flipped());
        }
        if contrast.is_empty() && ours.length != theirs.length {
            contrast.note(b"length", Some(ours.length.to_string().into()), Some(theirs.length.to_string().into()));
        }
        if ours.kind == Kind::Stream {
            let (left, right) = (self.stream_facts(source).await?, self.stream_facts(target).await?);
            let (left, right) = (left.canonical(), right.canonical());
            if left != right {
                contrast.note(b"groups", Some(left), Some(right));
            }
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
            self.look_up(piece, shape.kind, other, &mut contrast).await?;
            if contrast.is_full() {
                break;
            }
        }
        Ok(contrast)
    }

    async fn look_up(&self, piece: Piece, kind: Kind, other: &RedisKey, contrast: &mut Contrast) -> Result<(), Fault> {
        match piece {
            Piece::Pairs { pairs, .. } if pairs.is_empty() => {}
            Piece::Pairs { pairs, expiring } => {
                let name = if kind == Kind::Hash { "HMGET" } else { "ZMSCORE" };
                let members: Vec<&Bytes> = pairs.iter().map(|(member, _)| member).collect();
                let found = value::list(self.run_one(Command::on(name, other).arg(members)).await?)?;
                for ((member, ours), theirs) in pairs.into_iter().zip(found) {
                    let theirs = if theirs == Value::Nil { None } else { Some(score_or_bytes(theirs)?) };
                    // An expiry of a single field is nothing that a lookup can prove equal.
                    let is_same = !expiring.contains(&member)
                        && theirs.as_ref().is_some_and(|theirs| match kind {
                            Kind::SortedSet => same_score(&ours, theirs),
                            _ => ours == *theirs,
                        });
                    if !is_same {
                        let theirs = theirs.filter(|theirs| *theirs != ours);
                        contrast.note(&member, Some(ours), theirs);
                    }
                }
            }
            Piece::Members(members) if members.is_empty() => {}
            Piece::Members(members) => {
                let found = value::list(self.run_one(Command::on("SMISMEMBER", other).arg(&members)).await?)?;
                for (member, is_there) in members.into_iter().zip(found) {
                    if value::int(is_there)? != 1 {
                        contrast.note(&member, Some(Bytes::new()), None);
                    }
                }
            }
            Piece::Elements { from, elements } => {
                let to = from + elements.len() as u64 - 1;
                let found = self.run_one(Command::on("LRANGE", other).arg(from).arg(to)).await?;
                let theirs = value::bytes_list(found)?;
                for (index, ours) in elements.into_iter().enumerate() {
                    if theirs.get(index) != Some(&ours) {
                        let position = (from + index as u64).to_be_bytes();
                        contrast.note(&position, Some(ours), theirs.get(index).cloned());
                    }
                }
            }
            Piece::Chunk { from, bytes } => {
                let to = from + bytes.len() as u64 - 1;
                let found = self.run_one(Command::on("GETRANGE", other).arg(from).arg(to)).await?;
                let theirs = value::bytes(found)?;
                if theirs != bytes {
                    contrast.note(&from.to_be_bytes(), Some(bytes), Some(theirs));
                }
            }
            Piece::Entries(entries) => {
                let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else { return Ok(()) };
                let range = Command::on("XRANGE", other).arg(first).arg(last).arg("COUNT").arg(entries.len() + 1);
                if stream_entries(self.run_one(range).await?)? != entries {
                    contrast.note(first, Some(Bytes::from(*b"entries")), Some(Bytes::from(*b"other entries")));
                }
            }
        }
        Ok(())
    }

    /// An entry's shape, if it exists and its type can be read in pieces.
    pub(super) async fn shape(&self, key: &RedisKey) -> Result<Option<Shape>, Fault> {
        let first =
            vec![Command::on("TYPE", key), Command::on("PEXPIRETIME", key), Command::sub("MEMORY", "USAGE", key)];
        let mut answers = self.run(first).await.into_iter();
        let mut next = || answers.next().unwrap_or(Err(value::unexpected()));
        let kind = Kind::of(&value::bytes(next()?)?);
        let expiry = Expiry::from_pexpiretime(value::int(next()?)?);
        let (Some(kind), Value::Int(bytes)) = (kind, next()?) else { return Ok(None) };
        let length = match self.run_one(Command::on(kind.length_command(), key)).await {
            // It became another type just now.
            Err(fault) if fault.class == FaultClass::WrongType => return Err(Fault::new(FaultClass::Disturbed)),
            other => u64::try_from(value::int(other?)?).unwrap_or(0),
        };
        let step = match kind {
            Kind::String => PIECE_BYTES,
            _ => {
                let each = (u64::try_from(bytes).unwrap_or(0) / length.max(1)).max(1);
                (PIECE_BYTES / each).clamp(1, PIECE_MEMBERS)
            }
        };
        let fields_may_expire = kind == Kind::Hash && self.fields_may_expire(key).await?;
        Ok((length > 0).then_some(Shape { kind, length, expiry, step, fields_may_expire }))
    }

    /// Servers before 7.4 do not know the command.
    async fn fields_may_expire(&self, key: &RedisKey) -> Result<bool, Fault> {
        let ask = Command::on("HPEXPIRETIME", key).arg("FIELDS").arg(1).arg("id");
        match self.run_one(ask).await {
            Err(fault) if fault.class == FaultClass::UnknownCommand => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// The next piece, if there is one.
    pub(super) async fn piece(
        &self,
        key: &RedisKey,
        shape: &Shape,
        cursor: &mut Cursor,
    ) -> Result<Option<Piece>, Fault> {
        if matches!(cursor, Cursor::End) {
            return Ok(None);
        }
        let piece = match shape.kind {
            Kind::Hash => self.pairs("HSCAN", key, shape, cursor).await?,
            Kind::SortedSet => self.pairs("ZSCAN", key, shape, cursor).await?,
            Kind::Set => Piece::Members(self.scanned("SSCAN", key, shape, cursor).await?),
            Kind::List => {
                let (from, to) = range(shape, cursor);
                let range = Command::on("LRANGE", key).arg(from).arg(to - 1);
                Piece::Elements { from, elements: value::bytes_list(self.run_one(range).await?)? }
            }
            Kind::String => {
                let (from, to) = range(shape, cursor);
                let range = Command::on("GETRANGE", key).arg(from).arg(to - 1);
                Piece::Chunk { from, bytes: value::bytes(self.run_one(range).await?)? }
            }
            Kind::Stream => {
                let from = if let Cursor::After(id) = cursor { [b"(".as_slice(), id].concat() } else { b"-".to_vec() };
                let range = Command::on("XRANGE", key).arg(from).arg("+").arg("COUNT").arg(shape.step);
                let entries = stream_entries(self.run_one(range).await?)?;
                *cursor = entries.last().map_or(Cursor::End, |(id, _)| Cursor::After(id.clone()));
                Piece::Entries(entries)
            }
        };
        // A list or string that became shorter meanwhile ends early; its length tells.
        let is_short = match &piece {
            Piece::Elements { elements, .. } => elements.is_empty(),
            Piece::Chunk { bytes, .. } => bytes.is_empty(),
            Piece::Entries(entries) => entries.is_empty(),
            Piece::Pairs { .. } | Piece::Members(_) => false,
        };
        Ok((!is_short).then_some(piece))
    }

    async fn pairs(&self, name: &str, key: &RedisKey, shape: &Shape, cursor: &mut Cursor) -> Result<Piece, Fault> {
        let mut items = self.scanned(name, key, shape, cursor).await?.into_iter();
        let mut pairs = Vec::with_capacity(items.len() / 2);
        while let (Some(member), Some(content)) = (items.next(), items.next()) {
            pairs.push((member, content));
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
        Ok(Piece::Pairs { pairs, expiring })
    }

    async fn scanned(
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

    /// What a stream holds beside its entries.
    pub(super) async fn stream_facts(&self, key: &RedisKey) -> Result<StreamFacts, Fault> {
        let mut answers = self
            .run(vec![Command::sub("XINFO", "STREAM", key), Command::sub("XINFO", "GROUPS", key)])
            .await
            .into_iter();
        let mut next = || answers.next().unwrap_or(Err(value::unexpected()));
        let mut info = named(next()?)?;
        let mut groups = Vec::new();
        for group in value::list(next()?)? {
            let mut facts = named(group)?;
            let name = value::bytes(take(&mut facts, "name")?)?;
            let asked = self.run_one(Command::sub("XINFO", "CONSUMERS", key).arg(&name)).await?;
            let mut consumers = Vec::new();
            for consumer in value::list(asked)? {
                consumers.push(value::bytes(take(&mut named(consumer)?, "name")?)?);
            }
            consumers.sort();
            groups.push(Group {
                last_id: value::bytes(take(&mut facts, "last-delivered-id")?)?,
                entries_read: match take(&mut facts, "entries-read")? {
                    Value::Nil => None,
                    known => Some(value::bytes(known)?),
                },
                pending: value::int(take(&mut facts, "pending")?)?,
                name,
                consumers,
            });
        }
        Ok(StreamFacts {
            last_id: value::bytes(take(&mut info, "last-generated-id")?)?,
            max_deleted_id: value::bytes(take(&mut info, "max-deleted-entry-id")?)?,
            entries_added: value::bytes(take(&mut info, "entries-added")?)?,
            groups,
        })
    }
}

pub(super) const PENDING: &str = "a stream has entries that consumers have not acknowledged, which can't be copied \
                                  exactly; let its consumers acknowledge them, or remove the stream";
const EXPIRING: &str = "a hash has fields with an expiry of their own, which can't be copied in pieces; \
                        let them expire, or HPERSIST them";

impl Piece {
    /// Why it can't be copied, if so.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        match self {
            Self::Pairs { expiring, .. } if !expiring.is_empty() => Some(EXPIRING),
            Self::Pairs { .. } | Self::Members(_) | Self::Elements { .. } | Self::Chunk { .. } | Self::Entries(_) => {
                None
            }
        }
    }

    /// The commands that add it to a key that holds the pieces before it.
    pub(super) fn additions(&self, kind: Kind, to: &RedisKey) -> Vec<Cmd> {
        let on = |name: &str| cmd(name).arg(to.as_bytes()).take();
        match self {
            Self::Pairs { pairs, .. } if pairs.is_empty() => Vec::new(),
            Self::Pairs { pairs, .. } if kind == Kind::Hash => {
                vec![pairs.iter().fold(on("HSET"), |add, (field, content)| add.with_pair(field, content))]
            }
            Self::Pairs { pairs, .. } => {
                vec![pairs.iter().fold(on("ZADD"), |add, (member, score)| add.with_pair(score, member))]
            }
            Self::Members(members) if members.is_empty() => Vec::new(),
            Self::Members(members) => vec![on("SADD").arg(members).take()],
            Self::Elements { elements, .. } => vec![on("RPUSH").arg(elements).take()],
            Self::Chunk { bytes, .. } => vec![on("APPEND").arg(bytes).take()],
            Self::Entries(entries) => {
                entries.iter().map(|(id, fields)| on("XADD").arg(id).arg(fields).take()).collect()
            }
        }
    }
}

/// Adds two arguments and hands the command on.
trait WithPair {
    fn with_pair(self, first: &[u8], second: &[u8]) -> Self;
}

impl WithPair for Cmd {
    fn with_pair(mut self, first: &[u8], second: &[u8]) -> Self {
        self.arg(first).arg(second);
        self
    }
}

impl StreamFacts {
    /// One text for all of it, the same for equal facts.
    fn canonical(&self) -> Bytes {
        let mut parts = vec![self.last_id.clone(), self.max_deleted_id.clone(), self.entries_added.clone()];
        for group in &self.groups {
            parts.extend([group.name.clone(), group.last_id.clone()]);
            parts.push(group.entries_read.clone().unwrap_or_default());
            parts.push(group.pending.to_string().into());
            parts.extend(group.consumers.iter().cloned());
        }
        // Lengths keep two different lists from reading the same.
        parts.iter().flat_map(|part| [format!("{}:", part.len()).into_bytes(), part.clone()].concat()).collect()
    }
}

fn different(source: Entry, target: Entry) -> Comparison {
    Comparison::Different { source, target }
}

/// The positions of the next piece, from inclusive, to exclusive.
fn range(shape: &Shape, cursor: &mut Cursor) -> (u64, u64) {
    let from = if let Cursor::Index(from) = cursor { *from } else { 0 };
    let to = from.saturating_add(shape.step).min(shape.length);
    *cursor = if to >= shape.length { Cursor::End } else { Cursor::Index(to) };
    (from, to)
}

fn score_or_bytes(answer: Value) -> Result<Bytes, Fault> {
    match answer {
        Value::Double(score) => Ok(score.to_string().into_bytes()),
        other => value::bytes(other),
    }
}

/// `ZSCAN` and `ZMSCORE` may print the same score differently.
fn same_score(left: &[u8], right: &[u8]) -> bool {
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<f64>().ok());
    left == right || number(left).zip(number(right)).is_some_and(|(left, right)| left.to_bits() == right.to_bits())
}

fn stream_entries(answer: Value) -> Result<Vec<(Bytes, Vec<Bytes>)>, Fault> {
    let mut entries = Vec::new();
    for item in value::list(answer)? {
        let [id, fields] = <[Value; 2]>::try_from(value::list(item)?).map_err(|_| value::unexpected())?;
        entries.push((value::bytes(id)?, value::bytes_list(fields)?));
    }
    Ok(entries)
}

fn named(answer: Value) -> Result<BTreeMap<Bytes, Value>, Fault> {
    let mut items = value::list(answer)?.into_iter();
    let mut facts = BTreeMap::new();
    while let (Some(name), Some(fact)) = (items.next(), items.next()) {
        facts.insert(value::bytes(name)?, fact);
    }
    Ok(facts)
}

fn take(facts: &mut BTreeMap<Bytes, Value>, name: &str) -> Result<Value, Fault> {
    facts.remove(name.as_bytes()).ok_or(value::unexpected())
}
