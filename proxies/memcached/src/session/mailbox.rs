//! Where a session and the connections that work for it meet, on their one thread.
//!
//! A connection that has delivered answers also writes them to the client, as far as the socket takes them
//! at once. Only if something is left to do does it wake the session's task: for a client that waits for each
//! answer before it asks again, that saves every second turn.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use groove_common::net::{Downstream, Peer};
use groove_common::telemetry::Event;

use super::programs::Programs;
use super::state::{Answer, Finished, Machine, Ticket};
use crate::tenant::guest::Guest;
use crate::worker::Worker;

/// A session's machine and its client, and the way to wake its driver.
pub struct Mailbox {
    worker: Rc<Worker>,
    /// Whose the session is, if there are tenants.
    guest: Option<Box<Guest>>,
    peer: Peer,
    machine: RefCell<Machine>,
    programs: RefCell<Programs>,
    /// Gone when the session is, though answers may still come.
    conn: RefCell<Option<Downstream>>,
    waker: RefCell<Option<Waker>>,
    /// The driver waits for answers, not only for the client.
    is_awaited: Cell<bool>,
    /// Something was delivered and not written yet.
    is_touched: Cell<bool>,
    /// Bytes that the client's socket did not take.
    unread_len: Cell<usize>,
}

impl Mailbox {
    /// The mailbox of a new session.
    pub fn new(worker: Rc<Worker>, conn: Downstream, guest: Option<Box<Guest>>) -> Rc<Self> {
        Rc::new(Self {
            worker,
            guest,
            peer: conn.peer,
            machine: RefCell::default(),
            programs: RefCell::default(),
            conn: RefCell::new(Some(conn)),
            waker: RefCell::default(),
            is_awaited: Cell::new(false),
            is_touched: Cell::new(false),
            unread_len: Cell::new(0),
        })
    }

    /// The machine. Whoever borrows it must not call into anything that delivers.
    pub fn machine(&self) -> &RefCell<Machine> {
        &self.machine
    }

    /// Whose the session is, if there are tenants.
    pub fn guest(&self) -> Option<&Guest> {
        self.guest.as_deref()
    }

    /// Its programs that run.
    pub fn programs(&self) -> &RefCell<Programs> {
        &self.programs
    }

    /// The client's connection, until it is taken away.
    pub fn conn(&self) -> &RefCell<Option<Downstream>> {
        &self.conn
    }

    /// May this client be served? Not while it leaves its answers lying, and all of them together too many.
    pub fn has_room(&self) -> bool {
        self.unread_len.get() == 0 || !self.worker.unread.is_too_much()
    }

    fn note_unread(&self, len: usize) {
        let before = self.unread_len.replace(len);
        if before != len {
            self.worker.unread.change(before, len);
        }
    }

    /// The client.
    pub fn peer(&self) -> Peer {
        self.peer
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

    /// An answer for this session. True if it is the first since the last [`Self::flush`], which is then due.
    pub fn deliver(&self, ticket: Ticket, answer: Answer) -> bool {
        if self.worker.tap.is_waiting() {
            self.worker.tap.answered(std::ptr::from_ref(self).addr(), ticket, &answer);
        }
        if let Some(guest) = &self.guest {
            guest.answered(&answer, &self.worker.fair, || self.worker.since_start(Instant::now()));
        }
        self.machine.borrow_mut().answer(ticket, answer);
        !self.is_touched.replace(true)
    }

    /// Writes what was delivered, or wakes the driver to do it.
    pub fn flush(&self) {
        self.is_touched.set(false);
        let mut machine = self.machine.borrow_mut();
        self.count(&mut machine);
        let is_written = match &mut *self.conn.borrow_mut() {
            Some(conn) => {
                let before = machine.output().len();
                let is_written = machine.output().try_write(&conn.stream);
                self.count_written(before, &mut machine);
                is_written
            }
            None => return,
        };
        self.note_unread(machine.output().len());
        if (!is_written || self.is_awaited.get())
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Counts what is answered and writes it. Ready when all of it is written.
    pub fn poll_release(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut machine = self.machine.borrow_mut();
        self.count(&mut machine);
        let written = match &mut *self.conn.borrow_mut() {
            Some(conn) => {
                let before = machine.output().len();
                let written = machine.output().poll_write(&mut conn.stream, cx);
                self.count_written(before, &mut machine);
                written
            }
            None => Poll::Ready(Ok(())),
        };
        self.note_unread(machine.output().len());
        written
    }

    fn count_written(&self, before: usize, machine: &mut Machine) {
        if let Some(guest) = &self.guest {
            guest.count_written(before.saturating_sub(machine.output().len()));
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
