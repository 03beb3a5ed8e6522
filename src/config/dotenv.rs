//! `.env` files.
//!
//! Owns reading them without the process' environment: the parser would replace `$NAME` by what the
//! process has under that name, and drop the name if there is nothing. Refuses what can't be
//! understood in an assignment of ours; lines of others are ignored, whatever they hold.

use super::error::ConfigurationError;
use super::layers::Values;
use super::setting::Setting;

/// The settings in a file's text.
pub(super) fn read(file: &str, text: &str) -> Result<Values, ConfigurationError> {
    let dollar = stand_in(text);
    let hidden = hide_dollars(text, dollar);
    let assigned: Vec<(String, String)> = dotenvy::Iter::new(hidden.as_bytes()).filter_map(Result::ok).collect();
    let mut texts = Vec::new();
    for (setting, variable) in Setting::ALL.into_iter().filter_map(|s| Some((s, s.variable_in_file()?))) {
        let written: Vec<&str> = text.lines().filter_map(|line| value_on(line, variable)).collect();
        let understood: Vec<&str> = assigned.iter().filter(|(name, _)| name == variable).map(|(_, v)| &**v).collect();
        if understood.len() < written.len() {
            return Err(ConfigurationError::NotAssignment { file: file.to_owned(), variable });
        }
        // Of several, the last counts, as for Outpost.
        let Some(value) = understood.last() else { continue };
        let literal = written.last().is_some_and(|value| value.starts_with('\''));
        if !literal && has_reference(value, dollar) {
            return Err(ConfigurationError::Reference { file: file.to_owned(), variable });
        }
        texts.push((setting, value.replace(dollar, "$")));
    }
    Ok(texts.into_iter().collect())
}

/// A character that the text does not hold.
fn stand_in(text: &str) -> char {
    ('\u{e000}'..='\u{f8ff}').find(|c| !text.contains(*c)).unwrap_or('\u{e000}')
}

/// Puts the stand-in for every `$` that the parser would follow; an escaped one it leaves alone.
fn hide_dollars(text: &str, dollar: char) -> String {
    let mut escaped = false;
    let hide = |c: char| {
        let follows = c == '$' && !escaped;
        escaped = c == '\\' && !escaped;
        if follows { dollar } else { c }
    };
    text.chars().map(hide).collect()
}

/// Whether Outpost would put another variable's value here. Any other `$` is just that.
fn has_reference(value: &str, dollar: char) -> bool {
    let names =
        |rest: &str| rest.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || "_{(".contains(c));
    value.split(dollar).skip(1).any(names)
}

/// What stands behind `NAME=` on a line, or behind `NAME:`, which Outpost takes too.
fn value_on<'a>(line: &'a str, variable: &str) -> Option<&'a str> {
    let line = line.trim_start();
    let assignment = line.strip_prefix("export ").unwrap_or(line).trim_start();
    assignment.strip_prefix(variable)?.trim_start().strip_prefix(['=', ':']).map(str::trim_start)
}

#[cfg(test)]
#[path = "dotenv_tests.rs"]
mod tests;
