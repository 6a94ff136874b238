//! Programs that run for sessions: one at a time for a key, and no more than there is room for.
//!
//! Between two changes of the servers a key's requests either all take a program or none does, and at a change
//! a session waits for its answers. So a program has to wait for other programs of its key only, and plain
//! requests for nothing.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::mailbox::Mailbox;
use super::state::Ticket;
use crate::upstream::plan::{Owned, Plan};
use crate::worker::Worker;

/// Programs of one session at a time.
const OF_SESSION_MAX: usize = 128;

/// Bytes that the programs of one session may hold.
const HELD_OF_SESSION_LEN_MAX: usize = 4 << 20;

/// Bytes that the programs of one worker may hold.
const HELD_OF_WORKER_LEN_MAX: usize = 64 << 20;

/// The programs that run for one session. Nearly always none, and a session without any holds nothing.
#[derive(Debug, Default)]
pub struct Programs(Option<Box<Running>>);

#[derive(Debug, Default)]
struct Running {
    /// Hashes of their keys. Two keys with the same hash wait for each other, and come to no harm.
    keys: Vec<u64>,
    held_len: usize,
    /// One runs that is about all keys: nothing is sent before it has ended.
    is_about_all: bool,
    /// Hashes of the keys that are being read where a program may have to go on with the answer.
    reads: Vec<u64>,
    /// Bytes of answers that are being put together.
    gathered_len: usize,
    /// Programs that wait until the client has taken what came before.
    patient: Vec<Waker>,
}

impl Programs {
    /// Does none run?
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Does one run that is about all keys?
    pub fn is_about_all(&self) -> bool {
        self.0.as_ref().is_some_and(|running| running.is_about_all)
    }

    /// One that is about all keys begins or has ended.
    pub fn set_about_all(&mut self, is_about_all: bool) {
        self.0.get_or_insert_default().is_about_all = is_about_all;
        self.rest();
    }

    /// Does one run for this key?
    pub fn runs(&self, key: u64) -> bool {
        self.0.as_ref().is_some_and(|running| running.keys.contains(&key))
    }

    /// The key is asked for, and the answer may need a program.
    pub fn begin_read(&mut self, key: u64) {
        self.0.get_or_insert_default().reads.push(key);
    }

    /// It is answered.
    pub fn end_read(&mut self, key: u64) {
        let Some(running) = &mut self.0 else { return };
        if let Some(index) = running.reads.iter().position(|known| *known == key) {
            running.reads.swap_remove(index);
        }
        self.rest();
    }

    /// Bytes of answers that are being put together.
    pub fn gathered_len(&self) -> usize {
        self.0.as_ref().map_or(0, |running| running.gathered_len)
    }

    fn gather(&mut self, len: usize) {
        if let Some(running) = &mut self.0 {
            running.gathered_len += len;
        }
    }

    fn part_with(&mut self, len: usize) {
        if let Some(running) = &mut self.0 {
            running.gathered_len -= len;
        }
    }

    /// Wakes `waker` when the client has taken something, or an answer is put together.
    pub fn await_turn(&mut self, waker: &Waker) {
        let Some(running) = &mut self.0 else { return };
        if !running.patient.iter().any(|known| known.will_wake(waker)) {
            running.patient.push(waker.clone());
        }
    }

    /// Those that wait for their turn.
    pub fn take_patient(&mut self) -> Vec<Waker> {
        self.0.as_mut().map(|running| std::mem::take(&mut running.patient)).unwrap_or_default()
    }

    /// May another begin? If not, one of these has to end first.
    pub fn admits(&self, key: u64, held_len: usize) -> bool {
        let Some(running) = &self.0 else { return true };
        let has_room =
            running.keys.len() < OF_SESSION_MAX && running.held_len + held_len <= HELD_OF_SESSION_LEN_MAX;
        (has_room || running.keys.is_empty()) && !running.keys.contains(&key) && !running.reads.contains(&key)
    }

    fn begin(&mut self, key: u64, held_len: usize) {
        let running = self.0.get_or_insert_default();
        running.keys.push(key);
        running.held_len += held_len;
    }

    fn end(&mut self, key: u64, held_len: usize) {
        let Some(running) = &mut self.0 else { return };
        if let Some(index) = running.keys.iter().position(|known| *known == key) {
            running.keys.swap_remove(index);
        }
        running.held_len -= held_len;
        self.rest();
    }

    fn rest(&mut self) {
        if self.0.as_ref().is_some_and(|running| running.is_over()) {
            self.0 = None;
        }
    }
}

impl Running {
    fn is_over(&self) -> bool {
        self.keys.is_empty() && self.reads.is_empty() && !self.is_about_all
    }
}

/// What the programs of all sessions of a worker hold.
#[derive(Debug, Default)]
pub struct Room {
    held: RefCell<Held>,
}

#[derive(Debug, Default)]
struct Held {
    len: usize,
    /// Sessions that found no room.
    blocked: Vec<Waker>,
}

impl Room {
    /// Takes its part, or lets `waker` know when there is room.
    fn take(&self, len: usize, waker: &Waker) -> bool {
        let mut held = self.held.borrow_mut();
        let has_room = held.len == 0 || held.len + len <= HELD_OF_WORKER_LEN_MAX;
        if has_room {
            held.len += len;
        } else if !held.blocked.iter().any(|blocked| blocked.will_wake(waker)) {
            held.blocked.push(waker.clone());
        }
        has_room
    }

    fn give_back(&self, len: usize) {
        let mut held = self.held.borrow_mut();
        held.len -= len;
        held.blocked.drain(..).for_each(Waker::wake);
    }
}

/// Begins a program; its answer goes to the session's slot. False: not yet, and `waker` is woken when it may be.
pub fn begin(
    worker: &Rc<Worker>,
    mailbox: &Rc<Mailbox>,
    ticket: Ticket,
    plan: Plan,
    request: Owned,
    key: u64,
    waker: &Waker,
) -> bool {
    let held_len = request.held_len();
    if !mailbox.programs().borrow().admits(key, held_len) || !worker.room.take(held_len, waker) {
        return false;
    }
    mailbox.programs().borrow_mut().begin(key, held_len);
    let (worker, mailbox) = (Rc::clone(worker), Rc::clone(mailbox));
    let hold = Rc::new(Hold::new(worker, Rc::clone(&mailbox), ticket, held_len));
    tokio::task::spawn_local(async move {
        let answer = plan.run(request, Rc::clone(&hold)).await;
        drop(hold);
        mailbox.programs().borrow_mut().end(key, held_len);
        if mailbox.deliver(ticket, answer) {
            mailbox.flush();
        }
    });
    true
}

/// What one program holds. Given back when it is dropped.
pub struct Hold {
    worker: Rc<Worker>,
    mailbox: Rc<Mailbox>,
    ticket: Ticket,
    len: Cell<usize>,
    gathered_len: Cell<usize>,
}

impl Hold {
    /// For the answer of this ticket; so much has been taken.
    pub fn new(worker: Rc<Worker>, mailbox: Rc<Mailbox>, ticket: Ticket, len: usize) -> Self {
        Self { worker, mailbox, ticket, len: Cell::new(len), gathered_len: Cell::new(0) }
    }

    /// Waits until it may hold so much more.
    pub async fn grow(&self, more_len: usize) {
        // Nobody holds something and waits for more: two that do could wait for each other.
        let (len, gathered_len) = self.give_back();
        let (len, gathered_len) = (len + more_len, gathered_len + more_len);
        poll_fn(|cx| {
            let may = self.mailbox.may_gather(self.ticket, gathered_len, cx.waker())
                && self.worker.room.take(len, cx.waker());
            if may { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.len.set(len);
        self.gathered_len.set(gathered_len);
        self.mailbox.programs().borrow_mut().gather(gathered_len);
    }

    fn give_back(&self) -> (usize, usize) {
        let (len, gathered_len) = (self.len.take(), self.gathered_len.take());
        self.worker.room.give_back(len);
        self.mailbox.programs().borrow_mut().part_with(gathered_len);
        (len, gathered_len)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_program_at_a_time() {
        let mut programs = Programs::default();
        programs.begin(1, 10);
        assert!(!programs.admits(1, 10));
        assert!(programs.admits(2, 10));
        programs.end(1, 10);
        assert!(programs.admits(1, 10) && programs.is_empty());
        programs.begin_read(1);
        assert!(!programs.admits(1, 10) && programs.admits(2, 10) && !programs.is_empty());
        programs.end_read(1);
        assert!(programs.admits(1, 10) && programs.is_empty());
    }

    #[test]
    fn what_is_held_is_bounded_and_one_always_goes() {
        let mut programs = Programs::default();
        assert!(programs.admits(0, HELD_OF_SESSION_LEN_MAX * 2));
        programs.begin(0, HELD_OF_SESSION_LEN_MAX - 1);
        assert!(programs.admits(1, 1) && !programs.admits(1, 2));
        let mut programs = Programs::default();
        (0..OF_SESSION_MAX as u64).for_each(|key| programs.begin(key, 1));
        assert!(!programs.admits(u64::MAX, 1));
        let room = Room::default();
        assert!(room.take(HELD_OF_WORKER_LEN_MAX + 1, Waker::noop()));
        assert!(!room.take(1, Waker::noop()));
        room.give_back(HELD_OF_WORKER_LEN_MAX + 1);
        assert!(room.take(1, Waker::noop()));
    }
}
