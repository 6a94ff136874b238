//! Authorities for clients' certificates that are not a listener's but belong to a name that clients ask for (SNI).
//!
//! A handshake with such a name has a configuration of its own: its own authorities, and its own tickets, so that no
//! session that began under another name goes on under this.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;

use super::tls::{TlsError, certificates, provider, roots};

/// Configurations that are kept before those of authorities that are gone are looked for.
const CONFIGS_MIN: usize = 16;

/// Who may have signed the certificates of those who ask for a name.
pub struct ClientAuthority {
    verifier: Arc<dyn ClientCertVerifier>,
    roots: Vec<CertificateDer<'static>>,
    is_required: bool,
    count: Arc<AtomicUsize>,
}

impl ClientAuthority {
    /// Reads a PEM file. `count` counts those that there are.
    ///
    /// # Errors
    /// The file has no certificates that could sign others.
    pub fn read(ca: &Path, is_required: bool, count: &Arc<AtomicUsize>) -> Result<Self, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider());
        let builder = if is_required { builder } else { builder.allow_unauthenticated() };
        let verifier =
            builder.build().map_err(|error| TlsError::Setup(format!("{}: {error}", ca.display())))?;
        let roots = certificates(ca)?;
        count.fetch_add(1, Ordering::AcqRel);
        Ok(Self { verifier, roots, is_required, count: Arc::clone(count) })
    }

    /// Whether a client without a certificate gets no connection.
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }
}

/// They ask the same of a client.
impl PartialEq for ClientAuthority {
    fn eq(&self, other: &Self) -> bool {
        self.is_required == other.is_required && self.roots == other.roots
    }
}

impl Drop for ClientAuthority {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for ClientAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthority").field("is_required", &self.is_required).finish_non_exhaustive()
    }
}

/// Knows the authorities of names.
pub trait ClientAuthorities: Send + Sync {
    /// Whether any name has one: where none has, no handshake looks.
    fn are_there_any(&self) -> bool;

    /// That of a name; `None`: the listener's own word counts.
    fn find(&self, name: &str) -> Option<Arc<ClientAuthority>>;
}

/// A listener's configurations, by the authority that each has.
#[derive(Default)]
pub(super) struct Configs(Mutex<HashMap<usize, Kept>>);

type Kept = (Weak<ClientAuthority>, Arc<ServerConfig>);

impl Configs {
    /// The configuration for an authority, made when it is first asked for.
    pub(super) fn get(
        &self,
        authority: &Arc<ClientAuthority>,
        make: impl FnOnce() -> Result<ServerConfig, TlsError>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let place = Arc::as_ptr(authority) as usize;
        let mut kept = self.0.lock();
        let known = kept.get(&place).filter(|(owner, _)| Weak::as_ptr(owner) == Arc::as_ptr(authority));
        // Where another one stood there before, that is gone.
        if let Some((_, config)) = known.filter(|(owner, _)| owner.strong_count() > 0) {
            return Ok(Arc::clone(config));
        }
        if kept.len() >= CONFIGS_MIN && kept.len() == kept.capacity() {
            kept.retain(|_, (owner, _)| owner.strong_count() > 0);
        }
        let config = Arc::new(make()?);
        kept.insert(place, (Arc::downgrade(authority), Arc::clone(&config)));
        Ok(config)
    }
}
