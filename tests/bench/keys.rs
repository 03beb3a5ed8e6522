//! The keyspace of a run: seeded entries of Outpost before v0.6 in servers of its own, and what has to be asked
//! about each.
//!
//! Owns where keys lie. Sources and targets are the tests' own opinion; the reads that the migration needs are
//! asked of the migration, so that the limit follows it.

use outpost_migrate_redis::migrations::{KeyLayout, Parameters, Registry, Rule, Scope};
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::mapping::{Answers, Mapping, Probe};

use crate::raw::{self, Lane};
use crate::support::expectation::expected_target;
use crate::support::generator::Generator;
use crate::support::load::load;
use crate::support::redis_client::{Endpoint, slot};
use crate::support::value::{Bytes, Entry};

const SEED: u64 = 42;

/// Tenants that are generated and written together.
const CHUNK: usize = 20_000;

/// One source, its target, and the numbers of the primaries that own them.
pub struct Pair {
    pub source: Bytes,
    pub target: Bytes,
    pub from: usize,
    pub to: usize,
}

/// A keyspace of Outpost in a server or cluster.
pub struct Keys {
    pub redis: Endpoint,
    /// The primaries' ports.
    pub ports: Vec<u16>,
    pub pairs: Vec<Pair>,
    /// The pairs whose source each primary owns.
    pub by_source: Vec<Vec<usize>>,
    /// The pairs whose target each primary owns.
    pub by_target: Vec<Vec<usize>>,
    /// For each primary, the commands by which ambiguous keys are told.
    pub probes: Vec<Vec<Bytes>>,
    generator: Generator,
}

impl Keys {
    /// At least so many entries, loaded.
    pub async fn load(redis: Endpoint, entries: usize) -> Self {
        let primaries = redis.primaries().await;
        let owner = |key: &[u8]| primaries.iter().position(|primary| primary.owns(slot(key))).expect("an owner");
        let mut generator = Generator::new(SEED, 0);
        let mut pairs = Vec::with_capacity(entries);
        while pairs.len() < entries {
            for Entry { key, value, .. } in generator.tenant(generator.tenants) {
                let target = expected_target(&key, &value).expect("a generated entry is a source");
                let (from, to) = (owner(&key), owner(&target));
                pairs.push(Pair { source: key, target, from, to });
            }
            generator.tenants += 1;
        }
        let ports: Vec<u16> = primaries.iter().map(|primary| primary.port).collect();
        let mut by_source = vec![Vec::new(); ports.len()];
        let mut by_target = vec![Vec::new(); ports.len()];
        for (index, pair) in pairs.iter().enumerate() {
            by_source[pair.from].push(index);
            by_target[pair.to].push(index);
        }
        let probes = by_source.iter().map(|part| probes(part.iter().map(|&index| &pairs[index].source))).collect();
        let keys = Self { redis, ports, pairs, by_source, by_target, probes, generator };
        keys.reload().await;
        keys
    }

    /// Everything as it was before any migration.
    pub async fn reload(&self) {
        self.ports.iter().for_each(|&port| {
            Lane::open(port).ask(&[b"FLUSHALL"]);
        });
        for first in (0..self.generator.tenants).step_by(CHUNK) {
            let numbers = first..(first + CHUNK).min(self.generator.tenants);
            load(&self.redis, numbers.flat_map(|number| self.generator.tenant(number))).await;
        }
        assert_eq!(self.size(), self.pairs.len(), "every source was loaded");
    }

    /// Keys there are.
    pub fn size(&self) -> usize {
        let size = |&port: &u16| match Lane::open(port).ask(&[b"DBSIZE"]) {
            raw::Answer::Int(keys) => usize::try_from(keys).expect("a count"),
            _ => panic!("DBSIZE answers a number"),
        };
        self.ports.iter().map(size).sum()
    }
}

/// What the migration asks first about each key, as commands on the wire with one answer each.
fn probes<'a>(sources: impl Iterator<Item = &'a Bytes>) -> Vec<Bytes> {
    let migration = Registry::outpost().get("001_hash_tags").expect("a known migration");
    let Rule::Rename(rename) = migration.rule() else { panic!("a renaming migration") };
    let scope = Scope { deployment_id: None, parameters: Parameters { key_layout: KeyLayout::Outpost } };
    let mut commands = Vec::new();
    let mut command = |arguments: &[&[u8]]| {
        let mut out = Vec::new();
        raw::encode(&mut out, arguments);
        commands.push(out);
    };
    for source in sources {
        let Mapping::Need(probes) = rename.map(&scope, &RedisKey::new(source.clone()), &Answers::none()) else {
            continue;
        };
        for probe in probes {
            match probe {
                Probe::Fields { key, fields } => {
                    let fields = fields.iter().map(|field| field.as_bytes());
                    let words = [&b"HMGET"[..], key.as_bytes()].into_iter().chain(fields);
                    command(&words.collect::<Vec<_>>());
                }
                Probe::Shape { key } => {
                    command(&[b"HLEN", key.as_bytes()]);
                    command(&[b"PTTL", key.as_bytes()]);
                }
            }
        }
    }
    commands
}
