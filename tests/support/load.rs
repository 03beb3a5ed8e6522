//! Writes entries into a server or cluster, fast.

use futures::future::join_all;
use redis::Pipeline;
use redis::aio::MultiplexedConnection;

use super::redis_client::{Endpoint, slot};
use super::value::{Entry, Value};

/// Entries per pipeline.
const BATCH: usize = 1000;

/// Writes all entries, each primary's part on its own connection; answers how many.
pub async fn load(endpoint: &Endpoint, entries: impl IntoIterator<Item = Entry>) -> usize {
    let primaries = endpoint.primaries().await;
    let mut parts: Vec<Vec<Entry>> = primaries.iter().map(|_| Vec::new()).collect();
    let mut count = 0;
    for entry in entries {
        let slot = slot(&entry.key);
        let owner = primaries.iter().position(|primary| primary.owns(slot)).expect("an owner for each slot");
        parts[owner].push(entry);
        count += 1;
    }
    join_all(primaries.into_iter().zip(parts).map(|(primary, part)| write(primary.connection, part))).await;
    count
}

async fn write(mut connection: MultiplexedConnection, entries: Vec<Entry>) {
    for batch in entries.chunks(BATCH) {
        let mut pipeline = redis::pipe();
        for entry in batch {
            push(&mut pipeline, entry);
        }
        pipeline.exec_async(&mut connection).await.expect("writing a batch of entries");
    }
}

fn push(pipeline: &mut Pipeline, entry: &Entry) {
    let name = match &entry.value {
        Value::String(_) => "SET",
        Value::Hash(_) => "HSET",
        Value::List(_) => "RPUSH",
        Value::Set(_) => "SADD",
        Value::SortedSet(_) => "ZADD",
        Value::Stream(_) => panic!("a test that needs a stream writes it itself"),
    };
    let command = pipeline.cmd(name).arg(&entry.key);
    match &entry.value {
        Value::String(value) => command.arg(value),
        Value::Hash(fields) => fields.iter().fold(command, |command, (field, value)| command.arg(field).arg(value)),
        Value::List(items) => command.arg(items),
        Value::Set(members) => members.iter().fold(command, |command, member| command.arg(member)),
        Value::SortedSet(scores) => {
            scores.iter().fold(command, |command, (member, score)| command.arg(score).arg(member))
        }
        Value::Stream(_) => command,
    }
    .ignore();
    if let Some(at) = entry.expiry_ms {
        pipeline.cmd("PEXPIREAT").arg(&entry.key).arg(at).ignore();
    }
}
