//! Tests of `002_timestamps`: what counts as a time, whose entries change, and that a second look changes nothing.

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::migrations::{KeyLayout, Parameters};

fn scope(deployment: Option<&str>, key_layout: KeyLayout) -> Scope {
    Scope { deployment_id: deployment.map(str::to_owned), parameters: Parameters { key_layout } }
}

fn fields(id: Option<&str>, deleted: Option<&str>, created: Option<&str>, updated: Option<&str>) -> Fields {
    let values = [id, deleted, created, updated].map(|value| value.map(|value| value.as_bytes().to_vec()));
    Fields::new(Timestamps.fields(), values.to_vec())
}

fn transform(key: &str, hash: &Fields) -> Change {
    Timestamps.transform(&scope(None, KeyLayout::Outpost), &key.into(), Some(hash))
}

#[rstest]
#[case::utc("2025-01-19T22:17:29Z", "1737325049000")]
#[case::nanoseconds("2025-01-19T22:17:29.572741243Z", "1737325049572")]
#[case::offset("2025-01-20T00:17:29.5+02:00", "1737325049500")]
#[case::negative_offset("2025-01-19T18:17:29-04:00", "1737325049000")]
#[case::epoch("1970-01-01T00:00:00Z", "0")]
#[case::before_1970_rounds_down("1969-12-31T23:59:59.9995Z", "-1")]
#[case::go_zero_time("0001-01-01T00:00:00Z", "-62135596800000")]
fn rfc3339_becomes_milliseconds(#[case] text: &str, #[case] millis: &str) {
    let change = FieldChange { name: "created_at", from: Some(text.into()), to: millis.into() };
    let expected = Change::Set { fields: vec![change], entity: "tenant" };
    assert_eq!(transform("tenant:{a}:tenant", &fields(Some("a"), None, Some(text), None)), expected);
}

#[rstest]
#[case::millis("1737325049572")]
#[case::negative("-5")]
#[case::empty("")]
fn numbers_stay(#[case] text: &str) {
    let hash = fields(Some("d"), None, Some(text), None);
    assert_eq!(transform("tenant:{a}:destination:d", &hash), Change::AlreadyCurrent { entity: "destination" });
}

#[rstest]
#[case("yesterday")]
#[case("2025-13-01T00:00:00Z")]
#[case("2025-01-19T22:17:29")]
#[case("1.7e12")]
fn what_is_no_time_stays_and_is_told(#[case] text: &str) {
    let created = "2025-01-19T22:17:29Z";
    let both = transform("tenant:{a}:tenant", &fields(Some("a"), None, Some(created), Some(text)));
    let change = FieldChange { name: "created_at", from: Some(created.into()), to: "1737325049000".into() };
    assert_eq!(both, Change::Set { fields: vec![change], entity: "tenant" });
    let left = transform("tenant:{a}:tenant", &fields(Some("a"), None, Some("1737325049000"), Some(text)));
    assert_eq!(left, Change::Unmigrated(UnmigratedReason::NotATime));
}

#[rstest]
#[case::legacy_tenant("tenant:a")]
#[case::braced_legacy_tenant("tenant:{a}")]
#[case::summary("tenant:{a}:destinations")]
#[case::unknown("tenant:{a}:sessions")]
#[case::other_deployment("dp_001:tenant:{a}:tenant")]
fn other_keys_are_not_ours(#[case] key: &str) {
    let hash = fields(Some("a"), None, Some("2025-01-19T22:17:29Z"), None);
    assert_eq!(transform(key, &hash), Change::NotOurs);
    assert_eq!(Timestamps.transform(&scope(None, KeyLayout::Outpost), &key.into(), None), Change::NotOurs);
}

#[test]
fn content_must_confirm_the_key() {
    let at = Some("2025-01-19T22:17:29Z");
    let reason = |key: &str, hash: &Fields| transform(key, hash);
    let wrong = Change::Unmigrated(UnmigratedReason::WrongContent);
    assert_eq!(reason("tenant:{a}:tenant", &fields(Some("b"), None, at, None)), wrong);
    assert_eq!(reason("tenant:{a}:tenant", &fields(None, None, at, None)), wrong);
    let scope = scope(None, KeyLayout::Outpost);
    let other_type = Timestamps.transform(&scope, &"tenant:{a}:tenant".into(), None);
    assert_eq!(other_type, Change::Unmigrated(UnmigratedReason::WrongType));
}

#[test]
fn tombstones_of_either_form_are_current_or_changed() {
    let deleted = Some("2025-01-19T22:17:29Z");
    let legacy = fields(None, deleted, None, None);
    assert_eq!(transform("tenant:{a}:tenant", &legacy), Change::AlreadyCurrent { entity: "tenant" });
    let kept = fields(Some("d"), deleted, deleted, None);
    assert!(matches!(transform("tenant:{a}:destination:d", &kept), Change::Set { fields, .. } if fields.len() == 1));
    // Its name leaves two readings, and nothing in it tells which.
    let ambiguous = transform("tenant:{a}:destination:b}:tenant", &legacy);
    assert_eq!(ambiguous, Change::Unmigrated(UnmigratedReason::Ambiguous));
}

#[test]
fn deployments_and_the_documented_layout_have_their_own_keys() {
    let hash = fields(Some("a"), None, Some("2025-01-19T22:17:29Z"), None);
    let changes = |scope: &Scope, key: &str| {
        matches!(Timestamps.transform(scope, &key.into(), Some(&hash)), Change::Set { entity: "tenant", .. })
    };
    let deployment = scope(Some("dp_001"), KeyLayout::Outpost);
    assert!(changes(&deployment, "dp_001:tenant:{a}:tenant"));
    assert!(!changes(&deployment, "tenant:{a}:tenant"));
    assert_eq!(Timestamps.prefixes(&deployment), [b"dp_001:tenant:{".to_vec()]);
    let documented = scope(None, KeyLayout::TenantTag);
    assert!(changes(&documented, "{tenant:a}"));
    assert!(!changes(&documented, "{tenant:a}:destinations"));
}

proptest! {
    #[test]
    fn a_second_look_changes_nothing(seconds in -62_135_596_800_i64..253_402_300_799, nanos in 0_i32..1_000_000_000) {
        let at = Timestamp::new(seconds, nanos).unwrap();
        let hash = fields(Some("a"), None, Some(&at.to_string()), None);
        let Change::Set { fields: changes, .. } = transform("tenant:{a}:tenant", &hash) else {
            return Err(TestCaseError::fail("a time is changed"));
        };
        let millis = String::from_utf8(changes[0].to.clone()).unwrap();
        let again = fields(Some("a"), None, Some(&millis), None);
        prop_assert_eq!(transform("tenant:{a}:tenant", &again), Change::AlreadyCurrent { entity: "tenant" });
        prop_assert_eq!(millis.parse::<i128>().unwrap(), at.as_nanosecond().div_euclid(1_000_000));
    }
}
