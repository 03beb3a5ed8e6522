//! A command with the slot that decides where it goes.

use redis::{Cmd, ToRedisArgs, cmd};

use crate::keyspace::script::Script;
use crate::model::key::RedisKey;
use crate::model::slot::slot_of;

/// Room for the arguments that most commands have beside their key.
const FEW_WORDS: usize = 4;
const FEW_BYTES: usize = 48;

/// A command on one key, or on several of one slot.
#[derive(Clone)]
pub(super) struct Command {
    pub(super) slot: u16,
    pub(super) cmd: Cmd,
    /// What it runs, if it runs a script.
    pub(super) script: Option<&'static Script>,
}

impl Command {
    /// `NAME key`; arguments follow by [`Command::arg`].
    pub(super) fn on(name: &str, key: &RedisKey) -> Self {
        let mut cmd = Cmd::with_capacity(FEW_WORDS, name.len() + key.as_bytes().len() + FEW_BYTES);
        cmd.arg(name).arg(key.as_bytes());
        Self { slot: slot_of(key), cmd, script: None }
    }

    /// `NAME SUBCOMMAND key`.
    pub(super) fn sub(name: &str, subcommand: &str, key: &RedisKey) -> Self {
        Self { slot: slot_of(key), cmd: cmd(name).arg(subcommand).arg(key.as_bytes()).take(), script: None }
    }

    /// `EVALSHA sha n keys…`; all keys must share the first one's slot.
    pub(super) fn script(script: &'static Script, keys: &[&RedisKey]) -> Self {
        let mut cmd = cmd("EVALSHA").arg(script.sha1()).arg(keys.len()).take();
        for key in keys {
            cmd.arg(key.as_bytes());
        }
        Self { slot: keys.first().map_or(0, |key| slot_of(key)), cmd, script: Some(script) }
    }

    /// Adds an argument.
    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.cmd.arg(argument);
        self
    }
}
