//! Probes and metrics over HTTP. Probes depend neither on Redis nor on a lock.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::operator::metrics::Metrics;

/// What the probes look at.
#[derive(Clone)]
pub struct Health {
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Whether resources were listed once, so that this replica can do its work.
    pub ready: Arc<AtomicBool>,
}

/// Binds the first of these addresses that this machine has, so that a taken port is told at once.
///
/// # Errors
/// The address that could not be bound, and why.
pub async fn bind(addresses: &[SocketAddr]) -> Result<TcpListener, (SocketAddr, io::Error)> {
    let mut failed = None;
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            // Another address would hide that somebody else answers here.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err((*address, error)),
            Err(error) => failed = Some((*address, error)),
        }
    }
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    Err(failed.unwrap_or_else(|| (nowhere, io::Error::from(io::ErrorKind::InvalidInput))))
}

/// Serves `/healthz`, `/readyz` and `/metrics` until shutdown.
///
/// # Errors
/// What kept the server from serving.
pub async fn serve(listener: TcpListener, health: Health, shutdown: CancellationToken) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, routes).with_graceful_shutdown(async move { shutdown.cancelled().await }).await
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    if health.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "resources are not listed yet\n")
    }
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match health.metrics.render() {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, FORMAT)], text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], "not available\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the range that documents use, so no machine has it.
    const NOBODYS: &str = "[2001:db8::1]:0";

    #[tokio::test]
    async fn an_address_that_the_machine_lacks_is_passed_over() {
        let addresses = [NOBODYS, "127.0.0.1:0"].map(|address| address.parse().expect("an address"));
        let bound = bind(&addresses).await.expect("the second");
        assert_eq!(bound.local_addr().expect("an address").ip(), addresses[1].ip());
        assert_eq!(bind(&addresses[..1]).await.expect_err("no other").0, addresses[0]);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_not_passed_over() {
        let taken = bind(&["127.0.0.1:0".parse().expect("an address")]).await.expect("a port");
        let taken = taken.local_addr().expect("an address");
        let addresses = [taken, "127.0.0.1:0".parse().expect("an address")];
        assert_eq!(bind(&addresses).await.expect_err("the first is taken").0, taken);
    }
}
