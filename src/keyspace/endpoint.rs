//! Where a Redis is and how to be let in.
//!
//! Owns host, port, mode, credentials and TLS material as valid values. Its `Debug` shows no secret.

use std::fmt;

use secrecy::SecretString;

/// A Redis to work on.
#[derive(Clone)]
pub struct RedisEndpoint {
    /// Host name or address; of any node for a cluster.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether the server runs in cluster mode.
    pub cluster: bool,
    /// Database number; 0 for a cluster.
    pub database: u8,
    /// ACL user; absent: the default user.
    pub username: Option<String>,
    /// Password; absent: none is sent.
    pub password: Option<SecretString>,
    /// TLS; absent: plain TCP.
    pub tls: Option<Tls>,
}

/// How to verify the server and to identify ourselves.
#[derive(Clone, Default)]
pub struct Tls {
    /// PEM of the only roots to trust; absent: public roots.
    pub ca_pem: Option<Vec<u8>>,
    /// PEM of our certificate chain and its key.
    pub client: Option<ClientCertificate>,
    /// Name that certificates must carry, where nodes announce addresses.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
}

/// PEM of a client certificate chain and its private key.
#[derive(Clone)]
pub struct ClientCertificate {
    /// Certificate chain.
    pub certificate_pem: Vec<u8>,
    /// Private key.
    pub key_pem: SecretString,
}

impl RedisEndpoint {
    /// A plain endpoint without credentials.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, cluster: bool) -> Self {
        Self { host: host.into(), port, cluster, database: 0, username: None, password: None, tls: None }
    }
}

impl fmt::Display for RedisEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", NodeAddress { host: self.host.clone(), port: self.port })
    }
}

impl fmt::Debug for RedisEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisEndpoint")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("cluster", &self.cluster)
            .field("database", &self.database)
            .field("username", &self.username.as_ref().map(|_| "…"))
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

/// Host and port of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddress {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
