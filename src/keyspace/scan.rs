//! Scans primaries and proves which slots a scan covered.
//!
//! Owns one look at one primary from start to end. A look counts only if the primary stood still:
//! same run, same epoch, every wanted slot owned and, at every primary, closed at both ends. What to do with a look that
//! does not count is the caller's to say.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::Stream;
use futures::stream;
use redis::Value;

use crate::keyspace::fault::Fault;
use crate::keyspace::patience::{PATIENCE, backoff};
use crate::keyspace::router::Keyspace;
use crate::keyspace::topology::{Coverage, Primary, Topology};
use crate::keyspace::value;
use crate::model::key::{RedisKey, match_prefixes};
use crate::model::slot::{SlotSet, slot_of};

/// Keys that a `SCAN` call looks at; holds the server well under a millisecond.
const SCAN_COUNT: u32 = 400;

/// One look at one primary.
#[derive(Debug, Clone)]
pub struct Look {
    /// The primary as it was at the start.
    pub primary: Primary,
    /// Slots whose keys this look gives.
    pub wanted: SlotSet,
    /// Slots that were open at any primary at the start.
    open_before: SlotSet,
    /// Slots that the primary did not own at the start, of which it has keys all the same.
    others: Arc<Mutex<SlotSet>>,
}

impl Look {
    fn new(primary: &Primary, wanted: SlotSet, open_before: &SlotSet) -> Self {
        let others = Arc::new(Mutex::new(SlotSet::empty()));
        Self { primary: primary.clone(), wanted, open_before: open_before.clone(), others }
    }

    /// Whether it is only there to see that no key is where nobody looks for it.
    #[must_use]
    pub fn is_for_strays(&self) -> bool {
        self.wanted.is_empty()
    }

    /// A slot of which the primary holds keys though it neither owns it nor is taking it over, as `topology` tells: a
    /// move was broken off, and failovers made both ends forget it.
    #[must_use]
    pub fn stray(&self, topology: &Topology) -> Option<u16> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.is_empty() {
            return None;
        }

        let owns = |slot| topology.owner(slot).is_some_and(|owner| owner.node_id == self.primary.node_id);
        let open = topology.open();
        others.iter().find(|&slot| !owns(slot) && !open.contains(slot))
    }

    /// The same, if nothing was moving there when the look began, and nothing is in a `topology` that was learned right
    /// after a key was seen: time alone won't take that key back.
    #[must_use]
    pub fn certain_stray(&self, topology: &Topology) -> Option<u16> {
        let slot = self.stray(topology)?;
        let stands = |now: &Primary| self.primary.stood_still(now, &SlotSet::empty());
        let is_certain = !self.open_before.contains(slot) && topology.silent.is_empty() && topology.all().any(stands);
        is_certain.then_some(slot)
    }

    /// Whether a key is to be given.
    fn takes(&self, key: &RedisKey) -> bool {
        let slot = slot_of(key);
        if !self.primary.slots.contains(slot) {
            self.others.lock().unwrap_or_else(PoisonError::into_inner).insert(slot);
        }
        self.wanted.contains(slot)
    }
}

/// The looks still needed to cover every slot: one for each primary that owns, uncontested and closed, slots that are
/// not covered yet, one for each primary without slots, which may hold strays, and one for each of the `suspects`, by
/// id: they had a slot open when they were looked at last, so that its keys were no strays then. Slots that are open or
/// unowned are in no look, and there is none while a primary can't be asked: any slot may be half-moved to it.
#[must_use]
pub fn looks(topology: &Topology, covered: &SlotSet, suspects: &BTreeSet<String>) -> Vec<Look> {
    if !topology.silent.is_empty() {
        return Vec::new();
    }
    let open = topology.open();
    let of_owner =
        |primary: &Primary| Look::new(primary, topology.owned_by(primary).difference(covered).difference(&open), &open);
    let is_suspect = |primary: &Primary| primary.open.is_empty() && suspects.contains(&primary.node_id);
    let owners = topology.primaries.iter().map(of_owner);
    let owners = owners.filter(|look| !look.wanted.is_empty() || is_suspect(&look.primary));
    let slotless = topology.bystanders.iter().filter(|primary| primary.slots.is_empty());
    owners.chain(slotless.map(|primary| Look::new(primary, SlotSet::empty(), &open))).collect()
}

impl Keyspace {
    /// The looks that cover every slot, as the topology is now; see [`looks`].
    ///
    /// # Errors
    /// The fault that kept the topology from being learned.
    pub async fn all_looks(&self) -> Result<Vec<Look>, Fault> {
        Ok(looks(&*self.relearn().await?, &SlotSet::empty(), &BTreeSet::new()))
    }

    /// The keys of a look that start with one of `prefixes`, page by page. Ends with the last page, or
    /// with the first fault: a cursor belongs to one run of one server, so nothing is taken up again.
    pub fn scan<'a>(
        &'a self,
        look: &'a Look,
        prefixes: &'a [Vec<u8>],
    ) -> impl Stream<Item = Result<Vec<RedisKey>, Fault>> + Send + 'a {
        let pattern = match_prefixes(prefixes);
        stream::try_unfold(Some(Vec::from(*b"0")), move |cursor| {
            let pattern = pattern.clone();
            async move {
                let Some(cursor) = cursor else { return Ok(None) };
                let (next, keys) = self.scan_page(look, &cursor, pattern.as_deref()).await?;
                let wanted = keys.into_iter().map(RedisKey::new).filter(|key| is_wanted(look, prefixes, key)).collect();
                Ok(Some((wanted, (next != b"0").then_some(next))))
            }
        })
    }

    /// One page. A cursor outlives its connection as long as its primary stands still, so a page whose
    /// connection broke is asked for again.
    async fn scan_page(
        &self,
        look: &Look,
        cursor: &[u8],
        pattern: Option<&[u8]>,
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>), Fault> {
        let began = Instant::now();
        let mut pauses = backoff();
        loop {
            let page = self.scan_page_once(look, cursor, pattern).await;
            match page {
                Err(fault) if fault.class.is_passing() => {
                    if began.elapsed() > PATIENCE || !self.may_stand_still(look).await {
                        return Err(fault);
                    }
                    tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(1))).await;
                }
                page => return page,
            }
        }
    }

    async fn may_stand_still(&self, look: &Look) -> bool {
        self.relearn().await.map_or(true, |topology| !topology.has_moved(&look.primary, &look.wanted))
    }

    async fn scan_page_once(
        &self,
        look: &Look,
        cursor: &[u8],
        pattern: Option<&[u8]>,
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>), Fault> {
        let mut command = redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(SCAN_COUNT).take();
        if let Some(pattern) = pattern {
            command.arg("MATCH").arg(pattern);
        }
        let answer = value::list(self.ask_node(&look.primary.address, command).await?)?;
        let [next, keys] = <[Value; 2]>::try_from(answer).map_err(|_| value::unexpected())?;
        Ok((value::bytes(next)?, value::bytes_list(keys)?))
    }

    /// Whether the look covered the slots it wanted: its primary stood still from its start to now, and no primary at
    /// all is moving one of them. While a primary is silent that can't be told, so it is waited for, as for any answer:
    /// a look at a healthy primary is not lost for another's sake.
    ///
    /// # Errors
    /// The fault that kept the topology from being learned.
    pub async fn covered(&self, look: &Look) -> Result<bool, Fault> {
        let began = Instant::now();
        let mut pauses = backoff();
        loop {
            let learned = self.relearn().await;
            let is_late = began.elapsed() > PATIENCE;
            match learned.map(|topology| topology.coverage(&look.primary, &look.wanted)) {
                Ok(Coverage::Complete) => return Ok(true),
                Ok(Coverage::Spoiled) => return Ok(false),
                Ok(Coverage::Unknown) if is_late => return Ok(false),
                Err(fault) if is_late || !fault.class.is_passing() => return Err(fault),
                Ok(Coverage::Unknown) | Err(_) => {}
            }
            tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(1))).await;
        }
    }
}

fn is_wanted(look: &Look, prefixes: &[Vec<u8>], key: &RedisKey) -> bool {
    prefixes.iter().any(|prefix| key.as_bytes().starts_with(prefix)) && look.takes(key)
}
