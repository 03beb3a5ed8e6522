//! The operator's walks: a real API server, real Redis, the real program with the permissions that
//! it is installed with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::items_after_statements, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/operator.rs"]
mod operator;

mod credentials;
mod faults;
mod in_place;
mod newer;
mod refusals;
mod standing;
mod status;
mod walks;

use std::time::Duration;

use operator::{NAME, Site, condition};
use support::generator::{Generator, noise, unmigrated};
use support::load::load;
use support::redis_client::Endpoint;
use support::redis_server::Standalone;
use support::snapshot::snapshot;
use support::value::Keyspace;

/// Loads tenants and what lies around them; answers what is there.
async fn filled(redis: &Endpoint, tenants: usize) -> Keyspace {
    let generator = Generator::new(7, tenants);
    let around = noise(generator.now_ms).into_iter().chain(unmigrated().into_iter().map(|it| it.entry));
    load(redis, generator.entries().chain(around)).await;
    snapshot(redis).await
}

/// Loads tenants only.
async fn tenants_only(redis: &Endpoint, tenants: usize) -> Keyspace {
    load(redis, Generator::new(7, tenants).entries()).await;
    snapshot(redis).await
}

async fn command(redis: &Standalone, words: &[&str]) -> redis::Value {
    let mut connection = redis.connection().await;
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command.query_async(&mut connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Milliseconds of a measured window in which nothing may happen.
async fn window(length: Duration) {
    tokio::time::sleep(length).await;
}

async fn condition_message(site: &Site, kind: &str) -> String {
    condition(&site.status(NAME).await, kind).expect("the condition").2
}
