//! A session's loop: { read, admit, route, lease, exchange, release }, drain.
//!
//! The session's own task polls both sockets: no message changes tasks, and in each turn there is at most one
//! write to each side. Who the client is and where it goes ([`route`](crate::route)) is settled once, by the
//! [handshake](super::handshake); admission is the pool's fair gate, which `Session::lease` stands before.

mod exchange;
mod line;
mod listening;
mod splitting;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use groove_common::lifecycle::Phase;
use groove_common::net::{self, Downstream, Reached, Timer, Watch, WorkerId};
use groove_common::telemetry::Event;

use exchange::End;
use listening::hear;
pub(super) use splitting::Splitting;

use super::Lease;
use super::cancel::Registered;
use super::handover::Home;
use super::reclaim::{Left, reclaim};
use super::state::{Before, Machine, Need};
use crate::Shared;
use crate::error::Error;
use crate::live::{ClientSeat, ServerSeat};
use crate::reply;
use crate::upstream::UserPool;
use crate::wire::backend::Status;

/// No more is read from one side while this much waits for the other.
const UNSENT_MAX: usize = 64 << 10;
/// An idle session keeps no larger buffer than this.
const IDLE_BUFFER_MAX: usize = 256;

/// The longest beginning of an exchange that is kept until the server has said something.
const AGAIN_MAX: usize = 16 << 10;

/// How long a client may take to hear why its session ends.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What a handshake ends with.
pub struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) conn: Downstream,
    pub(super) input: BytesMut,
    pub(super) pool: Arc<UserPool>,
    pub(super) machine: Machine,
    pub(super) registered: Registered,
    pub(super) lease: Option<Lease>,
    pub(super) seen: ClientSeat,
}

/// A client that is logged in.
pub struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) conn: Downstream,
    pub(super) draining: Reached,
    pub(super) home: Home,
    pub(super) pool: Arc<UserPool>,
    pub(super) machine: Machine,
    pub(super) registered: Registered,
    pub(super) lease: Option<Lease>,
    is_pinned: bool,
    /// When it last looked whether it is to move to another worker.
    round: u32,
    pub(super) seen: ClientSeat,
    pub(super) from_client: BytesMut,
    pub(super) to_client: BytesMut,
    from_server: BytesMut,
    to_server: BytesMut,
    client_watch: Watch,
    server_watch: Watch,
    /// When the exchange began to wait for a server connection.
    began: Instant,
    /// To begin anew with, should the server turn out to have gone before it has read anything.
    again: Option<Box<Again>>,
    /// Goes off when it has waited for too long.
    patience: Timer,
    /// Only where reads are split from writes.
    pub(super) splitting: Option<Box<Splitting>>,
}

/// What an exchange began with.
struct Again {
    from_client: BytesMut,
    before: Before,
    /// What the client has sent behind that is not for this server.
    is_part: bool,
    /// It reads on a replica: the client gets nothing until it is known that this will not be needed.
    is_on_replica: bool,
}

/// What a client does next.
enum Turn {
    Exchange,
    Move,
    Leave,
}

impl Session {
    /// A session whose client has been greeted. Boxed: a future that is given a value keeps room for it twice.
    pub fn new(parts: Parts) -> Box<Session> {
        let Parts { shared, conn, input, pool, mut machine, registered, lease, seen } = parts;
        shared.tap.look(&mut machine);
        pool.metrics.clients.inc();
        let now = Instant::now();
        if let Some(lease) = &lease {
            seen.holds(lease.seen.as_ref(), now);
        }
        Box::new(Session {
            draining: conn.drain.reached(Phase::HandingOver),
            home: Home::Here,
            shared,
            conn,
            pool,
            machine,
            registered,
            lease,
            is_pinned: false,
            round: 0,
            seen,
            from_client: input,
            to_client: BytesMut::new(),
            from_server: BytesMut::new(),
            to_server: BytesMut::new(),
            client_watch: Watch::default(),
            server_watch: Watch::default(),
            began: now,
            again: None,
            patience: Timer::new(now.into()),
            splitting: None,
        })
    }

    /// Serves the client to its end.
    pub async fn run(mut self: Box<Session>) {
        let seen = self.seen.share();
        let served = {
            let mut serve = pin!(self.serve());
            poll_fn(|cx| seen.poll_alive(cx, serve.as_mut())).await
        };
        drop(seen);
        let Err(error) = served.unwrap_or(Err(Error::Killed)) else {
            if self.home == Home::Here {
                self.shared.pgbadger.left(&self.seen, None);
            }
            return;
        };
        if self.home == Home::Elsewhere {
            return;
        }
        self.pool.metrics.failed(&error);
        self.log(Some(&error));
        self.shared.pgbadger.left(&self.seen, Some(&error));
        if let Error::Client(error) = &error {
            tracing::debug!(peer = %self.conn.peer, %error, "a client left");
        } else {
            tracing::debug!(peer = %self.conn.peer, %error, "a session ends");
            if !self.machine.was_told_fatal() {
                reply::put_session_error(&mut self.to_client, &error);
            }
            // Told in time or not: the session ends here.
            let goodbye = self.conn.stream.send(&mut self.to_client);
            let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
        }
        self.abandon().await;
    }

    async fn serve(&mut self) -> Result<(), Error> {
        loop {
            if self.lease.is_none() {
                match self.read().await? {
                    Turn::Exchange => {}
                    Turn::Move if Box::pin(self.hand_over()).await => return Ok(()),
                    Turn::Move => continue,
                    Turn::Leave => return Ok(()),
                }
                if let Some(to) = net::due(&mut self.round) {
                    Box::pin(self.go_on_at(to)).await;
                }
                if let Err(error) = self.lease().await {
                    self.refuse(error).await?;
                    continue;
                }
                if self.lease.is_none() || self.is_behind() {
                    continue;
                }
            }
            self.begin()?;
            match self.exchange().await? {
                End::Free => self.release().await?,
                End::Unheard => self.forsake().await,
                End::Misplaced => Box::pin(self.misplaced()).await,
                End::Left => {
                    self.abandon().await;
                    return Ok(());
                }
                End::Drained => return Err(Error::Draining),
            }
        }
    }

    /// Waits until the client wants something of a server.
    async fn read(&mut self) -> Result<Turn, Error> {
        loop {
            let need = self.machine.need(&mut self.from_client, &mut self.to_client)?;
            if need != Need::Close && self.may_move() {
                return Ok(Turn::Move);
            }
            match need {
                Need::Server if self.to_client.is_empty() && self.is_placed() => return Ok(Turn::Exchange),
                Need::Close => return Ok(Turn::Leave),
                Need::More | Need::Server => {}
            }
            let filled = poll_fn(|cx| self.poll_read(cx)).await?;
            if filled == Some(0) {
                return Ok(Turn::Leave);
            }
        }
    }

    /// Sends what is left to send, then reads. `None` when something was sent.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, Error>> {
        hear(&self.machine, &mut self.to_client, cx)?;
        if !self.to_client.is_empty() {
            ready!(self.conn.stream.poll_send(cx, &mut self.to_client)).map_err(Error::Client)?;
            if !self.from_client.is_empty() {
                return Poll::Ready(Ok(None));
            }
        }
        match self.conn.stream.poll_fill_watched(cx, &mut self.from_client, &mut self.client_watch) {
            Poll::Ready(filled) => {
                let filled = filled.map_err(Error::Client)?;
                self.pool.metrics.received.add(filled as u64);
                return Poll::Ready(Ok(Some(filled)));
            }
            Poll::Pending => {}
        }
        if let Poll::Ready(phase) = self.poll_drain(cx) {
            // An exchange whose first bytes are here has begun, and so has a transaction that no server knows of yet.
            match self.from_client.is_empty() && self.machine.status() == Status::Idle {
                _ if phase == Phase::HandingOver => return Poll::Ready(Ok(None)),
                true => return Poll::Ready(Err(Error::Draining)),
                false => {}
            }
        }
        for buffer in [&mut self.from_client, &mut self.to_client, &mut self.from_server, &mut self.to_server]
        {
            if buffer.is_empty() && buffer.capacity() > IDLE_BUFFER_MAX {
                *buffer = BytesMut::new();
            }
        }
        Poll::Pending
    }

    /// Goes on on another worker's thread.
    async fn go_on_at(&mut self, to: WorkerId) {
        self.seen.changes_task();
        self.client_watch = Watch::default();
        self.patience = Timer::new(self.began.into());
        if let Err(error) = net::go_on_at(to, &mut self.conn.stream).await {
            tracing::debug!(peer = %self.conn.peer, %error, "a session stays on its worker");
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        let Some(lease) = &mut self.lease else { return Ok(()) };
        self.server_watch = Watch::default();
        lease.condemn();
        let (grant, is_on_replica) = splitting::granted(&mut self.splitting, lease);
        self.machine.set_fence(grant.map(|grant| grant.groups));
        let beginning = self.from_client.get(..grant.map_or(self.from_client.len(), |grant| grant.bytes));
        self.again = beginning
            .filter(|beginning| beginning.len() <= AGAIN_MAX && !beginning.is_empty())
            .filter(|_| lease.is_followed() && self.to_client.is_empty())
            .map(|beginning| {
                let (from_client, before) = (BytesMut::from(beginning), self.machine.before());
                Box::new(Again { from_client, before, is_part: grant.is_some(), is_on_replica })
            });
        self.machine.begin(&mut lease.backend, &mut self.to_server, &mut self.to_client);
        if !self.to_server.is_empty() {
            // What the session needs first goes in one write with its first message, which the server may be waiting
            // for before it says anything.
            let (input, backend) = (&mut self.from_client, &mut lease.backend);
            self.machine.from_client(input, backend, &mut self.to_server, &mut self.to_client)?;
        }
        // A cancel request is for what the client runs: a setup that it hit would end the session.
        if self.machine.in_setup() {
            self.registered.canceller.hold_back();
        } else {
            self.registered.leased(&lease.cancel);
        }
        Ok(())
    }

    /// Gives the server connection back, unless something of the session's is left on it that cannot go with the
    /// session.
    async fn release(&mut self) -> Result<(), Error> {
        let Some(mut lease) = self.lease.take() else { return Ok(()) };
        self.count();
        self.note_written();
        self.log(None);
        if self.registered.canceller.released() && !Box::pin(self.registered.canceller.settled()).await {
            self.seen.released();
            let kept = self.machine.keeps_server() || self.machine.survey().is_some();
            return if kept { Err(Error::Lost(io::ErrorKind::TimedOut.into())) } else { Ok(()) };
        }
        let mut channels = Vec::new();
        if let Some(survey) = self.machine.survey() {
            channels = Box::pin(self.survey(&mut lease, survey)).await?;
        }
        let heard = match self.machine.listening() {
            Some(_) => Box::pin(self.settle_channels(&channels)).await,
            None => Ok(()),
        };
        self.machine.end(&mut lease.backend, &mut self.to_client);
        self.count_pinned();
        if self.machine.keeps_server() {
            self.lease = Some(lease);
            return heard;
        }
        self.machine.rest_notes();
        self.seen.released();
        lease.seen.iter().for_each(ServerSeat::idle);
        let is_dirty = !lease.backend.dirt.is_empty();
        lease.redeem();
        match lease {
            Lease::Pooled(lease) if is_dirty => Box::pin(self.pool.wash(lease)).await,
            Lease::Pooled(mut lease) => lease.vouch(),
            Lease::Own(_) => {}
        }
        heard
    }

    /// Leaves a server connection whose server is gone; nothing of the session's is on it.
    async fn forsake(&mut self) {
        self.lease = None;
        self.from_server.clear();
        self.to_server.clear();
        self.seen.released();
        if self.registered.canceller.released() {
            // Whether it got through or not: there was nothing to cancel.
            self.registered.canceller.settled().await;
        }
    }

    fn count(&mut self) {
        let metrics = &splitting::source(&self.splitting, &self.pool).metrics;
        metrics.transactions.inc();
        metrics.queries.add(self.machine.take_queries());
        metrics.transaction_seconds.record(self.seen.spent(self.machine.status() == Status::Idle));
    }

    fn count_pinned(&mut self) {
        let pinned = !self.machine.pinned().is_empty();
        if pinned != std::mem::replace(&mut self.is_pinned, pinned) {
            match pinned {
                true => self.pool.metrics.pinned.inc(),
                false => self.pool.metrics.pinned.dec(),
            }
        }
    }

    /// Leaves the server connection, whatever it is in the midst of.
    async fn abandon(&mut self) {
        let Some(mut lease) = self.lease.take() else { return };
        if !self.machine.is_busy() {
            self.seen.parts();
        }
        self.count();
        self.shared.tap.leave(&mut self.machine, &self.seen, &lease);
        self.seen.released();
        lease.seen.iter().for_each(ServerSeat::ours);
        if lease.is_deposed() {
            // Nobody may be there to bring it to rest.
            return;
        }
        lease.backend.dirt |= self.machine.dirt();
        let left = Left {
            machine: self.machine.take(),
            from_server: std::mem::take(&mut self.from_server),
            to_server: std::mem::take(&mut self.to_server),
        };
        Box::pin(reclaim(lease, left, &self.pool, &self.registered.canceller)).await;
    }

    /// One line an exchange.
    fn log(&self, error: Option<&Error>) {
        self.shared.access.record(error.is_some(), || {
            let event = Event::new("transaction")
                .show("peer", self.conn.peer)
                .with("database", &*self.pool.database)
                .with("user", &*self.pool.user)
                .time("took_ms", self.began.elapsed());
            match error {
                Some(error) => event.with("sqlstate", error.sqlstate()).show("error", error),
                None => event,
            }
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pool.metrics.clients.dec();
        if self.is_pinned {
            self.pool.metrics.pinned.dec();
        }
    }
}
