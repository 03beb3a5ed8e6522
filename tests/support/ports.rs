//! Free ports of the loopback address.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use rand::RngExt;

/// Distance from a cluster node's port to its bus port, as Redis defines it.
const BUS: u16 = 10_000;

/// Below the range from which the kernel takes ports for outgoing connections (32768 and up), so
/// that nobody gets the port between the check and the server's start; with the bus port as well.
const RANGE: std::ops::Range<u16> = 10_000..22_768;

/// A port on which nothing listens, never handed out twice by this process.
pub fn free_port() -> u16 {
    claim(is_free)
}

/// A port for a Redis Cluster node: the bus port, 10,000 above, is free too.
pub fn free_cluster_port() -> u16 {
    claim(|port| is_free(port) && is_free(port + BUS))
}

/// The bus port that belongs to a cluster node's port.
pub fn bus_port(port: u16) -> u16 {
    port + BUS
}

fn claim(usable: impl Fn(u16) -> bool) -> u16 {
    static CLAIMED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut claimed = CLAIMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Random, so that test processes running side by side rarely look at the same port.
    let port = (0..10_000)
        .map(|_| rand::rng().random_range(RANGE))
        .find(|&port| !claimed.contains(&port) && usable(port))
        .expect("a free port on the loopback address");
    claimed.insert(port);
    port
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
