//! What a session has only while it is busy: lent by the worker, so that an idle one costs nothing.

use std::cell::RefCell;

use bytes::BytesMut;

use super::state::{Machine, Rest};

/// Those that are kept for the next session that has something to do: as many as may be busy at a time where clients
/// have one request in flight. Most hold a few kilobytes, none a hundred.
const SPARE_MAX: usize = 128;

/// A session's buffer that has grown beyond this is not kept.
const INPUT_SPARE_LEN_MAX: usize = 16 << 10;

/// What a session has from the first byte of a request to the last of its answer.
#[derive(Debug, Default)]
pub struct Busy {
    /// What is outstanding.
    pub machine: Machine,
    /// What the client has sent and nobody has looked at.
    pub input: BytesMut,
}

impl Busy {
    /// All that the session has to remember; `None`: it is not done yet.
    pub fn rest(&self) -> Option<Rest> {
        if self.input.is_empty() { self.machine.rest() } else { None }
    }
}

/// What is nobody's just now.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "sessions hold them in boxes, and take the box along")]
pub struct Spare(RefCell<Vec<Box<Busy>>>);

impl Spare {
    /// For a session that has rested with this.
    pub fn take(&self, rest: Rest) -> Box<Busy> {
        let mut busy = self.0.borrow_mut().pop().unwrap_or_default();
        busy.machine.resume(rest);
        busy
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Back from a session that rests.
    pub fn give(&self, mut busy: Box<Busy>) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_MAX && !busy.machine.is_large() {
            if busy.input.capacity() > INPUT_SPARE_LEN_MAX {
                busy.input = BytesMut::new();
            }
            spare.push(busy);
        }
    }
}
