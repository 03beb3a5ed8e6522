//! The keys of the lock, and the clock of a lease.
//!
//! Owns taking, renewing and releasing lock keys by compare-and-set, and the local clock by which a holder stops before
//! its lease can have ended. Which keys make up the lock is the caller's to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use redis::Value;

use crate::keyspace::command::Command;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::script::{self, Script};
use crate::keyspace::value;
use crate::model::key::RedisKey;

/// A moment of the clock that goes on while the machine sleeps, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// Now.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
        Self(Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default()))
    }

    /// Now.
    #[cfg(not(target_os = "linux"))]
    #[must_use]
    pub fn now() -> Self {
        static ORIGIN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
        Self(ORIGIN.elapsed())
    }

    fn plus(self, more: Duration) -> u64 {
        u64::try_from((self.0 + more).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Until when the holder may send, by its own clock.
#[derive(Debug, Clone, Default)]
pub struct LeaseClock(Arc<Until>);

#[derive(Debug, Default)]
struct Until {
    millis: AtomicU64,
    has_ended: AtomicBool,
}

impl LeaseClock {
    /// A clock that does not hold yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds for `life` less a tenth (a margin for what is on its way), counted from before the renewal was sent.
    /// A clock that was ended stays so.
    pub fn extend(&self, sent: Moment, life: Duration) {
        self.0.millis.fetch_max(sent.plus(life.mul_f32(0.9)), Ordering::SeqCst);
    }

    /// Holds no longer, whatever is renewed later.
    pub fn end(&self) {
        self.0.has_ended.store(true, Ordering::SeqCst);
    }

    /// Whether the holder may still send.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.left().is_zero()
    }

    /// How long the holder may still send.
    #[must_use]
    pub fn left(&self) -> Duration {
        if self.0.has_ended.load(Ordering::SeqCst) {
            return Duration::ZERO;
        }
        let until = self.0.millis.load(Ordering::SeqCst);
        Duration::from_millis(until.saturating_sub(Moment::now().plus(Duration::ZERO)))
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

/// A lock that is held: what stands in its keys, and until when that is sure.
pub struct HeldLock {
    /// Connections that write nothing but the lock.
    pub control: Keyspace,
    /// Its keys.
    pub keys: Vec<RedisKey>,
    /// What stands in each of them.
    pub value: Vec<u8>,
    /// How long it stands unless renewed.
    pub life: Duration,
    /// Until when it is surely held.
    pub clock: LeaseClock,
}

/// The longest that one renewal may take, however long the lock stands. More than the 10 s that an answer may take, so
/// that where there is time the connection's own fault is what is told; and short, since a lock of an hour that was
/// lost must not go unnoticed for half of that.
const LONGEST_RENEWAL: Duration = Duration::from_secs(15);

/// How long a renewal may take. Half of what is left: one that gets no answer leaves as much time for another, over a
/// new connection. With a lease of 30 seconds, renewed every 10, a silence of 16 seconds is survived.
fn renewal_patience(left: Duration) -> Duration {
    (left / 2).min(LONGEST_RENEWAL)
}

impl HeldLock {
    /// Renews every key. Returns whether they all still held our value; if one did not, the lock is lost for good.
    ///
    /// # Errors
    /// Whatever kept a key's node from answering in time; the lock may be held all the same.
    pub fn renew(&self) -> BoxFuture<'_, Result<bool, Fault>> {
        async {
            let sent = Moment::now();
            let patience = renewal_patience(self.clock.left());
            let shares = self.control.by_owner(&self.keys).await;
            let renewals = shares.into_iter().map(|share| self.renew_share(share, patience));
            let mut renewals: FuturesUnordered<_> = renewals.collect();
            let mut failed = None;
            while let Some(renewed) = renewals.next().await {
                match renewed {
                    Ok(true) => {}
                    // Whatever the others say, and without waiting for one that is silent.
                    Ok(false) => {
                        self.clock.end();
                        return Ok(false);
                    }
                    Err(fault) => failed = failed.or(Some(fault)),
                }
            }

            if !self.clock.holds() {
                self.clock.end();
                return Ok(false);
            }
            if let Some(fault) = failed {
                return Err(fault);
            }
            self.clock.extend(sent, self.life);
            Ok(true)
        }
        .boxed()
    }

    /// Renews keys of one node.
    async fn renew_share(&self, share: Vec<RedisKey>, patience: Duration) -> Result<bool, Fault> {
        let Some(first) = share.first() else { return Ok(true) };
        self.within(patience, first, self.control.renew_lock_keys(&share, &self.value, self.life)).await
    }

    /// Extends the life of a key that lives with the lock, if it exists.
    ///
    /// # Errors
    /// Whatever kept its node from answering in time.
    pub async fn extend_life(&self, key: &RedisKey, life: Duration, patience: Duration) -> Result<(), Fault> {
        let command = Command::on("PEXPIRE", key).arg(millis(life));
        self.within(patience, key, self.control.run_one(command)).await.map(|_| ())
    }

    /// What Redis answers about a key in time. After that the connection to its node is let go: it may be what is
    /// silent, and whatever else is sent over it would wait as long.
    async fn within<T>(
        &self,
        patience: Duration,
        key: &RedisKey,
        asked: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(self.control.unanswered(key).await),
        }
    }
}

impl Keyspace {
    /// Takes a lock key unless somebody holds it; a key that holds `value` already is taken again.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn take_lock_key(&self, key: &RedisKey, value: &[u8], life: Duration) -> Result<Option<HeldKey>, Fault> {
        let command = |script: &'static Script| Command::script(script, &[key]).arg(value).arg(millis(life));
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

    /// Extends the life of each lock key that still holds `value`. Returns whether all did; that one did not is known
    /// whatever became of the others.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    async fn renew_lock_keys(&self, keys: &[RedisKey], value: &[u8], life: Duration) -> Result<bool, Fault> {
        let renew = |key| Command::script(&script::RENEW_LOCK, &[key]).arg(value).arg(millis(life));
        let mut failed = None;
        for answer in self.run(keys.iter().map(renew).collect()).await {
            match answer.and_then(value::int) {
                Ok(1) => {}
                Ok(_) => return Ok(false),
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        failed.map_or(Ok(true), Err)
    }

    /// Deletes a lock key if it still holds `value`.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn release_lock_key(&self, key: &RedisKey, value: &[u8]) -> Result<bool, Fault> {
        let command = Command::script(&script::RELEASE_LOCK, &[key]).arg(value);
        Ok(value::int(self.run_one(command).await?)? == 1)
    }
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
        clock.extend(Moment::now(), Duration::ZERO);
        assert!(!clock.holds());
        clock.extend(Moment::now(), Duration::from_secs(60));
        assert!(clock.holds());
        clock.extend(Moment::now(), Duration::ZERO);
        assert!(clock.holds(), "an answer that comes late shortens nothing");
        clock.end();
        assert!(!clock.holds());
        clock.extend(Moment::now(), Duration::from_secs(60));
        assert!(!clock.holds(), "a renewal that comes late brings nothing back");
    }

    #[test]
    fn a_renewal_leaves_time_for_another() {
        let seconds = Duration::from_secs;
        assert_eq!(renewal_patience(seconds(17)), Duration::from_millis(8500));
        assert_eq!(renewal_patience(seconds(3240)), seconds(15));
        assert_eq!(renewal_patience(Duration::ZERO), Duration::ZERO);
    }
}
