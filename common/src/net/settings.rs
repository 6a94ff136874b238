//! What of a listener may change while its socket stays.

use std::sync::Arc;

use ipnet::IpNet;

use super::listener::ListenerInfo;
use super::service::{Service, TlsStart};
use super::tls::{self, Acceptor};
use crate::config;

/// A listener's settings, swapped whole on reload; a connection keeps those it was accepted under.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) info: Arc<ListenerInfo>,
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
    pub(super) fn load(
        listener: &config::Listener,
        info: ListenerInfo,
        service: &Service,
    ) -> Result<Self, tls::TlsError> {
        let acceptor = |tls| Acceptor::new(tls, &service.alpn, service.authorities.clone());
        let tls = listener.tls.as_ref().map(acceptor).transpose()?;
        let trusted = |proxy: &config::ProxyProtocol| TrustedProxies(proxy.trusted.clone());
        Ok(Self {
            info: Arc::new(info),
            tls,
            tls_start: service.tls_start,
            proxy_protocol: listener.proxy_protocol.as_ref().map(trusted),
            connections_max: listener.max_connections.map_or(usize::MAX, |max| max as usize),
        })
    }

    /// Of a connection that came from no listener.
    pub(super) fn detached(info: Arc<ListenerInfo>) -> Self {
        Self {
            info,
            tls: None,
            tls_start: TlsStart::default(),
            proxy_protocol: None,
            connections_max: usize::MAX,
        }
    }
}
