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
pub mod secrets;
pub mod settings;
mod status;
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
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::v1alpha1::RedisMigration;
use crate::operator::desk::Desk;
use crate::operator::events::Events;
use crate::operator::health::Health;
use crate::operator::metrics::{Metrics, ResourceLabels};
use crate::operator::settings::Settings;

/// How long workers have to finish their batch and give their locks back.
const FAREWELL: Duration = Duration::from_secs(7);

/// How long reconciles under way have to end.
const LAST_RECONCILES: Duration = Duration::from_secs(2);

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
    sweep.abort();
    probes.abort();
    tracing::info!("operator ended");
    Ok(())
}

/// The resources of one watch, and whether they were listed once.
#[derive(Clone)]
struct Watched {
    store: Store<RedisMigration>,
    listed: watch::Receiver<bool>,
}

/// One controller for each watched namespace, or one for all.
fn controllers(
    context: &Arc<Context>,
    woken: impl Stream<Item = ObjectRef<RedisMigration>> + Send + 'static,
) -> (Vec<impl Future<Output = ()>>, Vec<Watched>) {
    let namespaces = &context.settings.namespaces;
    let apis: Vec<Api<RedisMigration>> = if namespaces.is_empty() {
        vec![Api::all(context.client.clone())]
    } else {
        namespaces.iter().map(|namespace| Api::namespaced(context.client.clone(), namespace)).collect()
    };
    let mut wakes = Vec::new();
    let mut watched = Vec::new();
    let mut running = Vec::new();
    for api in apis {
        let (sender, receiver) = unbounded();
        wakes.push(sender);
        let stop = context.shutdown.clone();
        let (store, writer) = reflector::store();
        let (listing, listed) = watch::channel(false);
        // Not `Store::wait_until_ready`: it wakes one waiter only, and the controller is one already.
        let resources = watcher(api, watcher::Config::default())
            .reflect(writer)
            .inspect(move |event| {
                if matches!(event, Ok(watcher::Event::InitDone)) {
                    listing.send_replace(true);
                }
            })
            .applied_objects();
        let controller = Controller::for_stream(resources, store.clone())
            .reconcile_on(receiver)
            .graceful_shutdown_on(async move { stop.cancelled().await });
        watched.push(Watched { store, listed });
        let context = Arc::clone(context);
        running.push(controller.run(reconcile::reconcile, reconcile::on_error, context).for_each(|result| async {
            if let Err(error) = result {
                tracing::warn!(%error, "watch; are the resource definition and the rights installed?");
            }
        }));
    }
    context.tasks.spawn(forward(woken, wakes, watched.clone(), context.shutdown.clone()));
    (running, watched)
}

/// Hands each wake to the controller that knows the resource.
async fn forward(
    woken: impl Stream<Item = ObjectRef<RedisMigration>>,
    wakes: Vec<UnboundedSender<ObjectRef<RedisMigration>>>,
    watched: Vec<Watched>,
    shutdown: CancellationToken,
) {
    let mut woken = std::pin::pin!(woken.take_until(shutdown.cancelled_owned()));
    while let Some(reference) = woken.next().await {
        for (wake, watched) in wakes.iter().zip(&watched) {
            if watched.store.get(&reference).is_some() {
                let _ = wake.unbounded_send(reference.clone());
            }
        }
    }
}

/// Without a finalizer nobody tells us that a resource is gone: its work is stopped once it is missed.
async fn sweep(context: Arc<Context>, mut watched: Vec<Watched>, ready: Arc<AtomicBool>) {
    for one in &mut watched {
        if one.listed.wait_for(|listed| *listed).await.is_err() {
            return;
        }
    }
    ready.store(true, Ordering::Relaxed);
    let mut known: HashSet<(String, String, String)> = HashSet::new();
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tick.tick().await;
        let living: HashSet<(String, String, String)> = watched
            .iter()
            .flat_map(|one| one.store.state())
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
