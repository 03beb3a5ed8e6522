//! What a step found or did, when it ended.

use serde::Serialize;

use crate::model::count::{Lasting, Sample, Unmigrated};
use crate::model::difference::Difference;
use crate::model::entry::Expiry;
use crate::model::finding::Finding;
use crate::model::key::RedisKey;

/// Most differences that a comparison tells one by one.
pub const DIFFERENCES_LIMIT: usize = 100;

/// What apply did, entry by entry; the numbers add up to the sources seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ApplyReport {
    /// Entries copied by this pass.
    pub copied: u64,
    /// Targets that equalled their source already.
    pub already_migrated: u64,
    /// Own stale copies, or conflicts under `PreferSource`, replaced by their source.
    pub replaced: u64,
    /// Entries changed in place by this pass.
    pub changed: u64,
    /// Entries that kept changing while they were worked on; another pass has to look at them.
    pub unsettled: u64,
    /// Targets that differ and were kept.
    pub conflicts: u64,
    /// Examples of these: source and target.
    pub conflict_sample: Sample<(RedisKey, RedisKey)>,
    /// Of these, targets that lost the expiry of their source and equal it otherwise.
    pub lost_expiry: u64,
    /// Targets that got back an expiry which an earlier tool had dropped, before this pass.
    pub expiries_put_back: u64,
    /// Sources that ended (expired or were deleted) before they were copied.
    pub ended: u64,
    /// Keys that no rule maps, among those it looked at: a pass that copies first leaves out names that only targets
    /// have. Complete after a pass that compared first.
    pub unmigrated: Unmigrated,
    /// Keys in current form that never expire; complete after a pass that compared first and wrote nothing.
    #[serde(skip)]
    pub lasting: Lasting,
}

impl ApplyReport {
    /// Counts a target that equals its source.
    pub fn count_equal(&mut self, expires: bool) {
        self.already_migrated += 1;
        self.lasting.count_target(expires);
    }

    /// Counts a target that differs from its source and is kept.
    pub fn count_conflict(&mut self, pair: (RedisKey, RedisKey), expiry_of_target: Expiry) {
        self.conflicts += 1;
        self.conflict_sample.offer(pair);
        self.lasting.count_target(expiry_of_target != Expiry::Never);
    }

    /// Source entries dealt with.
    #[must_use]
    pub fn processed(&self) -> u64 {
        self.copied
            + self.already_migrated
            + self.replaced
            + self.changed
            + self.unsettled
            + self.conflicts
            + self.ended
    }

    /// Entries that this pass wrote.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.copied + self.replaced + self.changed
    }

    /// Adds the report of another part of the keyspace.
    pub fn merge(&mut self, other: Self) {
        self.copied += other.copied;
        self.already_migrated += other.already_migrated;
        self.replaced += other.replaced;
        self.changed += other.changed;
        self.unsettled += other.unsettled;
        self.conflicts += other.conflicts;
        self.ended += other.ended;
        self.conflict_sample.merge(other.conflict_sample);
        self.lost_expiry += other.lost_expiry;
        self.expiries_put_back += other.expiries_put_back;
        self.unmigrated.merge(other.unmigrated);
        self.lasting.merge(other.lasting);
    }
}

/// What a complete comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Entries that are as they should be: sources whose target equals them, or entries in current form.
    pub equal: u64,
    /// Sources whose target is missing or differs (before the mark a lack, after it diverged), or entries
    /// that the migration would still change.
    pub different: u64,
    /// Of these, entries to which the migration was not applied: without a target, or still to be changed.
    pub unapplied: u64,
    /// Of the different ones, targets that lost the expiry of their source and equal it otherwise: an earlier tool copied
    /// without.
    pub lost_expiry: u64,
    /// Targets that got back an expiry which an earlier tool had dropped, before they were compared.
    pub expiries_put_back: u64,
    /// The first of the different ones: key and how it differs.
    pub sample: Sample<(RedisKey, Difference), DIFFERENCES_LIMIT>,
    /// The first of the unapplied ones.
    pub unapplied_sample: Sample<RedisKey, DIFFERENCES_LIMIT>,
    /// Sources that ended while being compared.
    pub ended: u64,
    /// Keys that no rule maps.
    pub unmigrated: Unmigrated,
    /// What would have kept the mark back, and was accepted.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Source entries compared.
    #[must_use]
    pub fn processed(&self) -> u64 {
        self.equal + self.different + self.ended
    }

    /// Adds the report of another part of the keyspace.
    pub fn merge(&mut self, other: Self) {
        self.equal += other.equal;
        self.different += other.different;
        self.unapplied += other.unapplied;
        self.unapplied_sample.merge(other.unapplied_sample);
        self.lost_expiry += other.lost_expiry;
        self.expiries_put_back += other.expiries_put_back;
        self.ended += other.ended;
        self.sample.merge(other.sample);
        self.unmigrated.merge(other.unmigrated);
        self.findings.extend(other.findings);
    }
}

/// What cleanup removed and kept. It does not tell how many keys no rule maps: it does not look at names that only
/// targets have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CleanupReport {
    /// Originals removed.
    pub removed: u64,
    /// Originals removed by attempts before this one that did not come to their end.
    pub removed_before: u64,
    /// Originals kept because their target is diverged.
    pub kept_diverged: u64,
    /// Originals kept because they changed between comparison and removal.
    pub kept_changed: u64,
    /// Originals kept because they show whose the keys under them are.
    pub kept_as_signs: u64,
    /// Originals that were gone before they could be removed.
    pub gone: u64,
    /// Examples of kept originals.
    pub kept_sample: Sample<RedisKey>,
    /// What was found about the servers and did not block.
    pub findings: Vec<Finding>,
}

impl CleanupReport {
    /// Originals dealt with.
    #[must_use]
    pub fn processed(&self) -> u64 {
        self.removed + self.kept() + self.gone
    }

    /// Originals kept.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept_diverged + self.kept_changed + self.kept_as_signs
    }

    /// Adds the report of another part of the keyspace.
    pub fn merge(&mut self, other: Self) {
        self.removed += other.removed;
        self.removed_before += other.removed_before;
        self.kept_diverged += other.kept_diverged;
        self.kept_changed += other.kept_changed;
        self.kept_as_signs += other.kept_as_signs;
        self.gone += other.gone;
        self.kept_sample.merge(other.kept_sample);
        self.findings.extend(other.findings);
    }
}
