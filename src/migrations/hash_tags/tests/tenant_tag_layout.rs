//! Tables of the rules of the documented layout.

use rstest::rstest;

use super::keyspace::{Keyspace, Stored, hash, summary, tombstone, with_id};
use super::{current, target, unmigrated};
use crate::migrations::KeyLayout;
use crate::model::key::RedisKey;
use crate::model::mapping::UnmigratedReason::{
    Ambiguous, AmbiguousTarget, BracedTenant, NoSingleTenant, OtherLayout, WrongContent, WrongType,
};
use crate::model::mapping::{Mapping, UnmigratedReason};

fn map(keyspace: &Keyspace, key: &str) -> Mapping {
    keyspace.map(KeyLayout::TenantTag, &RedisKey::from(key))
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
        "{a}:tenant",
        "{a}:destinations"
    )]
    id: &'static str,
) {
    if id.contains("}:") {
        let key = format!("tenant:{id}");
        let keyspace = Keyspace([(RedisKey::from(key.as_str()), with_id(id))].into());
        assert_eq!(map(&keyspace, &key), unmigrated(AmbiguousTarget));
        return;
    }
    let names = ["", ":destinations", ":destination:d:1", ":stats"];
    let entities = ["tenant", "summary", "destination", "other"];
    let contents = [with_id(id), summary(&["d:1", "id"]), with_id("d:1"), Stored::NotAHash];
    let keys = names.map(|name| format!("tenant:{id}{name}"));
    let keyspace = Keyspace(keys.iter().map(|key| RedisKey::from(key.as_str())).zip(contents).collect());
    for ((key, name), entity) in keys.iter().zip(names).zip(entities) {
        assert_eq!(map(&keyspace, key), target(&format!("{{tenant:{id}}}{name}"), entity), "{key}");
    }
}

#[rstest]
#[case::tenant_tombstone("tenant:a", tombstone(), target("{tenant:a}", "tenant"))]
#[case::tenant_tombstone_with_a_colon("tenant:a:b", tombstone(), target("{tenant:a:b}", "tenant"))]
#[case::destination_tombstone("tenant:a:destination:b", tombstone(), target("{tenant:a}:destination:b", "destination"))]
#[case::wrong_type("tenant:a", Stored::NotAHash, unmigrated(WrongType))]
#[case::summary_of_wrong_type("tenant:a:destinations", Stored::NotAHash, unmigrated(WrongType))]
#[case::wrong_id("tenant:a", with_id("b"), unmigrated(WrongContent))]
#[case::destination_with_wrong_id("tenant:a:destination:b", with_id("x"), unmigrated(WrongContent))]
#[case::ambiguous_tombstone("tenant:a:destination:b:destination:c", tombstone(), unmigrated(Ambiguous))]
#[case::nobodys_string("tenant:a:b", Stored::NotAHash, unmigrated(NoSingleTenant))]
#[case::nobodys_hash("tenant:a:b", hash(&[("x", "y")]), unmigrated(NoSingleTenant))]
fn a_key_alone(#[case] key: &'static str, #[case] stored: Stored, #[case] expected: Mapping) {
    assert_eq!(map(&Keyspace::of([(key, stored)]), key), expected);
}

#[rstest]
#[case::none(&[], unmigrated(NoSingleTenant))]
#[case::short(&[("tenant:a", "a")], target("{tenant:a}:b:c", "other"))]
#[case::long(&[("tenant:a:b", "a:b")], target("{tenant:a:b}:c", "other"))]
#[case::both(&[("tenant:a", "a"), ("tenant:a:b", "a:b")], unmigrated(NoSingleTenant))]
#[case::moved(&[("{tenant:a}", "a")], target("{tenant:a}:b:c", "other"))]
#[case::copied(&[("tenant:a", "a"), ("{tenant:a}", "a")], target("{tenant:a}:b:c", "other"))]
#[case::no_tenant(&[("tenant:a", "x")], unmigrated(NoSingleTenant))]
fn other_names_follow_the_one_existing_tenant(#[case] tenants: &[(&'static str, &str)], #[case] expected: Mapping) {
    for stored in [Stored::NotAHash, hash(&[("x", "y")]), with_id("x")] {
        let tenants = tenants.iter().map(|(key, id)| (*key, with_id(id)));
        let keyspace = Keyspace::of(tenants.chain([("tenant:a:b:c", stored)]));
        assert_eq!(map(&keyspace, "tenant:a:b:c"), expected);
    }
}

#[rstest]
#[case::none("destination_summary:a:b", &[], unmigrated(NoSingleTenant))]
#[case::one("destination_summary:a:b", &["a"], target("{tenant:a}:destination_summary:b", "summary"))]
#[case::short("destination_summary:a:b:c", &["a"], target("{tenant:a}:destination_summary:b:c", "summary"))]
#[case::long("destination_summary:a:b:c", &["a:b"], target("{tenant:a:b}:destination_summary:c", "summary"))]
#[case::both("destination_summary:a:b:c", &["a", "a:b"], unmigrated(NoSingleTenant))]
#[case::no_colon("destination_summary:a", &["a"], unmigrated(NoSingleTenant))]
#[case::ambiguous_target("destination_summary:a:b}", &["a"], unmigrated(AmbiguousTarget))]
fn documented_summaries_follow_the_one_existing_tenant(
    #[case] key: &'static str,
    #[case] ids: &[&str],
    #[case] expected: Mapping,
) {
    for (open, close) in [("tenant:", ""), ("{tenant:", "}")] {
        let tenants = ids.iter().map(|id| (RedisKey::from(format!("{open}{id}{close}")), with_id(id)));
        let keyspace = Keyspace(tenants.chain([(key.into(), Stored::NotAHash)]).collect());
        assert_eq!(map(&keyspace, key), expected);
    }
}

#[rstest]
#[case("tenant:a:destinations", Stored::NotAHash, WrongType)]
#[case("tenant:a:destinations", with_id("x"), WrongContent)]
#[case("tenant:a:destination:b", Stored::NotAHash, WrongType)]
#[case("tenant:a:destination:b", with_id("x"), WrongContent)]
fn known_names_need_their_content(#[case] key: &'static str, #[case] stored: Stored, #[case] reason: UnmigratedReason) {
    let keyspace = Keyspace::of([("tenant:a", with_id("a")), (key, stored)]);
    assert_eq!(map(&keyspace, key), unmigrated(reason));
}

#[test]
fn a_name_that_would_take_a_documented_summarys_target_stays() {
    let key = "tenant:a:destination_summary:b";
    let keyspace = Keyspace::of([("tenant:a", with_id("a")), (key, Stored::NotAHash)]);
    assert_eq!(map(&keyspace, key), unmigrated(AmbiguousTarget));
}

#[rstest]
#[case("tenant:a}:x", with_id("a}:x"))]
#[case("tenant:a:destination:b}", with_id("b}"))]
#[case("tenant:a:destination:b}:c", with_id("b}:c"))]
fn a_target_must_have_one_reading(#[case] key: &'static str, #[case] stored: Stored) {
    assert_eq!(map(&Keyspace::of([(key, stored)]), key), unmigrated(AmbiguousTarget));
}

#[rstest]
#[case::tenant("tenant:{a}:tenant", with_id("a"))]
#[case::destination("tenant:{a}:destination:b", with_id("b"))]
#[case::summary("tenant:{a}:destinations", summary(&["b"]))]
#[case::tombstone("tenant:{a}:destination:b", tombstone())]
fn keys_in_outposts_layout_stay(#[case] key: &'static str, #[case] stored: Stored) {
    assert_eq!(map(&Keyspace::of([(key, stored)]), key), unmigrated(OtherLayout));
}

#[rstest]
#[case::legacy(&[("tenant:{a}", "{a}")], target("{tenant:{a}}:destinations", "summary"))]
#[case::moved(&[("{tenant:{a}}", "{a}")], target("{tenant:{a}}:destinations", "summary"))]
#[case::current(&[("tenant:{a}:tenant", "a")], unmigrated(OtherLayout))]
#[case::both(&[("tenant:{a}", "{a}"), ("tenant:{a}:tenant", "a")], unmigrated(BracedTenant))]
fn the_existing_tenant_tells_braced_from_current(#[case] tenants: &[(&'static str, &str)], #[case] expected: Mapping) {
    let tenants = tenants.iter().map(|(key, id)| (*key, with_id(id)));
    let keyspace = Keyspace::of(tenants.chain([("tenant:{a}:destinations", summary(&["b"]))]));
    assert_eq!(map(&keyspace, "tenant:{a}:destinations"), expected);
}

#[rstest]
#[case("{tenant:a}", current("tenant"))]
#[case("{tenant:a:b}", current("tenant"))]
#[case("{tenant:}", current("tenant"))]
#[case("{tenant:{a}}", current("tenant"))]
#[case("{tenant:a}:destinations", current("summary"))]
#[case("{tenant:a}:destination:b", current("destination"))]
#[case("{tenant:a}:destination_summary:b", current("summary"))]
#[case("{tenant:a}:stats", current("other"))]
#[case("{tenant:a}:destination:b}", current("other"))]
#[case("{tenant:a", Mapping::NotOurs)]
#[case("{tenant:a}b", Mapping::NotOurs)]
fn tagged_keys_are_current(#[case] key: &str, #[case] expected: Mapping) {
    assert_eq!(map(&Keyspace::default(), key), expected);
}

#[test]
fn a_key_that_vanished_is_not_ours() {
    assert_eq!(map(&Keyspace::default(), "tenant:a"), Mapping::NotOurs);
}

#[test]
fn the_cuts_of_a_hostile_key_are_bounded() {
    for (colons, expected) in [(64, NoSingleTenant), (65, Ambiguous)] {
        let key = format!("destination_summary:{}", ":".repeat(colons));
        assert_eq!(map(&Keyspace::default(), &key), unmigrated(expected));
    }
}
