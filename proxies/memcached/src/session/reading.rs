//! A retrieval whose answer may be the head of a value in parts: nearly always it is not, and goes to its slot.

use std::rc::Rc;

use tokio::task::spawn_local;

use super::mailbox::Mailbox;
use super::programs::Hold;
use super::state::{Answer, Ticket};
use crate::error::Failure;
use crate::program::{Link, Told, chunks};
use crate::upstream::fleet::Fleet;
use crate::upstream::plan::{Owned, Seats};
use crate::wire::meta::{Reply, Request, Status};

/// What it takes to go on. Counted among the session's reads until it is heard of.
pub struct Reading {
    mailbox: Rc<Mailbox>,
    ticket: Ticket,
    fleet: Rc<Fleet>,
    session: usize,
    request: Owned,
    /// Its key's hash.
    key: u64,
}

impl Reading {
    /// Of this request, whose answer goes to `ticket`.
    pub fn new(
        mailbox: Rc<Mailbox>,
        ticket: Ticket,
        fleet: &Rc<Fleet>,
        session: usize,
        request: &Request<'_>,
        key: u64,
    ) -> Self {
        mailbox.programs().borrow_mut().begin_read(key);
        Self { mailbox, ticket, fleet: Rc::clone(fleet), session, request: Owned::new(request), key }
    }

    /// The server's answer. A mailbox that comes back is to be flushed.
    pub fn hear(self: Box<Self>, answer: Result<(Reply, Link), Failure>) -> Option<Rc<Mailbox>> {
        let (mailbox, ticket) = (Rc::clone(&self.mailbox), self.ticket);
        let answer = match answer {
            Ok((reply, link)) if reply.status == Status::Value && chunks::is_head(&reply.value) => {
                spawn_local(self.go_on(Told { reply: reply.detached(), link }));
                return None;
            }
            Ok((reply, _)) => Answer::Reply(reply),
            Err(failure) => Answer::Failed(failure),
        };
        drop(self);
        mailbox.deliver(ticket, answer).then_some(mailbox)
    }

    async fn go_on(self: Box<Self>, told: Told) {
        let mailbox = Rc::clone(&self.mailbox);
        let hold = Rc::new(Hold::new(Rc::clone(mailbox.worker()), Rc::clone(&mailbox), self.ticket, 0));
        let request = self.request.request();
        let answer = match Seats::in_parts(&self.fleet, request.key, self.session) {
            Ok(seats) => seats.rest(self.fleet.at(), &request, told, Rc::clone(&hold)).await,
            Err(failure) => Answer::Failed(failure),
        };
        drop(hold);
        let ticket = self.ticket;
        drop(self);
        if mailbox.deliver(ticket, answer) {
            mailbox.flush();
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.mailbox.programs().borrow_mut().end_read(self.key);
    }
}
