//! One listening socket: bound, accepting, gone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::net::SocketFlags;
use socket2::Socket;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::bind::{self, Bound};
use super::downstream::{Admitted, Downstream, Handed, Open, Peer, Permit};
use super::drain::{Drain, Phase};
use super::listeners::ListenerStatus;
use super::session::{Resuming, Serving, resumed};
use super::settings::Settings;
use super::workers::{Here, Workers};
use crate::config::Mode;
use crate::ids::Address;
use crate::telemetry::{Counter, Registry};

/// Connections taken in one turn before other tasks of the acceptor's thread have theirs.
const BURST: usize = 64;

/// Clients that may be told "no room" at once; more are closed without a word.
const REFUSALS_MAX: usize = 64;

/// What a connection may know of the listener it came from.
#[derive(Debug)]
pub struct ListenerInfo {
    /// For logs and metrics.
    pub name: String,
    /// As configured.
    pub address: Address,
    /// As bound: the port that the system chose is filled in.
    pub bound: Address,
    pub(super) counters: Counters,
}

/// A listener's numbers.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    pub(super) accepted: Counter,
    pub(super) refused: Counter,
    pub(super) failed: Counter,
}

impl Counters {
    pub(super) fn new(registry: &Registry, listener: &str) -> Self {
        let counter = |name, help| registry.counter(name, help, &[("listener", listener)]);
        Self {
            accepted: counter("groove_connections_accepted", "Connections taken from listeners"),
            refused: counter("groove_connections_refused", "Connections over a listener's max_connections"),
            failed: counter(
                "groove_connections_failed",
                "Connections whose PROXY header or TLS handshake failed",
            ),
        }
    }
}

impl ListenerInfo {
    /// Of connections that came from no listener.
    pub(super) fn detached() -> Self {
        let nowhere = Address::tcp("0.0.0.0", 0);
        Self {
            name: "none".to_owned(),
            address: nowhere.clone(),
            bound: nowhere,
            counters: Counters::new(&Registry::new(0), "none"),
        }
    }
}

/// A listening socket's shared half: its accept task holds the socket itself.
pub(super) struct Listener {
    pub(super) address: Address,
    pub(super) drain: Drain,
    open: Arc<Open>,
    /// Clients that are told "no room": they take nobody's place.
    refusing: Arc<Open>,
    /// It takes no more connections.
    closed: CancellationToken,
    settings: ArcSwap<Settings>,
    socket: Weak<Socket>,
    /// Another process has the socket, too, and will go on with it.
    is_given: AtomicBool,
}

impl Listener {
    /// Begins to accept on `bound`, as a task of a worker or of `runtime`.
    pub(super) fn start(
        mut bound: Bound,
        settings: Settings,
        workers: &Arc<Workers>,
        runtime: &Handle,
    ) -> Arc<Self> {
        if let Err(error) = bound.own_file() {
            warn!(listener = %settings.info.name, %error, "the socket's file is gone: no new client finds it");
        }
        let listener = Arc::new(Self {
            address: settings.info.address.clone(),
            drain: Drain::new(),
            open: Arc::default(),
            refusing: Arc::default(),
            closed: CancellationToken::new(),
            settings: ArcSwap::from_pointee(settings),
            socket: Arc::downgrade(bound.socket.get_ref()),
            is_given: AtomicBool::new(false),
        });
        let acceptor = Acceptor {
            listener: Arc::clone(&listener),
            bound: Some(bound),
            workers: Arc::downgrade(workers),
            otherwise: Some(runtime.clone()),
        };
        workers.accept(acceptor, runtime);
        listener
    }

    /// What a connection accepted now may know.
    pub(super) fn info(&self) -> Arc<ListenerInfo> {
        Arc::clone(&self.settings.load().info)
    }

    /// For connections from now on. Mode and backlog belong to the socket: they change at once.
    pub(super) fn set(&self, settings: Settings, mode: Option<Mode>, backlog: u32) {
        self.settings.store(Arc::new(settings));
        let changed = bind::set_mode(&self.address, mode).and_then(|()| match self.socket.upgrade() {
            // listen(2) on a listening socket changes its backlog and nothing else.
            Some(socket) => socket.listen(bind::backlog(backlog)),
            None => Ok(()),
        });
        if let Err(error) = changed {
            warn!(listener = %self.info().name, %error, "mode and backlog could not be changed");
        }
    }

    pub(super) fn status(&self, leaving: bool) -> ListenerStatus {
        let settings = self.settings.load();
        let counters = &settings.info.counters;
        ListenerStatus {
            name: settings.info.name.clone(),
            address: settings.info.bound.clone(),
            tls: settings.tls.is_some(),
            connections: self.open.count(),
            accepted: counters.accepted.get(),
            refused: counters.refused.get(),
            failed: counters.failed.get(),
            leaving,
        }
    }

    /// Its socket, while it accepts, if it has an address that others can overlap with.
    pub(super) fn tcp_socket(&self) -> Option<Arc<Socket>> {
        match self.address {
            Address::Tcp { .. } => self.socket.upgrade(),
            Address::Unix(_) => None,
        }
    }

    /// Its socket for another process, while it accepts.
    pub(super) fn share(&self) -> Option<io::Result<OwnedFd>> {
        self.socket.upgrade().map(|socket| socket.as_fd().try_clone_to_owned())
    }

    /// Another process goes on with the socket.
    pub(super) fn hand_over(&self) {
        self.is_given.store(true, Ordering::Relaxed);
        self.drain.advance(Phase::HandingOver);
    }

    /// Goes on with a connection that another process has accepted, whatever its cap says.
    pub(super) fn resume(
        &self,
        socket: OwnedFd,
        peer: Peer,
        workers: &Workers,
        serve: impl FnOnce(Downstream) -> Serving,
    ) -> io::Result<Resuming> {
        let (runtime, worker) = workers.for_resumed().ok_or(io::ErrorKind::Unsupported)?;
        let _entered = runtime.enter();
        let permit = Permit::new(&self.open, &worker);
        let session = resumed(socket, peer, self.settings.load_full(), self.drain.clone(), permit, serve)?;
        Ok(Resuming::new(session, runtime.clone()))
    }

    /// Connections open now.
    pub(super) fn connections(&self) -> usize {
        self.open.count()
    }

    /// Resolves when it takes no more connections and the last one is gone.
    pub(super) async fn ended(&self) {
        self.closed.cancelled().await;
        self.open.idle().await;
    }

    /// Has [`Self::ended`] come?
    pub(super) fn has_ended(&self) -> bool {
        self.closed.is_cancelled() && self.open.count() == 0
    }

    /// Accepts until the drain begins, or there are no workers any more.
    async fn accept(&self, bound: &Bound, workers: &Weak<Workers>, place: &impl Place) {
        let mut backoff = Backoff::default();
        let mut stop = self.drain.reached(Phase::HandingOver);
        loop {
            let ready = tokio::select! {
                biased;
                () = &mut stop => break,
                ready = bound.socket.readable() => ready,
            };
            let (Ok(mut ready), Some(workers)) = (ready, workers.upgrade()) else { return };
            match self.accept_burst(bound.socket.get_ref(), &workers, place.here(), &mut backoff) {
                Burst::MoreMayWait => tokio::task::yield_now().await,
                Burst::Empty => ready.clear_ready(),
                Burst::Failed(pause) => tokio::select! {
                    () = &mut stop => break,
                    () = tokio::time::sleep(pause) => {}
                },
            }
        }
        // Clients whose handshake the kernel has finished would see a reset: they are taken before it closes. If another
        // process has the socket, that takes whoever waits.
        while let (false, Some(workers)) = (self.is_given.load(Ordering::Relaxed), workers.upgrade()) {
            match self.accept_burst(bound.socket.get_ref(), &workers, place.here(), &mut backoff) {
                Burst::MoreMayWait => {}
                Burst::Empty | Burst::Failed(_) => break,
            }
        }
    }

    /// Takes what waits, at most [`BURST`].
    fn accept_burst(
        &self,
        socket: &Socket,
        workers: &Workers,
        here: Option<&Here>,
        backoff: &mut Backoff,
    ) -> Burst {
        for _ in 0..BURST {
            match accept_one(socket) {
                Ok((socket, peer)) => {
                    if backoff.succeeded() {
                        info!(listener = %self.info().name, "accepting again");
                    }
                    self.hand(socket, peer, workers, here);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Burst::Empty,
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    let pause = backoff.failed();
                    if pause.is_first {
                        warn!(
                            listener = %self.info().name,
                            %error,
                            "cannot accept; new clients wait until it works again"
                        );
                    }
                    return Burst::Failed(pause.length);
                }
            }
        }
        Burst::MoreMayWait
    }

    fn hand(&self, socket: OwnedFd, peer: Peer, workers: &Workers, here: Option<&Here>) {
        let settings = self.settings.load_full();
        settings.info.counters.accepted.inc();
        let (admitted, among) = if self.open.count() < settings.connections_max {
            (Admitted::Yes, &self.open)
        } else {
            settings.info.counters.refused.inc();
            if self.refusing.count() >= REFUSALS_MAX {
                return;
            }
            (Admitted::Refused, &self.refusing)
        };
        workers.hand(here, |worker| Handed {
            socket,
            peer,
            settings,
            drain: self.drain.clone(),
            permit: Permit::new(among, worker),
            admitted,
        });
    }
}

/// Where an acceptor runs.
pub(super) trait Place {
    /// The worker that it shares a thread with.
    fn here(&self) -> Option<&Here>;
}

impl Place for () {
    fn here(&self) -> Option<&Here> {
        None
    }
}

impl Place for Rc<Here> {
    fn here(&self) -> Option<&Here> {
        Some(self)
    }
}

/// What accepts for a listener: a task of the thread that runs it.
pub(super) struct Acceptor {
    listener: Arc<Listener>,
    /// Until it has closed the socket.
    bound: Option<Bound>,
    workers: Weak<Workers>,
    /// Where it goes on should that thread die.
    otherwise: Option<Handle>,
}

impl Acceptor {
    /// Accepts until the drain begins, then closes the socket and takes a unix socket's file away.
    pub(super) async fn run(mut self, place: impl Place) {
        let Some(bound) = &mut self.bound else { return };
        // Until here it was watched by the runtime that is the other way.
        let is_elsewhere = place.here().is_some() || self.otherwise.is_none();
        match if is_elsewhere { bound.register_here() } else { Ok(()) } {
            Ok(()) => self.listener.accept(bound, &self.workers, &place).await,
            Err(error) => warn!(listener = %self.listener.info().name, %error, "cannot accept"),
        }
        if let Some(mut bound) = self.bound.take()
            && self.listener.is_given.load(Ordering::Relaxed)
        {
            bound.give_up_file();
        }
        debug!(listener = %self.listener.info().name, "no longer accepting");
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        let Some(bound) = self.bound.take() else { return self.listener.closed.cancel() };
        match (self.otherwise.take(), self.workers.upgrade()) {
            (Some(runtime), Some(_)) => {
                let (listener, workers) = (Arc::clone(&self.listener), Weak::clone(&self.workers));
                let next = Self { listener, bound: Some(bound), workers, otherwise: None };
                drop(runtime.spawn(next.run(())));
            }
            (None, _) | (_, None) => self.listener.closed.cancel(),
        }
    }
}

/// How a burst of accepts ended.
enum Burst {
    Empty,
    MoreMayWait,
    Failed(Duration),
}

/// One accept(2). The socket inherits Nagle off and keepalive from the listener's (Linux).
fn accept_one(socket: &Socket) -> io::Result<(OwnedFd, Peer)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, address) = rustix::net::acceptfrom_with(socket, flags)?;
    let peer = match address.map(SocketAddr::try_from) {
        Some(Ok(address)) => Peer::Ip(address),
        Some(Err(_)) | None => Peer::Unix,
    };
    Ok((socket, peer))
}

/// Errors of the connection that was about to be taken, not of the listener (accept(2), "Error handling").
fn is_the_peers(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let theirs = [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PERM,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NONET,
        Errno::OPNOTSUPP,
        Errno::TIMEDOUT,
    ];
    Errno::from_io_error(error).is_some_and(|errno| theirs.contains(&errno))
}
