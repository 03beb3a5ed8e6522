//! Asks primaries what of their memory is on disk, and for a snapshot.
//!
//! Owns the questions; what the answers mean is decided in the model.

use redis::cmd;

use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::patience::retries;
use crate::keyspace::router::Keyspace;
use crate::keyspace::server::{Info, info, number};
use crate::keyspace::topology::Primary;
use crate::keyspace::value;
use crate::keyspace::writer::Writer;
use crate::model::durability::{self, DiskFacts, Moment, Snapshot};

impl Keyspace {
    /// Returns what a primary says about its disk.
    ///
    /// # Errors
    /// The fault that kept it from answering.
    pub async fn disk_facts(&self, primary: &Primary) -> Result<DiskFacts, Fault> {
        let info = info(self, &primary.address, "all").await?;
        let save_points = self.setting(primary, "save").await?;
        let append_sync = self.setting(primary, "appendfsync").await?;
        Ok(DiskFacts {
            save_points: save_points.map(|setting| durability::save_points(&setting)),
            append_synced: append_sync.map(|setting| setting != "no"),
            ..read(primary, &info)
        })
    }

    /// Returns the present moment of each primary, beside what tells this run of it from others. One that is away for
    /// a moment, or replaced, is waited for.
    ///
    /// # Errors
    /// The fault that kept a primary from answering.
    pub async fn moments(&self) -> Result<Vec<(String, Moment)>, Fault> {
        let mut attempts = retries();
        loop {
            match self.moments_now().await {
                Err(fault) if attempts.pause_after(&fault).await => {
                    // A failed look is no news: the next attempt itself finds out.
                    let _ = self.relearn().await;
                }
                told => return told,
            }
        }
    }

    async fn moments_now(&self) -> Result<Vec<(String, Moment)>, Fault> {
        let mut moments = Vec::new();
        for primary in &self.topology().await.primaries {
            let info = info(self, &primary.address, "all").await?;
            let facts = read(primary, &info);
            moments.extend(facts.moment().map(|moment| (facts.incarnation, moment)));
        }
        Ok(moments)
    }

    /// A setting as the server tells it. Not everybody may ask, and not every provider's server answers.
    async fn setting(&self, primary: &Primary, name: &str) -> Result<Option<String>, Fault> {
        let asked = cmd("CONFIG").arg("GET").arg(name).take();
        match self.ask_node(&primary.address, asked).await {
            Ok(answer) => value::list(answer)?.pop().map(value::text).transpose(),
            Err(fault)
                if matches!(
                    fault.class,
                    FaultClass::NotPermitted | FaultClass::UnknownCommand | FaultClass::Refused
                ) =>
            {
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }
}

impl Writer {
    /// Asks a primary for a snapshot. One that is being taken already is no fault, nor is a server that takes none: what
    /// comes of it shows.
    ///
    /// # Errors
    /// The fault that kept it from answering, or [`FaultClass::NotPermitted`].
    pub async fn ask_for_snapshot(&self, primary: &Primary) -> Result<(), Fault> {
        // SCHEDULE: while the append-only file is written anew, it is taken afterwards.
        match self.ask_node(&primary.address, cmd("BGSAVE").arg("SCHEDULE").take()).await {
            Ok(_) | Err(Fault { class: FaultClass::Refused | FaultClass::UnknownCommand, .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

/// What tells this run of a server from others, and its slots from those that it had at another time: a key that
/// came later with its slot is on no earlier snapshot, nor is one that was away while its slot was half-moved. The run is that of the server that tells the rest: another may
/// answer at the address by now.
fn incarnation(primary: &Primary, info: &Info) -> String {
    let run_id = info.get("run_id").unwrap_or(&primary.run_id);
    let closed = format!("{run_id}:{}:{}", primary.config_epoch, primary.slots.digest());
    if primary.open.is_empty() { closed } else { format!("{closed}:{}", primary.open.digest()) }
}

fn clock(server: &Info) -> Option<i64> {
    server.get("server_time_usec")?.parse::<i64>().ok().map(|micros| micros / 1000)
}

/// What `INFO` tells; settings are asked for apart.
fn read(primary: &Primary, info: &Info) -> DiskFacts {
    let is = |name: &str, expected: &str| info.get(name).is_some_and(|value| value == expected);
    let failed = |name: &str| info.get(name).is_some_and(|status| status != "ok");
    // Counted since Redis 7.0: a transfer to a replica without a file tells its duration in the same field.
    let was_taken = !is("rdb_saves", "0");
    let snapshot = match number::<i64>(info, "rdb_last_bgsave_time_sec") {
        took @ 0.. if was_taken => Some(Snapshot { ended: number(info, "rdb_last_save_time"), took }),
        _ => None,
    };
    // What a replica loaded came from its primary; told since Redis 7.0.
    let was_replica = info.get("second_repl_offset").is_some_and(|offset| offset != "-1");
    DiskFacts {
        node: primary.address.to_string(),
        incarnation: incarnation(primary, info),
        clock: clock(info),
        append_only: is("aof_enabled", "1"),
        append_synced: None,
        rewriting: is("aof_rewrite_in_progress", "1") || is("aof_rewrite_scheduled", "1"),
        rewrite_failing: failed("aof_last_bgrewrite_status"),
        append_failing: failed("aof_last_write_status"),
        sync_pending: number::<u64>(info, "aof_pending_bio_fsync") > 0 || number::<u64>(info, "aof_buffer_length") > 0,
        snapshot,
        last_save: info.get("rdb_last_save_time").and_then(|second| second.parse().ok()),
        loaded: !was_replica && number::<u64>(info, "rdb_last_load_keys_loaded") > 0,
        snapshot_running: is("rdb_bgsave_in_progress", "1"),
        snapshot_failing: failed("rdb_last_bgsave_status"),
        changes: number(info, "rdb_changes_since_last_save"),
        save_points: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::endpoint::NodeAddress;
    use crate::model::slot::SlotSet;

    fn primary(slots: SlotSet) -> Primary {
        Primary {
            address: NodeAddress { host: "h".into(), port: 1 },
            node_id: String::new(),
            run_id: "learned".into(),
            history: String::new(),
            config_epoch: 3,
            slots,
            open: SlotSet::empty(),
            replicas: 0,
        }
    }

    /// Between learning who is there and asking, a server may have begun another run at the same address, which knows
    /// nothing of what the first one held.
    #[test]
    fn what_a_server_tells_belongs_to_the_run_that_tells_it() {
        let told_by = |run_id: &str| {
            let info = Info::from([("run_id".to_owned(), run_id.to_owned())]);
            read(&primary(SlotSet::full()), &info).incarnation
        };
        assert_ne!(told_by("another"), told_by("learned"));
        assert!(told_by("another").starts_with("another:3:"), "{}", told_by("another"));
    }

    #[test]
    fn as_many_slots_are_not_the_same_slots() {
        let owning = |slots: SlotSet| read(&primary(slots), &Info::new()).incarnation;
        assert_ne!(owning((0..=9).collect()), owning((1..=10).collect()));
        assert_eq!(owning((0..=9).collect()), owning((0..=9).collect()));
    }

    #[test]
    fn a_slot_that_is_half_moved_is_not_as_before() {
        let moving = |open: SlotSet| {
            let primary = Primary { open, ..primary(SlotSet::full()) };
            read(&primary, &Info::new()).incarnation
        };
        assert_ne!(moving((7..=7).collect()), moving(SlotSet::empty()));
        assert_ne!(moving((7..=7).collect()), moving((8..=8).collect()));
    }
}
