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

/// Most bytes of a note: the API server takes 1 kB.
const NOTE_LIMIT: usize = 1024;

fn shorten(note: &str) -> String {
    let fits = note.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= NOTE_LIMIT).last();
    note[..fits.unwrap_or_default()].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_by_bytes_between_characters() {
        assert_eq!(shorten("short"), "short");
        assert_eq!(shorten(&"a".repeat(2000)).len(), 1024);
        assert_eq!(shorten(&format!("a{}", "é".repeat(2000))).len(), 1023);
        assert_eq!(shorten(""), "");
    }
}
