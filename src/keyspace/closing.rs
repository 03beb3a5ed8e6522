//! Closing connections by their names, on every node.
//!
//! Owns whom to ask, and the account of where connections may have stayed. What that means is the caller's to say.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;

use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::server;
use crate::keyspace::value;

/// How long a node that owns no slots may take: nothing lands there unless it is promoted, so it is not waited for.
const REPLICA_PATIENCE: Duration = Duration::from_secs(3);

/// Where connections may have stayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclosed {
    /// What kept them from being closed, with the node; without one: a slot has no primary that could be asked.
    pub fault: Fault,
    /// Whether something may land there as things are: not at a replica, nor at a primary without slots.
    pub owns_slots: bool,
}

impl Unclosed {
    /// Whether the user may not close connections, or the server knows no way to.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self.fault.class, FaultClass::NotPermitted | FaultClass::UnknownCommand)
    }
}

impl Keyspace {
    /// Closes every connection whose name `is_meant`, on every node that can be asked. Returns where some may have
    /// stayed.
    ///
    /// A replica is asked too, since a connection outlives that its server is promoted.
    ///
    /// # Errors
    /// The fault that kept the topology from being learned.
    pub async fn close_connections(&self, is_meant: impl Fn(&str) -> bool) -> Result<Vec<Unclosed>, Fault> {
        // What was learned before the lock was taken away may name a primary that is none any more.
        let topology = self.relearn().await?;
        let lacks_a_primary = !topology.unowned().is_empty();
        let mut unclosed: Vec<Unclosed> = lacks_a_primary
            .then(|| Unclosed { fault: Fault::new(FaultClass::ClusterDown), owns_slots: true })
            .into_iter()
            .collect();

        let owners: BTreeSet<NodeAddress> = topology.primaries.iter().map(|primary| primary.address.clone()).collect();
        let closing = owners.iter().map(|node| self.close_connections_on(node, &is_meant));
        let faults = join_all(closing).await.into_iter().filter_map(Result::err);
        unclosed.extend(faults.map(|fault| Unclosed { fault, owns_slots: true }));

        // Asked for after the lock was taken: a node that joins later has no connection of an earlier holder.
        let told = topology.all().map(|primary| server::living_nodes(self, &primary.address));
        // Who does not tell was asked to close connections, too: that is where it is missed.
        let mut others: BTreeSet<NodeAddress> = join_all(told).await.into_iter().flatten().flatten().collect();
        others.extend(topology.bystanders.iter().map(|primary| primary.address.clone()));
        let others = others.difference(&owners);
        let closing = others.map(|node| async {
            let closed = tokio::time::timeout(REPLICA_PATIENCE, self.close_connections_on(node, &is_meant)).await;
            closed.unwrap_or(Err(Fault::of(FaultClass::Timeout, node)))
        });
        let faults = join_all(closing).await.into_iter().filter_map(Result::err);
        unclosed.extend(faults.map(|fault| Unclosed { fault, owns_slots: false }));
        Ok(unclosed)
    }

    async fn close_connections_on(&self, node: &NodeAddress, is_meant: &impl Fn(&str) -> bool) -> Result<(), Fault> {
        let listed = self.ask_node(node, redis::cmd("CLIENT").arg("LIST").take()).await?;
        for id in ids_of(&value::text(listed)?, is_meant) {
            let kill = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).take();
            self.ask_node(node, kill).await?;
        }
        Ok(())
    }
}

/// Ids in a `CLIENT LIST` whose name is meant.
fn ids_of(list: &str, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name).map(str::to_owned)).unwrap_or_default()
    };
    list.lines().filter(|line| is_meant(&field(line, "name="))).map(|line| field(line, "id=")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_found_by_their_name() {
        let list = "id=3 addr=a name=omr:db0:one fd=8\nid=4 addr=b name=omr:db0:two fd=9\nid=5 addr=c name= fd=1\nid=6 name=omr:db1:x";
        assert_eq!(ids_of(list, |name| name.starts_with("omr:db0:") && name != "omr:db0:two"), ["3"]);
        assert_eq!(ids_of(list, |name| name == "omr:db1:x"), ["6"]);
    }
}
