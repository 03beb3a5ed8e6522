//! The flags, and their texts.
//!
//! Owns what is typed: names, headings, help; all of it works before and after the subcommand. Leaves
//! the judging of values to the rules that hold for all sources, but for choices, which help lists.

use clap::Args;
use clap::builder::PossibleValuesParser;
use secrecy::{ExposeSecret as _, SecretString};

use super::layers::Values;
use super::setting::Setting;
use super::value;

/// Flags that say which Redis is meant, how to be let in, and which keys are whose.
#[allow(clippy::doc_markdown, reason = "the documentation of a flag is its help text, where backticks are noise")]
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigurationFlags {
    /// Read settings from this file, which must exist: one that ends in .env as such, others as YAML.
    /// Default: the first found of .env, .outpost.yaml, config/outpost.yaml,
    /// config/outpost/config.yaml, config/outpost/.env, and the last three under / [env: CONFIG]
    #[arg(long, short = 'c', global = true, value_name = "FILE", help_heading = KEYSPACE)]
    config: Option<String>,
    /// Host name or address of Redis, of any node for a cluster. Default: redis [env: REDIS_HOST]
    #[arg(long, global = true, value_name = "HOST", help_heading = REDIS)]
    redis_host: Option<String>,
    /// TCP port. Default: 6379 [env: REDIS_PORT]
    #[arg(long, global = true, value_name = "PORT", allow_negative_numbers = true, help_heading = REDIS)]
    redis_port: Option<String>,
    /// ACL user; needs a password. Default: Redis' default user [env: REDIS_USERNAME]
    #[arg(long, global = true, value_name = "USER", help_heading = REDIS)]
    redis_username: Option<String>,
    /// Password. Others on this machine can read it from the list of processes: better use
    /// --redis-password-file or the environment. Default: none [env: REDIS_PASSWORD]
    #[arg(long, global = true, value_name = "PASSWORD", allow_hyphen_values = true, help_heading = REDIS)]
    redis_password: Option<SecretString>,
    /// Read the password from this file; line ends after it are dropped. Default: none
    #[arg(long, global = true, value_name = "FILE", help_heading = REDIS)]
    redis_password_file: Option<String>,
    /// Number of the database, 0 to 15; a cluster has only 0. Default: 0 [env: REDIS_DATABASE]
    #[arg(long, global = true, value_name = "NUMBER", allow_negative_numbers = true, help_heading = REDIS)]
    redis_database: Option<String>,
    /// Whether Redis runs in cluster mode. Default: false [env: REDIS_CLUSTER_ENABLED]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = REDIS)]
    redis_cluster: Option<String>,
    /// Whether to speak TLS; certificate and host name are verified. Default: false
    /// [env: REDIS_TLS_ENABLED]
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = TLS)]
    redis_tls: Option<String>,
    /// PEM file of the only authorities to trust. Default: the public ones
    #[arg(long, global = true, value_name = "FILE", help_heading = TLS)]
    redis_tls_ca_file: Option<String>,
    /// PEM file of the certificate chain that identifies us; needs --redis-tls-key-file. Default: none
    #[arg(long, global = true, value_name = "FILE", help_heading = TLS)]
    redis_tls_cert_file: Option<String>,
    /// PEM file of that certificate's private key. Default: none
    #[arg(long, global = true, value_name = "FILE", help_heading = TLS)]
    redis_tls_key_file: Option<String>,
    /// Accept any certificate and any host name: whoever is on the way can read and change
    /// everything. Default: false
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", help_heading = TLS)]
    redis_tls_insecure_skip_verify: Option<String>,
    /// Outpost's deployment id, which prefixes every key. Default: none [env: DEPLOYMENT_ID]
    #[arg(long, global = true, value_name = "ID", help_heading = KEYSPACE)]
    deployment_id: Option<String>,
    /// Names that 001_hash_tags gives to keys: those that Outpost reads, or those of the earlier tool's
    /// documentation. Default: outpost
    #[arg(long, global = true, value_name = "LAYOUT", help_heading = KEYSPACE,
        value_parser = PossibleValuesParser::new(value::KEY_LAYOUTS.map(|(name, _)| name)))]
    key_layout: Option<String>,
    /// What happens to a target key that exists and differs from its source: stop without
    /// overwriting anything, replace it by its source, or keep it. Default: fail
    #[arg(long, global = true, value_name = "POLICY", help_heading = KEYSPACE,
        value_parser = PossibleValuesParser::new(value::CONFLICT_POLICIES.map(|(name, _)| name)))]
    conflict_policy: Option<String>,
    /// Replicas of each primary that must acknowledge before the mark and before deletes; 0 does without them.
    /// Default: 1 where a primary has replicas, dead ones included
    #[arg(long, global = true, value_name = "NUMBER", allow_negative_numbers = true, help_heading = KEYSPACE)]
    min_replicas: Option<String>,
}

const REDIS: &str = "Redis";
const TLS: &str = "TLS to Redis";
const KEYSPACE: &str = "Configuration";

impl ConfigurationFlags {
    /// The texts that were typed.
    pub(super) fn values(&self) -> Values {
        Setting::ALL.into_iter().filter_map(|setting| Some((setting, self.text(setting)?))).collect()
    }

    /// The first flag that was typed, in the order of help.
    #[must_use]
    pub fn first_typed(&self) -> Option<&'static str> {
        Setting::ALL.into_iter().find(|setting| self.text(*setting).is_some()).map(Setting::flag)
    }

    fn text(&self, setting: Setting) -> Option<&str> {
        match setting {
            Setting::File => self.config.as_deref(),
            Setting::Host => self.redis_host.as_deref(),
            Setting::Port => self.redis_port.as_deref(),
            Setting::Username => self.redis_username.as_deref(),
            Setting::Password => self.redis_password.as_ref().map(SecretString::expose_secret),
            Setting::PasswordFile => self.redis_password_file.as_deref(),
            Setting::Database => self.redis_database.as_deref(),
            Setting::Cluster => self.redis_cluster.as_deref(),
            Setting::Tls => self.redis_tls.as_deref(),
            Setting::TlsCaFile => self.redis_tls_ca_file.as_deref(),
            Setting::TlsCertFile => self.redis_tls_cert_file.as_deref(),
            Setting::TlsKeyFile => self.redis_tls_key_file.as_deref(),
            Setting::TlsInsecureSkipVerify => self.redis_tls_insecure_skip_verify.as_deref(),
            Setting::DeploymentId => self.deployment_id.as_deref(),
            Setting::KeyLayout => self.key_layout.as_deref(),
            Setting::ConflictPolicy => self.conflict_policy.as_deref(),
            Setting::MinReplicas => self.min_replicas.as_deref(),
        }
    }
}

#[cfg(test)]
#[path = "flags_tests.rs"]
mod tests;
