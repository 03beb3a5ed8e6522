//! The test harness: real Redis servers, a real Kubernetes control plane, a generator of keyspaces
//! and an independent way to read them back.
//!
//! Everything listens on free ports of the loopback address, is waited for by polling, and is gone
//! when its guard is dropped or the test process dies. Nothing here uses the product's own code, so
//! that a test compares two independent opinions; only `engine`, which drives the product, does.

// Each test binary compiles the whole harness and uses a part of it.
#![allow(dead_code)]
// The harness is a private module of each binary; `pub` says what a test may use.
#![allow(unreachable_pub)]

pub mod certificates;
pub mod command_line;
pub mod command_stats;
pub mod control_plane;
pub mod current_form;
pub mod engine;
pub mod events;
pub mod expectation;
pub mod fixture;
pub mod generator;
pub mod huge;
pub mod load;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod redis_client;
pub mod redis_cluster;
pub mod redis_server;
pub mod snapshot;
pub mod value;
pub mod wait;
