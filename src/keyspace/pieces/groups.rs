//! What a stream holds beside its entries: last id and counters, groups, consumers, pending entries.
//!
//! Refuses what no command can make again: pending entries without their message, or delivered in the future; and
//! more groups or consumers than one answer should tell. When a consumer was last seen is not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::time::Duration;

use redis::{Cmd, Value, cmd};

use crate::keyspace::command::Command;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::pieces::Cursor;
use crate::keyspace::pieces::contrast::Contrast;
use crate::keyspace::pieces::stream::{in_one, start, tell_apart};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::entry::Bytes;
use crate::model::key::RedisKey;
use crate::model::slot::slot_of;

/// Groups, and consumers of all groups, that one answer may tell.
const GROUPS_LIMIT: u64 = 1_000;
const CONSUMERS_LIMIT: u64 = 10_000;

/// Pending entries of a piece: few, so that they are read within one millisecond.
const PENDING_STEP: usize = 250;

/// Looks at pending entries until one falls into one millisecond.
const LOOKS: usize = 200;
const PAUSE: Duration = Duration::from_millis(1);

const TOO_MANY: &str = "it is a stream with more than 1,000 groups or 10,000 consumers; remove those out of use";
const DELETED: &str = "it is a stream with pending entries whose message was deleted; XACK them";
const FUTURE: &str = "it is a stream with entries that were delivered in the future of the server's clock; XACK them";

/// Facts that depend on how and when a stream was stored, or that the entries tell.
const LEFT_OUT: [&[u8]; 7] =
    [b"length", b"radix-tree-keys", b"radix-tree-nodes", b"first-entry", b"last-entry", b"idle", b"inactive"];

/// Names and values as Redis tells them; a number that it does not know is empty.
type Facts = BTreeMap<Bytes, Bytes>;

/// The settings of a stream, and its groups by name.
#[derive(PartialEq, Eq, Default)]
pub(in crate::keyspace) struct Groups {
    settings: Facts,
    by_name: BTreeMap<Bytes, Group>,
    are_too_many: bool,
}

#[derive(PartialEq, Eq, Default)]
struct Group {
    facts: Facts,
    /// Facts of each consumer by its name.
    consumers: BTreeMap<Bytes, Facts>,
}

impl Keyspace {
    /// What `WATCH` does not watch: the groups of a stream, nothing for another key.
    pub(in crate::keyspace) async fn unwatched(&self, key: &RedisKey) -> Result<Groups, Fault> {
        match self.kind(key).await? {
            Some(super::Kind::Stream) => Groups::read(self, key, &mut Cursor::Groups).await,
            _ => Ok(Groups::default()),
        }
    }

    /// The answer of `XINFO`, or of `XPENDING`; `None` if the stream or its group is gone.
    async fn told(&self, ask: Command) -> Result<Option<Value>, Fault> {
        match self.run_one(ask).await {
            Err(fault) if fault.class == FaultClass::Refused => Ok(None),
            other => other.map(Some),
        }
    }
}

impl Groups {
    pub(super) async fn read(keyspace: &Keyspace, key: &RedisKey, cursor: &mut Cursor) -> Result<Self, Fault> {
        *cursor = Cursor::End;
        let Some(answer) = keyspace.told(Command::sub("XINFO", "STREAM", key)).await? else {
            return Ok(Self::default());
        };
        let settings = facts(answer)?.1;
        if number(settings.get(&b"groups"[..])) > GROUPS_LIMIT {
            return Ok(Self { settings, are_too_many: true, ..Self::default() });
        }
        let mut by_name = BTreeMap::new();
        let mut consumers = 0;
        for group in value::list(keyspace.told(Command::sub("XINFO", "GROUPS", key)).await?.unwrap_or(Value::Nil))? {
            let (name, facts) = facts(group)?;
            consumers += number(facts.get(&b"consumers"[..]));
            by_name.insert(name, Group { facts, consumers: BTreeMap::new() });
        }
        if consumers > CONSUMERS_LIMIT {
            return Ok(Self { settings, by_name, are_too_many: true });
        }
        for (name, group) in &mut by_name {
            let ask = Command::sub("XINFO", "CONSUMERS", key).arg(name);
            for consumer in value::list(keyspace.told(ask).await?.unwrap_or(Value::Nil))? {
                group.consumers.extend([facts(consumer)?]);
            }
        }
        let pending = |group: &&Group| number(group.facts.get(&b"pending"[..])) > 0;
        let names = by_name.iter().filter(|(_, group)| pending(group)).map(|(name, _)| name.clone()).rev().collect();
        *cursor = Cursor::Pending(names, None).unless_done();
        Ok(Self { settings, by_name, are_too_many: false })
    }

    pub(super) fn obstacle(&self) -> Option<&'static str> {
        self.are_too_many.then_some(TOO_MANY)
    }

    /// The settings first: groups are told by them how much they have read.
    pub(super) fn additions(&self, to: &RedisKey) -> Vec<Cmd> {
        let fact = |facts: &Facts, name: &str| facts.get(name.as_bytes()).filter(|it| !it.is_empty()).cloned();
        let setting = |name: &str| fact(&self.settings, name).unwrap_or_else(|| b"0".to_vec());
        let mut settings = cmd("XSETID").arg(to.as_bytes()).arg(setting("last-generated-id")).take();
        settings.arg("ENTRIESADDED").arg(setting("entries-added"));
        settings.arg("MAXDELETEDID").arg(setting("max-deleted-entry-id"));
        let mut additions = vec![settings];
        for (name, Group { facts, consumers }) in &self.by_name {
            let from = fact(facts, "last-delivered-id").unwrap_or_else(|| b"0".to_vec());
            let read = fact(facts, "entries-read").unwrap_or_else(|| b"-1".to_vec());
            let create = cmd("XGROUP").arg("CREATE").arg(to.as_bytes()).arg(name).arg(from).take();
            additions.push(create.clone().arg("ENTRIESREAD").arg(read).take());
            let consumer = |it| cmd("XGROUP").arg("CREATECONSUMER").arg(to.as_bytes()).arg(name).arg(it).take();
            additions.extend(consumers.keys().map(consumer));
        }
        additions
    }

    pub(super) async fn look_up(
        self,
        keyspace: &Keyspace,
        other: &RedisKey,
        contrast: &mut Contrast,
    ) -> Result<(), Fault> {
        let theirs = Self::read(keyspace, other, &mut Cursor::Groups).await?;
        if self.are_too_many || theirs.are_too_many {
            contrast.note(b"groups", Some(b"too many to compare".to_vec()), None);
            return Ok(());
        }
        if self.settings != theirs.settings {
            contrast.note(b"settings", Some(in_text(&self.settings)), Some(in_text(&theirs.settings)));
        }
        let names: BTreeSet<&Bytes> = self.by_name.keys().chain(theirs.by_name.keys()).collect();
        for name in names {
            let (ours, theirs) = (self.by_name.get(name), theirs.by_name.get(name));
            if ours != theirs {
                contrast.note(&[b"group ", name.as_slice()].concat(), ours.map(Group::told), theirs.map(Group::told));
            }
        }
        Ok(())
    }
}

impl Group {
    fn told(&self) -> Bytes {
        let consumers = self.consumers.iter().flat_map(|(name, facts)| [name.clone(), in_text(facts)]);
        in_one(&iter::once(in_text(&self.facts)).chain(consumers).collect::<Vec<_>>())
    }
}

fn in_text(facts: &Facts) -> Bytes {
    in_one(&facts.iter().flat_map(|(name, fact)| [name.clone(), fact.clone()]).collect::<Vec<_>>())
}

/// One item of `XINFO`: its name, where it has one, and its facts.
fn facts(answer: Value) -> Result<(Bytes, Facts), Fault> {
    let mut items = value::list(answer)?.into_iter();
    let (mut called, mut facts) = (Bytes::new(), Facts::new());
    while let (Some(name), Some(fact)) = (items.next(), items.next()) {
        let name = value::bytes(name)?;
        if name == b"name" {
            called = value::bytes(fact)?;
        } else if !LEFT_OUT.contains(&name.as_slice()) {
            // What we do not know is compared at least, whatever it is: a difference is better than a guess.
            let fact = match fact {
                Value::Nil => Bytes::new(),
                Value::Array(_) | Value::Map(_) | Value::Set(_) => format!("{fact:?}").into_bytes(),
                plain => value::bytes(plain)?,
            };
            facts.insert(name, fact);
        }
    }
    Ok((called, facts))
}

fn number(fact: Option<&Bytes>) -> u64 {
    fact.and_then(|it| std::str::from_utf8(it).ok()).and_then(|it| it.parse().ok()).unwrap_or(0)
}

impl Cursor {
    /// No groups are left: nothing is.
    fn unless_done(self) -> Self {
        match self {
            Self::Pending(groups, _) if groups.is_empty() => Self::End,
            other => other,
        }
    }
}

/// Pending entries of one group in a row.
pub(in crate::keyspace) struct Pending {
    group: Bytes,
    /// The id before, if these are not the group's first.
    after: Option<Bytes>,
    deliveries: Vec<Delivery>,
    are_of_the_future: bool,
}

struct Delivery {
    id: Bytes,
    to: Receipt,
}

/// Who got an entry, when (Unix milliseconds), and how many times.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Receipt {
    consumer: Bytes,
    at: i64,
    times: i64,
}

impl Pending {
    pub(super) async fn read(keyspace: &Keyspace, key: &RedisKey, cursor: &mut Cursor) -> Result<Self, Fault> {
        let Cursor::Pending(mut groups, after) = std::mem::replace(cursor, Cursor::End) else {
            return Err(value::unexpected());
        };
        let Some(group) = groups.last().cloned() else { return Err(value::unexpected()) };
        let (deliveries, are_of_the_future) =
            deliveries(keyspace, key, &group, after.as_ref(), b"+", PENDING_STEP).await?;
        let next = deliveries.last().filter(|_| deliveries.len() >= PENDING_STEP).map(|it| it.id.clone());
        if next.is_none() {
            groups.pop();
        }
        *cursor = Cursor::Pending(groups, next).unless_done();
        Ok(Self { group, after, deliveries, are_of_the_future })
    }

    /// `XCLAIM` makes no entry pending that the stream does not hold.
    pub(super) async fn obstacle(&self, keyspace: &Keyspace, key: &RedisKey) -> Result<Option<&'static str>, Fault> {
        let message = |it: &Delivery| Command::on("XRANGE", key).arg(&it.id).arg(&it.id);
        for found in keyspace.run(self.deliveries.iter().map(message).collect()).await {
            if value::list(found?)?.is_empty() {
                return Ok(Some(DELETED));
            }
        }
        Ok(self.are_of_the_future.then_some(FUTURE))
    }

    /// Those that one consumer got at one time are made pending at once.
    pub(super) fn additions(&self, to: &RedisKey) -> Vec<Cmd> {
        let mut by_receipt: BTreeMap<&Receipt, Vec<&Bytes>> = BTreeMap::new();
        for delivery in &self.deliveries {
            by_receipt.entry(&delivery.to).or_default().push(&delivery.id);
        }
        let claim = |(receipt, ids): (&Receipt, Vec<&Bytes>)| {
            let mut claim = cmd("XCLAIM").arg(to.as_bytes()).arg(&self.group).arg(&receipt.consumer).arg(0).take();
            claim.arg(ids).arg("TIME").arg(receipt.at).arg("RETRYCOUNT").arg(receipt.times);
            claim.arg("FORCE").arg("JUSTID").take()
        };
        by_receipt.into_iter().map(claim).collect()
    }

    pub(super) async fn look_up(
        self,
        keyspace: &Keyspace,
        other: &RedisKey,
        contrast: &mut Contrast,
    ) -> Result<(), Fault> {
        let Some(last) = self.deliveries.last() else { return Ok(()) };
        let count = self.deliveries.len() + 1;
        let (found, _) = deliveries(keyspace, other, &self.group, self.after.as_ref(), &last.id, count).await?;
        let told = |deliveries: Vec<Delivery>| deliveries.into_iter().map(Delivery::told).collect::<Vec<_>>();
        let prefix = [b"pending ", self.group.as_slice(), b" "].concat();
        tell_apart(&prefix, told(self.deliveries), told(found), contrast);
        Ok(())
    }
}

impl Delivery {
    fn told(self) -> (Bytes, Bytes) {
        let Receipt { consumer, at, times } = self.to;
        (self.id, in_one(&[consumer, at.to_string().into_bytes(), times.to_string().into_bytes()]))
    }
}

/// So many pending entries after one id, up to another, and whether any was delivered in the future. `XPENDING` tells
/// how long ago that was: if the server's clock shows one millisecond before and after, it is known when.
async fn deliveries(
    keyspace: &Keyspace,
    key: &RedisKey,
    group: &Bytes,
    after: Option<&Bytes>,
    last: &[u8],
    count: usize,
) -> Result<(Vec<Delivery>, bool), Fault> {
    let clock = || Command { slot: slot_of(key), cmd: cmd("TIME"), script: None };
    let mut of_the_future = None;
    for _ in 0..LOOKS {
        let ask = Command::on("XPENDING", key).arg(group).arg(start(after)).arg(last).arg(count);
        let mut answers = keyspace.run(vec![clock(), ask, clock()]).await.into_iter();
        let mut next = || answers.next().unwrap_or(Err(value::unexpected()));
        let before = millis(next()?)?;
        let found = match next() {
            // The group is gone, which its absence among the groups tells.
            Err(fault) if fault.class == FaultClass::Refused => return Ok((Vec::new(), false)),
            other => value::list(other?)?,
        };
        if before != millis(next()?)? {
            continue;
        }
        let read: Result<Vec<Delivery>, Fault> = found.into_iter().map(|it| delivery(it, before)).collect();
        let read = read?;
        // Redis tells the future as now: it is now only once.
        if read.iter().all(|it| it.to.at < before) {
            return Ok((read, false));
        }
        of_the_future = Some(read);
        tokio::time::sleep(PAUSE).await;
    }
    of_the_future.map(|read| (read, true)).ok_or(Fault::new(FaultClass::Timeout))
}

fn delivery(answer: Value, now: i64) -> Result<Delivery, Fault> {
    let [id, consumer, idle, times] = <[Value; 4]>::try_from(value::list(answer)?).map_err(|_| value::unexpected())?;
    let receipt = Receipt { consumer: value::bytes(consumer)?, at: now - value::int(idle)?, times: value::int(times)? };
    Ok(Delivery { id: value::bytes(id)?, to: receipt })
}

/// The answer of `TIME` as Unix milliseconds.
fn millis(answer: Value) -> Result<i64, Fault> {
    let [seconds, micros] = <[Value; 2]>::try_from(value::list(answer)?).map_err(|_| value::unexpected())?;
    Ok(value::int(seconds)? * 1000 + value::int(micros)? / 1000)
}
