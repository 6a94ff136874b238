//! Machines between two exchanges: an idle session has none, and a busy one has whichever was used last.

use std::cell::RefCell;

use super::state::{Kept, Machine};

/// Machines that are kept for the next session that has something to do.
const SPARE_MAX: usize = 64;

/// The machines of a worker that are nobody's.
#[derive(Debug, Default)]
pub struct Spare(RefCell<Vec<Box<Machine>>>);

impl Spare {
    /// A machine for a session that has kept this.
    pub fn take(&self, kept: Kept) -> Box<Machine> {
        let mut machine = self.0.borrow_mut().pop().unwrap_or_default();
        machine.resume(kept);
        machine
    }

    /// Takes a machine back, after [`Machine::rest`].
    pub fn give(&self, machine: Box<Machine>) {
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_MAX && !machine.is_large() {
            spare.push(machine);
        }
    }
}
