//! A session's loop: bytes from the client into the machine, steps to the servers, answers back.
//!
//! ```text
//! accept ─► { read ─► admit ─► route ─► lease ─► exchange ─► release } ─► drain
//! ```
//!
//! There is no handshake in this protocol. One turn does as much of the loop as can be done without
//! waiting: everything that was read is sent on, everything that was answered is written with one call.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use groove_common::net::{Downstream, Reached};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::debug;

use super::mailbox::Mailbox;
use super::programs;
use super::state::{Answer, Broadcast, Machine, Step, Ticket, Verdict};
use crate::error::Failure;
use crate::failover;
use crate::store::{self, Executed, Store};
use crate::tenant::guest::Guest;
use crate::upstream::connection::{Recipient, Shape};
use crate::upstream::plan::Owned;
use crate::upstream::view::{Lease, View};
use crate::wire::Output;
use crate::wire::meta::{Reply, Request, Status};
use crate::wire::request::DecodeError;
use crate::worker::Worker;

/// After a goodbye the client may take this long to hang up.
const LINGER: Duration = Duration::from_secs(1);

/// Requests and reads of one turn, while several tenants share the worker.
const TURN_STEPS_MAX: usize = 64;
const TURN_READS_MAX: usize = 4;

/// One client's connection.
struct Session {
    worker: Rc<Worker>,
    /// Its number on this worker: picks one of several connections.
    id: usize,
    draining: Reached,
    is_draining: bool,
    /// The client will send nothing more.
    is_read_closed: bool,
    input: BytesMut,
    mailbox: Rc<Mailbox>,
    /// What its outstanding requests were sent by, see [`View::generation`].
    generation: u64,
}

/// How far the requests at hand could be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// All of them: more may be read.
    All,
    /// A connection is full (or the client is told goodbye); whoever empties it wakes the session.
    Stuck,
    /// The session itself is full: answers must come, or output must go, and this very turn may write it.
    Full,
    /// Its tenant may have no more on their way just now; whoever is answered wakes the session.
    InLine,
    /// It has done enough for one turn: other tenants' sessions come first.
    Yield,
    /// Whose it was, it no longer is.
    Revoked,
}

/// Serves one client until it leaves, misbehaves, or the proxy drains. `guest` tells whose it is, if there are
/// tenants, and `input` is what it has sent beyond what told that.
pub async fn serve(worker: Rc<Worker>, conn: Downstream, guest: Option<Box<Guest>>, input: BytesMut) {
    let mut session = Session::accept(worker, conn, guest, input);
    let ended = poll_fn(|cx| session.turn(cx)).await;
    if let Err(error) = &ended {
        debug!(peer = %session.mailbox.peer(), %error, "session ended");
    }
    session.drain().await;
}

impl Session {
    fn accept(worker: Rc<Worker>, conn: Downstream, guest: Option<Box<Guest>>, input: BytesMut) -> Self {
        worker.metrics.sessions.inc();
        worker.metrics.sessions_total.inc();
        Self {
            id: guest.as_ref().map_or_else(|| worker.next_session(), |guest| guest.session()),
            draining: conn.drain.draining(),
            is_draining: false,
            is_read_closed: false,
            input,
            mailbox: Mailbox::new(Rc::clone(&worker), conn, guest),
            generation: 0,
            worker,
        }
    }

    /// As much as can be done now; ready when the session is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mailbox.begin_turn(cx.waker());
        self.is_draining = self.is_draining || Pin::new(&mut self.draining).poll(cx).is_ready();
        let (mut now, mut reads) = (None, 0);
        loop {
            let sent = self.exchange_all(&mut now, cx).unwrap_or_else(|error| {
                debug!(peer = %self.mailbox.peer(), %error, "the client cannot be understood");
                // The machine is over: what came before is answered, then the client is hung up on.
                Sent::Stuck
            });
            if let Some(guest) = self.mailbox.guest()
                && sent != Sent::InLine
            {
                guest.leave(&self.worker.fair);
            }
            let is_written = self.release(cx)?;
            if self.is_done() || sent == Sent::Revoked {
                return Poll::Ready(Ok(()));
            }
            if sent == Sent::Full && self.admits(&self.mailbox.machine().borrow()) {
                // The socket took it all: nobody would wake the session for that.
                continue;
            }
            reads += 1;
            if sent == Sent::Yield || (reads > TURN_READS_MAX && self.is_to_yield()) {
                cx.waker().wake_by_ref();
                self.mailbox.end_turn(true);
                return Poll::Pending;
            }
            let is_over = self.is_read_closed || self.mailbox.machine().borrow().is_over();
            if sent != Sent::All || is_over {
                self.mailbox.end_turn(true);
                return Poll::Pending;
            }
            if self.read(cx)?.is_pending() {
                // All that came has been answered and written, and nothing more is here.
                if self.is_draining && is_written && self.is_settled() {
                    return Poll::Ready(Ok(()));
                }
                self.mailbox.end_turn(self.is_draining);
                return Poll::Pending;
            }
        }
    }

    /// May another request be sent?
    fn admits(&self, machine: &Machine) -> bool {
        machine.admits() && self.mailbox.has_room()
    }

    /// Do other tenants wait for the worker while this session keeps it?
    fn is_to_yield(&self) -> bool {
        self.mailbox.guest().is_some() && self.worker.fair.borrow().is_shared()
    }

    fn is_settled(&self) -> bool {
        self.mailbox.machine().borrow().is_settled() && self.input.is_empty()
    }

    /// Is there nobody to serve, and nothing left to say?
    fn is_done(&self) -> bool {
        let machine = self.mailbox.machine().borrow();
        (self.is_read_closed || machine.is_over()) && machine.is_settled()
    }

    /// Takes what the client has sent.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut conn = self.mailbox.conn().borrow_mut();
        let read =
            conn.as_mut().map_or(Poll::Ready(Ok(0)), |conn| conn.stream.poll_fill(cx, &mut self.input));
        match read {
            Poll::Ready(Ok(0)) => {
                self.is_read_closed = true;
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Ok(len)) => {
                if let Some(guest) = self.mailbox.guest() {
                    guest.count_read(len);
                }
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Sends every request at hand to its server, within the session's bounds.
    fn exchange_all(&mut self, now: &mut Option<Instant>, cx: &mut Context<'_>) -> Result<Sent, DecodeError> {
        let mut machine = self.mailbox.machine().borrow_mut();
        if self.input.is_empty() && !machine.is_sending() {
            return Ok(if self.admits(&machine) { Sent::All } else { Sent::Full });
        }
        let now = *now.get_or_insert_with(Instant::now);
        let view = &mut *self.worker.view.borrow_mut();
        view.refresh();
        if self.generation != view.generation() {
            // Keys may have gone elsewhere: what is sent there now could overtake what was sent before.
            if machine.is_waiting() {
                return Ok(Sent::Stuck);
            }
            self.generation = view.generation();
        }
        let mut limits = view.topology().limits;
        let guest = self.mailbox.guest();
        if let Some(guest) = guest {
            if !guest.renew(&view.topology().directory) {
                return Ok(Sent::Revoked);
            }
            if guest.is_flushing() {
                return Ok(Sent::Stuck);
            }
            limits = guest.limits(limits);
        }
        let mut steps = 0;
        while self.admits(&machine) {
            let Some(next) = machine.step(&mut self.input, &limits, now)? else {
                if self.input.is_empty() {
                    // Gives the buffer up: an idle session holds none.
                    self.input = BytesMut::new();
                }
                return Ok(Sent::All);
            };
            let ticket = next.ticket;
            let exchange =
                Exchange { session: self.id, worker: &self.worker, mailbox: &self.mailbox, ticket, now };
            match next.step {
                Step::Key(request) => match exchange.key(guest, &request, view, cx) {
                    Asked::Waiting => machine.commit(now),
                    Asked::Answered(answer) => {
                        machine.commit(now);
                        machine.answer(ticket, answer);
                    }
                    Asked::Busy => return Ok(Sent::Stuck),
                    Asked::InLine => return Ok(Sent::InLine),
                },
                Step::Everyone(broadcast) if let Some(guest) = guest => {
                    let answer = exchange.everyone_of(guest, broadcast);
                    machine.commit_everyone(1, None, now);
                    match answer {
                        Some(answer) => machine.answer(ticket, answer),
                        None => return Ok(Sent::Stuck),
                    }
                }
                Step::Everyone(broadcast) => {
                    let own = self.worker.own_stats(&broadcast);
                    let Some(answers) = exchange.everyone(broadcast, view, cx) else {
                        return Ok(Sent::Stuck);
                    };
                    machine.commit_everyone(answers.len(), own, now);
                    deliver_all(&mut machine, ticket, answers);
                }
                Step::Login(_) => {
                    // Nobody has been told that a login is needed: there is nothing to check it with.
                    machine.commit(now);
                    machine.answer(ticket, Answer::Login(Verdict::Refused));
                }
                Step::Version => {
                    let Some(asked) = exchange.anyone(view, cx) else { return Ok(Sent::Stuck) };
                    machine.commit(now);
                    match (asked, guest) {
                        (Some(answer), _) => machine.answer(ticket, answer),
                        (None, Some(guest)) => guest.sent(0, &self.worker.fair),
                        (None, None) => (),
                    }
                }
            }
            steps += 1;
            if steps >= TURN_STEPS_MAX && self.is_to_yield() {
                return Ok(Sent::Yield);
            }
        }
        Ok(Sent::Full)
    }

    /// Writes what is answered, and counts it. True when everything is written.
    fn release(&self, cx: &mut Context<'_>) -> io::Result<bool> {
        match self.mailbox.poll_release(cx) {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Says goodbye: the last bytes are out; the client reads them before the connection is torn down.
    async fn drain(self) {
        // Taken away from the mailbox: answers that still come are for nobody.
        let Some(mut conn) = self.mailbox.conn().take() else { return };
        if self.is_read_closed || conn.stream.shutdown().await.is_err() {
            return;
        }
        let mut unread = BytesMut::new();
        let hung_up = async {
            while matches!(conn.stream.fill(&mut unread).await, Ok(len) if len > 0) {
                unread.clear();
            }
        };
        if timeout(LINGER, hung_up).await.is_err() {
            debug!(peer = %conn.peer, "the client did not hang up");
        }
    }
}

impl Drop for Session {
    /// Also when the drain's deadline cuts the session where it stands.
    fn drop(&mut self) {
        if let Some(guest) = self.mailbox.guest() {
            guest.leave(&self.worker.fair);
        }
        self.mailbox.conn().take();
        self.worker.metrics.sessions.dec();
    }
}

/// What became of a request that was to be sent.
pub(super) enum Asked {
    Waiting,
    Answered(Answer),
    Busy,
    /// The tenant may have no more on their way.
    InLine,
}

/// One step on its way to the servers.
pub(super) struct Exchange<'a> {
    session: usize,
    pub(super) worker: &'a Rc<Worker>,
    pub(super) mailbox: &'a Rc<Mailbox>,
    pub(super) ticket: Ticket,
    pub(super) now: Instant,
}

impl Exchange<'_> {
    fn recipient(&self, ticket: Ticket) -> Recipient {
        Recipient::Session(Rc::clone(self.mailbox), ticket)
    }

    /// Asks the server of a key, that the client calls by `own`.
    pub(super) fn one(
        &self,
        own: &[u8],
        request: &Request<'_>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Asked {
        let route = view.route(own, request.key);
        let lease = match view.tier(route) {
            None => view.lease(route, self.session, cx.waker()),
            Some(tier) => view.lease_tiers(route, tier, request.key, self.session),
        };
        match lease {
            Lease::Connection { connection, is_trial, ttl_max_s } => {
                let capped;
                let request = match ttl_max_s {
                    None => request,
                    Some(ttl_max_s) => {
                        capped = failover::capped(request, ttl_max_s, unix_time_s());
                        &capped
                    }
                };
                let compared;
                let request = match request.compare() {
                    None => request,
                    Some(token) => match connection.poll_up(is_trial, cx.waker()) {
                        Poll::Ready(Ok((_, identity))) => {
                            compared = request.comparing(identity.epoch.cas(token));
                            &compared
                        }
                        Poll::Ready(Err(failure)) => return Asked::Answered(Answer::Failed(failure)),
                        Poll::Pending => return Asked::Busy,
                    },
                };
                let encode = |out: &mut Output| request.encode(out);
                match connection.send(
                    self.recipient(self.ticket),
                    Shape::of(request),
                    is_trial,
                    self.now,
                    encode,
                ) {
                    Ok(()) => Asked::Waiting,
                    Err(failure) => Asked::Answered(Answer::Failed(failure)),
                }
            }
            Lease::Embedded(store) => match store.execute(request) {
                Executed::Now(reply) => Asked::Answered(Answer::Reply(reply)),
                Executed::Later(reply) => {
                    deliver_later(Rc::clone(self.mailbox), self.ticket, reply);
                    Asked::Waiting
                }
            },
            Lease::Nothing => Asked::Answered(Answer::Reply(failover::nothing(request))),
            Lease::Program(plan) => {
                let owned = Owned::new(request);
                let (worker, mailbox) = (self.worker, self.mailbox);
                match programs::begin(worker, mailbox, self.ticket, *plan, owned, route.hash, cx.waker()) {
                    true => Asked::Waiting,
                    false => Asked::Busy,
                }
            }
            Lease::Busy => Asked::Busy,
            Lease::Failed(failure) => Asked::Answered(Answer::Failed(failure)),
        }
    }

    /// Asks every server. An answer for each, or none yet; nothing is sent while one of them is busy.
    fn everyone(
        &self,
        broadcast: Broadcast<'_>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Option<Vec<Option<Answer>>> {
        if !self.mailbox.programs().borrow().is_empty() {
            // What they have yet to send must not come after this.
            return None;
        }
        let leases = view.lease_everyone(self.session, cx.waker())?;
        if leases.is_empty() {
            return Some(vec![Some(Answer::Failed(Failure::NoServer))]);
        }
        let shape = match broadcast {
            Broadcast::FlushAll { .. } | Broadcast::Verbosity { .. } | Broadcast::MemLimit { .. } => {
                Shape::One
            }
            Broadcast::Stats(_) => Shape::UntilEnd,
        };
        let asked = leases.into_iter().zip(self.ticket..).map(|(lease, ticket)| match lease {
            Lease::Connection { connection, is_trial, ttl_max_s: _ } => {
                let encode = |out: &mut Output| broadcast.encode(out);
                let recipient = self.recipient(ticket);
                connection.send(recipient, shape, is_trial, self.now, encode).err().map(Answer::Failed)
            }
            Lease::Embedded(store) => Some(Answer::Reply(embedded_answer(&store, broadcast))),
            Lease::Program(_) | Lease::Nothing | Lease::Busy | Lease::Failed(_) => {
                Some(Answer::Failed(Failure::Down))
            }
        });
        Some(asked.collect())
    }

    /// Asks the first server that is there for its version. The outer `None`: it is busy.
    fn anyone(&self, view: &mut View, cx: &mut Context<'_>) -> Option<Option<Answer>> {
        let mut failure = Failure::NoServer;
        for lease in view.lease_everyone(self.session, cx.waker())? {
            match lease {
                Lease::Connection { connection, is_trial, ttl_max_s: _ } => {
                    let encode = |out: &mut Output| out.extend_from_slice(b"version\r\n");
                    let recipient = self.recipient(self.ticket);
                    match connection.send(recipient, Shape::One, is_trial, self.now, encode) {
                        Ok(()) => return Some(None),
                        Err(down) => failure = down,
                    }
                }
                Lease::Embedded(_) => {
                    let line = Bytes::from(format!("VERSION {}", store::VERSION));
                    return Some(Some(Answer::Reply(Reply::new(Status::Classic, line, Bytes::new()))));
                }
                Lease::Program(_) | Lease::Nothing | Lease::Busy | Lease::Failed(_) => {
                    failure = Failure::Down
                }
            }
        }
        Some(Some(Answer::Failed(failure)))
    }
}

fn unix_time_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Answers that were there at once.
fn deliver_all(machine: &mut Machine, first: Ticket, answers: Vec<Option<Answer>>) {
    for (ticket, answer) in (first..).zip(answers) {
        if let Some(answer) = answer {
            machine.answer(ticket, answer);
        }
    }
}

/// Delivers what the embedded store has to ask its disk for.
fn deliver_later(mailbox: Rc<Mailbox>, ticket: Ticket, reply: oneshot::Receiver<Reply>) {
    spawn_local(async move {
        let answer = reply.await.map_or(Answer::Failed(Failure::Lost), Answer::Reply);
        if mailbox.deliver(ticket, answer) {
            mailbox.flush();
        }
    });
}

/// What the embedded store says to what every server is asked.
fn embedded_answer(store: &Store, broadcast: Broadcast<'_>) -> Reply {
    let line = |words| Reply::new(Status::Classic, Bytes::from_static(words), Bytes::new());
    match broadcast {
        Broadcast::FlushAll { delay } => {
            store.flush_all(delay);
            line(b"OK")
        }
        Broadcast::Verbosity { .. } => line(b"OK"),
        Broadcast::MemLimit { .. } => line(b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust"),
        Broadcast::Stats(stats) => match stats.arguments().next() {
            None => Reply::new(Status::End, Bytes::new(), store.stats()),
            Some(b"reset") => line(b"RESET"),
            Some(_) => Reply::new(Status::End, Bytes::new(), Bytes::new()),
        },
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
