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
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use groove_common::net::{Downstream, Drain};
use tokio::io::AsyncWriteExt;
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::debug;

use super::exchange::{Asked, Exchange};
use super::mailbox::Mailbox;
use super::spare::Busy;
use super::state::{Answer, Machine, Step, Ticket};
use crate::tenant::guest::Guest;
use crate::upstream::view::View;
use crate::wire::Limits;
use crate::wire::request::DecodeError;
use crate::worker::Worker;

/// After a goodbye the client may take this long to hang up.
const LINGER: Duration = Duration::from_secs(1);

/// Requests and reads of one turn, while several tenants share the worker.
const TURN_STEPS_MAX: usize = 64;
const TURN_READS_MAX: usize = 1;

/// One client's connection. What an idle one costs is this and its mailbox.
struct Session {
    /// Its number on this worker: picks one of several connections.
    id: usize,
    /// The task is woken when it moves on.
    drain: Drain,
    /// The client will send nothing more.
    is_read_closed: bool,
    /// It has given way since it read last, and may read.
    has_looked: bool,
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
pub fn serve(
    worker: Rc<Worker>,
    conn: Downstream,
    guest: Option<Box<Guest>>,
    input: BytesMut,
) -> impl Future<Output = ()> {
    let mut session = Session::accept(worker, conn, guest, input);
    async move {
        let ended = poll_fn(|cx| session.turn(cx)).await;
        if let Err(error) = &ended {
            debug!(peer = %session.mailbox.peer(), %error, "session ended");
        }
        // In a box: sessions that go on do not pay for its size.
        Box::pin(session.drain()).await;
    }
}

impl Session {
    fn accept(worker: Rc<Worker>, conn: Downstream, guest: Option<Box<Guest>>, input: BytesMut) -> Self {
        worker.metrics.sessions.inc();
        worker.metrics.sessions_total.inc();
        let Downstream { stream, peer, drain, .. } = conn;
        Self {
            id: guest.as_ref().map_or_else(|| worker.next_session(), |guest| guest.session()),
            drain,
            is_read_closed: false,
            has_looked: false,
            mailbox: Mailbox::new(worker, stream, peer, guest, input),
            generation: 0,
        }
    }

    /// As much as can be done now; ready when the session is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mailbox.begin_turn(cx.waker());
        let (mut now, mut reads) = (None, 0);
        loop {
            let sent = self.exchange_all(&mut now, cx).unwrap_or_else(|error| {
                debug!(peer = %self.mailbox.peer(), %error, "the client cannot be understood");
                // The machine is over: what came before is answered, then the client is hung up on.
                Sent::Stuck
            });
            if sent != Sent::InLine && sent != Sent::All {
                self.leave_line();
            }
            let is_written = self.release(cx)?;
            if self.is_done() || sent == Sent::Revoked {
                return Poll::Ready(Ok(()));
            }
            if sent == Sent::Full && self.mailbox.admits() {
                // The socket took it all: nobody would wake the session for that.
                continue;
            }
            reads += 1;
            if sent == Sent::Yield || (reads > TURN_READS_MAX && self.is_to_yield() && self.has_more(cx)) {
                cx.waker().wake_by_ref();
                self.mailbox.end_turn(true);
                return Poll::Pending;
            }
            let is_over = self.is_read_closed || self.mailbox.is_over();
            if sent != Sent::All || is_over {
                if sent == Sent::All {
                    self.leave_line();
                }
                self.mailbox.end_turn(true);
                return Poll::Pending;
            }
            if self.is_held_back(cx) {
                self.mailbox.end_turn(true);
                return Poll::Pending;
            }
            if !self.has_looked && self.gives_way() {
                self.has_looked = true;
                return self.look(cx);
            }
            self.has_looked = false;
            if self.read(cx)?.is_pending() {
                self.leave_line();
                // All that came has been answered and written, and nothing more is here.
                let is_draining = self.drain.is_draining();
                if is_draining && is_written && self.mailbox.is_settled() && !self.mailbox.has_input() {
                    return Poll::Ready(Ok(()));
                }
                self.mailbox.end_turn(is_draining);
                return Poll::Pending;
            }
            if self.gives_way() {
                return self.look(cx);
            }
        }
    }

    /// Is its tenant held back for the sake of one that wants less than its part? Then reading and sending are a turn
    /// each, so that the other's request is seen between them.
    fn gives_way(&self) -> bool {
        self.mailbox.guest().is_some_and(|guest| guest.is_over(&self.mailbox.worker().fair))
    }

    /// Goes on once the worker has looked at its sockets, and behind all that was there.
    fn look(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Only this future has the runtime look first; whom it wakes it knows from here on.
        _ = pin!(yield_now()).poll(cx);
        self.mailbox.end_turn(true);
        Poll::Pending
    }

    /// Do other tenants wait for the worker while this session keeps it?
    fn is_to_yield(&self) -> bool {
        self.mailbox.guest().is_some() && self.mailbox.worker().fair.borrow().is_shared()
    }

    /// Has the client sent more than has been read, or gone?
    fn has_more(&self, cx: &mut Context<'_>) -> bool {
        self.mailbox.poll_readable(cx).is_ready()
    }

    /// Is what the client has sent left where it is, as its tenant has no room for more? While others share the
    /// worker, reading costs them more than it is good for.
    fn is_held_back(&self, cx: &mut Context<'_>) -> bool {
        if !self.is_to_yield() || !self.has_more(cx) {
            return false;
        }
        let worker = self.mailbox.worker();
        let at = worker.since_start(Instant::now());
        self.mailbox.guest().is_some_and(|guest| !guest.may_send(1, &worker.fair, at, cx))
    }

    /// It wants to send nothing more for now.
    fn leave_line(&self) {
        if let Some(guest) = self.mailbox.guest() {
            guest.leave(&self.mailbox.worker().fair);
        }
    }

    /// Is there nobody to serve, and nothing left to say?
    fn is_done(&self) -> bool {
        (self.is_read_closed || self.mailbox.is_over()) && self.mailbox.is_settled()
    }

    /// Takes what the client has sent.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        match self.mailbox.poll_read(cx) {
            Poll::Ready(Ok(len)) => {
                self.is_read_closed = len == 0;
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Sends every request at hand to its server, within the session's bounds.
    fn exchange_all(&mut self, now: &mut Option<Instant>, cx: &mut Context<'_>) -> Result<Sent, DecodeError> {
        let (worker, mut busy) = (self.mailbox.worker(), self.mailbox.busy());
        let Some(Busy { machine, input }) = busy.as_deref_mut() else { return Ok(Sent::All) };
        if input.is_empty() && !machine.is_sending() {
            return Ok(if machine.admits() && self.mailbox.has_room() { Sent::All } else { Sent::Full });
        }
        let now = *now.get_or_insert_with(Instant::now);
        let view = &mut *worker.view.borrow_mut();
        view.refresh();
        let limits = match admit(&self.mailbox, machine, view, &mut self.generation) {
            Ok(limits) => limits,
            Err(held_up) => return Ok(held_up),
        };
        let guest = self.mailbox.guest();
        let mut steps = 0;
        while machine.admits() && self.mailbox.has_room() {
            let Some(next) = machine.step(input, &limits, now)? else { return Ok(Sent::All) };
            let ticket = next.ticket;
            let (session, noted) = (self.id, None);
            let exchange = Exchange { session, worker, mailbox: &self.mailbox, ticket, now, noted };
            match next.step {
                Step::Keys { first, get, max } => {
                    let several = exchange.several(guest, get, max, view, cx);
                    let asked = several.unwrap_or_else(|| exchange.key(guest, &first, view, cx));
                    if let Err(held_up) = commit(machine, ticket, asked, now) {
                        return Ok(held_up);
                    }
                }
                Step::Key(request) => {
                    let asked = exchange.key(guest, &request, view, cx);
                    if let Err(held_up) = commit(machine, ticket, asked, now) {
                        return Ok(held_up);
                    }
                }
                Step::Everyone(broadcast) if let Some(guest) = guest => {
                    let answer = exchange.everyone_of(guest, broadcast);
                    machine.commit_everyone(1, None, now);
                    match answer {
                        Some(answer) => machine.answer(ticket, answer),
                        None => return Ok(Sent::Stuck),
                    }
                }
                Step::Everyone(broadcast) => {
                    let own = worker.own_stats(&broadcast);
                    let Some(answers) = exchange.everyone(broadcast, view, cx) else {
                        return Ok(Sent::Stuck);
                    };
                    machine.commit_everyone(answers.len(), own, now);
                    deliver_all(machine, ticket, answers);
                    if self.mailbox.programs().borrow().is_about_all() {
                        return Ok(Sent::Stuck);
                    }
                }
                Step::Nodes(asked) => {
                    machine.commit(now);
                    machine.answer(ticket, exchange.nodes(asked, view));
                }
                Step::Version => {
                    let Some(asked) = exchange.anyone(view, cx) else { return Ok(Sent::Stuck) };
                    machine.commit(now);
                    match (asked, guest) {
                        (Some(answer), _) => machine.answer(ticket, answer),
                        (None, Some(guest)) => guest.sent(1, 0, &worker.fair),
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
        let Some(mut stream) = self.mailbox.take_stream() else { return };
        if self.is_read_closed || stream.shutdown().await.is_err() {
            return;
        }
        let mut unread = BytesMut::new();
        let hung_up = async {
            while matches!(stream.fill(&mut unread).await, Ok(len) if len > 0) {
                unread.clear();
            }
        };
        if timeout(LINGER, hung_up).await.is_err() {
            debug!(peer = %self.mailbox.peer(), "the client did not hang up");
        }
    }
}

impl Drop for Session {
    /// Also when the drain's deadline cuts the session where it stands.
    fn drop(&mut self) {
        self.leave_line();
        drop(self.mailbox.take_stream());
        self.mailbox.worker().metrics.sessions.dec();
    }
}

/// The codecs' limits for a session that may send in this turn; else what holds it up. `generation` is that of what it
/// has sent, see [`View::generation`].
fn admit(mailbox: &Mailbox, machine: &Machine, view: &View, generation: &mut u64) -> Result<Limits, Sent> {
    if *generation != view.generation() {
        // Keys may have gone elsewhere: what is sent there now could overtake what was sent before.
        if machine.is_waiting() {
            return Err(Sent::Stuck);
        }
        *generation = view.generation();
    }
    if mailbox.programs().borrow().is_about_all() {
        return Err(Sent::Stuck);
    }
    let limits = view.topology().limits;
    let Some(guest) = mailbox.guest() else { return Ok(limits) };
    if !guest.renew(&view.topology().directory) {
        return Err(Sent::Revoked);
    }
    if guest.is_flushing() { Err(Sent::Stuck) } else { Ok(guest.limits(limits)) }
}

/// A step for one key, or for several, is over; else what holds it up.
fn commit(machine: &mut Machine, ticket: Ticket, asked: Asked, now: Instant) -> Result<(), Sent> {
    match asked {
        Asked::Waiting => machine.commit(now),
        Asked::Together(gather) => machine.commit_keys(gather, now),
        Asked::Answered(answer) => {
            machine.commit(now);
            machine.answer(ticket, answer);
        }
        Asked::Busy => return Err(Sent::Stuck),
        Asked::InLine => return Err(Sent::InLine),
    }
    Ok(())
}

/// Answers that were there at once.
fn deliver_all(machine: &mut Machine, first: Ticket, answers: Vec<Option<Answer>>) {
    for (ticket, answer) in (first..).zip(answers) {
        if let Some(answer) = answer {
            machine.answer(ticket, answer);
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
