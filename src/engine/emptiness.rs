//! Whether a keyspace holds no key of some kind, on any primary.
//!
//! Owns the early end: the first key found answers the question, but only a complete pass answers it with
//! yes.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::engine::control::{Advance, Control};
use crate::engine::pass::{self, Tally};
use crate::engine::stop::Stop;
use crate::keyspace::Keyspace;
use crate::model::key::RedisKey;
use crate::model::phase::Step;

/// Whether a complete pass finds no key that starts with one of `prefixes`.
///
/// # Errors
/// What kept the pass from being complete, if no key was found before.
pub async fn is_empty(keyspace: &Keyspace, prefixes: &[Vec<u8>], stop: &CancellationToken) -> Result<bool, Stop> {
    let found = AtomicBool::new(false);
    let enough = stop.child_token();
    let control = Control::of(enough.clone());
    let meter = control.meter(Step::Plan, None);
    let notice = |keys: Vec<RedisKey>| {
        if !keys.is_empty() {
            found.store(true, Ordering::SeqCst);
            enough.cancel();
        }
        async { Ok(Nothing) }
    };
    let passed: Result<Nothing, Stop> = pass::complete(keyspace, prefixes, &control, &meter, notice).await;
    match passed {
        _ if found.load(Ordering::SeqCst) => Ok(false),
        Ok(Nothing) => Ok(true),
        Err(stop) => Err(stop),
    }
}

/// Nothing is counted.
#[derive(Default)]
struct Nothing;

impl Tally for Nothing {
    fn merge(&mut self, _: Self) {}

    fn advance(&self) -> Advance {
        Advance::default()
    }
}
