//! Reads the Secrets that a request names, at each connect, and makes an endpoint of them.
//!
//! Owns the only reading of Secrets: by `get`, in the resource's own namespace. Keeps nothing; a
//! rotated Secret is picked up by the next connect.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::SecretString;
use thiserror::Error;

use crate::api::redis_target::{RedisTarget, SecretKey, TlsTarget};
use crate::keyspace::RedisEndpoint;
use crate::keyspace::endpoint::{ClientCertificate, Tls};

/// Why no endpoint could be made. Messages name Secrets and keys, never contents.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretProblem {
    /// There is no such Secret.
    #[error("Secret {0:?} does not exist; create it in the resource's namespace")]
    NoSecret(String),
    /// The Secret lacks the key.
    #[error("Secret {0:?} has no key {1:?}; add it, or name another key in spec.redis")]
    NoKey(String, String),
    /// The content is not text.
    #[error("key {1:?} of Secret {0:?} is not UTF-8 text")]
    NotText(String, String),
    /// The operator may not read it.
    #[error("the operator may not get Secret {0:?}; grant it `get` on Secrets in this namespace")]
    NotPermitted(String),
    /// The API server did not answer.
    #[error("Secret {0:?} could not be read; the API server did not answer")]
    Unreachable(String),
}

/// Makes an endpoint of a target by reading its Secrets.
///
/// # Errors
/// The first problem with a Secret.
pub async fn resolve(client: &Client, namespace: &str, target: &RedisTarget) -> Result<RedisEndpoint, SecretProblem> {
    let secrets = Secrets(Api::namespaced(client.clone(), namespace));
    let mut endpoint = RedisEndpoint::new(target.host.clone(), target.port, target.cluster);
    endpoint.database = target.database;
    if let Some(key) = &target.username {
        endpoint.username = Some(secrets.text(key).await?.trim_end_matches(['\r', '\n']).to_owned());
    }
    if let Some(key) = &target.password {
        let password = secrets.text(key).await?;
        endpoint.password = Some(SecretString::from(password.trim_end_matches(['\r', '\n'])));
    }
    if let Some(tls) = &target.tls {
        endpoint.tls = Some(secrets.tls(tls).await?);
    }
    Ok(endpoint)
}

struct Secrets(Api<Secret>);

impl Secrets {
    async fn tls(&self, target: &TlsTarget) -> Result<Tls, SecretProblem> {
        let mut tls = Tls { server_name: target.server_name.clone(), ..Tls::default() };
        if let Some(key) = &target.ca {
            tls.ca_pem = Some(self.bytes(key).await?);
        }
        if let Some(name) = &target.client_cert {
            let key = |key: &str| SecretKey { name: name.clone(), key: key.to_owned() };
            let certificate_pem = self.bytes(&key("tls.crt")).await?;
            tls.client = Some(ClientCertificate { certificate_pem, key_pem: self.text(&key("tls.key")).await?.into() });
        }
        Ok(tls)
    }

    async fn text(&self, key: &SecretKey) -> Result<String, SecretProblem> {
        let bytes = self.bytes(key).await?;
        String::from_utf8(bytes).map_err(|_| SecretProblem::NotText(key.name.clone(), key.key.clone()))
    }

    async fn bytes(&self, key: &SecretKey) -> Result<Vec<u8>, SecretProblem> {
        let secret = match self.0.get_opt(&key.name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => return Err(SecretProblem::NoSecret(key.name.clone())),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return Err(SecretProblem::NotPermitted(key.name.clone()));
            }
            Err(_) => return Err(SecretProblem::Unreachable(key.name.clone())),
        };
        let content = secret.data.unwrap_or_default().remove(&key.key);
        content.map(|bytes| bytes.0).ok_or_else(|| SecretProblem::NoKey(key.name.clone(), key.key.clone()))
    }
}
