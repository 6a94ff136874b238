//! TLS on both sides: rustls with aws-lc-rs.
//!
//! Certificates are read when an [`Acceptor`] or a [`Connector`] is made; a reload makes new ones, so rotated
//! files take effect for new connections and the old ones go on undisturbed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ResolvesServerCert;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::certificate::{common_name, subject};
use super::client_authority::{ClientAuthorities, ClientAuthority, Configs};
use super::sni::Certificates;
use super::stream::{Stream, Transport};
use crate::config::{ClientAuth, ServerTls};

pub use super::tls_client::Connector;

/// A handshake that takes longer is given up.
pub(super) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Why TLS could not be set up from the configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file that is missing, unreadable or not PEM.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// A file without a certificate in it.
    #[error("{}: no certificate in this file", .0.display())]
    Empty(PathBuf),
    /// Certificate and key, or the CA, do not make a working setup.
    #[error("{0}")]
    Setup(String),
}

/// What a TLS handshake told about the client.
#[derive(Debug, Clone, Default)]
pub struct TlsInfo {
    /// The name the client asked for.
    pub sni: Option<String>,
    /// The protocol agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The client's certificate, verified against the listener's `client_ca`.
    pub certificate: Option<ClientCertificate>,
    /// What channel binding ties a login to: `tls-server-end-point` of the certificate that this client was shown,
    /// which after a reload is not the listener's any more.
    pub end_point: Option<Arc<[u8]>>,
    /// The client was asked for a certificate, whether it showed one or not.
    pub asks_client: bool,
    /// The authority of the name that it asked for, if that has one; its certificate was verified against this, and not
    /// against the listener's.
    pub authority: Option<Arc<ClientAuthority>>,
    /// The version agreed on, like `TLSv1.3`.
    pub version: Option<&'static str>,
    /// The cipher suite agreed on, by its name at IANA.
    pub cipher: Option<&'static str>,
}

/// A verified client certificate.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The certificate itself.
    pub der: CertificateDer<'static>,
    /// Its subject alternative names of the kinds DNS and URI (SPIFFE ids are URIs).
    pub names: Vec<String>,
    /// Its subject's common name.
    pub common_name: Option<String>,
    /// Its subject, as RFC 4514 writes it: `CN=a,O=b`.
    pub subject: Option<String>,
}

impl ClientCertificate {
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &self.der);
        digest.as_ref().iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
    }
}

/// The server's side of TLS on a listener.
#[derive(Clone)]
pub(super) struct Acceptor {
    tls: TlsAcceptor,
    certificates: Arc<Certificates>,
    asks_client: bool,
    alpn: Vec<Vec<u8>>,
    /// Names with authorities of their own.
    authorities: Option<Arc<dyn ClientAuthorities>>,
    configs: Arc<Configs>,
}

impl Acceptor {
    pub(super) fn new(
        tls: &ServerTls,
        alpn: &[Vec<u8>],
        authorities: Option<Arc<dyn ClientAuthorities>>,
    ) -> Result<Self, TlsError> {
        let provider = provider();
        let certificates = Arc::new(Certificates::read(tls, &provider)?);
        let verifier = client_verifier(tls, provider)?;
        let config = server_config(&certificates, alpn, verifier)?;
        let asks_client = tls.client_auth() != ClientAuth::None;
        let (tls, configs) = (TlsAcceptor::from(Arc::new(config)), Arc::default());
        Ok(Self { tls, certificates, asks_client, alpn: alpn.to_vec(), authorities, configs })
    }

    /// The handshake, within [`HANDSHAKE_TIME_MAX`].
    pub(super) async fn accept(&self, stream: Stream) -> io::Result<(Stream, TlsInfo)> {
        let transport = plain(stream)?;
        let names = self.authorities.as_deref().filter(|names| names.are_there_any());
        let (tls, authority) = match names {
            None => (timeout(HANDSHAKE_TIME_MAX, self.tls.accept(transport)).await??, None),
            Some(names) => timeout(HANDSHAKE_TIME_MAX, self.accept_by_name(transport, names)).await??,
        };
        let mut info = info(tls.get_ref().1);
        info.end_point = self.certificates.end_point(info.sni.as_deref());
        info.asks_client = authority.is_some() || self.asks_client;
        info.authority = authority;
        Ok((Stream::ServerTls(Box::new(tls)), info))
    }

    /// A handshake in which the name that is asked for decides whose certificates are taken.
    async fn accept_by_name(
        &self,
        transport: Transport,
        names: &dyn ClientAuthorities,
    ) -> io::Result<(TlsStream<Transport>, Option<Arc<ClientAuthority>>)> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), transport).await?;
        let authority = start.client_hello().server_name().and_then(|name| names.find(name));
        let config = match &authority {
            Some(authority) => {
                let make = || server_config(&self.certificates, &self.alpn, Some(authority.verifier()));
                self.configs.get(authority, make).map_err(io::Error::other)?
            }
            None => Arc::clone(self.tls.config()),
        };
        Ok((start.into_stream(config).await?, authority))
    }
}

fn server_config(
    certificates: &Arc<Certificates>,
    alpn: &[Vec<u8>],
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(certificates) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = alpn.to_vec();
    // Of this configuration's own: who was let in by another may not come in by its ticket.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(setup)?;
    Ok(config)
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

fn info(connection: &rustls::ServerConnection) -> TlsInfo {
    let certificate = connection.peer_certificates().and_then(|chain| chain.first()).map(|leaf| {
        let der = leaf.clone().into_owned();
        ClientCertificate { names: names(&der), common_name: common_name(&der), subject: subject(&der), der }
    });
    TlsInfo {
        sni: connection.server_name().map(str::to_owned),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        certificate,
        end_point: None,
        asks_client: false,
        authority: None,
        version: connection.protocol_version().and_then(version_name),
        cipher: connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()),
    }
}

/// There are two that rustls speaks.
fn version_name(version: rustls::ProtocolVersion) -> Option<&'static str> {
    let known =
        [(rustls::ProtocolVersion::TLSv1_2, "TLSv1.2"), (rustls::ProtocolVersion::TLSv1_3, "TLSv1.3")];
    known.into_iter().find_map(|(known, name)| (known == version).then_some(name))
}

/// The names of a certificate that are of the kinds DNS and URI.
pub(super) fn names(der: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(der) else { return Vec::new() };
    certificate.valid_dns_names().chain(certificate.valid_uri_names()).map(str::to_owned).collect()
}

fn client_verifier(
    tls: &ServerTls,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let ca = match (&tls.client_ca, tls.client_auth()) {
        (Some(ca), ClientAuth::Optional | ClientAuth::Required) => ca,
        (None, ClientAuth::Optional | ClientAuth::Required) => {
            return Err(TlsError::Setup(
                "client_auth needs a client_ca to check certificates against".into(),
            ));
        }
        (_, ClientAuth::None) => return Ok(None),
    };
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider);
    let builder = match tls.client_auth() {
        ClientAuth::Required => builder,
        ClientAuth::Optional | ClientAuth::None => builder.allow_unauthenticated(),
    };
    builder.build().map(Some).map_err(|error| TlsError::Setup(format!("{}: {error}", ca.display())))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

pub(super) fn setup(error: impl std::fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}

/// The certificates of a PEM file: a chain, leaf first, or a bundle of CAs.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let at = |source| TlsError::File { path: path.to_owned(), source };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(at)?.collect::<Result<_, _>>().map_err(at)?;
    if chain.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(chain) }
}

pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::Setup(format!("{}: {error}", path.display())))?;
    }
    Ok(roots)
}

/// The socket to put TLS on; there is one layer of TLS at the most.
pub(super) fn plain(stream: Stream) -> io::Result<Transport> {
    match stream {
        Stream::Plain(transport) => Ok(transport),
        Stream::ServerTls(_) | Stream::ClientTls(_) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "TLS within TLS"))
        }
    }
}
