//! The engine while a node of a cluster is silent: it does not answer, and nobody calls it failed yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::verify;
use outpost_migrate_redis::keyspace::scan::Look;
use outpost_migrate_redis::model::key::RedisKey;
use rstest::rstest;
use tokio::net::TcpListener;

use crate::support::engine::{Bench, Expected, Reins};
use crate::support::process::Signal;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::Options;
use crate::support::wait::{STARTUP, eventually_true};

/// The node that `start` adds to three primaries.
const EMPTY: usize = 3;

/// Three primaries without replicas, and one without slots that nobody calls failed while a test runs.
async fn start() -> Cluster {
    let options = Options { node_timeout: Duration::from_secs(120), ..Options::default() };
    Cluster::start_with_empty(3, 0, options).await
}

/// How often a node ran a command, as `INFO commandstats` names it.
async fn calls(cluster: &Cluster, node: usize, command: &str) -> u64 {
    let stats = cluster.node(node).info("commandstats").await.expect("INFO");
    let line = stats(&format!("cmdstat_{command}")).unwrap_or_default();
    let calls = line.strip_prefix("calls=").and_then(|calls| calls.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

/// Pages that all primaries with slots were asked for.
async fn pages(cluster: &Cluster) -> u64 {
    let mut pages = 0;
    for node in 0..EMPTY {
        pages += calls(cluster, node, "scan").await;
    }
    pages
}

/// How often the first node was asked for the topology.
async fn times_asked(cluster: &Cluster) -> u64 {
    calls(cluster, 0, "cluster|nodes").await
}

#[tokio::test]
async fn looks_that_are_over_wait_for_a_node_that_is_silent() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let expected = Expected::load(&bench.redis, 300).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    let before = pages(&cluster).await;
    bench.compare().await.expect("a comparison");
    let undisturbed = pages(&cluster).await - before;
    assert!(undisturbed > 3, "{undisturbed} pages");

    let reins = Reins::paced(400);
    let keyspace = bench.keyspace().await;
    let mut progress = reins.progress.clone();
    let before = pages(&cluster).await;
    let silence = async {
        progress.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.processed > 50)).await.expect("progress");
        cluster.signal(EMPTY, Signal::STOP);
        let asked = times_asked(&cluster).await;
        // When the topology is asked for once more, the first look that is over has heard that a node is silent.
        let again = async || times_asked(&cluster).await >= asked + 2;
        eventually_true(STARTUP, "the topology is asked for again", again).await;
        cluster.signal(EMPTY, Signal::CONT);
    };
    let comparing = verify::compare(&keyspace, &bench.assignment, &reins.control, None);
    let (compared, ()) = tokio::join!(comparing, silence);

    assert_eq!(compared.expect("a comparison").equal, expected.sources());
    assert_eq!(pages(&cluster).await - before, undisturbed, "looks at healthy primaries were made again");
}

/// When a node falls silent.
#[derive(Debug, Clone, Copy)]
enum Since {
    Start,
    Look,
}

#[rstest]
#[case::before_the_first_look(Since::Start)]
#[case::at_the_end_of_a_look(Since::Look)]
#[tokio::test]
async fn a_stop_is_heard_while_a_node_is_silent(#[case] since: Since) {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    Expected::load(&bench.redis, 100).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");

    let reins = Reins::paced(400);
    let keyspace = bench.keyspace().await;
    let mut progress = reins.progress.clone();
    if matches!(since, Since::Start) {
        cluster.signal(EMPTY, Signal::STOP);
    }
    let asked_before = times_asked(&cluster).await;
    let stopping = async {
        let mut asked = asked_before;
        if matches!(since, Since::Look) {
            progress.wait_for(|seen| seen.as_ref().is_some_and(|seen| seen.processed > 50)).await.expect("progress");
            cluster.signal(EMPTY, Signal::STOP);
            asked = times_asked(&cluster).await;
        }
        eventually_true(STARTUP, "all nodes are asked", async || times_asked(&cluster).await > asked).await;
        reins.stop.cancel();
        Instant::now()
    };
    let comparing = verify::compare(&keyspace, &bench.assignment, &reins.control, None);
    let (compared, stopped) = tokio::join!(comparing, stopping);
    let took = stopped.elapsed();
    cluster.signal(EMPTY, Signal::CONT);

    assert_eq!(compared.map(|_| ()), Err(Stop::Interrupted));
    assert!(took < Duration::from_secs(5), "it took {took:?} to stop");
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

#[tokio::test]
async fn a_look_at_a_primary_without_slots_outlives_its_connection() {
    let cluster = start().await;
    let bench = Bench::new(&cluster.endpoint());
    let keyspace = bench.keyspace().await;
    let looks = keyspace.all_looks().await.expect("looks");
    let look = looks.iter().find(|look| look.is_for_strays()).expect("a look at the primary without slots");
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal");
    let killed: u64 = kill.query_async(&mut cluster.connection(EMPTY).await).await.expect("CLIENT KILL");
    assert!(killed > 0, "the fault did not hit");

    let prefixes = [b"tenant:".to_vec()];
    let scanned: Result<Vec<Vec<RedisKey>>, _> = keyspace.scan(look, &prefixes).try_collect().await;

    assert_eq!(scanned.map(|pages| pages.concat()), Ok(Vec::new()));
    assert!(looks.iter().filter(|look| !Look::is_for_strays(look)).count() == 3, "{looks:?}");
}
