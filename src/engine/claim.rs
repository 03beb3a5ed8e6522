//! A claim on a look at the whole keyspace, so that of many processes that want to know the same only one reads it.
//!
//! Owns the claim's life: taken, renewed while it is held, given back, or left to end by itself. Refuses to be a lock:
//! whoever loses it loses nothing but the right to look first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::task::JoinHandle;

use crate::engine::stop::Stop;
use crate::keyspace::{FaultClass, Keyspace};
use crate::model::key::RedisKey;

/// How long the claim of a process that died stands.
const LIFE: Duration = Duration::from_secs(30);

/// How long giving it back may take; it ends by itself otherwise.
const FAREWELL: Duration = Duration::from_secs(3);

/// What asking for a claim came to.
pub enum Claimed {
    /// It is ours.
    Ours(Claim),
    /// Another process has it.
    ByAnother,
    /// Redis takes no write of this user, or none at all now.
    Refused,
}

/// A claim that is held, and renewed until it is given back or dropped.
pub struct Claim {
    control: Arc<Keyspace>,
    key: RedisKey,
    value: Vec<u8>,
    is_lost: Arc<AtomicBool>,
    renewal: JoinHandle<()>,
}

impl Claim {
    /// Takes the claim, unless another process has it; `holder` is shown to whoever looks at the key.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn take(keyspace: &Keyspace, key: RedisKey, holder: &str) -> Result<Claimed, Stop> {
        let value = format!("{holder} {:032x}", rand::rng().random::<u128>()).into_bytes();
        match keyspace.claim(&key, &value, LIFE).await {
            Ok(true) => {}
            Ok(false) => return Ok(Claimed::ByAnother),
            Err(fault) if is_refusal(fault.class) => return Ok(Claimed::Refused),
            Err(fault) => return Err(fault.into()),
        }

        // Renewed over a connection of its own, which no long look holds up.
        let control = match Keyspace::connect(keyspace.endpoint().clone(), "outpost-migrate:claim").await {
            Ok(control) => Arc::new(control),
            Err(fault) => {
                let _ = keyspace.give_back_claim(&key, &value).await;
                return Err(fault.into());
            }
        };
        let is_lost = Arc::new(AtomicBool::new(false));
        let renewal = tokio::spawn(renew(Arc::clone(&control), key.clone(), value.clone(), Arc::clone(&is_lost)));
        Ok(Claimed::Ours(Self { control, key, value, is_lost, renewal }))
    }

    /// Whether it is ours still, as far as is known.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.is_lost.load(Ordering::Relaxed)
    }

    /// Gives it back.
    pub async fn give_back(self) {
        self.renewal.abort();
        let _ = tokio::time::timeout(FAREWELL, self.control.give_back_claim(&self.key, &self.value)).await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Whether reading may go on although nothing can be written: a look is not to depend on its claim.
fn is_refusal(class: FaultClass) -> bool {
    matches!(
        class,
        FaultClass::NotPermitted
            | FaultClass::OutOfMemory
            | FaultClass::PersistenceFailing
            | FaultClass::TooFewReplicas
            | FaultClass::ReadOnly
    )
}

/// Renews a claim until it is lost. A server that does not answer for once takes nothing away.
async fn renew(control: Arc<Keyspace>, key: RedisKey, value: Vec<u8>, is_lost: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(LIFE / 3).await;
        if let Ok(false) = control.renew_claim(&key, &value, LIFE).await {
            is_lost.store(true, Ordering::Relaxed);
            return;
        }
    }
}
