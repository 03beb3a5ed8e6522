//! Drives the product's engine over a Redis of the harness, and knows what must come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use outpost_migrate_redis::engine::assignment::Assignment;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::engine::journal::{self, Run};
use outpost_migrate_redis::engine::lock::{Lease, LockRequest, Taken};
use outpost_migrate_redis::engine::stop::Stop;
use outpost_migrate_redis::engine::verify::Proof;
use outpost_migrate_redis::engine::{apply, cleanup, plan, verify};
use outpost_migrate_redis::keyspace::endpoint::{ClientCertificate, RedisEndpoint, Tls};
use outpost_migrate_redis::keyspace::{Keyspace as Connected, Writer};
use outpost_migrate_redis::migrations::{KeyLayout, Parameters, Registry, Scope};
use outpost_migrate_redis::model::acceptance::AcceptedFindings;
use outpost_migrate_redis::model::plan::{Plan, Terms};
use outpost_migrate_redis::model::policy::{ConflictPolicy, DivergedPolicy, Limits, MinReplicas};
use outpost_migrate_redis::model::progress::Progress;
use outpost_migrate_redis::model::report::{ApplyReport, CleanupReport, VerifyReport};
use outpost_migrate_redis::model::time::UnixMillis;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::expectation::expected_target;
use super::generator::{Generator, noise, now_ms, unmigrated};
use super::load::load;
use super::redis_client::{Access, Endpoint, install_crypto};
use super::snapshot::{present, snapshot};
use super::value::{Bytes, Entry, Keyspace, Snapshot};
use super::wait::eventually;

/// The mark, the run hash and the three locks.
pub const MARK: &[u8] = b"outpost:migration:001_hash_tags";
pub const RUN: &[u8] = b"{outpost:migration:001_hash_tags}:run";
pub const LOCKS: [&str; 3] = ["outpost:migration:lock", ".outpost:migration:lock", ".outpost:migration_lock"];

/// The engine, told everything.
pub struct Bench {
    pub redis: Endpoint,
    pub endpoint: RedisEndpoint,
    pub assignment: Assignment,
    /// How long a lock stands unrenewed.
    pub life: Duration,
}

impl Bench {
    pub fn new(redis: &Endpoint) -> Self {
        Self::with_layout(redis, KeyLayout::Outpost)
    }

    pub fn with_layout(redis: &Endpoint, key_layout: KeyLayout) -> Self {
        let registry = Registry::outpost();
        let parameters = Parameters { key_layout };
        let assignment = Assignment {
            migration: registry.get("001_hash_tags").expect("a known migration"),
            registry,
            scope: Scope { deployment_id: None, parameters },
            terms: Terms {
                migration: "001_hash_tags".to_owned(),
                redis: format!("{}:{}/0", redis.host, redis.port),
                deployment_id: String::new(),
                parameters: parameters.to_string(),
                conflict_policy: "Fail".to_owned(),
                diverged_policy: "Keep".to_owned(),
                accepted: AcceptedFindings::default(),
                save: false,
            },
            conflict_policy: ConflictPolicy::Fail,
            diverged_policy: DivergedPolicy::Keep,
            min_replicas: MinReplicas::OneIfAny,
        };
        let endpoint = product_endpoint(redis);
        Self { redis: redis.clone(), endpoint, assignment, life: Duration::from_secs(6) }
    }

    pub fn conflicts(mut self, policy: ConflictPolicy) -> Self {
        self.assignment.conflict_policy = policy;
        self
    }

    pub fn diverged(mut self, policy: DivergedPolicy) -> Self {
        self.assignment.diverged_policy = policy;
        self
    }

    /// The engine, told of findings that a person accepted.
    pub fn accepting(mut self, names: &[&str]) -> Self {
        let accepted = AcceptedFindings::parse(names.iter().copied()).expect("names of acceptable findings");
        self.assignment = self.assignment.accepting(&accepted);
        self
    }

    /// The engine, told to ask for snapshots.
    pub fn saving(mut self) -> Self {
        self.assignment.terms.save = true;
        self
    }

    pub fn min_replicas(mut self, min: MinReplicas) -> Self {
        self.assignment.min_replicas = min;
        self
    }

    /// The engine, told of another migration.
    pub fn migration(mut self, name: &str) -> Self {
        self.assignment.migration = self.assignment.registry.get(name).expect("a known migration");
        name.clone_into(&mut self.assignment.terms.migration);
        self
    }

    /// Every key carries a deployment id.
    pub fn deployment(mut self, id: Option<&str>) -> Self {
        self.assignment.scope.deployment_id = id.map(str::to_owned);
        id.unwrap_or_default().clone_into(&mut self.assignment.terms.deployment_id);
        self
    }

    pub async fn keyspace(&self) -> Connected {
        Connected::connect(self.endpoint.clone(), "test").await.expect("a connection")
    }

    pub fn lock_request(&self) -> LockRequest {
        LockRequest {
            keys: self.assignment.state_keys().locks(),
            holder: "test".to_owned(),
            migration: self.assignment.terms.migration.clone(),
            operation: "apply".to_owned(),
            life: self.life,
            resource_uid: None,
            now: now(),
        }
    }

    /// Takes the lock; panics if somebody has it.
    pub async fn hold(&self) -> Held<'_> {
        match Lease::take(&self.endpoint, self.lock_request()).await.expect("an answer about the lock") {
            Taken::Ours(lease) => {
                let writer = lease.writer().await.expect("a writer");
                Held { bench: self, lease, writer }
            }
            Taken::Held(holder) => panic!("the lock is held by {holder}"),
        }
    }

    /// Plan without the lock.
    pub async fn plan(&self) -> Result<Plan, Stop> {
        plan::plan(&self.keyspace().await, &self.assignment, &Control::unattended()).await
    }

    /// Compare without the lock.
    pub async fn compare(&self) -> Result<VerifyReport, Stop> {
        verify::compare(&self.keyspace().await, &self.assignment, &Control::unattended(), None).await
    }

    /// From plan to mark in one hold of the lock.
    pub async fn migrate(&self, control: &Control) -> Result<Walk, Stop> {
        let held = self.hold().await;
        let result = held.migrate(control).await;
        held.release().await;
        result
    }

    /// Plan, apply and prove, without a mark.
    pub async fn try_prove(&self, control: &Control) -> Result<ApplyReport, Stop> {
        let held = self.hold().await;
        let result = async {
            let (plan, run) = held.begin(control).await?;
            let report = held.apply(control, &plan, &run).await?;
            held.prove(control, &plan, &run).await.map(|_| report)
        }
        .await;
        held.release().await;
        result
    }

    pub async fn cleanup(&self, control: &Control) -> Result<CleanupReport, Stop> {
        let held = self.hold().await;
        let result = held.cleanup(control).await;
        held.release().await;
        result
    }

    /// Everything but state, and state.
    pub async fn snapshot(&self) -> (Keyspace, Keyspace) {
        let all = snapshot(&self.redis).await;
        (all.filter(|key, _| !is_state(key)), all.filter(|key, _| is_state(key)))
    }

    pub async fn mark(&self) -> Option<Snapshot> {
        self.snapshot().await.1.get(MARK).cloned()
    }

    pub async fn assert_no_mark(&self) {
        assert!(self.mark().await.is_none(), "a mark without a proof");
    }
}

/// What one run from plan to mark reported.
#[derive(Debug)]
pub struct Walk {
    pub plan: Plan,
    pub apply: ApplyReport,
    pub verify: VerifyReport,
}

/// The engine in one hold of the lock.
pub struct Held<'a> {
    pub bench: &'a Bench,
    pub lease: Lease,
    pub writer: Writer,
}

impl Held<'_> {
    pub async fn begin(&self, control: &Control) -> Result<(Plan, Run), Stop> {
        let plan = plan::plan(&self.writer, &self.bench.assignment, control).await?;
        let run = self.begin_run(&plan).await?;
        Ok((plan, run))
    }

    pub async fn begin_run(&self, plan: &Plan) -> Result<Run, Stop> {
        journal::begin_run(&self.writer, &self.bench.assignment, self.lease.token(), &plan.seen, now()).await
    }

    pub async fn apply(&self, control: &Control, plan: &Plan, run: &Run) -> Result<ApplyReport, Stop> {
        apply::apply(&self.writer, &self.bench.assignment, control, plan, run).await
    }

    pub async fn prove(&self, control: &Control, plan: &Plan, run: &Run) -> Result<Proof, Stop> {
        verify::prove(&self.writer, &self.bench.assignment, control, plan, run).await
    }

    pub async fn mark(&self, proof: Proof) -> Result<VerifyReport, Stop> {
        verify::mark(&self.writer, &self.bench.assignment, proof, now()).await
    }

    /// From plan to mark; the pace of `control` holds for the apply alone.
    pub async fn migrate(&self, control: &Control) -> Result<Walk, Stop> {
        let mut unpaced = Control::unattended();
        unpaced.coverage_patience = control.coverage_patience;
        let (plan, run) = self.begin(&unpaced).await?;
        let apply = self.apply(control, &plan, &run).await?;
        let proof = self.prove(&unpaced, &plan, &run).await?;
        let verify = self.mark(proof).await?;
        Ok(Walk { plan, apply, verify })
    }

    pub async fn cleanup(&self, control: &Control) -> Result<CleanupReport, Stop> {
        cleanup::cleanup(&self.writer, &self.bench.assignment, control, None, now()).await
    }

    pub async fn release(self) {
        self.lease.release().await;
    }
}

/// A control with its other ends.
pub struct Reins {
    pub control: Control,
    pub stop: CancellationToken,
    pub progress: watch::Receiver<Option<Progress>>,
    limits: watch::Sender<Limits>,
}

impl Reins {
    /// At most so many keys a second.
    pub fn paced(keys_per_second: u32) -> Self {
        Self::new(Limits { keys_per_second: Some(keys_per_second), ..Limits::default() })
    }

    pub fn new(limits: Limits) -> Self {
        Self::limited(watch::channel(limits).0)
    }

    /// Limits that change on the way.
    pub fn limited(limits: watch::Sender<Limits>) -> Self {
        let stop = CancellationToken::new();
        let (sender, progress) = watch::channel(None);
        Self { control: Control::limited(stop.clone(), limits.subscribe(), sender), stop, progress, limits }
    }

    /// Changes the pace on the way; none: as fast as it goes. A run slows down for a fault that must not come too late,
    /// however busy the machine is.
    pub fn pace(&self, keys_per_second: Option<u32>) {
        self.limits.send_modify(|limits| limits.keys_per_second = keys_per_second);
    }

    pub fn patience(mut self, patience: Duration) -> Self {
        self.control.coverage_patience = patience;
        self
    }
}

/// What was loaded, and what must come of it.
pub struct Expected {
    /// Everything that was loaded.
    pub originals: Keyspace,
    /// Targets as they must be.
    pub targets: Keyspace,
    /// Each source with its target.
    pub pairs: BTreeMap<Bytes, Bytes>,
}

impl Expected {
    pub fn of(entries: Vec<Entry>, layout: KeyLayout) -> Self {
        let mut pairs = BTreeMap::new();
        let mut targets = Vec::new();
        for entry in &entries {
            let Some(target) = expected_target(&entry.key, &entry.value) else { continue };
            let target = if layout == KeyLayout::TenantTag { in_tenant_tag(&target) } else { target };
            pairs.insert(entry.key.clone(), target.clone());
            targets.push(Entry { key: target, ..entry.clone() });
        }
        Self { originals: entries.into_iter().collect(), targets: targets.into_iter().collect(), pairs }
    }

    /// Loads a generated keyspace with noise and unmigrated keys.
    pub async fn load(redis: &Endpoint, tenants: usize) -> Self {
        Self::load_for(redis, tenants, KeyLayout::Outpost).await
    }

    pub async fn load_for(redis: &Endpoint, tenants: usize, layout: KeyLayout) -> Self {
        let generator = Generator::new(42, tenants);
        let others = noise(generator.now_ms).into_iter().chain(unmigrated().into_iter().map(|one| one.entry));
        Self::load_entries(redis, generator.entries().chain(others).collect(), layout).await
    }

    pub async fn load_entries(redis: &Endpoint, entries: Vec<Entry>, layout: KeyLayout) -> Self {
        load(redis, entries.iter().cloned()).await;
        Self::of(entries, layout)
    }

    pub fn sources(&self) -> u64 {
        self.pairs.len() as u64
    }

    /// Originals and targets together: how it must be from the mark to cleanup.
    pub fn migrated(&self) -> Keyspace {
        entries(&self.originals).chain(entries(&self.targets)).collect()
    }

    /// Targets and whatever is no source: how it must be after cleanup.
    pub fn cleaned_up(&self) -> Keyspace {
        let kept = self.originals.filter(|key, _| !self.pairs.contains_key(key));
        entries(&kept).chain(entries(&self.targets)).collect()
    }

    /// Targets that exist, whatever they hold.
    pub async fn targets_there(&self, redis: &Endpoint) -> usize {
        let there = snapshot(redis).await;
        self.targets.keys().filter(|target| there.contains_key(*target)).count()
    }

    /// Waits until a good part of the targets is there; panics if none is missing any more.
    pub async fn wait_halfway(&self, redis: &Endpoint) {
        let enough = self.targets.len() / 5;
        eventually(Duration::from_secs(60), "a part of the targets is there", async || {
            let there = present(redis, self.targets.keys().map(AsRef::as_ref)).await;
            (there >= enough).then_some(())
        })
        .await;
        self.assert_halfway(redis).await;
    }

    /// The fault hit: some targets are there, and some are not.
    pub async fn assert_halfway(&self, redis: &Endpoint) {
        let (there, all) = (self.targets_there(redis).await, self.targets.len());
        assert!(0 < there && there < all, "the fault did not hit: {there} of {all} targets are there");
    }

    /// Everything that must hold between mark and cleanup.
    pub async fn assert_migrated(&self, bench: &Bench) {
        let (data, state) = bench.snapshot().await;
        self.migrated().assert_same(&data, "migrated");
        assert_settled(&state);
    }
}

/// A settled state: a stamped mark, a run hash without a run that ends by itself, nothing else.
#[track_caller]
pub fn assert_settled(state: &Keyspace) {
    let keys: BTreeSet<&[u8]> = state.keys().map(Vec::as_slice).collect();
    assert_eq!(keys, BTreeSet::from([MARK, RUN]), "state keys");
    let (mark, run) = (&state[MARK], &state[RUN]);
    assert_eq!(mark.value.field("status"), Some(&b"applied"[..]));
    assert!(mark.value.field("verified_at").is_some(), "the mark is stamped");
    assert_eq!(mark.expiry_ms, None, "the mark stays");
    for field in ["token", "started_at", "targets_before", "sourceless_before"] {
        assert!(run.value.field(field).is_none(), "the run hash keeps {field}");
    }
    let day = 24 * 3600 * 1000;
    assert!(run.expiry_ms.is_some_and(|at| at <= now_ms() + day), "the run hash ends by itself");
}

/// No lock and no staging key.
#[track_caller]
pub fn assert_no_lock(state: &Keyspace) {
    let left: Vec<_> =
        state.keys().filter(|key| *key != MARK && *key != RUN).map(|key| super::value::shown(key)).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

pub fn entries(keyspace: &Keyspace) -> impl Iterator<Item = Entry> {
    keyspace.iter().map(|(key, held)| Entry { key: key.clone(), value: held.value.clone(), expiry_ms: held.expiry_ms })
}

/// Keys of marks, runs, locks and staging.
pub fn is_state(key: &[u8]) -> bool {
    let name = b"outpost:migration";
    key.windows(name.len()).any(|window| window == name)
}

/// `tenant:{id}:tenant` → `{tenant:id}`, `tenant:{id}:x` → `{tenant:id}:x`.
fn in_tenant_tag(target: &[u8]) -> Bytes {
    let braced = target.strip_prefix(b"tenant:{").expect("a target");
    let close = [&b"}:destination:"[..], b"}:destinations", b"}:tenant"]
        .iter()
        .find_map(|end| braced.windows(end.len()).rposition(|window| window == *end))
        .expect("a target's end");
    let (id, suffix) = (&braced[..close], &braced[close + 1..]);
    let suffix = if suffix == b":tenant" { &b""[..] } else { suffix };
    [b"{tenant:", id, b"}", suffix].concat()
}

pub fn now() -> UnixMillis {
    UnixMillis(now_ms())
}

/// The harness' way in, in the product's words.
pub fn product_endpoint(redis: &Endpoint) -> RedisEndpoint {
    let Access { username, password, tls } = &redis.access;
    let mut endpoint = RedisEndpoint::new(redis.host.clone(), redis.port, redis.cluster);
    endpoint.username.clone_from(username);
    endpoint.password = password.clone().map(Into::into);
    endpoint.tls = tls.as_ref().map(|certificates| {
        install_crypto();
        let read = |path| fs::read(path).expect("a certificate file");
        let key = fs::read_to_string(&certificates.client_key).expect("a key file");
        Tls {
            ca_pem: Some(read(&certificates.ca)),
            client: Some(ClientCertificate { certificate_pem: read(&certificates.client_cert), key_pem: key.into() }),
            ..Tls::default()
        }
    });
    endpoint
}

/// Writes a field of a hash, wherever its slot is.
pub async fn hset(redis: &Endpoint, key: &[u8], field: &str, value: &str) {
    run_on_owner(redis, key, redis::cmd("HSET").arg(key).arg(field).arg(value)).await;
}

/// Runs a command on the owner of a key's slot.
pub async fn run_on_owner(redis: &Endpoint, key: &[u8], command: &redis::Cmd) -> redis::Value {
    let slot = super::redis_client::slot(key);
    let mut owner = redis.primaries().await.into_iter().find(|primary| primary.owns(slot)).expect("an owner");
    command.query_async(&mut owner.connection).await.expect("a command of the test")
}
