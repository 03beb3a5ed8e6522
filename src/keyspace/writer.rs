//! A keyspace that may be written to, as long as a lease holds.
//!
//! Owns the pairing of connections with a lock: every connection of a writer carries the lock's
//! scope and its holder's token in its name, is used only after the lock was renewed behind that, and nothing is
//! sent once the lease ended. All functions that write take a [`Writer`]; there is no other way to write to the
//! migration's keys.

use std::ops::Deref;
use std::sync::Arc;

use crate::keyspace::endpoint::RedisEndpoint;
use crate::keyspace::fault::Fault;
use crate::keyspace::lease::HeldLock;
use crate::keyspace::router::Keyspace;

/// A keyspace under a lease.
pub struct Writer(Keyspace);

impl Writer {
    /// Connects under a lock; `name` is its scope followed by the holder's token.
    ///
    /// # Errors
    /// The fault that kept it from being reached.
    pub async fn connect(endpoint: RedisEndpoint, name: String, lock: Arc<HeldLock>) -> Result<Self, Fault> {
        Ok(Self(Keyspace::connect_as(endpoint, name, Some(lock)).await?))
    }
}

impl Deref for Writer {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.0
    }
}
