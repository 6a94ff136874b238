//! A TLS client that trusts one test authority.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::certs::Issued;

/// Shakes hands as `name` expects it, trusting the authority in `ca` alone, and showing `identity` if there
/// is one.
///
/// # Errors
/// When the server's certificate is not from that authority or not for that name, or it refuses ours. In
/// TLS 1.3 a refusal may come only with the first read.
pub async fn connect(
    stream: TcpStream,
    name: &str,
    ca: &Path,
    identity: Option<&Issued>,
) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let config = match identity {
        Some(issued) => {
            let chain = CertificateDer::pem_file_iter(&issued.certificate)?.collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&issued.key)?)?
        }
        None => builder.with_no_client_auth(),
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from(name.to_owned())?, stream).await.context("the TLS handshake")
}

/// The certificate the server showed, as DER.
#[must_use]
pub fn certificate_of(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().and_then(<[_]>::first).map(|first| first.to_vec()).unwrap_or_default()
}
