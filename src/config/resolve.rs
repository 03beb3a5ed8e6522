//! From the sources to one configuration.
//!
//! Owns the defaults and the rules between settings. Checks what can be checked before it reads the
//! files that flags name.

use secrecy::SecretString;

use super::environment::Environment;
use super::error::ConfigurationError;
use super::files::{Folders, SettingsFile};
use super::flags::ConfigurationFlags;
use super::layers::Layers;
use super::provenance::{Effective, Provenance, Source};
use super::setting::Setting;
use super::{Configuration, material, value};
use crate::keyspace::endpoint::{ClientCertificate, RedisEndpoint, Tls};
use crate::migrations::{Parameters, Scope};

/// The host unless another is given.
const DEFAULT_HOST: &str = "redis";

/// The port unless another is given.
const DEFAULT_PORT: u16 = 6379;

/// What stands in the table for what is not set.
const NONE: &str = "(none)";

impl Configuration {
    /// Reads the configuration once: flags, then environment, then the one file, then defaults.
    ///
    /// # Errors
    /// The first text that can't be followed, file that can't be read, or contradiction.
    pub fn read(
        flags: &ConfigurationFlags,
        environment: &Environment,
        folders: &Folders,
    ) -> Result<Self, ConfigurationError> {
        let mut layers = Layers::default();
        layers.push(flags.values(), |setting| Source::Flag(setting.flag()));
        layers.push(environment.values(), |setting| setting.variable().map_or(Source::Default, Source::Environment));
        let file = SettingsFile::find(&layers, folders)?;
        let file_row = file_row(&layers, file.as_ref());
        if let Some(file) = file {
            file.put_below(&mut layers);
        }
        Self::resolve(&layers, file_row, folders)
    }

    fn resolve(layers: &Layers, file_row: Effective, folders: &Folders) -> Result<Self, ConfigurationError> {
        let scope = Scope {
            deployment_id: layers.value(Setting::DeploymentId, value::deployment_id)?,
            parameters: Parameters {
                key_layout: layers.value(Setting::KeyLayout, value::key_layout)?.unwrap_or_default(),
            },
        };
        let conflict_policy = layers.value(Setting::ConflictPolicy, value::conflict_policy)?.unwrap_or_default();
        let min_replicas = layers.value(Setting::MinReplicas, value::min_replicas)?.unwrap_or_default();
        let endpoint = endpoint(layers, folders)?;
        let provenance = Provenance::default();
        let mut configuration = Self { endpoint, scope, conflict_policy, min_replicas, provenance };
        configuration.provenance = configuration.table(layers, file_row);
        Ok(configuration)
    }

    fn table(&self, layers: &Layers, file_row: Effective) -> Provenance {
        let Self { endpoint, scope, conflict_policy, min_replicas, .. } = self;
        let text = |setting| layers.given(setting).map_or(NONE, |given| given.text).to_owned();
        let password = if endpoint.password.is_some() { "***" } else { NONE };
        let tls = endpoint.tls.as_ref();
        let row = |setting: Setting, shown: String| Effective {
            name: setting.label(),
            shown,
            source: layers.source(setting),
        };
        Provenance(vec![
            file_row,
            row(Setting::Host, endpoint.host.clone()),
            row(Setting::Port, endpoint.port.to_string()),
            row(Setting::Username, text(Setting::Username)),
            Effective {
                name: Setting::Password.label(),
                shown: password.to_owned(),
                source: layers.source(password_setting(layers)),
            },
            row(Setting::Database, endpoint.database.to_string()),
            row(Setting::Cluster, endpoint.cluster.to_string()),
            row(Setting::Tls, tls.is_some().to_string()),
            row(Setting::TlsCaFile, text(Setting::TlsCaFile)),
            row(Setting::TlsCertFile, text(Setting::TlsCertFile)),
            row(Setting::TlsKeyFile, text(Setting::TlsKeyFile)),
            row(Setting::TlsInsecureSkipVerify, tls.is_some_and(|tls| tls.insecure_skip_verify).to_string()),
            row(Setting::DeploymentId, text(Setting::DeploymentId)),
            row(Setting::KeyLayout, value::name_of(&scope.parameters.key_layout, &value::KEY_LAYOUTS).to_owned()),
            row(Setting::ConflictPolicy, value::name_of(conflict_policy, &value::CONFLICT_POLICIES).to_owned()),
            row(Setting::MinReplicas, min_replicas.to_string()),
        ])
    }
}

/// Which file was read, and who chose it.
fn file_row(named: &Layers, file: Option<&SettingsFile>) -> Effective {
    let chosen_by = match named.given(Setting::File) {
        Some(given) => given.source,
        None if file.is_some() => Source::FirstFound,
        None => Source::Default,
    };
    let shown = file.map_or(NONE, SettingsFile::name).to_owned();
    Effective { name: Setting::File.label(), shown, source: chosen_by }
}

fn endpoint(layers: &Layers, folders: &Folders) -> Result<RedisEndpoint, ConfigurationError> {
    let host = layers.value(Setting::Host, value::host)?.unwrap_or_else(|| DEFAULT_HOST.to_owned());
    let port = layers.value(Setting::Port, value::port)?.unwrap_or(DEFAULT_PORT);
    let cluster = layers.value(Setting::Cluster, value::boolean)?.unwrap_or_default();
    let database = layers.value(Setting::Database, value::database)?.unwrap_or_default();
    if cluster && database != 0 {
        let (given, cluster) = (layers.source(Setting::Database), layers.source(Setting::Cluster));
        return Err(ConfigurationError::DatabaseInCluster { database, given, cluster });
    }
    refuse_half_logins(layers)?;
    let username = layers.given(Setting::Username).map(|given| given.text.to_owned());
    let tls = tls(layers, folders)?;
    let password = password(layers, folders)?;
    Ok(RedisEndpoint { host, port, cluster, database, username, password, tls })
}

/// Which setting decides the password: the file is a flag, and so above environment and file.
fn password_setting(layers: &Layers) -> Setting {
    if layers.given(Setting::PasswordFile).is_some() { Setting::PasswordFile } else { Setting::Password }
}

/// A second password would be silently dropped, and so would a user name without one.
fn refuse_half_logins(layers: &Layers) -> Result<(), ConfigurationError> {
    let typed = layers.given(Setting::Password).is_some_and(|given| matches!(given.source, Source::Flag(_)));
    if typed && layers.given(Setting::PasswordFile).is_some() {
        return Err(ConfigurationError::TwoPasswords);
    }
    match layers.given(Setting::Username) {
        Some(username) if layers.given(password_setting(layers)).is_none() => {
            Err(ConfigurationError::UsernameAlone { given: username.source })
        }
        Some(_) | None => Ok(()),
    }
}

fn password(layers: &Layers, folders: &Folders) -> Result<Option<SecretString>, ConfigurationError> {
    match layers.given(Setting::PasswordFile) {
        Some(file) => material::password(file.text, folders).map(Some),
        None => Ok(layers.given(Setting::Password).map(|given| SecretString::from(given.text))),
    }
}

fn tls(layers: &Layers, folders: &Folders) -> Result<Option<Tls>, ConfigurationError> {
    let insecure_skip_verify = layers.value(Setting::TlsInsecureSkipVerify, value::boolean)?.unwrap_or_default();
    if !layers.value(Setting::Tls, value::boolean)?.unwrap_or_default() {
        return refuse_tls_flags(layers, insecure_skip_verify).map(|()| None);
    }
    let identity = identity(layers)?;
    let ca_pem = layers.given(Setting::TlsCaFile);
    let ca_pem = ca_pem.map(|file| material::certificates(Setting::TlsCaFile, file.text, folders)).transpose()?;
    let client = identity.map(|(certificate, key)| client_certificate(certificate, key, folders)).transpose()?;
    Ok(Some(Tls { ca_pem, client, server_name: None, insecure_skip_verify }))
}

/// Whoever names a certificate believes that the connection is encrypted.
fn refuse_tls_flags(layers: &Layers, insecure_skip_verify: bool) -> Result<(), ConfigurationError> {
    let files = [Setting::TlsCaFile, Setting::TlsCertFile, Setting::TlsKeyFile];
    let file = files.into_iter().find(|file| layers.given(*file).is_some());
    let skip = insecure_skip_verify.then_some(Setting::TlsInsecureSkipVerify);
    match file.or(skip) {
        None => Ok(()),
        Some(setting) => Err(ConfigurationError::TlsOff { flag: setting.flag(), by: layers.source(Setting::Tls) }),
    }
}

/// The files of our certificate and its key.
fn identity(layers: &Layers) -> Result<Option<(&str, &str)>, ConfigurationError> {
    let half = |given: Setting, missing: Setting| {
        Err(ConfigurationError::HalfAnIdentity { given: given.flag(), missing: missing.flag() })
    };
    match (layers.given(Setting::TlsCertFile), layers.given(Setting::TlsKeyFile)) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate.text, key.text))),
        (Some(_), None) => half(Setting::TlsCertFile, Setting::TlsKeyFile),
        (None, Some(_)) => half(Setting::TlsKeyFile, Setting::TlsCertFile),
    }
}

fn client_certificate(
    certificate: &str,
    key: &str,
    folders: &Folders,
) -> Result<ClientCertificate, ConfigurationError> {
    Ok(ClientCertificate {
        certificate_pem: material::certificates(Setting::TlsCertFile, certificate, folders)?,
        key_pem: material::private_key(key, folders)?,
    })
}
