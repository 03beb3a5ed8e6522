//! The command line as a child process: what it prints, what it asks, how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::items_after_statements, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/schema.rs"]
mod schema;

#[path = "../support/shell.rs"]
mod shell;

#[path = "../support/terminal.rs"]
mod terminal;

mod bad_input;
mod commands;
mod configuration;
mod cut_off;
mod help;
mod lock;
mod terminal_output;
