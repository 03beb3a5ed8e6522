//! Where each value came from.
//!
//! Owns how sources are named and the table that `--verbose` shows. Holds texts that are fit to be
//! shown and nothing else: the password comes in as a mark that there is one.

use std::fmt;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This flag.
    Flag(&'static str),
    /// This environment variable.
    Environment(&'static str),
    /// A file.
    File {
        /// The file, as it is named in the order of search or by the user.
        file: String,
        /// The place in it: a path in YAML, a name in a `.env` file.
        place: &'static str,
    },
    /// The order of search, for the file itself.
    FirstFound,
    /// Nobody said anything.
    Default,
}

impl Source {
    /// The source as the start of a message about what it holds.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Flag(name) | Self::Environment(name) => (*name).to_owned(),
            Self::File { .. } | Self::FirstFound | Self::Default => self.to_string(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File { file, place } => write!(f, "{file}: {place}"),
            Self::FirstFound => f.write_str("first found"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Its name for people.
    pub name: &'static str,
    /// The value as it may be shown; a password as `***`, what is not set as `(none)`.
    pub shown: String,
    /// Where it came from.
    pub source: Source,
}

/// All values in force; its `Display` is a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance(pub(super) Vec<Effective>);

impl Provenance {
    /// The values in force, in the order of the table.
    #[must_use]
    pub fn effective(&self) -> &[Effective] {
        &self.0
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.0.iter().map(|row| (row.name, one_line(&row.shown), &row.source)).collect();
        let name_width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        let shown_width = rows.iter().map(|(_, shown, _)| shown.chars().count()).max().unwrap_or(0);
        for (index, (name, shown, source)) in rows.iter().enumerate() {
            let end_of_last = if index == 0 { "" } else { "\n" };
            write!(f, "{end_of_last}{name:name_width$}  {shown:shown_width$}  {source}")?;
        }
        Ok(())
    }
}

/// A user name or the name of a file may hold anything; a table has one line a row.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, shown: &str, source: Source) -> Effective {
        Effective { name, shown: shown.to_owned(), source }
    }

    #[test]
    fn the_table_is_aligned() {
        let table = Provenance(vec![
            row("redis host", "10.0.0.1", Source::Flag("--redis-host")),
            row("redis port", "6379", Source::Default),
            row("redis username", "björn", Source::Environment("REDIS_USERNAME")),
            row("redis password", "***", Source::File { file: ".outpost.yaml".into(), place: "redis.password" }),
        ]);
        let expected = "\
redis host      10.0.0.1  flag --redis-host
redis port      6379      default
redis username  björn     environment REDIS_USERNAME
redis password  ***       .outpost.yaml: redis.password";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_row_is_one_line() {
        let table = Provenance(vec![row("redis username", "a\nb\u{1b}[2J", Source::Default)]);
        assert_eq!(table.to_string(), "redis username  a\\nb\\u{1b}[2J  default");
    }
}
