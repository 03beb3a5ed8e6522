//! What holds for every keyspace, however nasty its ids are.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::keyspace::{Keyspace, Stored, hash, summary, tombstone, with_id};
use super::scope;
use crate::migrations::KeyLayout;
use crate::migrations::Rename as _;
use crate::migrations::hash_tags::HashTags;
use crate::model::key::RedisKey;
use crate::model::mapping::Mapping;
use crate::model::slot::slot_of;

/// What a generated legacy key really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Entity,
    Tombstone,
}

/// A generated keyspace, and for each key of an entity its tenant, what it is, and its right
/// target under each layout.
#[derive(Debug, Clone, Default)]
struct Generated {
    keyspace: Keyspace,
    entities: BTreeMap<RedisKey, (String, Kind, RedisKey, RedisKey)>,
}

#[derive(Debug, Clone)]
struct Tenant {
    id: String,
    deleted: bool,
    destinations: Vec<(String, bool)>,
    is_current: bool,
}

impl Generated {
    fn of(tenants: &[Tenant], others: &[(String, bool)]) -> Self {
        let mut generated = Self::default();
        for tenant in tenants {
            if tenant.is_current { generated.add_current(tenant) } else { generated.add_legacy(tenant) }
        }
        for (name, is_hash) in others {
            let stored = if *is_hash { hash(&[("x", "y")]) } else { Stored::NotAHash };
            generated.keyspace.0.entry(name.as_str().into()).or_insert(stored);
        }
        generated
    }

    fn add_current(&mut self, tenant: &Tenant) {
        let id = &tenant.id;
        let mut put = |name: String, stored| {
            self.keyspace.0.entry(format!("tenant:{{{id}}}:{name}").into()).or_insert(stored);
        };
        put("tenant".to_owned(), if tenant.deleted { tombstone() } else { with_id(id) });
        for (destination, deleted) in &tenant.destinations {
            let stored = if *deleted || tenant.deleted { tombstone() } else { with_id(destination) };
            put(format!("destination:{destination}"), stored);
        }
    }

    fn add_legacy(&mut self, tenant: &Tenant) {
        let id = &tenant.id;
        if self.keyspace.0.contains_key(&RedisKey::from(format!("tenant:{id}"))) {
            return;
        }
        self.add(id, "", ":tenant", Kind::Entity, if tenant.deleted { tombstone() } else { with_id(id) });
        let mut listed = Vec::new();
        for (destination, deleted) in &tenant.destinations {
            let name = format!(":destination:{destination}");
            if *deleted || tenant.deleted {
                self.add(id, &name, &name, Kind::Tombstone, tombstone());
            } else {
                self.add(id, &name, &name, Kind::Entity, with_id(destination));
                listed.push(destination);
            }
        }
        if !listed.is_empty() {
            self.add(id, ":destinations", ":destinations", Kind::Entity, summary(&listed));
        }
    }

    /// Adds a key unless another entity has its name already.
    fn add(&mut self, tenant: &str, legacy: &str, current: &str, kind: Kind, stored: Stored) {
        let key = RedisKey::from(format!("tenant:{tenant}{legacy}"));
        if self.keyspace.0.contains_key(&key) {
            return;
        }
        let kind = if stored == tombstone() { Kind::Tombstone } else { kind };
        let outpost = RedisKey::from(format!("tenant:{{{tenant}}}{current}"));
        let tagged = RedisKey::from(format!("{{tenant:{tenant}}}{legacy}"));
        self.entities.insert(key.clone(), (tenant.to_owned(), kind, outpost, tagged));
        self.keyspace.0.insert(key, stored);
    }

    /// Every source with its target.
    fn targets(&self, layout: KeyLayout) -> BTreeMap<RedisKey, RedisKey> {
        let target = |key: &RedisKey| {
            let Mapping::Target { key: target, .. } = self.keyspace.map(layout, key) else { return None };
            Some((key.clone(), target))
        };
        self.keyspace.0.keys().filter_map(target).collect()
    }

    /// The keyspace after every copy whose target was free.
    fn copied(&self, targets: &BTreeMap<RedisKey, RedisKey>) -> Keyspace {
        let mut keyspace = self.keyspace.clone();
        for (source, target) in targets {
            let value = self.keyspace.0[source].clone();
            keyspace.0.entry(target.clone()).or_insert(value);
        }
        keyspace
    }

    /// What remains of that after every source that equals its target is removed, but for one.
    fn cleaned(copied: &Keyspace, targets: &BTreeMap<RedisKey, RedisKey>, but: Option<&RedisKey>) -> Keyspace {
        let is_done = |key: &RedisKey| targets.get(key).is_some_and(|target| copied.0[target] == copied.0[key]);
        let mut keyspace = copied.clone();
        keyspace.0.retain(|key, _| Some(key) == but || !is_done(key));
        keyspace
    }
}

/// Ids of the characters and words that names are made of.
fn id() -> impl Strategy<Value = String> {
    let parts = [
        "a",
        "b",
        ":",
        "{",
        "}",
        "*",
        "destination",
        "destinations",
        "tenant",
        "id",
        "deleted_at",
        "destination_summary",
        ":destination:",
        "}:destination:",
        "}:tenant",
        "}:destinations",
        "{a}",
        ":destinations",
    ];
    vec(select(parts.to_vec()), 0..4).prop_map(|parts| parts.concat())
}

fn tenant() -> impl Strategy<Value = Tenant> {
    (id(), prop::bool::weighted(0.2), vec((id(), prop::bool::weighted(0.3)), 0..3), prop::bool::weighted(0.15))
        .prop_map(|(id, deleted, destinations, is_current)| Tenant { id, deleted, destinations, is_current })
}

/// Tenants whose keys would get the same targets: `a` with `b}:destination:c`, `a}:destination:b` with `c`.
fn rivals(a: &str, b: &str) -> [Tenant; 2] {
    let destinations = ["destination:c", "tenant", "destinations"].map(|name| (format!("{b}}}:{name}"), false));
    let long = format!("{a}}}:destination:{b}");
    [(a.to_owned(), destinations.to_vec()), (long, vec![("c".to_owned(), false)])].map(|(id, destinations)| Tenant {
        id: format!("r{id}"),
        deleted: false,
        destinations,
        is_current: false,
    })
}

/// Tenants, of which some are called as parts of others are, and keys that are no entities.
fn generated() -> impl Strategy<Value = Generated> {
    let other = (select(vec!["tenant:", "destination_summary:", "{tenant:"]), id(), id(), any::<bool>())
        .prop_map(|(prefix, tenant, name, is_hash)| (format!("{prefix}{tenant}:{name}"), is_hash));
    (vec(tenant(), 1..5), vec(other, 0..3), any::<prop::sample::Index>(), id()).prop_map(
        |(mut tenants, mut others, index, suffix)| {
            let relative = index.get(&tenants).clone();
            tenants.push(Tenant { id: format!("{{{}}}", relative.id), ..relative.clone() });
            tenants.push(Tenant { id: format!("{}:{suffix}", relative.id), ..relative.clone() });
            tenants.extend(rivals(&relative.id, &suffix));
            for prefix in ["tenant:", "destination_summary:"] {
                others.push((format!("{prefix}{}:{suffix}", relative.id), false));
                others.push((format!("{prefix}{}:destination_summary:{suffix}", relative.id), false));
            }
            Generated::of(&tenants, &others)
        },
    )
}

fn layout() -> impl Strategy<Value = KeyLayout> {
    select(vec![KeyLayout::Outpost, KeyLayout::TenantTag])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn sources_and_targets_are_apart(generated in generated(), layout in layout()) {
        let targets = generated.targets(layout);
        let mut owners = BTreeMap::new();
        for (source, target) in &targets {
            prop_assert!(!targets.contains_key(target), "{} is a target and a source", target);
            let other = owners.insert(target, source);
            prop_assert!(other.is_none(), "{:?} and {} share {}", other, source, target);
        }
    }

    #[test]
    fn an_entity_goes_where_it_belongs_or_stays(generated in generated(), layout in layout()) {
        for (key, (_, kind, outpost, tagged)) in &generated.entities {
            let right = if layout == KeyLayout::Outpost { outpost } else { tagged };
            let mapping = generated.keyspace.map(layout, key);
            if let (Mapping::Target { key: target, .. }, Kind::Entity) = (&mapping, kind) {
                prop_assert_eq!(target, right);
            } else {
                let stays = matches!(mapping, Mapping::Target { .. } | Mapping::Unmigrated(_));
                prop_assert!(stays || *kind == Kind::Tombstone, "{} is {:?}", key, mapping);
            }
        }
    }

    #[test]
    fn the_keys_of_a_tenant_share_a_slot(generated in generated(), layout in layout()) {
        let mut slots = BTreeMap::new();
        for (key, target) in generated.targets(layout) {
            let Some((tenant, Kind::Entity, ..)) = generated.entities.get(&key) else { continue };
            let is_scattered = HashTags.is_scattered(&target);
            if layout == KeyLayout::Outpost {
                prop_assert_eq!(is_scattered, tenant.is_empty() || tenant.starts_with('}'), "{}", &target);
            }
            if !is_scattered {
                let slot = *slots.entry(tenant).or_insert_with(|| slot_of(&target));
                prop_assert_eq!(slot, slot_of(&target), "{} of {}", &target, tenant);
            }
        }
    }

    #[test]
    fn running_on_targets_changes_nothing(generated in generated(), layout in layout()) {
        let targets = generated.targets(layout);
        let copied = generated.copied(&targets);
        let cleaned = Generated::cleaned(&copied, &targets, None);
        for target in targets.values() {
            for keyspace in [&copied, &cleaned] {
                let mapping = keyspace.map(layout, target);
                let stays = matches!(mapping, Mapping::AlreadyCurrent { .. } | Mapping::Unmigrated(_));
                prop_assert!(stays, "{} becomes {:?}", target, mapping);
            }
        }
    }

    #[test]
    fn a_source_keeps_its_target_while_others_are_copied_and_removed(generated in generated(), layout in layout()) {
        let targets = generated.targets(layout);
        let copied = generated.copied(&targets);
        for (source, target) in &targets {
            let last = Generated::cleaned(&copied, &targets, Some(source));
            for keyspace in [&copied, &last] {
                let mapping = keyspace.map(layout, source);
                let is_same = matches!(&mapping, Mapping::Target { key, .. } if key == target);
                prop_assert!(is_same, "{} goes to {:?}, not to {}", source, mapping, target);
            }
        }
    }

    #[test]
    fn a_target_tells_its_source(generated in generated(), layout in layout()) {
        for (source, target) in generated.targets(layout) {
            let told = HashTags.sources_of(&scope(layout), &target);
            prop_assert!(told.contains(&source), "{} comes of {:?}, not of {}", target, told, source);
            prop_assert!(!HashTags.may_be_source(&scope(layout), &target));
        }
    }

    #[test]
    fn any_bytes_are_decided(rest in vec(any::<u8>(), 0..40), layout in layout()) {
        for prefix in ["", "tenant:", "tenant:{", "{tenant:", "destination_summary:"] {
            Keyspace::default().map(layout, &RedisKey::concat(&[prefix.as_bytes(), &rest]));
        }
    }
}
