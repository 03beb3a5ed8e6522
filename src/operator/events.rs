//! Events that `kubectl describe` shows: one for each transition that was won.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder};

use crate::api::conditions::{Reason, Verdict};

/// Publishes events; the same one again only counts up.
pub struct Events(Recorder);

impl Events {
    /// Events in the name of this replica.
    #[must_use]
    pub fn new(client: Client, holder: &str) -> Self {
        Self(Recorder::new(
            client,
            kube::runtime::events::Reporter {
                controller: "outpost-migrate-redis".to_owned(),
                instance: Some(holder.to_owned()),
            },
        ))
    }

    /// A transition of a resource. An event that can't be published is lost: status has it all.
    pub async fn transition(&self, resource: &ObjectReference, verdict: &Verdict) {
        // A milestone that holds no longer is told by the reason.
        let milestone = verdict.records.iter().rfind(|record| record.holds);
        if milestone.is_none() && matches!(verdict.reason, Reason::Progressing | Reason::TargetReached) {
            // The milestone before said it.
            return;
        }
        let is_trouble = milestone.is_none() && verdict.reason.is_trouble();
        let event = Event {
            type_: if is_trouble { EventType::Warning } else { EventType::Normal },
            reason: milestone.map_or_else(|| verdict.reason.to_string(), |record| record.milestone.to_string()),
            note: Some(shorten(milestone.map_or(&verdict.message, |record| &record.message))),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, resource).await {
            tracing::debug!(%error, "event not published");
        }
    }
}

/// The API server takes notes of at most 1 kB.
fn shorten(note: &str) -> String {
    note.chars().take(1000).collect()
}
