//! Scans primaries and proves which slots a scan covered.
//!
//! Owns one look at one primary from start to end. A look counts only if the primary stood still:
//! same run, same epoch, every wanted slot owned and, at every primary, closed at both ends. What to do with a look that
//! does not count is the caller's to say.

use std::time::{Duration, Instant};

use futures::Stream;
use futures::stream;
use redis::Value;

use crate::keyspace::fault::Fault;
use crate::keyspace::router::{self, Keyspace};
use crate::keyspace::topology::Primary;
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
}

impl Keyspace {
    /// The looks still needed to cover every slot: one for each primary that owns, uncontested and
    /// closed, slots that are not covered yet. Slots that are open or unowned are in no look, and there is none while
    /// a primary can't be asked: any slot may be half-moved to it.
    ///
    /// # Errors
    /// The fault that kept the topology from being learned.
    pub async fn looks(&self, covered: &SlotSet) -> Result<Vec<Look>, Fault> {
        let topology = self.relearn().await?;
        if !topology.silent.is_empty() {
            return Ok(Vec::new());
        }
        let open = topology.open();
        let looks = topology.primaries.iter().map(|primary| Look {
            primary: primary.clone(),
            wanted: topology.owned_by(primary).difference(covered).difference(&open),
        });
        Ok(looks.filter(|look| !look.wanted.is_empty()).collect())
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
        let mut pauses = router::backoff();
        loop {
            let page = self.scan_page_once(look, cursor, pattern).await;
            match page {
                Err(fault) if fault.class.is_passing() => {
                    if began.elapsed() > router::PATIENCE || !self.may_stand_still(look).await {
                        return Err(fault);
                    }
                    tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(1))).await;
                }
                page => return page,
            }
        }
    }

    async fn may_stand_still(&self, look: &Look) -> bool {
        let stands = |now: &Primary| look.primary.stood_still(now, &look.wanted);
        self.relearn().await.map_or(true, |topology| topology.primaries.iter().any(stands))
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
    /// all is moving one of them.
    ///
    /// # Errors
    /// The fault that kept the topology from being learned.
    pub async fn covered(&self, look: &Look) -> Result<bool, Fault> {
        Ok(self.relearn().await?.covers(&look.primary, &look.wanted))
    }
}

fn is_wanted(look: &Look, prefixes: &[Vec<u8>], key: &RedisKey) -> bool {
    prefixes.iter().any(|prefix| key.as_bytes().starts_with(prefix)) && look.wanted.contains(slot_of(key))
}
