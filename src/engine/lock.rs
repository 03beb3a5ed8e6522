//! The lock that keeps two tools from working on one keyspace, and the lease that holds it.
//!
//! Owns the lock's value, taking all of its keys in order, renewal, release, and closing the
//! connections of earlier holders. Whoever holds a [`Lease`] may make a [`Writer`]; nobody else can.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::stop::Stop;
use crate::keyspace::closing::Unclosed;
use crate::keyspace::lease::{HeldKey, HeldLock, LeaseClock, Moment};
use crate::keyspace::{Fault, FaultClass, Keyspace, RedisEndpoint, Writer};
use crate::model::finding::{Finding, FindingCode};
use crate::model::key::{RedisKey, escape};
use crate::model::time::UnixMillis;

/// Who asks for the lock, and for how long it may stand unrenewed.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// Every key of the lock, in the order in which they are taken.
    pub keys: Vec<RedisKey>,
    /// Pod name, or host and process id.
    pub holder: String,
    /// Migration that is worked on.
    pub migration: String,
    /// What is done with it.
    pub operation: String,
    /// How long the lock stands unless renewed.
    pub life: Duration,
    /// The resource on whose behalf, if any.
    pub resource_uid: Option<String>,
    /// Now.
    pub now: UnixMillis,
}

/// The lock's value, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LockValue {
    holder: String,
    migration: String,
    operation: String,
    token: String,
    started_at: String,
    lease_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_uid: Option<String>,
}

/// Who holds the lock, as far as its value tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The key that is held.
    pub key: RedisKey,
    /// Who: a pod name, host and process id, or another tool's text as it is.
    pub name: String,
    /// Migration, if the value tells.
    pub migration: Option<String>,
    /// What is done with it, if the value tells.
    pub operation: Option<String>,
    /// Since when, as the value tells.
    pub since: Option<String>,
    /// The resource on whose behalf, if the value tells.
    pub resource_uid: Option<String>,
    /// Remaining life in milliseconds; absent if it never ends.
    pub remaining_millis: Option<u64>,
    /// For how long the lock stands unrenewed, if the value tells.
    pub lease: Option<Duration>,
    /// The random token that its connections carry in their names, if the value tells.
    token: Option<String>,
    value: Vec<u8>,
}

/// The operation of a lock that is held to initialise a fresh keyspace.
pub const INIT: &str = "init";

impl Holder {
    /// How long ago the lock was taken or last renewed, as far as its value and remaining life tell.
    #[must_use]
    pub fn since_renewal(&self) -> Option<Duration> {
        Some(self.lease?.saturating_sub(Duration::from_millis(self.remaining_millis?)))
    }

    /// Whether its holder still renews it; `None` where the value does not tell.
    #[must_use]
    pub fn still_renews(&self) -> Option<bool> {
        // Twice the pause between renewals: one may just be on its way.
        Some(self.since_renewal()? <= renewal_pause(self.lease?) * 2)
    }

    fn read(key: &RedisKey, held: &HeldKey) -> Self {
        let ours: Option<LockValue> = serde_json::from_slice(&held.value).ok();
        let remaining_millis = held.remaining_millis;
        let key = key.clone();
        match ours {
            Some(value) => Self {
                key,
                name: shown(value.holder.as_bytes()),
                migration: Some(shown(value.migration.as_bytes())),
                operation: Some(shown(value.operation.as_bytes())),
                since: Some(shown(value.started_at.as_bytes())),
                resource_uid: value.resource_uid,
                remaining_millis,
                lease: Some(Duration::from_secs(value.lease_seconds)),
                token: Some(value.token),
                value: held.value.clone(),
            },
            None => Self {
                key,
                name: match held.value.as_slice() {
                    [] => "nobody that is known (a key of another type, or empty)".to_owned(),
                    text => shown(text),
                },
                migration: None,
                operation: None,
                since: None,
                resource_uid: None,
                remaining_millis,
                lease: None,
                token: None,
                value: held.value.clone(),
            },
        }
    }
}

/// Text that anybody may have written, as it may be shown.
fn shown(text: &[u8]) -> String {
    escape(text).chars().take(120).collect()
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.operation, &self.migration) {
            (Some(operation), Some(migration)) => write!(f, "{} ({operation} of {migration})", self.name),
            _ => write!(f, "{}", self.name),
        }
    }
}

/// What asking for the lock gave.
pub enum Taken {
    /// It is ours.
    Ours(Lease),
    /// Somebody else has it; nothing was changed.
    Held(Holder),
}

/// The lock, held and renewed until released or dropped.
pub struct Lease {
    held: Arc<HeldLock>,
    token: String,
    lost: CancellationToken,
    renewal: JoinHandle<()>,
    kept: Kept,
    unclosed: Vec<Unclosed>,
}

impl Lease {
    /// Takes every key of the lock, or none.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn take(endpoint: &RedisEndpoint, request: LockRequest) -> Result<Taken, Stop> {
        let control = Keyspace::connect(endpoint.clone(), "outpost-migrate:lock").await?;
        let token = format!("{:032x}", rand::rng().random::<u128>());
        let value = request.value(&token)?;
        let LockRequest { keys, life, .. } = request;
        let held = HeldLock { control, keys, value, life, clock: LeaseClock::new() };
        let sent = Moment::now();
        for (index, key) in held.keys.iter().enumerate() {
            let answer = held.control.take_lock_key(key, &held.value, life).await;
            if !matches!(answer, Ok(None)) {
                // A key whose answer got lost may be ours: give back this one too.
                give_back(&held.control, &held.keys[..=index], &held.value).await;
            }
            if let Some(holder) = answer? {
                return Ok(Taken::Held(Holder::read(key, &holder)));
            }
        }
        held.clock.extend(sent, life);

        let held = Arc::new(held);
        let lost = CancellationToken::new();
        let kept = Kept::default();
        let renewal = Renewal { held: Arc::clone(&held), lost: lost.clone(), kept: kept.clone() };
        let renewal = tokio::spawn(renewal.run());
        let mut lease = Self { held, token, lost, renewal, kept, unclosed: Vec::new() };
        match lease.close_stale_connections().await {
            Ok(unclosed) => lease.unclosed = unclosed,
            Err(fault) => {
                lease.release().await;
                return Err(fault.into());
            }
        }
        Ok(Taken::Ours(lease))
    }

    /// Closes what earlier holders may still have in flight. Returns where some may have stayed; where slots are owned
    /// that is a fault, since something may still land there, unless the user may not close connections.
    async fn close_stale_connections(&self) -> Result<Vec<Unclosed>, Fault> {
        let control = &self.held.control;
        let (scope, own) = (scope(control.endpoint()), self.connection_name());
        let unclosed = control.close_connections(|name| name.starts_with(&scope) && name != own).await?;
        match unclosed.iter().find(|it| it.owns_slots && !it.is_forbidden()) {
            Some(reachable) => Err(reachable.fault.clone()),
            None => Ok(unclosed),
        }
    }

    /// Keeps a key of this hold alive: its life is extended at each renewal of the lock.
    pub fn keep_alive(&self, key: RedisKey, life: Duration) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push((key, life));
    }

    /// The holder's random token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether the lock is surely still ours.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.held.clock.holds()
    }

    /// The clock by which the holder stops.
    #[must_use]
    pub fn clock(&self) -> LeaseClock {
        self.held.clock.clone()
    }

    /// Ends when the lock is lost.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// What it means that connections of earlier holders could not be closed everywhere.
    #[must_use]
    pub fn stale_connections(&self) -> Vec<Finding> {
        stale_connections(&self.unclosed)
    }

    /// Connects for writing; the writer stops when the lease does.
    ///
    /// # Errors
    /// Whatever kept Redis from answering.
    pub async fn writer(&self) -> Result<Writer, Stop> {
        let endpoint = self.held.control.endpoint().clone();
        Ok(Writer::connect(endpoint, self.connection_name(), Arc::clone(&self.held)).await?)
    }

    /// Gives the lock back.
    pub async fn release(self) {
        self.renewal.abort();
        self.held.clock.end();
        let patience = Duration::from_secs(3);
        let HeldLock { control, keys, value, .. } = self.held.as_ref();
        let _ = tokio::time::timeout(patience, give_back(control, keys, value)).await;
    }

    fn connection_name(&self) -> String {
        connection_name(self.held.control.endpoint(), &self.token)
    }
}

/// Connections of all holders of locks in this database share this start of their name.
fn scope(endpoint: &RedisEndpoint) -> String {
    format!("outpost-migrate:db{}:", endpoint.database)
}

fn connection_name(endpoint: &RedisEndpoint, token: &str) -> String {
    format!("{}{token}", scope(endpoint))
}

fn stale_connections(unclosed: &[Unclosed]) -> Vec<Finding> {
    let (forbidden, silent): (Vec<&Unclosed>, Vec<&Unclosed>) = unclosed.iter().partition(|it| it.is_forbidden());
    let mut findings = Vec::new();
    if !forbidden.is_empty() {
        let message = "the Redis user may not use CLIENT LIST and CLIENT KILL, so connections of an earlier holder can't \
                       be closed";
        findings.push(Finding::note(FindingCode::StaleConnections, message));
    }
    if !silent.is_empty() {
        let where_and_why: Vec<String> = silent.iter().map(|it| it.fault.to_string()).collect();
        let message = format!(
            "connections of an earlier holder may stay at a node that was not reached ({}): should it be promoted, what \
             such a holder still sends would land there; bring it back and start again, or see that no earlier run is \
             left",
            where_and_why.join("; ")
        );
        findings.push(Finding::warning(FindingCode::StaleConnections, message));
    }
    findings
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        self.held.clock.end();
    }
}

impl LockRequest {
    fn value(&self, token: &str) -> Result<Vec<u8>, Stop> {
        let value = LockValue {
            holder: self.holder.clone(),
            migration: self.migration.clone(),
            operation: self.operation.clone(),
            token: token.to_owned(),
            started_at: self.now.to_string(),
            lease_seconds: self.life.as_secs(),
            resource_uid: self.resource_uid.clone(),
        };
        serde_json::to_vec(&value).map_err(|_| Stop::Fault(Fault::new(FaultClass::UnexpectedAnswer)))
    }
}

async fn give_back(control: &Keyspace, keys: &[RedisKey], value: &[u8]) {
    for key in keys.iter().rev() {
        // A key that can't be given back now ends by itself.
        let _ = control.release_lock_key(key, value).await;
    }
}

/// Keys whose life is extended with the lock's.
type Kept = Arc<Mutex<Vec<(RedisKey, Duration)>>>;

/// A long-lived lock is looked at this often all the same, so that losing it does not go unnoticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often a lock of that life is renewed.
fn renewal_pause(life: Duration) -> Duration {
    (life / 3).min(LONGEST_PAUSE)
}

/// The task that renews a lock.
struct Renewal {
    held: Arc<HeldLock>,
    lost: CancellationToken,
    kept: Kept,
}

impl Renewal {
    /// Renews every third of the lock's life, ten seconds at most; ends when any key is lost or the lease ran out.
    async fn run(self) {
        let life = self.held.life;
        let regular = renewal_pause(life);
        let mut pause = regular;
        while self.held.clock.holds() {
            tokio::time::sleep(pause).await;
            pause = match self.held.renew().await {
                Ok(true) => regular.saturating_sub(self.extend_kept(regular).await),
                // What was kept with the lock may be a successor's by now.
                Ok(false) => break,
                // Half of what was left may be gone already.
                Err(_) => (life / 30).min(LONGEST_PAUSE),
            };
        }
        self.held.clock.end();
        self.lost.cancel();
    }

    /// Extends the life of what is kept with the lock, within the pause until it is renewed again. Returns how long that
    /// took. What could not be extended is tried again next time.
    async fn extend_kept(&self, patience: Duration) -> Duration {
        let began = Instant::now();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let extend = kept.iter().map(|(key, life)| self.held.extend_life(key, *life, patience));
        let _ = join_all(extend).await;
        began.elapsed()
    }
}

/// Who holds the lock, if anybody.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn holder(keyspace: &Keyspace, keys: &[RedisKey]) -> Result<Option<Holder>, Stop> {
    Ok(holders(keyspace, keys).await?.into_iter().next())
}

/// Who holds each key of the lock that is held.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn holders(keyspace: &Keyspace, keys: &[RedisKey]) -> Result<Vec<Holder>, Stop> {
    let mut holders = Vec::new();
    for key in keys {
        if let Some((value, remaining_millis)) = keyspace.string(key).await? {
            holders.push(Holder::read(key, &HeldKey { value, remaining_millis }));
        }
    }
    Ok(holders)
}

/// Takes a key of the lock away from its holder, if it still is the one that was seen. Returns whether it was.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn break_lock(keyspace: &Keyspace, seen: &Holder) -> Result<bool, Stop> {
    Ok(keyspace.release_lock_key(&seen.key, &seen.value).await?)
}

/// Closes the connections of holders whose lock was taken away: one that sleeps would go on over them without asking
/// for the lock. Returns where some may have stayed.
///
/// # Errors
/// The fault that kept the topology from being learned.
pub async fn close_out(keyspace: &Keyspace, gone: &[&Holder]) -> Result<Vec<Unclosed>, Stop> {
    let tokens = gone.iter().filter_map(|holder| holder.token.as_deref());
    let names: BTreeSet<String> = tokens.map(|token| connection_name(keyspace.endpoint(), token)).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    Ok(keyspace.close_connections(|name| names.contains(name)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::endpoint::NodeAddress;
    use crate::model::finding::Severity;

    fn held(value: &[u8]) -> Holder {
        Holder::read(&RedisKey::from("lock"), &HeldKey { value: value.to_vec(), remaining_millis: Some(5) })
    }

    #[test]
    fn our_value_reads_back() {
        let request = LockRequest {
            keys: vec![RedisKey::from("lock")],
            holder: "pod-1".into(),
            migration: "001_hash_tags".into(),
            operation: "apply".into(),
            life: Duration::from_secs(30),
            resource_uid: Some("uid".into()),
            now: UnixMillis(0),
        };
        let holder = held(&request.value("t").expect("a value"));
        assert_eq!(holder.to_string(), "pod-1 (apply of 001_hash_tags)");
        assert_eq!(holder.resource_uid.as_deref(), Some("uid"));
    }

    #[test]
    fn another_tools_text_is_shown_as_it_is() {
        assert_eq!(held(b"migration=001_hash_tags, started=x").to_string(), "migration=001_hash_tags, started=x");
        assert_eq!(held(b"\x1b[2J").to_string(), "\\u{1b}[2J");
    }

    #[test]
    fn what_was_not_closed_is_told_with_its_node() {
        let node = NodeAddress { host: "h".into(), port: 1 };
        let unclosed = |class| Unclosed { fault: Fault::of(class, &node), owns_slots: false };
        let told = |classes: &[FaultClass]| {
            let unclosed: Vec<Unclosed> = classes.iter().copied().map(unclosed).collect();
            stale_connections(&unclosed).into_iter().map(|it| (it.severity, it.message)).collect::<Vec<_>>()
        };
        assert_eq!(told(&[]), []);
        let both = told(&[FaultClass::NotPermitted, FaultClass::Timeout, FaultClass::NotPermitted]);
        let severities: Vec<Severity> = both.iter().map(|(severity, _)| *severity).collect();
        assert_eq!(severities, [Severity::Note, Severity::Warning]);
        assert!(both[1].1.contains("(h:1: Redis did not answer in time"), "{}", both[1].1);
    }
}
