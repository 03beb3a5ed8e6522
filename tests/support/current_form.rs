//! What the tests expect `002_timestamps` and `003_entity` to make of an entry.
//!
//! Written from the description alone, with a calendar of its own, so that it is a second opinion on the
//! product's rules.

use super::value::{Bytes, Entry, Value};

/// What an entry in current form is.
fn entity(key: &[u8]) -> Option<&'static str> {
    let start = b"tenant:{";
    key.windows(start.len()).position(|window| window == start)?;
    let holds = |part: &[u8]| key.windows(part.len()).any(|window| window == part);
    if key.ends_with(b"}:tenant") {
        Some("tenant")
    } else if holds(b"}:destination:") {
        Some("destination")
    } else {
        None
    }
}

fn is_record(entry: &Entry) -> bool {
    entry.value.field("id").is_some() || entry.value.field("deleted_at").is_some()
}

/// After `002_timestamps`; `None` where a time can't be read, and the entry is left alone.
pub fn turned(entry: &Entry) -> Option<Entry> {
    let mut turned = entry.clone();
    if entity(&entry.key).is_none() || !is_record(entry) {
        return Some(turned);
    }
    let Value::Hash(fields) = &mut turned.value else { return Some(turned) };
    for name in ["created_at", "updated_at"] {
        let Some(value) = fields.get_mut(name.as_bytes()) else { continue };
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        if !is_number {
            *value = millis(value)?.to_string().into_bytes();
        }
    }
    Some(turned)
}

/// After `003_entity`.
pub fn named(entry: &Entry) -> Entry {
    let mut named = entry.clone();
    if let (Some(entity), true, Value::Hash(fields)) = (entity(&entry.key), is_record(entry), &mut named.value) {
        fields.entry(b"entity".to_vec()).or_insert_with(|| Bytes::from(entity));
    }
    named
}

/// After both; an entry whose times can't be read gets its entity all the same.
pub fn current(entry: &Entry) -> Entry {
    named(&turned(entry).unwrap_or_else(|| entry.clone()))
}

/// `2025-01-19T22:17:29.572741243-04:30` in Unix milliseconds, rounded down.
pub fn millis(text: &[u8]) -> Option<i64> {
    let text = str::from_utf8(text).ok()?;
    let number = |part: &str| {
        let is_plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| part.parse::<i64>().ok()).flatten()
    };
    let (date, rest) = text.split_once('T')?;
    let date: Vec<i64> = date.split('-').map(number).collect::<Option<_>>()?;
    let [year, month, day] = date[..] else { return None };
    let (clock, offset) = if let Some(clock) = rest.strip_suffix('Z') {
        (clock, 0)
    } else {
        let at = rest.rfind(['+', '-'])?;
        let (hours, minutes) = rest[at + 1..].split_once(':')?;
        let size = number(hours)? * 3600 + number(minutes)? * 60;
        (&rest[..at], if rest[at..].starts_with('-') { -size } else { size })
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let clock: Vec<i64> = clock.split(':').map(number).collect::<Option<_>>()?;
    let [hour, minute, second] = clock[..] else { return None };
    number(fraction)?;
    let thousandths = number(&format!("{fraction}000")[..3])?;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(seconds * 1000 + thousandths)
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let is_leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before: i64 = lengths.iter().take(usize::try_from(month - 1).expect("a month")).sum();
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969) + before + day - 1
}
