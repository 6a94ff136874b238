//! A session's loop: { read, admit, route, lease, exchange, release }, drain.
//!
//! The session's own task polls both sockets: no message changes tasks, and in each turn there is at most one
//! write to each side. Who the client is and where it goes ([`route`](crate::route)) is settled once, by the
//! [handshake](super::handshake); admission is the pool's fair gate, which `Session::lease` stands before.

mod listening;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use groove_common::lifecycle::Phase;
use groove_common::net::{Downstream, Reached, Stream, Timer};
use groove_common::telemetry::{Counter, Event};

use listening::hear;

use super::Lease;
use super::cancel::Registered;
use super::handover::Home;
use super::reclaim::{Left, reclaim};
use super::state::{Before, Machine, Need};
use crate::Shared;
use crate::error::Error;
use crate::live::{ClientSeat, ServerSeat};
use crate::reply;
use crate::upstream::{UserPool, refused};
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
    pub(super) seen: ClientSeat,
    pub(super) from_client: BytesMut,
    pub(super) to_client: BytesMut,
    from_server: BytesMut,
    to_server: BytesMut,
    /// When the exchange began to wait for a server connection.
    began: Instant,
    /// To begin anew with, should the server turn out to have gone before it has read anything.
    again: Option<Box<Again>>,
    /// Goes off when it has waited for too long.
    patience: Timer,
}

/// What an exchange began with.
struct Again {
    from_client: BytesMut,
    before: Before,
}

/// What a client does next.
enum Turn {
    Exchange,
    Move,
    Leave,
}

/// How an exchange ended.
enum End {
    /// The server connection is free for another session.
    Free,
    /// The server is gone, and has read nothing: another one shall have it.
    Unheard,
    /// The client left, with a goodbye or without.
    Left,
    /// The program is draining, and nothing is open.
    Drained,
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
            seen,
            from_client: input,
            to_client: BytesMut::new(),
            from_server: BytesMut::new(),
            to_server: BytesMut::new(),
            began: now,
            again: None,
            patience: Timer::new(now.into()),
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
        let Err(error) = served.unwrap_or(Err(Error::Killed)) else { return };
        if self.home == Home::Elsewhere {
            return;
        }
        self.pool.metrics.failed(&error);
        self.log(Some(&error));
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
                if let Err(error) = self.lease().await {
                    self.refuse(error).await?;
                    continue;
                }
                if self.lease.is_none() {
                    continue;
                }
            }
            self.begin()?;
            match self.exchange().await? {
                End::Free => self.release().await?,
                End::Unheard => self.forsake().await,
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
                Need::Server if self.to_client.is_empty() => return Ok(Turn::Exchange),
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
        match self.conn.stream.poll_fill(cx, &mut self.from_client) {
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

    /// Gets a server connection, in turn. The client may cancel, or leave, while it waits. None is got if the session
    /// may move meanwhile, or the connection has died.
    async fn lease(&mut self) -> Result<(), Error> {
        self.began = Instant::now();
        self.seen.asks(self.began);
        self.shared.tap.look(&mut self.machine);
        let mut lease = pin!(self.pool.lease(self.pool.deadline(self.began.into()), &mut self.patience));
        let mut in_line = InLine {
            registered: &self.registered,
            client: &mut self.conn.stream,
            from_client: &mut self.from_client,
            received: &self.pool.metrics.received,
        };
        let mut has_waited = false;
        let moves = self.home == Home::Here && !in_line.client.is_tls();
        let (draining, drain) = (&mut self.draining, &self.conn.drain);
        let leased = poll_fn(|cx| match lease.as_mut().poll(cx) {
            Poll::Ready(leased) => Poll::Ready(leased.map(Some).map_err(refused)),
            Poll::Pending => {
                if !std::mem::replace(&mut has_waited, true) {
                    self.pool.is_waited_for();
                }
                if moves
                    && Pin::new(&mut *draining).poll(cx).is_ready()
                    && drain.phase() == Phase::HandingOver
                {
                    return Poll::Ready(Ok(None));
                }
                in_line.poll_left(cx).map(Err)
            }
        })
        .await;
        // Who has not waited need not ask the clock how long.
        let waited = if has_waited { self.began.elapsed() } else { Duration::ZERO };
        self.pool.metrics.wait.record(waited);
        let Some(mut lease) = leased.inspect_err(|_| self.seen.released())? else {
            self.seen.released();
            return Ok(());
        };
        // One that came straight from another session may have died on the way; nothing was sent on it yet.
        if has_waited && lease.is_stale() {
            lease.close();
            self.seen.released();
            return Ok(());
        }
        self.seen.leased(lease.seen.as_ref(), self.began + waited);
        if let Some(notes) = self.machine.notes() {
            notes.leased(self.began + waited, waited);
        }
        self.lease = Some(Lease::Pooled(lease));
        Ok(())
    }

    /// Answers an exchange for which there is no server with an error; the session goes on.
    async fn refuse(&mut self, error: Error) -> Result<(), Error> {
        if matches!(error, Error::Client(_)) {
            return Err(error);
        }
        self.registered.canceller.released();
        self.pool.metrics.failed(&error);
        self.log(Some(&error));
        reply::put_exchange_error(&mut self.to_client, &error);
        self.machine.refuse();
        while !self.machine.drop_refused(&mut self.from_client, &mut self.to_client)? {
            // A client that ends its batch with a Flush says no more until it has heard of the error.
            self.conn.stream.send(&mut self.to_client).await.map_err(Error::Client)?;
            let filled = self.conn.stream.fill(&mut self.from_client).await.map_err(Error::Client)?;
            self.pool.metrics.received.add(filled as u64);
            if filled == 0 {
                return Err(Error::Client(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Error> {
        let Some(lease) = &mut self.lease else { return Ok(()) };
        lease.condemn();
        self.again = None;
        if lease.is_followed() && self.to_client.is_empty() && self.from_client.len() <= AGAIN_MAX {
            let (from_client, before) = (self.from_client.clone(), self.machine.before());
            self.again = Some(Box::new(Again { from_client, before }));
        }
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

    async fn exchange(&mut self) -> Result<End, Error> {
        poll_fn(|cx| self.poll_exchange(cx)).await
    }

    /// Moves bytes both ways until the server connection is free, or one side is gone.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Result<End, Error>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(Ok(End::Free)) };
        loop {
            if lease.is_deposed() {
                return Poll::Ready(Err(Error::Deposed));
            }
            if !self.from_client.is_empty() && self.to_server.is_empty() {
                let (input, backend) = (&mut self.from_client, &mut lease.backend);
                self.machine.from_client(input, backend, &mut self.to_server, &mut self.to_client)?;
                if let Some(notes) = self.machine.notes() {
                    notes.sent(Instant::now);
                }
            }
            let mut lost = None;
            if !self.to_server.is_empty()
                && let Poll::Ready(Err(error)) = lease.stream.poll_send(cx, &mut self.to_server)
            {
                // The server's last words may still be there to be read.
                lost = Some(error);
            }
            let mut moved = false;
            if self.to_client.len() < UNSENT_MAX {
                match lease.stream.poll_fill(cx, &mut self.from_server) {
                    Poll::Ready(Ok(filled)) if filled > 0 => {
                        moved = true;
                        self.pool.metrics.sent.add(filled as u64);
                        let (input, backend) = (&mut self.from_server, &mut lease.backend);
                        if let Some(again) = self.again.take()
                            && self.to_client.is_empty()
                            && self.machine.is_unheard(&again.before, input)
                        {
                            self.machine.unsend(again.before, backend);
                            self.from_client = again.from_client;
                            return Poll::Ready(Ok(End::Unheard));
                        }
                        let held_back = self.machine.in_setup();
                        self.machine.from_server(input, backend, &mut self.to_client)?;
                        self.shared.tap.hear(&mut self.machine, &self.seen, lease);
                        if held_back && !self.machine.in_setup() {
                            self.registered.leased(&lease.cancel);
                        }
                    }
                    Poll::Ready(Ok(_)) => lost = Some(io::ErrorKind::UnexpectedEof.into()),
                    Poll::Ready(Err(error)) => lost = Some(error),
                    Poll::Pending => {}
                }
            }
            if let Some(error) = lost.filter(|_| !moved) {
                return Poll::Ready(Err(Error::Lost(error)));
            }
            // The connection goes to the next session before the client has its reply: that may take time.
            // But not while something of the server's is unread, which would be taken for the next session's.
            if self.machine.is_free() && self.to_server.is_empty() && self.from_server.is_empty() {
                return Poll::Ready(Ok(End::Free));
            }
            let held_back = self.to_client.len() >= UNSENT_MAX;
            if !self.to_client.is_empty() {
                self.again = None;
            }
            if !self.to_client.is_empty()
                && let Poll::Ready(sent) = self.conn.stream.poll_send(cx, &mut self.to_client)
            {
                sent.map_err(Error::Client)?;
                moved |= held_back;
            }
            if self.to_server.is_empty() && self.to_client.len() < UNSENT_MAX && self.machine.takes_more() {
                match self.conn.stream.poll_fill(cx, &mut self.from_client) {
                    Poll::Ready(Ok(filled)) if filled > 0 => {
                        moved = true;
                        self.again = None;
                        self.pool.metrics.received.add(filled as u64);
                        let _ = self.seen.works(self.machine.status() == Status::Idle);
                        self.shared.tap.look(&mut self.machine);
                    }
                    Poll::Ready(Ok(_)) => return Poll::Ready(Ok(End::Left)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::Client(error))),
                    Poll::Pending => {}
                }
            }
            // What was asked for before the goodbye is still done.
            if self.machine.may_leave() {
                return Poll::Ready(Ok(End::Left));
            }
            if moved {
                continue;
            }
            // Only a session that keeps its server connection can be idle in here.
            if hear(&self.machine, &mut self.to_client, cx)? {
                continue;
            }
            if self.machine.server_is_idle()
                && self.from_client.is_empty()
                && self.to_client.is_empty()
                && self.poll_drain(cx).is_ready()
            {
                return Poll::Ready(Ok(End::Drained));
            }
            if !self.machine.is_busy() {
                self.seen.rests();
            }
            return Poll::Pending;
        }
    }

    /// Gives the server connection back, unless something of the session's is left on it that cannot go with the
    /// session.
    async fn release(&mut self) -> Result<(), Error> {
        let Some(mut lease) = self.lease.take() else { return Ok(()) };
        self.count();
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
        let metrics = &self.pool.metrics;
        metrics.transactions.inc();
        metrics.queries.add(self.machine.take_queries());
        let (transaction_us, query_us) = self.seen.spent(self.machine.status() == Status::Idle);
        metrics.transaction_us.add(transaction_us);
        metrics.transaction_seconds.record(Duration::from_micros(transaction_us));
        metrics.query_us.add(query_us);
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

/// A client that waits for a server connection.
struct InLine<'a> {
    registered: &'a Registered,
    client: &'a mut Stream,
    from_client: &'a mut BytesMut,
    received: &'a Counter,
}

impl InLine<'_> {
    /// Why the client is no longer in line; what it sends meanwhile is kept, within bounds.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if self.registered.canceller.poll_cancelled_in_line(cx) {
            return Poll::Ready(Error::Cancelled);
        }
        while self.from_client.len() <= UNSENT_MAX {
            match ready!(self.client.poll_fill(cx, self.from_client)) {
                Ok(0) => return Poll::Ready(Error::Client(io::ErrorKind::UnexpectedEof.into())),
                Ok(filled) => self.received.add(filled as u64),
                Err(error) => return Poll::Ready(Error::Client(error)),
            }
        }
        Poll::Pending
    }
}
