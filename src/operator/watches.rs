//! The watches: one for each namespace served, or one for all.
//!
//! Owns who is known to exist, and what follows when a resource is gone. A watch sees metadata only, so that no
//! content can keep it from going on; content is read when a resource is reconciled. Each watch stands for itself: a
//! namespace that can't be listed holds up no other.

use std::collections::BTreeMap;
use std::future::ready;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{Stream, StreamExt};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt as _};

use crate::api::v1alpha1::RedisMigration;
use crate::operator::Context;
use crate::operator::metrics::ResourceLabels;
use crate::operator::reconcile;
use crate::operator::retry::ReconcileError;
use crate::operator::settings::Namespaces;

/// What is watched of a resource.
pub(super) type Watched = PartialObjectMeta<RedisMigration>;

/// Whom a wake is meant for.
pub(super) type Wake = UnboundedSender<ObjectRef<Watched>>;

/// One controller for each namespace served; `woken` are resources that a worker reported on.
pub(super) fn controllers(
    context: &Arc<Context>,
    woken: impl Stream<Item = ObjectRef<Watched>> + Send + 'static,
) -> Vec<impl Future<Output = ()>> {
    let mut wakes = Vec::new();
    let mut running = Vec::new();
    for api in apis(context) {
        let (wake, woken) = unbounded();
        let (store, writer) = reflector::store();
        let mut population = Population::new(Arc::clone(context), wake.clone());
        let resources = watcher(api, watcher::Config::default())
            .modify(forget_what_nobody_reads)
            .reflect(writer)
            .inspect(move |event| {
                if let Ok(event) = event {
                    population.follow(event);
                }
            })
            .applied_objects();

        let stop = context.shutdown.clone();
        let controller = Controller::for_stream(resources, store.clone())
            .reconcile_on(woken)
            .graceful_shutdown_on(async move { stop.cancelled().await })
            .run(reconcile::reconcile, reconcile::on_error, Arc::clone(context));
        wakes.push((wake, store));
        let mut told = None;
        running.push(controller.for_each(move |result| {
            if let Err(error) = result {
                tell(&error, &mut told);
            }
            ready(())
        }));
    }
    context.tasks.spawn(forward(woken.take_until(context.shutdown.clone().cancelled_owned()), wakes));
    running
}

/// One line a change; what a reconcile met was told by it.
fn tell(error: &controller::Error<ReconcileError, watcher::Error>, told: &mut Option<String>) {
    match error {
        controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_) => {
            tracing::debug!(%error, "a reconcile ended early");
        }
        controller::Error::QueueError(_) | controller::Error::RunnerError(_) => {
            let text = error.to_string();
            if told.as_ref() != Some(&text) {
                tracing::warn!(%error, "watch; are the resource definition and the rights installed?");
                *told = Some(text);
            }
        }
    }
}

fn apis(context: &Context) -> Vec<Api<Watched>> {
    let client = || context.client.clone();
    match &context.settings.namespaces {
        Namespaces::All => vec![Api::all(client())],
        Namespaces::Named(names) => names.iter().map(|name| Api::namespaced(client(), name)).collect(),
    }
}

/// The API server sends more metadata than names and versions, and all of it would stay in memory.
fn forget_what_nobody_reads(resource: &mut Watched) {
    resource.metadata.managed_fields = None;
    resource.metadata.annotations = None;
    resource.metadata.labels = None;
}

/// Hands each wake to the controller that knows the resource.
async fn forward(woken: impl Stream<Item = ObjectRef<Watched>>, wakes: Vec<(Wake, Store<Watched>)>) {
    let mut woken = std::pin::pin!(woken);
    while let Some(reference) = woken.next().await {
        for (wake, store) in &wakes {
            if store.get(&reference).is_some() {
                let _ = wake.unbounded_send(reference.clone());
            }
        }
    }
}

/// The resources that one watch knows, by UID.
struct Population {
    context: Arc<Context>,
    wake: Wake,
    living: BTreeMap<String, ObjectRef<Watched>>,
    /// While everything is listed anew: who has been listed so far.
    listed: BTreeMap<String, ObjectRef<Watched>>,
}

impl Population {
    fn new(context: Arc<Context>, wake: Wake) -> Self {
        Self { context, wake, living: BTreeMap::new(), listed: BTreeMap::new() }
    }

    fn follow(&mut self, event: &Event<Watched>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(resource) => {
                if let Some(uid) = resource.uid() {
                    self.context.desk.admit(&uid);
                    self.listed.insert(uid, ObjectRef::from_obj(resource));
                }
            }
            Event::InitDone => {
                let before = mem::replace(&mut self.living, mem::take(&mut self.listed));
                for (uid, resource) in &before {
                    if !self.living.contains_key(uid) {
                        self.dismiss(uid, resource);
                    }
                }
                // The controller knows them only now: what it was told of them while they were listed is lost.
                for (_, resource) in self.living.iter().filter(|(uid, _)| !before.contains_key(*uid)) {
                    let _ = self.wake.unbounded_send(resource.clone());
                }
                self.context.listed.store(true, Ordering::Relaxed);
            }
            Event::Apply(resource) => {
                if let Some(uid) = resource.uid() {
                    self.context.desk.admit(&uid);
                    self.living.insert(uid, ObjectRef::from_obj(resource));
                }
            }
            // Without a finalizer nobody waits for us: the work is stopped as soon as this is heard.
            Event::Delete(resource) => {
                if let Some(uid) = resource.uid() {
                    self.living.remove(&uid);
                    self.dismiss(&uid, &ObjectRef::from_obj(resource));
                }
            }
        }
    }

    fn dismiss(&self, uid: &str, gone: &ObjectRef<Watched>) {
        self.context.desk.dismiss(uid);
        // One that was made anew under the same name goes on being told of.
        if !self.living.values().any(|living| living == gone) {
            let namespace = gone.namespace.as_deref().unwrap_or_default();
            self.context.metrics.forget(&ResourceLabels::new(namespace, &gone.name));
        }
    }
}

/// The resource as metrics name it.
pub(super) fn labels(resource: &Watched) -> ResourceLabels {
    ResourceLabels::new(&resource.namespace().unwrap_or_default(), &resource.name_any())
}
