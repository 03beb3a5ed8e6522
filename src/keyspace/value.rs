//! Reads answers of Redis into plain values.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value as Answer;

use crate::keyspace::fault::{Fault, FaultClass};
use crate::model::entry::{Bytes, Entry, Expiry, Value};

pub(super) fn unexpected() -> Fault {
    Fault::new(FaultClass::UnexpectedAnswer)
}

pub(super) fn bytes(answer: Answer) -> Result<Bytes, Fault> {
    match answer {
        Answer::BulkString(bytes) => Ok(bytes),
        Answer::SimpleString(text) | Answer::VerbatimString { text, .. } => Ok(text.into_bytes()),
        Answer::Okay => Ok(b"OK".to_vec()),
        Answer::Int(number) => Ok(number.to_string().into_bytes()),
        _ => Err(unexpected()),
    }
}

/// `None` where there is nothing.
pub(super) fn bytes_if_any(answer: Answer) -> Result<Option<Bytes>, Fault> {
    if answer == Answer::Nil { Ok(None) } else { bytes(answer).map(Some) }
}

pub(super) fn text(answer: Answer) -> Result<String, Fault> {
    Ok(String::from_utf8_lossy(&bytes(answer)?).into_owned())
}

pub(super) fn int(answer: Answer) -> Result<i64, Fault> {
    match answer {
        Answer::Int(number) => Ok(number),
        Answer::BulkString(_) | Answer::SimpleString(_) => text(answer)?.parse().map_err(|_| unexpected()),
        _ => Err(unexpected()),
    }
}

pub(super) fn list(answer: Answer) -> Result<Vec<Answer>, Fault> {
    match answer {
        Answer::Array(items) | Answer::Set(items) => Ok(items),
        Answer::Map(pairs) => Ok(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()),
        Answer::Nil => Ok(Vec::new()),
        _ => Err(unexpected()),
    }
}

pub(super) fn bytes_list(answer: Answer) -> Result<Vec<Bytes>, Fault> {
    list(answer)?.into_iter().map(bytes).collect()
}

/// Names and values alternating, as a map.
pub(super) fn pairs(answer: Answer) -> Result<BTreeMap<Bytes, Bytes>, Fault> {
    Ok(two_by_two(bytes_list(answer)?).into_iter().collect())
}

/// What alternates, as pairs.
pub(super) fn two_by_two(items: Vec<Bytes>) -> Vec<(Bytes, Bytes)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(first), Some(second)) = (items.next(), items.next()) {
        pairs.push((first, second));
    }
    pairs
}

/// The answer of the script that reads an entry.
pub(super) fn entry(answer: Answer) -> Result<Option<Entry>, Fault> {
    if answer == Answer::Nil {
        return Ok(None);
    }
    let [kind, expiry, content, ends] = <[Answer; 4]>::try_from(list(answer)?).map_err(|_| unexpected())?;
    let type_name = bytes(kind)?;
    let value = match type_name.as_slice() {
        b"string" => Value::String(bytes(content)?),
        b"hash" => hash(content, list(ends)?)?,
        b"list" => Value::List(bytes_list(content)?),
        b"set" => Value::Set(bytes_list(content)?.into_iter().collect::<BTreeSet<_>>()),
        b"zset" => Value::SortedSet(pairs(content)?),
        b"stream" => stream(content)?,
        _ => Value::Module { type_name, payload: bytes(content)? },
    };
    Ok(Some(Entry { value, expiry: Expiry::from_pexpiretime(int(expiry)?) }))
}

/// Names and values alternating, and when each field ends; no ends at all where no field does.
fn hash(content: Answer, ends: Vec<Answer>) -> Result<Value, Fault> {
    if ends.is_empty() {
        return Ok(Value::Hash(pairs(content)?));
    }
    let mut items = bytes_list(content)?.into_iter();
    let mut ends = ends.into_iter();
    let (mut fields, mut ending) = (BTreeMap::new(), BTreeMap::new());
    while let (Some(name), Some(held)) = (items.next(), items.next()) {
        let end = int(ends.next().ok_or(unexpected())?)?;
        if end >= 0 {
            ending.insert(name.clone(), end);
        }
        fields.insert(name, held);
    }
    Ok(Value::ExpiringHash { fields, ends: ending })
}

fn stream(answer: Answer) -> Result<Value, Fault> {
    let [range, info] = <[Answer; 2]>::try_from(list(answer)?).map_err(|_| unexpected())?;
    let mut entries = Vec::new();
    for item in list(range)? {
        let [id, fields] = <[Answer; 2]>::try_from(list(item)?).map_err(|_| unexpected())?;
        entries.push((bytes(id)?, bytes_list(fields)?));
    }
    let mut groups = Vec::new();
    flatten(info, &mut groups)?;
    Ok(Value::Stream { entries, groups })
}

/// Facts about a stream that depend on how and when it was stored, not on what it holds.
const STORAGE_FACTS: [&[u8]; 5] = [b"radix-tree-keys", b"radix-tree-nodes", b"seen-time", b"active-time", b"entries"];

fn flatten(answer: Answer, into: &mut Vec<Bytes>) -> Result<(), Fault> {
    match answer {
        Answer::Nil => into.push(Vec::new()),
        Answer::Array(_) | Answer::Map(_) | Answer::Set(_) => {
            let mut items = list(answer)?.into_iter();
            into.push(b"[".to_vec());
            while let Some(item) = items.next() {
                if matches!(&item, Answer::BulkString(name) if STORAGE_FACTS.contains(&name.as_slice())) {
                    items.next();
                } else {
                    flatten(item, into)?;
                }
            }
            into.push(b"]".to_vec());
        }
        other => into.push(bytes(other)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Answer {
        Answer::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_hash_is_read_whatever_the_order() {
        let read = |names: [&str; 4]| {
            let content = Answer::Array(names.map(bulk).to_vec());
            entry(Answer::Array(vec![bulk("hash"), Answer::Int(-1), content, Answer::Array(Vec::new())]))
        };
        assert_eq!(read(["a", "1", "b", "2"]), read(["b", "2", "a", "1"]));
        assert_ne!(read(["a", "1", "b", "2"]), read(["a", "1", "b", "3"]));
    }

    #[test]
    fn a_missing_key_is_no_entry_and_nonsense_is_a_fault() {
        assert_eq!(entry(Answer::Nil), Ok(None));
        assert_eq!(entry(Answer::Int(3)), Err(unexpected()));
    }
}
