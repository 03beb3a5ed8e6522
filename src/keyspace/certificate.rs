//! Until when certificates are valid: the servers', as they present them, and our own.
//!
//! Owns the reading of one date. Trusts nobody on the strength of it: connections that carry data verify
//! certificates by themselves; this one carries none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::keyspace::endpoint::NodeAddress;
use crate::keyspace::router::Keyspace;
use crate::model::time::UnixMillis;

const PATIENCE: Duration = Duration::from_secs(3);

/// Whose certificate it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// A primary's.
    Server(NodeAddress),
    /// The one that identifies us.
    Ours,
}

/// A certificate, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEnd {
    /// Whose it is.
    pub whose: Whose,
    /// After this moment nobody accepts it.
    pub not_after: UnixMillis,
}

impl Keyspace {
    /// When the certificates of every primary and our own end; none without TLS, nor of a server that can't be
    /// asked, since whether it can be reached is told by other means.
    pub async fn certificate_ends(&self) -> Vec<CertificateEnd> {
        let Some(tls) = &self.endpoint().tls else { return Vec::new() };
        let ours = tls.client.as_ref().and_then(|client| {
            let der = CertificateDer::from_pem_slice(&client.certificate_pem).ok()?;
            Some(CertificateEnd { whose: Whose::Ours, not_after: not_after(&der)? })
        });
        let mut ends: Vec<CertificateEnd> = ours.into_iter().collect();
        for primary in &self.topology().await.primaries {
            let node = &primary.address;
            let name = tls.server_name.as_deref().unwrap_or(&node.host);
            if let Ok(Some(der)) = tokio::time::timeout(PATIENCE, presented(node, name)).await
                && let Some(not_after) = not_after(&der)
            {
                ends.push(CertificateEnd { whose: Whose::Server(node.clone()), not_after });
            }
        }
        ends
    }
}

fn not_after(der: &CertificateDer<'_>) -> Option<UnixMillis> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(UnixMillis(certificate.validity().not_after.timestamp().saturating_mul(1000)))
}

/// The certificate that a server presents.
async fn presented(node: &NodeAddress, name: &str) -> Option<CertificateDer<'static>> {
    let seen = Arc::new(Onlooker { provider: CryptoProvider::get_default()?.clone(), presented: Mutex::new(None) });
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).ok()?;
    let stream = TcpStream::connect((node.host.as_str(), node.port)).await.ok()?;
    // Whether it ends well is of no interest: a server may want a certificate of ours.
    let _ = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    seen.presented.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Looks at a certificate and vouches for nothing that matters.
#[derive(Debug)]
struct Onlooker {
    provider: Arc<CryptoProvider>,
    presented: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.presented.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        // Seen is enough: the connection ends here.
        Err(Error::General("seen".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("seen".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("seen".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
