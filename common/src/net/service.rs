//! What a proxy gives the listeners, and what they give it for each connection.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task;

use super::client_authority::ClientAuthorities;
use super::downstream::{Downstream, Handed};
use super::gather::Travelling;
use super::session::session;

/// Which of the worker threads, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub usize);

/// A service that lives on one thread: one instance a worker, sessions share it without locks.
pub trait LocalService: 'static {
    /// Serves one connection to its end. Dropped in the middle when the drain's deadline has passed.
    ///
    /// The session's task is woken when `conn.drain` moves on: who asks `is_draining` each time it is polled needs to
    /// wait for nothing else.
    fn serve(self: Rc<Self>, conn: Downstream) -> impl Future<Output = ()>;

    /// Tells a client, in the protocol's words, that the listener has no room for it. There is one second.
    fn refuse(self: Rc<Self>, conn: Downstream) -> impl Future<Output = ()> {
        drop(conn);
        std::future::ready(())
    }
}

/// A service whose sessions may move from one worker thread to another: see [`due`](super::due).
pub trait SharedService: Send + Sync + 'static {
    /// Serves one connection to its end. Dropped in the middle when the drain's deadline has passed.
    fn serve(self: Arc<Self>, conn: Downstream) -> impl Future<Output = ()> + Send;

    /// Tells a client, in the protocol's words, that the listener has no room for it. There is one second.
    fn refuse(self: Arc<Self>, conn: Downstream) -> impl Future<Output = ()> + Send {
        drop(conn);
        std::future::ready(())
    }
}

/// When TLS starts on a listener that has a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsStart {
    /// With the first byte.
    #[default]
    Immediate,
    /// When the protocol says so: the service calls [`Downstream::start_tls`].
    ByProtocol,
}

/// A proxy's service with its flavour and what TLS has to know of the protocol.
#[derive(Clone)]
pub struct Service {
    pub(super) flavour: Flavour,
    pub(super) tls_start: TlsStart,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) authorities: Option<Arc<dyn ClientAuthorities>>,
}

/// Takes connections on the thread it was made on.
pub(super) type LocalSink = Box<dyn Fn(Handed)>;

#[derive(Clone)]
pub(super) enum Flavour {
    PerCore(Arc<dyn Fn(WorkerId) -> LocalSink + Send + Sync>),
    Shared(Arc<dyn Fn(Handed) + Send + Sync>),
}

impl Service {
    /// One instance a worker thread, made there by `make`.
    pub fn per_core<S: LocalService>(make: impl Fn(WorkerId) -> Rc<S> + Send + Sync + 'static) -> Self {
        Self::new(Flavour::PerCore(Arc::new(move |id| {
            let service = make(id);
            Box::new(move |handed: Handed| {
                let (serving, refusing) = (Rc::clone(&service), Rc::clone(&service));
                task::spawn_local(session(handed, |conn| serving.serve(conn), |conn| refusing.refuse(conn)));
            })
        })))
    }

    /// One instance for all threads.
    pub fn shared<S: SharedService>(service: Arc<S>) -> Self {
        Self::new(Flavour::Shared(Arc::new(move |handed: Handed| {
            let (serving, refusing) = (Arc::clone(&service), Arc::clone(&service));
            task::spawn(Travelling::new(session(
                handed,
                |conn| serving.serve(conn),
                |conn| refusing.refuse(conn),
            )));
        })))
    }

    fn new(flavour: Flavour) -> Self {
        Self { flavour, tls_start: TlsStart::Immediate, alpn: Vec::new(), authorities: None }
    }

    /// When TLS starts; with the first byte unless said otherwise.
    #[must_use]
    pub fn tls_start(mut self, start: TlsStart) -> Self {
        self.tls_start = start;
        self
    }

    /// Who knows which names have authorities for clients' certificates of their own.
    #[must_use]
    pub fn client_authorities(mut self, authorities: Arc<dyn ClientAuthorities>) -> Self {
        self.authorities = Some(authorities);
        self
    }

    /// The protocols offered in TLS's ALPN, best first.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&[u8]]) -> Self {
        self.alpn = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        self
    }
}
