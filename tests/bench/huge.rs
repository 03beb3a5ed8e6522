//! What another client feels while a huge entry goes all the way, by type: plan, copy, comparison, removal.
//!
//! Owns the entries; the other client and its idle server are `latency.rs`'.

use crate::latency::felt;
use crate::raw::Lane;
use crate::report::{Line, Report};
use crate::steps::{Order, Walk};
use crate::support::huge::Kind;
use crate::support::load::load;
use crate::support::redis_client::{Endpoint, slot};
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::value::{Entry, Value};

const MEMBERS: usize = 1_000_000;

const SOURCE: &[u8] = b"tenant:huge:things";

const TARGET: &[u8] = b"{tenant:huge}:things";

/// Where `COPY` puts the same in one step, to measure ours by.
const COPY: &[u8] = b"{tenant:huge}:copy";

/// On one server, and on the primary of three that gets the copy.
pub async fn measure(report: &mut Report) {
    let aside = Standalone::start(Options::default()).await;
    for kind in Kind::ALL {
        let server = Standalone::start(Options::default()).await;
        let redis = server.endpoint();
        prepare(kind, &redis).await;
        let ports = [server.port(), aside.port()];
        walk("standalone", kind, &redis, ports, report);
        let copied = felt(ports, || {
            Lane::open(server.port()).ask(&[b"COPY", TARGET, COPY]);
        });
        worst(report, "standalone", &format!("{kind:?} by COPY"), copied.worst());
    }
    for kind in Kind::ALL {
        let cluster = Cluster::start(3, 0, Options::default()).await;
        let redis = cluster.endpoint();
        prepare(kind, &redis).await;
        let target = slot(TARGET);
        let owner = redis.primaries().await.into_iter().find(|primary| primary.owns(target)).expect("an owner");
        walk("cluster of 3", kind, &redis, [owner.port, aside.port()], report);
    }
}

async fn prepare(kind: Kind, redis: &Endpoint) {
    let tenant = Value::hash([("id", "huge"), ("created_at", "2025-01-19T22:17:29Z")]);
    load(redis, [Entry::new("tenant:huge", tenant)]).await;
    kind.load(redis, SOURCE, MEMBERS, None).await;
}

fn walk(place: &str, kind: Kind, redis: &Endpoint, ports: [u16; 2], report: &mut Report) {
    for (what, walk) in [("copied and compared", Walk::Migrate), ("removed", Walk::CleanUp)] {
        let mut order = Order::new(redis, walk);
        order.tenant_tag = true;
        let felt = felt(ports, || {
            order.run();
        });
        worst(report, place, &format!("{kind:?} {what}"), felt.worst());
    }
}

fn worst(report: &mut Report, place: &str, what: &str, [shared, aside]: [f64; 2]) {
    report.push(Line::new("huge", format!("{place}: {what}: worst pause"), shared, "ms").beside("idle server", aside));
}
