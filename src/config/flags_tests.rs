//! What is typed, and what becomes of it.

use clap::{CommandFactory as _, Parser, Subcommand};
use rstest::rstest;

use super::*;
use crate::config::layers::Layers;
use crate::config::provenance::Source;

/// What the tool is for.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    flags: ConfigurationFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plans
    Plan,
}

fn typed(words: &[&str]) -> Result<ConfigurationFlags, clap::Error> {
    Line::try_parse_from([&["tool"], words].concat()).map(|line| line.flags)
}

fn text_of(flags: &ConfigurationFlags, setting: Setting) -> Option<String> {
    let mut layers = Layers::default();
    layers.push(flags.values(), |_| Source::Default);
    layers.given(setting).map(|given| given.text.to_owned())
}

#[test]
fn the_command_line_is_consistent() {
    Line::command().debug_assert();
}

#[test]
fn the_flags_leave_the_description_of_the_command_alone() {
    assert_eq!(Line::command().get_about().unwrap().to_string(), "What the tool is for");
}

#[test]
fn every_setting_has_its_flag() {
    for setting in Setting::ALL {
        let word = match setting {
            Setting::KeyLayout => "tenant-tag",
            Setting::ConflictPolicy => "prefer-source",
            _ => "word",
        };
        let flags = typed(&[&format!("{}={word}", setting.flag()), "plan"]).unwrap();
        assert_eq!(text_of(&flags, setting).as_deref(), Some(word), "{setting:?}");
        for other in Setting::ALL.into_iter().filter(|other| *other != setting) {
            assert_eq!(text_of(&flags, other), None, "{setting:?} and {other:?}");
        }
    }
}

#[rstest]
#[case(&["--redis-host", "h", "plan"])]
#[case(&["plan", "--redis-host", "h"])]
#[case(&["--redis-host", "g", "plan", "--redis-host", "h"])]
fn flags_work_before_and_after_the_subcommand(#[case] words: &[&str]) {
    assert_eq!(text_of(&typed(words).unwrap(), Setting::Host).as_deref(), Some("h"));
}

#[rstest]
#[case("--redis-cluster", Setting::Cluster, "true")]
#[case("--redis-cluster=false", Setting::Cluster, "false")]
#[case("--redis-tls", Setting::Tls, "true")]
#[case("--redis-tls=no", Setting::Tls, "no")]
#[case("--redis-tls-insecure-skip-verify", Setting::TlsInsecureSkipVerify, "true")]
#[case("--redis-tls-insecure-skip-verify=0", Setting::TlsInsecureSkipVerify, "0")]
fn switches(#[case] word: &str, #[case] setting: Setting, #[case] text: &str) {
    // The subcommand behind a switch is not its value.
    for words in [[word, "plan"], ["plan", word]] {
        assert_eq!(text_of(&typed(&words).unwrap(), setting).as_deref(), Some(text), "{words:?}");
    }
}

#[test]
fn the_file_has_a_short_flag() {
    assert_eq!(text_of(&typed(&["-c", "a.yaml", "plan"]).unwrap(), Setting::File).as_deref(), Some("a.yaml"));
}

#[test]
fn a_password_may_begin_with_a_hyphen() {
    let flags = typed(&["plan", "--redis-password", "-p@ss"]).unwrap();
    assert_eq!(text_of(&flags, Setting::Password).as_deref(), Some("-p@ss"));
}

#[test]
fn choices_are_named_by_whoever_refuses_others() {
    let refused = typed(&["plan", "--key-layout", "flat"]).unwrap_err().to_string();
    assert!(refused.contains("[possible values: outpost, tenant-tag]"), "{refused}");
    let refused = typed(&["plan", "--conflict-policy", "ask"]).unwrap_err().to_string();
    assert!(refused.contains("[possible values: fail, prefer-source, prefer-target]"), "{refused}");
}

#[test]
fn help_says_defaults_and_variables() {
    let help = Line::command().render_long_help().to_string();
    for setting in Setting::ALL {
        assert!(help.contains(setting.flag()), "{setting:?}");
        if let Some(variable) = setting.variable() {
            assert!(help.contains(&format!("[env: {variable}]")), "{variable}");
        }
    }
    assert_eq!(help.matches("Default: ").count(), Setting::ALL.len(), "{help}");
    assert!(help.contains("\nRedis:\n") && help.contains("\nTLS to Redis:\n"), "{help}");
}

#[test]
fn debug_shows_no_password() {
    let flags = typed(&["plan", "--redis-password", "canary-7f3a"]).unwrap();
    assert!(!format!("{flags:?} {:?}", flags.values()).contains("canary"), "{flags:?}");
}
