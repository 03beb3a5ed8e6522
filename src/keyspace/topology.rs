//! Which primaries there are and which slots each owns.
//!
//! Owns the facts that tell whether a scan may be trusted (run and replication id, config epoch, open slots), and what
//! follows from them. How a cluster tells of them is the census' to read.

use std::collections::BTreeMap;
use std::fmt;

use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::Fault;
use crate::model::slot::{SLOTS, SlotSet};

/// A primary as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// Where it is.
    pub address: NodeAddress,
    /// Its id in the cluster; empty for a standalone server.
    pub node_id: String,
    /// Changes whenever the server process does.
    pub run_id: String,
    /// Its replication id. Changes whenever the server becomes a primary: one that was a replica meanwhile has the keys
    /// of another, though its process is the same. It changes too when a first replica joins, which costs a look.
    pub history: String,
    /// Changes whenever slots change hands.
    pub config_epoch: u64,
    /// Slots it owns; all of them for a standalone server.
    pub slots: SlotSet,
    /// Slots that it is giving away or taking over.
    pub open: SlotSet,
    /// Replicas attached to it.
    pub replicas: u32,
}

impl Primary {
    /// Whether it has been the primary of the same keys all the time: the same process, never a replica meanwhile.
    fn reigned(&self, later: &Self) -> bool {
        self.node_id == later.node_id
            && self.run_id == later.run_id
            && self.history == later.history
            && self.config_epoch == later.config_epoch
    }

    /// Whether a scan made between two looks at this primary saw every key of `wanted`.
    #[must_use]
    pub fn stood_still(&self, later: &Self, wanted: &SlotSet) -> bool {
        self.reigned(later)
            && wanted.difference(&later.slots.difference(&later.open)).is_empty()
            && wanted.difference(&self.slots.difference(&self.open)).is_empty()
    }
}

/// A primary that a node of the cluster names, that nobody calls failed, and that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Its id in the cluster.
    pub node_id: String,
    /// Where it should be, if anybody knows.
    pub address: Option<NodeAddress>,
    /// Why it could not be asked; absent if it has no address, or another node answers there. It may be of another node:
    /// no connection is used before the node of the lock has confirmed that.
    pub fault: Option<Fault>,
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, &self.fault) {
            (Some(address), Some(fault)) if fault.at.as_ref() == Some(address) => {
                write!(f, "{address} can't be asked ({})", fault.class.explain())
            }
            (Some(address), Some(fault)) => write!(f, "{address} can't be asked ({fault})"),
            (Some(address), None) => write!(f, "{address} can't be asked (another node answers there)"),
            (None, _) => write!(f, "with the id {} can't be asked (nobody knows its address)", self.node_id),
        }
    }
}

/// A primary without slots that the cluster calls failed. Nobody waits for it, nor sees the keys that it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its id in the cluster.
    pub node_id: String,
    /// Where it was, if anybody knows.
    pub address: Option<NodeAddress>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{address}"),
            None => write!(f, "with the id {}", self.node_id),
        }
    }
}

/// What a scan of some slots is worth, as a later topology tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// It saw every key of them.
    Complete,
    /// It may have missed some: its primary did not stand still, or somebody is moving one of the slots.
    Spoiled,
    /// Nobody knows while a primary is silent, or the cluster answers for no slot since it lacks one.
    Unknown,
}

/// All primaries at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The primaries that own slots, by address.
    pub primaries: Vec<Primary>,
    /// Other primaries: without slots, or given up by the cluster. Slots may be half-moved to them.
    pub bystanders: Vec<Primary>,
    /// Primaries of which nobody knows what is half-moved to them.
    pub silent: Vec<Silent>,
    /// Primaries without slots that are called failed.
    pub failed: Vec<Failed>,
    /// All nodes that any node names, by id, each with the primary that it follows if it is a replica.
    pub(super) named: BTreeMap<String, Option<String>>,
    owners: Vec<Option<u16>>,
}

impl Topology {
    /// Joins what primaries say of themselves; where two claim a slot, the higher epoch owns it.
    #[must_use]
    pub fn new(mut primaries: Vec<Primary>) -> Self {
        primaries.sort_by(|a, b| a.address.cmp(&b.address));
        let mut owners: Vec<Option<u16>> = vec![None; usize::from(SLOTS)];
        for slot in 0..SLOTS {
            owners[usize::from(slot)] = primaries
                .iter()
                .enumerate()
                .filter(|(_, primary)| primary.slots.contains(slot))
                .max_by_key(|(_, primary)| primary.config_epoch)
                .and_then(|(index, _)| u16::try_from(index).ok());
        }
        let (bystanders, silent, failed) = (Vec::new(), Vec::new(), Vec::new());
        Self { primaries, bystanders, silent, failed, named: BTreeMap::new(), owners }
    }

    /// Whether every slot is owned, and every primary was asked.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unowned().is_empty() && self.silent.is_empty()
    }

    /// Returns the primary at which the keys are now that a primary of this id had: itself, or the one that it follows since
    /// it became a replica; `None` if it was removed from the cluster, so that nobody can look at them any more.
    #[must_use]
    pub fn heir(&self, node_id: &str) -> Option<String> {
        match self.named.get(node_id) {
            Some(Some(followed)) => Some(followed.clone()),
            None if self.is_whole() => None,
            // Who can't be asked may name it.
            Some(None) | None => Some(node_id.to_owned()),
        }
    }

    /// What a scan of `wanted` is worth that began when `scanned` was as given. It saw every key of these slots if their
    /// primary stood still, and nobody is moving any of them.
    #[must_use]
    pub fn coverage(&self, scanned: &Primary, wanted: &SlotSet) -> Coverage {
        let now = self.all().find(|now| now.node_id == scanned.node_id);
        let missing = now.map_or(SlotSet::empty(), |now| wanted.difference(&self.owned_by(now)));
        let is_lost = self.has_moved(scanned, wanted)
            || !wanted.intersection(&self.open()).is_empty()
            || !missing.difference(&self.unowned()).is_empty();
        // A cluster that lacks a primary answers for no slot at all until the lack is mended.
        let is_told = self.silent.is_empty() && missing.is_empty();
        match (is_lost, is_told) {
            (true, _) => Coverage::Spoiled,
            (false, false) => Coverage::Unknown,
            (false, true) => Coverage::Complete,
        }
    }

    /// Whether a primary surely did not stand still; one that is silent may have.
    pub(super) fn has_moved(&self, scanned: &Primary, wanted: &SlotSet) -> bool {
        match self.all().find(|now| now.node_id == scanned.node_id) {
            Some(now) => !scanned.stood_still(now, wanted),
            None => !self.silent.iter().any(|silent| silent.node_id == scanned.node_id),
        }
    }

    /// The primary that owns a slot.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<&Primary> {
        self.primaries.get(self.owner_index(slot)?)
    }

    /// Where among the primaries the owner of a slot is.
    pub(super) fn owner_index(&self, slot: u16) -> Option<usize> {
        self.owners.get(usize::from(slot)).copied().flatten().map(usize::from)
    }

    /// Slots owned by a primary and not contested by another.
    #[must_use]
    pub fn owned_by(&self, primary: &Primary) -> SlotSet {
        primary
            .slots
            .iter()
            .filter(|&slot| self.owner(slot).is_some_and(|owner| owner.address == primary.address))
            .collect()
    }

    /// Slots that no primary owns.
    #[must_use]
    pub fn unowned(&self) -> SlotSet {
        (0..SLOTS).filter(|&slot| self.owner(slot).is_none()).collect()
    }

    /// Whether nothing that was read or written under this topology can have been lost since: every slot
    /// is owned, and by the same primaries, which reigned all the time.
    #[must_use]
    pub fn lost_nothing_until(&self, later: &Self) -> bool {
        let are_the_same = self.primaries.len() == later.primaries.len()
            && self.primaries.iter().zip(&later.primaries).all(|(before, now)| before.reigned(now));
        self.unowned().is_empty() && later.unowned().is_empty() && are_the_same
    }

    /// Slots that any primary is giving away or taking over, also one that owns none.
    #[must_use]
    pub fn open(&self) -> SlotSet {
        self.all().fold(SlotSet::empty(), |open, primary| open.union(&primary.open))
    }

    /// Primaries that are giving away or taking over a slot.
    pub fn moving(&self, slot: u16) -> impl Iterator<Item = &NodeAddress> {
        self.all().filter(move |primary| primary.open.contains(slot)).map(|primary| &primary.address)
    }

    /// Ids of the primaries that are giving away or taking over any slot.
    pub fn with_open_slots(&self) -> impl Iterator<Item = &String> {
        self.all().filter(|primary| !primary.open.is_empty()).map(|primary| &primary.node_id)
    }

    /// Every primary that was asked.
    pub(super) fn all(&self) -> impl Iterator<Item = &Primary> {
        self.primaries.iter().chain(&self.bystanders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::FaultClass;

    #[test]
    fn who_can_not_be_asked_is_told_with_the_node_whose_fault_it_is() {
        let at = |port| NodeAddress { host: "h".into(), port };
        let told = |faulty| {
            let fault = Some(Fault::of(FaultClass::Timeout, &at(faulty)));
            Silent { node_id: "id1".into(), address: Some(at(1)), fault }.to_string()
        };
        assert!(told(1).starts_with("h:1 can't be asked (Redis did not answer in time"), "{}", told(1));
        assert!(told(2).starts_with("h:1 can't be asked (h:2: Redis did not answer in time"), "{}", told(2));
    }

    #[test]
    fn what_a_silent_primary_knows_decides_once_it_speaks() {
        let wanted: SlotSet = (0..=10).collect();
        let scanned = primary(1, 1, wanted.clone());
        let whole = Topology::new(vec![scanned.clone(), primary(2, 1, (11..SLOTS).collect())]);
        let silent = |port: u16| Silent { node_id: port.to_string(), address: None, fault: None };
        let with_silent = |topology: &Topology, port| Topology { silent: vec![silent(port)], ..topology.clone() };
        let restarted = Topology::new(vec![Primary { run_id: "other".into(), ..scanned.clone() }]);
        let gone = Topology::new(vec![primary(2, 1, (11..SLOTS).collect())]);
        let contested = Topology::new(vec![scanned.clone(), primary(2, 2, (10..SLOTS).collect())]);
        // While a primary is missing the others answer for no slot, and say so.
        let given_up = Topology { bystanders: vec![scanned.clone()], ..Topology::new(Vec::new()) };
        for (topology, coverage) in [
            (whole.clone(), Coverage::Complete),
            (with_silent(&whole, 3), Coverage::Unknown),
            (with_silent(&gone, 1), Coverage::Unknown),
            (given_up, Coverage::Unknown),
            (with_silent(&restarted, 3), Coverage::Spoiled),
            (with_silent(&contested, 3), Coverage::Spoiled),
            (with_silent(&gone, 3), Coverage::Spoiled),
            (gone, Coverage::Spoiled),
        ] {
            assert_eq!(topology.coverage(&scanned, &wanted), coverage, "{topology:?}");
        }
    }

    fn primary(port: u16, epoch: u64, slots: SlotSet) -> Primary {
        Primary {
            address: NodeAddress { host: "127.0.0.1".into(), port },
            node_id: port.to_string(),
            run_id: "run".into(),
            history: "history".into(),
            config_epoch: epoch,
            slots,
            open: SlotSet::empty(),
            replicas: 0,
        }
    }

    #[test]
    fn the_higher_epoch_owns_a_contested_slot() {
        let topology = Topology::new(vec![primary(1, 1, (0..=10).collect()), primary(2, 2, (10..=20).collect())]);
        assert_eq!(topology.owner(10).map(|owner| owner.address.port), Some(2));
        assert_eq!(topology.owned_by(&topology.primaries[0]).len(), 10);
        assert_eq!(topology.unowned().len(), u32::from(SLOTS) - 21);
    }

    #[test]
    fn another_reign_may_have_lost_something() {
        let whole = || primary(1, 1, SlotSet::full());
        let before = Topology::new(vec![whole()]);
        assert!(before.lost_nothing_until(&before));
        for after in [
            Primary { run_id: "other".into(), ..whole() },
            Primary { history: "other".into(), ..whole() },
            Primary { config_epoch: 2, ..whole() },
            Primary { node_id: "other".into(), ..whole() },
        ] {
            assert!(!before.lost_nothing_until(&Topology::new(vec![after])));
        }
        let part = Topology::new(vec![primary(1, 1, (0..=10).collect())]);
        assert!(!part.lost_nothing_until(&part));
    }

    #[test]
    fn whatever_moves_spoils_a_scan() {
        let before = primary(1, 1, (0..=10).collect());
        let wanted: SlotSet = (0..=10).collect();
        assert!(before.stood_still(&before.clone(), &wanted));
        let changed = [
            Primary { run_id: "other".into(), ..before.clone() },
            Primary { history: "other".into(), ..before.clone() },
            Primary { config_epoch: 2, ..before.clone() },
            Primary { slots: (0..=9).collect(), ..before.clone() },
            Primary { open: (3..=3).collect(), ..before.clone() },
        ];
        for after in changed {
            assert!(!before.stood_still(&after, &wanted), "{after:?}");
            assert!(!after.stood_still(&before, &wanted), "{after:?}");
        }
    }
}
