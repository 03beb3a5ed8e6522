//! The Kubernetes face: watches resources, decides, lets workers work, writes status.
//!
//! Owns everything that speaks to the API server. Redis is the worker's business, and what a migration
//! is, the engine's.

mod case;
pub mod clock;
pub mod decide;
pub mod desk;
pub mod events;
pub mod health;
mod holder;
pub mod metrics;
pub mod reconcile;
pub mod retry;
pub mod secrets;
pub mod settings;
mod status;
mod unfollowed;
mod watches;
pub mod words;
pub mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::channel::mpsc::unbounded;
use futures::future::join_all;
use kube::Client;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::operator::desk::Desk;
use crate::operator::events::Events;
use crate::operator::health::Health;
use crate::operator::metrics::Metrics;
use crate::operator::settings::Settings;
use crate::operator::watches::Wake;

/// How long workers have to finish their batch and give their locks back.
const FAREWELL: Duration = Duration::from_secs(7);

/// How long reconciles under way have to end.
const LAST_RECONCILES: Duration = Duration::from_secs(2);

/// What every reconcile shares.
pub struct Context {
    client: Client,
    settings: Arc<Settings>,
    desk: Desk,
    metrics: Arc<Metrics>,
    events: Events,
    wake: Wake,
    /// Whether some watch has listed its resources.
    listed: Arc<AtomicBool>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// Why the operator ended.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// No client could be made.
    #[error("no way to the API server: {0}; run in a pod, or set KUBECONFIG")]
    Client(#[from] kube::Error),
    /// The address of probes and metrics can't be served.
    #[error("can't serve probes and metrics on {address}: {error}; choose another --address")]
    Address {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
}

/// Runs by the pod's service account, or by a kubeconfig, until shutdown is asked for.
///
/// # Errors
/// What kept it from starting.
pub async fn start(settings: Settings, shutdown: CancellationToken) -> Result<(), OperatorError> {
    run(Client::try_default().await?, settings, shutdown).await
}

/// Runs by this client until shutdown is asked for.
///
/// # Errors
/// What kept it from starting.
pub async fn run(client: Client, settings: Settings, shutdown: CancellationToken) -> Result<(), OperatorError> {
    let bound = health::bind(&settings.addresses).await;
    let listener = bound.map_err(|(address, error)| OperatorError::Address { address, error })?;
    let address = listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
    let health = Health { metrics: Arc::new(Metrics::new()), ready: Arc::new(AtomicBool::new(false)) };
    let (wake, woken) = unbounded();
    let context = Arc::new(Context {
        client: client.clone(),
        events: Events::new(client.clone(), &settings.holder),
        settings: Arc::new(settings),
        desk: Desk::default(),
        metrics: Arc::clone(&health.metrics),
        wake,
        listed: Arc::clone(&health.ready),
        shutdown: shutdown.clone(),
        tasks: TaskTracker::new(),
    });
    let controllers = watches::controllers(&context, woken);
    let probes = tokio::spawn(health::serve(listener, health, shutdown.clone()));
    tracing::info!(%address, holder = %context.settings.holder, "operator started");
    let running = join_all(controllers);
    tokio::pin!(running);
    tokio::select! {
        _ = &mut running => {}
        () = shutdown.cancelled() => {
            // A reconcile may wait for an API server that does not answer; workers don't.
            let _ = tokio::time::timeout(LAST_RECONCILES, running).await;
        }
    }
    context.tasks.close();
    if tokio::time::timeout(FAREWELL, context.tasks.wait()).await.is_err() {
        tracing::warn!("some work did not end in time; its locks end by themselves");
    }
    probes.abort();
    tracing::info!("operator ended");
    Ok(())
}
