//! A keyspace that may be written to, as long as a lease holds.
//!
//! Owns the pairing of connections with a lease: every connection of a writer carries the lock's
//! scope and its holder's token in its name, and nothing is sent once the lease ended. All functions
//! that write take a [`Writer`]; there is no other way to write to the migration's keys.

use std::ops::Deref;

use crate::keyspace::endpoint::RedisEndpoint;
use crate::keyspace::fault::Fault;
use crate::keyspace::lease::LeaseClock;
use crate::keyspace::router::Keyspace;

/// A keyspace under a lease.
pub struct Writer(Keyspace);

impl Writer {
    /// Connects under a lease; `name` is the lock's scope followed by the holder's token.
    ///
    /// # Errors
    /// The fault that kept it from being reached.
    pub async fn connect(endpoint: RedisEndpoint, name: String, lease: LeaseClock) -> Result<Self, Fault> {
        Ok(Self(Keyspace::connect_as(endpoint, name, Some(lease)).await?))
    }
}

impl Deref for Writer {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.0
    }
}
