//! A real Redis Cluster whose nodes can be killed and promoted, and whose slots can be moved.
//!
//! Nodes are numbered as they were started: the first primaries, then their replicas in turn. Roles
//! change, numbers don't.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult};
use tempfile::TempDir;

use super::ports::{bus_port, free_cluster_port};
use super::process::{Signal, temp_dir};
use super::redis_client::{Access, Endpoint, NodeView, SLOTS, cluster_nodes};
use super::redis_server::{Node, Options, fields};
use super::wait::{STARTUP, eventually, eventually_true};

/// Keys per `MIGRATE`.
const MIGRATE_BATCH: usize = 500;

/// A node's slots, and its primary if it is a replica.
type Role = (Vec<(u16, u16)>, Option<String>);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    // Before the folder, so that the servers end before their files go.
    nodes: Vec<Node>,
    ids: Vec<String>,
    access: Access,
    _folder: TempDir,
}

impl Cluster {
    /// Starts a cluster with evenly spread slots and waits until every node agrees and every
    /// replica is in step.
    pub async fn start(primaries: usize, replicas_per: usize, options: Options) -> Self {
        Self::start_planned(Plan::new(primaries, replicas_per, 0), options).await
    }

    /// As [`Cluster::start`], with one more primary that owns no slots, as a node that was just added: the last node.
    pub async fn start_with_empty(primaries: usize, replicas_per: usize, options: Options) -> Self {
        Self::start_planned(Plan::new(primaries, replicas_per, 1), options).await
    }

    async fn start_planned(plan: Plan, options: Options) -> Self {
        let folder = temp_dir("redis-cluster-", options.parent.as_deref());
        let access = options.access(folder.path());
        let more = format!(
            "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout {}\ncluster-announce-ip 127.0.0.1\n",
            options.node_timeout.as_millis()
        );
        let nodes = (0..plan.ports.len())
            .map(|index| {
                let home = folder.path().join(format!("node-{index}"));
                plan.write_nodes_conf(index, &home);
                Node::start(plan.ports[index], home, access.clone(), &options, &more)
            })
            .collect();
        let cluster = Self { nodes, ids: plan.ids, access, _folder: folder };
        cluster.wait_settled().await;
        cluster
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A node.
    pub fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// A node's id in the cluster.
    pub fn id(&self, node: usize) -> &str {
        &self.ids[node]
    }

    /// A node's port.
    pub fn port(&self, node: usize) -> u16 {
        self.nodes[node].port()
    }

    /// A node's `127.0.0.1:port`.
    pub fn addr(&self, node: usize) -> String {
        self.nodes[node].addr()
    }

    /// Credentials and certificates.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The whole cluster, found through a node that is up.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::local(self.any_up().port(), true, self.access.clone())
    }

    /// A new connection to a node.
    pub async fn connection(&self, node: usize) -> MultiplexedConnection {
        self.nodes[node].connection().await
    }

    /// The primaries that own slots now, by number.
    pub async fn primaries(&self) -> Vec<usize> {
        let view = self.view(self.any_up()).await.expect("CLUSTER NODES");
        let mut primaries: Vec<usize> = view
            .iter()
            .filter(|node| !node.is_failing && !node.slots.is_empty())
            .map(|node| self.number(&node.id))
            .collect();
        primaries.sort_unstable();
        primaries
    }

    /// The replicas that a primary has now, by number.
    pub async fn replicas_of(&self, primary: usize) -> Vec<usize> {
        let view = self.view(self.any_up()).await.expect("CLUSTER NODES");
        let of_it = |node: &&NodeView| node.primary.as_ref() == Some(&self.ids[primary]);
        view.iter().filter(of_it).map(|node| self.number(&node.id)).collect()
    }

    /// The primary that owns a slot, by number.
    pub async fn owner(&self, slot: u16) -> usize {
        let view = self.view(self.any_up()).await.expect("CLUSTER NODES");
        self.owner_in(&view, slot).expect("a slot with an owner")
    }

    /// Ends a node without a chance to say goodbye.
    pub fn kill_node(&self, node: usize) {
        self.nodes[node].kill();
    }

    /// Sends a signal to a node (STOP and CONT make one that hangs).
    pub fn signal(&self, node: usize, signal: Signal) {
        self.nodes[node].process().signal(signal);
    }

    /// Starts a killed node again and waits until the cluster has settled.
    pub async fn restart(&self, node: usize) {
        self.nodes[node].restart().await;
        self.wait_settled().await;
    }

    /// Makes a replica the primary without asking anybody, and waits until every node that is up
    /// agrees and the former primary, if it is up, follows it.
    pub async fn failover(&self, replica: usize) {
        let view = self.view(&self.nodes[replica]).await.expect("CLUSTER NODES");
        let own = view.iter().find(|node| node.id == self.ids[replica]).expect("a node's own line");
        let former = self.number(own.primary.as_ref().expect("a replica, not a primary"));
        self.take_over(replica).await;
        self.wait_handed_over(former).await;
    }

    /// Makes a replica the primary without asking anybody, and waits for nothing: a node that imports one of its slots
    /// never agrees.
    pub async fn take_over(&self, replica: usize) {
        self.must::<()>(replica, redis::cmd("CLUSTER").arg("FAILOVER").arg("TAKEOVER")).await;
    }

    /// Waits until the cluster itself has replaced a dead primary; answers the new one's number.
    pub async fn wait_promoted(&self, dead: usize) -> usize {
        let replicas = self.replicas_of(dead).await;
        self.wait_handed_over(dead).await;
        let primaries = self.primaries().await;
        replicas.into_iter().find(|replica| primaries.contains(replica)).expect("a promoted replica")
    }

    /// Waits until every node that is up says the same and its replication is in step.
    pub async fn wait_settled(&self) {
        eventually_true(STARTUP, "the cluster settles", async || self.is_settled().await.unwrap_or(false)).await;
    }

    /// Opens a slot and moves half of its keys (rounded up): they answer ASK at `from`, and only
    /// commands after ASKING reach them at `to`. Answers how many were moved and how many are left.
    pub async fn open_slot(&self, slot: u16, from: usize, to: usize) -> (usize, usize) {
        self.mark_slot_open(slot, from, to).await;
        let keys: usize = self.must(from, redis::cmd("CLUSTER").arg("COUNTKEYSINSLOT").arg(slot)).await;
        let moved = self.migrate_keys(slot, from, to, keys.div_ceil(2)).await;
        (moved, keys - moved)
    }

    /// Completes the move of an open slot and waits until every node knows its new owner.
    pub async fn close_slot(&self, slot: u16, from: usize, to: usize) {
        while self.migrate_keys(slot, from, to, MIGRATE_BATCH).await > 0 {}
        // The new owner first: it takes a new epoch, and the others believe it.
        let rest = self.primaries().await.into_iter().filter(|node| ![from, to].contains(node));
        for node in [to, from].into_iter().chain(rest) {
            let mut assign = redis::cmd("CLUSTER");
            assign.arg("SETSLOT").arg(slot).arg("NODE").arg(&self.ids[to]);
            let assigned = assign.exec_async(&mut self.connection(node).await).await;
            // One left without slots follows the new owner by itself, and takes no such command any more.
            let follows = node == from && !self.primaries().await.contains(&from);
            assert!(assigned.is_ok() || follows, "node {node} refused: {assigned:?}");
        }
        eventually_true(STARTUP, "every node knows the slot's new owner", async || {
            for node in self.up() {
                match self.view(node).await {
                    Ok(view) if self.owner_in(&view, slot) == Some(to) => {}
                    _ => return false,
                }
            }
            true
        })
        .await;
    }

    /// Takes back what was moved to a node that still imports a slot, as `redis-cli --cluster fix` does.
    pub async fn take_back_slot(&self, slot: u16, from: usize, owner: usize) {
        // A node that imports a slot hears of no other owner by itself, and without one it gives nothing back.
        let mut assign = redis::cmd("CLUSTER");
        assign.arg("SETSLOT").arg(slot).arg("NODE").arg(&self.ids[owner]);
        self.must::<()>(from, &assign).await;
        while self.migrate_keys(slot, from, owner, MIGRATE_BATCH).await > 0 {}
        for node in [from, owner] {
            self.stabilize_slot(slot, node).await;
        }
    }

    /// Makes a node take over a slot, of which it may hold keys already; the owner is not told.
    pub async fn import_slot(&self, slot: u16, node: usize, owner: usize) {
        let mut import = redis::cmd("CLUSTER");
        import.arg("SETSLOT").arg(slot).arg("IMPORTING").arg(&self.ids[owner]);
        self.must::<()>(node, &import).await;
    }

    /// Makes a node forget that it is giving away or taking over a slot; the other end is not told.
    pub async fn stabilize_slot(&self, slot: u16, node: usize) {
        self.must::<()>(node, redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("STABLE")).await;
    }

    /// Waits until a node believes another one failed, as most primaries agreed.
    pub async fn wait_failed(&self, failed: usize, at: usize) {
        eventually_true(STARTUP, "a dead node is called failed", async || {
            let text: String = self.must(at, redis::cmd("CLUSTER").arg("NODES")).await;
            let line = text.lines().find(|line| line.starts_with(&self.ids[failed])).expect("its line");
            line.split(' ').nth(2).is_some_and(|flags| flags.split(',').any(|flag| flag == "fail"))
        })
        .await;
    }

    /// Removes a node without slots: the others forget it, and it forgets them.
    pub async fn remove_empty(&self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node && self.nodes[*other].is_up()) {
            self.must::<()>(other, redis::cmd("CLUSTER").arg("FORGET").arg(&self.ids[node])).await;
        }
        self.must::<()>(node, redis::cmd("CLUSTER").arg("RESET").arg("SOFT")).await;
    }

    /// Moves a slot with all of its keys while clients go on.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.mark_slot_open(slot, from, to).await;
        self.close_slot(slot, from, to).await;
    }

    async fn mark_slot_open(&self, slot: u16, from: usize, to: usize) {
        assert_eq!(self.owner(slot).await, from, "slot {slot} belongs to another node");
        for (node, state, other) in [(to, "IMPORTING", from), (from, "MIGRATING", to)] {
            let mut open = redis::cmd("CLUSTER");
            open.arg("SETSLOT").arg(slot).arg(state).arg(&self.ids[other]);
            self.must::<()>(node, &open).await;
        }
    }

    /// Moves up to `limit` keys of an open slot; answers how many.
    async fn migrate_keys(&self, slot: u16, from: usize, to: usize, limit: usize) -> usize {
        let mut list = redis::cmd("CLUSTER");
        list.arg("GETKEYSINSLOT").arg(slot).arg(limit);
        let keys: Vec<Vec<u8>> = self.must(from, &list).await;
        for batch in keys.chunks(MIGRATE_BATCH) {
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(self.port(to)).arg("").arg(0).arg(30_000);
            if let Some(password) = &self.access.password {
                migrate.arg("AUTH").arg(password);
            }
            migrate.arg("KEYS").arg(batch);
            self.must::<String>(from, &migrate).await;
        }
        keys.len()
    }

    async fn wait_handed_over(&self, former: usize) {
        eventually_true(STARTUP, "a replica takes over and the cluster settles", async || {
            !self.primaries().await.contains(&former) && self.is_settled().await.unwrap_or(false)
        })
        .await;
    }

    /// Whether all nodes that are up agree on who owns what, and replication is in step.
    async fn is_settled(&self) -> RedisResult<bool> {
        let mut agreed = None;
        for node in self.up() {
            node.process().assert_running();
            let view = self.view(node).await?;
            if view.iter().any(|other| other.is_failing && self.nodes[self.number(&other.id)].is_up()) {
                return Ok(false);
            }
            let seen = self.roles(&view);
            if seen.len() != self.nodes.len() || *agreed.get_or_insert_with(|| seen.clone()) != seen {
                return Ok(false);
            }
            let mut connection = node.try_connection().await?;
            let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?;
            let info = fields(info);
            let whole =
                info("cluster_state").as_deref() == Some("ok") && info("cluster_slots_ok") == Some(SLOTS.to_string());
            if !whole || !self.is_in_step(node, &view).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Who owns what and, among the nodes that are up, who follows whom.
    fn roles(&self, view: &[NodeView]) -> BTreeMap<usize, Role> {
        let role = |node: &NodeView| {
            let number = self.number(&node.id);
            let primary = node.primary.clone().filter(|_| self.nodes[number].is_up());
            (number, (node.slots.clone(), primary))
        };
        view.iter().map(role).collect()
    }

    /// A replica is in step when its link is up, a primary when each of its replicas that is up is
    /// online with it.
    async fn is_in_step(&self, node: &Node, view: &[NodeView]) -> RedisResult<bool> {
        let info = node.info("replication").await?;
        if info("role").as_deref() == Some("slave") {
            return Ok(info("master_link_status").as_deref() == Some("up"));
        }
        let own_id = &self.ids[self.nodes.iter().position(|other| other.port() == node.port()).expect("own node")];
        let expected = view
            .iter()
            .filter(|other| other.primary.as_ref() == Some(own_id) && self.nodes[self.number(&other.id)].is_up());
        let expected = expected.count();
        let online = (0..self.nodes.len())
            .filter_map(|at| info(&format!("slave{at}")))
            .filter(|line| line.contains("state=online"));
        Ok(online.count() >= expected)
    }

    fn up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_up())
    }

    fn any_up(&self) -> &Node {
        self.up().next().expect("a node that is up")
    }

    async fn view(&self, node: &Node) -> RedisResult<Vec<NodeView>> {
        cluster_nodes(&mut node.try_connection().await?).await
    }

    fn number(&self, id: &str) -> usize {
        self.ids.iter().position(|own| own == id).expect("a node of this cluster")
    }

    fn owner_in(&self, view: &[NodeView], slot: u16) -> Option<usize> {
        let owns = |node: &&NodeView| node.slots.iter().any(|&(first, last)| (first..=last).contains(&slot));
        view.iter().find(owns).map(|node| self.number(&node.id))
    }

    async fn must<T: redis::FromRedisValue>(&self, node: usize, command: &Cmd) -> T {
        let mut connection = self.connection(node).await;
        command.query_async(&mut connection).await.unwrap_or_else(|error| panic!("node {node} refused: {error}"))
    }
}

/// Who is who before anybody has started. The nodes read it from their `nodes.conf`, as after a
/// restart: they know each other from the first moment, with no order of introductions to wait for.
struct Plan {
    primaries: usize,
    /// Nodes from here on are primaries without slots.
    first_empty: usize,
    ports: Vec<u16>,
    ids: Vec<String>,
}

impl Plan {
    fn new(primaries: usize, replicas_per: usize, empty: usize) -> Self {
        let count = primaries * (1 + replicas_per) + empty;
        let ports: Vec<u16> = (0..count).map(|_| free_cluster_port()).collect();
        let ids = ports.iter().map(|port| format!("{port:040x}")).collect();
        Self { primaries, first_empty: count - empty, ports, ids }
    }

    fn write_nodes_conf(&self, own: usize, home: &Path) {
        let mut text = String::new();
        for (index, (&port, id)) in self.ports.iter().zip(&self.ids).enumerate() {
            let primary = index % self.primaries;
            let is_empty = index >= self.first_empty;
            let epoch = if is_empty { 0 } else { primary + 1 };
            let myself = if index == own { "myself," } else { "" };
            let (role, of, slots) = if is_empty {
                ("master", "-", String::new())
            } else if index == primary {
                ("master", "-", self.slots(primary))
            } else {
                ("slave", self.ids[primary].as_str(), String::new())
            };
            let bus = bus_port(port);
            writeln!(text, "{id} 127.0.0.1:{port}@{bus} {myself}{role} {of} 0 0 {epoch} connected{slots}")
                .expect("string");
        }
        writeln!(text, "vars currentEpoch {} lastVoteEpoch 0", self.primaries).expect("string");
        fs::create_dir_all(home).expect("folder of a cluster node");
        fs::write(home.join("nodes.conf"), text).expect("nodes.conf");
    }

    fn slots(&self, primary: usize) -> String {
        let border = |index: usize| usize::from(SLOTS) * index / self.primaries;
        format!(" {}-{}", border(primary), border(primary + 1) - 1)
    }
}

/// Waits until a primary says that `count` replicas have acknowledged its writes so far.
pub async fn wait_replicated(connection: &mut MultiplexedConnection, count: usize) {
    eventually(Duration::from_secs(30), "replicas acknowledge", async || {
        let acknowledged: usize = redis::cmd("WAIT").arg(count).arg(1000).query_async(connection).await.expect("WAIT");
        (acknowledged >= count).then_some(())
    })
    .await;
}
