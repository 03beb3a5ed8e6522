//! One connection to one node.
//!
//! Owns how a connection is made: TLS, credentials, name, time limits. Refuses to reconnect by
//! itself: a lost connection is a fault that the router answers. Owns also which scripts it has loaded. Logs in by commands of its own, since the client
//! library takes whatever a server answers to `AUTH` for refused credentials.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::{AsyncDNSResolver, tcp::TcpSettings};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisResult, TlsCertificates, Value,
};
use secrecy::ExposeSecret;

use crate::keyspace::command::Command;
use crate::keyspace::endpoint::{NodeAddress, RedisEndpoint, Tls};
use crate::keyspace::fault::{Fault, FaultClass};
use crate::keyspace::script::Script;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection and how its server knows it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) inner: MultiplexedConnection,
    pub(super) identity: Identity,
    /// Digests of the scripts that its server holds, as far as this connection knows.
    loaded: Arc<Mutex<HashSet<&'static str>>>,
}

impl Connection {
    /// Sends commands in one go, in front of them the scripts `needed` that are not known to be loaded. Returns the
    /// answer to each command.
    ///
    /// # Errors
    /// The connection broke; what became of the commands is unknown.
    pub(super) async fn send(
        &mut self,
        commands: impl ExactSizeIterator<Item = Cmd>,
        needed: &[&'static Script],
        node: &NodeAddress,
    ) -> Result<Vec<Result<Value, Fault>>, Fault> {
        let loads: Vec<&'static Script> = {
            let loaded = self.loaded();
            needed.iter().copied().filter(|script| !loaded.contains(script.sha1())).collect()
        };
        let count = loads.len() + commands.len();
        let mut pipeline = Pipeline::with_capacity(count);
        pipeline.ignore_errors();
        for command in loads.iter().map(|script| script.load_command()).chain(commands) {
            pipeline.add_command(command);
        }

        let answers: Result<Vec<RedisResult<Value>>, _> = pipeline.query_async(&mut self.inner).await;
        let answers = answers.map_err(|error| Fault::classify(&error, node))?;
        if answers.len() != count {
            return Err(Fault::of(FaultClass::UnexpectedAnswer, node));
        }
        let mut answers = answers.into_iter().map(|answer| answer.map_err(|error| Fault::classify(&error, node)));
        let mut refused = None;
        for script in loads {
            match answers.next() {
                Some(Err(fault)) => refused = Some(fault),
                Some(Ok(_)) | None => drop(self.loaded().insert(script.sha1())),
            }
        }
        let mut answers: Vec<_> = answers.collect();
        for answer in &mut answers {
            if !matches!(answer, Err(fault) if fault.class == FaultClass::NoScript) {
                continue;
            }
            match &refused {
                // A script that may not be loaded is not forgotten.
                Some(refused) => *answer = Err(refused.clone()),
                None => self.loaded().clear(),
            }
        }
        Ok(answers)
    }

    /// Sends one command.
    pub(super) async fn send_one(&mut self, command: Command, node: &NodeAddress) -> Result<Value, Fault> {
        let needed: Vec<&'static Script> = command.script.into_iter().collect();
        let mut answers = self.send(std::iter::once(command.cmd), &needed, node).await?;
        answers.pop().unwrap_or(Err(Fault::of(FaultClass::UnexpectedAnswer, node)))
    }

    fn loaded(&self) -> MutexGuard<'_, HashSet<&'static str>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a server knows a connection. Ids begin anew with each run of a server, so it takes the address too
/// to tell a connection from one of another client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    id: String,
    address: String,
}

impl Identity {
    fn parse(client_info: &str) -> Self {
        let field =
            |name: &str| client_info.split(' ').find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_owned();
        Self { id: field("id="), address: field("addr=") }
    }

    /// Closes this very connection.
    pub(super) fn kill_command(&self) -> redis::Cmd {
        redis::cmd("CLIENT").arg("KILL").arg("ID").arg(&self.id).arg("ADDR").arg(&self.address).take()
    }
}

/// Opens a connection to a node and names it.
pub(super) async fn open(endpoint: &RedisEndpoint, node: &NodeAddress, name: &str) -> Result<Connection, Fault> {
    let fault = |error: &redis::RedisError| Fault::classify(error, node);
    let client = client(endpoint, node).map_err(|error| fault(&error))?;
    let mut inner = client
        .get_multiplexed_async_connection_with_config(&config(endpoint, node))
        .await
        .map_err(|error| unanswered(endpoint, &error, fault(&error)))?;
    // One after another: a server that hangs up has answered the first at most.
    let mut commands = login(endpoint);
    commands.push(redis::cmd("CLIENT").arg("SETNAME").arg(name).take());
    for command in commands {
        command.query_async::<()>(&mut inner).await.map_err(|error| unanswered(endpoint, &error, fault(&error)))?;
    }
    let info: String = redis::cmd("CLIENT").arg("INFO").query_async(&mut inner).await.map_err(|error| fault(&error))?;
    Ok(Connection { inner, identity: Identity::parse(&info), loaded: Arc::default() })
}

fn login(endpoint: &RedisEndpoint) -> Vec<Cmd> {
    let mut commands = Vec::new();
    if let Some(password) = &endpoint.password {
        let mut auth = redis::cmd("AUTH");
        auth.arg(&endpoint.username).arg(password.expose_secret());
        commands.push(auth);
    }
    if endpoint.database != 0 {
        commands.push(redis::cmd("SELECT").arg(endpoint.database).take());
    }
    commands
}

/// A server that speaks TLS where we do not, or the reverse, says so by silence only.
fn unanswered(endpoint: &RedisEndpoint, error: &redis::RedisError, fault: Fault) -> Fault {
    let class = match (&endpoint.tls, fault.class) {
        (_, FaultClass::Connection) if !error.is_connection_refusal() && error.is_connection_dropped() => {
            FaultClass::ClosedAtOnce
        }
        (Some(_), FaultClass::Timeout) => FaultClass::TlsUnanswered,
        (_, class) => class,
    };
    Fault { class, ..fault }
}

fn config(endpoint: &RedisEndpoint, node: &NodeAddress) -> AsyncConnectionConfig {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    match server_name(endpoint) {
        Some(_) => config.set_dns_resolver(DialInstead(Arc::new(node.clone()))),
        None => config,
    }
}

fn client(endpoint: &RedisEndpoint, node: &NodeAddress) -> Result<Client, redis::RedisError> {
    let login = RedisConnectionInfo::default().set_skip_set_lib_name();
    let dialled = ConnectionAddr::Tcp(node.host.clone(), node.port);
    let info: ConnectionInfo = match &endpoint.tls {
        None => dialled.into_connection_info()?,
        Some(tls) => ConnectionAddr::TcpTls {
            host: tls.server_name.clone().unwrap_or_else(|| node.host.clone()),
            port: node.port,
            insecure: tls.insecure_skip_verify,
            tls_params: None,
        }
        .into_connection_info()?,
    };
    let info = info.set_redis_settings(login).set_tcp_settings(TcpSettings::default().set_nodelay(true));
    match &endpoint.tls {
        None => Client::open(info),
        Some(tls) => Client::build_with_tls(info, certificates(tls)),
    }
}

fn certificates(tls: &Tls) -> TlsCertificates {
    TlsCertificates {
        client_tls: tls.client.as_ref().map(|client| ClientTlsConfig {
            client_cert: client.certificate_pem.clone(),
            client_key: client.key_pem.expose_secret().as_bytes().to_vec(),
        }),
        root_cert: tls.ca_pem.clone(),
    }
}

fn server_name(endpoint: &RedisEndpoint) -> Option<&str> {
    endpoint.tls.as_ref().and_then(|tls| tls.server_name.as_deref())
}

/// Certificates are checked against the configured name while the node's own address is dialled.
struct DialInstead(Arc<NodeAddress>);

impl AsyncDNSResolver for DialInstead {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _host: &'b str,
        _port: u16,
    ) -> redis::RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((self.0.host.as_str(), self.0.port)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

/// The class of a connection that nothing is left to try on.
pub(super) fn unreachable(endpoint: &RedisEndpoint) -> Fault {
    Fault::of(FaultClass::Connection, &NodeAddress { host: endpoint.host.clone(), port: endpoint.port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_id_and_address() {
        let identity = Identity::parse("id=3 addr=127.0.0.1:40000 laddr=127.0.0.1:6379 fd=8 name=x");
        assert_eq!(identity, Identity { id: "3".into(), address: "127.0.0.1:40000".into() });
    }
}
