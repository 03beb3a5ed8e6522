//! Redis keys as what they are: bytes.
//!
//! Owns the one key type, its escaped and shortened display, and `MATCH` escaping. Refuses to
//! interpret a key: what a key means is a migration's business.

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

/// A `MATCH` pattern for every key that starts with `prefix`, with glob characters escaped.
#[must_use]
pub fn match_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 8);
    for &byte in prefix {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
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

    #[test]
    fn match_prefix_escapes_glob_characters() {
        assert_eq!(match_prefix(b"dp[1]*:tenant:"), b"dp\\[1\\]\\*:tenant:*");
    }
}
