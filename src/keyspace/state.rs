//! Marks and run hashes: state that belongs to a migration, not to its entries.
//!
//! Every write here is a script under a condition on the state itself.

use std::time::Duration;

use crate::keyspace::command::Command;
use crate::keyspace::fault::Fault;
use crate::keyspace::script::{self, Script};
use crate::keyspace::value;
use crate::keyspace::writer::Writer;
use crate::model::key::RedisKey;

/// Names and values to write into a state hash.
pub type Fields<'a> = &'a [(&'a str, String)];

impl Writer {
    /// Creates or renews a run hash with these fields; it ends after `life` unless renewed.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn write_run(&self, run: &RedisKey, life: Duration, fields: Fields<'_>) -> Result<(), Fault> {
        let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let command = with_fields(Command::script(&script::WRITE_RUN, &[run]).arg(millis), fields);
        self.run_one(command).await.map(|_| ())
    }

    /// Writes fields into a run hash and takes away the token of whoever ran before.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn claim_run(&self, run: &RedisKey, life: Duration, fields: Fields<'_>) -> Result<(), Fault> {
        let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let command = |script: &'static Script| with_fields(Command::script(script, &[run]).arg(millis), fields);
        self.run_at_memory_limit(&script::CLAIM_RUN, command).await.map(|_| ())
    }

    /// Writes a mark if the run still carries `token`, and ends the run. Gives whether it did.
    ///
    /// # Errors
    /// The fault that stayed; the mark may then stand all the same.
    pub async fn write_mark(
        &self,
        mark: &RedisKey,
        run: &RedisKey,
        token: &str,
        fields: Fields<'_>,
    ) -> Result<bool, Fault> {
        let command = with_fields(Command::script(&script::WRITE_MARK, &[mark, run]).arg(token), fields);
        Ok(value::int(self.run_one(command).await?)? == 1)
    }

    /// Adds fields to a mark whose `status` is `applied`. Gives whether it did.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn stamp_mark(&self, mark: &RedisKey, fields: Fields<'_>) -> Result<bool, Fault> {
        let command = |script: &'static Script| with_fields(Command::script(script, &[mark]).arg("applied"), fields);
        Ok(value::int(self.run_at_memory_limit(&script::STAMP_MARK, command).await?)? == 1)
    }

    /// Takes the stamps off a mark, so that it has to be proven again. Gives whether it had any.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn unstamp_mark(&self, mark: &RedisKey) -> Result<bool, Fault> {
        Ok(value::int(self.run_one(Command::script(&script::UNSTAMP_MARK, &[mark])).await?)? > 0)
    }

    /// Claims a mark for an initialisation, unless it is stamped: `claim` is the field that says so, `token` its
    /// value. Gives whether it did.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn claim_mark(
        &self,
        mark: &RedisKey,
        claim: &str,
        token: &str,
        fields: Fields<'_>,
    ) -> Result<bool, Fault> {
        let command = with_fields(Command::script(&script::CLAIM_MARK, &[mark]).arg(claim).arg(token), fields);
        Ok(value::int(self.run_one(command).await?)? == 1)
    }

    /// Makes the claim of this token a stamp. Gives whether the mark still carried it.
    ///
    /// # Errors
    /// The fault that stayed; the stamp may then stand all the same.
    pub async fn confirm_mark(&self, mark: &RedisKey, claim: &str, token: &str, stamp: &str) -> Result<bool, Fault> {
        let command = Command::script(&script::CONFIRM_MARK, &[mark]).arg(claim).arg(token).arg(stamp);
        Ok(value::int(self.run_one(command).await?)? == 1)
    }

    /// Deletes a mark that the initialisation of this token claimed or stamped. Gives whether it was.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn withdraw_mark(&self, mark: &RedisKey, claim: &str, stamp: &str, token: &str) -> Result<bool, Fault> {
        let command = Command::script(&script::WITHDRAW_MARK, &[mark]).arg(claim).arg(stamp).arg(token);
        Ok(value::int(self.run_one(command).await?)? == 1)
    }

    /// Writes a mark where none stands. Gives whether it did.
    ///
    /// # Errors
    /// The fault that stayed.
    pub async fn write_mark_if_absent(&self, mark: &RedisKey, fields: Fields<'_>) -> Result<bool, Fault> {
        let command = with_fields(Command::script(&script::WRITE_MARK_IF_ABSENT, &[mark]), fields);
        Ok(value::int(self.run_one(command).await?)? == 1)
    }
}

fn with_fields(mut command: Command, fields: Fields<'_>) -> Command {
    for (name, content) in fields {
        command = command.arg(*name).arg(content);
    }
    command
}
