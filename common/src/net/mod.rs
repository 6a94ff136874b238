//! Listeners, streams, TLS and the PROXY protocol.
//!
//! A connection's way in:
//!
//! ```text
//!  listener ── accept(2) ──► workers ── least loaded ──► session ──► [PROXY header] ──► [TLS] ──► Service
//!  (a worker's or the control runtime)                   (worker's runtime)
//! ```
//!
//! The acceptor does nothing but accept; whatever may take a client's time happens in the session.

mod backoff;
mod bind;
mod certificate;
mod client_authority;
mod connect;
pub mod der;
mod downstream;
mod drain;
mod gather;
mod listener;
mod listeners;
mod proxy_header;
mod proxy_protocol;
mod service;
mod session;
mod settings;
mod sni;
mod stream;
mod timer;
mod tls;
mod tls_client;
mod workers;

use std::time::Duration;

use socket2::TcpKeepalive;

pub use client_authority::{ClientAuthorities, ClientAuthority};
pub use connect::{connect, connect_saying};
pub use downstream::{Downstream, Origin, Peer};
pub use drain::{Drain, Phase, Reached};
pub use gather::{due, go_on_at, here};
pub use listener::ListenerInfo;
pub use listeners::{Change, Inherited, ListenError, ListenerStatus, Listeners};
pub use proxy_protocol::{ProxyVersion, header};
pub use service::{LocalService, Service, SharedService, TlsStart, WorkerId};
pub use session::{Resuming, Serving};
pub use stream::{FILL_BYTES_MAX, Stream, Transport, Watch};
pub use timer::Timer;
pub use tls::{ClientCertificate, Connector, TlsError, TlsInfo};

/// A peer that vanished without a word is noticed after about a minute and a half.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(3)
}

#[cfg(test)]
mod tests;
