//! Waits until replicas, or a primary's own append-only file, hold what was written.
//!
//! `WAIT` counts only the writes of its own connection, so each primary gets a write of ours and the
//! `WAIT` right behind it, on one connection: acknowledging the later write acknowledges all before it.
//! Sources: <https://redis.io/docs/latest/commands/wait/> and `waitaof` beside it.

use std::time::Duration;

use redis::{Cmd, RedisResult, Value};

use crate::keyspace::command::Command;
use crate::keyspace::connection::Connection;
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::patience::retries;
use crate::keyspace::script::{self, Script};
use crate::keyspace::server;
use crate::keyspace::topology::Primary;
use crate::keyspace::value;
use crate::keyspace::writer::Writer;
use crate::model::key::RedisKey;
use crate::model::policy::MinReplicas;
use crate::model::slot::slot_of;

/// A primary whose replicas did not acknowledge in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unacknowledged {
    /// The primary.
    pub node: NodeAddress,
    /// Replicas that acknowledged.
    pub acknowledged: u32,
    /// Replicas that had to.
    pub required: u32,
}

impl Writer {
    /// Waits until enough replicas of every primary hold every write that was answered before this
    /// call. Returns the primaries that fell short. A primary that is away for a moment, or replaced, is waited for.
    ///
    /// # Errors
    /// The fault that kept a primary from answering; [`FaultClass::ClusterDown`] if a slot has no primary
    /// that could be asked, [`FaultClass::Moved`] if primaries keep being replaced.
    pub async fn wait_for_replicas(
        &self,
        min: MinReplicas,
        patience: Duration,
        barrier_prefix: &str,
    ) -> Result<Vec<Unacknowledged>, Fault> {
        let mut attempts = retries();
        loop {
            match self.wait_on_all(min, patience, barrier_prefix).await {
                Err(fault) if attempts.pause_after(&fault).await => {}
                waited => return waited,
            }
        }
    }

    async fn wait_on_all(
        &self,
        min: MinReplicas,
        patience: Duration,
        barrier_prefix: &str,
    ) -> Result<Vec<Unacknowledged>, Fault> {
        let topology = self.relearn().await?;
        if !topology.unowned().is_empty() {
            return Err(Fault::new(FaultClass::ClusterDown));
        }

        let mut short = Vec::new();
        for primary in &topology.primaries {
            let required = min.required(primary.replicas);
            if required == 0 {
                continue;
            }
            let Some(acknowledged) = self.wait_on(primary, required, patience, barrier_prefix).await? else {
                self.hang_up(&primary.address).await;
                return Err(Fault::of(FaultClass::Moved, &primary.address));
            };
            if acknowledged < required {
                short.push(Unacknowledged { node: primary.address.clone(), acknowledged, required });
            }
        }
        Ok(short)
    }

    /// Writes something to a primary and takes it back, so that it has something to save.
    ///
    /// # Errors
    /// The fault that kept it from being written.
    pub async fn leave_a_trace(&self, primary: &Primary, barrier_prefix: &str) -> Result<(), Fault> {
        match self.wait_on(primary, 0, Duration::from_secs(1), barrier_prefix).await? {
            Some(_) => Ok(()),
            None => Err(Fault::of(FaultClass::Moved, &primary.address)),
        }
    }

    /// Waits until a primary's append-only file holds, synced, every write that was answered before this call. Returns
    /// whether it did in time; `None` where the server can't tell (before Redis 7.2), or the user may not ask.
    ///
    /// # Errors
    /// The fault that kept it from answering, [`FaultClass::Moved`] if it was replaced.
    pub async fn wait_for_append_only_file(
        &self,
        primary: &Primary,
        patience: Duration,
        barrier_prefix: &str,
    ) -> Result<Option<bool>, Fault> {
        let wait = redis::cmd("WAITAOF").arg(1).arg(0).arg(millis(patience)).take();
        match self.behind_a_write(primary, &wait, patience, barrier_prefix).await {
            Ok(Waited::Answered(answer)) => {
                let synced = value::list(answer)?.into_iter().next().map(value::int).transpose()?;
                Ok(Some(synced == Some(1)))
            }
            Ok(Waited::NoSlot) => Ok(None),
            Ok(Waited::Replaced) => Err(Fault::of(FaultClass::Moved, &primary.address)),
            Err(fault) if matches!(fault.class, FaultClass::UnknownCommand | FaultClass::NotPermitted) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Returns how many replicas acknowledged; `None` if another server answers at the address by now, whose replicas
    /// say nothing about what was written.
    async fn wait_on(
        &self,
        primary: &Primary,
        required: u32,
        patience: Duration,
        barrier_prefix: &str,
    ) -> Result<Option<u32>, Fault> {
        let wait = redis::cmd("WAIT").arg(required).arg(millis(patience)).take();
        match self.behind_a_write(primary, &wait, patience, barrier_prefix).await? {
            Waited::Answered(answer) => {
                let unexpected = |_| Fault::of(FaultClass::UnexpectedAnswer, &primary.address);
                u32::try_from(value::int(answer)?).map(Some).map_err(unexpected)
            }
            Waited::NoSlot => Ok(Some(required)),
            Waited::Replaced => Ok(None),
        }
    }

    /// Sends `wait` right behind a write, on one connection of its own.
    async fn behind_a_write(
        &self,
        primary: &Primary,
        wait: &Cmd,
        patience: Duration,
        barrier_prefix: &str,
    ) -> Result<Waited, Fault> {
        let node = &primary.address;
        let Some(barrier) = barrier_key(primary, barrier_prefix) else { return Ok(Waited::NoSlot) };
        let mut connection = self.own_connection(node).await?;
        if !server::is_still(self, primary, &mut connection).await? {
            return Ok(Waited::Replaced);
        }

        self.check_lease(node)?;
        connection.inner.set_response_timeout(patience + Duration::from_secs(5));
        let waited = wait_behind(&mut connection, node, &script::WRITE_BARRIER, &barrier, wait).await;
        let answer = match waited {
            Err(refused) if refused.class == FaultClass::OutOfMemory => {
                let unbound = script::WRITE_BARRIER.at_memory_limit();
                let loaded: RedisResult<Value> = unbound.load_command().query_async(&mut connection.inner).await;
                // Before Redis 7.0 there is no script that a full server takes.
                loaded.map_err(|_| refused)?;
                wait_behind(&mut connection, node, unbound, &barrier, wait).await
            }
            waited => waited,
        };
        answer.map(Waited::Answered)
    }
}

/// What waiting behind a write came to.
enum Waited {
    /// The server's answer to the waiting.
    Answered(Value),
    /// It has no closed slot to write to.
    NoSlot,
    /// Another server answers at the address by now.
    Replaced,
}

/// Writes the barrier and waits right behind it, on one connection. Returns the answer to the waiting.
async fn wait_behind(
    connection: &mut Connection,
    node: &NodeAddress,
    barrier_script: &'static Script,
    barrier: &RedisKey,
    wait: &Cmd,
) -> Result<Value, Fault> {
    let commands = [
        // It ends by itself where the UNLINK is lost.
        Command::script(barrier_script, &[barrier]).arg(60_000).cmd,
        wait.clone(),
        redis::cmd("UNLINK").arg(barrier.as_bytes()).take(),
    ];
    let mut answers = connection.send(commands.into_iter(), &[barrier_script], node).await?.into_iter();
    let mut next = || answers.next().unwrap_or(Err(Fault::of(FaultClass::UnexpectedAnswer, node)));
    next()?;
    let answer = next()?;
    next()?;
    Ok(answer)
}

fn millis(patience: Duration) -> u64 {
    u64::try_from(patience.as_millis()).unwrap_or(u64::MAX)
}

/// A key in one of the primary's slots.
fn barrier_key(primary: &Primary, prefix: &str) -> Option<RedisKey> {
    (0..1_000_000_u32)
        .map(|number| RedisKey::from(format!("{prefix}{{{number}}}:barrier")))
        // In a slot that is being given away it would be sent on.
        .find(|key| primary.slots.contains(slot_of(key)) && !primary.open.contains(slot_of(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::slot::SlotSet;

    #[test]
    fn every_slot_can_have_a_barrier() {
        for slot in [0_u16, 1, 8_191, 16_383] {
            let primary = Primary {
                address: NodeAddress { host: "h".into(), port: 1 },
                node_id: String::new(),
                run_id: String::new(),
                history: String::new(),
                config_epoch: 0,
                slots: SlotSet::from_iter([slot]),
                open: SlotSet::empty(),
                replicas: 1,
            };
            let key = barrier_key(&primary, "outpost:migration:staging:").expect("a key");
            assert_eq!(slot_of(&key), slot);
        }
    }
}
