//! What the nodes of a cluster tell of themselves and of each other.
//!
//! Owns reading `CLUSTER NODES`, and whom that makes it necessary to ask. Each primary is believed about itself only; of
//! others it tells that they exist, and whether they failed.
//!
//! Format: <https://redis.io/docs/latest/commands/cluster-nodes/>.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::Fault;
use crate::keyspace::topology::{Failed, Primary, Silent, Topology};
use crate::model::slot::SlotSet;

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
    faults: BTreeMap<String, Fault>,
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
                self.faults.insert(node_id.to_owned(), fault);
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

    /// All nodes, also those that only one that was given up names, with whom each follows: a node's own word, or else
    /// another's. The id of one that is only being met is made up.
    fn named(&self) -> BTreeMap<String, Option<String>> {
        let mut named: BTreeMap<String, Option<String>> = BTreeMap::new();
        let lines = self.told.values().flat_map(|told| &told.lines).filter(|line| line.standing != Standing::Met);
        for line in lines {
            let follows = named.entry(line.id.clone()).or_default();
            if line.is_myself || (follows.is_none() && !self.told.contains_key(&line.id)) {
                follows.clone_from(&line.replicates);
            }
        }
        named
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
                    fault: self.faults.get(&line.id).cloned(),
                });
            }
        }
        let silent: Vec<Silent> = silent.into_values().collect();
        let (failed, named) = (self.failed(), self.named());

        let answered = self.told.into_values().filter_map(|told| Some((told.serves, told.primary.clone()?)));
        let (owners, mut bystanders): (Vec<_>, Vec<_>) =
            answered.partition(|(serves, primary)| *serves && !primary.slots.is_empty());
        bystanders.sort_by(|(_, a), (_, b)| a.address.cmp(&b.address));
        let itself = |(_, primary): (bool, Primary)| primary;
        let mut topology = Topology::new(owners.into_iter().map(itself).collect());
        topology.bystanders = bystanders.into_iter().map(itself).collect();
        topology.silent = silent;
        topology.failed = failed;
        topology.named = named;
        topology
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
    use crate::keyspace::FaultClass;
    use crate::keyspace::topology::Coverage;

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
            primary: Some(Primary {
                address: NodeAddress { host: "127.0.0.1".into(), port },
                node_id,
                run_id: "run".into(),
                history: "history".into(),
                config_epoch: 1,
                slots,
                open,
                replicas: 0,
            }),
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
    fn the_keys_of_a_primary_are_with_whom_it_follows_until_it_is_removed() {
        let topology = |others: &str| {
            let mut census = Census::new(false);
            census.record("id1", Ok(Arc::new(told(1, true, SlotSet::empty(), others))));
            census.into_topology()
        };
        let follows = "id2 10.0.0.1:2@2 slave id1 0 0 1 connected";
        assert_eq!(topology(follows).heir("id2").as_deref(), Some("id1"));
        for flags in ["master", "master,fail"] {
            assert_eq!(topology(&line("id2", flags, 2)).heir("id2").as_deref(), Some("id2"), "{flags}");
        }
        assert_eq!(topology("").heir("id2"), None);
        assert_eq!(topology(&line("id2", "handshake", 2)).heir("id2"), None, "its id is made up");
        let unasked = topology(&line("id3", "master", 3));
        assert_eq!(unasked.heir("id2").as_deref(), Some("id2"), "who is silent may name it");
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
}
