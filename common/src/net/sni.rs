//! Which of a listener's certificates a client is shown: the one that has the name it asks for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::end_point;
use super::tls::{TlsError, certificates, key};
use crate::config::ServerTls;

/// A certificate, and what channel binding ties a login to.
struct Shown {
    key: Arc<CertifiedKey>,
    end_point: Option<Arc<[u8]>>,
}

/// The certificates of one listener.
pub(super) struct Certificates {
    /// The first is for those that ask for none of the names.
    shown: Vec<Shown>,
    exact: HashMap<String, usize>,
    /// By what follows `*.`, which stands for one label (RFC 6125, 6.4.3).
    wildcards: HashMap<String, usize>,
}

impl Certificates {
    /// Reads the files. Where two certificates have one name, the first is shown.
    pub(super) fn read(tls: &ServerTls, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut all = Self { shown: Vec::new(), exact: HashMap::new(), wildcards: HashMap::new() };
        let own = std::iter::once((&tls.certificate, &tls.key));
        let more = tls.certificates.iter().map(|more| (&more.certificate, &more.key));
        for (certificate, private) in own.chain(more) {
            let chain = certificates(certificate)?;
            let names = chain.first().map(super::tls::names).unwrap_or_default();
            let end_point = chain.first().and_then(|leaf| end_point(leaf)).map(Arc::from);
            let key = CertifiedKey::from_der(chain, key(private)?, provider)
                .map_err(|error| TlsError::Setup(format!("{}: {error}", certificate.display())))?;
            let index = all.shown.len();
            for name in names {
                let name = name.to_ascii_lowercase();
                match name.strip_prefix("*.") {
                    Some(below) => all.wildcards.entry(below.to_owned()).or_insert(index),
                    None => all.exact.entry(name).or_insert(index),
                };
            }
            all.shown.push(Shown { key: Arc::new(key), end_point });
        }
        Ok(all)
    }

    fn find(&self, name: Option<&str>) -> Option<&Shown> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let below = || name.split_once('.').and_then(|(_, below)| self.wildcards.get(below));
            self.exact.get(&name).or_else(below)
        });
        self.shown.get(found.copied().unwrap_or(0))
    }

    /// Of the certificate that a client with this name was shown.
    pub(super) fn end_point(&self, name: Option<&str>) -> Option<Arc<[u8]>> {
        self.find(name).and_then(|shown| shown.end_point.clone())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).map(|shown| Arc::clone(&shown.key))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("count", &self.shown.len()).finish_non_exhaustive()
    }
}
