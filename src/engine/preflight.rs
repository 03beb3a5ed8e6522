//! Checks made before anything is written.
//!
//! Owns what each fact about the servers means for a migration: pure functions over facts, and the
//! reading of those facts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::assignment::Assignment;
use crate::engine::stop::Stop;
use crate::keyspace::Keyspace;
use crate::keyspace::certificate::{CertificateEnd, Whose};
use crate::keyspace::dialect::Dialect;
use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::server::{Permission, ServerFacts};
use crate::keyspace::topology::Topology;
use crate::migrations::Rule;
use crate::model::admission::MEMORY_HOLD;
use crate::model::estimate::Estimate;
use crate::model::finding::{Finding, FindingCode};
use crate::model::key::RedisKey;
use crate::model::policy::MinReplicas;
use crate::model::time::UnixMillis;

/// A certificate that ends within this time is worth a warning.
const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// Share of the memory limit that copies may fill before a warning becomes an error, in percent.
const MEMORY_WARNING: u64 = 80;

/// Every finding about servers, cluster and user. `needed` is what the copies will
/// take, by the primary they go to, `example` a source
/// with its target; without one there is nothing that permissions would be needed for.
pub(super) async fn findings(
    keyspace: &Keyspace,
    assignment: &Assignment,
    needed: &BTreeMap<NodeAddress, Estimate>,
    example: Option<&(RedisKey, RedisKey)>,
) -> Result<Vec<Finding>, Stop> {
    let topology = keyspace.topology().await;
    let facts = keyspace.server_facts().await?;
    let mut findings = cluster(&topology);
    for server in &facts {
        let needed = needed.get(&server.node).copied().unwrap_or_default();
        let checks = [version(server), eviction(server), memory(server, needed), persistence(server)];
        findings.extend(checks.into_iter().flatten());
    }
    findings.extend(replicas(&facts, assignment.min_replicas));
    findings.extend(keyspace.certificate_ends().await.iter().filter_map(|end| certificate(end, now())));
    if let Some(example) = example {
        // The oldest server decides what can be asked of all of them.
        let dialect = facts.iter().filter_map(|server| server.dialect).min().unwrap_or(Dialect::Relative);
        findings.extend(permissions(keyspace, assignment, example, dialect).await?);
    }
    Ok(findings)
}

fn now() -> UnixMillis {
    UnixMillis(jiff::Timestamp::now().as_millisecond())
}

fn certificate(end: &CertificateEnd, now: UnixMillis) -> Option<Finding> {
    let whose = match &end.whose {
        Whose::Server(node) => format!("the certificate of {node}"),
        Whose::Ours => "our client certificate".to_owned(),
    };
    let left = end.not_after.0.saturating_sub(now.0);
    (left < CERTIFICATE_WARNING.as_millis().try_into().unwrap_or(i64::MAX)).then(|| {
        let message = match left {
            ..=0 => format!("{whose} has expired at {}; renew it", end.not_after),
            _ => format!("{whose} ends at {}; renew it in time", end.not_after),
        };
        Finding::warning(FindingCode::Certificate, message)
    })
}

fn version(server: &ServerFacts) -> Option<Finding> {
    let (major, minor, patch) = server.version;
    server.dialect.is_none().then(|| {
        let message = format!("{} runs Redis {major}.{minor}.{patch}; 6.2 or newer is needed", server.node);
        Finding::error(FindingCode::RedisVersion, message)
    })
}

fn eviction(server: &ServerFacts) -> Option<Finding> {
    let evicts = server.eviction_policy.starts_with("allkeys-") || server.eviction_policy.starts_with("volatile-");
    (server.max_memory > 0 && evicts).then(|| {
        let message = format!(
            "{} has a memory limit with the policy {}: copies could push out originals; \
             set maxmemory-policy noeviction for the migration",
            server.node, server.eviction_policy
        );
        Finding::error(FindingCode::EvictionPolicy, message)
    })
}

fn memory(server: &ServerFacts, needed: Estimate) -> Option<Finding> {
    if server.max_memory == 0 || needed.bytes() == 0 {
        return None;
    }
    // Apply itself stops short of the limit.
    let free = (server.max_memory / 100 * MEMORY_HOLD).saturating_sub(server.used_memory);
    let left = server.max_memory.saturating_sub(server.used_memory);
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    let error = match needed.error() {
        0 => String::new(),
        error => format!(" (give or take {})", mib(error)),
    };
    let message = format!(
        "{} needs about {} MiB{error} for the copies of {} entries and has {} MiB free, of which {} are kept clear; \
         raise its maxmemory or free memory",
        server.node,
        mib(needed.bytes()),
        needed.count(),
        left / (1024 * 1024),
        mib(left - free.min(left)),
    );
    let most = needed.bytes().saturating_add(needed.error());
    let is_close = server.used_memory.saturating_add(most) > server.max_memory / 100 * MEMORY_WARNING;
    if most > free {
        Some(Finding::error(FindingCode::Memory, message))
    } else {
        is_close.then(|| Finding::warning(FindingCode::Memory, message))
    }
}

fn persistence(server: &ServerFacts) -> Option<Finding> {
    (server.snapshot_failing || server.append_failing).then(|| {
        let message = format!("the last snapshot or append-only write of {} failed; check its disk", server.node);
        Finding::error(FindingCode::Persistence, message)
    })
}

fn replicas(facts: &[ServerFacts], min: MinReplicas) -> Option<Finding> {
    let short = facts.iter().find(|server| server.online_replicas < min.required(server.replicas));
    if let Some(server) = short {
        let message = format!(
            "{} has {} replicas, of which {} are online; {} must acknowledge: bring replicas back, CLUSTER FORGET those \
             that are gone for good, or lower minReplicas (--min-replicas)",
            server.node,
            server.replicas,
            server.online_replicas,
            min.required(server.replicas)
        );
        return Some(Finding::error(FindingCode::Replicas, message));
    }
    let alone = facts.iter().filter(|server| server.replicas == 0).count();
    (alone > 0).then(|| {
        let message = format!("{alone} of {} primaries have no replica to acknowledge the copies", facts.len());
        Finding::note(FindingCode::Replicas, message)
    })
}

fn cluster(topology: &Topology) -> Vec<Finding> {
    let mut findings = Vec::new();
    let unowned = topology.unowned();
    if !unowned.is_empty() {
        let message = format!("{} slots have no primary that answers; bring the cluster back first", unowned.len());
        findings.push(Finding::error(FindingCode::ClusterState, message));
    }
    if let Some(silent) = topology.silent.first() {
        let message = format!("the primary {silent}; bring it back, or CLUSTER FORGET it if it is gone for good");
        findings.push(Finding::error(FindingCode::ClusterState, message));
    }
    findings.extend(topology.failed.iter().map(|failed| {
        let message = format!(
            "the primary {failed} is called failed and owns no slots: keys that were half-moved to it, if any, are seen by \
             nobody; bring it back first, or CLUSTER FORGET it if it is gone for good (nothing is lost with one that its \
             replica has replaced)"
        );
        Finding::warning(FindingCode::FailedPrimary, message)
    }));
    let open = topology.open();
    if let Some(first) = open.iter().next() {
        let message = format!("{} slots are half-moved (slot {first} first); finish with CLUSTER SETSLOT", open.len());
        findings.push(Finding::warning(FindingCode::OpenSlots, message));
    }
    findings
}

/// Commands that apply, verify and cleanup run, each on a key of the kind that it touches.
fn commands(assignment: &Assignment, (source, target): &(RedisKey, RedisKey), dialect: Dialect) -> Vec<Vec<Vec<u8>>> {
    let (mark, lock) = (assignment.mark_key(), assignment.state_keys().locks().swap_remove(0));
    let (source, target) = (source.as_bytes(), target.as_bytes());
    let command = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect();
    let on_entries: Vec<Vec<Vec<u8>>> = match assignment.rule() {
        Rule::Rename(_) => vec![
            command(&[b"DUMP", source]),
            command(&[b"COPY", source, target]),
            command(&[b"RESTORE", target, b"0", b"x"]),
            command(&[b"UNLINK", source]),
        ],
        Rule::InPlace(_) => vec![command(&[b"HSET", target, b"id", b"x"])],
    };
    let always = [
        command(&[b"SCAN", b"0"]),
        command(&[b"HMGET", source, b"id"]),
        command(&[b"EVALSHA", b"x", b"1", source]),
        command(&[b"SCRIPT", b"LOAD", b"x"]),
        command(&[b"WATCH", target]),
        command(&[b"HSCAN", source, b"0"]),
        command(&[b"RENAMENX", mark.as_bytes(), target]),
        command(&[b"PERSIST", target]),
        command(&[b"PEXPIREAT", target, b"1"]),
        command(&[b"MULTI"]),
        command(&[b"EXEC"]),
        command(&[b"HSET", mark.as_bytes(), b"status", b"x"]),
        command(&[b"SET", lock.as_bytes(), b"x"]),
        command(&[b"WAIT", b"0", b"0"]),
    ];
    let by_dialect = match dialect {
        Dialect::Relative => vec![command(&[b"PTTL", source]), command(&[b"TIME"])],
        Dialect::Absolute => vec![command(&[b"PEXPIRETIME", source])],
        Dialect::FieldExpiry => vec![
            command(&[b"PEXPIRETIME", source]),
            command(&[b"HPEXPIRETIME", source, b"FIELDS", b"1", b"x"]),
            command(&[b"HPEXPIREAT", target, b"1", b"FIELDS", b"1", b"x"]),
        ],
    };
    on_entries.into_iter().chain(always).chain(by_dialect).collect()
}

async fn permissions(
    keyspace: &Keyspace,
    assignment: &Assignment,
    example: &(RedisKey, RedisKey),
    dialect: Dialect,
) -> Result<Vec<Finding>, Stop> {
    if !dialect.has_dry_run() {
        let message = "Redis before 7.0 does not tell a user's permissions (ACL DRYRUN), so they were not checked";
        return Ok(vec![Finding::note(FindingCode::CheckNotPermitted, message)]);
    }
    let mut findings = Vec::new();
    for command in commands(assignment, example, dialect) {
        match keyspace.permission(&command).await? {
            Permission::Granted => {}
            Permission::Denied => {
                let name = command.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
                let message = format!("the Redis user may not run {name}; compare it with the ACL in the README");
                findings.push(Finding::error(FindingCode::Permissions, message));
            }
            Permission::Unknown => {
                let message =
                    "the Redis user may not ask for its own permissions (ACL DRYRUN), so they were not checked";
                return Ok(vec![Finding::note(FindingCode::CheckNotPermitted, message)]);
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::finding::Severity;

    fn needing(bytes: u64) -> Estimate {
        let mut needed = Estimate::default();
        needed.measured(bytes);
        needed
    }

    fn server() -> ServerFacts {
        ServerFacts {
            node: NodeAddress { host: "h".into(), port: 1 },
            version: (7, 0, 15),
            dialect: Some(Dialect::Absolute),
            used_memory: 100 << 20,
            max_memory: 0,
            eviction_policy: "noeviction".into(),
            replicas: 1,
            online_replicas: 1,
            snapshot_failing: false,
            append_failing: false,
        }
    }

    #[test]
    fn a_healthy_server_gives_no_finding() {
        let server = server();
        assert_eq!(version(&server), None);
        assert_eq!(eviction(&server), None);
        assert_eq!(memory(&server, needing(1 << 40)), None);
        assert_eq!(persistence(&server), None);
        assert_eq!(replicas(&[server], MinReplicas::OneIfAny), None);
    }

    #[test]
    fn an_evicting_policy_blocks_only_with_a_limit() {
        let lru = ServerFacts { eviction_policy: "allkeys-lru".into(), ..server() };
        assert_eq!(eviction(&lru), None);
        let limited = ServerFacts { max_memory: 1 << 30, ..lru };
        assert_eq!(eviction(&limited).map(|finding| finding.severity), Some(Severity::Error));
        let volatile = ServerFacts { eviction_policy: "volatile-ttl".into(), ..limited };
        assert_eq!(eviction(&volatile).map(|finding| finding.severity), Some(Severity::Error));
    }

    #[test]
    fn a_certificate_that_ends_soon_is_a_warning() {
        let day = 24 * 3600 * 1000;
        let ends = |days: i64| CertificateEnd { whose: Whose::Ours, not_after: UnixMillis(days * day) };
        assert_eq!(certificate(&ends(15), UnixMillis(0)), None);
        let soon = certificate(&ends(13), UnixMillis(0)).map(|it| (it.severity, it.message));
        let message = "our client certificate ends at 1970-01-14T00:00:00Z; renew it in time".to_owned();
        assert_eq!(soon, Some((Severity::Warning, message)));
    }

    #[test]
    fn copies_must_fit() {
        let limited = ServerFacts { max_memory: 200 << 20, ..server() };
        let severity = |bytes| memory(&limited, needing(bytes)).map(|finding| finding.severity);
        assert_eq!(severity(10 << 20), None);
        assert_eq!(severity(70 << 20), Some(Severity::Warning));
        assert_eq!(severity(91 << 20), Some(Severity::Error), "apply would wait at 95 percent");
        let told = memory(&limited, needing(101 << 20)).map(|finding| finding.message);
        let message = "h:1 needs about 101 MiB for the copies of 1 entries and has 100 MiB free, of which 10 are kept \
                       clear; raise its maxmemory or free memory";
        assert_eq!(told.as_deref(), Some(message));
    }

    #[test]
    fn what_an_estimate_may_be_off_counts_too() {
        let limited = ServerFacts { max_memory: 200 << 20, ..server() };
        let mut needed = Estimate::default();
        (0..100).for_each(|number| needed.measured(number % 2 * (1 << 20)));
        needed.unmeasured(70);
        let finding = memory(&limited, needed).expect("a finding");
        assert!(needed.bytes() < 90 << 20, "it would just fit");
        assert_eq!(finding.severity, Severity::Error, "{}", finding.message);
        assert!(finding.message.contains("give or take"), "{}", finding.message);
    }

    #[test]
    fn replicas_are_an_error_only_when_asked_for() {
        let alone = ServerFacts { replicas: 0, online_replicas: 0, ..server() };
        let severity = |min| replicas(std::slice::from_ref(&alone), min).map(|finding| finding.severity);
        assert_eq!(severity(MinReplicas::OneIfAny), Some(Severity::Note));
        assert_eq!(severity(MinReplicas::Exactly(1)), Some(Severity::Error));
    }

    #[test]
    fn a_replica_that_is_away_owes_its_acknowledgement() {
        let with = |replicas, online_replicas| ServerFacts { replicas, online_replicas, ..server() };
        let severity = |server: ServerFacts, min| replicas(&[server], min).map(|finding| finding.severity);
        for (server, min, expected) in [
            (with(1, 1), MinReplicas::OneIfAny, None),
            (with(1, 0), MinReplicas::OneIfAny, Some(Severity::Error)),
            (with(2, 1), MinReplicas::OneIfAny, None),
            (with(2, 1), MinReplicas::Exactly(2), Some(Severity::Error)),
            (with(1, 0), MinReplicas::Exactly(0), None),
        ] {
            assert_eq!(severity(server.clone(), min), expected, "{server:?} {min:?}");
        }
    }

    #[test]
    fn an_old_server_is_an_error() {
        let old = ServerFacts { version: (6, 0, 16), dialect: None, ..server() };
        assert!(version(&old).is_some_and(|finding| finding.message.contains("6.0.16")));
    }
}
