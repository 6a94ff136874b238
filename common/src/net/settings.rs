//! What of a listener may change while its socket stays.

use std::sync::Arc;

use ipnet::IpNet;

use super::service::{Service, TlsStart};
use super::tls::{self, Acceptor};
use crate::config;

/// A listener's settings, swapped whole on reload; a connection keeps those it was accepted under.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) tls: Option<Acceptor>,
    pub(super) tls_start: TlsStart,
    pub(super) proxy_protocol: Option<TrustedProxies>,
    pub(super) connections_max: usize,
}

/// The load balancers whose PROXY header is believed.
#[derive(Debug, Clone)]
pub(super) struct TrustedProxies(pub(super) Vec<IpNet>);

impl Settings {
    /// Reads certificates and keys: called anew on each reload, so that rotated files take effect.
    pub(super) fn load(listener: &config::Listener, service: &Service) -> Result<Arc<Self>, tls::TlsError> {
        let tls = listener.tls.as_ref().map(|tls| Acceptor::new(tls, &service.alpn)).transpose()?;
        let trusted = |proxy: &config::ProxyProtocol| TrustedProxies(proxy.trusted.clone());
        Ok(Arc::new(Self {
            tls,
            tls_start: service.tls_start,
            proxy_protocol: listener.proxy_protocol.as_ref().map(trusted),
            connections_max: listener.max_connections.map_or(usize::MAX, |max| max as usize),
        }))
    }
}
