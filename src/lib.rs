//! Moves the Redis keyspace of Outpost from schema to schema without losing a key.
//!
//! The rooms, from the top down; imports only point down: [`cli`], [`operator`], [`gate`], [`config`], [`api`],
//! [`engine`], [`migrations`], [`keyspace`], [`model`].

pub mod api;
pub mod cli;
pub mod config;
pub mod engine;
pub mod gate;
pub mod keyspace;
pub mod migrations;
pub mod model;
pub mod operator;
