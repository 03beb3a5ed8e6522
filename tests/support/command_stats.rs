//! What servers count themselves: how often they ran a command, also from inside scripts.

use redis::aio::MultiplexedConnection;
use redis::cmd;

use super::redis_client::Endpoint;

/// How often one server ran a command since its counts were reset.
pub async fn calls_at(connection: &mut MultiplexedConnection, name: &str) -> u64 {
    let info: String = cmd("INFO").arg("commandstats").query_async(connection).await.expect("INFO");
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
    line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().expect("a count"))
}

/// How often all primaries did.
pub async fn calls(redis: &Endpoint, name: &str) -> u64 {
    let mut sum = 0;
    for mut primary in redis.primaries().await {
        sum += calls_at(&mut primary.connection, name).await;
    }
    sum
}

/// Resets the counts of every primary.
pub async fn reset_calls(redis: &Endpoint) {
    for mut primary in redis.primaries().await {
        cmd("CONFIG").arg("RESETSTAT").query_async::<()>(&mut primary.connection).await.expect("CONFIG RESETSTAT");
    }
}
