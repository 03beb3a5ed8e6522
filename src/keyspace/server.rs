//! Asks servers about themselves: role, run, slots, memory, settings, permissions.
//!
//! Owns the facts; what they mean for a migration is the engine's to say.

use std::collections::HashMap;

use redis::{Cmd, cmd};

use crate::keyspace::census::{self, NodeLine, Standing, Told};
use crate::keyspace::connection::{self, Connection};
use crate::keyspace::dialect::{self, Dialect};
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::topology::Primary;
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
    /// Replicas that it should have, dead ones included: those that have to acknowledge are counted by it.
    pub replicas: u32,
    /// Replicas that can acknowledge.
    pub online_replicas: u32,
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

/// Whether the server behind this connection still is the primary that was learned: at its address another one may
/// answer by now, and it may have been a replica meanwhile.
pub(super) async fn is_still(
    keyspace: &Keyspace,
    primary: &Primary,
    connection: &mut Connection,
) -> Result<bool, Fault> {
    let node = &primary.address;
    let answers = connection.send(questions(keyspace.endpoint().cluster).into_iter(), &[], node).await?;
    let (now, serves) = read_reign(&mut answers.into_iter(), keyspace.endpoint().cluster, node)?;
    Ok(serves && now.is_some_and(|now| now.run_id == primary.run_id && now.history == primary.history))
}

/// What a server is asked about its reign as a primary.
fn questions(is_cluster: bool) -> Vec<Cmd> {
    let mut questions = vec![cmd("INFO").arg("server").take(), cmd("INFO").arg("replication").take()];
    questions.extend(is_cluster.then(|| cmd("CLUSTER").arg("INFO").take()));
    questions
}

/// What a server answered to [`questions`]: itself, unless it is a replica, and whether it answers for its slots.
fn read_reign(
    answers: &mut impl Iterator<Item = Result<redis::Value, Fault>>,
    is_cluster: bool,
    node: &NodeAddress,
) -> Result<(Option<Primary>, bool), Fault> {
    let mut next = || text_of(answers.next(), node);
    let (process, replication) = (parse_info(&next()?), parse_info(&next()?));
    let serves = !is_cluster || next()?.lines().any(|line| line.trim() == "cluster_state:ok");

    let is_primary = replication.get("role").is_some_and(|role| role == "master");
    let primary = is_primary.then(|| Primary {
        address: node.clone(),
        node_id: String::new(),
        run_id: process.get("run_id").cloned().unwrap_or_default(),
        history: replication.get("master_replid").cloned().unwrap_or_default(),
        config_epoch: 0,
        slots: SlotSet::full(),
        open: SlotSet::empty(),
        replicas: number(&replication, "connected_slaves"),
    });
    Ok((primary, serves))
}

fn text_of(answer: Option<Result<redis::Value, Fault>>, node: &NodeAddress) -> Result<String, Fault> {
    value::text(answer.unwrap_or(Err(Fault::of(FaultClass::UnexpectedAnswer, node)))?)
}

/// What a node says about itself and the others, in one round trip.
pub(super) async fn ask_about_itself(keyspace: &Keyspace, node: &NodeAddress) -> Result<Told, Fault> {
    let is_cluster = keyspace.endpoint().cluster;
    let mut asked = questions(is_cluster);
    asked.extend(is_cluster.then(|| cmd("CLUSTER").arg("NODES").take()));
    let mut answers = keyspace.ask_node_all(node, asked, &[], None).await.into_iter();
    let (primary, serves) = read_reign(&mut answers, is_cluster, node)?;
    if !is_cluster {
        return Ok(Told { node_id: String::new(), primary, serves, lines: Vec::new() });
    }

    let lines = census::parse_nodes(&text_of(answers.next(), node)?);
    let Some(myself) = lines.iter().find(|line| line.is_myself) else {
        return Err(Fault::of(FaultClass::UnexpectedAnswer, node));
    };
    let named = lines.iter().filter(|line| line.replicates.as_deref() == Some(&myself.id)).count();
    let primary = primary.filter(|_| myself.is_primary).map(|primary| Primary {
        node_id: myself.id.clone(),
        config_epoch: myself.config_epoch,
        slots: myself.slots.clone(),
        open: myself.open.clone(),
        // A replica that is away for the moment still owes its acknowledgement.
        replicas: primary.replicas.max(u32::try_from(named).unwrap_or(u32::MAX)),
        ..primary
    });
    Ok(Told { node_id: myself.id.clone(), primary, serves, lines })
}

async fn nodes(keyspace: &Keyspace, node: &NodeAddress) -> Result<Vec<NodeLine>, Fault> {
    let answer = keyspace.ask_node(node, cmd("CLUSTER").arg("NODES").take()).await?;
    Ok(census::parse_nodes(&value::text(answer)?))
}

/// Every node that one node takes to be alive, itself among them.
pub(super) async fn living_nodes(keyspace: &Keyspace, node: &NodeAddress) -> Result<Vec<NodeAddress>, Fault> {
    if !keyspace.endpoint().cluster {
        return Ok(vec![node.clone()]);
    }
    let lines = nodes(keyspace, node).await?;
    let living = lines.iter().filter(|line| line.standing == Standing::Member);
    Ok(living.filter_map(|line| line.address(node, checks_names(keyspace))).collect())
}

/// Whether nodes are reached by their host names, since certificates are checked against these.
pub(super) fn checks_names(keyspace: &Keyspace) -> bool {
    keyspace.endpoint().tls.as_ref().is_some_and(|tls| tls.server_name.is_none())
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
        replicas: primary.replicas,
        online_replicas: online_replicas(info),
        snapshot_failing: failed("rdb_last_bgsave_status"),
        append_failing: failed("aof_last_write_status"),
    }
}

/// Replicas that are in step with their primary, or nearly; one that still gets its first copy acknowledges nothing.
fn online_replicas(info: &Info) -> u32 {
    let is_replica = |name: &str| name.strip_prefix("slave").is_some_and(|rest| rest.parse::<u32>().is_ok());
    let is_online = |fields: &str| fields.split(',').any(|field| field == "state=online");
    let online = info.iter().filter(|(name, fields)| is_replica(name) && is_online(fields)).count();
    u32::try_from(online).unwrap_or(u32::MAX)
}

pub(super) fn number<T: std::str::FromStr + Default>(info: &Info, name: &str) -> T {
    info.get(name).and_then(|content| content.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_are_online_are_counted() {
        let info = parse_info(
            "role:master\r\nconnected_slaves:2\r\nslave0:ip=127.0.0.1,port=1,state=online,offset=9,lag=0\r\n\
             slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\nslave_expires_tracked_keys:0\r\n",
        );
        assert_eq!(online_replicas(&info), 1);
        assert_eq!(online_replicas(&Info::new()), 0);
    }
}
