//! Outpost's YAML files as they are found.

use rstest::rstest;

use super::*;
use crate::config::layers::Layers;
use crate::config::provenance::Source;

fn text_of(file: &str, setting: Setting) -> Option<String> {
    let mut layers = Layers::default();
    layers.push(read("f.yaml", file).unwrap(), |_| Source::Default);
    layers.given(setting).map(|given| given.text.to_owned())
}

#[test]
fn other_keys_are_ignored() {
    let file = "
api_key: apikey
topics: [user.created, user.deleted]
mqs: { rabbitmq: !secret { server_url: amqp://localhost } }
redis: &r
  host: 10.0.0.1
  pool_size: 10
  dev_cluster_host_override: true
deployment_id: dp
again: *r
";
    assert_eq!(text_of(file, Setting::Host).as_deref(), Some("10.0.0.1"));
    assert_eq!(text_of(file, Setting::DeploymentId).as_deref(), Some("dp"));
    assert_eq!(text_of(file, Setting::Port), None);
}

/// Outpost takes the text as it stands, too.
#[rstest]
#[case("0123")]
#[case("1e5")]
#[case("0x1F")]
#[case("true")]
#[case("1_000")]
#[case("123456789012345678901234567890")]
#[case("'~'")]
fn a_password_is_the_text_that_stands_there(#[case] password: &str) {
    let file = format!("redis: {{ password: {password} }}");
    assert_eq!(text_of(&file, Setting::Password).as_deref(), Some(password.trim_matches('\'')));
}

#[rstest]
#[case("")]
#[case("# nothing\n")]
#[case("redis:\n")]
#[case("redis: { host: }")]
#[case("redis: { host: ~ }")]
#[case("redis: { host: '' }")]
#[case("{}\n---\nredis: { host: second-document }")]
fn nothing_is_set(#[case] file: &str) {
    assert_eq!(text_of(file, Setting::Host), None);
}

const ADVICE: &str =
    "can't be understood: write YAML with `redis` as a mapping, and its values and `deployment_id` as single values";

#[rstest]
#[case("redis:\n  port: [6379]\n", ": line 2")]
#[case("redis: canary-7f3a\n", ": line 1")]
#[case("- canary-7f3a\n", ": line 1")]
#[case("redis: { password: canary-7f3a\n", ": line 2")]
#[case("a: \"canary-7f3a\nb: c", ": line 2")]
#[case("redis: { host: a }\nredis: { host: canary-7f3a }", ": line 1")]
#[case("\u{1}canary-7f3a", ": line 1")]
fn what_is_not_understood_is_not_shown(#[case] file: &str, #[case] line: &str) {
    let error = read("f.yaml", file).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("canary"), "{error:?}");
    assert_eq!(error.to_string(), format!("f.yaml{line}: {ADVICE}"));
}

#[rstest]
#[case("x: &x { redis: { host: a } }\n<<: *x\n", "f.yaml: <<")]
#[case("x: &x { host: a }\nredis: { <<: *x, port: 1 }\n", "f.yaml: redis.<<")]
fn merge_keys_are_refused(#[case] file: &str, #[case] place: &str) {
    let message = read("f.yaml", file).unwrap_err().to_string();
    assert_eq!(message, format!("{place}: merge keys are not followed here: write the values out"));
}
