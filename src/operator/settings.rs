//! How the operator is started.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

use crate::api::allowed_hosts::AllowedHosts;
use crate::migrations::Registry;

/// What the operator is told when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose resources are served.
    pub namespaces: Namespaces,
    /// Redis hosts that resources may name.
    pub allowed_hosts: AllowedHosts,
    /// Who we are in locks and events: the pod's name.
    pub holder: String,
    /// How long a lock of ours stands unless renewed.
    pub lease: Duration,
    /// Where probes and metrics are served: the first of these that this machine has.
    pub addresses: Vec<SocketAddr>,
    /// The migrations known.
    pub registry: Registry,
}

/// The port of probes and metrics.
const PORT: u16 = 8080;

/// Every address of the machine. That of IPv6 takes IPv4 too; it is missing where IPv6 is switched off, and the other
/// one on a machine that has nothing else.
#[must_use]
pub fn every_address() -> Vec<SocketAddr> {
    vec![(Ipv6Addr::UNSPECIFIED, PORT).into(), (Ipv4Addr::UNSPECIFIED, PORT).into()]
}

/// Whose resources are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// Those of every namespace.
    All,
    /// Those of these.
    Named(BTreeSet<String>),
}

/// Why a list of namespaces can't be followed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadNamespaces {
    /// One is empty.
    #[error("--namespace (WATCH_NAMESPACES) has an empty name: name a namespace, or write * to serve all of them")]
    Empty,
    /// All, and some.
    #[error("--namespace (WATCH_NAMESPACES): * serves every namespace already: leave the others out, or leave * out")]
    AllAndSome,
    /// One can't exist.
    #[error("--namespace (WATCH_NAMESPACES): {0:?} is no name of a namespace: write lower-case letters, digits and -")]
    NoName(String),
}

impl Namespaces {
    /// Reads what was given: nothing, or `*`, means all.
    ///
    /// # Errors
    /// What can't be meant.
    pub fn parse(given: &[String]) -> Result<Self, BadNamespaces> {
        if given.is_empty() || given.iter().all(|name| name == "*") {
            return Ok(Self::All);
        }
        if given.iter().any(|name| name == "*") {
            return Err(BadNamespaces::AllAndSome);
        }
        given.iter().map(|name| parse_name(name)).collect::<Result<_, _>>().map(Self::Named)
    }
}

/// As the API server takes it: RFC 1123.
fn parse_name(name: &str) -> Result<String, BadNamespaces> {
    let is_inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() {
        Err(BadNamespaces::Empty)
    } else if name.len() > 63 || !name.chars().all(is_inside) || name.starts_with('-') || name.ends_with('-') {
        Err(BadNamespaces::NoName(name.to_owned()))
    } else {
        Ok(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[&str]) -> Result<Namespaces, BadNamespaces> {
        Namespaces::parse(&given.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn namespaces_are_all_or_named_never_by_accident() {
        assert_eq!(parse(&[]), Ok(Namespaces::All));
        assert_eq!(parse(&["*"]), Ok(Namespaces::All));
        let two = ["a", "team-b"].map(str::to_owned);
        assert_eq!(parse(&["team-b", "a", "a"]), Ok(Namespaces::Named(two.into_iter().collect())));
        assert_eq!(parse(&[""]), Err(BadNamespaces::Empty));
        assert_eq!(parse(&["a", ""]), Err(BadNamespaces::Empty));
        assert_eq!(parse(&["a", "*"]), Err(BadNamespaces::AllAndSome));
        for name in ["A", "a.b", "-a", "a-", "a b"] {
            assert_eq!(parse(&[name]), Err(BadNamespaces::NoName(name.to_owned())));
        }
    }
}
