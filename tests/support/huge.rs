//! Huge entries of every type that comes in pieces, and ways to change them.

use redis::{Cmd, Value as Answer, cmd};

use super::engine::run_on_owner;
use super::load::load;
use super::redis_client::{Endpoint, slot};
use super::value::{Bytes, Entry, Value};

/// A type that comes in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Hash,
    Set,
    SortedSet,
    List,
    Stream,
}

/// Entries of a stream that a group delivered and nobody acknowledged.
pub const PENDING: usize = 20_000;

/// A group's name is bytes.
pub const GROUP: &[u8] = b"workers \xff";

/// Commands that a test sends at once.
const BATCH: usize = 10_000;

impl Kind {
    pub const ALL: [Self; 5] = [Self::Hash, Self::Set, Self::SortedSet, Self::List, Self::Stream];

    /// Writes an entry of so many members under a key.
    pub async fn load(self, redis: &Endpoint, key: &[u8], members: usize, expiry_ms: Option<i64>) {
        let value = match self {
            Self::Hash => Value::hash((0..members).map(|n| (format!("field:{n}"), format!("value of {n}")))),
            Self::Set => Value::Set((0..members).map(member).collect()),
            Self::SortedSet => Value::SortedSet((0..members).map(|n| (member(n), score(n))).collect()),
            // Every element comes twice, some of them side by side.
            Self::List => Value::List((0..members).map(|n| format!("element {}", n / 4 * 2 + n % 2).into()).collect()),
            Self::Stream => return load_stream(redis, key, members, expiry_ms).await,
        };
        load(redis, [Entry { key: key.to_vec(), value, expiry_ms }]).await;
    }

    /// What may become of an entry of so many members: each is another way to differ.
    pub fn changes(self, key: &[u8], members: usize) -> Vec<Cmd> {
        let middle = members / 2;
        let on = |name: &str, words: &[&[u8]]| {
            words.iter().fold(cmd(name).arg(key).take(), |mut it, word| it.arg(word).take())
        };
        let last = id(members - 1);
        match self {
            Self::Hash => {
                let field = format!("field:{middle}").into_bytes();
                vec![
                    on("HSET", &[&field, b"other"]),
                    on("HSET", &[b"new", b"1"]),
                    on("HDEL", &[&field]),
                    at_once(key, &[b"HDEL", &field], &[b"HSET", b"new", b"1"]),
                ]
            }
            Self::Set => vec![on("SADD", &[b"new"]), on("SREM", &[&member(middle)]), exchange(key, &member(middle))],
            Self::SortedSet => vec![
                // The next number after the score that it has.
                on("ZADD", &[b"0.10000000000000002", &member(TENTH)]),
                on("ZADD", &[b"inf", &member(middle)]),
                on("ZADD", &[b"1", b"new"]),
                on("ZREM", &[&member(middle)]),
                at_once(key, &[b"ZREM", &member(middle)], &[b"ZADD", &score(middle), b"new"]),
            ],
            Self::List => vec![
                on("LSET", &[middle.to_string().as_bytes(), b"other"]),
                // Another order of the same elements, in the same number.
                on("LMOVE", &[key, b"LEFT", b"RIGHT"]),
                on("LREM", &[b"-1", format!("element {}", middle / 2).as_bytes()]),
                on("RPUSH", &[format!("element {middle}").as_bytes()]),
                on("LPUSH", &[b"element 0"]),
            ],
            Self::Stream => vec![
                on("XADD", &[b"*", b"field", b"value"]),
                on("XADD", &[b"MAXLEN", (members - 1).to_string().as_bytes(), b"*", b"field", b"value"]),
                on("XDEL", &[&id(middle)]),
                on("XSETID", &[b"9999999999999-9"]),
                on("XSETID", &[last.as_slice(), b"ENTRIESADDED", b"99999999", b"MAXDELETEDID", &id(members / 2 + 1)]),
                on("XSETID", &[last.as_slice(), b"ENTRIESADDED", b"99999999", b"MAXDELETEDID", &id(members / 2 + 2)]),
                cmd("XGROUP").arg("CREATE").arg(key).arg("new").arg("0").take(),
                cmd("XGROUP").arg("DESTROY").arg(key).arg("empty").take(),
                cmd("XGROUP").arg("SETID").arg(key).arg(GROUP).arg("0").take(),
                cmd("XGROUP").arg("SETID").arg(key).arg("empty").arg("$").arg("ENTRIESREAD").arg(5).take(),
                cmd("XGROUP").arg("CREATECONSUMER").arg(key).arg("empty").arg("new").take(),
                on("XACK", &[GROUP, &id(PENDING / 2)]),
                on("XCLAIM", &[GROUP, b"a", b"0", &id(0), b"TIME", b"1700000000001", b"RETRYCOUNT", b"3", b"JUSTID"]),
                on("XCLAIM", &[GROUP, b"a", b"0", &id(0), b"TIME", b"1700000000000", b"RETRYCOUNT", b"4", b"JUSTID"]),
                on("XCLAIM", &[GROUP, b"b", b"0", &id(0), b"TIME", b"1700000000000", b"RETRYCOUNT", b"3", b"JUSTID"]),
            ],
        }
    }

    /// A change of what a copy in pieces has copied first or already, in the order of the copy.
    pub async fn change_copied(self, redis: &Endpoint, source: &[u8], staging: &[u8]) {
        let a_member = async |name: &str| match run_on_owner(redis, staging, cmd(name).arg(staging)).await {
            Answer::BulkString(member) => member,
            other => panic!("{name} of what is staged: {other:?}"),
        };
        let change = match self {
            Self::Hash => cmd("HSET").arg(source).arg(a_member("HRANDFIELD").await).arg("changed").take(),
            Self::Set => exchange(source, &a_member("SRANDMEMBER").await),
            Self::SortedSet => cmd("ZADD").arg(source).arg("-17.25").arg(a_member("ZRANDMEMBER").await).take(),
            Self::List => cmd("LSET").arg(source).arg(0).arg("changed").take(),
            Self::Stream => cmd("XDEL").arg(source).arg(id(PENDING)).take(),
        };
        assert_ne!(run_on_owner(redis, source, &change).await, Answer::Nil, "{self:?} changes");
    }
}

/// Another member takes the place of this one: there are as many as before.
fn exchange(key: &[u8], member: &[u8]) -> Cmd {
    at_once(key, &[b"SREM", member], &[b"SADD", b"new"])
}

/// Two changes of one key, each a name and arguments, of which nobody sees one alone.
fn at_once(key: &[u8], first: &[&[u8]], second: &[&[u8]]) -> Cmd {
    let script = "local words = tonumber(ARGV[1])
                  redis.call(ARGV[2], KEYS[1], unpack(ARGV, 3, words + 1))
                  return redis.call(ARGV[words + 2], KEYS[1], unpack(ARGV, words + 3))";
    cmd("EVAL").arg(script).arg(1).arg(key).arg(first.len()).arg(first).arg(second).take()
}

/// A member whose score is 0.1: what two texts of one number differ in.
const TENTH: usize = 4;

fn member(n: usize) -> Bytes {
    format!("member:{n}").into()
}

/// Many scores are equal, some are no round numbers, and some are at the ends of what there is.
fn score(n: usize) -> Bytes {
    match n {
        0 => "inf".to_owned(),
        1 => "-inf".to_owned(),
        2 => "5e-324".to_owned(),
        3 => "1.7976931348623157e308".to_owned(),
        TENTH => "0.1".to_owned(),
        n if n % 3 == 0 => (n % 7).to_string(),
        n => format!("{}.{}", n % 1000, n),
    }
    .into()
}

/// The id of an entry of a loaded stream; several share a millisecond.
pub fn id(n: usize) -> Bytes {
    format!("{}-{}", 1_700_000_000_000_u64 + n as u64 / 3, n % 3 + 1).into()
}

/// Entries of several shapes; a deleted one in the middle; a group with pending and acknowledged entries of two
/// consumers and an idle one, and a group that read nothing.
async fn load_stream(redis: &Endpoint, key: &[u8], members: usize, expiry_ms: Option<i64>) {
    let add = |n: usize| {
        let mut add = cmd("XADD").arg(key).arg(id(n)).arg("number").arg(n).take();
        if n.is_multiple_of(5) { add.arg("field").arg(vec![0_u8; n % 11]).take() } else { add }
    };
    let group = |words: &[&[u8]]| words.iter().fold(cmd("XGROUP"), |mut it, word| it.arg(word).take());
    let deleted = id(members / 2 + 1);
    let read = |consumer: &str, count: usize| {
        cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg(consumer)
            .arg("COUNT")
            .arg(count)
            .arg("STREAMS")
            .arg(key)
            .arg(">")
            .take()
    };
    let then = [
        cmd("XDEL").arg(key).arg(deleted).take(),
        group(&[b"CREATE", key, GROUP, b"0"]),
        group(&[b"CREATE", key, b"empty", b"1700000000000-2"]),
        group(&[b"CREATECONSUMER", key, GROUP, b"idle"]),
        read("a", PENDING / 2),
        read("b", PENDING / 2),
        cmd("XACK").arg(key).arg(GROUP).arg(id(5)).arg(id(6)).arg(id(PENDING - 1)).take(),
        cmd("XCLAIM")
            .arg(key)
            .arg(GROUP)
            .arg("a")
            .arg(0)
            .arg(id(0))
            .arg("TIME")
            .arg(1_700_000_000_000_u64)
            .arg("RETRYCOUNT")
            .arg(3)
            .arg("JUSTID")
            .take(),
    ];
    let expire = expiry_ms.map(|at| cmd("PEXPIREAT").arg(key).arg(at).take());
    send_all(redis, key, (0..members).map(add).chain(then).chain(expire)).await;
}

/// Sends commands to the owner of a key, in order and at once.
pub async fn send_all(redis: &Endpoint, key: &[u8], commands: impl Iterator<Item = Cmd>) {
    let slot = slot(key);
    let mut owner = redis.primaries().await.into_iter().find(|primary| primary.owns(slot)).expect("an owner");
    let commands: Vec<Cmd> = commands.collect();
    for batch in commands.chunks(BATCH) {
        let mut pipeline = redis::pipe();
        for command in batch {
            pipeline.add_command(command.clone()).ignore();
        }
        pipeline.exec_async(&mut owner.connection).await.expect("commands of the test");
    }
}
