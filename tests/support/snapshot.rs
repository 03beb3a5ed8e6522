//! Reads a whole server or cluster, independently of the product: the recount of the tests.
//!
//! It reads key after key, so the keyspace must stand still, but for keys that expire. Slots may be
//! half-moved.

use std::fmt::Write as _;

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline};

use super::redis_client::{Endpoint, slot};
use super::value::{Bytes, Entry, Keyspace, Value};

/// Keys per pipeline.
const BATCH: usize = 1000;

/// Everything that is there now.
pub async fn snapshot(endpoint: &Endpoint) -> Keyspace {
    let primaries = endpoint.primaries().await;
    let parts = join_all(primaries.into_iter().map(|primary| read_primary(primary.connection, endpoint.cluster))).await;
    parts.into_iter().flatten().collect()
}

/// How many of these keys exist, for loops that wait: some round trips, where [`snapshot`] reads everything. A key of a
/// half-moved slot may count as absent.
pub async fn present<'a>(endpoint: &Endpoint, keys: impl IntoIterator<Item = &'a [u8]>) -> usize {
    let keys: Vec<(u16, &[u8])> = keys.into_iter().map(|key| (slot(key), key)).collect();
    let mut found = 0;
    for mut primary in endpoint.primaries().await {
        let own: Vec<&[u8]> = keys.iter().filter(|(slot, _)| primary.owns(*slot)).map(|(_, key)| *key).collect();
        for batch in own.chunks(BATCH) {
            let mut pipeline = redis::pipe();
            pipeline.ignore_errors();
            for key in batch {
                pipeline.cmd("EXISTS").arg(key);
            }
            let answers: Vec<redis::RedisResult<usize>> =
                pipeline.query_async(&mut primary.connection).await.expect("EXISTS");
            found += answers.into_iter().flatten().sum::<usize>();
        }
    }
    found
}

async fn read_primary(mut connection: MultiplexedConnection, cluster: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(BATCH);
        let (next, keys): (u64, Vec<Bytes>) = scan.query_async(&mut connection).await.expect("SCAN");
        entries.extend(read_batch(&mut connection, keys, cluster).await);
        if next == 0 {
            return entries;
        }
        cursor = next;
    }
}

/// When each key ends, as `PEXPIRETIME` answers.
async fn expiries(connection: &mut MultiplexedConnection, keys: &[Bytes], cluster: bool) -> Vec<i64> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await.expect("INFO");
    if info.contains("redis_version:6.") {
        return expiries_by_clock(connection, keys, cluster).await;
    }
    let mut commands = Commands::new(cluster);
    for key in keys {
        commands.push(redis::cmd("PEXPIRETIME").arg(key));
    }
    let answers = commands.answers(connection).await;
    answers.iter().map(|answer| redis::from_redis_value_ref(answer).expect("PEXPIRETIME")).collect()
}

/// Redis 6.2 tells only what is left: exact if the server's clock shows one millisecond before and after.
async fn expiries_by_clock(connection: &mut MultiplexedConnection, keys: &[Bytes], cluster: bool) -> Vec<i64> {
    let millis = |answer: &redis::Value| {
        let (seconds, micros): (i64, i64) = redis::from_redis_value_ref(answer).expect("TIME");
        seconds * 1000 + micros / 1000
    };
    let mut found = vec![None; keys.len()];
    while found.contains(&None) {
        let open: Vec<usize> = (0..keys.len()).filter(|&at| found[at].is_none()).collect();
        let mut commands = Commands::new(cluster);
        for &at in &open {
            commands.push(&redis::cmd("TIME"));
            commands.push(redis::cmd("PTTL").arg(&keys[at]));
            commands.push(&redis::cmd("TIME"));
        }
        for (&at, look) in open.iter().zip(commands.answers(connection).await.chunks(3)) {
            let left: i64 = redis::from_redis_value_ref(&look[1]).expect("PTTL");
            if left < 0 {
                found[at] = Some(left);
            } else if millis(&look[0]) == millis(&look[2]) {
                found[at] = Some(millis(&look[0]) + left);
            }
        }
    }
    found.into_iter().flatten().collect()
}

async fn read_batch(connection: &mut MultiplexedConnection, keys: Vec<Bytes>, cluster: bool) -> Vec<Entry> {
    let mut heads = Commands::new(cluster);
    for key in &keys {
        heads.push(redis::cmd("TYPE").arg(key));
    }
    let heads = heads.answers(connection).await;
    let expiries = expiries(connection, &keys, cluster).await;
    let found: Vec<(Bytes, String, i64)> = keys
        .into_iter()
        .zip(heads.iter().zip(expiries))
        .map(|(key, (type_name, expiry))| (key, text(type_name), expiry))
        .filter(|(_, type_name, _)| type_name != "none")
        .collect();

    let mut bodies = Commands::new(cluster);
    for (key, type_name, _) in &found {
        bodies.push(&read_command(type_name, key));
    }
    let bodies = bodies.answers(connection).await;
    found
        .into_iter()
        .zip(bodies)
        .filter_map(|((key, type_name, expiry), body)| {
            let value = canonical(&type_name, &body)?;
            Some(Entry { key, value, expiry_ms: (expiry >= 0).then_some(expiry) })
        })
        .collect()
}

fn read_command(type_name: &str, key: &[u8]) -> Cmd {
    let (name, arguments): (&str, &[&str]) = match type_name {
        "string" => ("GET", &[]),
        "hash" => ("HGETALL", &[]),
        "list" => ("LRANGE", &["0", "-1"]),
        "set" => ("SMEMBERS", &[]),
        "zset" => ("ZRANGE", &["0", "-1", "WITHSCORES"]),
        "stream" => {
            let mut command = redis::cmd("XINFO");
            command.arg("STREAM").arg(key).arg("FULL").arg("COUNT").arg(0);
            return command;
        }
        other => panic!("the harness can't read the type {other}"),
    };
    let mut command = redis::cmd(name);
    command.arg(key).arg(arguments);
    command
}

/// `None` if the key expired between the two looks.
fn canonical(type_name: &str, answer: &redis::Value) -> Option<Value> {
    fn of<T: redis::FromRedisValue>(answer: &redis::Value) -> T {
        redis::from_redis_value_ref(answer).expect("a value of the type that TYPE told")
    }
    let value = match type_name {
        "string" => Value::String(of::<Option<Bytes>>(answer)?),
        "hash" => Value::Hash(of(answer)),
        "list" => Value::List(of(answer)),
        "set" => Value::Set(of(answer)),
        "zset" => Value::SortedSet(of(answer)),
        _ => {
            let mut text = String::new();
            describe_stream(answer, &mut text);
            Value::Stream(text)
        }
    };
    let is_gone = match &value {
        Value::Hash(pairs) | Value::SortedSet(pairs) => pairs.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Set(members) => members.is_empty(),
        Value::String(_) | Value::Stream(_) => false,
    };
    (!is_gone).then_some(value)
}

/// Everything that `XINFO STREAM … FULL` says, but for how Redis stores it and when a consumer was seen.
fn describe_stream(answer: &redis::Value, text: &mut String) {
    const INCIDENTAL: [&[u8]; 4] = [b"radix-tree-keys", b"radix-tree-nodes", b"seen-time", b"active-time"];
    let redis::Value::Array(items) = answer else {
        write!(text, "{answer:?} ").expect("writing to a string");
        return;
    };
    text.push('[');
    let mut items = items.iter();
    while let Some(item) = items.next() {
        if let redis::Value::BulkString(name) = item
            && INCIDENTAL.contains(&name.as_slice())
        {
            items.next();
        } else {
            describe_stream(item, text);
        }
    }
    text.push(']');
}

fn text(answer: &redis::Value) -> String {
    redis::from_redis_value_ref(answer).expect("text")
}

/// A pipeline that reaches keys of half-moved slots too: each command follows an `ASKING`.
struct Commands {
    pipeline: Pipeline,
    asking: bool,
}

impl Commands {
    fn new(cluster: bool) -> Self {
        Self { pipeline: redis::pipe(), asking: cluster }
    }

    fn push(&mut self, command: &Cmd) {
        if self.asking {
            self.pipeline.cmd("ASKING").ignore();
        }
        self.pipeline.add_command(command.clone());
    }

    async fn answers(&self, connection: &mut MultiplexedConnection) -> Vec<redis::Value> {
        if self.pipeline.is_empty() {
            return Vec::new();
        }
        self.pipeline.query_async(connection).await.expect("reading a batch of keys")
    }
}
