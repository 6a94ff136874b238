//! The loop of one client's connection: accept, handshake, { read, admit, route, lease, exchange, release }, drain.

use super::identify::Question;
use super::lease::{Dial, lease};
use super::own::Own;
use super::relay::{Outgoing, Patience, Relay};
use super::state::{Asked, Exchange};
use super::tunnel;
use crate::auth::Identity;
use crate::error::Error;
use crate::metrics::Counted;
use crate::reply::{self, Audience, Form};
use crate::scene::{Connection, Kept};
use crate::table::{App, Table, Target};
use crate::upstream::Lease;
use crate::wire::scan::HeadScan;
use crate::wire::{Body, Framing, Limits, Malformed, Name, RequestHead, Version, render};
use crate::worker::{View, Worker};
use bytes::{Buf, BytesMut};
use groove_common::discovery::Outcome;
use groove_common::error::{Classified, Retry, Side};
use groove_common::net::Timer;
use groove_common::net::{Downstream, Reached};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::debug;

/// While draining, a connection without a request is kept this long: its client may have sent one already.
const GOODBYE: Duration = Duration::from_millis(500);

/// Serves a connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, conn: Downstream) {
    let mut session = Session::handshake(worker, conn);
    loop {
        match session.turn().await {
            Next::Request => {}
            Next::Close => break Box::pin(session.close()).await,
            Next::Linger => break Box::pin(session.linger()).await,
            Next::Cut => break,
        }
    }
}

/// Tells a client that there is no room for it.
pub(crate) async fn refuse(worker: &Worker, mut conn: Downstream) {
    let mut out = BytesMut::new();
    let audience = Audience { close: true, ..Audience::default() };
    worker.shared.metrics.failed(Error::Full.kind());
    reply::error(&Error::Full, audience, &[], &mut out);
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
    /// The client's address, as X-Forwarded-For has it.
    client: Box<str>,
    scheme: &'static str,
    draining: Reached,
    /// The drain has been noticed; the next request is the last.
    is_parting: bool,
    /// Read and not yet taken. Holds no memory while nothing comes.
    pub(super) inbox: BytesMut,
    pub(super) timer: Timer,
}

/// A request that has been read, admitted and routed.
pub(super) struct Begun<'v> {
    pub(super) at: Instant,
    /// When its reply was with the client.
    ended: Instant,
    pub(super) app: &'v App,
    target: &'v Target,
    pub(super) exchange: Exchange,
    pub(super) outgoing: Outgoing,
    incoming: BytesMut,
    pub(super) reply: BytesMut,
    pub(super) audience: Audience,
    /// What this request has of its own beside its route's; nothing for most.
    pub(super) own: Option<Box<Own<'v>>>,
}

/// Why a request does not go on at once.
enum Stop<'v> {
    /// It never will.
    Refused(Refused),
    /// Who sends it has to be found out first.
    Asks(Box<Question<'v>>),
}

impl From<Refused> for Stop<'_> {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// A request that no server gets to see.
struct Refused {
    error: Error,
    audience: Audience,
}

impl Session {
    fn handshake(worker: Rc<Worker>, conn: Downstream) -> Self {
        let client =
            conn.peer.ip().map_or_else(|| "unknown".into(), |ip| ip.to_canonical().to_string().into());
        let timer = Timer::new(Instant::now() + worker.view().table.timeouts.keep_alive);
        Self {
            worker,
            client,
            scheme: if conn.tls.is_some() { "https" } else { "http" },
            draining: conn.drain.draining(),
            is_parting: false,
            inbox: BytesMut::new(),
            timer,
            conn,
        }
    }

    /// One request and its reply.
    async fn turn(&mut self) -> Next {
        let length = match self.read().await {
            Ok(Some(length)) => length,
            Ok(None) => return Next::Close,
            Err(error) => return Box::pin(self.refuse(error, Audience::default())).await,
        };
        // Boxed, as all that seldom or briefly is: a connection that waits for a request does not carry its size.
        Box::pin(self.answer_one(length)).await
    }

    /// Answers the request whose head takes up the first `length` bytes.
    async fn answer_one(&mut self, length: usize) -> Next {
        let view = self.worker.view();
        let mut begun = match self.begin(&view, length, None) {
            Ok(begun) => begun,
            // Boxed: a request that goes on at once does not carry the size of one that does not.
            Err(stop) => match Box::pin(self.stopped(&view, length, stop)).await {
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
            Err(error) => Box::pin(self.fail(&mut begun, error)).await,
        };
        self.give_back(begun);
        next
    }

    /// A request that did not go on at once: it does after all, or it is answered here.
    async fn stopped<'v>(
        &mut self,
        view: &'v View,
        length: usize,
        stop: Stop<'v>,
    ) -> Result<Begun<'v>, Next> {
        let refused = match stop {
            Stop::Refused(refused) => refused,
            Stop::Asks(question) => {
                let identity = self.identify(view, &question).await?;
                match self.begin(view, length, Some(identity)) {
                    Ok(begun) => return Ok(begun),
                    Err(Stop::Refused(refused)) => refused,
                    // Whom it is of was just found out.
                    Err(Stop::Asks(_)) => return Err(Next::Cut),
                }
            }
        };
        Err(self.refuse(refused.error, refused.audience).await)
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
        if !self.is_parting && Pin::new(&mut self.draining).poll(cx).is_ready() {
            return Poll::Ready(Read::Draining);
        }
        ready!(self.timer.poll(cx));
        Poll::Ready(Read::Late)
    }

    /// Reads the head, and makes of it what the server gets.
    ///
    /// Where who sends it has to be known, that is what stops it until `identity` says so.
    fn begin<'v>(
        &mut self,
        view: &'v View,
        length: usize,
        mut identity: Option<Box<Identity>>,
    ) -> Result<Begun<'v>, Stop<'v>> {
        let table = &*view.table;
        let raw = self.inbox.get(..length).unwrap_or_default();
        let mut fields = self.worker.fields();
        let mut head = RequestHead::parse(raw, &table.limits, &mut fields)
            .map_err(|error| Refused { error: Error::Request(error), audience: Audience::default() })?;
        let asked = Asked::of(&head);
        let framing = head.framing;
        let mut audience = Audience {
            form: Form::Text,
            is_head: asked.is_head,
            is_http10: asked.version == Version::Http10,
            close: !asked.keeps_alive,
        };
        let routed = admit(&head, &table.limits).and_then(|()| route(table, &head));
        let connection = Connection {
            client: &self.client,
            scheme: self.scheme,
            trusted: table.trusts(&self.conn.peer),
            tls: self.conn.tls.as_deref(),
        };
        if let (Ok((app, target)), None) = (&routed, &identity)
            && let Some(auth) = &target.rules.auth
        {
            let request_id = self.worker.request_id();
            let kept = Kept::new(&head, &connection, &request_id, SystemTime::now());
            audience.form = Form::accepted(head.value(Name::Accept));
            let stripped = target.rules.stripped.as_deref();
            let question = Question { app, auth, stripped, kept, request_id, framing, audience, length };
            return Err(Stop::Asks(Box::new(question)));
        }
        let routed = routed.and_then(|(app, target)| target.rules.admit(&head).map(|()| (app, target)));
        let (app, target) = match routed {
            Ok(found) => found,
            Err(error) => {
                audience.form = Form::accepted(head.value(Name::Accept));
                drop(fields);
                self.inbox.advance(length);
                audience.close |= !skip_body(framing, &mut self.inbox, &table.limits);
                return Err(Refused { error, audience }.into());
            }
        };
        // Without the credentials that stood in it.
        let target_sent = identity.as_mut().and_then(|identity| identity.target.take());
        head.target = target_sent.as_deref().unwrap_or(head.target);
        let mut out = self.worker.take_buffer();
        let hop = render::Hop {
            client: self.client.as_bytes(),
            scheme: self.scheme.as_bytes(),
            trusted: connection.trusted,
            via: &table.via,
            request_id: &identity
                .as_ref()
                .and_then(|identity| identity.request_id)
                .unwrap_or_else(|| self.worker.request_id()),
        };
        // Only where something depends on the request.
        let programs = target.rules.programs.as_deref();
        let own = programs.map(|programs| {
            Own::new(&head, &connection, hop.request_id, (app, &target.rules, programs), identity)
        });
        let request_edits = own.as_ref().map_or(&target.request, |own| &own.request);
        render::request(&head, &hop, request_edits, &mut out);
        drop(fields);
        self.inbox.advance(length);
        let mut exchange = Exchange::new(asked, framing);
        if !exchange.is_uploaded() {
            // What is there of the body goes with the head, in one piece.
            let taken = exchange.upload(&mut self.inbox, &mut out, &target.rules.limits, request_edits);
            if let Err(fault) = taken {
                return Err(Refused { error: fault.into(), audience }.into());
            }
        }
        let at = Instant::now();
        Ok(Begun {
            at,
            ended: at,
            app,
            target,
            exchange,
            outgoing: Outgoing::new(out),
            // Lent when there is something to put in: a server may take its time.
            incoming: BytesMut::new(),
            reply: BytesMut::new(),
            audience,
            own,
        })
    }

    /// Leases and exchanges, once more on a fresh connection where an idle one turned out to be dead.
    async fn serve_one(&mut self, view: &View, begun: &mut Begun<'_>) -> Result<Lease, Error> {
        let mut wants_fresh = false;
        loop {
            let dial = Dial { target: begun.target, app: begun.app, now: begun.at, wants_fresh };
            let mut lease = lease(&self.worker, view, &dial).await?;
            let Err(error) = self.exchange(view, begun, &mut lease).await else {
                begun.ended = Instant::now();
                let latency = begun.ended.saturating_duration_since(begun.at);
                let outcome = Outcome::Success { latency };
                begun.target.upstream.cluster.report(lease.exchange.endpoint(), outcome);
                return Ok(lease);
            };
            if lease.is_reused && error.retry() == Retry::IfIdempotent {
                // The server closed an idle connection: that says nothing of its health.
                if begun.exchange.may_replay() {
                    begun.exchange.restart();
                    begun.outgoing.rewind();
                    begun.incoming.clear();
                    self.worker.shared.metrics.retries.inc();
                    wants_fresh = true;
                    continue;
                }
            } else if error.side() == Side::Upstream {
                begun.target.upstream.cluster.report(lease.exchange.endpoint(), Outcome::Failure);
            }
            return Err(error);
        }
    }

    async fn exchange(&mut self, view: &View, begun: &mut Begun<'_>, lease: &mut Lease) -> Result<(), Error> {
        let mut relay = Relay {
            exchange: &mut begun.exchange,
            client: &mut self.conn.stream,
            server: &mut lease.stream,
            inbox: &mut self.inbox,
            outgoing: &mut begun.outgoing,
            incoming: &mut begun.incoming,
            reply: &mut begun.reply,
            worker: &self.worker,
            table: &view.table,
            edits: &begun.target.reply,
            request_edits: begun.own.as_ref().map_or(&begun.target.request, |own| &own.request),
            program: begun.own.as_ref().and_then(|own| own.reply.as_ref()),
            upload_limits: &begun.target.rules.limits,
            drain: &self.conn.drain,
            patience: Patience { first_byte: begun.app.first_byte, body_idle: begun.app.body_idle },
            timer: &mut self.timer,
            begun: lease.is_reused.then_some(begun.at),
            server_is_watched: lease.is_reused,
            server_is_deaf: false,
            reply_is_unflushed: false,
            client_is_done: false,
        };
        poll_fn(|cx| relay.poll(cx)).await
    }

    /// The reply is with the client: what stays open, and what is told of it.
    fn release(&mut self, view: &View, begun: &mut Begun<'_>, lease: Lease) -> Next {
        let now = begun.ended;
        let status = begun.exchange.status().unwrap_or_default();
        let took = now.saturating_duration_since(begun.at);
        begun.app.metrics.answered(status, took);
        self.record(begun, Some(&lease), took, None);
        if begun.exchange.keeps_server() && begun.outgoing.is_sent() {
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
        debug!(app = begun.app.name, up = carried.up, down = carried.down, "a tunnel ended");
        Next::Cut
    }

    /// Nothing is held by a connection that waits for its next request.
    fn give_back(&mut self, begun: Begun<'_>) {
        for buffer in [begun.outgoing.head, begun.outgoing.body, begun.incoming, begun.reply] {
            self.worker.put_buffer(buffer);
        }
        if self.inbox.is_empty() {
            self.worker.put_buffer(std::mem::take(&mut self.inbox));
        }
    }
}

/// What no server needs to see to be refused.
fn admit(head: &RequestHead<'_>, limits: &Limits) -> Result<(), Error> {
    if head.method == b"CONNECT" {
        return Err(Error::Connect);
    }
    if !head.expectation_can_be_met() {
        return Err(Error::Expectation);
    }
    match head.framing {
        Framing::Length(length) if length > limits.body_bytes => Err(Error::Request(Malformed::BodyTooLarge)),
        Framing::None | Framing::Length(_) | Framing::Chunked | Framing::Close => Ok(()),
    }
}

/// The app that answers for the host, and what of it serves this path and method.
fn route<'t>(table: &'t Table, head: &RequestHead<'_>) -> Result<(&'t App, &'t Target), Error> {
    let Some(app) = table.app(head.host) else {
        return Err(Error::UnknownHost(String::from_utf8_lossy(head.host).into_owned()));
    };
    Ok((app, app.target(head.method, head.path())))
}

/// Drops a request's body if all of it is there already, so that the next request can be read behind it.
pub(super) fn skip_body(framing: Framing, inbox: &mut BytesMut, limits: &Limits) -> bool {
    let mut body = Body::new(framing);
    match body.advance(inbox, limits, |_| {}) {
        Ok(taken) => inbox.advance(taken),
        Err(_) => return false,
    }
    body.is_done()
}
