//! Why a pass over the keyspace is not complete, and what to do about it.
//!
//! Owns the words: which slots are missing or half-moved, which primary could not be asked or looked through. Decides
//! nothing: what makes a pass complete is the pass' to say.

use crate::engine::stop::Stop;
use crate::keyspace::Fault;
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::topology::{Silent, Topology};
use crate::model::slot::SlotSet;

/// A primary holds keys that nobody looks for there.
pub(super) fn strayed(topology: &Topology, node: &NodeAddress, slot: u16) -> Stop {
    let owner = topology.owner(slot).map_or("<id of its owner>", |owner| &owner.node_id);
    let example = format!(
        "{node} holds keys of slot {slot}, which it does not own, as after a move that was broken off; there, CLUSTER \
         SETSLOT {slot} IMPORTING {owner} makes redis-cli --cluster fix move them"
    );
    Stop::Incomplete { missing: 1, example }
}

/// Keys that lay where nobody looks have come back to an owner that may have been looked at before.
pub(super) fn strays_gone() -> Stop {
    Stop::Unseen {
        example: "keys lay at a primary that does not own their slot until just now; start again".to_owned(),
    }
}

/// Every slot was covered, but not every primary that may hold keys of slots that it does not own: why, and what to do.
/// `unseen` is one of which a look did not count, with the fault that ended that.
pub(super) fn unseen(topology: &Topology, unseen: Option<(&NodeAddress, Option<Fault>)>) -> Stop {
    let open = topology.open();
    let example = match (topology.silent.first(), open.iter().next(), unseen) {
        (Some(silent), _, _) => unasked(silent),
        (None, Some(slot), _) => half_moved(topology, slot),
        (None, None, Some((node, Some(fault)))) => {
            format!("{node} was not seen to its end ({})", fault.class.explain())
        }
        (None, None, Some((node, None))) => {
            format!("{node} changes its process, role or slots while it is looked at; let it come to rest")
        }
        (None, None, None) => "a primary that was moving a slot has just ended that; start again".to_owned(),
    };
    Stop::Unseen { example }
}

/// Which slots are missing, what is known of the first of them, and what to do.
pub(super) fn incomplete(topology: &Topology, covered: &SlotSet) -> Stop {
    let missing = SlotSet::full().difference(covered);
    let open = topology.open();
    let causes = [missing.intersection(&open), missing.intersection(&topology.unowned()), missing.clone()];
    let first = causes.iter().find_map(|slots| slots.iter().next()).unwrap_or_default();
    let example = match (topology.silent.first(), topology.owner(first)) {
        (Some(silent), _) => unasked(silent),
        (None, _) if open.contains(first) => half_moved(topology, first),
        (None, None) => format!("slot {first} has no primary that answers; bring it back"),
        (None, Some(_)) => format!("slot {first} keeps changing hands; let the resharding end first"),
    };
    Stop::Incomplete { missing: missing.len(), example }
}

fn unasked(silent: &Silent) -> String {
    format!(
        "the primary {silent}, so nobody knows what is half-moved to it; bring it back, or remove it with CLUSTER FORGET \
         if it is gone for good"
    )
}

fn half_moved(topology: &Topology, slot: u16) -> String {
    let at: Vec<String> = topology.moving(slot).map(ToString::to_string).collect();
    format!(
        "slot {slot} is half-moved (open at {}); finish the move or take it back, as with redis-cli --cluster fix",
        at.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::FaultClass;
    use crate::keyspace::topology::Primary;

    fn primary(slots: SlotSet, open: SlotSet) -> Primary {
        let address = NodeAddress { host: "h".into(), port: 1 };
        let (node_id, run_id) = (String::new(), String::new());
        Primary { address, node_id, run_id, history: String::new(), config_epoch: 0, slots, open, replicas: 0 }
    }

    #[test]
    fn what_is_missing_has_a_cause_and_a_way_out() {
        let covered = SlotSet::full().difference(&(5..=6).collect());
        let whole = Topology::new(vec![primary(SlotSet::full(), SlotSet::empty())]);
        let (mut moving, mut unasked) = (whole.clone(), whole.clone());
        moving.bystanders.push(primary(SlotSet::empty(), (6..=6).collect()));
        unasked.silent.push(Silent { node_id: "x".into(), address: None, fault: None });
        let cases = [
            (whole, "slot 5 keeps changing hands; let the resharding end first"),
            (Topology::new(Vec::new()), "slot 5 has no primary that answers; bring it back"),
            (
                moving,
                "slot 6 is half-moved (open at h:1); finish the move or take it back, as with redis-cli --cluster fix",
            ),
            (
                unasked,
                "the primary with the id x can't be asked (nobody knows its address), so nobody knows what is \
                 half-moved to it; bring it back, or remove it with CLUSTER FORGET if it is gone for good",
            ),
        ];
        for (topology, message) in cases {
            let expected = format!("2 slots could not be covered: {message}");
            assert_eq!(incomplete(&topology, &covered).to_string(), expected);
        }
    }

    #[test]
    fn what_was_not_seen_has_a_cause_and_a_way_out() {
        let node = NodeAddress { host: "h".into(), port: 2 };
        let calm = Topology::new(vec![primary(SlotSet::full(), SlotSet::empty())]);
        let moving = Topology::new(vec![primary(SlotSet::full(), (6..=6).collect())]);
        let fault = Fault::of(FaultClass::Timeout, &node);
        let cases = [
            (&moving, None, "slot 6 is half-moved (open at h:1)"),
            (&calm, Some((&node, Some(fault))), "h:2 was not seen to its end (Redis did not answer in time; look at"),
            (&calm, Some((&node, None)), "h:2 changes its process, role or slots while it is looked at; let it"),
            (&calm, None, "a primary that was moving a slot has just ended that; start again"),
        ];
        for (topology, not_seen, message) in cases {
            let told = unseen(topology, not_seen).to_string();
            let expected = format!("every slot was covered, but keys may lie where nobody looks for them: {message}");
            assert!(told.starts_with(&expected), "{told}");
        }
    }
}
