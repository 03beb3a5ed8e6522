//! The settings and the name of each in every source.
//!
//! Owns this one table; whatever reads or reports a source takes its names from here.

/// Something that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    File,
    Host,
    Port,
    Username,
    Password,
    PasswordFile,
    Database,
    Cluster,
    Tls,
    TlsCaFile,
    TlsCertFile,
    TlsKeyFile,
    TlsInsecureSkipVerify,
    DeploymentId,
    KeyLayout,
    ConflictPolicy,
    MinReplicas,
}

impl Setting {
    /// All of them.
    pub(super) const ALL: [Self; 17] = [
        Self::File,
        Self::Host,
        Self::Port,
        Self::Username,
        Self::Password,
        Self::PasswordFile,
        Self::Database,
        Self::Cluster,
        Self::Tls,
        Self::TlsCaFile,
        Self::TlsCertFile,
        Self::TlsKeyFile,
        Self::TlsInsecureSkipVerify,
        Self::DeploymentId,
        Self::KeyLayout,
        Self::ConflictPolicy,
        Self::MinReplicas,
    ];

    /// Its name for people.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::File => "configuration file",
            Self::Host => "redis host",
            Self::Port => "redis port",
            Self::Username => "redis username",
            Self::Password => "redis password",
            Self::PasswordFile => "redis password file",
            Self::Database => "redis database",
            Self::Cluster => "redis cluster",
            Self::Tls => "redis tls",
            Self::TlsCaFile => "redis tls ca file",
            Self::TlsCertFile => "redis tls cert file",
            Self::TlsKeyFile => "redis tls key file",
            Self::TlsInsecureSkipVerify => "redis tls insecure skip verify",
            Self::DeploymentId => "deployment id",
            Self::KeyLayout => "key layout",
            Self::ConflictPolicy => "conflict policy",
            Self::MinReplicas => "min replicas",
        }
    }

    /// Its flag.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::File => "--config",
            Self::Host => "--redis-host",
            Self::Port => "--redis-port",
            Self::Username => "--redis-username",
            Self::Password => "--redis-password",
            Self::PasswordFile => "--redis-password-file",
            Self::Database => "--redis-database",
            Self::Cluster => "--redis-cluster",
            Self::Tls => "--redis-tls",
            Self::TlsCaFile => "--redis-tls-ca-file",
            Self::TlsCertFile => "--redis-tls-cert-file",
            Self::TlsKeyFile => "--redis-tls-key-file",
            Self::TlsInsecureSkipVerify => "--redis-tls-insecure-skip-verify",
            Self::DeploymentId => "--deployment-id",
            Self::KeyLayout => "--key-layout",
            Self::ConflictPolicy => "--conflict-policy",
            Self::MinReplicas => "--min-replicas",
        }
    }

    /// Its environment variable, if it has one; a `.env` file has the same names.
    pub(super) fn variable(self) -> Option<&'static str> {
        match self {
            Self::File => Some("CONFIG"),
            Self::Host => Some("REDIS_HOST"),
            Self::Port => Some("REDIS_PORT"),
            Self::Username => Some("REDIS_USERNAME"),
            Self::Password => Some("REDIS_PASSWORD"),
            Self::Database => Some("REDIS_DATABASE"),
            Self::Cluster => Some("REDIS_CLUSTER_ENABLED"),
            Self::Tls => Some("REDIS_TLS_ENABLED"),
            Self::DeploymentId => Some("DEPLOYMENT_ID"),
            Self::PasswordFile
            | Self::TlsCaFile
            | Self::TlsCertFile
            | Self::TlsKeyFile
            | Self::TlsInsecureSkipVerify
            | Self::KeyLayout
            | Self::ConflictPolicy
            | Self::MinReplicas => None,
        }
    }

    /// Its variable, if a `.env` file may hold it: a file can't name another file to read instead.
    pub(super) fn variable_in_file(self) -> Option<&'static str> {
        if self == Self::File { None } else { self.variable() }
    }

    /// Its path in a YAML file, if it has one.
    pub(super) fn yaml(self) -> Option<&'static str> {
        match self {
            Self::Host => Some("redis.host"),
            Self::Port => Some("redis.port"),
            Self::Username => Some("redis.username"),
            Self::Password => Some("redis.password"),
            Self::Database => Some("redis.database"),
            Self::Cluster => Some("redis.cluster_enabled"),
            Self::Tls => Some("redis.tls_enabled"),
            Self::DeploymentId => Some("deployment_id"),
            Self::File
            | Self::PasswordFile
            | Self::TlsCaFile
            | Self::TlsCertFile
            | Self::TlsKeyFile
            | Self::TlsInsecureSkipVerify
            | Self::KeyLayout
            | Self::ConflictPolicy
            | Self::MinReplicas => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_same_settings_in_either_form() {
        for setting in Setting::ALL {
            assert_eq!(setting.variable_in_file().is_some(), setting.yaml().is_some(), "{setting:?}");
        }
    }
}
