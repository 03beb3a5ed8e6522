//! Tables of the rules of Outpost's layout.

use rstest::rstest;

use super::keyspace::{Keyspace, Stored, hash, summary, tombstone, with_id};
use super::{current, scope, target, unmigrated};
use crate::migrations::hash_tags::HashTags;
use crate::migrations::{KeyLayout, Rename as _};
use crate::model::key::RedisKey;
use crate::model::mapping::UnmigratedReason::{
    Ambiguous, AmbiguousTarget, BracedTenant, DocumentedNameOnly, WrongContent, WrongType,
};
use crate::model::mapping::{Answer, Belongs, Mapping};

const JSON: &str = r#"{"type":"webhook"}"#;
const DATE: &str = "2025-01-01T00:00:00Z";

fn map(keyspace: &Keyspace, key: &str) -> Mapping {
    keyspace.map(KeyLayout::Outpost, &RedisKey::from(key))
}

#[rstest]
fn every_id_is_mapped(
    #[values(
        "a",
        "org:acme",
        "a*b",
        "b{race",
        "a}b",
        "{a}",
        "{a}b",
        "sp ace",
        "ünï",
        "",
        "}x",
        "a:destination:b",
        "a:destinations",
        "a:tenant",
        "{a",
        "?[x]",
        ":",
        "destinations"
    )]
    id: &'static str,
) {
    let [tenant, list, destination] =
        [format!("tenant:{id}"), format!("tenant:{id}:destinations"), format!("tenant:{id}:destination:d:1")];
    let keyspace = Keyspace(
        [(tenant.as_str(), with_id(id)), (&list, summary(&["d:1", "id"])), (&destination, with_id("d:1"))]
            .map(|(key, stored)| (RedisKey::from(key), stored))
            .into(),
    );
    assert_eq!(map(&keyspace, &tenant), target(&format!("tenant:{{{id}}}:tenant"), "tenant"));
    if id == "{a}" {
        assert_eq!(map(&keyspace, &list), unmigrated(BracedTenant));
        assert_eq!(map(&keyspace, &destination), unmigrated(BracedTenant));
        return;
    }
    assert_eq!(map(&keyspace, &list), target(&format!("tenant:{{{id}}}:destinations"), "summary"));
    assert_eq!(map(&keyspace, &destination), target(&format!("tenant:{{{id}}}:destination:d:1"), "destination"));
}

#[test]
fn ids_need_not_be_text() {
    let key = RedisKey::new(b"tenant:\xff\xfe".to_vec());
    let keyspace = Keyspace([(key.clone(), with_id(b"\xff\xfe"))].into());
    let expected = Mapping::Target { key: RedisKey::new(b"tenant:{\xff\xfe}:tenant".to_vec()), entity: "tenant" };
    assert_eq!(keyspace.map(KeyLayout::Outpost, &key), expected);
}

#[rstest]
#[case::of_a_tenant("tenant:a", target("tenant:{a}:tenant", "tenant"))]
#[case::of_a_tenant_with_a_colon("tenant:a:b", target("tenant:{a:b}:tenant", "tenant"))]
#[case::of_a_braced_tenant("tenant:{a}", target("tenant:{{a}}:tenant", "tenant"))]
#[case::of_a_destination("tenant:a:destination:b", target("tenant:{a}:destination:b", "destination"))]
#[case::of_some_destination("tenant:a:destination:b:destination:c", unmigrated(Ambiguous))]
#[case::under_a_summary_name("tenant:a:destinations", target("tenant:{a:destinations}:tenant", "tenant"))]
#[case::of_tenant_or_destination("tenant:x:destination:destinations", unmigrated(Ambiguous))]
#[case::current_tenant("tenant:{a}:tenant", current("tenant"))]
#[case::current_destination("tenant:{a}:destination:b", current("destination"))]
#[case::current_summary_name("tenant:{a}:destinations", current("summary"))]
fn a_tombstone_is_what_its_name_allows(#[case] key: &'static str, #[case] expected: Mapping) {
    assert_eq!(map(&Keyspace::of([(key, tombstone())]), key), expected);
}

#[rstest]
#[case::tenant("tenant:a", "a", target("tenant:{a}:tenant", "tenant"))]
#[case::other_id("tenant:a", "b", unmigrated(WrongContent))]
#[case::other_id_with_a_colon("tenant:a:b", "b", unmigrated(WrongContent))]
#[case::destination("tenant:a:destination:b", "b", target("tenant:{a}:destination:b", "destination"))]
#[case::tenant_like_a_destination(
    "tenant:a:destination:b",
    "a:destination:b",
    target("tenant:{a:destination:b}:tenant", "tenant")
)]
#[case::destination_with_other_id("tenant:a:destination:b", "c", unmigrated(WrongContent))]
#[case::first_cut(
    "tenant:a:destination:b:destination:c",
    "b:destination:c",
    target("tenant:{a}:destination:b:destination:c", "destination")
)]
#[case::second_cut(
    "tenant:a:destination:b:destination:c",
    "c",
    target("tenant:{a:destination:b}:destination:c", "destination")
)]
#[case::overlapping_cut(
    "tenant:a:destination:destination:b",
    "b",
    target("tenant:{a:destination}:destination:b", "destination")
)]
#[case::tenant_like_a_summary(
    "tenant:a:destinations",
    "a:destinations",
    target("tenant:{a:destinations}:tenant", "tenant")
)]
#[case::destination_like_a_summary(
    "tenant:x:destination:destinations",
    "destinations",
    target("tenant:{x}:destination:destinations", "destination")
)]
#[case::summary_with_a_plain_id("tenant:a:destinations", "b", unmigrated(WrongContent))]
#[case::summary_of_a_destination_named_id("tenant:a:destinations", JSON, target("tenant:{a}:destinations", "summary"))]
#[case::tenant_with_json_id("tenant:a", JSON, unmigrated(WrongContent))]
#[case::destination_of_a_tenant_that_looks_like_one(
    "tenant:{t}:destination:a:destination:b",
    "b",
    unmigrated(BracedTenant)
)]
fn an_id_decides(#[case] key: &'static str, #[case] id: &str, #[case] expected: Mapping) {
    assert_eq!(map(&Keyspace::of([(key, with_id(id))]), key), expected);
}

#[rstest]
#[case::tenant("tenant:a", &[("name", "x")], unmigrated(WrongContent))]
#[case::something_of_a_tenant("tenant:a:b", &[("name", "x")], unmigrated(Ambiguous))]
#[case::destination("tenant:a:destination:b", &[("type", "x")], unmigrated(WrongContent))]
#[case::deleted_with_more("tenant:a", &[("deleted_at", DATE), ("name", "x")], unmigrated(WrongContent))]
#[case::deleted_with_json("tenant:a", &[("deleted_at", JSON)], unmigrated(WrongContent))]
#[case::summary("tenant:a:destinations", &[("d", JSON)], target("tenant:{a}:destinations", "summary"))]
#[case::summary_of_deleted_at("tenant:a:destinations", &[("deleted_at", JSON)], target("tenant:{a}:destinations", "summary"))]
#[case::summary_of_a_nasty_tenant("tenant:x:destination:destinations", &[("d", JSON)], target("tenant:{x:destination}:destinations", "summary"))]
#[case::immortal_under_a_summary_name("tenant:a:destinations", &[("deleted_at", DATE)], unmigrated(WrongContent))]
#[case::immortal_tombstone("tenant:a", &[("deleted_at", DATE)], target("tenant:{a}:tenant", "tenant"))]
#[case::current_tenant("tenant:{a}:tenant", &[("name", "x")], unmigrated(WrongContent))]
#[case::current_summary("tenant:{a}:destinations", &[("d", JSON)], current("summary"))]
#[case::summary_that_looks_like_a_destination("tenant:{a}:destination:b:destinations", &[("d", JSON)], unmigrated(BracedTenant))]
fn without_an_id_content_must_fit(
    #[case] key: &'static str,
    #[case] fields: &[(&str, &str)],
    #[case] expected: Mapping,
) {
    assert_eq!(map(&Keyspace::of([(key, hash(fields))]), key), expected);
}

#[rstest]
#[case("tenant:a")]
#[case("tenant:a:b")]
#[case("tenant:a:destination:b")]
#[case("tenant:{a}:tenant")]
#[case("tenant:{a}:destination:b")]
fn a_key_that_vanished_is_not_ours(#[case] key: &str) {
    assert_eq!(map(&Keyspace::default(), key), Mapping::NotOurs);
}

#[rstest]
fn entities_are_hashes(
    #[values(
        "tenant:a",
        "tenant:a:b",
        "tenant:a:destinations",
        "tenant:a:destination:b",
        "tenant:{a}:tenant",
        "tenant:{a}:destinations",
        "tenant:{a}:destination:b"
    )]
    key: &'static str,
) {
    assert_eq!(map(&Keyspace::of([(key, Stored::NotAHash)]), key), unmigrated(WrongType));
}

#[rstest]
#[case::tenant("tenant:{a}:tenant", "a", current("tenant"))]
#[case::tenant_with_a_colon("tenant:{a:b}:tenant", "a:b", current("tenant"))]
#[case::tenant_without_id("tenant:{}:tenant", "", current("tenant"))]
#[case::tenant_with_brace("tenant:{b{race}:tenant", "b{race", current("tenant"))]
#[case::tenant_that_was_braced("tenant:{{a}}:tenant", "{a}", current("tenant"))]
#[case::destination("tenant:{a}:destination:b", "b", current("destination"))]
#[case::two_readings_tenant("tenant:{a}:destination:b}:tenant", "a}:destination:b", current("tenant"))]
#[case::two_readings_destination("tenant:{a}:destination:b}:tenant", "b}:tenant", current("destination"))]
#[case::summary_of_a_destination_named_id("tenant:{a}:destinations", JSON, current("summary"))]
#[case::other_id("tenant:{a}:tenant", "b", unmigrated(WrongContent))]
#[case::destination_with_other_id("tenant:{a}:destination:b", "c", unmigrated(WrongContent))]
#[case::summary_with_a_plain_id("tenant:{a}:destinations", "b", unmigrated(WrongContent))]
#[case::json_id("tenant:{a}:tenant", JSON, unmigrated(WrongContent))]
#[case::legacy_tenant("tenant:{a}:tenant", "{a}:tenant", unmigrated(BracedTenant))]
#[case::legacy_tenant_like_a_destination("tenant:{a}:destination:b", "{a}:destination:b", unmigrated(BracedTenant))]
fn a_key_in_current_form_is_current_unless_its_id_contradicts(
    #[case] key: &'static str,
    #[case] id: &str,
    #[case] expected: Mapping,
) {
    assert_eq!(map(&Keyspace::of([(key, with_id(id))]), key), expected);
}

#[test]
fn a_current_tombstone_keeps_its_fields() {
    let keyspace = Keyspace::of([("tenant:{a}:tenant", hash(&[("id", "a"), ("deleted_at", DATE)]))]);
    assert_eq!(map(&keyspace, "tenant:{a}:tenant"), current("tenant"));
}

#[rstest]
#[case("tenant:{a}:destinations", summary(&["b"]))]
#[case("tenant:{a}:destination:b", with_id("b"))]
#[case("tenant:{a}:destination:b", tombstone())]
#[case("tenant:{a}:tenant", tombstone())]
fn keys_under_a_braced_legacy_tenant_stay(#[case] key: &'static str, #[case] stored: Stored) {
    let keyspace = Keyspace::of([(key, stored.clone()), ("tenant:{a}", with_id("{a}"))]);
    assert_eq!(map(&keyspace, key), unmigrated(BracedTenant));
    let other_id = Keyspace::of([(key, stored), ("tenant:{a}", with_id("a"))]);
    assert!(matches!(map(&other_id, key), Mapping::AlreadyCurrent { .. }));
}

#[test]
fn a_tenants_own_record_is_told_from_what_lies_under_a_braced_one_by_its_id() {
    let beside = |id| Keyspace::of([("tenant:{a}:tenant", with_id(id)), ("tenant:{a}", with_id("{a}"))]);
    assert_eq!(map(&beside("a"), "tenant:{a}:tenant"), current("tenant"));
    assert_eq!(map(&beside("{a}:tenant"), "tenant:{a}:tenant"), unmigrated(BracedTenant));
    assert_eq!(map(&beside("b"), "tenant:{a}:tenant"), unmigrated(BracedTenant));
}

#[rstest]
#[case::no_braced_tenant(&[], Belongs::AsNamed)]
#[case::another_id(&[("tenant:{a}", "a")], Belongs::AsNamed)]
#[case::a_braced_tenant(
    &[("tenant:{a}", "{a}")],
    Belongs::IfCopyOf { originals: vec!["tenant:a:destination:b".into()], otherwise: BracedTenant }
)]
fn a_destination_is_the_braced_tenants_unless_it_is_a_copy_of_its_original(
    #[case] others: &[(&'static str, &str)],
    #[case] expected: Belongs,
) {
    let mut keyspace = Keyspace::of(others.iter().map(|(key, id)| (*key, with_id(id))));
    keyspace.0.insert("tenant:{a}:destination:b".into(), with_id("b"));
    assert_eq!(keyspace.belongs(&"tenant:{a}:destination:b".into()), expected);
    assert_eq!(keyspace.belongs(&"tenant:{a}:tenant".into()), Belongs::AsNamed, "its id tells");
}

#[test]
fn a_braced_tenant_is_the_sign_over_what_looks_current() {
    let outpost = scope(KeyLayout::Outpost);
    let sign = HashTags.sign(&outpost, &"tenant:{a}".into()).expect("a name that may be a sign's");
    let id_is = |id: &str| Answer::Fields(vec![Some(id.as_bytes().to_vec())]);
    assert!(sign.agrees_with(&id_is("{a}")) && !sign.agrees_with(&id_is("a")) && !sign.agrees_with(&Answer::NotAHash));
    assert_eq!(HashTags.sign(&outpost, &"tenant:a".into()), None);
    for key in ["tenant:{a}:destinations", "tenant:{a}:destination:b"] {
        assert_eq!(HashTags.signs_over(&outpost, &key.into()), ["tenant:{a}".into()]);
    }
    assert_eq!(HashTags.signs_over(&outpost, &"tenant:{a}:tenant".into()), []);
    assert_eq!(HashTags.sources_of(&outpost, &"tenant:{a}:destination:b".into()), ["tenant:a:destination:b".into()]);
    assert_eq!(HashTags.sign(&scope(KeyLayout::TenantTag), &"tenant:{a}".into()), None, "its target tells too");
}

#[test]
fn every_reading_may_be_the_braced_tenant() {
    let key = "tenant:{a}:destination:b}:destinations";
    let keyspace = Keyspace::of([(key, summary(&["d"])), ("tenant:{a}:destination:b}", with_id("{a}:destination:b}"))]);
    assert_eq!(map(&keyspace, key), unmigrated(BracedTenant));
}

#[rstest]
#[case::tenant("tenant:a}:destination:b", with_id("a}:destination:b"))]
#[case::destination("tenant:a:destination:b}:destination:c", with_id("b}:destination:c"))]
#[case::destination_like_a_tenant("tenant:a:destination:b}:tenant", with_id("b}:tenant"))]
#[case::destination_like_a_summary("tenant:a:destination:b}:destinations", with_id("b}:destinations"))]
#[case::summary("tenant:a}:destination:b:destinations", summary(&["d"]))]
fn a_target_must_have_one_reading(#[case] key: &'static str, #[case] stored: Stored) {
    assert_eq!(map(&Keyspace::of([(key, stored)]), key), unmigrated(AmbiguousTarget));
}

#[test]
fn documented_summaries_are_unknown_to_outpost() {
    assert_eq!(map(&Keyspace::default(), "destination_summary:a:b"), unmigrated(DocumentedNameOnly));
}

#[test]
fn the_readings_of_a_hostile_key_are_bounded() {
    for (cuts, expected) in [(64, current("destination")), (65, unmigrated(Ambiguous))] {
        let id = "}:destination:x".repeat(cuts - 1);
        let key = RedisKey::from(format!("tenant:{{a}}:destination:{id}"));
        let keyspace = Keyspace([(key.clone(), with_id(&id))].into());
        assert_eq!(keyspace.map(KeyLayout::Outpost, &key), expected);
    }
}
