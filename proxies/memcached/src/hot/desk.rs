//! A worker's part: what is done with a request, and who waits for what.
//!
//! Only clients whose requests take the same connection wait for one another: then a client's next request, which
//! is sent behind the question that it waits for, is carried out behind it too.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use xxhash_rust::xxh3::xxh3_64;

use super::Hot;
use super::sketch::Sketch;
use super::stamps::{Stamp, Writing};
use crate::session::mailbox::Mailbox;
use crate::session::state::{Answer, Ticket};
use crate::wire::meta::{Get, Op, Reply, Request, Wants};

/// A worker's part.
pub struct Desk {
    hot: Arc<Hot>,
    sketch: RefCell<Sketch>,
    flights: RefCell<Flights>,
    /// Of each worker to each server.
    connections: usize,
}

/// Questions on their way, by the connection they take and their key's hash.
type Flights = HashMap<(usize, u64), Rc<Flight>, RandomState>;

/// A question that others may wait for.
struct Flight {
    key: Box<[u8]>,
    stamp: Stamp,
    joined: RefCell<Vec<(Rc<Mailbox>, Ticket)>>,
}

/// What to do with a request.
pub enum Look {
    /// Nothing: this is the answer.
    Kept(Reply),
    /// Nothing: the answer comes with another's.
    Joined,
    /// Ask the server, with this part in it.
    Ask(Option<Part>),
}

/// The part that a request to a server has in this.
pub enum Part {
    /// It changes a key.
    Write(Writing),
    /// It changes all keys of one cluster or more.
    WriteAll(Rc<Vec<Writing>>),
    /// It brings a hot key's value.
    Fill(Box<Fill>),
}

/// A question that brings a hot key's value.
pub struct Fill {
    desk: Rc<Desk>,
    place: (usize, u64),
    flight: Rc<Flight>,
    asked: Instant,
}

/// A session's request that has a part in this.
pub struct Errand {
    /// Whose it is.
    pub mailbox: Rc<Mailbox>,
    /// For its answer.
    pub ticket: Ticket,
    /// The part.
    pub part: Part,
}

/// What a request is to what is kept.
enum Class {
    /// It may be answered by it.
    Plain,
    /// It is none of its business.
    Other,
    /// It may make it untrue.
    Write,
}

impl Desk {
    /// A worker's part, which has so many connections to each server.
    pub fn new(hot: &Arc<Hot>, connections: usize) -> Rc<Self> {
        Rc::new(Self {
            hot: Arc::clone(hot),
            sketch: RefCell::new(Sketch::new()),
            flights: RefCell::default(),
            connections: connections.max(1),
        })
    }

    /// What to do with a request of a session; `recipient` waits for its answer.
    pub fn look(
        self: &Rc<Self>,
        request: &Request<'_>,
        session: usize,
        now: Instant,
        recipient: (&Rc<Mailbox>, Ticket),
    ) -> Look {
        let hash = xxh3_64(request.key);
        match class(request) {
            Class::Other => return Look::Ask(None),
            Class::Write => return Look::Ask(Some(Part::Write(self.hot.stamps.write(hash)))),
            Class::Plain => (),
        }
        if self.sketch.borrow_mut().count(hash, now) < self.hot.threshold || !self.hot.may_keep(now) {
            return Look::Ask(None);
        }
        let Some(stamp) = self.hot.stamps.read(hash) else { return Look::Ask(None) };
        if let Some(reply) = self.hot.find(request.key, stamp, now) {
            return Look::Kept(reply);
        }
        self.join_or_fill((session % self.connections, hash), request.key, stamp, now, recipient)
    }

    fn join_or_fill(
        self: &Rc<Self>,
        place: (usize, u64),
        key: &[u8],
        stamp: Stamp,
        asked: Instant,
        (mailbox, ticket): (&Rc<Mailbox>, Ticket),
    ) -> Look {
        let mut flights = self.flights.borrow_mut();
        if let Some(flight) = flights.get(&place)
            && flight.stamp == stamp
            && *flight.key == *key
        {
            flight.joined.borrow_mut().push((Rc::clone(mailbox), ticket));
            self.hot.counted.merged.inc();
            return Look::Joined;
        }
        // One that was asked under another stamp goes on for those who wait for it, and is joined by nobody.
        let flight = Rc::new(Flight { key: key.into(), stamp, joined: RefCell::default() });
        flights.insert(place, Rc::clone(&flight));
        Look::Ask(Some(Part::Fill(Box::new(Fill { desk: Rc::clone(self), place, flight, asked }))))
    }

    /// All keys are changed.
    pub fn write_all(&self) -> Writing {
        self.hot.stamps.write_all()
    }
}

fn class(request: &Request<'_>) -> Class {
    let Op::Get(get) = request.op else {
        return if let Op::Debug = request.op { Class::Other } else { Class::Write };
    };
    let Get { wants, touch, vivify, recache, recache_first: _, new_cas: _, compare, is_peek } = get;
    if touch.is_some() || vivify.is_some() || recache.is_some() {
        return Class::Write;
    }
    let is_plain = wants.has(Wants::VALUE)
        && wants.without(Wants::ITEM) == Wants::NOTHING
        && compare.is_none()
        && !is_peek
        && !request.is_coded;
    if is_plain { Class::Plain } else { Class::Other }
}

impl Part {
    /// What the server is asked in place of the request.
    pub fn request<'a>(&self, request: &Request<'a>) -> Request<'a> {
        match self {
            Self::Write(_) | Self::WriteAll(_) => *request,
            Self::Fill(_) => {
                // Everything that any of those who may wait for it wants to know, and how long it is true.
                let get = Get { wants: Wants::ITEM.and(Wants::TTL), ..Get::default() };
                Request { op: Op::Get(get), ..*request }
            }
        }
    }
}

impl Errand {
    /// Hands the answer over, to all who wait for it. Mailboxes that are to be flushed are added to `touched`.
    pub fn deliver(self, answer: Answer, touched: &mut Vec<Rc<Mailbox>>) {
        let Self { mailbox, ticket, part } = self;
        match part {
            // What is kept is no longer true, or no longer known to be, before anybody is told.
            Part::Write(writing) => drop(writing),
            Part::WriteAll(writing) => drop(writing),
            Part::Fill(fill) => fill.conclude(&answer, touched),
        }
        if mailbox.deliver(ticket, answer) {
            touched.push(mailbox);
        }
    }
}

impl Fill {
    fn conclude(&self, answer: &Answer, touched: &mut Vec<Rc<Mailbox>>) {
        let Self { desk, place, flight, asked } = self;
        if let Answer::Reply(reply) = answer {
            desk.hot.keep(&flight.key, place.1, flight.stamp, *asked, reply);
        }
        self.land();
        for (mailbox, ticket) in flight.joined.take() {
            if mailbox.deliver(ticket, answer.clone()) {
                touched.push(mailbox);
            }
        }
    }

    /// Nobody joins it any more.
    fn land(&self) {
        let mut flights = self.desk.flights.borrow_mut();
        if flights.get(&self.place).is_some_and(|flight| Rc::ptr_eq(flight, &self.flight)) {
            flights.remove(&self.place);
        }
    }
}

impl Drop for Fill {
    /// Also when it was not sent after all; then nobody has joined it yet.
    fn drop(&mut self) {
        self.land();
    }
}
