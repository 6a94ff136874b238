//! What was sent to a server that went away before it had read it.

use super::deferred::Deferred;
use super::meaning::{has_code, is_fatal};
use super::notes::is_noted;
use super::{Backend, Expect, Local, Machine};
use crate::wire::backend::Status;
use crate::wire::{HEADER, Header};

/// Where a session stood before an exchange.
#[derive(Debug)]
pub struct Before {
    deferred: Option<Deferred>,
    voids: u32,
}

impl Before {
    /// Whether a transaction was begun that no server knew of.
    pub fn is_in_transaction(&self) -> bool {
        self.deferred.is_some()
    }
}

impl Machine {
    /// Where the session stands: to be asked before [`Machine::begin`].
    pub fn before(&self) -> Before {
        Before { deferred: self.deferred.clone(), voids: self.voids }
    }

    /// Whether the first that a server says in an exchange proves that it has run nothing of the client's: it shuts down,
    /// and has not done what comes before that either. What it did would be answered before the farewell.
    pub fn is_unheard(&self, before: &Before, from_server: &[u8]) -> bool {
        let is_behind = match self.expected.front() {
            Some(Expect::Setup | Expect::Parse(_) | Expect::Bind | Expect::Run(_)) => true,
            Some(
                Expect::Describe
                | Expect::Execute
                | Expect::Close(_)
                | Expect::Sync
                | Expect::Query { .. }
                | Expect::Aside { .. }
                | Expect::CopyEnd
                | Expect::Local(_),
            )
            | None => false,
        };
        is_behind && self.may_unsend(before) && is_shutdown(from_server)
    }

    /// Whether what was sent since `before` can be taken back here.
    pub fn may_unsend(&self, before: &Before) -> bool {
        // A statement that its client has deallocated is forgotten for good.
        let is_deallocated = |expect: &Expect| matches!(expect, Expect::Local(Local::Deallocated));
        let has_forgotten = self.voids != before.voids || self.expected.iter().any(is_deallocated);
        let is_whole = self.client_left == 0 && !self.copying_in && !self.terminated;
        // What a session has left on a connection no other one has.
        is_whole && !has_forgotten && !self.keeps_server()
    }

    /// Takes back what was sent since `before`, all of it, to be sent to another server.
    pub fn unsend(&mut self, before: Before, backend: &mut Backend) {
        let undone: Vec<_> = self.expected.drain(..).collect();
        if let Some(notes) = &mut self.notes {
            notes.unask(undone.iter().filter(|expect| is_noted(expect)).count());
        }
        self.suspect = None;
        self.take_back(undone, false, backend);
        let deferred = before.deferred;
        self.status = match deferred {
            None => Status::Idle,
            Some(Deferred::Begun(_)) => Status::Transaction,
            Some(Deferred::Failed) => Status::Failed,
        };
        self.deferred = deferred;
        (self.batch_open, self.skipping, self.fence) = (false, false, None);
        if self.is_noting() {
            // What was asked will be asked again.
            self.set_noting(true);
        }
        self.check_invariants();
    }
}

/// Whether a server's message is the farewell of one that shuts down, or was told to end the connection.
fn is_shutdown(message: &[u8]) -> bool {
    let Ok(Some(Header { tag: b'E', total })) = Header::read(message) else { return false };
    let body = message.get(HEADER..total);
    is_fatal(body) && has_code(body, b"57P01")
}
