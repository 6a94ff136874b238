//! Who is waiting for a reply: a session's slot, or a program in the middle of its steps.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::{Connection, Shape, Waiting};
use crate::error::Failure;
use crate::hot::Errand;
use crate::program::{Link, Told};
use crate::session::mailbox::Mailbox;
use crate::session::reading::Reading;
use crate::session::state::{Answer, Ticket};
use crate::tenant::fair::requests_of;
use crate::wire::Output;
use crate::wire::classic::items;
use crate::wire::meta::{Reply, Request};

/// Who gets what comes of a request.
pub enum Recipient {
    /// A slot of a session.
    Session(Rc<Mailbox>, Ticket),
    /// A slot of a session, unless a program has to go on with the answer.
    Reading(Box<Reading>),
    /// Some of several keys of a slot of a session.
    Part(Box<Part>),
    /// A program.
    Program(Rc<Question>),
    /// A slot of a session, and what hot keys have to do with it.
    Errand(Box<Errand>),
}

impl Recipient {
    /// The slot that takes a small reply which is only lent, if it is one that does.
    pub(super) fn takes_lent(&self) -> Option<(&Rc<Mailbox>, Ticket)> {
        match self {
            Self::Session(mailbox, ticket) if mailbox.takes_lent() => Some((mailbox, *ticket)),
            Self::Session(..) | Self::Reading(_) | Self::Part(_) | Self::Program(_) | Self::Errand(_) => None,
        }
    }

    /// Hands the answer over. Mailboxes that are to be flushed are added to `touched`.
    pub(super) fn deliver(self, answer: Result<(Reply, Link), Failure>, touched: &mut Vec<Rc<Mailbox>>) {
        match self {
            Self::Session(mailbox, ticket) => {
                if mailbox.deliver(ticket, answer_of(answer)) {
                    touched.push(mailbox);
                }
            }
            Self::Reading(reading) => touched.extend(reading.hear(answer)),
            // A reply is none to its question.
            Self::Part(part) => part.deliver(Err(answer.err().unwrap_or(Failure::Nonsense)), touched),
            Self::Program(question) => {
                question.answer(answer.map(|(reply, link)| Told { reply: reply.detached(), link }));
            }
            Self::Errand(errand) => errand.deliver(answer_of(answer), touched),
        }
    }
}

/// Some of several keys that a session has asked for.
pub struct Part {
    /// The session's.
    pub mailbox: Rc<Mailbox>,
    /// Of the slot.
    pub ticket: Ticket,
    /// Which part it is of it.
    pub number: u8,
    /// What was asked for.
    pub keys: items::Keys,
}

impl Part {
    /// Hands the answer over, as [`Recipient::deliver`].
    pub(super) fn deliver(self, told: Result<items::Answer, Failure>, touched: &mut Vec<Rc<Mailbox>>) {
        let Self { mailbox, ticket, number, keys } = self;
        if mailbox.hear_part(ticket, number, requests_of(keys.count()), told) {
            touched.push(mailbox);
        }
    }
}

fn answer_of(answer: Result<(Reply, Link), Failure>) -> Answer {
    match answer {
        Ok((reply, _)) => Answer::Reply(reply),
        Err(failure) => Answer::Failed(failure),
    }
}

/// What a program has asked. A program that is gone before the reply has come leaves it to nobody.
#[derive(Default)]
pub struct Question {
    answer: Cell<Option<Result<Told, Failure>>>,
    waker: RefCell<Option<Waker>>,
}

impl Question {
    fn answer(&self, answer: Result<Told, Failure>) {
        self.answer.set(Some(answer));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Told, Failure>> {
        if let Some(answer) = self.answer.take() {
            return Poll::Ready(answer);
        }
        match &mut *self.waker.borrow_mut() {
            Some(known) if known.will_wake(cx.waker()) => (),
            known => *known = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for the answer: until the connection has it, or gives it up.
    pub async fn answered(&self) -> Result<Told, Failure> {
        poll_fn(|cx| self.poll(cx)).await
    }
}

impl Connection {
    /// Sends a `get` of several keys.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn send_part(&self, part: Box<Part>, now: Instant) -> Result<(), Failure> {
        self.push(false, |out| {
            part.keys.encode(out);
            Waiting { recipient: Recipient::Part(part), sent: now, shape: Shape::UntilEnd }
        })
    }

    /// Sends something that has one reply and no key. There must be room, as for [`Self::put`].
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub fn ask(&self, is_trial: bool, encode: impl FnOnce(&mut Output)) -> Result<Rc<Question>, Failure> {
        let question = Rc::new(Question::default());
        let recipient = Recipient::Program(Rc::clone(&question));
        self.send(recipient, Shape::One, is_trial, Instant::now(), encode)?;
        Ok(question)
    }

    /// Sends a program's request; the connection must have room ([`Self::is_ready`]). With `pinned` it goes
    /// out on that very TCP connection or not at all.
    ///
    /// # Errors
    ///
    /// As [`Self::send`]; [`Failure::Lost`] if the pinned connection is gone. Nothing is sent then.
    pub fn put(
        &self,
        request: &Request<'_>,
        pinned: Option<Link>,
        is_trial: bool,
        now: Instant,
    ) -> Result<Rc<Question>, Failure> {
        if self.is_retired() || pinned.is_some_and(|link| self.link() != Some(link)) {
            return Err(Failure::Lost);
        }
        let question = Rc::new(Question::default());
        let recipient = Recipient::Program(Rc::clone(&question));
        self.send(recipient, Shape::of(request), is_trial, now, |out: &mut Output| request.encode(out))?;
        Ok(question)
    }
}
