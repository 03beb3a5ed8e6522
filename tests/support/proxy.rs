//! A proxy in front of one server that stops a chosen request on its way.
//!
//! What is held back has not reached the server, so a test knows exactly how far its client got. Redis'
//! own answers pass as they are: use it for a standalone server, as a cluster's nodes name each other.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::redis_client::{Access, Endpoint};
use super::wait::eventually_true;

type Matcher = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Which request is stopped.
struct Trap {
    matches: Matcher,
    /// Matching requests that pass before.
    passes: usize,
}

#[derive(Clone)]
struct Shared {
    /// Where new connections lead.
    server: Arc<AtomicU16>,
    trap: Arc<Mutex<Option<Trap>>>,
    caught: watch::Sender<bool>,
    let_go: watch::Sender<bool>,
    open: Arc<AtomicUsize>,
}

/// The proxy; it ends when dropped.
pub struct Proxy {
    port: u16,
    shared: Shared,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens, and passes everything on to the server at `port`.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port for the proxy");
        let own = listener.local_addr().expect("the proxy's port").port();
        let shared = Shared {
            server: Arc::new(AtomicU16::new(port)),
            trap: Arc::default(),
            caught: watch::Sender::new(false),
            let_go: watch::Sender::new(false),
            open: Arc::default(),
        };
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            // Ends with this task, and with it what is held back.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                serving.open.fetch_add(1, Ordering::SeqCst);
                let server = serving.server.load(Ordering::SeqCst);
                connections.spawn(pass(client, server, serving.clone()));
            }
        });
        Self { port: own, shared, task }
    }

    /// The way through the proxy.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::local(self.port, false, Access::default())
    }

    /// Leads new connections to another server, as a Service does; those that stand stay where they are.
    pub fn lead_to(&self, port: u16) {
        self.shared.server.store(port, Ordering::SeqCst);
    }

    /// Stops the first request that matches after `passes` matching ones.
    pub fn stop_at(&self, passes: usize, matches: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
        self.shared.caught.send_replace(false);
        self.shared.let_go.send_replace(false);
        let trap = Trap { matches: Box::new(matches), passes };
        *self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(trap);
    }

    /// Whether the request was stopped.
    pub fn has_caught(&self) -> bool {
        *self.shared.caught.borrow()
    }

    /// Waits until the request was stopped.
    pub async fn wait_caught(&self) {
        let what = "the request comes by";
        eventually_true(Duration::from_secs(60), what, async || self.has_caught()).await;
    }

    /// Lets the stopped request go on to the server.
    pub fn let_go(&self) {
        self.shared.let_go.send_replace(true);
    }

    /// Waits until every client is gone and the server has dealt with all that they sent.
    pub async fn wait_quiet(&self) {
        let is_quiet = async || self.shared.open.load(Ordering::SeqCst) == 0;
        eventually_true(Duration::from_secs(30), "every connection ends", is_quiet).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, port: u16, shared: Shared) {
    if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // The server answers what it got, then closes its end.
        tokio::join!(answers(from_server, to_client), requests(from_client, to_server, &shared));
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        if is_to_be_stopped(shared, &buffer[..count]) {
            shared.caught.send_replace(true);
            let mut let_go = shared.let_go.subscribe();
            if let_go.wait_for(|go| *go).await.is_err() {
                break;
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

fn is_to_be_stopped(shared: &Shared, request: &[u8]) -> bool {
    let mut trap = shared.trap.lock().unwrap_or_else(PoisonError::into_inner);
    match trap.as_mut() {
        Some(waiting) if (waiting.matches)(request) => {
            if waiting.passes > 0 {
                waiting.passes -= 1;
                return false;
            }
            *trap = None;
            true
        }
        Some(_) | None => false,
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        // A client that is gone gets no answers, but the server is heard to its end.
        if count == 0 {
            break;
        }
        let _ = to.write_all(&buffer[..count]).await;
    }
}
