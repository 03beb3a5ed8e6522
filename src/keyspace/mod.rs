//! Redis as the engine sees it: connections, topology, scans, batches of conditional writes.
//!
//! Owns every byte that goes to or comes from Redis; the only room that imports `redis`. Refuses to
//! decide what a key means or what should be written: it reads, and it writes only what it is told,
//! under the condition it is told.

mod bulk;
mod census;
pub mod certificate;
mod claim;
pub mod closing;
mod command;
pub mod compare;
pub mod conditional;
mod connection;
pub mod copy;
pub mod dialect;
pub mod disk;
pub mod endpoint;
pub mod fault;
mod learning;
pub mod lease;
mod patience;
pub mod pieces;
pub mod read;
pub mod replicas;
mod router;
pub mod scan;
mod script;
pub mod server;
pub mod staging;
pub mod state;
pub mod supposed;
pub mod topology;
mod value;
pub mod vitals;
pub mod writer;

pub use endpoint::RedisEndpoint;
pub use fault::{Fault, FaultClass};
pub use router::Keyspace;
pub use writer::Writer;
