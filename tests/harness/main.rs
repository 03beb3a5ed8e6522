//! The test harness itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::items_after_statements, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod control_plane;
mod generator;
mod servers;
