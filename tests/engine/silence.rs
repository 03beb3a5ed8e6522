//! The engine while a node of a cluster is silent: it does not answer, and nobody calls it failed yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;

use crate::support::engine::Bench;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::Options;

/// The node that `start` adds to three primaries.
const EMPTY: usize = 3;

/// Three primaries without replicas, and one without slots that nobody calls failed while a test runs.
async fn start() -> Cluster {
    let options = Options { node_timeout: Duration::from_secs(120), ..Options::default() };
    Cluster::start_with_empty(3, 0, options).await
}

#[tokio::test]
async fn a_deaf_node_is_asked_once_to_learn_the_topology() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let keyspace = bench.keyspace().await;
    cluster.kill_node(EMPTY);
    // From here on there is no connection to it.
    keyspace.relearn().await.expect("the others answer");

    let listener = TcpListener::bind(("127.0.0.1", cluster.port(EMPTY))).await.expect("the port of the killed node");
    let accepted = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&accepted);
    let deaf = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((client, _)) = listener.accept().await {
            counting.fetch_add(1, Ordering::SeqCst);
            kept.push(client);
        }
    });
    let topology = keyspace.relearn().await.expect("the others answer");
    deaf.abort();

    let silent: Vec<&str> = topology.silent.iter().map(|silent| silent.node_id.as_str()).collect();
    assert_eq!(silent, [cluster.id(EMPTY)]);
    assert_eq!(accepted.load(Ordering::SeqCst), 1, "connections to the deaf node");
}
