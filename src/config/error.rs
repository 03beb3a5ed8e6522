//! Why a configuration can't be followed.
//!
//! Owns the messages: each is one line that names the source, the place in it, and what to do. None
//! shows a password, nor a text that may hold one.

use std::io;

use super::provenance::Source;

/// Why a configuration can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A text does not mean what its setting needs.
    #[error("{at}: {problem}", at = given.place())]
    Value {
        /// Where the text was given.
        given: Source,
        /// What is wrong with it.
        problem: ValueProblem,
    },
    /// A variable is not text.
    #[error("{variable}: is not UTF-8 text: write it as UTF-8, or unset it")]
    NotText {
        /// The variable.
        variable: &'static str,
    },
    /// A cluster has no other database.
    #[error(
        "{at}: database {database} can't be had in cluster mode ({mode}): Redis Cluster has only database 0. Write 0, \
         or turn cluster mode off",
        at = given.place(),
        mode = cluster.place()
    )]
    DatabaseInCluster {
        /// The database.
        database: u8,
        /// Where it was given.
        given: Source,
        /// Where cluster mode was.
        cluster: Source,
    },
    /// The password was given twice.
    #[error("--redis-password and --redis-password-file are both given: leave one of them out")]
    TwoPasswords,
    /// A user name has no password.
    #[error(
        "{at}: a user name needs a password, since Redis is never asked to log in with a user name alone: give \
         --redis-password-file or REDIS_PASSWORD, or leave the user name out",
        at = given.place()
    )]
    UsernameAlone {
        /// Where the user name was given.
        given: Source,
    },
    /// A TLS flag was given, but TLS is off.
    #[error("{flag}: TLS is off ({by}): add --redis-tls, or leave {flag} out")]
    TlsOff {
        /// The flag.
        flag: &'static str,
        /// What turned TLS off.
        by: Source,
    },
    /// A client certificate and its key go together.
    #[error("{given}: needs {missing} beside it: a certificate identifies us only together with its private key")]
    HalfAnIdentity {
        /// The flag that was given.
        given: &'static str,
        /// The flag that was not.
        missing: &'static str,
    },
    /// A file can't be read.
    #[error("{file}: can't be read: {cause}. {remedy}")]
    Unreadable {
        /// The file, and what named it.
        file: String,
        /// Why not.
        cause: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A named file does not hold what it is named for.
    #[error("{flag} {file}: holds no {wanted}: {remedy}")]
    WrongContent {
        /// The flag that named it.
        flag: &'static str,
        /// The file.
        file: String,
        /// What it should hold.
        wanted: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A YAML file can't be understood.
    #[error(
        "{file}{at}: can't be understood: write YAML with `redis` as a mapping, and its values and `deployment_id` \
         as single values",
        at = line.map(|line| format!(": line {line}")).unwrap_or_default()
    )]
    NotYaml {
        /// The file.
        file: String,
        /// The line, if it is known.
        line: Option<usize>,
    },
    /// A YAML file merges mappings.
    #[error("{file}: {place}: merge keys are not followed here: write the values out")]
    MergeKey {
        /// The file.
        file: String,
        /// The path of the merge key.
        place: &'static str,
    },
    /// A line of a `.env` file can't be understood.
    #[error(
        "{file}: {variable}: can't be understood: write {variable}='value' on one line, and close every quote in \
         the lines before it"
    )]
    NotAssignment {
        /// The file.
        file: String,
        /// The variable.
        variable: &'static str,
    },
    /// A value of a `.env` file refers to another variable.
    #[error(
        "{file}: {variable}: refers to another variable, which is not followed here: write the value out, or put it \
         in single quotes if the $ belongs to it"
    )]
    Reference {
        /// The file.
        file: String,
        /// The variable.
        variable: &'static str,
    },
}

/// Why a text does not mean what its setting needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueProblem {
    /// No port.
    #[error("{0} is not a port (1 to 65535)")]
    NotAPort(Shown),
    /// The address of a Service where a port belongs.
    #[error(
        "{0} is not a port (1 to 65535): a Service named `redis` puts REDIS_PORT like this into every pod of its \
         namespace; set `enableServiceLinks: false` in the pod's spec, or give --redis-port"
    )]
    ServiceLink(Shown),
    /// No database.
    #[error("{0} is not a database (0 to 15)")]
    NotADatabase(Shown),
    /// No number of replicas.
    #[error("{0} is no number of replicas: write 0 or more")]
    NotACountOfReplicas(Shown),
    /// Neither yes nor no.
    #[error("{0} is neither true nor false (nor 1, 0, yes, no)")]
    NotABoolean(Shown),
    /// No host. Not shown: addresses with a scheme often hold a password.
    #[error(
        "is neither a host name nor an IP address: write it without scheme, user, brackets and port, and give the \
         port as --redis-port or REDIS_PORT"
    )]
    NotAHost,
    /// Braces would move the hash tag of every key.
    #[error(
        "a deployment id may hold neither braces nor control characters: write it as Outpost's DEPLOYMENT_ID has it"
    )]
    NotADeploymentId,
    /// Too long.
    #[error("a deployment id may have at most 63 characters: write it as Outpost's DEPLOYMENT_ID has it")]
    LongDeploymentId,
    /// None of the choices.
    #[error("{given} is none of {choices}")]
    NotAChoice {
        /// What was given.
        given: Shown,
        /// What would do.
        choices: String,
    },
}

/// Longest text that is repeated in a message, in characters.
const SHOWN_LIMIT: usize = 40;

/// A text as it may be repeated in a message: on one line, shortened, and without what may be a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    pub(super) fn new(text: &str) -> Self {
        // An address with a login, put where something else belongs.
        if text.contains('@') {
            return Self("the text given (not shown, since it may hold a password)".to_owned());
        }
        let mut start: String = text.chars().take(SHOWN_LIMIT).collect();
        if start.len() < text.len() {
            start.push('…');
        }
        Self(format!("{start:?}"))
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
