//! Programs that run for sessions: one at a time for a key, and no more than there is room for.
//!
//! Between two changes of the servers a key's requests either all take a program or none does, and at a change
//! a session waits for its answers. So a program has to wait for other programs of its key only, and plain
//! requests for nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;

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

    /// May another begin? If not, one of these has to end first.
    pub fn admits(&self, key: u64, held_len: usize) -> bool {
        let Some(running) = &self.0 else { return true };
        let has_room =
            running.keys.len() < OF_SESSION_MAX && running.held_len + held_len <= HELD_OF_SESSION_LEN_MAX;
        (has_room || running.keys.is_empty()) && !running.keys.contains(&key)
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
        if self.0.as_ref().is_some_and(|running| running.keys.is_empty() && !running.is_about_all) {
            self.0 = None;
        }
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
    tokio::task::spawn_local(async move {
        let answer = plan.run(request).await;
        worker.room.give_back(held_len);
        mailbox.programs().borrow_mut().end(key, held_len);
        if mailbox.deliver(ticket, answer) {
            mailbox.flush();
        }
    });
    true
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
