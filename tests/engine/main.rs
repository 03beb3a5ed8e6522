//! The engine against real Redis servers and clusters: what it copies, proves, changes and removes, and what it
//! does when servers, connections or locks fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::items_after_statements, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/shell.rs"]
mod shell;

mod bookkeeping;
mod braced;
mod cluster;
mod discarded;
mod durability;
mod faults;
mod huge;
mod huge_types;
mod in_place;
mod lease;
mod limits;
mod losses;
mod resharding;
mod safety;
mod sample;
mod silence;
mod standalone;
mod supposed;
mod tables;
mod topology;
mod upgrade;
mod versions;
