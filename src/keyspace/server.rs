//! Asks servers about themselves: role, run, slots, memory, settings, permissions.
//!
//! Owns the facts; what they mean for a migration is the engine's to say.

use std::collections::HashMap;

use redis::{Cmd, cmd};

use crate::keyspace::connection::{self, Connection};
use crate::keyspace::dialect::{self, Dialect};
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::topology::{self, NodeLine, Primary, Topology};
use crate::keyspace::value;
use crate::model::slot::SlotSet;

/// What one primary says about itself, as far as a preflight check needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// The primary.
    pub node: NodeAddress,
    /// `redis_version`, as numbers.
    pub version: (u32, u32, u32),
    /// What it understands; `None` if it is too old for us.
    pub dialect: Option<Dialect>,
    /// Bytes in use that count against the limit.
    pub used_memory: u64,
    /// Memory limit in bytes; 0: none.
    pub max_memory: u64,
    /// Eviction policy.
    pub eviction_policy: String,
    /// Replicas that are attached.
    pub replicas: u32,
    /// The last snapshot failed and Redis refuses writes because of it.
    pub snapshot_failing: bool,
    /// The last append-only write failed.
    pub append_failing: bool,
}

/// Whether the present user may run a command on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// It may.
    Granted,
    /// It may not.
    Denied,
    /// It may not ask.
    Unknown,
}

impl Keyspace {
    /// What every primary says about itself.
    ///
    /// # Errors
    /// The first fault that kept a primary from answering.
    pub async fn server_facts(&self) -> Result<Vec<ServerFacts>, Fault> {
        let mut facts = Vec::new();
        for primary in &self.topology().await.primaries {
            let info = info(self, &primary.address, "all").await?;
            facts.push(facts_of(primary, &info));
        }
        Ok(facts)
    }

    /// Whether the present user may run a command, asked without running it (`ACL DRYRUN`).
    ///
    /// # Errors
    /// The fault that kept the primary from answering.
    pub async fn permission(&self, command: &[Vec<u8>]) -> Result<Permission, Fault> {
        let topology = self.topology().await;
        let Some(primary) = topology.primaries.first() else { return Err(connection::unreachable(self.endpoint())) };
        let user = self.endpoint().username.clone().unwrap_or_else(|| "default".to_owned());
        let mut dry_run = cmd("ACL").arg("DRYRUN").arg(user).take();
        for word in command {
            dry_run.arg(word);
        }
        match self.ask_node(&primary.address, dry_run).await {
            Ok(redis::Value::Okay) => Ok(Permission::Granted),
            Ok(_) => Ok(Permission::Denied),
            Err(fault) if matches!(fault.class, FaultClass::NotPermitted | FaultClass::UnknownCommand) => {
                Ok(Permission::Unknown)
            }
            // Redis refuses to dry-run a command that it does not know in that form.
            Err(fault) if fault.class == FaultClass::Refused => Ok(Permission::Unknown),
            Err(fault) => Err(fault),
        }
    }
}

/// Learns the topology from the first node that answers.
pub(super) async fn learn(keyspace: &Keyspace) -> Result<Topology, Fault> {
    let mut last = connection::unreachable(keyspace.endpoint());
    for seed in keyspace.seeds().await {
        match learn_from(keyspace, &seed).await {
            Ok(topology) => return Ok(topology),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

async fn learn_from(keyspace: &Keyspace, seed: &NodeAddress) -> Result<Topology, Fault> {
    let cluster_enabled = info(keyspace, seed, "cluster").await?.get("cluster_enabled").is_some_and(|on| on == "1");
    if cluster_enabled != keyspace.endpoint().cluster {
        return Err(Fault::of(FaultClass::ClusterMode, seed));
    }
    if !cluster_enabled {
        let primary = describe(keyspace, seed).await?.ok_or(Fault::of(FaultClass::ReadOnly, seed))?;
        return Ok(Topology::new(vec![primary]));
    }
    let mut primaries = Vec::new();
    for line in nodes(keyspace, seed).await? {
        if !line.is_primary || line.is_failing || (line.slots.is_empty() && line.open.is_empty()) {
            continue;
        }
        let address = address_of(&line, keyspace, seed);
        // A primary that does not answer owns nothing that could be scanned; its slots stay unowned.
        if let Ok(Some(primary)) = describe(keyspace, &address).await {
            primaries.push(primary);
        }
    }
    Ok(Topology::new(primaries))
}

/// Whether a primary still is the run of the server that was learned, also behind this further connection, which may
/// have reached another one at the same address.
pub(super) async fn is_still(
    keyspace: &Keyspace,
    primary: &Primary,
    connection: &mut Connection,
) -> Result<bool, Fault> {
    let node = &primary.address;
    let answer: redis::Value = cmd("INFO")
        .arg("server")
        .query_async(&mut connection.inner)
        .await
        .map_err(|error| Fault::classify(&error, node))?;
    let is_same = parse_info(&value::text(answer)?).get("run_id") == Some(&primary.run_id);
    Ok(is_same && describe(keyspace, node).await?.is_some_and(|now| now.run_id == primary.run_id))
}

/// What a node says about itself now; `None` if it is no primary.
pub(super) async fn describe(keyspace: &Keyspace, node: &NodeAddress) -> Result<Option<Primary>, Fault> {
    let server = info(keyspace, node, "server").await?;
    let replication = info(keyspace, node, "replication").await?;
    if replication.get("role").is_none_or(|role| role != "master") {
        return Ok(None);
    }
    let mut primary = Primary {
        address: node.clone(),
        node_id: String::new(),
        run_id: server.get("run_id").cloned().unwrap_or_default(),
        config_epoch: 0,
        slots: SlotSet::full(),
        open: SlotSet::empty(),
        replicas: number(&replication, "connected_slaves"),
    };
    if keyspace.endpoint().cluster {
        // A primary that the others gave up still answers SCAN, over slots that are not its own any more.
        if !serves(keyspace, node).await? {
            return Ok(None);
        }
        let lines = nodes(keyspace, node).await?;
        let replicas_of = |id: &str| lines.iter().filter(|line| line.replicates.as_deref() == Some(id)).count();
        let replicas_by_id: HashMap<String, usize> =
            lines.iter().map(|line| (line.id.clone(), replicas_of(&line.id))).collect();
        let Some(myself) = lines.into_iter().find(|line| line.is_myself && line.is_primary) else { return Ok(None) };
        // A replica that is away for the moment still owes its acknowledgement.
        let replicas = replicas_by_id.get(&myself.id).copied().unwrap_or_default();
        primary.replicas = primary.replicas.max(u32::try_from(replicas).unwrap_or(u32::MAX));
        primary.node_id = myself.id;
        primary.config_epoch = myself.config_epoch;
        primary.slots = myself.slots;
        primary.open = myself.open;
    }
    Ok(Some(primary))
}

async fn serves(keyspace: &Keyspace, node: &NodeAddress) -> Result<bool, Fault> {
    let answer = keyspace.ask_node(node, cmd("CLUSTER").arg("INFO").take()).await?;
    Ok(value::text(answer)?.lines().any(|line| line.trim() == "cluster_state:ok"))
}

async fn nodes(keyspace: &Keyspace, node: &NodeAddress) -> Result<Vec<NodeLine>, Fault> {
    let answer = keyspace.ask_node(node, cmd("CLUSTER").arg("NODES").take()).await?;
    Ok(topology::parse_nodes(&value::text(answer)?))
}

/// Where to reach a node: by the address it announces, or by its name where certificates are checked
/// against names. A node that was never met has no address and is the one that was asked.
fn address_of(line: &NodeLine, keyspace: &Keyspace, seed: &NodeAddress) -> NodeAddress {
    let checks_names = keyspace.endpoint().tls.as_ref().is_some_and(|tls| tls.server_name.is_none());
    let host = match (&line.hostname, checks_names) {
        (Some(hostname), true) => hostname,
        _ if line.host.is_empty() => &seed.host,
        _ => &line.host,
    };
    NodeAddress { host: host.clone(), port: line.port }
}

pub(super) type Info = HashMap<String, String>;

pub(super) async fn info(keyspace: &Keyspace, node: &NodeAddress, section: &str) -> Result<Info, Fault> {
    let command: Cmd = cmd("INFO").arg(section).take();
    Ok(parse_info(&value::text(keyspace.ask_node(node, command).await?)?))
}

fn parse_info(text: &str) -> Info {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, content)| (name.to_owned(), content.trim().to_owned()))
        .collect()
}

fn facts_of(primary: &Primary, info: &Info) -> ServerFacts {
    let text = |name: &str| info.get(name).cloned().unwrap_or_default();
    let failed = |name: &str| info.get(name).is_some_and(|status| status != "ok");
    ServerFacts {
        node: primary.address.clone(),
        version: dialect::version(&text("redis_version")),
        dialect: Dialect::of(info),
        used_memory: number::<u64>(info, "used_memory").saturating_sub(number(info, "mem_not_counted_for_evict")),
        max_memory: number(info, "maxmemory"),
        eviction_policy: text("maxmemory_policy"),
        replicas: number(info, "connected_slaves"),
        snapshot_failing: failed("rdb_last_bgsave_status"),
        append_failing: failed("aof_last_write_status"),
    }
}

pub(super) fn number<T: std::str::FromStr + Default>(info: &Info, name: &str) -> T {
    info.get(name).and_then(|content| content.parse().ok()).unwrap_or_default()
}
