//! Which Redis a resource means, and which Secrets open it.
//!
//! Owns resolving a host and checking the connection's fields. Refuses to read Secrets: it only
//! says which.

use std::net::IpAddr;

use super::allowed_hosts::{AllowedHosts, normal};
use super::rejected::Rejected;
use super::v1alpha1::spec::{RedisSpec, SecretKeyRef, TlsSpec};

/// Databases that a standalone server has by default.
const DATABASES: u8 = 16;

/// Where the Redis is and which Secrets open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisTarget {
    /// Resolved host name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether it is a Redis Cluster.
    pub cluster: bool,
    /// Number of the database.
    pub database: u8,
    /// Where the user name is; without it the default user logs in.
    pub username: Option<SecretKey>,
    /// Where the password is; without it no one logs in.
    pub password: Option<SecretKey>,
    /// How the connection is encrypted, if it is.
    pub tls: Option<TlsTarget>,
}

/// How the connection is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsTarget {
    /// Where the authorities to trust are; without it the public ones are.
    pub ca: Option<SecretKey>,
    /// Name of the Secret (`tls.crt`, `tls.key`) that identifies us.
    pub client_cert: Option<String>,
    /// Name to expect in certificates instead of each node's host.
    pub server_name: Option<String>,
}

/// One key of a Secret in the resource's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretKey {
    /// Name of the Secret.
    pub name: String,
    /// Key within its data.
    pub key: String,
}

impl RedisTarget {
    /// Reads `spec.redis` of a resource in `namespace`.
    pub(super) fn parse(spec: &RedisSpec, namespace: &str, allowed: &AllowedHosts) -> Result<Self, Rejected> {
        let host = resolve(&spec.host, namespace)?;
        if !allowed.allows(&[&host, &spec.host]) {
            return Err(Rejected::HostNotAllowed { host, allowed: allowed.describe() });
        }
        if spec.username_secret_ref.is_some() && spec.password_secret_ref.is_none() {
            let problem = "needs spec.redis.passwordSecretRef beside it: Redis is never asked to log in with a user \
                           name alone. Add the password, or remove the user name";
            return Err(Rejected::field("spec.redis.usernameSecretRef", problem));
        }
        Ok(Self {
            host,
            port: port(spec.port)?,
            cluster: spec.cluster,
            database: database(spec.database, spec.cluster)?,
            username: spec.username_secret_ref.as_ref().map(SecretKey::from),
            password: spec.password_secret_ref.as_ref().map(SecretKey::from),
            tls: spec.tls.as_ref().filter(|tls| tls.enabled).map(TlsTarget::from),
        })
    }

    /// The Redis as text that says which is meant: `redis.outpost.svc:6379/0`, `10.0.0.1:6379/cluster`.
    #[must_use]
    pub fn identity(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let database = if self.cluster { "cluster".to_owned() } else { self.database.to_string() };
        format!("{host}:{}/{database}", self.port)
    }
}

impl From<&TlsSpec> for TlsTarget {
    fn from(spec: &TlsSpec) -> Self {
        Self {
            ca: spec.ca_secret_ref.as_ref().map(SecretKey::from),
            client_cert: spec.client_cert_secret_ref.as_ref().map(|secret| secret.name.clone()),
            server_name: spec.server_name.clone(),
        }
    }
}

impl From<&SecretKeyRef> for SecretKey {
    fn from(reference: &SecretKeyRef) -> Self {
        Self { name: reference.name.clone(), key: reference.key.clone() }
    }
}

/// The host to connect to: one label is a Service of the resource's namespace. The name ends with
/// `svc`, since clusters differ in the domain that follows and every pod's resolver knows its own.
fn resolve(given: &str, namespace: &str) -> Result<String, Rejected> {
    let host = normal(given);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && !host.split('.').any(str::is_empty);
    if !is_name {
        let problem = "is neither a host name nor an IP address: write it without scheme, user and port, and give the \
                       port as spec.redis.port";
        return Err(Rejected::field("spec.redis.host", problem));
    }
    let is_service = !host.contains('.') && host != "localhost" && !given.ends_with('.');
    Ok(if is_service { format!("{host}.{namespace}.svc") } else { host })
}

fn port(port: i32) -> Result<u16, Rejected> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Rejected::field("spec.redis.port", format!("{port} is no port: write one from 1 to 65535")))
}

fn database(database: i32, cluster: bool) -> Result<u8, Rejected> {
    let number = u8::try_from(database).ok().filter(|number| *number < DATABASES).ok_or_else(|| {
        Rejected::field("spec.redis.database", format!("{database} is no database: write a number from 0 to 15"))
    })?;
    if cluster && number != 0 {
        let problem = "must be 0 with spec.redis.cluster: Redis Cluster has no other database";
        return Err(Rejected::field("spec.redis.database", problem));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("redis", "redis.outpost.svc")]
    #[case("Redis-Cluster", "redis-cluster.outpost.svc")]
    #[case("redis.data", "redis.data")]
    #[case("redis.data.svc", "redis.data.svc")]
    #[case("redis.example.com.", "redis.example.com")]
    #[case("localhost", "localhost")]
    #[case("redis.", "redis")]
    #[case("127.0.0.1", "127.0.0.1")]
    #[case("FD00:0::1", "fd00::1")]
    fn hosts(#[case] given: &str, #[case] resolved: &str) {
        assert_eq!(resolve(given, "outpost").unwrap(), resolved);
    }

    #[rstest]
    #[case("")]
    #[case("redis:6379")]
    #[case("redis://redis")]
    #[case("user@redis")]
    #[case("redis..svc")]
    #[case("[::1]")]
    #[case("réseau")]
    fn what_is_no_host(#[case] given: &str) {
        let rejected = resolve(given, "outpost").unwrap_err();
        assert!(rejected.to_string().starts_with("spec.redis.host: "), "{rejected}");
    }
}
