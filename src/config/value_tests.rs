//! Texts and what they mean, or why nothing.

use rstest::rstest;

use super::*;

#[rstest]
#[case("redis")]
#[case("Redis-1.data_plane.svc.")]
#[case("10.0.0.1")]
#[case("fd00::1")]
fn hosts(#[case] text: &str) {
    assert_eq!(host(text), Ok(text.to_owned()));
}

#[rstest]
#[case("redis:6379")]
#[case("redis://redis")]
#[case("rediss://:canary@redis/0")]
#[case("redis redis")]
#[case("redis\n")]
#[case("redis..svc")]
#[case(".")]
#[case("[::1]")]
#[case("réseau")]
fn what_is_no_host(#[case] text: &str) {
    assert_eq!(host(text), Err(ValueProblem::NotAHost));
}

#[test]
fn a_host_is_as_long_as_a_name_may_be() {
    assert!(host(&"a".repeat(HOST_LIMIT)).is_ok());
    assert!(host(&"a".repeat(HOST_LIMIT + 1)).is_err());
}

#[rstest]
#[case("1", 1)]
#[case("6379", 6379)]
#[case("65535", 65535)]
fn ports(#[case] text: &str, #[case] number: u16) {
    assert_eq!(port(text), Ok(number));
}

#[rstest]
#[case("0", r#""0" is not a port (1 to 65535)"#)]
#[case("65536", r#""65536" is not a port (1 to 65535)"#)]
#[case("-1", r#""-1" is not a port (1 to 65535)"#)]
#[case("abc", r#""abc" is not a port (1 to 65535)"#)]
#[case("6379\n", r#""6379\n" is not a port (1 to 65535)"#)]
#[case("redis://:canary@h:1", "the text given (not shown, since it may hold a password) is not a port (1 to 65535)")]
fn what_is_no_port(#[case] text: &str, #[case] message: &str) {
    assert_eq!(port(text).unwrap_err().to_string(), message);
}

#[rstest]
#[case("0", 0)]
#[case("2", 2)]
fn counts_of_replicas(#[case] text: &str, #[case] count: u32) {
    assert_eq!(min_replicas(text), Ok(MinReplicas::Exactly(count)));
    assert_eq!(MinReplicas::Exactly(count).to_string(), text);
}

#[rstest]
#[case("-1")]
#[case("one")]
#[case("1.5")]
fn what_is_no_count_of_replicas(#[case] text: &str) {
    let message = format!("{text:?} is no number of replicas: write 0 or more");
    assert_eq!(min_replicas(text).unwrap_err().to_string(), message);
}

#[test]
fn long_texts_are_shortened_in_messages() {
    let message = port(&"é".repeat(100)).unwrap_err().to_string();
    assert_eq!(message, format!("\"{}…\" is not a port (1 to 65535)", "é".repeat(SHOWN)));
}

/// Characters of a text that a message repeats.
const SHOWN: usize = 40;

#[rstest]
#[case("0", Ok(0))]
#[case("15", Ok(15))]
#[case("16", Err(r#""16" is not a database (0 to 15)"#))]
#[case("-1", Err(r#""-1" is not a database (0 to 15)"#))]
#[case("256", Err(r#""256" is not a database (0 to 15)"#))]
fn databases(#[case] text: &str, #[case] result: Result<u8, &str>) {
    assert_eq!(database(text).map_err(|problem| problem.to_string()), result.map_err(str::to_owned));
}

#[rstest]
#[case(true, &["true", "TRUE", "True", "1", "yes", "YES", "Yes"])]
#[case(false, &["false", "FALSE", "False", "0", "no", "NO", "No"])]
fn booleans(#[case] meaning: bool, #[case] texts: &[&str]) {
    for text in texts {
        assert_eq!(boolean(text), Ok(meaning), "{text}");
    }
}

#[rstest]
#[case("on")]
#[case("2")]
#[case("t")]
#[case(" true")]
fn what_is_no_boolean(#[case] text: &str) {
    let message = boolean(text).unwrap_err().to_string();
    assert_eq!(message, format!("{text:?} is neither true nor false (nor 1, 0, yes, no)"));
}

#[rstest]
#[case("dp_1")]
#[case("a:b")]
#[case("ä b")]
fn deployment_ids(#[case] text: &str) {
    assert_eq!(deployment_id(text), Ok(text.to_owned()));
}

#[test]
fn what_is_no_deployment_id() {
    for text in ["a{b", "a}b", "a\nb", "\u{7f}"] {
        assert_eq!(deployment_id(text), Err(ValueProblem::NotADeploymentId), "{text:?}");
    }
    assert!(deployment_id(&"ä".repeat(DEPLOYMENT_ID_LIMIT)).is_ok());
    assert_eq!(deployment_id(&"a".repeat(DEPLOYMENT_ID_LIMIT + 1)), Err(ValueProblem::LongDeploymentId));
}

#[test]
fn choices() {
    for (name, layout) in KEY_LAYOUTS {
        assert_eq!((key_layout(name), name_of(&layout, &KEY_LAYOUTS)), (Ok(layout), name));
    }
    for (name, policy) in CONFLICT_POLICIES {
        assert_eq!((conflict_policy(name), name_of(&policy, &CONFLICT_POLICIES)), (Ok(policy), name));
    }
    assert_eq!(key_layout("flat").unwrap_err().to_string(), r#""flat" is none of outpost, tenant-tag"#);
}
