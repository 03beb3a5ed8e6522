//! What the gate costs a pod on a migrated keyspace: the whole process, at two sizes of keyspace.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::keys::Keys;
use crate::operator::BINARY;
use crate::report::{Line, Report, median};
use crate::steps::{Order, Walk};
use crate::support::redis_server::{Options, Standalone};

const STARTS: usize = 20;

/// A keyspace of each size, migrated, then asked about.
pub async fn measure(sizes: [usize; 2], report: &mut Report) {
    let mut servers = Vec::new();
    for entries in sizes {
        let server = Standalone::start(Options::default()).await;
        let keys = Keys::load(server.endpoint(), entries).await;
        Order::new(&keys.redis, Walk::Migrate).run();
        // The later migrations are not applied here, and nobody asks for them.
        servers.push((entries, server));
    }
    let mut times = vec![Vec::new(); servers.len()];
    for _ in 0..STARTS {
        for ((_, server), times) in servers.iter().zip(&mut times) {
            times.push(start(server.port()));
        }
    }
    for ((entries, _), times) in servers.iter().zip(times) {
        report.push(Line::new("gate", format!("init --current, {entries} entries"), median(times), "ms"));
    }
}

fn start(port: u16) -> f64 {
    let mut command = Command::new(BINARY);
    command.args(["init", "--current", "--require", "001_hash_tags", "--redis-host", "127.0.0.1"]);
    command.args(["--redis-port", &port.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status().expect("the gate");
    let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
    assert!(status.success(), "the gate found something pending ({status})");
    milliseconds
}
