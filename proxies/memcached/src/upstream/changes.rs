//! A worker's part in the changes of one cluster's servers: by which step it works, and when it is done with the
//! step before.
//!
//! Every request is sent in the step that the worker goes by at that moment. When another step comes the worker
//! goes by it at once, then waits for whatever was begun in the older one, whoever waits for the answers:
//!
//! * what is on a connection, of sessions that are gone too: a question is sent after it, and the answer to
//!   that comes after all the others. Nothing has to be counted for each request.
//! * programs, which are counted.
//!
//! Then it acknowledges the step. A request that a connection has given up (its server has hung up or not
//! answered in time) counts as over, though a server that was merely halted may still carry it out: no
//! proxy can know better.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::Notify;

use super::connection::Connection;
use crate::resize::{Agreement, Member, View};

/// The part of one worker. Shared by its view, its programs and the task that acknowledges.
pub struct Changes {
    member: Member,
    view: RefCell<Arc<View>>,
    /// Grows whenever requests may go elsewhere than before. One for the whole worker.
    generation: Rc<Cell<u64>>,
    /// Programs that run, by the step they were begun in.
    running: RefCell<BTreeMap<u64, usize>>,
    /// Every connection that may still have a request on its way.
    connections: RefCell<Vec<Weak<Connection>>>,
    is_retired: Cell<bool>,
    /// A program has ended, or it is retired.
    stirred: Notify,
}

/// A program that runs: its step is not over before this is dropped.
pub struct Running {
    changes: Rc<Changes>,
    step: u64,
}

impl Changes {
    /// Takes part. The task that acknowledges is spawned on this thread.
    pub fn enrol(agreement: &Arc<Agreement>, generation: Rc<Cell<u64>>) -> Rc<Self> {
        let changes = Rc::new(Self {
            // Before the view is read: this member holds back every step after the one it reads.
            member: agreement.enrol(),
            view: RefCell::new(agreement.view()),
            generation,
            running: RefCell::default(),
            connections: RefCell::default(),
            is_retired: Cell::new(false),
            stirred: Notify::new(),
        });
        // Nothing was begun before.
        changes.member.acknowledge(changes.step());
        tokio::task::spawn_local(Rc::clone(&changes).keep());
        changes
    }

    /// What this worker goes by.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// The step of [`Self::view`]. 0: nobody has published anything.
    pub fn step(&self) -> u64 {
        self.view.borrow().step
    }

    /// Is this the view that it goes by?
    pub fn goes_by(&self, view: &Arc<View>) -> bool {
        Arc::ptr_eq(&self.view.borrow(), view)
    }

    /// Requests will be sent on this connection.
    pub fn watch(&self, connection: &Rc<Connection>) {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|known| known.strong_count() > 0);
        connections.push(Rc::downgrade(connection));
    }

    /// A program begins, in the step of the view that says who takes part in it.
    pub fn begin(self: &Rc<Self>, step: u64) -> Running {
        *self.running.borrow_mut().entry(step).or_default() += 1;
        Running { changes: Rc::clone(self), step }
    }

    /// Nothing new will begin: it takes part until what has begun is over.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.stirred.notify_one();
    }

    async fn keep(self: Rc<Self>) {
        while !self.is_retired.get() {
            let seen = self.view();
            tokio::select! {
                view = self.member.changed(&seen) => {
                    let step = view.step;
                    *self.view.borrow_mut() = view;
                    self.generation.set(self.generation.get() + 1);
                    self.settled(step).await;
                    self.member.acknowledge(step);
                }
                () = self.stirred.notified() => (),
            }
        }
        self.settled(u64::MAX).await;
    }

    /// Waits until nothing that was begun before `step` is on its way.
    async fn settled(&self, step: u64) {
        let connections = self.connections.borrow().clone();
        let fences: Vec<_> =
            connections.iter().filter_map(Weak::upgrade).filter_map(|known| known.fence()).collect();
        for fence in fences {
            // What has failed is over as well.
            _ = fence.answered().await;
        }
        while self.running.borrow().keys().next().is_some_and(|oldest| *oldest < step) {
            self.stirred.notified().await;
        }
    }
}

impl Running {
    /// What it takes part in.
    pub fn agreement(&self) -> &Arc<Agreement> {
        self.changes.member.agreement()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.changes.running.borrow_mut();
        if let Some(count) = running.get_mut(&self.step) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.step);
            }
        }
        self.changes.stirred.notify_one();
    }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
