//! Which primaries there are and which slots each owns.
//!
//! Owns reading `CLUSTER NODES` and the facts that tell whether a scan may be trusted: run and
//! replication id, config epoch, open slots. Each primary is believed about itself only; of others it tells that they exist, and whether
//! they failed.
//!
//! Format: <https://redis.io/docs/latest/commands/cluster-nodes/>.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::{Fault, FaultClass};
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
    /// Why it could not be asked; absent if it has no address, or another node answers there.
    pub fault: Option<FaultClass>,
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.fault) {
            (Some(address), Some(class)) => write!(f, "{address} can't be asked ({})", class.explain()),
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
        Self { primaries, bystanders: Vec::new(), silent: Vec::new(), failed: Vec::new(), owners }
    }

    /// Whether every slot is owned, and every primary was asked.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unowned().is_empty() && self.silent.is_empty()
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

/// What a node of a cluster told about itself and the others.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) node_id: String,
    /// Itself; `None` if it is no primary.
    pub(super) primary: Option<Primary>,
    /// Whether it answers for its slots: a primary that the others gave up still knows what was.
    pub(super) serves: bool,
    pub(super) lines: Vec<NodeLine>,
}

/// What the nodes of a cluster tell of themselves and of each other. A primary that any of them names is asked, since
/// only its own line says which slots are half-moved to it.
#[derive(Debug)]
pub(super) struct Census {
    told: BTreeMap<String, Arc<Told>>,
    /// Ids that were asked for, and where.
    asked: BTreeSet<(String, NodeAddress)>,
    faults: BTreeMap<String, FaultClass>,
    checks_names: bool,
}

impl Census {
    /// Begins with what one node names. `checks_names`: nodes are reached by their host names, since certificates
    /// are checked against these.
    pub(super) fn new(checks_names: bool) -> Self {
        Self { told: BTreeMap::new(), asked: BTreeSet::new(), faults: BTreeMap::new(), checks_names }
    }

    /// The primaries that `lines` of the node at `from` name and that were not asked yet, each with its id.
    pub(super) fn next_to_ask(&mut self, from: &NodeAddress, lines: &[NodeLine]) -> Vec<(String, NodeAddress)> {
        let mut next = Vec::new();
        for line in lines.iter().filter(|line| line.is_live_primary() && !self.told.contains_key(&line.id)) {
            let Some(address) = line.address(from, self.checks_names) else { continue };
            let entry = (line.id.clone(), address);
            if self.asked.insert(entry.clone()) {
                next.push(entry);
            }
        }
        next
    }

    /// Takes down what came of asking for `node_id`.
    pub(super) fn record(&mut self, node_id: &str, answer: Result<Arc<Told>, Fault>) {
        match answer {
            Ok(told) => {
                self.told.entry(told.node_id.clone()).or_insert(told);
            }
            Err(fault) => {
                self.faults.insert(node_id.to_owned(), fault.class);
            }
        }
    }

    /// Primaries without slots that those who answer for their slots call failed.
    fn failed(&self) -> Vec<Failed> {
        let mut failed: BTreeMap<&str, Failed> = BTreeMap::new();
        for told in self.told.values().filter(|told| told.serves) {
            let Some(primary) = &told.primary else { continue };
            for line in told.lines.iter().filter(|line| line.is_failed_bystander() && !self.told.contains_key(&line.id))
            {
                let address = line.address(&primary.address, self.checks_names);
                failed.entry(&line.id).or_insert_with(|| Failed { node_id: line.id.clone(), address });
            }
        }
        failed.into_values().collect()
    }

    /// What follows from all that was told.
    pub(super) fn into_topology(self) -> Topology {
        let mut silent: BTreeMap<&str, Silent> = BTreeMap::new();
        // Who is given up itself does not know who else failed.
        let believed = self.told.values().filter(|told| told.primary.is_some() && told.serves);
        for line in believed.flat_map(|told| &told.lines).filter(|line| line.is_live_primary()) {
            if !self.told.contains_key(&line.id) {
                let mut asked = self.asked.iter().filter(|(id, _)| *id == line.id);
                silent.entry(&line.id).or_insert_with(|| Silent {
                    node_id: line.id.clone(),
                    address: asked.next().map(|(_, address)| address.clone()),
                    fault: self.faults.get(&line.id).copied(),
                });
            }
        }
        let silent: Vec<Silent> = silent.into_values().collect();
        let failed = self.failed();

        let answered = self.told.into_values().filter_map(|told| Some((told.serves, told.primary.clone()?)));
        let (owners, mut bystanders): (Vec<_>, Vec<_>) =
            answered.partition(|(serves, primary)| *serves && !primary.slots.is_empty());
        bystanders.sort_by(|(_, a), (_, b)| a.address.cmp(&b.address));
        let itself = |(_, primary): (bool, Primary)| primary;
        Topology {
            bystanders: bystanders.into_iter().map(itself).collect(),
            silent,
            failed,
            ..Topology::new(owners.into_iter().map(itself).collect())
        }
    }
}

/// What the cluster thinks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It counts; one that only the node that tells misses (`fail?`) does, too.
    Member,
    /// Most primaries agreed that it failed.
    Failed,
    /// It is only being met, and its id is made up.
    Met,
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
    pub(super) standing: Standing,
    /// Id of the primary that it is a replica of.
    pub(super) replicates: Option<String>,
    pub(super) config_epoch: u64,
    pub(super) slots: SlotSet,
    pub(super) open: SlotSet,
}

impl NodeLine {
    /// Whether it may hold keys that nobody else knows of.
    fn is_live_primary(&self) -> bool {
        self.is_primary && self.standing == Standing::Member
    }

    /// Whether it may hold keys, by a move that was broken off, that nobody sees.
    fn is_failed_bystander(&self) -> bool {
        self.is_primary && self.standing == Standing::Failed && self.slots.is_empty()
    }

    /// Where to reach it: by the address it announces, or by its name where certificates are checked against names.
    /// A node that was never met does not know its own address, but we do: it is the one that was asked.
    pub(super) fn address(&self, asked: &NodeAddress, checks_names: bool) -> Option<NodeAddress> {
        let host = match (&self.hostname, checks_names) {
            (Some(hostname), true) => hostname,
            _ if !self.host.is_empty() => &self.host,
            _ if self.is_myself => &asked.host,
            _ => return None,
        };
        (self.port != 0).then(|| NodeAddress { host: host.clone(), port: self.port })
    }
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
        standing: match (flags.contains(&"handshake"), flags.contains(&"fail")) {
            (true, _) => Standing::Met,
            (false, true) => Standing::Failed,
            (false, false) => Standing::Member,
        },
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
        assert_eq!(lines[3].standing, Standing::Failed);
        let asked = NodeAddress { host: "seed".into(), port: 1 };
        let at = |line: usize, checks_names| lines[line].address(&asked, checks_names).map(|it| it.to_string());
        assert_eq!(at(0, true).as_deref(), Some("hostname4:30004"));
        assert_eq!(at(0, false).as_deref(), Some("127.0.0.1:30004"));
        assert_eq!(at(2, true).as_deref(), Some("[::1]:30001"));
        assert_eq!(at(3, false), None);
    }

    fn told(port: u16, serves: bool, open: SlotSet, others: &str) -> Told {
        let slots = if port < 10 { SlotSet::full() } else { SlotSet::empty() };
        let node_id = format!("id{port}");
        Told {
            node_id: node_id.clone(),
            primary: Some(Primary { node_id, open, ..primary(port, 1, slots) }),
            serves,
            lines: parse_nodes(others),
        }
    }

    fn line(id: &str, flags: &str, port: u16) -> String {
        format!("{id} 10.0.0.1:{port}@{port} {flags} - 0 0 1 connected\n")
    }

    #[test]
    fn a_primary_is_asked_wherever_its_own_line_may_be_needed() {
        let from = NodeAddress { host: "10.0.0.1".into(), port: 1 };
        let asks = |flags: &str| {
            let mut census = Census::new(false);
            let lines = parse_nodes(&line("id2", flags, 2));
            let first = census.next_to_ask(&from, &lines).len();
            assert!(census.next_to_ask(&from, &lines).is_empty(), "asked twice at one address");
            first == 1
        };
        assert!(asks("master") && asks("master,fail?") && asks("myself,master"));
        assert!(!asks("master,fail") && !asks("slave") && !asks("handshake") && !asks("master,handshake"));
    }

    #[test]
    fn who_is_named_and_not_called_failed_has_to_be_asked() {
        let silent = |serves: bool, flags: &str| {
            let mut census = Census::new(false);
            let told = told(1, serves, SlotSet::empty(), &line("id2", flags, 2));
            let next = census.next_to_ask(&NodeAddress { host: "h".into(), port: 1 }, &told.lines);
            census.record("id1", Ok(Arc::new(told)));
            for (id, address) in next {
                census.record(&id, Err(Fault::of(FaultClass::Connection, &address)));
            }
            let topology = census.into_topology();
            topology.silent.iter().map(|silent| silent.node_id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(silent(true, "master"), ["id2"]);
        assert_eq!(silent(true, "master,fail?"), ["id2"]);
        assert_eq!(silent(true, "master,noaddr"), ["id2"]);
        for flags in ["master,fail", "master,noaddr,fail", "slave", "slave,fail?", "handshake"] {
            assert_eq!(silent(true, flags), [""; 0], "{flags}");
        }
        // A node that was removed, or cut off, knows nobody's fate.
        assert_eq!(silent(false, "master"), [""; 0]);
    }

    #[test]
    fn who_failed_without_slots_is_told() {
        let failed = |serves: bool, line: &str| {
            let mut census = Census::new(false);
            census.record("id1", Ok(Arc::new(told(1, serves, SlotSet::empty(), line))));
            census.into_topology().failed.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(failed(true, &line("id2", "master,fail", 2)), ["10.0.0.1:2"]);
        assert_eq!(failed(true, "id2 :0@0 master,noaddr,fail - 0 0 3 disconnected"), ["with the id id2"]);
        for flags in ["master", "master,fail?", "slave,fail", "handshake"] {
            assert_eq!(failed(true, &line("id2", flags, 2)), [""; 0], "{flags}");
        }
        assert_eq!(failed(false, &line("id2", "master,fail", 2)), [""; 0]);
        assert_eq!(failed(true, "id2 10.0.0.1:2@2 master,fail - 0 0 1 connected 0-5"), [""; 0], "its slots are missed");
    }

    #[test]
    fn another_node_at_an_address_does_not_answer_for_the_one_that_was_there() {
        let mut census = Census::new(false);
        let first = told(1, true, SlotSet::empty(), &(line("id2", "master", 20) + &line("id20", "master", 20)));
        let from = NodeAddress { host: "10.0.0.1".into(), port: 1 };
        for (id, _) in census.next_to_ask(&from, &first.lines) {
            census.record(&id, Ok(Arc::new(told(20, true, SlotSet::empty(), ""))));
        }
        census.record("id1", Ok(Arc::new(first)));
        let topology = census.into_topology();
        assert_eq!(topology.silent.iter().map(|silent| silent.node_id.as_str()).collect::<Vec<_>>(), ["id2"]);
        assert!(topology.silent[0].to_string().contains("another node answers there"), "{}", topology.silent[0]);
    }

    #[test]
    fn a_slot_is_open_wherever_it_is_open() {
        let topology = |serves: bool, open: SlotSet| {
            let mut census = Census::new(false);
            census.record("id1", Ok(Arc::new(told(1, true, SlotSet::empty(), ""))));
            census.record("id20", Ok(Arc::new(told(20, serves, open, ""))));
            census.into_topology()
        };
        let calm = topology(true, SlotSet::empty());
        let owner = calm.primaries[0].clone();
        assert_eq!((calm.primaries.len(), calm.bystanders.len()), (1, 1));
        assert_eq!(calm.coverage(&owner, &SlotSet::full()), Coverage::Complete);
        for serves in [true, false] {
            let moving = topology(serves, (7..=7).collect());
            assert_eq!(moving.open().iter().collect::<Vec<_>>(), [7]);
            assert_eq!(moving.coverage(&owner, &(0..=10).collect()), Coverage::Spoiled);
            assert_eq!(moving.coverage(&owner, &(8..=10).collect()), Coverage::Complete);
        }
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
