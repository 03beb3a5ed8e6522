//! What every command starts from: the configuration, the migrations, the way to Redis and to the lock.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::failure::{ExitCode, Failure};
use crate::cli::screen::{self, Screen};
use crate::config::{Configuration, ConfigurationFlags, Environment, Folders};
use crate::engine::lock::{Lease, LockRequest, Taken};
use crate::engine::survey::{self, Standing};
use crate::engine::{Assignment, Control};
use crate::keyspace::{Keyspace, RedisEndpoint};
use crate::migrations::{Migration, Registry};
use crate::model::acceptance::{AcceptedFindings, NotAcceptable};
use crate::model::plan::Terms;
use crate::model::policy::{DivergedPolicy, LONGEST_LATENCY, Limits, MinReplicas, SHORTEST_LATENCY};
use crate::model::progress::Progress;
use crate::model::time::UnixMillis;

/// How long the lock of a command stands unrenewed: the safety net that the earlier tool documents.
const LOCK_LIFE: Duration = Duration::from_secs(3600);

/// How our connections are named in `CLIENT LIST`.
pub(super) const CONNECTION_NAME: &str = "outpost-migrate:cli";

/// How fast a command may work.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Pace {
    /// Work on at most this many entries a second. Default: no limit
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    keys_per_second: Option<u32>,
    /// Slow down when a round trip to a primary takes longer than this, as 10ms. Default: no limit
    #[arg(long, value_name = "DURATION", value_parser = latency)]
    max_latency: Option<Duration>,
}

/// Findings that are accepted by name.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Acceptance {
    /// Go on although this was found; each finding that may be accepted says so. May be given more than once
    #[arg(long = "accept-finding", value_name = "FINDING", value_parser = acceptable)]
    names: Vec<AcceptedFindings>,
}

impl Acceptance {
    /// The findings that were named.
    pub(super) fn accepted(&self) -> AcceptedFindings {
        self.names.iter().cloned().collect()
    }
}

fn acceptable(name: &str) -> Result<AcceptedFindings, NotAcceptable> {
    AcceptedFindings::parse([name])
}

/// A round trip that can be kept to.
fn latency(text: &str) -> Result<Duration, String> {
    let given = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if given >= SHORTEST_LATENCY && given <= LONGEST_LATENCY { Ok(given) } else { Err("give 1ms to 10s".to_owned()) }
}

/// What every command starts from.
pub(super) struct Desk {
    pub(super) configuration: Configuration,
    pub(super) registry: Registry,
    pub(super) screen: Screen,
    pub(super) stop: CancellationToken,
}

impl Desk {
    /// Reads the configuration; shows it if asked to.
    pub(super) fn read(
        flags: &ConfigurationFlags,
        verbose: bool,
        screen: Screen,
        stop: CancellationToken,
    ) -> Result<Self, Failure> {
        let configuration = Configuration::read(flags, &Environment::read(std::env::var_os)?, &Folders::default())?;
        if verbose {
            screen::say(&configuration.provenance);
        }
        Ok(Self { configuration, registry: Registry::outpost(), screen, stop })
    }

    /// Connects for reading.
    pub(super) async fn connect(&self) -> Result<Keyspace, Failure> {
        Ok(Keyspace::connect(self.configuration.endpoint.clone(), CONNECTION_NAME).await?)
    }

    /// The migration of that name.
    pub(super) fn migration(&self, name: &str) -> Result<Arc<dyn Migration>, Failure> {
        self.registry.get(name).ok_or_else(|| {
            let known: Vec<_> = self.registry.names().collect();
            let message = format!("there is no migration {name:?}: the known ones are {}", known.join(", "));
            Failure::new(ExitCode::Usage, message)
        })
    }

    /// A migration with every choice made; originals of diverged targets stay unless `diverged` says otherwise.
    pub(super) fn assignment(&self, migration: &Arc<dyn Migration>, diverged: DivergedPolicy) -> Assignment {
        let Configuration { scope, conflict_policy, endpoint, .. } = &self.configuration;
        Assignment {
            migration: Arc::clone(migration),
            registry: self.registry.clone(),
            scope: scope.clone(),
            terms: Terms {
                migration: migration.name().to_owned(),
                redis: identity(endpoint),
                deployment_id: scope.deployment_id.clone().unwrap_or_default(),
                parameters: scope.parameters.to_string(),
                conflict_policy: format!("{conflict_policy:?}"),
                diverged_policy: format!("{diverged:?}"),
                accepted: AcceptedFindings::default(),
            },
            conflict_policy: *conflict_policy,
            diverged_policy: diverged,
            min_replicas: MinReplicas::OneIfAny,
        }
    }

    /// What Redis says about each migration.
    pub(super) async fn standings(&self, keyspace: &Keyspace) -> Result<Vec<Standing>, Failure> {
        Ok(survey::standings(keyspace, &self.registry, &self.configuration.scope).await?)
    }

    /// The parameters that a mark must speak of.
    pub(super) fn parameters(&self) -> String {
        self.configuration.scope.parameters.to_string()
    }

    /// Takes the lock, or says who has it.
    pub(super) async fn take_lock(&self, assignment: &Assignment, operation: &str) -> Result<Lease, Failure> {
        let request = LockRequest {
            keys: assignment.state_keys().locks(),
            holder: holder(),
            migration: assignment.migration.name().to_owned(),
            operation: operation.to_owned(),
            life: LOCK_LIFE,
            resource_uid: None,
            now: now(),
        };
        match Lease::take(&self.configuration.endpoint, request).await? {
            Taken::Ours(lease) => Ok(lease),
            Taken::Held(holder) => Err(Failure::locked(&holder)),
        }
    }

    /// What a step is controlled by, and its progress.
    pub(super) fn control(&self, pace: Pace) -> (Control, watch::Receiver<Option<Progress>>) {
        let (sender, progress) = watch::channel(None);
        let limits = Limits { keys_per_second: pace.keys_per_second, max_latency: pace.max_latency };
        (Control::new(self.stop.clone(), limits, sender), progress)
    }
}

/// Now.
pub(super) fn now() -> UnixMillis {
    UnixMillis(jiff::Timestamp::now().as_millisecond())
}

/// Who we are in a lock: the pod, or host and process id.
pub(super) fn holder() -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    std::env::var("POD_NAME").unwrap_or_else(|_| format!("{host}/{}", std::process::id()))
}

/// The Redis as text that says which is meant, as a resource's plan hash has it.
fn identity(endpoint: &RedisEndpoint) -> String {
    let database = if endpoint.cluster { "cluster".to_owned() } else { endpoint.database.to_string() };
    format!("{endpoint}/{database}")
}
