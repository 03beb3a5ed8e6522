//! Many keys by one command: scripts that do the same to each key of a chunk inside the server.
//!
//! Owns the chunks and who is asked for them. Refuses to retry: whatever a script could not answer (a slot on
//! the move, a lost connection, a server that refuses such scripts) is left for the caller to ask key by key.
//!
//! A script of one node may touch keys of several slots, as long as the node serves them all; for a key that it
//! does not serve the script ends with an error, not with a wrong answer.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use redis::{Cmd, Value};

use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::Fault;
use crate::keyspace::router::Keyspace;
use crate::keyspace::script::Script;
use crate::keyspace::value;
use crate::model::slot::slot_of_bytes;

/// What is asked of each item.
pub(super) struct Bulk {
    /// Takes the leading arguments, then the words of all items; gives one answer for each of as many items, from the
    /// first on, as it pleases.
    pub(super) script: &'static Script,
    /// Arguments before those of the items.
    pub(super) leading: Vec<Vec<u8>>,
    /// Arguments of one item. The first is a key, and so may be others of the same primary.
    pub(super) words_each: usize,
    /// The count of disturbances after which nothing may be sent.
    pub(super) undisturbed: Option<u64>,
}

impl Bulk {
    /// One answer for each key, or for each item of [`Bulk::words_each`].
    pub(super) fn of(script: &'static Script) -> Self {
        Self { script, leading: Vec::new(), words_each: 1, undisturbed: None }
    }

    fn command(&self, words: &[&[u8]], items: &[usize]) -> Cmd {
        let asked = || items.iter().flat_map(|&item| &words[item * self.words_each..(item + 1) * self.words_each]);
        let count = self.leading.len() + items.len() * self.words_each + 3;
        let bytes = asked().map(|word| word.len()).sum::<usize>() + 128;
        let mut command = Cmd::with_capacity(count, bytes);
        command.arg("EVALSHA").arg(self.script.sha1()).arg(0);
        for word in &self.leading {
            command.arg(word.as_slice());
        }
        for word in asked() {
            command.arg(*word);
        }
        command
    }
}

impl Keyspace {
    /// The answer for each item, in order; `None` where the item has to be asked alone.
    pub(super) async fn in_bulk(&self, bulk: &Bulk, words: &[&[u8]]) -> Vec<Option<Value>> {
        let items = words.len() / bulk.words_each;
        let mut answers = vec![None; items];
        let topology = self.topology().await;
        let mut shares: Vec<(&NodeAddress, Vec<usize>)> =
            topology.primaries.iter().map(|primary| (&primary.address, Vec::new())).collect();
        for item in 0..items {
            if let Some(owner) = topology.owner_index(slot_of_bytes(words[item * bulk.words_each])) {
                shares[owner].1.push(item);
            }
        }
        let answered = shares.into_iter().map(|(node, items)| self.answer_share(bulk, words, node, items));
        for (item, answer) in join_all(answered).await.into_iter().flatten() {
            answers[item] = Some(answer);
        }
        answers
    }

    /// The items of one primary, until it answered or refused each.
    async fn answer_share(
        &self,
        bulk: &Bulk,
        words: &[&[u8]],
        node: &NodeAddress,
        mut open: Vec<usize>,
    ) -> Vec<(usize, Value)> {
        let mut answered = Vec::with_capacity(open.len());
        while !open.is_empty() {
            let chunks: Vec<&[usize]> = open.chunks(bulk.script.items()).collect();
            // Where a connection broke, waiting for each of the others to break as well would take minutes.
            let is_lost = AtomicBool::new(false);
            let asked = chunks.iter().map(async |items| {
                let ask = || (!is_lost.load(Ordering::Relaxed)).then(|| bulk.command(words, items));
                let answer = self.take_turn(node, bulk.script, ask, bulk.undisturbed).await;
                is_lost.fetch_or(answer.as_ref().is_some_and(is_connection_lost), Ordering::Relaxed);
                answer
            });
            let mut rest = Vec::new();
            for (items, answer) in chunks.iter().zip(join_all(asked).await) {
                let Some(Ok(values)) = answer.map(|answer| answer.and_then(value::list)) else { continue };
                if !values.is_empty() {
                    rest.extend(items.iter().skip(values.len()));
                }
                answered.extend(items.iter().copied().zip(values));
            }
            open = rest;
        }
        answered
    }
}

fn is_connection_lost(answer: &Result<Value, Fault>) -> bool {
    matches!(answer, Err(fault) if fault.class.is_connection_lost())
}
