//! Learning the topology from whichever node answers.
//!
//! Owns whom to ask, in which order, and that no address is asked twice in one learning: a node that is deaf costs its
//! time limit once, however many others name it. What the answers mean together is the topology's to say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::join_all;

use crate::keyspace::census::{Census, Told};
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::patience::retries;
use crate::keyspace::router::Keyspace;
use crate::keyspace::server;
use crate::keyspace::topology::Topology;

impl Keyspace {
    /// Whether nothing that was read or written under `before` can have been lost up to now, as primaries tell that are
    /// asked for it (see [`Topology::lost_nothing_until`]). One that is away for a moment is waited for.
    ///
    /// # Errors
    /// The fault of the configured node when no known node answers; [`FaultClass::ClusterDown`] if a slot has no primary
    /// that could be asked.
    pub async fn lost_nothing_since(&self, before: &Topology) -> Result<bool, Fault> {
        let mut attempts = retries();
        loop {
            let fault = match self.relearn().await {
                Ok(now) if now.unowned().is_empty() => return Ok(before.lost_nothing_until(&now)),
                // What a primary lost that is away, it tells when it is back.
                Ok(_) => Fault::new(FaultClass::ClusterDown),
                Err(fault) => fault,
            };
            if !attempts.pause_after(&fault).await {
                return Err(fault);
            }
        }
    }
}

/// Learns the topology: from the configured node, or while that one's picture is incomplete from those that were
/// known before, by id. The best picture counts, and of equal ones the first.
///
/// # Errors
/// The fault of the configured node if none answers.
pub(super) async fn learn(keyspace: &Keyspace, known: &BTreeMap<String, NodeAddress>) -> Result<Topology, Fault> {
    let endpoint = keyspace.endpoint();
    let configured = NodeAddress { host: endpoint.host.clone(), port: endpoint.port };
    if !endpoint.cluster {
        return learn_standalone(keyspace, &configured).await;
    }

    let mut learning = Learning { keyspace, answers: HashMap::new() };
    let gaps = |topology: &Topology| (topology.unowned().len(), topology.silent.len());
    let mut best = learning.from(&configured, None).await;
    for (id, address) in known {
        if best.as_ref().is_ok_and(Topology::is_whole) {
            break;
        }
        if let Ok(other) = learning.from(address, Some(id)).await
            && best.as_ref().map_or(true, |best| gaps(&other) < gaps(best))
        {
            best = Ok(other);
        }
    }
    best
}

async fn learn_standalone(keyspace: &Keyspace, node: &NodeAddress) -> Result<Topology, Fault> {
    check_mode(keyspace, node).await?;
    if let Some(primary) = server::ask_about_itself(keyspace, node).await?.primary {
        return Ok(Topology::new(vec![primary]));
    }

    keyspace.hang_up(node).await;
    Err(Fault::of(FaultClass::ReadOnly, node))
}

async fn check_mode(keyspace: &Keyspace, node: &NodeAddress) -> Result<(), Fault> {
    let info = server::info(keyspace, node, "cluster").await?;
    let is_cluster = info.get("cluster_enabled").is_some_and(|on| on == "1");
    if is_cluster == keyspace.endpoint().cluster { Ok(()) } else { Err(Fault::of(FaultClass::ClusterMode, node)) }
}

/// One learning of a cluster's topology.
struct Learning<'a> {
    keyspace: &'a Keyspace,
    /// What came of asking at each address.
    answers: HashMap<NodeAddress, Result<Arc<Told>, Fault>>,
}

impl Learning<'_> {
    /// The topology as seen from one node: every primary that it or they name is asked. `expected` is the id that must
    /// answer there: by now the address may be another cluster's.
    async fn from(&mut self, seed: &NodeAddress, expected: Option<&String>) -> Result<Topology, Fault> {
        if !self.answers.contains_key(seed)
            && let Err(fault) = check_mode(self.keyspace, seed).await
        {
            self.answers.insert(seed.clone(), Err(fault));
        }
        self.ask(&[seed]).await;
        let told = self.answer(seed)?;
        if expected.is_some_and(|id| *id != told.node_id) {
            return Err(Fault::of(FaultClass::UnexpectedAnswer, seed));
        }

        let mut census = Census::new(server::checks_names(self.keyspace));
        let mut next = census.next_to_ask(seed, &told.lines);
        while !next.is_empty() {
            let addresses: Vec<&NodeAddress> = next.iter().map(|(_, address)| address).collect();
            self.ask(&addresses).await;

            let mut further = Vec::new();
            for (id, address) in &next {
                let answer = self.answer(address);
                census.record(id, answer.clone());
                if let Ok(told) = answer {
                    further.extend(census.next_to_ask(address, &told.lines));
                }
            }
            next = further;
        }
        Ok(census.into_topology())
    }

    /// Asks those who were not asked yet, all at once.
    async fn ask(&mut self, addresses: &[&NodeAddress]) {
        let mut unasked: Vec<&NodeAddress> = Vec::new();
        for address in addresses {
            if !self.answers.contains_key(*address) && !unasked.contains(address) {
                unasked.push(address);
            }
        }

        let asked = unasked.iter().map(|address| server::ask_about_itself(self.keyspace, address));
        let answers = join_all(asked).await;
        self.answers.extend(unasked.into_iter().cloned().zip(answers.into_iter().map(|answer| answer.map(Arc::new))));
    }

    fn answer(&self, address: &NodeAddress) -> Result<Arc<Told>, Fault> {
        let answer = self.answers.get(address).cloned();
        answer.unwrap_or_else(|| Err(Fault::of(FaultClass::UnexpectedAnswer, address)))
    }
}
