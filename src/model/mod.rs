//! The words and decisions of the product as plain values: keys, entries, plans, phases, counts.
//!
//! Owns everything that can be decided without looking at anything: no I/O, no clock, no async.
//! Refuses to know Redis connections, Kubernetes objects and Outpost's key names.

pub mod acceptance;
pub mod admission;
pub mod change;
pub mod count;
pub mod difference;
pub mod entry;
pub mod estimate;
pub mod finding;
pub mod key;
pub mod mapping;
pub mod mark;
pub mod phase;
pub mod plan;
pub mod policy;
pub mod progress;
pub mod report;
pub mod slot;
pub mod time;
