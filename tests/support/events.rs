//! Every change of a keyspace, as Redis itself reports it (keyspace events).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use redis::aio::MultiplexedConnection;

use super::redis_client::{Endpoint, client};
use super::value::{Bytes, shown};
use super::wait::eventually_true;

/// Published at the end: once it is seen, everything before it was.
const SENTINEL: &str = "events:sentinel";

type Seen = Arc<Mutex<Vec<(String, Bytes)>>>;

/// Listens from its beginning to [`Events::stop`].
pub struct Events {
    nodes: Vec<(MultiplexedConnection, Seen)>,
}

impl Events {
    /// Listens on every primary.
    pub async fn listen(endpoint: &Endpoint) -> Self {
        let mut nodes = Vec::new();
        for mut primary in endpoint.primaries().await {
            let mut enable = redis::cmd("CONFIG");
            enable.arg("SET").arg("notify-keyspace-events").arg("KEA");
            enable.exec_async(&mut primary.connection).await.expect("CONFIG SET");
            let client = client(&endpoint.host, primary.port, &endpoint.access).expect("a client");
            let mut listener = client.get_async_pubsub().await.expect("a listener");
            listener.psubscribe("__keyevent@0__:*").await.expect("PSUBSCRIBE");
            let seen = Seen::default();
            let sink = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut messages = listener.into_on_message();
                while let Some(message) = messages.next().await {
                    let event = message.get_channel_name().trim_start_matches("__keyevent@0__:").to_owned();
                    let key = message.get_payload().expect("a key");
                    sink.lock().unwrap_or_else(PoisonError::into_inner).push((event, key));
                }
            });
            nodes.push((primary.connection, seen));
        }
        Self { nodes }
    }

    /// Everything that was reported, by event and key.
    pub async fn stop(self) -> Vec<(String, Bytes)> {
        let mut all = Vec::new();
        for (number, (mut connection, seen)) in self.nodes.into_iter().enumerate() {
            // A cluster passes publications on to every node, so each needs one of its own.
            let sentinel = format!("{SENTINEL}{number}");
            let mut publish = redis::cmd("PUBLISH");
            publish.arg("__keyevent@0__:sentinel").arg(&sentinel);
            publish.exec_async(&mut connection).await.expect("PUBLISH");
            let seen = || seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            eventually_true(Duration::from_secs(10), "the sentinel is seen", async || {
                seen().iter().any(|(_, key)| key == sentinel.as_bytes())
            })
            .await;
            all.extend(seen());
        }
        all.retain(|(event, _)| event != "sentinel");
        all
    }

    /// Panics unless only keys for which `allowed` holds were changed.
    pub async fn assert_only(self, allowed: impl Fn(&[u8]) -> bool) {
        let others: Vec<String> = self
            .stop()
            .await
            .into_iter()
            .filter(|(_, key)| !allowed(key))
            .map(|(event, key)| format!("{event} {}", shown(&key)))
            .take(10)
            .collect();
        assert!(others.is_empty(), "changed: {others:?}");
    }
}
