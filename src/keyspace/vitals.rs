//! How a primary feels, asked on a connection of its own: as another client would feel it.
//!
//! Owns that connection. Refuses to send anything that writes or that walks the keyspace.

use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::Instant;

use crate::keyspace::connection::{self, Connection};
use crate::keyspace::endpoint::{NodeAddress, RedisEndpoint};
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::router::Keyspace;
use crate::keyspace::value;
use crate::model::admission::Vitals;

/// Where Redis drops a replica unless told otherwise, and we may not ask: its soft limit.
const USUAL_BUFFER_LIMIT: u64 = 64 * 1024 * 1024;

/// Asks one primary how it feels.
pub struct Observer {
    endpoint: RedisEndpoint,
    name: String,
    node: NodeAddress,
    live: Option<Live>,
}

struct Live {
    connection: Connection,
    buffer_limit: Option<u64>,
}

impl Keyspace {
    /// One observer for each primary; none is connected yet.
    pub async fn observers(&self) -> Vec<Observer> {
        let observer = |node: &NodeAddress| Observer {
            endpoint: self.endpoint().clone(),
            name: self.name().to_owned(),
            node: node.clone(),
            live: None,
        };
        self.topology().await.primaries.iter().map(|primary| observer(&primary.address)).collect()
    }
}

impl Observer {
    /// The primary.
    #[must_use]
    pub fn node(&self) -> &NodeAddress {
        &self.node
    }

    /// How long the smallest question takes. An answer that does not come within `patience` took that long.
    ///
    /// # Errors
    /// The fault that kept it from being asked.
    pub async fn round_trip(&mut self, patience: Duration) -> Result<Duration, Fault> {
        let node = self.node.clone();
        let live = self.live().await?;
        let began = Instant::now();
        // The connection sorts out an answer that comes later.
        match tokio::time::timeout(patience, cmd("PING").query_async::<Value>(&mut live.connection.inner)).await {
            Err(_) | Ok(Ok(_)) => Ok(began.elapsed()),
            Ok(Err(error)) => match Fault::classify(&error, &node) {
                // A refusal is an answer.
                fault if fault.class == FaultClass::NotPermitted => Ok(began.elapsed()),
                fault => Err(self.lost(fault)),
            },
        }
    }

    /// What the node says about memory and replicas; `None` if it is no primary any more.
    ///
    /// # Errors
    /// The fault that kept it from being asked.
    pub async fn vitals(&mut self) -> Result<Option<Vitals>, Fault> {
        let node = self.node.clone();
        let live = self.live().await?;
        let limit = live.buffer_limit;
        let mut text = String::new();
        for section in ["memory", "replication"] {
            match cmd("INFO").arg(section).query_async::<String>(&mut live.connection.inner).await {
                Ok(more) => text.push_str(&more),
                Err(error) => return Err(self.lost(Fault::classify(&error, &node))),
            }
        }
        let vitals = read(&text, limit);
        if vitals.is_none() {
            // The address may lead to the promoted server by now.
            self.live = None;
        }
        Ok(vitals)
    }

    async fn live(&mut self) -> Result<&mut Live, Fault> {
        let live = if let Some(live) = self.live.take() { live } else { self.open().await? };
        Ok(self.live.insert(live))
    }

    async fn open(&self) -> Result<Live, Fault> {
        let mut connection = connection::open(&self.endpoint, &self.node, &self.name).await?;
        let asked = cmd("CONFIG").arg("GET").arg("client-output-buffer-limit").take();
        let buffer_limit = match asked.query_async::<Value>(&mut connection.inner).await {
            Ok(answer) => value::list(answer)?.pop().map(value::text).transpose()?.as_deref().and_then(limit_of),
            // Not everybody may ask.
            Err(_) => Some(USUAL_BUFFER_LIMIT),
        };
        Ok(Live { connection, buffer_limit })
    }

    fn lost(&mut self, fault: Fault) -> Fault {
        self.live = None;
        fault
    }
}

/// The smaller of the two limits for replicas in `normal 0 0 0 slave 268435456 67108864 60 pubsub …`; `None`: no limit.
fn limit_of(setting: &str) -> Option<u64> {
    let mut words = setting.split_whitespace().skip_while(|word| !matches!(*word, "slave" | "replica")).skip(1);
    let limits = [words.next()?, words.next()?];
    limits.iter().filter_map(|limit| limit.parse().ok()).filter(|limit| *limit > 0).min()
}

fn read(info: &str, limit: Option<u64>) -> Option<Vitals> {
    let field = |name: &str| {
        info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
    };
    let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    if field("role").is_some_and(|role| role != "master") {
        return None;
    }
    let written = number("master_repl_offset");
    let behind = (0..number("connected_slaves").min(64))
        .filter_map(|index| field(&format!("slave{index}")))
        .filter(|replica| replica.split(',').any(|part| part == "state=online"))
        .filter_map(|replica| replica.split(',').find_map(|part| part.strip_prefix("offset=")?.parse::<u64>().ok()))
        .map(|offset| written.saturating_sub(offset))
        .max();
    Some(Vitals {
        used_memory: number("used_memory").saturating_sub(number("mem_not_counted_for_evict")),
        max_memory: number("maxmemory"),
        behind: behind.unwrap_or_default(),
        buffered: number("mem_clients_slaves"),
        // What the backlog holds anyway is never a reason to drop a replica.
        buffer_limit: limit.map_or(0, |limit| limit.max(number("repl_backlog_size"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Memory\r\nused_memory:1000\r\nused_memory_human:1K\r\nmaxmemory:5000\r\n\
        mem_not_counted_for_evict:100\r\nmem_clients_slaves:70\r\n# Replication\r\nrole:master\r\nconnected_slaves:3\r\n\
        slave0:ip=127.0.0.1,port=7001,state=online,offset=900,lag=1\r\n\
        slave1:ip=127.0.0.1,port=7002,state=online,offset=600,lag=0\r\n\
        slave2:ip=127.0.0.1,port=7003,state=send_bulk,offset=0,lag=0\r\n\
        master_repl_offset:1000\r\nrepl_backlog_size:1048576\r\n";

    #[test]
    fn vitals_are_read_as_redis_counts() {
        let vitals =
            Vitals { used_memory: 900, max_memory: 5000, behind: 400, buffered: 70, buffer_limit: 64 * 1024 * 1024 };
        assert_eq!(read(INFO, Some(USUAL_BUFFER_LIMIT)), Some(vitals));
        assert_eq!(read(INFO, Some(10)).map(|it| it.buffer_limit), Some(1_048_576));
        assert_eq!(read(INFO, None).map(|it| it.buffer_limit), Some(0));
        assert_eq!(read(&INFO.replace("role:master", "role:slave"), None), None);
    }

    #[test]
    fn the_smaller_limit_counts() {
        let usual = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(limit_of(usual), Some(67_108_864));
        assert_eq!(limit_of("normal 0 0 0 slave 1000 0 0 pubsub 1 1 1"), Some(1000));
        assert_eq!(limit_of("normal 0 0 0 slave 0 0 0 pubsub 1 1 1"), None);
        assert_eq!(limit_of(""), None);
    }
}
