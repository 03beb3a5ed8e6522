//! Which Redis hosts the operator may connect to.
//!
//! Owns reading the operator's `allowedRedisHosts` and matching against it. A list that can't mean
//! what it says is refused at start, not silently never matched.

/// The hosts that may be connected to; an empty list allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

/// An entry that is neither a name nor `*.suffix`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allowedRedisHosts: {0:?} is neither a host name nor a suffix: write `redis.example.com` or `*.example.com`")]
pub struct BadHostPattern(pub String);

impl AllowedHosts {
    /// Reads exact names and `*.suffix` entries; letter case and a trailing dot don't matter.
    ///
    /// # Errors
    /// The first entry that is empty or has a `*` anywhere but in front of a suffix.
    pub fn new<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self, BadHostPattern> {
        entries.into_iter().map(|entry| read(entry.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of a host's names is allowed.
    #[must_use]
    pub fn allows(&self, names: &[&str]) -> bool {
        self.0.is_empty() || names.iter().any(|name| self.matches(&normal(name)))
    }

    /// The entries, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        self.0.join(", ")
    }

    fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|entry| match entry.strip_prefix('*') {
            // The dot stays with the suffix, so that `*.a.b` matches neither `a.b` nor `xa.b`.
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => entry == name,
        })
    }
}

fn read(entry: &str) -> Result<String, BadHostPattern> {
    let bare = normal(entry.trim());
    let name = bare.strip_prefix("*.").unwrap_or(&bare);
    if name.is_empty() || name.contains(|c: char| c == '*' || c == '/' || c.is_whitespace()) {
        return Err(BadHostPattern(entry.to_owned()));
    }
    Ok(bare)
}

/// Host names without what does not distinguish them.
pub(super) fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[], "anything", true)]
    #[case(&["redis.example.com"], "Redis.Example.com.", true)]
    #[case(&["redis.example.com"], "redis.example.com.evil.org", false)]
    #[case(&["*.example.com"], "a.b.example.com", true)]
    #[case(&["*.example.com"], "example.com", false)]
    #[case(&["*.example.com"], ".example.com", false)]
    #[case(&["*.example.com"], "evilexample.com", false)]
    #[case(&["10.0.0.1"], "10.0.0.1", true)]
    #[case(&["a", "*.svc"], "redis.outpost.svc", true)]
    fn matching(#[case] entries: &[&str], #[case] host: &str, #[case] allowed: bool) {
        assert_eq!(AllowedHosts::new(entries).unwrap().allows(&[host]), allowed);
    }

    #[rstest]
    #[case("")]
    #[case("*")]
    #[case("*.")]
    #[case("redis.*.svc")]
    #[case("*redis.svc")]
    #[case("redis://a")]
    fn what_could_never_match_is_refused(#[case] entry: &str) {
        assert_eq!(AllowedHosts::new([entry]), Err(BadHostPattern(entry.to_owned())));
    }
}
