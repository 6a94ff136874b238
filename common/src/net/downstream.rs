//! One accepted connection: as the acceptor hands it to a worker, and as the service gets it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::drain::Drain;
use super::listener::ListenerInfo;
use super::settings::Settings;
use super::stream::Stream;
use super::tls::TlsInfo;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client; the real one if a trusted load balancer told us (PROXY protocol).
    Ip(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl Peer {
    /// The client's address, which a unix socket has none of.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }

    /// Is it on this machine?
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|ip| ip.to_canonical().is_loopback())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A client's connection, PROXY header read and TLS established, ready for its first protocol byte.
pub struct Downstream {
    /// The bytes.
    pub stream: Stream,
    /// The client.
    pub peer: Peer,
    /// Where it came in.
    pub listener: Arc<ListenerInfo>,
    /// What the TLS handshake told, if there was one.
    pub tls: Option<Box<TlsInfo>>,
    /// The drain of this listener: begins with the program's, or when the listener is taken away.
    pub drain: Drain,
    pub(super) settings: Arc<Settings>,
}

impl Downstream {
    /// A connection that came from no listener: drivers are tested with it.
    pub fn detached(stream: Stream, peer: Peer, drain: Drain) -> Self {
        let listener = Arc::new(ListenerInfo::detached());
        Self {
            stream,
            peer,
            settings: Arc::new(Settings::detached(Arc::clone(&listener))),
            listener,
            tls: None,
            drain,
        }
    }

    /// The bytes, and whose they are: for a protocol that carries many streams in one connection.
    pub fn split(self) -> (Stream, Origin) {
        let Self { stream, peer, listener, tls, drain, settings } = self;
        (stream, Origin { peer, listener, tls, drain, settings })
    }

    /// Can this connection still be upgraded with [`Self::start_tls`]?
    pub fn offers_tls(&self) -> bool {
        !self.stream.is_tls() && self.settings.tls.is_some()
    }

    /// Starts TLS in the middle of the stream, for protocols that ask for it.
    ///
    /// `unread` is what has been read past the request for TLS. It must be empty: bytes sent in the clear
    /// before the handshake could be an attacker's (CVE-2021-23222).
    pub async fn start_tls(self, unread: &[u8]) -> io::Result<Self> {
        if !unread.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "bytes in the clear after the request for TLS",
            ));
        }
        let Some(tls) = self.settings.tls.clone() else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this listener has no certificate"));
        };
        let (stream, info) = tls.accept(self.stream).await?;
        Ok(Self { stream, tls: Some(Box::new(info)), ..self })
    }
}

/// A connection without its bytes.
#[derive(Clone)]
pub struct Origin {
    /// The client.
    pub peer: Peer,
    /// Where it came in.
    pub listener: Arc<ListenerInfo>,
    /// What the TLS handshake told, if there was one.
    pub tls: Option<Box<TlsInfo>>,
    /// The drain of this listener.
    pub drain: Drain,
    settings: Arc<Settings>,
}

impl Origin {
    /// A stream of this connection's, as a connection of its own.
    pub fn carrying(self, stream: Stream) -> Downstream {
        let Self { peer, listener, tls, drain, settings } = self;
        Downstream { stream, peer, listener, tls, drain, settings }
    }
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstream")
            .field("peer", &self.peer)
            .field("listener", &self.listener.name)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// A connection on its way from the acceptor to a worker: no runtime knows the socket yet.
pub(super) struct Handed {
    pub(super) socket: OwnedFd,
    pub(super) peer: Peer,
    pub(super) settings: Arc<Settings>,
    pub(super) drain: Drain,
    pub(super) permit: Permit,
    pub(super) admitted: Admitted,
}

/// Is there room for the connection?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    Yes,
    /// The listener is full: the client is told so and let go.
    Refused,
}

/// How many connections are open somewhere, and word when none is.
#[derive(Debug, Default)]
pub(super) struct Open {
    count: AtomicUsize,
    idle: Notify,
}

impl Open {
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }

    /// Resolves when no connection is open.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// Counts a connection in its listener's and its worker's number, for as long as it lives.
#[derive(Debug)]
pub(super) struct Permit {
    counted_in: [Arc<Open>; 2],
}

impl Permit {
    pub(super) fn new(listener: &Arc<Open>, worker: &Arc<Open>) -> Self {
        let counted_in = [Arc::clone(listener), Arc::clone(worker)];
        counted_in.iter().for_each(|open| open.begin());
        Self { counted_in }
    }

    /// Another worker serves it from now on.
    pub(super) fn moves_to(&mut self, worker: &Arc<Open>) {
        worker.begin();
        let [_, before] = &mut self.counted_in;
        std::mem::replace(before, Arc::clone(worker)).end();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counted_in.iter().for_each(|open| open.end());
    }
}
