//! How the harness itself talks to Redis: one plain connection per node, no cluster client.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    RedisResult, TlsCertificates,
};

use super::certificates::Certificates;

/// Number of slots in a cluster.
pub const SLOTS: u16 = 16_384;

/// Who connects, and how.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// User name; `default` without one.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// TLS with this authority and, always, the client certificate.
    pub tls: Option<Certificates>,
}

/// A whole Redis: one server, or a cluster found through one of its nodes.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Host of the server or of any node.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// Who connects, and how.
    pub access: Access,
}

/// A primary that answers, with the slots it owns; a standalone server owns all of them.
#[derive(Clone)]
pub struct Primary {
    /// A connection of its own.
    pub connection: MultiplexedConnection,
    /// Its port.
    pub port: u16,
    /// First and last slot of each range.
    pub slots: Vec<(u16, u16)>,
}

impl Primary {
    /// Whether it owns a slot.
    pub fn owns(&self, slot: u16) -> bool {
        self.slots.iter().any(|&(first, last)| (first..=last).contains(&slot))
    }
}

impl Endpoint {
    /// A server or node on the loopback address.
    pub fn local(port: u16, cluster: bool, access: Access) -> Self {
        Self { host: Ipv4Addr::LOCALHOST.to_string(), port, cluster, access }
    }

    /// Connects to each primary; panics unless all slots are covered.
    pub async fn primaries(&self) -> Vec<Primary> {
        let mut seed = connect(&self.host, self.port, &self.access).await.expect("connection to Redis");
        if !self.cluster {
            return vec![Primary { connection: seed, port: self.port, slots: vec![(0, SLOTS - 1)] }];
        }
        let nodes = cluster_nodes(&mut seed).await.expect("CLUSTER NODES");
        let owners: Vec<NodeView> = nodes.into_iter().filter(|node| !node.slots.is_empty()).collect();
        let covered: u32 =
            owners.iter().flat_map(|node| &node.slots).map(|(first, last)| u32::from(last - first) + 1).sum();
        assert_eq!(covered, u32::from(SLOTS), "a cluster with slots that nobody owns");

        let mut primaries = Vec::new();
        for owner in owners {
            let connection = connect(&owner.host, owner.port, &self.access).await.expect("connection to a primary");
            primaries.push(Primary { connection, port: owner.port, slots: owner.slots });
        }
        primaries
    }
}

/// A connection to one node. Its timeouts suit a busy machine, not the product.
pub async fn connect(host: &str, port: u16, access: &Access) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(5)))
        .set_response_timeout(Some(Duration::from_secs(30)));
    client(host, port, access)?.get_multiplexed_async_connection_with_config(&config).await
}

/// A client for one node, for tests that need another kind of connection.
pub fn client(host: &str, port: u16, access: &Access) -> RedisResult<Client> {
    let host = host.to_owned();
    let addr = match access.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    };
    let mut user = RedisConnectionInfo::default();
    if let Some(username) = &access.username {
        user = user.set_username(username);
    }
    if let Some(password) = &access.password {
        user = user.set_password(password);
    }
    let tcp = TcpSettings::default().set_nodelay(true);
    let info = addr.into_connection_info()?.set_redis_settings(user).set_tcp_settings(tcp);
    let Some(certificates) = &access.tls else {
        return Client::open(info);
    };
    install_crypto();
    let read = |path| fs::read(path).expect("certificate file");
    let client_tls =
        ClientTlsConfig { client_cert: read(&certificates.client_cert), client_key: read(&certificates.client_key) };
    Client::build_with_tls(
        info,
        TlsCertificates { client_tls: Some(client_tls), root_cert: Some(read(&certificates.ca)) },
    )
}

/// Installs the process' TLS provider, unless there is one.
pub fn install_crypto() {
    // An error says that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The slot of a key, written from the cluster specification (a bitwise CRC16, XMODEM): the product
/// has its own.
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|&byte| byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, &byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

/// One line of `CLUSTER NODES`: how one node sees another, or itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its id.
    pub id: String,
    /// Host as announced.
    pub host: String,
    /// Port for clients.
    pub port: u16,
    /// Whether it is believed dead, or about to be.
    pub is_failing: bool,
    /// The id of its primary, if it is a replica.
    pub primary: Option<String>,
    /// First and last slot of each range that it owns.
    pub slots: Vec<(u16, u16)>,
    /// Whether it is moving slots away or in (only a node's own line tells).
    pub has_open_slots: bool,
}

/// The cluster as one node sees it.
pub async fn cluster_nodes(connection: &mut MultiplexedConnection) -> RedisResult<Vec<NodeView>> {
    let text: String = redis::cmd("CLUSTER").arg("NODES").query_async(connection).await?;
    Ok(text.lines().map(parse_node).collect())
}

fn parse_node(line: &str) -> NodeView {
    let columns: Vec<&str> = line.split(' ').collect();
    let address = columns[1].split(['@', ',']).next().unwrap_or_default();
    let (host, port) = address.rsplit_once(':').expect("CLUSTER NODES: host:port");
    let flags: Vec<&str> = columns[2].split(',').collect();
    let (open, owned): (Vec<&str>, Vec<&str>) = columns[8..].iter().partition(|range| range.starts_with('['));
    let number = |text: &str| text.parse().expect("CLUSTER NODES: a number");
    NodeView {
        id: columns[0].to_owned(),
        host: host.to_owned(),
        port: number(port),
        is_failing: flags.contains(&"fail") || flags.contains(&"fail?"),
        primary: (columns[3] != "-").then(|| columns[3].to_owned()),
        slots: owned
            .iter()
            .map(|range| range.split_once('-').unwrap_or((range, range)))
            .map(|(first, last)| (number(first), number(last)))
            .collect(),
        has_open_slots: !open.is_empty(),
    }
}
