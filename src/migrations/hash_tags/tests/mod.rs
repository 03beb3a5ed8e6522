//! Tests of `001_hash_tags`: tables for each rule, properties over generated keyspaces, and the
//! keyspaces that Outpost itself wrote.

mod fixtures;
mod keyspace;
mod outpost_layout;
mod properties;
mod tenant_tag_layout;

use rstest::rstest;

use crate::migrations::hash_tags::HashTags;
use crate::migrations::{Applicability, KeyLayout, Migration, Parameters, Rename, Scope};
use crate::model::key::RedisKey;
use crate::model::mapping::{Answers, Mapping, UnmigratedReason};

fn scope(key_layout: KeyLayout) -> Scope {
    Scope { deployment_id: None, parameters: Parameters { key_layout } }
}

fn target(key: &str, entity: &'static str) -> Mapping {
    Mapping::Target { key: RedisKey::from(key), entity }
}

fn current(entity: &'static str) -> Mapping {
    Mapping::AlreadyCurrent { entity }
}

fn unmigrated(reason: UnmigratedReason) -> Mapping {
    Mapping::Unmigrated(reason)
}

#[rstest]
#[case::outpost(KeyLayout::Outpost, &["tenant:", "destination_summary:"])]
#[case::tenant_tag(KeyLayout::TenantTag, &["tenant:", "destination_summary:", "{tenant:"])]
fn it_wants_to_see_only_its_prefixes(#[case] layout: KeyLayout, #[case] expected: &[&str]) {
    let prefixes = HashTags.prefixes(&scope(layout));
    assert_eq!(prefixes, expected.iter().map(|prefix| prefix.as_bytes().to_vec()).collect::<Vec<_>>());
}

#[rstest]
#[case("tenancy:1")]
#[case("session:{tenant:1}")]
#[case("tenant")]
#[case("xtenant:a")]
#[case("")]
#[case("dp_001:tenant:{a}:tenant")]
#[case("outpost:migration:001_hash_tags")]
fn other_keys_are_not_ours(#[case] key: &str) {
    for layout in [KeyLayout::Outpost, KeyLayout::TenantTag] {
        assert_eq!(HashTags.map(&scope(layout), &key.into(), &Answers::none()), Mapping::NotOurs);
    }
}

#[test]
fn a_deployment_id_leaves_nothing_to_do() {
    let scope = Scope { deployment_id: Some("dp_001".to_owned()), ..Scope::default() };
    assert!(matches!(HashTags.is_applicable(&scope), Applicability::NotApplicable(_)));
    assert!(HashTags.prefixes(&scope).is_empty());
    assert_eq!(HashTags.map(&scope, &"tenant:a".into(), &Answers::none()), Mapping::NotOurs);
}

#[rstest]
#[case("tenant:{a}:tenant", false)]
#[case("tenant:{a}b}:destinations", false)]
#[case("tenant:{{a}}:tenant", false)]
#[case("tenant:{}:tenant", true)]
#[case("tenant:{}x}:destination:d", true)]
#[case("{tenant:}", false)]
#[case("{tenant:}x}", false)]
fn ids_that_make_an_empty_hash_tag_scatter(#[case] target: &str, #[case] scattered: bool) {
    assert_eq!(HashTags.is_scattered(&target.into()), scattered);
}
