//! Drives one migration over a keyspace: survey, plan, apply, verify, cleanup.
//!
//! Owns the promises: what is read completely, when something may be written, when a migration may be
//! called applied. Knows nothing of Kubernetes, terminals or Outpost's key names; it reports progress
//! as a stream of values and prints nothing.

pub mod apply;
pub mod assignment;
pub mod claim;
mod classify;
pub mod cleanup;
pub mod control;
mod disk;
pub mod emptiness;
mod equality;
mod gaps;
mod huge;
mod in_place;
pub mod init;
pub mod journal;
pub mod lock;
pub mod lost_expiry;
mod pace;
mod pass;
pub mod plan;
mod preflight;
pub mod restore;
pub mod sample;
mod settle;
mod signs;
mod sourceless;
pub mod stop;
mod suppose;
pub mod survey;
mod throttle;
pub mod verify;

pub use assignment::Assignment;
pub use control::Control;
pub use stop::Stop;
