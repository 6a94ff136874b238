//! The exchange over its two sockets: one task polls both, and what cannot be sent is not read.

use super::pace::Pace;
use super::state::{Again, Exchange, Phase, Rules};
use crate::compress::Compress;
use crate::edit::ReplyProgram;
use crate::error::Error;
use crate::mirror::Copy;
use crate::table::Table;
use crate::wire::{Edits, Limits, Outlet};
use crate::worker::Worker;
use bytes::{Buf, BytesMut};
use groove_common::lifecycle::Drain;
use groove_common::net::Stream;
use groove_common::net::Timer;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::Instant;

/// A client that closes its sending side has mostly left, and its request is not worth a server's time; one that only
/// said "this was all" has its reply this soon.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(1);

/// A request on its way to the server. The head is kept until the exchange is over: it may have to be sent again.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) head: BytesMut,
    sent: usize,
    pub(super) body: BytesMut,
    /// TLS holds records that the socket has not taken.
    unflushed: bool,
}

impl Outgoing {
    /// A head, and whatever of the body is there already.
    pub(super) fn new(head: BytesMut) -> Self {
        Self { head, sent: 0, body: BytesMut::new(), unflushed: false }
    }

    /// Sends what is left, head and body in one write.
    fn poll_send(&mut self, cx: &mut Context<'_>, server: &mut Stream) -> Poll<std::io::Result<()>> {
        let mut head = self.head.get(self.sent..).unwrap_or_default();
        let polled = if self.body.is_empty() {
            server.poll_send(cx, &mut head)
        } else {
            server.poll_send(cx, &mut (&mut head).chain(&mut self.body))
        };
        self.sent = self.head.len() - head.len();
        // What a socket refused is never sent: a connection that failed does not look like one at rest.
        self.unflushed = !matches!(polled, Poll::Ready(Ok(())));
        polled
    }

    /// Bytes that the socket has not taken.
    pub(super) fn left(&self) -> usize {
        self.head.len() - self.sent + self.body.len()
    }

    /// Whether the socket has all of what is known of the request so far.
    pub(super) fn is_sent(&self) -> bool {
        self.sent == self.head.len() && self.body.is_empty() && !self.unflushed
    }

    /// Makes ready to send it again.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }
}

/// How long each phase may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) first_byte: Duration,
    pub(super) body_idle: Duration,
}

impl Patience {
    fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::FirstByte => self.first_byte,
            Phase::Upload | Phase::Download => self.body_idle,
        }
    }
}

/// Everything that an exchange reads and writes.
pub(super) struct Relay<'a> {
    pub(super) exchange: &'a mut Exchange,
    pub(super) client: &'a mut Stream,
    pub(super) server: &'a mut Stream,
    /// Read of the client and not yet taken: the body, then the next request.
    pub(super) inbox: &'a mut BytesMut,
    pub(super) outgoing: &'a mut Outgoing,
    /// Read of the server and not yet taken.
    pub(super) incoming: &'a mut BytesMut,
    /// For the client.
    pub(super) reply: &'a mut Outlet,
    /// The client has had some of the final reply.
    pub(super) is_heard: &'a mut bool,
    pub(super) worker: &'a Worker,
    pub(super) table: &'a Table,
    pub(super) edits: &'a Edits,
    /// Edits to the request, of which trailers are left.
    pub(super) request_edits: &'a Edits,
    /// What is sent again after which status.
    pub(super) again: Option<Again<'a>>,
    /// Edits to the reply that are worked out for it.
    pub(super) program: Option<&'a ReplyProgram<'a>>,
    /// Lines for a 101.
    pub(super) session: &'a [u8],
    /// Whether the reply's body is compressed, and into what.
    pub(super) compress: Option<Compress<'a>>,
    /// Bounds of the request's body.
    pub(super) upload_limits: Limits,
    pub(super) drain: &'a Drain,
    pub(super) patience: Patience,
    pub(super) timer: &'a mut Timer,
    /// How slow the client may be, if that is bounded.
    pub(super) pace: Option<Box<Pace>>,
    /// When the exchange began: the time of the first turn, which need not be asked for.
    pub(super) begun: Option<Instant>,
    /// It was looked at in this very turn and had said nothing, and our task hears of it when it does.
    pub(super) server_is_watched: bool,
    /// The server takes no more of the request; it may have answered all the same.
    pub(super) server_is_deaf: bool,
    /// TLS holds records for the client that the socket has not taken.
    pub(super) reply_is_unflushed: bool,
    /// The client sends no more. It may have left, or it may wait for its reply.
    pub(super) client_is_done: bool,
    /// The request's copy in the making.
    pub(super) copy: Option<Box<Copy>>,
}

impl Relay<'_> {
    /// Moves all that can be moved. Ready when the reply is with the client, or nothing more can be done.
    ///
    /// One pass is enough for most: it is repeated only where bytes that moved make room, or stand in line, for others.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut moved_ever = false;
        let mut client_bytes = 0;
        loop {
            let sent = self.send_request(cx);
            let mut again = sent && !self.exchange.is_uploaded();
            let received = self.read_server(cx)?;
            let held = self.reply.len();
            let replied = self.send_reply(cx)?;
            client_bytes += held - self.reply.len();
            if self.exchange.is_answered() && self.reply.is_empty() && !self.reply_is_unflushed {
                return Poll::Ready(Ok(()));
            }
            let held = self.inbox.len() + self.outgoing.body.len();
            let uploaded = self.read_client(cx)?;
            client_bytes += (self.inbox.len() + self.outgoing.body.len()).saturating_sub(held);
            again |= received || replied || uploaded;
            moved_ever |= again || sent;
            if !again {
                break;
            }
            if self.exchange.has_had_its_turn() {
                // Who only wakes itself would be polled again before the runtime looks at its sockets.
                let _pending = pin!(yield_now()).poll(cx);
                break;
            }
        }
        if moved_ever {
            let phase = self.exchange.phase();
            let leaves = self.client_is_done && phase == Phase::FirstByte;
            let patience = if leaves { HALF_CLOSED_MAX } else { self.patience.of(phase) };
            let now = self.begun.take().unwrap_or_else(Instant::now);
            let idle = now + patience;
            let credit = self.pace(now, client_bytes as u64);
            self.timer.set(credit.map_or(idle, |credit| idle.min(credit)));
        }
        match self.timer.poll(cx) {
            Poll::Ready(()) if self.pace.as_ref().is_some_and(|pace| pace.is_over(Instant::now())) => {
                Poll::Ready(Err(Error::TooSlow))
            }
            Poll::Ready(()) if self.client_is_done => Poll::Ready(Err(Error::ClientGone)),
            Poll::Ready(()) => Poll::Ready(Err(self.out_of_time())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Until when the client's credit lasts, where it is the client that is waited for: to send its body, or to take what
    /// its socket had no room for.
    fn pace(&mut self, now: Instant, bytes: u64) -> Option<Instant> {
        let sends = !self.exchange.is_uploaded() && self.outgoing.is_sent() && !self.exchange.is_begun();
        let takes = !self.reply.is_empty() || self.reply_is_unflushed;
        self.pace.as_mut()?.moved(now, bytes, sends || takes)
    }

    fn send_request(&mut self, cx: &mut Context<'_>) -> bool {
        if self.outgoing.is_sent() || self.server_is_deaf {
            return false;
        }
        let before = self.outgoing.left();
        match self.outgoing.poll_send(cx, self.server) {
            Poll::Ready(Ok(())) => {
                self.worker.put_large(std::mem::take(&mut self.outgoing.body));
                true
            }
            // It may have said why before it hung up: the reply is still read.
            Poll::Ready(Err(_)) => {
                self.server_is_deaf = true;
                self.outgoing.body.clear();
                true
            }
            // A server that takes a little at a time is slow, not still.
            Poll::Pending => self.outgoing.left() < before,
        }
    }

    /// Reads the request's body while there is room for it; after it, a little of what follows, so that a client that
    /// leaves is noticed.
    fn read_client(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let uploading = !self.exchange.is_uploaded();
        if uploading && (self.server_is_deaf || self.outgoing.body.len() >= self.table.buffer_bytes) {
            return Ok(false);
        }
        let mut moved = false;
        // Of a body only a trailer section that is not whole yet is ever left here.
        let limits = self.upload_limits;
        let has_room =
            self.inbox.is_empty() || self.inbox.len() < limits.head_bytes.max(limits.trailer_bytes);
        if has_room && !self.client_is_done {
            match self.poll_inbox(cx, uploading) {
                Poll::Ready(Ok(0)) if !uploading => {
                    self.client_is_done = true;
                    moved = true;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Err(Error::ClientGone),
                Poll::Ready(Ok(_)) => moved = true,
                Poll::Pending => {}
            }
        }
        if uploading && !self.inbox.is_empty() {
            let before = self.inbox.len();
            let held = self.outgoing.body.len();
            self.exchange.upload(self.inbox, &mut self.outgoing.body, &limits, self.request_edits)?;
            if let Some(copy) = &mut self.copy {
                copy.take(self.outgoing.body.get(held..).unwrap_or_default());
            }
            moved |= self.inbox.len() < before;
            if self.inbox.is_empty() {
                self.worker.put_large(std::mem::take(self.inbox));
            }
        }
        Ok(moved)
    }

    /// Reads of the client. A body gets a buffer that it can go on in.
    fn poll_inbox(&mut self, cx: &mut Context<'_>, uploading: bool) -> Poll<std::io::Result<usize>> {
        if !uploading || !self.inbox.is_empty() {
            return self.client.poll_fill(cx, self.inbox);
        }
        let mut buffer = self.worker.take_large();
        let filled = self.client.poll_fill(cx, &mut buffer);
        if filled.is_ready() {
            std::mem::swap(self.inbox, &mut buffer);
        }
        self.worker.put_large(buffer);
        filled
    }

    fn read_server(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let is_full = self.reply.len() >= self.table.buffer_bytes;
        if std::mem::take(&mut self.server_is_watched) || self.exchange.is_answered() || is_full {
            return Ok(false);
        }
        let was_empty = self.incoming.is_empty();
        match self.poll_incoming(cx) {
            Poll::Ready(Ok(0)) => self.exchange.server_closed(self.incoming, self.reply)?,
            Poll::Ready(Ok(_)) => {
                let rules = Rules {
                    limits: &self.table.limits,
                    edits: self.edits,
                    program: self.program,
                    draining: self.drain.is_draining(),
                    again: self.again,
                    session: self.session,
                    compress: self.compress,
                };
                self.exchange.download(self.incoming, self.reply, &rules, &mut self.worker.fields())?;
                if was_empty || self.incoming.is_empty() {
                    self.give_back_incoming();
                }
            }
            Poll::Ready(Err(_)) if self.exchange.is_begun() => return Err(Error::Cut),
            Poll::Ready(Err(_)) => return Err(Error::Unanswered),
            Poll::Pending => return Ok(self.exchange.pause(self.reply)?),
        }
        Ok(true)
    }

    /// Reads of the server. A buffer is lent only once there is something to put into it.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if !self.incoming.is_empty() {
            return self.server.poll_fill(cx, self.incoming);
        }
        let mut buffer = self.worker.take_large();
        let filled = self.server.poll_fill(cx, &mut buffer);
        if filled.is_pending() {
            self.worker.put_large(buffer);
            return filled;
        }
        *self.incoming = buffer;
        if self.reply.head.capacity() == 0 {
            self.reply.head = self.worker.take_buffer();
        }
        filled
    }

    /// The buffer goes on with the body, or back. What has yet to be understood, which is little, waits in a small one.
    fn give_back_incoming(&mut self) {
        let mut rest = BytesMut::new();
        if !self.incoming.is_empty() {
            rest = self.worker.take_buffer();
            rest.extend_from_slice(self.incoming);
        }
        self.worker.put_large(std::mem::replace(self.incoming, rest));
    }

    fn send_reply(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        if self.reply.is_empty() && !self.reply_is_unflushed {
            return Ok(false);
        }
        let before = self.reply.len();
        let Outlet { head, body } = &mut *self.reply;
        let polled = match (head.is_empty(), body.is_empty()) {
            (_, true) => self.client.poll_send(cx, head),
            (true, false) => self.client.poll_send(cx, body),
            (false, false) => self.client.poll_send(cx, &mut head.chain(body)),
        };
        if self.reply.body.is_empty() && self.reply.body.capacity() > 0 {
            self.worker.put_large(std::mem::take(&mut self.reply.body));
        }
        // Half of an interim reply that has gone out is no place to say something else in.
        *self.is_heard |= self.exchange.is_begun() || (polled.is_pending() && self.reply.len() < before);
        self.reply_is_unflushed = polled.is_pending();
        match polled {
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(_)) => Err(Error::ClientGone),
            Poll::Pending => Ok(self.reply.len() < before),
        }
    }

    /// Whom the time ran out on.
    fn out_of_time(&self) -> Error {
        match self.exchange.phase() {
            Phase::Upload if self.outgoing.is_sent() => Error::UploadTimeout,
            Phase::Upload | Phase::FirstByte => Error::FirstByteTimeout,
            Phase::Download if self.reply.is_empty() => Error::DownloadTimeout,
            Phase::Download => Error::ClientStuck,
        }
    }
}
