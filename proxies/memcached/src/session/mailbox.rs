//! Where a session and the connections that work for it meet, on their one thread.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use super::state::{Answer, Machine, Ticket};

/// A session's machine, and the way to wake its driver.
#[derive(Debug, Default)]
pub struct Mailbox {
    machine: RefCell<Machine>,
    waker: RefCell<Option<Waker>>,
    is_woken: Cell<bool>,
}

impl Mailbox {
    /// The machine. Whoever borrows it must not call into anything that delivers.
    pub fn machine(&self) -> &RefCell<Machine> {
        &self.machine
    }

    /// The driver has begun a turn: `waker` is woken by the first delivery after it.
    pub fn begin_turn(&self, waker: &Waker) {
        self.is_woken.set(false);
        let mut known = self.waker.borrow_mut();
        match &mut *known {
            Some(known) if known.will_wake(waker) => (),
            known => *known = Some(waker.clone()),
        }
    }

    /// An answer for this session. Its driver is woken once, however many come in one turn.
    pub fn deliver(&self, ticket: Ticket, answer: Answer) {
        self.machine.borrow_mut().answer(ticket, answer);
        if !self.is_woken.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}
