//! What the checkout promises: its rooms, and that README is true.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::items_after_statements, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod readme;
