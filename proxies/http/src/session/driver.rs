//! The loop of one client's connection: accept, handshake, { read, admit, route, lease, exchange, release }, drain.

use super::begin::Begun;
use super::mirroring;
use super::pace::Pace;
use super::record::failed;
use super::relay::{Patience, Relay};
use super::tunnel;
use crate::error::Error;
use crate::http2;
use crate::identity::IpText;
use crate::metrics::Counted;
use crate::reply::{self, Audience, Notice};
use crate::upstream::Lease;
use crate::wire::scan::HeadScan;
use crate::worker::{View, Worker};
use bytes::{Buf, BytesMut};
use futures_util::future::Either;
use groove_common::net::Downstream;
use groove_common::net::Timer;
use groove_common::telemetry::Event;
use std::cell::OnceCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tracing::debug;

/// While draining, a connection without a request is kept this long: its client may have sent one already.
const GOODBYE: Duration = Duration::from_millis(500);

/// Serves a connection to its end.
pub(crate) fn serve(worker: Rc<Worker>, conn: Downstream) -> impl Future<Output = ()> {
    if conn.tls.as_ref().is_some_and(|tls| tls.alpn.as_deref() == Some(b"h2")) {
        let bounds = worker.view().table.http2;
        return Either::Left(Box::pin(http2::serve(worker, conn, BytesMut::new(), bounds)));
    }
    // Not awaited here: a future keeps room for what it was given beside that of the future that has got it.
    Either::Right(serve_http1(worker, conn))
}

/// Serves one request, a stream of a connection that carries others beside. `head` has been read of it.
pub(crate) fn serve_stream(worker: Rc<Worker>, conn: Downstream, head: BytesMut) -> impl Future<Output = ()> {
    let mut session = Session::handshake(worker, conn);
    session.inbox = head;
    session.may_be_http2 = false;
    async move {
        if session.turn().await == Next::Linger {
            Box::pin(session.linger()).await;
        }
    }
}

/// Serves a connection that begins with HTTP/1.1.
fn serve_http1(worker: Rc<Worker>, conn: Downstream) -> impl Future<Output = ()> {
    let mut session = Session::handshake(worker, conn);
    // The session stays where the block has captured it: an async function would keep room for its arguments beside.
    async move {
        loop {
            match session.turn().await {
                Next::Request => {}
                // For TLS a word of its own; for TCP dropping the socket says it.
                Next::Close if session.conn.stream.is_tls() => break Box::pin(session.close()).await,
                Next::Linger => break Box::pin(session.linger()).await,
                Next::Close | Next::Cut => break,
                Next::Http2 => {
                    let bounds = session.worker.view().table.http2;
                    let Session { worker, conn, inbox, .. } = session;
                    break Box::pin(http2::serve(worker, conn, inbox, bounds)).await;
                }
            }
        }
    }
}

/// Tells a client that there is no room for it.
pub(crate) async fn refuse(worker: &Worker, mut conn: Downstream) {
    let mut out = BytesMut::new();
    let audience = Audience { close: true, ..Audience::default() };
    worker.shared.metrics.failed(&Error::Full);
    worker.shared.access.record(true, || {
        let event = Event::new("").show("client", conn.peer).with("status", Error::Full.status());
        failed(event, &Error::Full)
    });
    reply::error(&Notice::of(&Error::Full), audience, &mut out);
    if let Err(error) = conn.stream.send(&mut out).await {
        debug!(%error, "a client left before it was refused");
    }
}

/// What becomes of the connection after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another request may come.
    Request,
    /// All is said.
    Close,
    /// All is said, but the client is still sending.
    Linger,
    /// Nothing more can be said.
    Cut,
    /// The client knew that HTTP/2 is spoken here, and begins with its preface.
    Http2,
}

/// What waiting for a request ended with.
enum Read {
    Some,
    End,
    Late,
    Draining,
}

/// One client's connection.
pub(super) struct Session {
    pub(super) worker: Rc<Worker>,
    pub(super) conn: Downstream,
    /// Nothing was read yet, and it is not TLS, which would have agreed on a version.
    may_be_http2: bool,
    /// How many restarts of apps there had been when it was opened.
    pub(super) restarts: u32,
    /// The drain has been noticed; the next request is the last.
    is_parting: bool,
    /// Read and not yet taken. Holds no memory while nothing comes.
    pub(super) inbox: BytesMut,
    pub(super) timer: Timer,
}

impl Session {
    fn handshake(worker: Rc<Worker>, conn: Downstream) -> Self {
        let timer = Timer::new(Instant::now() + worker.view().table.timeouts.keep_alive);
        Self {
            may_be_http2: conn.tls.is_none(),
            restarts: worker.shared.restarts.count(),
            is_parting: false,
            inbox: BytesMut::new(),
            timer,
            worker,
            conn,
        }
    }

    /// The peer's address, as X-Forwarded-For has it.
    pub(super) fn client(&self) -> IpText {
        IpText::of(self.conn.peer.ip().map(|ip| ip.to_canonical()))
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.conn.tls.is_some() { "https" } else { "http" }
    }

    /// What the client speaks, for the log.
    pub(super) fn protocol(&self, is_http10: bool) -> &'static str {
        match (self.conn.stream.is_piped(), is_http10) {
            // One stream of a connection.
            (true, _) => "HTTP/2",
            (false, true) => "HTTP/1.0",
            (false, false) => "HTTP/1.1",
        }
    }

    /// One request and its reply.
    async fn turn(&mut self) -> Next {
        let length = match self.read().await {
            Ok(Some(length)) => length,
            Ok(None) => return Next::Close,
            Err(error) => return Box::pin(self.refuse_unread(error)).await,
        };
        // Boxed, as all that seldom or briefly is: a connection that waits for a request does not carry its size.
        Box::pin(self.answer_one(length)).await
    }

    /// Answers the request whose head takes up the first `length` bytes.
    async fn answer_one(&mut self, length: usize) -> Next {
        let view = self.worker.view();
        let may_be_http2 = std::mem::take(&mut self.may_be_http2);
        // The exchange ends with the app it began with, whatever changes meanwhile.
        let seat = OnceCell::new();
        let mut begun = match self.begin(&view, &seat, length, None) {
            Ok(begun) => begun,
            // What begins so is no request of HTTP/1.1, whatever it is.
            Err(_) if may_be_http2 && self.inbox.starts_with(http2::PREFACE) => return Next::Http2,
            // Boxed: a request that goes on at once does not carry the size of one that does not.
            Err(early) => match Box::pin(self.early(&view, &seat, length, early)).await {
                Ok(begun) => begun,
                Err(next) => return next,
            },
        };
        let _in_flight = Counted::new(&begun.app.metrics.in_flight);
        let next = match self.serve_one(&view, &mut begun).await {
            Ok(lease) if begun.exchange.is_switched() => {
                Box::pin(self.tunnel(&view, &mut begun, lease)).await
            }
            Ok(lease) => self.release(&view, &mut begun, lease),
            Err(error) => Box::pin(self.fail(&view, &mut begun, error)).await,
        };
        self.give_back(begun);
        next
    }

    /// Waits for a whole head and says how long it is; `None` is a connection that ends between two requests.
    async fn read(&mut self) -> Result<Option<usize>, Error> {
        let mut scan = HeadScan::default();
        let mut is_first_line = true;
        let mut is_begun = false;
        loop {
            // One empty line before a request is a habit of old clients (RFC 9112, 2.2).
            if is_first_line && self.inbox.starts_with(b"\r\n") {
                self.inbox.advance(2);
                is_first_line = false;
                scan = HeadScan::default();
            }
            if !self.inbox.is_empty() {
                let view = self.worker.view();
                if let Some(length) = scan.advance(&self.inbox, &view.table.limits).map_err(Error::Request)? {
                    return Ok(Some(length));
                }
                if !is_begun {
                    is_begun = true;
                    self.timer.set(Instant::now() + view.table.timeouts.head);
                }
            }
            match poll_fn(|cx| self.poll_read(cx)).await {
                Read::Some => {}
                Read::End => return Ok(None),
                Read::Late if self.inbox.is_empty() => return Ok(None),
                Read::Late => return Err(Error::HeadTimeout),
                Read::Draining => {
                    self.is_parting = true;
                    if self.inbox.is_empty() {
                        self.timer.set(Instant::now() + GOODBYE);
                    }
                }
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        let filled = if self.inbox.is_empty() {
            // A buffer is lent for the attempt only.
            let mut buffer = self.worker.take_buffer();
            let filled = self.conn.stream.poll_fill(cx, &mut buffer);
            if filled.is_pending() {
                self.worker.put_buffer(buffer);
            } else {
                self.inbox = buffer;
            }
            filled
        } else {
            self.conn.stream.poll_fill(cx, &mut self.inbox)
        };
        match filled {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Read::End),
            Poll::Ready(Ok(_)) => return Poll::Ready(Read::Some),
            Poll::Pending => {}
        }
        // Whoever polls this task has it woken when the drain moves on.
        if !self.is_parting && self.conn.drain.is_draining() {
            return Poll::Ready(Read::Draining);
        }
        ready!(self.timer.poll(cx));
        Poll::Ready(Read::Late)
    }

    /// Leases and exchanges, as often as the app's rules want it.
    async fn serve_one(&mut self, view: &View, begun: &mut Begun<'_>) -> Result<Lease, Error> {
        match &begun.target.upstream.retry {
            None => self.attempt(view, begun, begun.at).await,
            Some(retry) => Box::pin(self.attempts(view, begun, retry)).await,
        }
    }

    pub(super) async fn exchange(
        &mut self,
        view: &View,
        begun: &mut Begun<'_>,
        lease: &mut Lease,
    ) -> Result<(), Error> {
        let mut relay = Relay {
            exchange: &mut begun.exchange,
            client: &mut self.conn.stream,
            server: &mut lease.stream,
            inbox: &mut self.inbox,
            outgoing: &mut begun.outgoing,
            incoming: &mut begun.incoming,
            reply: &mut begun.reply,
            is_heard: &mut begun.is_heard,
            worker: &self.worker,
            table: &view.table,
            edits: begun.naming.as_ref().map_or(&*begun.edits, |naming| &naming.edits),
            session: begun.naming.as_ref().map_or(&[], |naming| naming.cookie.lines()),
            compress: begun.compress,
            request_edits: begun.own.as_ref().map_or(&begun.target.request, |own| &own.request),
            program: begun.own.as_ref().and_then(|own| own.reply.as_ref()),
            upload_limits: begun.target.limits(&view.table.limits),
            again: begun.again,
            drain: &self.conn.drain,
            patience: Patience { first_byte: begun.app.first_byte, body_idle: begun.app.body_idle },
            timer: &mut self.timer,
            pace: view.table.min_rate.map(|min| Box::new(Pace::new(min))),
            begun: lease.is_reused.then_some(lease.at),
            server_is_watched: lease.is_reused,
            server_is_deaf: false,
            reply_is_unflushed: false,
            client_is_done: false,
            copy: begun.copy.take(),
        };
        poll_fn(|cx| {
            let polled = relay.poll(cx);
            if relay.copy.is_some() && relay.exchange.is_uploaded() {
                mirroring::finish(&self.worker, &begun.seat.app, relay.copy.take());
            }
            polled
        })
        .await
    }

    /// The reply is with the client: what stays open, and what is told of it.
    fn release(&mut self, view: &View, begun: &mut Begun<'_>, lease: Lease) -> Next {
        let now = begun.ended;
        let status = begun.exchange.status().unwrap_or_default();
        let took = now.saturating_duration_since(begun.at);
        begun.app.metrics.answered(status, took);
        self.record(begun, Some(&lease), took, None);
        // One from before the app's restart is not kept either.
        let is_current = lease.restarts >= begun.app.stand.restarted();
        let keeps_server = begun.exchange.keeps_server() && begun.outgoing.is_sent();
        if keeps_server && is_current && !lease.is_private {
            self.worker.put_idle(lease, now, &view.table);
        }
        if !begun.exchange.is_uploaded() {
            return Next::Linger;
        }
        if !begun.exchange.keeps_client() {
            return Next::Close;
        }
        self.timer.set(now + view.table.timeouts.keep_alive);
        Next::Request
    }

    /// Both sides have left HTTP.
    async fn tunnel(&mut self, view: &View, begun: &mut Begun<'_>, mut lease: Lease) -> Next {
        // The request ends with its reply; what follows is counted by itself.
        let took = begun.ended.saturating_duration_since(begun.at);
        begun.app.metrics.answered(101, took);
        self.record(begun, Some(&lease), took, None);
        // A tunnel may live for days: it is under its endpoint's bound, not under the proxy's.
        drop(lease.permit.take());
        let metrics = &self.worker.shared.metrics;
        let _open = Counted::new(&metrics.tunnels);
        let (up, down) = (std::mem::take(&mut self.inbox), std::mem::take(&mut begun.incoming));
        let idle_max = view.table.timeouts.tunnel_idle;
        let carried =
            tunnel::carry(&mut self.conn.stream, &mut lease.stream, up, down, idle_max, &mut self.timer)
                .await;
        metrics.tunnel_seconds.record(begun.ended.elapsed());
        metrics.tunnel_bytes_up.add(carried.up);
        metrics.tunnel_bytes_down.add(carried.down);
        debug!(app = &*begun.app.name, up = carried.up, down = carried.down, "a tunnel ended");
        Next::Cut
    }

    /// Nothing is held by a connection that waits for its next request.
    fn give_back(&mut self, begun: Begun<'_>) {
        for buffer in [begun.outgoing.head, begun.reply.head] {
            self.worker.put_buffer(buffer);
        }
        for buffer in [begun.outgoing.body, begun.incoming, begun.reply.body] {
            self.worker.put_large(buffer);
        }
        if self.inbox.is_empty() {
            self.worker.put_large(std::mem::take(&mut self.inbox));
        }
    }
}
