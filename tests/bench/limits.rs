//! What Redis itself can do with these keys: each command of the work alone, by raw pipelines, every primary
//! loaded at once.
//!
//! Owns the definition of the limits. A step's limit is the time that its commands take one kind after another,
//! which is 1/(1/A + 1/B + …) as a rate. It is no bound of physics where kinds of commands overlap, and on one
//! core a server can't overlap them.

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::keys::{Keys, Pair};
use crate::raw::{self, Answer, Lane};

/// Seconds that each kind of command took for the whole keyspace.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// `SCAN COUNT 1000 MATCH` over the sources alone, cursor after cursor.
    pub scan: f64,
    /// The reads by which the migration tells ambiguous keys.
    pub probe: f64,
    /// `EXISTS` of every target.
    pub exists: f64,
    /// `MEMORY USAGE` of every source.
    pub size: f64,
    /// `COPY` of every source; with several primaries `DUMP` and then `RESTORE`.
    pub copy: f64,
    /// `DUMP` and `PEXPIRETIME` of every source and every target.
    pub read: f64,
    /// `UNLINK` of every target, of the same sizes as the sources.
    pub unlink: f64,
}

impl Limits {
    /// Measures on a keyspace of sources alone, and leaves it so.
    pub fn measure(keys: &Keys) -> Self {
        Self {
            scan: scan(keys),
            probe: probe(keys),
            exists: on_targets(keys, &[b"EXISTS"]),
            size: on_sources(keys, &[b"MEMORY", b"USAGE"]),
            copy: if keys.ports.len() == 1 { copy(keys) } else { dump_and_restore(keys) },
            read: read(keys),
            unlink: on_targets(keys, &[b"UNLINK"]),
        }
    }
}

/// Works on all primaries at once and answers the seconds until the last has done.
fn at_once(keys: &Keys, work: impl Fn(usize, u16) + Sync) -> f64 {
    let began = Instant::now();
    let work = &work;
    thread::scope(|scope| {
        for (number, &port) in keys.ports.iter().enumerate() {
            scope.spawn(move || work(number, port));
        }
    });
    began.elapsed().as_secs_f64()
}

fn scan(keys: &Keys) -> f64 {
    let seen = Mutex::new(0);
    let seconds = at_once(keys, |_, port| {
        let mut lane = Lane::open(port);
        let (mut cursor, mut found) = lane.scan(b"0");
        while cursor != b"0" {
            let (next, more) = lane.scan(&cursor);
            cursor = next;
            found += more;
        }
        *seen.lock().expect("no panic before") += found;
    });
    let seen = seen.into_inner().expect("no panic before");
    assert!(seen >= keys.pairs.len(), "a scan sees every key");
    seconds
}

fn probe(keys: &Keys) -> f64 {
    at_once(keys, |number, port| {
        let commands = &keys.probes[number];
        raw::pipelined(port, commands.len(), 1, |index, out| out.extend_from_slice(&commands[index]), |_, _| {});
    })
}

/// Copies everything on one server.
pub fn copy(keys: &Keys) -> f64 {
    let push = |index: usize, out: &mut Vec<u8>| {
        let pair = &keys.pairs[index];
        raw::encode(out, &[b"COPY", &pair.source, &pair.target]);
    };
    let made = |_, answer: &Answer<'_>| assert!(matches!(answer, Answer::Int(1)), "a fresh target");
    at_once(keys, |_, port| raw::pipelined(port, keys.pairs.len(), 1, push, made))
}

fn dump_and_restore(keys: &Keys) -> f64 {
    let mut payloads = vec![Vec::new(); keys.pairs.len()];
    let read = Mutex::new(Vec::new());
    let dump = at_once(keys, |number, port| {
        let part = &keys.by_source[number];
        let mut mine = Vec::with_capacity(part.len());
        let push = |index: usize, out: &mut Vec<u8>| raw::encode(out, &[b"DUMP", &keys.pairs[part[index]].source]);
        raw::pipelined(port, part.len(), 1, push, |index, answer| {
            let Answer::Bulk(payload) = answer else { panic!("DUMP answers a payload") };
            mine.push((part[index], payload.to_vec()));
        });
        read.lock().expect("no panic before").push(mine);
    });
    for mine in read.into_inner().expect("no panic before") {
        for (index, payload) in mine {
            payloads[index] = payload;
        }
    }
    let restore = at_once(keys, |number, port| {
        let part = &keys.by_target[number];
        let push = |index: usize, out: &mut Vec<u8>| {
            raw::encode(out, &[b"RESTORE", &keys.pairs[part[index]].target, b"0", &payloads[part[index]]]);
        };
        raw::pipelined(port, part.len(), 1, push, |_, _| {});
    });
    dump + restore
}

fn read(keys: &Keys) -> f64 {
    at_once(keys, |number, port| {
        let sources = keys.by_source[number].iter().map(|&index| &keys.pairs[index].source);
        let targets = keys.by_target[number].iter().map(|&index| &keys.pairs[index].target);
        let both: Vec<_> = sources.chain(targets).collect();
        let push = |index: usize, out: &mut Vec<u8>| {
            raw::encode(out, &[b"DUMP", both[index]]);
            raw::encode(out, &[b"PEXPIRETIME", both[index]]);
        };
        let there = |_, answer: &Answer<'_>| assert!(!matches!(answer, Answer::Nil), "both are there");
        raw::pipelined(port, both.len(), 2, push, there);
    })
}

fn on_sources(keys: &Keys, command: &[&[u8]]) -> f64 {
    on_each(keys, &keys.by_source, command, |pair| &pair.source)
}

fn on_targets(keys: &Keys, command: &[&[u8]]) -> f64 {
    on_each(keys, &keys.by_target, command, |pair| &pair.target)
}

/// One command, its words without the key, about one key of each pair.
fn on_each(keys: &Keys, parts: &[Vec<usize>], command: &[&[u8]], key: impl Fn(&Pair) -> &[u8] + Sync) -> f64 {
    at_once(keys, |number, port| {
        let part = &parts[number];
        let push = |index: usize, out: &mut Vec<u8>| {
            let words: Vec<&[u8]> = command.iter().copied().chain([key(&keys.pairs[part[index]])]).collect();
            raw::encode(out, &words);
        };
        raw::pipelined(port, part.len(), 1, push, |_, _| {});
    })
}
