//! All listeners of a program, and how a reload changes them: first everything that may fail, then the change.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::bind::{self, Bound};
use super::downstream::{Downstream, Peer};
use super::drain::Phase;
use super::listener::{Counters, Listener, ListenerInfo};
use super::service::Service;
use super::session::{Resuming, Serving};
use super::settings::Settings;
use super::tls::TlsError;
use super::workers::Workers;
use crate::config;
use crate::ids::Address;
use crate::telemetry::Registry;

/// Why a listener cannot be as configured.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Its address cannot be taken.
    #[error("listener {name}: {source}")]
    Bind {
        /// The listener.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its certificates cannot be used.
    #[error("listener {name}: {source}")]
    Tls {
        /// The listener.
        name: String,
        /// What is wrong.
        source: TlsError,
    },
}

/// The listeners and the workers behind them.
pub struct Listeners {
    service: Service,
    pub(super) workers: Arc<Workers>,
    registry: Arc<Registry>,
    runtime: Handle,
    live: Mutex<Vec<Arc<Listener>>>,
    /// Taken away by a reload; their connections may still be finishing.
    leaving: Mutex<Vec<Arc<Listener>>>,
    /// From the process before this one, for the listeners of the same addresses.
    inherited: Mutex<Vec<Inherited>>,
}

/// A listening socket, on its way from one process to the next.
#[derive(Debug)]
pub struct Inherited {
    /// As configured.
    pub address: Address,
    /// The socket.
    pub socket: OwnedFd,
}

/// What a reload will do to the listeners: everything that may fail has been done.
#[must_use = "nothing changes before it is applied"]
pub struct Change {
    next: Vec<Next>,
}

struct Next {
    settings: Settings,
    mode: Option<config::Mode>,
    backlog: u32,
    socket: Socket,
}

enum Socket {
    Bound(Bound),
    Kept(Arc<Listener>),
}

/// One listener, as the status shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Does it start TLS?
    pub tls: bool,
    /// Connections open now.
    pub connections: usize,
    /// Connections taken since it was opened.
    pub accepted: u64,
    /// Connections over its cap.
    pub refused: u64,
    /// Connections whose PROXY header or TLS handshake failed.
    pub failed: u64,
    /// Taken away by a reload, finishing what it has.
    pub leaving: bool,
}

impl Listeners {
    /// Starts the workers; there are no listeners yet. Acceptors run on `runtime`, and so does a shared service for which
    /// there are 0 workers.
    pub fn new(
        service: Service,
        workers: usize,
        runtime: Handle,
        registry: Arc<Registry>,
    ) -> io::Result<Self> {
        let workers = Workers::start(&service, workers, &runtime)?;
        Ok(Self::with(workers, service, runtime, registry))
    }

    pub(super) fn with(workers: Workers, service: Service, runtime: Handle, registry: Arc<Registry>) -> Self {
        Self {
            service,
            workers: Arc::new(workers),
            registry,
            runtime,
            live: Mutex::default(),
            leaving: Mutex::default(),
            inherited: Mutex::default(),
        }
    }

    /// Sockets to use, with the next [`Self::prepare`], in place of binding the same addresses.
    pub fn inherit(&self, sockets: Vec<Inherited>) {
        *self.inherited.lock() = sockets;
    }

    /// The sockets of all that accept, for the next process.
    pub fn share(&self) -> io::Result<Vec<Inherited>> {
        let live = self.live.lock().clone();
        let shared = live.iter().filter_map(|listener| Some((&listener.address, listener.share()?)));
        shared.map(|(address, socket)| Ok(Inherited { address: address.clone(), socket: socket? })).collect()
    }

    /// The next process goes on with the sockets: nothing is accepted from here on, sessions move where they can.
    pub fn hand_over(&self) {
        self.all().iter().for_each(|listener| listener.hand_over());
    }

    /// Goes on with a connection that the process before this one has accepted at `address`: it counts from now on, and
    /// is served once that is begun.
    pub fn resume(
        &self,
        address: &Address,
        peer: Peer,
        socket: OwnedFd,
        serve: impl FnOnce(Downstream) -> Serving,
    ) -> io::Result<Resuming> {
        let found = self.live.lock().iter().find(|listener| listener.address == *address).map(Arc::clone);
        let gone =
            || io::Error::new(io::ErrorKind::AddrNotAvailable, format!("nothing listens on {address}"));
        found.ok_or_else(gone)?.resume(socket, peer, &self.workers, serve)
    }

    /// Reads certificates and binds what is new. On any error, all of which are reported, nothing has changed.
    pub fn prepare(&self, configs: &[config::Listener]) -> Result<Change, Vec<ListenError>> {
        let _entered = self.runtime.enter();
        let mut errors = Vec::new();
        let mut next = Vec::new();
        let mut live = self.live.lock().clone();
        let leaves = |live: &&Arc<Listener>| !configs.iter().any(|listener| listener.address == live.address);
        let leaving: Vec<_> = live.iter().filter(leaves).filter_map(|live| live.tcp_socket()).collect();
        for listener in configs {
            match self.prepare_one(listener, &mut live, &leaving) {
                Ok(one) => next.push(one),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Change { next }) } else { Err(errors) }
    }

    /// A socket among `live` that stays is taken out, so that of two with the port 0 both stay.
    fn prepare_one(
        &self,
        listener: &config::Listener,
        live: &mut Vec<Arc<Listener>>,
        leaving: &[Arc<socket2::Socket>],
    ) -> Result<Next, ListenError> {
        let name = listener.label();
        let socket = match live.iter().position(|live| live.address == listener.address) {
            Some(kept) => Socket::Kept(live.remove(kept)),
            None => {
                let inherited = self.take_inherited(&listener.address);
                let bound = match inherited
                    .map_or_else(|| bind::bind(listener), |socket| Bound::adopt(socket, listener))
                {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && !leaving.is_empty() => {
                        bind::bind_beside(listener, leaving)
                    }
                    bound => bound,
                };
                Socket::Bound(bound.map_err(|source| ListenError::Bind { name: name.clone(), source })?)
            }
        };
        let info = ListenerInfo {
            counters: Counters::new(&self.registry, &name),
            name: name.clone(),
            address: listener.address.clone(),
            bound: match &socket {
                Socket::Bound(bound) => bound.address.clone(),
                Socket::Kept(kept) => kept.info().bound.clone(),
            },
        };
        let settings = Settings::load(listener, info, &self.service)
            .map_err(|source| ListenError::Tls { name, source })?;
        Ok(Next { settings, mode: listener.mode, backlog: listener.backlog, socket })
    }

    fn take_inherited(&self, address: &Address) -> Option<OwnedFd> {
        let mut inherited = self.inherited.lock();
        let at = inherited.iter().position(|inherited| inherited.address == *address)?;
        Some(inherited.remove(at).socket)
    }

    /// Does what was prepared: new listeners accept, those that stay take their new settings, the rest drain,
    /// for at most `drain_max`.
    pub fn apply(&self, change: Change, drain_max: Duration) {
        let after = change.next.into_iter().map(|next| self.apply_one(next)).collect::<Vec<_>>();
        let before = std::mem::replace(&mut *self.live.lock(), after.clone());
        let mut leaving = self.leaving.lock();
        leaving.retain(|listener| !listener.has_ended());
        for listener in before {
            if !after.iter().any(|kept| Arc::ptr_eq(kept, &listener)) {
                listener.drain.advance(Phase::Draining);
                self.runtime.spawn(cut_after(Arc::clone(&listener), drain_max));
                leaving.push(listener);
            }
        }
    }

    fn apply_one(&self, next: Next) -> Arc<Listener> {
        match next.socket {
            Socket::Bound(bound) => Listener::start(bound, next.settings, &self.workers, &self.runtime),
            Socket::Kept(listener) => {
                listener.set(next.settings, next.mode, next.backlog);
                listener
            }
        }
    }

    /// No new connections from here on; sessions are told.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Drops the sessions that are left.
    pub fn cut(&self) {
        self.advance(Phase::Cut);
    }

    fn advance(&self, phase: Phase) {
        for listener in self.all() {
            listener.drain.advance(phase);
        }
    }

    /// Resolves, after [`Self::drain`], when nobody is let in any more and the last connection is gone.
    pub async fn ended(&self) {
        let listeners = self.all();
        join_all(listeners.iter().map(|listener| listener.ended())).await;
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.all().iter().map(|listener| listener.connections()).sum()
    }

    /// Connections open now, by worker.
    pub fn connections_by_worker(&self) -> Vec<usize> {
        self.workers.open()
    }

    /// Where they listen, for the log and the status.
    pub fn status(&self) -> Vec<ListenerStatus> {
        let live = self.live.lock().iter().map(|listener| listener.status(false)).collect::<Vec<_>>();
        let leaving = self.leaving().iter().map(|listener| listener.status(true)).collect::<Vec<_>>();
        [live, leaving].concat()
    }

    fn all(&self) -> Vec<Arc<Listener>> {
        let live = self.live.lock().clone();
        [live, self.leaving()].concat()
    }

    /// Those taken away that have not ended yet.
    fn leaving(&self) -> Vec<Arc<Listener>> {
        let mut leaving = self.leaving.lock();
        leaving.retain(|listener| !listener.has_ended());
        leaving.clone()
    }
}

async fn cut_after(listener: Arc<Listener>, drain_max: Duration) {
    // In time or not: what is left afterwards is cut.
    timeout(drain_max, listener.ended()).await.unwrap_or_default();
    listener.drain.advance(Phase::Cut);
}
