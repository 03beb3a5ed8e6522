//! Plan: reads the whole keyspace and says what apply would do. Writes nothing.

use std::collections::BTreeMap;

use crate::engine::assignment::Assignment;
use crate::engine::classify::Classified;
use crate::engine::control::{Advance, Control};
use crate::engine::disk;
use crate::engine::equality;
use crate::engine::huge;
use crate::engine::in_place::judge;
use crate::engine::journal;
use crate::engine::pass::{self, Tally};
use crate::engine::preflight;
use crate::engine::stop::Stop;
use crate::engine::suppose::{Likely, Supposition};
use crate::keyspace::Keyspace;
use crate::keyspace::compare::Comparison;
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::pieces::HUGE_BYTES;
use crate::keyspace::supposed::HEAVY_BYTES;
use crate::keyspace::topology::Topology;
use crate::migrations::{InPlace, Rename, Rule};
use crate::model::acceptance::how_to_accept;
use crate::model::change::FieldChange;
use crate::model::count;
use crate::model::entry::Expiry;
use crate::model::estimate::Estimate;
use crate::model::finding::{Finding, FindingCode};
use crate::model::key::RedisKey;
use crate::model::mapping::{Premise, UnmigratedReason};
use crate::model::mark::Mark;
use crate::model::phase::Step;
use crate::model::plan::{Plan, Seen};
use crate::model::slot::slot_of;

/// What a key takes in the table of keys and, on a cluster, in the list of its slot, beside what `MEMORY USAGE`
/// says: tables double, so up to two slots a key, and two links.
const TABLE_BYTES: u64 = 32;

/// Reads the whole keyspace and says what apply would do.
///
/// # Errors
/// What kept the pass from being complete.
pub async fn plan(keyspace: &Keyspace, assignment: &Assignment, control: &Control) -> Result<Plan, Stop> {
    let mark = Mark::from_fields(&keyspace.hash(&assignment.mark_key()).await?);
    let meter = control.meter(Step::Plan, None);
    let prefixes = assignment.prefixes();
    let look = |keys| look_at(keyspace, assignment, control, keys);
    let tally: PlanTally = pass::complete(keyspace, &prefixes, control, &meter, look).await?;
    let mut seen = tally.seen;
    seen.mark_is_unproven = mark == Mark::Unstamped;
    seen.differences_are_ours = journal::read_run(keyspace, assignment).await?.began_over_nothing(assignment);
    seen.findings = preflight::findings(keyspace, assignment, &tally.needed, seen.sample.iter().next()).await?;
    seen.findings.extend(findings_of(&seen, tally.obstacle, tally.scattered));
    if seen.total_sources() > 0 {
        seen.findings.extend(Box::pin(disk::foreseen(keyspace, assignment, &tally.needed)).await?);
    }
    assignment.terms.accepted.mark(&mut seen.findings);
    seen.findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.code));
    Ok(Plan { hash: assignment.terms.plan_hash(&seen), seen })
}

#[derive(Debug, Default)]
struct PlanTally {
    seen: Seen,
    /// What the copies take, by the primary that they go to.
    needed: BTreeMap<NodeAddress, Estimate>,
    /// Why a huge entry can't be copied, if one can't.
    obstacle: Option<&'static str>,
    scattered: u64,
    advance: Advance,
}

impl PlanTally {
    /// Counts a copy that was measured.
    fn needs(&mut self, topology: &Topology, target: &RedisKey, bytes: u64) {
        self.seen.estimated_bytes += bytes;
        if let Some(owner) = topology.owner(slot_of(target)) {
            self.needed.entry(owner.address.clone()).or_default().measured(bytes);
        }
    }
}

impl Tally for PlanTally {
    fn merge(&mut self, other: Self) {
        let (seen, more) = (&mut self.seen, other.seen);
        count::add(&mut seen.sources, more.sources);
        count::add(&mut seen.current, more.current);
        seen.already_migrated += more.already_migrated;
        seen.conflicts += more.conflicts;
        seen.lost_expiry += more.lost_expiry;
        seen.conflict_sample.merge(more.conflict_sample);
        seen.estimated_bytes += more.estimated_bytes;
        seen.sample.merge(more.sample);
        seen.unmigrated.merge(more.unmigrated);
        seen.lasting.merge(more.lasting);
        seen.heavy += more.heavy;
        seen.huge += more.huge;
        for (node, needed) in other.needed {
            self.needed.entry(node).or_default().merge(needed);
        }
        self.obstacle = self.obstacle.take().or(other.obstacle);
        self.scattered += other.scattered;
    }

    fn advance(&self) -> Advance {
        self.advance
    }
}

async fn look_at(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    keys: Vec<RedisKey>,
) -> Result<PlanTally, Stop> {
    match assignment.rule() {
        Rule::Rename(rename) => look_at_sources(keyspace, assignment, control, rename, keys).await,
        Rule::InPlace(in_place) => look_at_entries(keyspace, assignment, control, in_place, keys).await,
    }
}

/// What an in-place migration would change.
async fn look_at_entries(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    in_place: &dyn InPlace,
    keys: Vec<RedisKey>,
) -> Result<PlanTally, Stop> {
    let judged = judge(keyspace, assignment, in_place, keys).await?;
    control.pace(judged.to_change.len() + judged.current.len()).await?;
    let mut tally = PlanTally::default();
    let topology = keyspace.topology().await;
    for (key, fields, entity) in &judged.to_change {
        *tally.seen.sources.entry(entity).or_default() += 1;
        tally.needs(&topology, key, fields.iter().map(growth).sum());
        tally.seen.sample.offer((key.clone(), key.clone()));
    }
    for (_, entity) in &judged.current {
        *tally.seen.current.entry(entity).or_default() += 1;
    }
    for (key, reason) in judged.unmigrated {
        tally.seen.unmigrated.count(key, reason);
    }
    let (changed, skipped) = (judged.to_change.len() as u64, judged.current.len() as u64);
    tally.advance = Advance { processed: changed + skipped, skipped, conflicts: 0 };
    Ok(tally)
}

/// Bytes that a change adds, without Redis' own overhead.
fn growth(change: &FieldChange) -> u64 {
    let (before, after) = match &change.from {
        Some(from) => (from.len(), change.to.len()),
        None => (0, change.name.len() + change.to.len()),
    };
    after.saturating_sub(before) as u64
}

/// What a renaming migration would copy.
async fn look_at_sources(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    rename: &dyn Rename,
    keys: Vec<RedisKey>,
) -> Result<PlanTally, Stop> {
    let Survey { classified, bytes } = survey(keyspace, assignment, control, rename, keys).await?;
    let mut tally = PlanTally::default();
    count_kinds(&mut tally, rename, &classified);
    let targets: Vec<RedisKey> = classified.sources.iter().map(|source| source.target.clone()).collect();
    let target_bytes = keyspace.memory_usage(&targets).await?;
    let mut existing = Vec::new();
    let topology = keyspace.topology().await;
    for ((source, bytes), target_bytes) in classified.sources.iter().zip(bytes).zip(target_bytes) {
        let is_huge = bytes > HUGE_BYTES;
        tally.seen.heavy += u64::from(bytes.max(target_bytes) > HEAVY_BYTES);
        tally.seen.huge += u64::from(is_huge || target_bytes > HUGE_BYTES);
        if is_huge && tally.obstacle.is_none() {
            tally.obstacle = keyspace.obstacle_to_pieces(&source.key).await?;
        }
        if target_bytes > 0 {
            existing.push(source.pair());
        } else {
            tally.needs(&topology, &source.target, bytes + TABLE_BYTES);
        }
    }
    compare_existing(keyspace, assignment, &existing, &mut tally.seen).await?;
    tally.advance = Advance {
        processed: classified.sources.len() as u64,
        skipped: tally.seen.already_migrated,
        conflicts: tally.seen.conflicts,
    };
    Ok(tally)
}

/// Keys by what they mean, and the bytes that each source takes.
struct Survey {
    classified: Classified,
    bytes: Vec<u64>,
}

async fn survey(
    keyspace: &Keyspace,
    assignment: &Assignment,
    control: &Control,
    rename: &dyn Rename,
    keys: Vec<RedisKey>,
) -> Result<Survey, Stop> {
    let (mut supposition, sources) = Supposition::of(keyspace, assignment, rename, control, keys).await?;
    let premises: Vec<&Premise> = sources.iter().map(Likely::premise).collect();
    let measured = keyspace.measure_supposed(&premises).await;
    let (mut known, mut bytes) = (Vec::with_capacity(sources.len()), Vec::with_capacity(sources.len()));
    for (likely, measured) in sources.into_iter().zip(measured) {
        match measured {
            Some(measured) => {
                known.push(likely.source);
                bytes.push(measured);
            }
            None => supposition.leave(likely),
        }
    }
    let mut classified = supposition.rest_with_lasting().await?;
    let read: Vec<RedisKey> = classified.sources.iter().map(|source| source.key.clone()).collect();
    bytes.extend(keyspace.memory_usage(&read).await?);
    known.append(&mut classified.sources);
    classified.sources = known;
    Ok(Survey { classified, bytes })
}

fn count_kinds(tally: &mut PlanTally, rename: &dyn Rename, classified: &Classified) {
    for source in &classified.sources {
        *tally.seen.sources.entry(source.entity).or_default() += 1;
        tally.seen.sample.offer(source.pair());
        tally.scattered += u64::from(rename.is_scattered(&source.target));
    }
    tally.seen.lasting.current += classified.current_lasting;
    for (_, entity) in &classified.current {
        *tally.seen.current.entry(entity).or_default() += 1;
    }
    for (key, reason) in &classified.unmigrated {
        tally.seen.unmigrated.count(key.clone(), *reason);
    }
}

async fn compare_existing(
    keyspace: &Keyspace,
    assignment: &Assignment,
    existing: &[(RedisKey, RedisKey)],
    seen: &mut Seen,
) -> Result<(), Stop> {
    for (pair, comparison) in
        existing.iter().zip(huge::compare_any(seen.huge > 0, keyspace, assignment, existing).await?)
    {
        match comparison {
            Comparison::Equal { expires } => {
                seen.already_migrated += 1;
                seen.lasting.count_target(expires);
            }
            Comparison::Different { source, target } => {
                seen.lasting.count_target(target.expiry != Expiry::Never);
                seen.lost_expiry += u64::from(equality::has_lost_expiry(assignment, &source, &pair.1, &target));
                seen.conflicts += 1;
                seen.conflict_sample.offer(pair.clone());
            }
            Comparison::SourceGone | Comparison::TargetMissing => {}
        }
    }
    Ok(())
}

/// Findings that follow from what was seen.
fn findings_of(seen: &Seen, obstacle: Option<&'static str>, scattered: u64) -> Vec<Finding> {
    let reason = |reason| seen.unmigrated.by_reason.get(&reason).copied().unwrap_or_default();
    let mut findings = Vec::new();
    if let Some(reason) = obstacle {
        let message = huge::refusal(reason);
        findings.push(Finding::error(FindingCode::HugeEntries, message));
    } else if seen.huge > 0 {
        let message = format!("{} entries take more than 1 MiB of memory; they are copied in pieces", seen.huge);
        findings.push(Finding::note(FindingCode::HugeEntries, message));
    }
    if scattered > 0 {
        let message = format!(
            "{scattered} entries belong to tenants whose id is empty or starts with '}}': their keys will not \
             share one slot, so Outpost can't use them on a cluster"
        );
        findings.push(Finding::warning(FindingCode::ScatteredTenant, message));
    }
    let braced = reason(UnmigratedReason::BracedTenant);
    if braced > 0 {
        let message = format!(
            "{braced} keys lie under tenants with a braced id, whose legacy and current names collide, so they stay \
             where they are and Outpost loses sight of them: move them by hand, or {}",
            how_to_accept(FindingCode::BracedTenant)
        );
        findings.push(Finding::error(FindingCode::BracedTenant, message));
    }
    if seen.mark_is_unproven && seen.lost_expiry > 0 {
        let message = format!(
            "{} targets equal their sources but for an expiry, which the tool that marked this migration dropped, so \
             that what was to end stays for ever: to put it back, {}",
            seen.lost_expiry,
            how_to_accept(FindingCode::LostExpiry)
        );
        findings.push(Finding::error(FindingCode::LostExpiry, message));
    }
    let ambiguous = reason(UnmigratedReason::AmbiguousTarget);
    if ambiguous > 0 {
        let message = format!(
            "{ambiguous} keys have ids for which the target's name could be another entity's; \
             they stay where they are: move them by hand"
        );
        findings.push(Finding::warning(FindingCode::AmbiguousTarget, message));
    }
    findings
}
