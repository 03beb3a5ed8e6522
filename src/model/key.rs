//! Redis keys as what they are: bytes.
//!
//! Owns the one key type, its escaped and shortened display, and `MATCH` escaping. Refuses to
//! interpret a key: what a key means is a migration's business.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

/// Longest display of a key, in characters; longer keys keep their start and end.
const DISPLAY_LIMIT: usize = 120;

/// A Redis key: arbitrary bytes, not necessarily UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedisKey(Vec<u8>);

impl RedisKey {
    /// Wraps bytes as a key.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Joins byte strings into one key.
    #[must_use]
    pub fn concat(parts: &[&[u8]]) -> Self {
        Self(parts.concat())
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for RedisKey {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for RedisKey {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl AsRef<[u8]> for RedisKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Printable text as it is; control characters, quotes, backslashes and bytes that are not UTF-8
/// escaped; shortened in the middle to 120 characters.
impl fmt::Display for RedisKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shorten(&escape(&self.0)))
    }
}

impl fmt::Debug for RedisKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", escape(&self.0))
    }
}

impl Serialize for RedisKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The narrowest `MATCH` pattern for every key that starts with one of `prefixes`: place by place the bytes that they
/// have there, as far as the shortest of them goes. It lets others through too, where several prefixes are mixed.
/// `None` where every key would match.
#[must_use]
pub fn match_prefixes(prefixes: &[Vec<u8>]) -> Option<Vec<u8>> {
    let shortest = prefixes.iter().map(Vec::len).min().filter(|&length| length > 0)?;
    let mut pattern = Vec::with_capacity(shortest * 4);
    for at in 0..shortest {
        let bytes: BTreeSet<u8> = prefixes.iter().map(|prefix| prefix[at]).collect();
        let is_choice = bytes.len() > 1;
        pattern.extend(is_choice.then_some(b'['));
        for byte in bytes {
            push_escaped(&mut pattern, byte);
        }
        pattern.extend(is_choice.then_some(b']'));
    }
    pattern.push(b'*');
    Some(pattern)
}

/// A byte that stands for itself in a pattern, within brackets too.
fn push_escaped(pattern: &mut Vec<u8>, byte: u8) {
    if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
        pattern.push(b'\\');
    }
    pattern.push(byte);
}

/// Bytes as text that is safe on a terminal and in a status.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

impl RedisKey {
    /// Reads a key as it is displayed, escapes and all; what is no escape stands for itself.
    #[must_use]
    pub fn unescape(text: &str) -> Self {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            let (before, escaped) = rest.split_at(at);
            bytes.extend_from_slice(before.as_bytes());
            let (character, length) = unescape_one(escaped);
            bytes.extend_from_slice(&character);
            rest = &escaped[length..];
        }
        bytes.extend_from_slice(rest.as_bytes());
        Self(bytes)
    }

    /// The key escaped as in its display, and whole.
    #[must_use]
    pub fn escaped(&self) -> String {
        escape(&self.0)
    }
}

/// What an escape at the start of a text stands for, and its length.
fn unescape_one(text: &str) -> (Vec<u8>, usize) {
    let plain = |byte: u8| (vec![byte], 2);
    match text.as_bytes().get(1) {
        Some(b'n') => plain(b'\n'),
        Some(b'r') => plain(b'\r'),
        Some(b't') => plain(b'\t'),
        Some(&other @ (b'\\' | b'"' | b'\'')) => plain(other),
        Some(b'x') => match text.get(2..4).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => (vec![byte], 4),
            None => (b"\\".to_vec(), 1),
        },
        Some(b'u') => match text.strip_prefix("\\u{").and_then(|after| after.split_once('}')) {
            Some((digits, _)) => match u32::from_str_radix(digits, 16).ok().and_then(char::from_u32) {
                Some(character) => (character.to_string().into_bytes(), digits.len() + 4),
                None => (b"\\".to_vec(), 1),
            },
            None => (b"\\".to_vec(), 1),
        },
        Some(_) | None => (b"\\".to_vec(), 1),
    }
}

fn shorten(text: &str) -> String {
    let length = text.chars().count();
    if length <= DISPLAY_LIMIT {
        return text.to_owned();
    }
    let half = (DISPLAY_LIMIT - 1) / 2;
    let start: String = text.chars().take(half).collect();
    let end: String = text.chars().skip(length - half).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn display_escapes_what_a_terminal_would_act_on() {
        let key = RedisKey::new(b"tenant:\x1b[31m\xff\"\n\xc3\xbc".to_vec());
        assert_eq!(key.to_string(), "tenant:\\u{1b}[31m\\xff\\\"\\n\u{fc}");
    }

    #[test]
    fn what_is_displayed_reads_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&all[..], b"tenant:a\\x41", b"tenant:\\u{41}", b"\\", "ü\u{1}\u{7f}\u{85}".as_bytes()] {
            let key = RedisKey::new(bytes);
            assert_eq!(RedisKey::unescape(&key.escaped()), key);
        }
        assert_eq!(RedisKey::unescape("tenant:a\\z"), RedisKey::from("tenant:a\\z"));
    }

    #[test]
    fn display_shortens_in_the_middle() {
        let key = RedisKey::from("k".repeat(500));
        assert_eq!(key.to_string().chars().count(), 119);
        assert!(key.to_string().contains('…'));
    }

    fn pattern(prefixes: &[&[u8]]) -> Option<Vec<u8>> {
        match_prefixes(&prefixes.iter().map(|prefix| prefix.to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn a_pattern_is_as_narrow_as_its_prefixes_let_it_be() {
        type Row = (&'static [&'static [u8]], Option<&'static [u8]>);
        let table: [Row; 8] = [
            (&[b"dp[1]*:tenant:"], Some(b"dp\\[1\\]\\*:tenant:*")),
            (&[b"tenant:", b"destination_summary:"], Some(b"[dt]e[ns][at][in][nt][:a]*")),
            (&[b"tenant:", b"tenant:{"], Some(b"tenant:*")),
            (&[b"a^", b"a]"], Some(b"a[\\]\\^]*")),
            (&[b"a", b"-", b"\\"], Some(b"[\\-\\\\a]*")),
            (&[b"a", b"a"], Some(b"a*")),
            (&[b"a", b""], None),
            (&[], None),
        ];
        for (prefixes, expected) in table {
            assert_eq!(pattern(prefixes).as_deref(), expected, "{prefixes:?}");
        }
    }

    /// What Redis' `stringmatchlen` does, as far as patterns of ours go.
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|at| matches(rest, &text[at..])),
            (_, []) => false,
            ([b'?', rest @ ..], [_, left @ ..]) => matches(rest, left),
            ([b'[', rest @ ..], [byte, left @ ..]) => {
                let (is_in, rest) = in_brackets(rest, *byte);
                is_in && matches(rest, left)
            }
            ([b'\\', escaped, rest @ ..], [byte, left @ ..]) => escaped == byte && matches(rest, left),
            ([literal, rest @ ..], [byte, left @ ..]) => literal == byte && matches(rest, left),
        }
    }

    /// Whether a byte is meant by what follows an opening bracket, and what follows the closing one.
    fn in_brackets(mut pattern: &[u8], byte: u8) -> (bool, &[u8]) {
        let is_negated = pattern.first() == Some(&b'^');
        pattern = &pattern[usize::from(is_negated)..];
        let mut is_in = false;
        loop {
            pattern = match pattern {
                [] => return (is_in != is_negated, pattern),
                [b'\\', escaped, rest @ ..] => {
                    is_in |= *escaped == byte;
                    rest
                }
                [b']', rest @ ..] => return (is_in != is_negated, rest),
                [from, b'-', to, rest @ ..] => {
                    is_in |= (from.min(to)..=from.max(to)).contains(&&byte);
                    rest
                }
                [literal, rest @ ..] => {
                    is_in |= *literal == byte;
                    rest
                }
            };
        }
    }

    /// Any bytes, those that mean something in a pattern more often.
    fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![any::<u8>(), select(b"*?[]\\^-ab".to_vec())], length)
    }

    proptest! {
        #[test]
        fn a_pattern_matches_every_key_of_each_prefix(prefixes in vec(bytes(1..6), 1..4), tail in bytes(0..6)) {
            let pattern = match_prefixes(&prefixes).expect("no prefix is empty");
            for prefix in &prefixes {
                let key = [&prefix[..], &tail].concat();
                prop_assert!(matches(&pattern, &key), "{:?} does not match {:?}", pattern, key);
            }
        }

        #[test]
        fn a_pattern_lets_through_only_what_the_prefixes_have_in_each_place(
            prefixes in vec(bytes(1..4), 1..4), key in bytes(0..6),
        ) {
            let pattern = match_prefixes(&prefixes).expect("no prefix is empty");
            let shortest = prefixes.iter().map(Vec::len).min().expect("a prefix");
            let fits = |at: usize| key.get(at).is_some_and(|byte| prefixes.iter().any(|prefix| prefix[at] == *byte));
            prop_assert_eq!(matches(&pattern, &key), (0..shortest).all(fits), "{:?} and {:?}", pattern, key);
        }
    }
}
