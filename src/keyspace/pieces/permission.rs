//! Whether the user may run what each type needs to be copied in pieces.
//!
//! Owns those commands but for hashes, which the preflight checks ask for every user. Asked before anything is copied,
//! for a user that moves hashes alone needs none of them.

use crate::keyspace::fault::Fault;
use crate::keyspace::pieces::Kind;
use crate::keyspace::router::Keyspace;
use crate::keyspace::server::Permission;
use crate::model::entry::Bytes;
use crate::model::key::RedisKey;

pub(super) const NOT_PERMITTED: &str =
    "the Redis user may not run the commands that its type needs; compare it with the ACL in the README";

/// Stands for the key.
const KEY: &str = "";

impl Kind {
    fn commands(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Hash => &[],
            Self::Set => &[&["SSCAN", KEY, "0"], &["SMISMEMBER", KEY, "x"], &["SADD", KEY, "x"]],
            Self::SortedSet => &[&["ZSCAN", KEY, "0"], &["ZMSCORE", KEY, "x"], &["ZADD", KEY, "0", "x"]],
            Self::List => &[&["LRANGE", KEY, "0", "0"], &["RPUSH", KEY, "x"]],
            Self::Stream => &[
                &["XRANGE", KEY, "-", "+"],
                &["XADD", KEY, "*", "x", "x"],
                &["XSETID", KEY, "0"],
                &["XINFO", "STREAM", KEY],
                &["XINFO", "GROUPS", KEY],
                &["XINFO", "CONSUMERS", KEY, "x"],
                &["XGROUP", "CREATE", KEY, "x", "0"],
                &["XGROUP", "CREATECONSUMER", KEY, "x", "x"],
                &["XGROUP", "DESTROY", KEY, "x"],
                &["XPENDING", KEY, "x"],
                &["XCLAIM", KEY, "x", "x", "0", "0"],
                &["TIME"],
            ],
        }
    }
}

impl Keyspace {
    /// Whether nothing forbids a copy in pieces; who may not ask is told so by the preflight checks.
    pub(super) async fn may_copy(&self, kind: Kind, key: &RedisKey) -> Result<bool, Fault> {
        let word = |word: &&str| if *word == KEY { key.as_bytes().to_vec() } else { word.as_bytes().to_vec() };
        for command in kind.commands() {
            let command: Vec<Bytes> = command.iter().map(word).collect();
            if self.permission(&command).await? == Permission::Denied {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
