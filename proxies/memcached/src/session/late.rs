//! Answers that may come later: those of a tenant that is held back for the sake of one that wants less than its part.
//!
//! Nothing that a worker does for a request takes as long as writing its answer. Whoever asks meanwhile waits until the
//! worker looks at its sockets again, so only a few such answers are written between two looks. Until then they count
//! as being on their way: a tenant's part of the window bounds how many there are.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::task::{spawn_local, yield_now};

use super::mailbox::Mailbox;
use crate::worker::Worker;

/// Answers that are written between two looks at the sockets.
const AT_ONCE: usize = 2;

/// Sessions of a worker whose answers are written later, in this order.
#[derive(Default)]
pub struct Late {
    sessions: RefCell<VecDeque<Rc<Mailbox>>>,
    is_running: Cell<bool>,
}

impl Late {
    /// One more of them.
    pub fn put(&self, mailbox: Rc<Mailbox>) {
        if !self.is_running.replace(true) {
            spawn_local(write(Rc::clone(mailbox.worker())));
        }
        self.sessions.borrow_mut().push_back(mailbox);
    }

    /// The next that is written. `None`: that was the last, and whoever comes now begins anew.
    fn next(&self) -> Option<Rc<Mailbox>> {
        let next = self.sessions.borrow_mut().pop_front();
        self.is_running.set(next.is_some());
        next
    }
}

async fn write(worker: Rc<Worker>) {
    loop {
        for _ in 0..AT_ONCE {
            let Some(mailbox) = worker.late.next() else { return };
            mailbox.write();
        }
        // Until the worker has looked at its sockets, and behind all that was there.
        yield_now().await;
    }
}
