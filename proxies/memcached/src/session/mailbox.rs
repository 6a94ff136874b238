//! Where a session and the connections that work for it meet, on their one thread.
//!
//! A connection that has delivered answers also writes them to the client, as far as the socket takes them
//! at once. Only if something is left to do does it wake the session's task: for a client that waits for each
//! answer before it asks again, that saves every second turn.
//!
//! It is what an idle session is made of, so it holds no more than it must: machine and buffer are lent by the worker
//! when the first byte of a request has come, and go back when the last of the answer is written.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::BytesMut;
use groove_common::net::{Peer, Stream};
use groove_common::telemetry::Event;

use super::programs::Programs;
use super::spare::Busy;
use super::state::{Answer, Finished, Machine, Rest, Ticket};
use crate::error::Failure;
use crate::tenant::guest::Guest;
use crate::wire::Output;
use crate::wire::classic::items;
use crate::wire::meta::Reply;
use crate::worker::Worker;

/// A session's machine and its client, and the way to wake its driver.
pub struct Mailbox {
    worker: Rc<Worker>,
    /// Whose the session is, if there are tenants.
    guest: Option<Box<Guest>>,
    peer: Peer,
    /// None while the session is idle.
    busy: RefCell<Option<Box<Busy>>>,
    /// What the next machine has to know.
    rest: Cell<Rest>,
    programs: RefCell<Programs>,
    /// Gone when the session is, though answers may still come.
    stream: RefCell<Option<Stream>>,
    waker: RefCell<Option<Waker>>,
    /// The driver waits for answers, not only for the client.
    is_awaited: Cell<bool>,
    /// Something was delivered and not written yet.
    is_touched: Cell<bool>,
    /// Bytes that the client's socket did not take.
    unread_len: Cell<usize>,
}

impl Mailbox {
    /// The mailbox of a new session, whose client has sent `input` already.
    pub fn new(
        worker: Rc<Worker>,
        stream: Stream,
        peer: Peer,
        guest: Option<Box<Guest>>,
        input: BytesMut,
    ) -> Rc<Self> {
        let busy = (!input.is_empty()).then(|| Box::new(Busy { input, ..Busy::default() }));
        Rc::new(Self {
            worker,
            guest,
            peer,
            busy: RefCell::new(busy),
            rest: Cell::default(),
            programs: RefCell::default(),
            stream: RefCell::new(Some(stream)),
            waker: RefCell::default(),
            is_awaited: Cell::new(false),
            is_touched: Cell::new(false),
            unread_len: Cell::new(0),
        })
    }

    /// The worker that it is on.
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Machine and input, unless the session is idle. Whoever borrows them must not call into anything that delivers.
    pub fn busy(&self) -> RefMut<'_, Option<Box<Busy>>> {
        self.busy.borrow_mut()
    }

    /// Is every request that came answered, and every answer written?
    pub fn is_settled(&self) -> bool {
        self.busy.borrow().as_ref().is_none_or(|busy| busy.machine.is_settled())
    }

    /// Has the client sent something that nobody has looked at?
    pub fn has_input(&self) -> bool {
        self.busy.borrow().as_ref().is_some_and(|busy| !busy.input.is_empty())
    }

    /// Has the client been told goodbye?
    pub fn is_over(&self) -> bool {
        self.busy.borrow().as_ref().is_some_and(|busy| busy.machine.is_over())
    }

    /// May another request be sent?
    pub fn admits(&self) -> bool {
        self.busy.borrow().as_ref().is_none_or(|busy| busy.machine.admits()) && self.has_room()
    }

    /// May this client be served? Not while it leaves its answers lying, and all of them together too many.
    pub fn has_room(&self) -> bool {
        self.unread_len.get() == 0 || !self.worker.unread.is_too_much()
    }

    /// Where the client connected to; a unix socket is no address, and neither is a session's that has ended.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.borrow().as_ref().and_then(Stream::local_addr)
    }

    /// Whose the session is, if there are tenants.
    pub fn guest(&self) -> Option<&Guest> {
        self.guest.as_deref()
    }

    /// Its programs that run.
    pub fn programs(&self) -> &RefCell<Programs> {
        &self.programs
    }

    /// The client.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Takes the client away: answers that still come are for nobody.
    pub fn take_stream(&self) -> Option<Stream> {
        let stream = self.stream.take();
        self.stir();
        stream
    }

    /// The driver has begun a turn, and will be woken by `waker`.
    pub fn begin_turn(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        match &mut *known {
            Some(known) if known.will_wake(waker) => (),
            known => *known = Some(waker.clone()),
        }
    }

    /// The driver's turn ends; `is_awaited` if it has something to do when answers have come.
    pub fn end_turn(&self, is_awaited: bool) {
        self.is_awaited.set(is_awaited);
    }

    /// Takes what the client has sent; nothing is its end.
    pub fn poll_read(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = stream.as_mut() else { return Poll::Ready(Ok(0)) };
        let mut slot = self.busy.borrow_mut();
        let mut busy = slot.take().unwrap_or_else(|| self.worker.spare.take(self.rest.get()));
        let read = stream.poll_fill(cx, &mut busy.input);
        match busy.rest() {
            // It was idle, and stays so.
            Some(rest) => {
                self.rest.set(rest);
                self.worker.spare.give(busy);
            }
            None => *slot = Some(busy),
        }
        if let (Some(guest), Poll::Ready(Ok(len))) = (self.guest(), &read) {
            guest.count_read(*len);
        }
        read
    }

    /// May the client have sent something that has not been read?
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.borrow().as_ref().map_or(Poll::Ready(()), |stream| stream.poll_readable(cx))
    }

    /// An answer for this session. True if it is the first since the last [`Self::flush`], which is then due.
    pub fn deliver(&self, ticket: Ticket, answer: Answer) -> bool {
        if self.worker.tap.is_waiting() {
            self.worker.tap.answered(std::ptr::from_ref(self).addr(), ticket, &answer);
        }
        self.take_in(1, answer.value_len(), |machine| machine.answer(ticket, answer))
    }

    /// The same for a small reply that is only lent. Only while [`Self::takes_lent`].
    pub fn hear(&self, ticket: Ticket, reply: &Reply<&[u8]>) -> bool {
        self.take_in(1, reply.value.len(), |machine| machine.hear(ticket, reply))
    }

    /// An answer to one of the questions for several keys, which counted as so many requests.
    pub fn hear_part(
        &self,
        ticket: Ticket,
        number: u8,
        requests: usize,
        told: Result<items::Answer, Failure>,
    ) -> bool {
        let value_len = match &told {
            Ok(items::Answer::Items(items)) => items.len(),
            Ok(items::Answer::Refused(_)) | Err(_) => 0,
        };
        self.take_in(requests, value_len, |machine| machine.hear_part(ticket, number, told))
    }

    /// May a reply be lent to it? Not while somebody watches.
    pub fn takes_lent(&self) -> bool {
        !self.worker.tap.is_waiting()
    }

    fn take_in(&self, requests: usize, value_len: usize, answer: impl FnOnce(&mut Machine)) -> bool {
        if let Some(guest) = &self.guest {
            guest.heard(requests, value_len);
        }
        // Of an idle session nothing was outstanding.
        let Some(busy) = &mut *self.busy.borrow_mut() else { return false };
        answer(&mut busy.machine);
        !self.is_touched.replace(true)
    }

    /// May an answer that is so long be put together now? If not, `waker` is woken when that may have changed.
    pub fn may_gather(&self, ticket: Ticket, len: usize, waker: &Waker) -> bool {
        let mut programs = self.programs.borrow_mut();
        let gathered_len = programs.gathered_len();
        // What nobody waits for is got over with.
        let may = self.stream.borrow().is_none()
            || self
                .busy
                .borrow()
                .as_ref()
                .is_none_or(|busy| busy.machine.may_gather(ticket, len, gathered_len));
        if !may {
            programs.await_turn(waker);
        }
        may
    }

    /// Something has been taken or put together, or the client is gone.
    fn stir(&self) {
        let patient = self.programs.borrow_mut().take_patient();
        patient.into_iter().for_each(Waker::wake);
    }

    /// Has what was delivered written: at once, or in its turn if its tenant is held back for another's sake.
    pub fn flush(self: Rc<Self>) {
        if self.guest().is_some_and(|guest| guest.is_over(&self.worker.fair)) {
            let worker = Rc::clone(&self.worker);
            worker.late.put(self);
        } else {
            self.write();
        }
    }

    /// Writes what was delivered, or wakes the driver to do it.
    pub(super) fn write(&self) {
        self.is_touched.set(false);
        let written = self.release(|output, stream| Ok(output.try_write(stream)));
        let is_written = matches!(written, Some(Ok(true)) | None);
        if (!is_written || self.is_awaited.get())
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Counts what is answered and writes it. Ready when all of it is written.
    pub fn poll_release(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = self.release(|output, stream| match output.poll_write(stream, cx) {
            Poll::Ready(written) => written.map(|()| true),
            Poll::Pending => Ok(false),
        });
        match written {
            Some(Ok(true)) | None => Poll::Ready(Ok(())),
            Some(Ok(false)) => Poll::Pending,
            Some(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    /// Counts what is answered and has `write` write it, which tells whether that is all. `None`: there is nothing,
    /// or nobody, to write for, or not yet. With nothing outstanding the session is idle again.
    fn release(
        &self,
        write: impl FnOnce(&mut Output, &mut Stream) -> io::Result<bool>,
    ) -> Option<io::Result<bool>> {
        if let Some(guest) = &self.guest {
            guest.settle(&self.worker.fair, || self.worker.since_start(Instant::now()));
        }
        let mut slot = self.busy.borrow_mut();
        let busy = slot.as_mut()?;
        let machine = &mut busy.machine;
        self.count(machine);
        if machine.may_wait() {
            self.stir();
            return None;
        }
        let written = self.stream.borrow_mut().as_mut().map(|stream| {
            let before = machine.output().len();
            let written = write(machine.output(), stream);
            machine.written();
            if let Some(guest) = &self.guest {
                guest.count_written(before.saturating_sub(machine.output().len()));
            }
            written
        });
        self.note_unread(machine.output().len());
        if let Some(rest) = busy.rest() {
            self.rest.set(rest);
            if let Some(busy) = slot.take() {
                self.worker.spare.give(busy);
            }
        }
        self.stir();
        written
    }

    fn note_unread(&self, len: usize) {
        let before = self.unread_len.replace(len);
        if before != len {
            self.worker.unread.change(before, len);
        }
    }

    fn count(&self, machine: &mut Machine) {
        let mut now = None;
        for finished in machine.finished() {
            self.worker.metrics.count(&finished);
            if let Some(guest) = &self.guest {
                let now = *now.get_or_insert_with(Instant::now);
                guest.count(&finished, now.saturating_duration_since(finished.begun));
            }
            self.worker.access.record(finished.failure.is_some(), || event(&finished, self.peer));
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.note_unread(0);
    }
}

/// An exchange for the access log.
fn event(finished: &Finished, peer: Peer) -> Event {
    let event = Event::new(finished.command.name())
        .show("peer", peer)
        .with("hits", finished.hits)
        .with("misses", finished.misses)
        .time("took_ms", finished.begun.elapsed());
    match finished.failure {
        Some(failure) => event.show("failure", failure),
        None if finished.is_refused => event.with("refused", true),
        None => event,
    }
}
