//! What Redis says about a migration before any work: Redis outranks whatever was remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::assignment::Assignment;
use crate::engine::journal::{self, Owner, RunRecord};
use crate::engine::stop::Stop;
use crate::keyspace::{Keyspace, Writer};
use crate::migrations::state_keys::StateKeys;
use crate::migrations::{Applicability, Migration, Registry, Scope};
use crate::model::key::RedisKey;
use crate::model::mark::{INIT_CLAIM, INIT_TOKEN, Mark};
use crate::model::time::UnixMillis;

/// What Redis says about a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The migration's mark.
    pub mark: Mark,
    /// Name of the migration before it, if that is not proven yet.
    pub predecessor_pending: Option<&'static str>,
    /// Why the migration never applies to this keyspace, if so.
    pub not_applicable: Option<&'static str>,
    /// The run hash.
    pub run: RunRecord,
    /// Who owns the migration: by the run hash, or by the mark, which outlives it.
    pub owner: Option<Owner>,
}

impl Survey {
    /// Who owns the migration, if it is not `me`.
    #[must_use]
    pub fn other_owner(&self, me: &Owner) -> Option<&Owner> {
        self.owner.as_ref().filter(|owner| owner.uid != me.uid)
    }
}

/// What Redis says about each migration of a registry.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The migration.
    pub migration: Arc<dyn Migration>,
    /// Its mark.
    pub mark: Mark,
    /// When it was marked, whoever did it.
    pub applied_at: Option<UnixMillis>,
    /// The token of an initialisation that began to mark it and did not end.
    pub claim: Option<String>,
    /// Why it never applies to this keyspace, if so.
    pub not_applicable: Option<&'static str>,
}

/// Reads the mark of every migration: one round trip to each primary that owns one.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn standings(keyspace: &Keyspace, registry: &Registry, scope: &Scope) -> Result<Vec<Standing>, Stop> {
    let names = StateKeys::new(scope.deployment_id.as_deref());
    let keys: Vec<RedisKey> = registry.iter().map(|migration| names.mark(migration.name())).collect();
    let hashes = keyspace.hashes(&keys).await?;
    let mut standings: Vec<Standing> =
        registry.iter().zip(&hashes).map(|(migration, fields)| standing(migration, fields, scope)).collect();
    let open: Vec<String> = standings.iter().filter_map(|standing| standing.claim.clone()).collect();
    for (standing, fields) in standings.iter_mut().zip(&hashes) {
        // An initialisation that stamped some and still claims others did not end either.
        let stamped_by = text(fields, INIT_TOKEN).filter(|token| open.contains(token));
        if stamped_by.is_some() && text(fields, "verified_at").is_none() {
            (standing.mark, standing.claim) = (Mark::Absent, stamped_by);
        }
    }
    Ok(standings)
}

fn text(fields: &BTreeMap<Vec<u8>, Vec<u8>>, name: &str) -> Option<String> {
    fields.get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
}

fn standing(migration: &Arc<dyn Migration>, fields: &BTreeMap<Vec<u8>, Vec<u8>>, scope: &Scope) -> Standing {
    let mark = Mark::from_fields(fields);
    Standing {
        applied_at: text(fields, "applied_at").and_then(|text| UnixMillis::parse_rfc3339(&text)),
        claim: text(fields, INIT_CLAIM).filter(|_| mark == Mark::Absent),
        mark,
        not_applicable: not_applicable(migration.as_ref(), scope),
        migration: Arc::clone(migration),
    }
}

fn not_applicable(migration: &dyn Migration, scope: &Scope) -> Option<&'static str> {
    match migration.is_applicable(scope) {
        Applicability::Applicable => None,
        Applicability::NotApplicable(reason) => Some(reason),
    }
}

/// Looks at marks and run hash; writes nothing.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn survey(keyspace: &Keyspace, assignment: &Assignment) -> Result<Survey, Stop> {
    let standings = standings(keyspace, &assignment.registry, &assignment.scope).await?;
    let mark = mark_of(&standings, assignment.migration.name());
    let run = journal::read_run(keyspace, assignment).await?;
    Ok(Survey {
        owner: run.owner.clone().or(owner_by_mark(&mark)),
        predecessor_pending: predecessor_pending(&standings, assignment),
        mark,
        not_applicable: not_applicable(assignment.migration.as_ref(), &assignment.scope),
        run,
    })
}

fn mark_of(standings: &[Standing], name: &str) -> Mark {
    let standing = standings.iter().find(|standing| standing.migration.name() == name);
    standing.map_or(Mark::Absent, |standing| standing.mark.clone())
}

fn owner_by_mark(mark: &Mark) -> Option<Owner> {
    match mark {
        Mark::Stamped(stamp) => stamp.owner.clone().map(|(uid, resource)| Owner { uid, resource }),
        Mark::Absent | Mark::Unstamped | Mark::NotApplicable => None,
    }
}

fn predecessor_pending(standings: &[Standing], assignment: &Assignment) -> Option<&'static str> {
    let predecessor = assignment.registry.predecessor(assignment.migration.as_ref())?;
    if not_applicable(predecessor.as_ref(), &assignment.scope).is_some() {
        return None;
    }
    // Behind another tool's mark that proves false, what it is to bring is still to come, and would miss this one.
    match mark_of(standings, predecessor.name()) {
        Mark::Absent | Mark::Unstamped => Some(predecessor.name()),
        Mark::Stamped(stamp) if !stamp.is_for(&assignment.terms.parameters) => Some(predecessor.name()),
        Mark::Stamped(_) | Mark::NotApplicable => None,
    }
}

/// Marks a migration that never applies to this keyspace, unless a mark stands already.
///
/// # Errors
/// Whatever kept Redis from answering.
pub async fn mark_not_applicable(
    writer: &Writer,
    assignment: &Assignment,
    reason: &str,
    now: UnixMillis,
) -> Result<(), Stop> {
    let fields = [
        ("status", "not_applicable".to_owned()),
        ("reason", reason.to_owned()),
        ("checked_at", now.to_string()),
        ("tool_version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    writer.write_mark_if_absent(&assignment.mark_key(), &fields).await?;
    Ok(())
}
