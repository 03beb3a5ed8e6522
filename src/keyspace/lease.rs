//! The keys of the lock, and the clock of a lease.
//!
//! Owns taking, renewing and releasing one lock key by compare-and-set, and the local clock by which
//! a holder stops before its lease can have ended. Which keys make up the lock is the caller's to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::Value;

use crate::keyspace::command::Command;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::script::{self, Script};
use crate::keyspace::value;
use crate::model::key::RedisKey;

/// Until when the holder may send, by its own monotonic clock.
#[derive(Debug, Clone)]
pub struct LeaseClock {
    origin: Instant,
    until_millis: Arc<AtomicU64>,
}

impl LeaseClock {
    /// A clock that does not hold yet.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now(), until_millis: Arc::new(AtomicU64::new(0)) }
    }

    /// Holds for `life` less a tenth (a margin for what is on its way), counted from before the renewal was sent.
    pub fn extend(&self, sent: Instant, life: Duration) {
        let until = sent.duration_since(self.origin) + life.mul_f32(0.9);
        self.until_millis.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Holds no longer, whatever the clock says.
    pub fn end(&self) {
        self.until_millis.store(0, Ordering::SeqCst);
    }

    /// Whether the holder may still send.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.origin.elapsed().as_millis() < u128::from(self.until_millis.load(Ordering::SeqCst))
    }
}

impl Default for LeaseClock {
    fn default() -> Self {
        Self::new()
    }
}

/// A lock key that somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    /// Its value as it is; empty if it is not a string.
    pub value: Vec<u8>,
    /// Its remaining life in milliseconds; absent if it never ends.
    pub remaining_millis: Option<u64>,
}

impl Keyspace {
    /// Takes a lock key unless somebody holds it; a key that holds `value` already is taken again.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn take_lock_key(&self, key: &RedisKey, value: &[u8], life: Duration) -> Result<Option<HeldKey>, Fault> {
        let command = |script: &Script| Command::script(script, &[key]).arg(value).arg(millis(life));
        match self.run_at_memory_limit(&script::TAKE_LOCK, command).await? {
            Value::Int(1) => Ok(None),
            Value::Array(answer) => {
                let mut answer = answer.into_iter();
                let held = answer.next().map(value::bytes).transpose()?.unwrap_or_default();
                let remaining = answer.next().map(value::int).transpose()?.unwrap_or(-1);
                Ok(Some(HeldKey { value: held, remaining_millis: u64::try_from(remaining).ok() }))
            }
            _ => Err(Fault::new(FaultClass::UnexpectedAnswer)),
        }
    }

    /// Extends the life of a lock key if it still holds `value`.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn renew_lock_key(&self, key: &RedisKey, value: &[u8], life: Duration) -> Result<bool, Fault> {
        let command = Command::script(&script::RENEW_LOCK, &[key]).arg(value).arg(millis(life));
        Ok(value::int(self.run_one(command).await?)? == 1)
    }

    /// Deletes a lock key if it still holds `value`.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn release_lock_key(&self, key: &RedisKey, value: &[u8]) -> Result<bool, Fault> {
        let command = Command::script(&script::RELEASE_LOCK, &[key]).arg(value);
        Ok(value::int(self.run_one(command).await?)? == 1)
    }

    /// Extends the life of a key, if it exists.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn extend_life(&self, key: &RedisKey, life: Duration) -> Result<(), Fault> {
        self.run_one(Command::on("PEXPIRE", key).arg(millis(life))).await.map(|_| ())
    }

    /// Closes every connection whose name starts with `scope` and is not `own`, on every primary.
    /// Gives how many were closed.
    ///
    /// # Errors
    /// [`FaultClass::NotPermitted`] where the user may not; whatever kept Redis from answering.
    pub async fn close_connections(&self, scope: &str, own: &str) -> Result<u64, Fault> {
        let mut closed = 0;
        for primary in &self.topology().await.primaries {
            let listed = self.ask_node(&primary.address, redis::cmd("CLIENT").arg("LIST").take()).await?;
            for id in ids_of_others(&value::text(listed)?, scope, own) {
                let kill = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).take();
                closed += u64::try_from(value::int(self.ask_node(&primary.address, kill).await?)?).unwrap_or(0);
            }
        }
        Ok(closed)
    }
}

/// Ids in a `CLIENT LIST` whose name starts with `scope` but is not `own`.
fn ids_of_others(list: &str, scope: &str, own: &str) -> Vec<String> {
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name).map(str::to_owned)).unwrap_or_default()
    };
    list.lines()
        .filter(|line| {
            let name = field(line, "name=");
            name.starts_with(scope) && name != own
        })
        .map(|line| field(line, "id="))
        .collect()
}

fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_its_own_clock() {
        let clock = LeaseClock::new();
        assert!(!clock.holds());
        clock.extend(Instant::now(), Duration::from_secs(60));
        assert!(clock.holds());
        clock.end();
        assert!(!clock.holds());
        clock.extend(Instant::now(), Duration::ZERO);
        assert!(!clock.holds());
    }

    #[test]
    fn only_other_tokens_of_the_scope_are_closed() {
        let list = "id=3 addr=a name=omr:db0:one fd=8\nid=4 addr=b name=omr:db0:two fd=9\nid=5 addr=c name= fd=1\nid=6 name=omr:db1:x";
        assert_eq!(ids_of_others(list, "omr:db0:", "omr:db0:two"), ["3"]);
    }
}
