//! `.env` files as they are found.

use rstest::rstest;

use super::*;
use crate::config::layers::Layers;
use crate::config::provenance::Source;

fn text_of(file: &str, setting: Setting) -> Option<String> {
    let mut layers = Layers::default();
    layers.push(read(".env", file).unwrap(), |_| Source::Default);
    layers.given(setting).map(|given| given.text.to_owned())
}

#[rstest]
#[case("REDIS_PASSWORD=secret", "secret")]
#[case("export REDIS_PASSWORD = secret # comment", "secret")]
#[case("REDIS_PASSWORD=secret\r\nX=1\r\n", "secret")]
#[case("REDIS_PASSWORD=\"a b # c\"", "a b # c")]
#[case("REDIS_PASSWORD='a\"b'", "a\"b")]
#[case("REDIS_PASSWORD=a#b", "a#b")]
#[case("REDIS_PASSWORD=a=b==", "a=b==")]
#[case("REDIS_PASSWORD=pa$$word", "pa$$word")]
#[case("REDIS_PASSWORD=\"pa$$word$\"", "pa$$word$")]
#[case("REDIS_PASSWORD=\"pa\\$HOME\"", "pa$HOME")]
#[case("REDIS_PASSWORD='pa$HOME ${HOME}'", "pa$HOME ${HOME}")]
#[case("REDIS_PASSWORD='\\\\$HOME'", "\\\\$HOME")]
#[case("REDIS_PASSWORD=first\nREDIS_PASSWORD=last", "last")]
#[case("# REDIS_PASSWORD=x\nREDIS_PASSWORD=y", "y")]
#[case("REDIS_PASSWORD='\u{e000}$A'", "\u{e000}$A")]
fn values(#[case] file: &str, #[case] password: &str) {
    assert_eq!(text_of(file, Setting::Password).as_deref(), Some(password));
}

#[rstest]
#[case("")]
#[case("REDIS_PASSWORD=")]
#[case("REDIS_PASSWORD=\"\"")]
#[case("REDIS_PASSWORD=first\nREDIS_PASSWORD=")]
#[case("#REDIS_PASSWORD=x")]
#[case("REDIS_PASSWORD_OLD=x")]
#[case("MY_REDIS_PASSWORD=x")]
fn nothing_is_set(#[case] file: &str) {
    assert_eq!(text_of(file, Setting::Password), None);
}

/// Outpost takes these lines, so they may stand in its file.
#[test]
fn lines_of_others_are_ignored_whatever_they_hold() {
    let file = "TOPICS=user.created, user.deleted\nnonsense\nURL=http://$HOST:${PORT}/\nKEY: value\nREDIS_HOST=here\n";
    assert_eq!(text_of(file, Setting::Host).as_deref(), Some("here"));
}

#[test]
fn a_file_names_no_other_file() {
    assert_eq!(text_of("CONFIG=other.yaml", Setting::File), None);
}

#[rstest]
#[case("REDIS_PASSWORD=canary one")]
#[case("REDIS_PASSWORD: canary")]
#[case("REDIS_PASSWORD=\"canary")]
#[case("REDIS_PASSWORD=can\\ary")]
#[case("OTHER=it's\nREDIS_PASSWORD=canary")]
#[case("OTHER=it's\nREDIS_PASSWORD=canary\nANOTHER=it's")]
#[case("REDIS_PASSWORD=canary\nREDIS_PASSWORD=canary two")]
fn what_is_not_understood_is_not_shown(#[case] file: &str) {
    let error = read("config/outpost/.env", file).unwrap_err();
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    assert_eq!(
        error.to_string(),
        "config/outpost/.env: REDIS_PASSWORD: can't be understood: write REDIS_PASSWORD='value' on one line, and close \
         every quote in the lines before it"
    );
}

/// The process has a HOME; what it is must not get in.
#[rstest]
#[case("REDIS_HOST=$HOME")]
#[case("REDIS_HOST=${HOME}")]
#[case("REDIS_HOST=\"a-${HOME}\"")]
#[case("REDIS_HOST=\\\\$HOME")]
#[case("BASE=a\nREDIS_HOST=$BASE-redis")]
#[case("REDIS_HOST=$2a$10")]
fn references_are_refused(#[case] file: &str) {
    assert_eq!(
        read(".env", file).unwrap_err().to_string(),
        ".env: REDIS_HOST: refers to another variable, which is not followed here: write the value out, or put it in \
         single quotes if the $ belongs to it"
    );
}
