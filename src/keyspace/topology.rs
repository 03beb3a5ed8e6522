//! Which primaries there are and which slots each owns.
//!
//! Owns reading `CLUSTER NODES` and the facts that tell whether a scan may be trusted: run id, config
//! epoch, open slots. Each primary is believed about itself only.
//!
//! Format: <https://redis.io/docs/latest/commands/cluster-nodes/>.

use crate::keyspace::endpoint::NodeAddress;
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
    /// Whether a scan made between two looks at this primary saw every key of `wanted`.
    #[must_use]
    pub fn stood_still(&self, later: &Self, wanted: &SlotSet) -> bool {
        self.run_id == later.run_id
            && self.node_id == later.node_id
            && self.config_epoch == later.config_epoch
            && wanted.difference(&later.slots.difference(&later.open)).is_empty()
            && wanted.difference(&self.slots.difference(&self.open)).is_empty()
    }
}

/// All primaries at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The primaries, by address.
    pub primaries: Vec<Primary>,
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
        Self { primaries, owners }
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
    /// is owned, and by the same runs of the same primaries.
    #[must_use]
    pub fn lost_nothing_until(&self, later: &Self) -> bool {
        let runs = |topology: &Self| -> Vec<(String, String, u64)> {
            let run = |it: &Primary| (it.node_id.clone(), it.run_id.clone(), it.config_epoch);
            topology.primaries.iter().map(run).collect()
        };
        self.unowned().is_empty() && later.unowned().is_empty() && runs(self) == runs(later)
    }

    /// Slots that any primary is giving away or taking over.
    #[must_use]
    pub fn open(&self) -> SlotSet {
        self.primaries.iter().fold(SlotSet::empty(), |open, primary| open.union(&primary.open))
    }
}

/// A line of `CLUSTER NODES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeLine {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) hostname: Option<String>,
    pub(super) port: u16,
    pub(super) is_myself: bool,
    pub(super) is_primary: bool,
    pub(super) is_failing: bool,
    /// Id of the primary that it is a replica of.
    pub(super) replicates: Option<String>,
    pub(super) config_epoch: u64,
    pub(super) slots: SlotSet,
    pub(super) open: SlotSet,
}

/// Reads all lines of `CLUSTER NODES`; lines of another shape are left out.
pub(super) fn parse_nodes(text: &str) -> Vec<NodeLine> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<NodeLine> {
    let mut words = line.split_whitespace();
    let id = words.next()?.to_owned();
    let (endpoint, names) = split_once_or_all(words.next()?, ',');
    let (address, _bus_port) = split_once_or_all(endpoint, '@');
    let (host, port) = address.rsplit_once(':')?;
    let flags: Vec<&str> = words.next()?.split(',').collect();
    let primary_id = words.next()?;
    let _ping_sent = words.next()?;
    let _pong_received = words.next()?;
    let config_epoch = words.next()?.parse().ok()?;
    let _link_state = words.next()?;
    let mut slots = SlotSet::empty();
    let mut open = SlotSet::empty();
    for word in words {
        read_slots(word, &mut slots, &mut open);
    }
    Some(NodeLine {
        id,
        host: host.trim_matches(['[', ']']).to_owned(),
        hostname: names.split(',').next().filter(|name| !name.is_empty() && !name.contains('=')).map(str::to_owned),
        port: port.parse().ok()?,
        is_myself: flags.contains(&"myself"),
        is_primary: flags.contains(&"master"),
        is_failing: flags.iter().any(|flag| matches!(*flag, "fail" | "noaddr" | "handshake")),
        replicates: (primary_id != "-").then(|| primary_id.to_owned()),
        config_epoch,
        slots,
        open,
    })
}

/// `0-5460`, `5461`, `[77->-<id>]` (being given away) or `[77-<-<id>]` (being taken over).
fn read_slots(word: &str, slots: &mut SlotSet, open: &mut SlotSet) {
    if let Some(moving) = word.strip_prefix('[') {
        if let Some(slot) = moving.split('-').next().and_then(|slot| slot.parse().ok()) {
            open.insert(slot);
        }
        return;
    }
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
        (first..=last).for_each(|slot| slots.insert(slot));
    }
}

fn split_once_or_all(text: &str, separator: char) -> (&str, &str) {
    text.split_once(separator).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
07c3 127.0.0.1:30004@31004,hostname4 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922
e7d1 [::1]:30001@31001 myself,master - 0 0 1 connected 0-5460 5462 [93-<-292f] [77->-e7d1]
dead :0@0 master,noaddr,fail - 0 0 3 disconnected";

    #[test]
    fn lines_are_read_as_documented() {
        let lines = parse_nodes(NODES);
        assert_eq!(lines.len(), 4);
        assert!(!lines[0].is_primary);
        assert_eq!(lines[0].replicates.as_deref(), Some("e7d1"));
        assert_eq!(lines[1].replicates, None);
        assert_eq!(lines[0].hostname.as_deref(), Some("hostname4"));
        assert_eq!((lines[1].host.as_str(), lines[1].port, lines[1].config_epoch), ("127.0.0.1", 30002, 2));
        assert_eq!(lines[1].slots.len(), 5462);
        assert!(lines[2].is_myself);
        assert_eq!(lines[2].host, "::1");
        assert_eq!(lines[2].slots.len(), 5462);
        assert_eq!(lines[2].open.iter().collect::<Vec<_>>(), [77, 93]);
        assert!(lines[3].is_failing);
    }

    fn primary(port: u16, epoch: u64, slots: SlotSet) -> Primary {
        Primary {
            address: NodeAddress { host: "127.0.0.1".into(), port },
            node_id: port.to_string(),
            run_id: "run".into(),
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
    fn a_new_run_may_have_lost_something() {
        let whole = |run: &str| Topology::new(vec![Primary { run_id: run.into(), ..primary(1, 1, SlotSet::full()) }]);
        assert!(whole("a").lost_nothing_until(&whole("a")));
        assert!(!whole("a").lost_nothing_until(&whole("b")));
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
