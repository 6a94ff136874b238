//! TLS towards a server: whom to trust, and how much of a certificate to check.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::stream::Stream;
use super::tls::{self, TlsError};
use crate::config::{ClientTls, Verify};

/// The client's side of TLS for one cluster. Clones share it.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    /// Takes the place of the address's host, as SNI and in the check of the certificate.
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    /// Reads the CA, certificate and key named in the configuration; the system's CAs without one.
    pub fn new(tls: &ClientTls, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let provider = tls::provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(tls::setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(tls, provider)?));
        let mut config = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(tls::certificates(certificate)?, tls::key(key)?)
                .map_err(|error| TlsError::Setup(format!("{}: {error}", certificate.display())))?,
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) | (None, Some(_)) => {
                return Err(TlsError::Setup("a certificate and its key come together".into()));
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let server_name = tls.server_name.as_deref().map(parse_name).transpose()?;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), server_name })
    }

    /// Puts TLS on a plain stream to `host`.
    pub async fn connect(&self, host: &str, stream: Stream) -> io::Result<Stream> {
        let transport = tls::plain(stream)?;
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => parse_name(host).map_err(io::Error::other)?,
        };
        let tls = timeout(tls::HANDSHAKE_TIME_MAX, self.tls.connect(name, transport)).await??;
        Ok(Stream::ClientTls(Box::new(tls)))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn parse_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| {
        TlsError::Setup(format!("`{host}` is not a name a certificate can have: set server_name"))
    })
}

/// Checks as much of a server's certificate as the configuration asks for.
#[derive(Debug)]
struct Verifier {
    /// None checks nothing but that the server has the key of the certificate it shows.
    trusted: Option<Arc<WebPkiServerVerifier>>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(tls: &ClientTls, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let trusted = match tls.verify {
            Verify::None => None,
            Verify::Ca | Verify::Full => {
                let roots = match &tls.ca {
                    Some(ca) => tls::roots(ca)?,
                    None => system_roots(),
                };
                let builder =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                Some(builder.build().map_err(|error| {
                    TlsError::Setup(format!("no usable CA certificate ({error}): set ca to a PEM file"))
                })?)
            }
        };
        Ok(Self { trusted, checks_name: tls.verify == Verify::Full, provider })
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(trusted) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        let verdict = trusted.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // The name is looked at last: all else is in order.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
