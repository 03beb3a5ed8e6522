//! Outpost's YAML file.
//!
//! Owns the few keys of it that are settings here; Outpost has many more, which are ignored. Refuses
//! to say what the file holds, since an error of the parser may quote a password.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_norway::Deserializer;

use super::error::ConfigurationError;
use super::layers::Values;
use super::setting::Setting;

/// The keys that are settings. All are read as the text that stands there: read as a number, a
/// password of `1e5` would become another one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    redis: Option<Redis>,
    deployment_id: Option<String>,
    #[serde(rename = "<<")]
    merge: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Redis {
    host: Option<String>,
    port: Option<String>,
    username: Option<String>,
    password: Option<String>,
    database: Option<String>,
    cluster_enabled: Option<String>,
    tls_enabled: Option<String>,
    #[serde(rename = "<<")]
    merge: Option<IgnoredAny>,
}

/// The settings in a file's text.
pub(super) fn read(file: &str, text: &str) -> Result<Values, ConfigurationError> {
    // Outpost reads the first of several documents, too; an empty file has none.
    let document = Deserializer::from_str(text).next().map(Option::<Document>::deserialize).transpose();
    let document = document.map_err(|error| {
        let line = error.location().map(|location| location.line());
        ConfigurationError::NotYaml { file: file.to_owned(), line }
    })?;
    let document = document.flatten().unwrap_or_default();
    let redis = document.redis.unwrap_or_default();
    // Ignored like other unknown keys, they would silently lead to another Redis.
    for (merge, place) in [(document.merge, "<<"), (redis.merge, "redis.<<")] {
        if merge.is_some() {
            return Err(ConfigurationError::MergeKey { file: file.to_owned(), place });
        }
    }
    let texts = [
        (Setting::Host, redis.host),
        (Setting::Port, redis.port),
        (Setting::Username, redis.username),
        (Setting::Password, redis.password),
        (Setting::Database, redis.database),
        (Setting::Cluster, redis.cluster_enabled),
        (Setting::Tls, redis.tls_enabled),
        (Setting::DeploymentId, document.deployment_id),
    ];
    Ok(texts.into_iter().filter_map(|(setting, text)| Some((setting, text?))).collect())
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
