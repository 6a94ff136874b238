//! What a worker thread's sessions share.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use futures_util::future::Either;
use groove_common::net::{Downstream, LocalService};
use groove_common::telemetry::AccessLog;
use tokio::io::AsyncWriteExt;

use crate::metrics::Metrics;
use crate::reply;
use crate::session::driver;
use crate::session::late::Late;
use crate::session::programs::Room;
use crate::session::spare::Spare;
use crate::session::state::Broadcast;
use crate::tap::Probe;
use crate::tenant::directory::Directory;
use crate::tenant::fair::Fair;
use crate::tenant::guest::Guest;
use crate::tenant::reception::{Received, Reception};
use crate::upstream::Topology;
use crate::upstream::view::View;

/// Bytes that the clients of a worker leave lying before those among them that do are given no more.
const UNREAD_LEN_MAX: usize = 256 << 20;

/// What all clients of a worker leave lying: answers that their sockets did not take.
#[derive(Debug, Default)]
pub struct Unread(Cell<usize>);

impl Unread {
    /// A client's part has changed.
    pub fn change(&self, before: usize, now: usize) {
        self.0.set(self.0.get() - before + now);
    }

    /// Is it too much?
    pub fn is_too_much(&self) -> bool {
        self.0.get() > UNREAD_LEN_MAX
    }
}

/// One worker's service.
pub struct Worker {
    /// Clusters and connections.
    pub view: RefCell<View>,
    /// Machines of sessions that are idle.
    pub spare: Spare,
    /// What programs may hold.
    pub room: Room,
    /// Bytes that its clients do not take.
    pub unread: Unread,
    /// The proxy's counters.
    pub metrics: Metrics,
    /// Where exchanges are logged.
    pub access: AccessLog,
    /// How tenants share this worker.
    pub fair: RefCell<Fair<Waker>>,
    /// Where tenants' clients are received.
    pub reception: Reception,
    /// Answers that are written later.
    pub late: Late,
    /// What somebody may watch of it.
    pub tap: Probe,
    started: Instant,
    sessions_begun: Cell<usize>,
}

impl Worker {
    /// A worker that sees `topology`. To be made on its own thread.
    pub fn new(
        topology: Arc<ArcSwap<Topology>>,
        metrics: Metrics,
        access: AccessLog,
        reception: Reception,
        tap: Probe,
        started: Instant,
    ) -> Rc<Self> {
        let view = View::new(topology);
        Rc::new(Self {
            fair: RefCell::new(Fair::new(view.topology().window)),
            reception,
            late: Late::default(),
            view: RefCell::new(view),
            spare: Spare::default(),
            room: Room::default(),
            unread: Unread::default(),
            metrics,
            access,
            tap,
            started,
            sessions_begun: Cell::new(0),
        })
    }

    /// A number for the next session on this worker.
    pub fn next_session(&self) -> usize {
        self.sessions_begun.replace(self.sessions_begun.get().wrapping_add(1))
    }

    /// A moment as the time since the worker's origin, which all workers have in common.
    pub fn since_start(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    /// Whose clients are whose, if there are tenants at all.
    fn directory(&self) -> Option<Arc<Directory>> {
        let mut view = self.view.borrow_mut();
        view.refresh();
        let topology = view.topology();
        self.fair.borrow_mut().set_window(topology.window);
        (!topology.directory.is_empty()).then(|| Arc::clone(&topology.directory))
    }

    /// A tenant's own statistics.
    pub fn tenant_stats(&self, guest: &Guest) -> Bytes {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        guest.stats(self.started.elapsed(), now)
    }

    /// The lines of a general `stats` that are about the proxy rather than its servers.
    pub fn own_stats(&self, broadcast: &Broadcast<'_>) -> Option<Bytes> {
        match broadcast {
            Broadcast::Stats(stats) if stats.arguments().next().is_none() => (),
            Broadcast::Stats(_)
            | Broadcast::FlushAll { .. }
            | Broadcast::Verbosity { .. }
            | Broadcast::MemLimit { .. } => return None,
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Bytes::from(format!(
            "STAT pid {}\r\nSTAT uptime {}\r\nSTAT time {}\r\n\
             STAT curr_connections {}\r\nSTAT total_connections {}\r\n",
            std::process::id(),
            self.started.elapsed().as_secs(),
            now.as_secs(),
            self.metrics.sessions.get(),
            self.metrics.sessions_total.get(),
        )))
    }
}

impl LocalService for Worker {
    fn serve(self: Rc<Self>, conn: Downstream) -> impl Future<Output = ()> {
        match self.directory() {
            None => Either::Left(driver::serve(self, conn, None, BytesMut::new())),
            // In a box: whoever has no tenants does not pay for its size.
            Some(directory) => Either::Right(Box::pin(receive_and_serve(self, conn, directory))),
        }
    }

    async fn refuse(self: Rc<Self>, mut conn: Downstream) {
        // The client may be gone already; it is not served either way.
        _ = conn.stream.write_all(reply::TOO_MANY_CONNECTIONS).await;
    }
}

fn receive_and_serve(
    worker: Rc<Worker>,
    conn: Downstream,
    directory: Arc<Directory>,
) -> impl Future<Output = ()> {
    // In a box that is gone when the session begins.
    let received = Box::pin(receive(Rc::clone(&worker), conn, directory));
    async move {
        if let Some((conn, guest, input)) = received.await {
            driver::serve(worker, conn, Some(guest), input).await;
        }
    }
}

async fn receive(
    worker: Rc<Worker>,
    mut conn: Downstream,
    directory: Arc<Directory>,
) -> Option<(Downstream, Box<Guest>, BytesMut)> {
    let Received { member, input } = worker.reception.receive(&directory, &mut conn).await?;
    let guest = Guest::new(member, worker.next_session(), worker.reception.workers());
    Some((conn, Box::new(guest), input))
}
