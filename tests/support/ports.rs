//! Free ports of the loopback address.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Mutex;

use rand::RngExt;
use rustix::process::getuid;

/// Distance from a cluster node's port to its bus port, as Redis defines it.
const BUS: u16 = 10_000;

/// Ports and the bus ports above them lie apart from each other, and below the range from which the kernel takes ports
/// for outgoing connections (32768 and up), so that nobody gets one between the check and the server's start.
const RANGE: std::ops::Range<u16> = 10_000..20_000;

/// A port on which nothing listens, handed out to nobody else while this process lives: neither twice by it nor by
/// another test process beside it.
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
    static CLAIMED: Mutex<BTreeMap<u16, File>> = Mutex::new(BTreeMap::new());
    let mut claimed = CLAIMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);

    let (port, lock) = (0..10_000)
        .map(|_| rand::rng().random_range(RANGE))
        .filter(|port| !claimed.contains_key(port))
        .find_map(|port| Some((port, lock(port)?)).filter(|_| usable(port)))
        .expect("a free port on the loopback address");
    claimed.insert(port, lock);
    port
}

/// Locks a port's file among all test processes of this machine, or answers that another one has it. A server that is
/// restarted on its port, or that has not bound it yet, would lose it to a process that only looks whether it is free.
/// The kernel unlocks the file when the process ends, however it does.
fn lock(port: u16) -> Option<File> {
    let folder = locks();
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("creating {}: {error}", folder.display()));
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(port.to_string()));
    let file = file.unwrap_or_else(|error| panic!("lock of port {port} in {}: {error}", folder.display()));
    file.try_lock().ok().map(|()| file)
}

/// One folder for all processes of a user, whatever `TMPDIR` a test gave to the program that it started again.
fn locks() -> PathBuf {
    PathBuf::from(format!("/tmp/outpost-test-ports-{}", getuid().as_raw()))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
