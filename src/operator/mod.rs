//! The Kubernetes face: watches resources, decides, lets workers work, writes status.
//!
//! Owns everything that speaks to the API server. Redis is the worker's business, and what a migration
//! is, the engine's.

pub mod clock;
pub mod decide;
pub mod desk;
pub mod events;
pub mod health;
pub mod metrics;
pub mod reconcile;
pub mod secrets;
pub mod settings;
pub mod words;
pub mod worker;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::future::join_all;
use futures::{Stream, StreamExt};
use kube::runtime::controller::Controller;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::v1alpha1::RedisMigration;
use crate::operator::desk::Desk;
use crate::operator::events::Events;
use crate::operator::health::Health;
use crate::operator::metrics::{Metrics, ResourceLabels};
use crate::operator::settings::Settings;

/// How long workers have to finish their batch and give their locks back.
const FAREWELL: Duration = Duration::from_secs(8);

/// How often work of resources that are gone is looked for.
const SWEEP: Duration = Duration::from_secs(2);

/// What every reconcile shares.
pub struct Context {
    client: Client,
    settings: Arc<Settings>,
    desk: Desk,
    metrics: Arc<Metrics>,
    events: Events,
    wake: UnboundedSender<ObjectRef<RedisMigration>>,
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
    let address = settings.address;
    let listener = health::bind(address).await.map_err(|error| OperatorError::Address { address, error })?;
    let health = Health { metrics: Arc::new(Metrics::new()), ready: Arc::new(AtomicBool::new(false)) };
    let (wake, woken) = unbounded();
    let context = Arc::new(Context {
        client: client.clone(),
        events: Events::new(client.clone(), &settings.holder),
        settings: Arc::new(settings),
        desk: Desk::default(),
        metrics: Arc::clone(&health.metrics),
        wake,
        shutdown: shutdown.clone(),
        tasks: TaskTracker::new(),
    });
    let (controllers, stores) = controllers(&context, woken);
    let sweep = tokio::spawn(sweep(Arc::clone(&context), stores, Arc::clone(&health.ready)));
    let probes = tokio::spawn(health::serve(listener, health, shutdown.clone()));
    tracing::info!(%address, holder = %context.settings.holder, "operator started");
    let farewell = async {
        shutdown.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    let work = async {
        join_all(controllers).await;
        context.tasks.close();
        context.tasks.wait().await;
    };
    tokio::select! {
        () = work => {}
        () = farewell => tracing::warn!("some work did not end in time; its locks end by themselves"),
    }
    sweep.abort();
    probes.abort();
    tracing::info!("operator ended");
    Ok(())
}

type Stores = Vec<Store<RedisMigration>>;

/// One controller for each watched namespace, or one for all.
fn controllers(
    context: &Arc<Context>,
    woken: impl Stream<Item = ObjectRef<RedisMigration>> + Send + 'static,
) -> (Vec<impl Future<Output = ()>>, Stores) {
    let namespaces = &context.settings.namespaces;
    let apis: Vec<Api<RedisMigration>> = if namespaces.is_empty() {
        vec![Api::all(context.client.clone())]
    } else {
        namespaces.iter().map(|namespace| Api::namespaced(context.client.clone(), namespace)).collect()
    };
    let mut wakes = Vec::new();
    let mut stores = Vec::new();
    let mut running = Vec::new();
    for api in apis {
        let (sender, receiver) = unbounded();
        wakes.push(sender);
        let stop = context.shutdown.clone();
        let controller = Controller::new(api, watcher::Config::default())
            .reconcile_on(receiver)
            .graceful_shutdown_on(async move { stop.cancelled().await });
        stores.push(controller.store());
        let context = Arc::clone(context);
        running.push(controller.run(reconcile::reconcile, reconcile::on_error, context).for_each(|result| async {
            if let Err(error) = result {
                tracing::debug!(%error, "controller");
            }
        }));
    }
    context.tasks.spawn(forward(woken, wakes, stores.clone(), context.shutdown.clone()));
    (running, stores)
}

/// Hands each wake to the controller that knows the resource.
async fn forward(
    woken: impl Stream<Item = ObjectRef<RedisMigration>>,
    wakes: Vec<UnboundedSender<ObjectRef<RedisMigration>>>,
    stores: Stores,
    shutdown: CancellationToken,
) {
    let mut woken = std::pin::pin!(woken.take_until(shutdown.cancelled_owned()));
    while let Some(reference) = woken.next().await {
        for (wake, store) in wakes.iter().zip(&stores) {
            if store.get(&reference).is_some() {
                let _ = wake.unbounded_send(reference.clone());
            }
        }
    }
}

/// Without a finalizer nobody tells us that a resource is gone: its work is stopped once it is missed.
async fn sweep(context: Arc<Context>, stores: Stores, ready: Arc<AtomicBool>) {
    for store in &stores {
        if store.wait_until_ready().await.is_err() {
            return;
        }
    }
    ready.store(true, Ordering::Relaxed);
    let mut known: HashSet<(String, String, String)> = HashSet::new();
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tick.tick().await;
        let living: HashSet<(String, String, String)> = stores
            .iter()
            .flat_map(Store::state)
            .filter_map(|resource| {
                Some((resource.uid()?, resource.namespace().unwrap_or_default(), resource.name_any()))
            })
            .collect();
        for (_, namespace, name) in known.difference(&living) {
            context.metrics.forget(&ResourceLabels::new(namespace, name));
        }
        context.desk.keep_only(&living.iter().map(|(uid, _, _)| uid.clone()).collect());
        known = living;
    }
}
