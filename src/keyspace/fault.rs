//! What can go wrong between us and Redis, and what each kind of trouble asks for.
//!
//! Owns the closed list of fault classes. Refuses to keep a server's error text beyond its code: the
//! text may name keys' values or addresses that vary.
//!
//! Codes: <https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors> and the
//! cluster specification.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use thiserror::Error;

use crate::keyspace::endpoint::NodeAddress;

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultClass {
    /// The slot moved for good (`MOVED`): learn the topology anew.
    Moved,
    /// The slot is being moved (`ASK`): ask the other node for this command.
    Ask,
    /// Keys of one command are half-moved (`TRYAGAIN`): wait and send again.
    TryAgain,
    /// The cluster does not answer for a slot (`CLUSTERDOWN`, `MASTERDOWN`): wait.
    ClusterDown,
    /// The server reads its dataset (`LOADING`): wait.
    Loading,
    /// A script blocks the server (`BUSY`): wait.
    Busy,
    /// The node is or became a replica (`READONLY`): connect and learn the topology anew.
    ReadOnly,
    /// The script cache was emptied (`NOSCRIPT`): load scripts again.
    NoScript,
    /// No answer in time; the outcome is unknown.
    Timeout,
    /// No connection, or it broke; the outcome is unknown.
    Connection,
    /// The host's name can't be resolved.
    UnknownHost,
    /// A connection was closed before the server answered anything on it.
    ClosedAtOnce,
    /// The server takes no more clients (`max number of clients reached`).
    TooManyClients,
    /// The server takes clients of its own machine only (`DENIED`).
    ProtectedMode,
    /// A connection with TLS was not answered.
    TlsUnanswered,
    /// The memory limit is reached (`OOM`).
    OutOfMemory,
    /// Writes are refused since a snapshot failed (`MISCONF`).
    PersistenceFailing,
    /// Writes are refused for want of replicas (`NOREPLICAS`).
    TooFewReplicas,
    /// The user may not run the command or touch the key (`NOPERM`).
    NotPermitted,
    /// Credentials are missing or wrong (`NOAUTH`, `WRONGPASS`).
    AuthenticationFailed,
    /// The server's certificate has expired, or is not valid yet.
    CertificateExpired,
    /// The server's certificate comes from no authority that we trust.
    CertificateUntrusted,
    /// The server's certificate is for other names.
    CertificateName,
    /// The server wants a client certificate, or does not accept ours.
    ClientCertificate,
    /// TLS failed otherwise.
    TlsFailed,
    /// A command's keys lie in different slots (`CROSSSLOT`): a defect of ours.
    CrossSlot,
    /// The target's server does not understand the source's payload.
    PayloadVersion,
    /// The target key exists already (`BUSYKEY`).
    TargetExists,
    /// The key holds another type (`WRONGTYPE`).
    WrongType,
    /// Cluster mode is configured but the server has none, or the reverse.
    ClusterMode,
    /// Our lease on the lock ended; nothing more may be sent.
    LeaseEnded,
    /// A connection broke or a primary changed since what a write relies on was read; it was not sent.
    Disturbed,
    /// The server lacks the command.
    UnknownCommand,
    /// Anything else the server refused.
    Refused,
    /// An answer of a shape we do not know.
    UnexpectedAnswer,
}

/// What to do about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Send again after a while.
    Wait,
    /// Learn the topology anew, then send again.
    Relearn,
    /// Ask the node that the answer names, for this command only.
    AskOther,
    /// Load scripts, then send again.
    LoadScripts,
    /// Sending again changes nothing.
    GiveUp,
}

impl FaultClass {
    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> Remedy {
        match self {
            Self::TryAgain | Self::Loading | Self::Busy => Remedy::Wait,
            Self::Moved
            | Self::ClusterDown
            | Self::ReadOnly
            | Self::Timeout
            | Self::Connection
            | Self::UnknownHost
            | Self::ClosedAtOnce
            | Self::TooManyClients
            | Self::TlsUnanswered => Remedy::Relearn,
            Self::Ask => Remedy::AskOther,
            Self::NoScript => Remedy::LoadScripts,
            Self::OutOfMemory
            | Self::PersistenceFailing
            | Self::TooFewReplicas
            | Self::NotPermitted
            | Self::AuthenticationFailed
            | Self::ProtectedMode
            | Self::CertificateExpired
            | Self::CertificateUntrusted
            | Self::CertificateName
            | Self::ClientCertificate
            | Self::TlsFailed
            | Self::CrossSlot
            | Self::PayloadVersion
            | Self::TargetExists
            | Self::WrongType
            | Self::ClusterMode
            | Self::LeaseEnded
            | Self::Disturbed
            | Self::UnknownCommand
            | Self::Refused
            | Self::UnexpectedAnswer => Remedy::GiveUp,
        }
    }

    /// Whether time alone may cure it, so that a pass may start a part over.
    #[must_use]
    pub fn is_passing(self) -> bool {
        match self.remedy() {
            Remedy::Wait | Remedy::Relearn | Remedy::AskOther | Remedy::LoadScripts => true,
            // Sending the same again would trust an old read; reading again cures it.
            Remedy::GiveUp => self == Self::Disturbed,
        }
    }

    /// Whether there is no connection any more.
    #[must_use]
    pub fn is_connection_lost(self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::Connection
                | Self::UnknownHost
                | Self::ClosedAtOnce
                | Self::TooManyClients
                | Self::TlsUnanswered
        )
    }

    /// What was wrong and what to do, in one line.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::Moved | Self::Ask | Self::TryAgain => "slots are being moved; wait until the move is done",
            Self::ClusterDown => "the cluster does not answer for every slot; bring its primaries back",
            Self::Loading => "Redis is still loading its dataset; wait",
            Self::Busy => "a script blocks Redis; see SCRIPT KILL",
            Self::ReadOnly => {
                "the server is a replica, or became one in a failover; point at the primary, or wait until the name \
                 leads to it"
            }
            Self::NoScript => "Redis keeps forgetting scripts; look for SCRIPT FLUSH",
            Self::Timeout => "Redis did not answer in time; look at its load and the network",
            Self::Connection => "Redis can't be reached; check host, port and network",
            Self::OutOfMemory => {
                "Redis is at its memory limit; raise maxmemory. Cleanup, which frees memory, needs that before Redis 7.0 \
                 only, by a megabyte for as long as it takes"
            }
            Self::PersistenceFailing => "Redis refuses writes since its last snapshot failed; check its disk",
            Self::TooFewReplicas => "Redis refuses writes for want of replicas; bring them back",
            Self::NotPermitted => "the Redis user lacks a permission; compare it with the ACL in the README",
            Self::AuthenticationFailed => "Redis refused the credentials; check username and password",
            Self::UnknownHost => "the host name can't be resolved; check it, and the name server",
            Self::ClosedAtOnce => {
                "the server closed the connection at once; it may want TLS or a client certificate, or have too many clients"
            }
            Self::ProtectedMode => "Redis runs in protected mode; give its user a password, or set protected-mode no",
            Self::TooManyClients => "Redis takes no more clients; raise maxclients, or find who keeps so many open",
            Self::TlsUnanswered => "the server did not answer in TLS; check that it speaks TLS at this port",
            Self::CertificateExpired => "the server's certificate has expired, or is not valid yet; renew it",
            Self::CertificateUntrusted => "the server's certificate comes from no trusted authority; check the CA",
            Self::CertificateName => "the server's certificate is for other names; check host and server name",
            Self::ClientCertificate => {
                "the server wants a client certificate that it trusts; check certificate and key"
            }
            Self::TlsFailed => "TLS failed; check that the server speaks TLS at this port, and its certificate",
            Self::CrossSlot => "keys of one command lie in different slots; report this",
            Self::PayloadVersion => "nodes run versions whose payloads do not fit; finish the Redis upgrade first",
            Self::TargetExists => "the target key exists already",
            Self::WrongType => "the key holds another type",
            Self::ClusterMode => "cluster mode is configured differently from what the server runs",
            Self::LeaseEnded => "the lock was lost",
            Self::Disturbed => "a connection broke between comparison and write; compared again",
            Self::UnknownCommand => "the server lacks a command; Redis 6.2 or newer is needed",
            Self::Refused => "Redis refused a command",
            Self::UnexpectedAnswer => "Redis answered in an unknown shape; check the server's version",
        }
    }
}

/// A classified fault, with the node it came from where one is known.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("{}{}", at.as_ref().map(|node| format!("{node}: ")).unwrap_or_default(), class.explain())]
pub struct Fault {
    /// Its kind.
    pub class: FaultClass,
    /// The node that it came from, or that it names (`ASK`).
    pub at: Option<NodeAddress>,
}

impl Fault {
    /// A fault without a node.
    #[must_use]
    pub fn new(class: FaultClass) -> Self {
        Self { class, at: None }
    }

    /// A fault of a node.
    #[must_use]
    pub fn of(class: FaultClass, node: &NodeAddress) -> Self {
        Self { class, at: Some(node.clone()) }
    }

    pub(super) fn classify(error: &RedisError, node: &NodeAddress) -> Self {
        if let (ErrorKind::Server(ServerErrorKind::Ask), Some((address, _slot))) = (error.kind(), error.redirect_node())
            && let Some(other) = redirected(address, node)
        {
            return Self::of(FaultClass::Ask, &other);
        }
        Self::of(class_of(error), node)
    }
}

/// The node that a redirection names: `host:port`, where an empty host means the host of who answered.
fn redirected(address: &str, answered: &NodeAddress) -> Option<NodeAddress> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.trim_matches(['[', ']']) {
        "" | "?" => &answered.host,
        named => named,
    };
    Some(NodeAddress { host: host.to_owned(), port: port.parse().ok()? })
}

fn class_of(error: &RedisError) -> FaultClass {
    if error.is_timeout() {
        return FaultClass::Timeout;
    }
    if error.is_connection_dropped() || error.is_connection_refusal() {
        return FaultClass::Connection;
    }
    // An aborted transaction or pipeline says why only in the errors of its commands.
    if let Some(inner) = error.clone().into_server_errors().and_then(|errors| errors.first().cloned()) {
        return class_of_code(inner.1.code(), inner.1.details().unwrap_or_default());
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => FaultClass::AuthenticationFailed,
        ErrorKind::Io => class_of_text(&error.to_string()),
        ErrorKind::InvalidClientConfig => FaultClass::TlsFailed,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => FaultClass::UnexpectedAnswer,
        ErrorKind::Server(_) | ErrorKind::Extension => {
            class_of_code(error.code().unwrap_or_default(), error.detail().unwrap_or_default())
        }
        _ => FaultClass::Refused,
    }
}

fn class_of_code(code: &str, detail: &str) -> FaultClass {
    match code {
        "ERR" if detail.starts_with("unknown command") || detail.starts_with("Unknown subcommand") => {
            FaultClass::UnknownCommand
        }
        _ => class_named(code).unwrap_or_else(|| class_within(detail)),
    }
}

/// The class of an error that begins with its own code.
fn class_named(code: &str) -> Option<FaultClass> {
    Some(match code {
        "MOVED" => FaultClass::Moved,
        "ASK" => FaultClass::Ask,
        "TRYAGAIN" => FaultClass::TryAgain,
        "CLUSTERDOWN" | "MASTERDOWN" => FaultClass::ClusterDown,
        "LOADING" => FaultClass::Loading,
        "BUSY" => FaultClass::Busy,
        "READONLY" => FaultClass::ReadOnly,
        "NOSCRIPT" => FaultClass::NoScript,
        "OOM" => FaultClass::OutOfMemory,
        "MISCONF" => FaultClass::PersistenceFailing,
        "NOREPLICAS" => FaultClass::TooFewReplicas,
        "NOPERM" => FaultClass::NotPermitted,
        "NOAUTH" | "WRONGPASS" => FaultClass::AuthenticationFailed,
        "DENIED" => FaultClass::ProtectedMode,
        "CROSSSLOT" => FaultClass::CrossSlot,
        "BUSYKEY" => FaultClass::TargetExists,
        "WRONGTYPE" => FaultClass::WrongType,
        _ => return None,
    })
}

/// What a script is told that its user may not run a command, or touch a key or a channel: up to Redis 7.0, and since
/// 7.2 and in Valkey.
const REFUSED_TO_SCRIPTS: [&str; 3] = ["The user executing the script can't", "ACL failure in script", "NOPERM"];

/// The class of an error whose code says little. Redis 6.2 wraps what is refused inside of a script
/// (`ERR Error running script (call to f_…): @user_script:1: @user_script: 1: -OOM command not allowed …`), and
/// every version what keeps a transaction from being run (`EXECABORT Transaction discarded because of: OOM …`).
fn class_within(detail: &str) -> FaultClass {
    let first_words = detail.split(": ").filter_map(|part| part.split(' ').next());
    if let Some(wrapped) = first_words.map(|word| word.trim_start_matches('-')).find_map(class_named) {
        wrapped
    } else if detail.contains("max number of clients") {
        FaultClass::TooManyClients
    } else if detail.contains("OOM command not allowed") {
        FaultClass::OutOfMemory
    } else if REFUSED_TO_SCRIPTS.iter().any(|words| detail.contains(words)) {
        FaultClass::NotPermitted
    } else if detail.contains("DUMP payload") || detail.contains("Bad data format") {
        FaultClass::PayloadVersion
    } else if detail.contains("Unknown Redis command") {
        FaultClass::UnknownCommand
    } else if detail.contains("invalid password") || detail.contains("AUTH") {
        FaultClass::AuthenticationFailed
    } else {
        FaultClass::Refused
    }
}

/// What the operating system and TLS say only in words.
fn class_of_text(text: &str) -> FaultClass {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["lookup address", "name or service not known", "nodename nor servname", "resolve"]) {
        FaultClass::UnknownHost
    } else if says(&["invalid peer certificate: expired", "certificate expired", "notvalidyet", "not valid yet"]) {
        FaultClass::CertificateExpired
    } else if says(&["notvalidforname", "not valid for name"]) {
        FaultClass::CertificateName
    } else if says(&["received fatal alert"]) && says(&["certificate", "unknownca", "accessdenied", "handshakefailure"])
    {
        FaultClass::ClientCertificate
    } else if says(&["invalid peer certificate", "unknownissuer"]) {
        FaultClass::CertificateUntrusted
    } else if says(&["certificate", "tls", "handshake", "corrupt message", "invalidcontenttype", "alert"]) {
        FaultClass::TlsFailed
    } else {
        FaultClass::Connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_class() {
        for (code, detail, class) in [
            ("MOVED", "1 a:1", FaultClass::Moved),
            ("CLUSTERDOWN", "", FaultClass::ClusterDown),
            ("OOM", "command not allowed when used memory > 'maxmemory'.", FaultClass::OutOfMemory),
            ("ERR", "DUMP payload version or checksum are wrong", FaultClass::PayloadVersion),
            ("ERR", "unknown command 'COPY'", FaultClass::UnknownCommand),
            ("WRONGPASS", "", FaultClass::AuthenticationFailed),
            ("NOREPLICAS", "", FaultClass::TooFewReplicas),
            ("SOMETHING", "", FaultClass::Refused),
            ("ERR", "max number of clients reached", FaultClass::TooManyClients),
            ("ERR", "max number of clients + cluster connections reached", FaultClass::TooManyClients),
            ("ERR", "AUTH <password> called without any password configured", FaultClass::AuthenticationFailed),
            ("DENIED", "Redis is running in protected mode because", FaultClass::ProtectedMode),
        ] {
            assert_eq!(class_of_code(code, detail), class, "{code} {detail}");
        }
    }

    /// As Redis 6.2.14, 7.0.15, 7.4.1 and 8.2.3 say it.
    #[test]
    fn what_is_wrapped_has_the_class_of_its_own_code() {
        let call = "Error running script (call to f_82cdd3d7ab6b96f9a5947917c9f163ca06cc907a): @user_script:1:";
        let (old_user, script) = ("The user executing the script can't", " script: 855f52, on @user_script:1.");
        for (code, detail, class) in [
            ("ERR", format!("{call} @user_script: 1: -NOREPLICAS Not enough good"), FaultClass::TooFewReplicas),
            ("ERR", format!("{call} @user_script: 1: -MISCONF Redis is configured"), FaultClass::PersistenceFailing),
            ("ERR", format!("{call} @user_script: 1: -OOM command not allowed"), FaultClass::OutOfMemory),
            ("ERR", format!("{call} @user_script: 1: -READONLY You can't write"), FaultClass::ReadOnly),
            ("ERR", format!("{call} WRONGTYPE Operation against a key"), FaultClass::WrongType),
            ("ERR", format!("{call} @user_script: 1: Unknown Redis command called"), FaultClass::UnknownCommand),
            ("ERR", format!("{call} Script attempted to access a non local key"), FaultClass::Refused),
            ("@user_script:", "1: -NOREPLICAS Not enough good".to_owned(), FaultClass::TooFewReplicas),
            (
                "ERR",
                format!("{call} @user_script: 1: {old_user} run this command or subcommand"),
                FaultClass::NotPermitted,
            ),
            (
                "ERR",
                format!("{call} @user_script: 1: {old_user} access at least one of the keys"),
                FaultClass::NotPermitted,
            ),
            ("ERR", format!("{old_user} access at least one of the keys{script}"), FaultClass::NotPermitted),
            ("ERR", format!("ACL failure in script: No permissions to access a key{script}"), FaultClass::NotPermitted),
            ("ERR", format!("ACL failure in script: User u has no permissions{script}"), FaultClass::NotPermitted),
            ("EXECABORT", "Transaction discarded because of: OOM command".to_owned(), FaultClass::OutOfMemory),
            ("EXECABORT", "Transaction discarded because of previous errors.".to_owned(), FaultClass::Refused),
        ] {
            assert_eq!(class_of_code(code, &detail), class, "{code} {detail}");
        }
    }

    #[test]
    fn words_have_their_class() {
        for (text, class) in [
            ("failed to lookup address information: Name or service not known", FaultClass::UnknownHost),
            ("invalid peer certificate: certificate expired: verification time 1", FaultClass::CertificateExpired),
            ("invalid peer certificate: UnknownIssuer", FaultClass::CertificateUntrusted),
            ("invalid peer certificate: certificate not valid for name \"a\"", FaultClass::CertificateName),
            ("received fatal alert: CertificateRequired", FaultClass::ClientCertificate),
            ("received fatal alert: UnknownCA", FaultClass::ClientCertificate),
            ("received corrupt message of type InvalidContentType", FaultClass::TlsFailed),
            ("broken pipe", FaultClass::Connection),
        ] {
            assert_eq!(class_of_text(text), class, "{text}");
        }
    }

    #[test]
    fn a_redirection_names_host_and_port() {
        let answered = NodeAddress { host: "h".into(), port: 1 };
        let node = |host: &str, port| Some(NodeAddress { host: host.into(), port });
        assert_eq!(redirected("10.0.0.1:6379", &answered), node("10.0.0.1", 6379));
        assert_eq!(redirected("::1:6379", &answered), node("::1", 6379));
        assert_eq!(redirected(":6379", &answered), node("h", 6379));
        assert_eq!(redirected("nowhere", &answered), None);
    }

    #[test]
    fn a_message_holds_no_server_text() {
        let node = NodeAddress { host: "::1".into(), port: 6379 };
        assert_eq!(
            Fault::of(FaultClass::Loading, &node).to_string(),
            "[::1]:6379: Redis is still loading its dataset; wait"
        );
    }
}
