//! Moves the Redis keyspace of Outpost from schema to schema without losing a key.
//!
//! The rooms, from the top down; imports only point down: [`cli`], [`operator`], [`config`],
//! [`api`], [`engine`], [`migrations`], [`keyspace`], [`model`].

pub mod api;
pub mod migrations;
pub mod model;
