//! Tests of `003_entity`: which entity is told, and what is left alone.

use rstest::rstest;

use super::*;

fn fields(id: Option<&str>, deleted: Option<&str>, entity: Option<&str>) -> Fields {
    let values = [id, deleted, entity].map(|value| value.map(|value| value.as_bytes().to_vec()));
    Fields::new(InPlace::fields(&EntityField), values.to_vec())
}

fn transform(key: &str, hash: &Fields) -> Change {
    EntityField.transform(&Scope::default(), &key.into(), Some(hash))
}

#[rstest]
#[case::tenant("tenant:{a}:tenant", "a", "tenant")]
#[case::destination("tenant:{a}:destination:d", "d", "destination")]
#[case::tenant_named_like_a_destination("tenant:{a}:destination:b}:tenant", "a}:destination:b", "tenant")]
#[case::destination_named_like_a_tenant("tenant:{a}:destination:b}:tenant", "b}:tenant", "destination")]
fn records_say_what_they_are(#[case] key: &str, #[case] id: &str, #[case] entity: &'static str) {
    let change = |from: Option<&str>| Change::Set {
        fields: vec![FieldChange { name: "entity", from: from.map(Into::into), to: entity.into() }],
        entity,
    };
    assert_eq!(transform(key, &fields(Some(id), None, None)), change(None));
    assert_eq!(transform(key, &fields(Some(id), None, Some(""))), change(Some("")));
    assert_eq!(transform(key, &fields(Some(id), None, Some(entity))), Change::AlreadyCurrent { entity });
    let other = Change::Unmigrated(UnmigratedReason::OtherEntity);
    assert_eq!(transform(key, &fields(Some(id), None, Some("team"))), other);
}

#[test]
fn tombstones_get_the_field_too() {
    let legacy = fields(None, Some("2025-01-19T22:17:29Z"), None);
    assert!(matches!(transform("tenant:{a}:tenant", &legacy), Change::Set { entity: "tenant", .. }));
    assert!(matches!(transform("tenant:{a}:destination:d", &legacy), Change::Set { entity: "destination", .. }));
    assert_eq!(transform("tenant:{a}:destinations", &legacy), Change::NotOurs);
}
