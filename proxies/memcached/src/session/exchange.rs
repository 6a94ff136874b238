//! One request on its way: from its key to a server, a store or a program, and whatever is known at once back.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::mailbox::Mailbox;
use super::programs;
use super::reading::Reading;
use super::state::{Answer, Broadcast, Gather, Ticket};
use crate::error::Failure;
use crate::failover;
use crate::hot::{Desk, Errand, Look, Part};
use crate::program::chunks::{self, Way};
use crate::route::Route;
use crate::store::{self, Executed, Store};
use crate::tap::Server;
use crate::upstream::connection::{Recipient, Shape};
use crate::upstream::fleet::Fleet;
use crate::upstream::plan::Owned;
use crate::upstream::view::{Lease, View};
use crate::wire::Output;
use crate::wire::meta::{Reply, Request, Status};
use crate::wire::request::Nodes;
use crate::worker::Worker;

/// What became of a request that was to be sent.
pub(super) enum Asked {
    Waiting,
    /// As the first of several keys, which are all on their way.
    Together(Box<Gather>),
    Answered(Answer),
    Busy,
    /// The tenant may have no more on their way.
    InLine,
}

/// One step on its way to the servers.
pub(super) struct Exchange<'a> {
    /// Its number on this worker: picks one of several connections.
    pub(super) session: usize,
    pub(super) worker: &'a Rc<Worker>,
    pub(super) mailbox: &'a Rc<Mailbox>,
    pub(super) ticket: Ticket,
    pub(super) now: Instant,
    /// Takes who is asked, if somebody wants to see it.
    pub(super) noted: Option<&'a Cell<Option<Server>>>,
}

impl Exchange<'_> {
    fn recipient(&self, ticket: Ticket) -> Recipient {
        Recipient::Session(Rc::clone(self.mailbox), ticket)
    }

    fn recipient_with(&self, ticket: Ticket, part: Option<Part>) -> Recipient {
        match part {
            None => self.recipient(ticket),
            Some(part) => {
                Recipient::Errand(Box::new(Errand { mailbox: Rc::clone(self.mailbox), ticket, part }))
            }
        }
    }

    /// Asks the server of a key, that the client calls by `own`.
    pub(super) fn one(
        &self,
        own: &[u8],
        request: &Request<'_>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Asked {
        let route = view.route(own, request.key);
        if view.is_plain(route) {
            let lease = view.lease(route, self.session, cx.waker());
            return self.send(lease, route.hash, request, self.recipient(self.ticket), cx);
        }
        if let Some(fleet) = view.fleet(route) {
            let fleet = Rc::clone(fleet);
            return self.one_in_parts(&fleet, route, request, view, cx);
        }
        match view.hot(route) {
            None => self.ask(route, request, None, view, cx),
            Some(desk) => {
                let desk = Rc::clone(desk);
                self.ask_hot(&desk, route, request, view, cx)
            }
        }
    }

    /// Asks the server of a key, unless what is kept of hot keys does.
    fn ask_hot(
        &self,
        desk: &Rc<Desk>,
        route: Route<'_>,
        request: &Request<'_>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Asked {
        match desk.look(request, self.session, self.now, (self.mailbox, self.ticket)) {
            Look::Kept(reply) => Asked::Answered(Answer::Reply(reply)),
            Look::Joined => Asked::Waiting,
            Look::Ask(None) => self.ask(route, request, None, view, cx),
            Look::Ask(Some(part)) => self.ask(route, &part.request(request), Some(part), view, cx),
        }
    }

    /// Asks the server of a place.
    fn ask(
        &self,
        route: Route<'_>,
        request: &Request<'_>,
        part: Option<Part>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Asked {
        let lease = match view.tier(route) {
            None => view.lease(route, self.session, cx.waker()),
            Some(tier) => view.lease_tiers(route, tier, request.key, self.session),
        };
        self.send(lease, route.hash, request, self.recipient_with(self.ticket, part), cx)
    }

    /// Asks for a key whose value may be in parts. A session's requests for one key follow each other.
    fn one_in_parts(
        &self,
        fleet: &Rc<Fleet>,
        route: Route<'_>,
        request: &Request<'_>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Asked {
        if self.mailbox.programs().borrow().runs(route.hash) {
            return Asked::Busy;
        }
        let own = || self.recipient(self.ticket);
        let (lease, recipient) = match chunks::way(request) {
            Way::Plain => (view.lease(route, self.session, cx.waker()), own()),
            Way::Look => {
                let mailbox = Rc::clone(self.mailbox);
                let reading = Reading::new(mailbox, self.ticket, fleet, self.session, request, route.hash);
                (view.lease(route, self.session, cx.waker()), Recipient::Reading(Box::new(reading)))
            }
            Way::Steps => (view.lease_chunks(route, fleet, request.key, self.session), own()),
        };
        self.send(lease, route.hash, request, recipient, cx)
    }

    /// Sends a request with what it was leased; `hash` is its key's.
    fn send(
        &self,
        lease: Lease,
        hash: u64,
        request: &Request<'_>,
        recipient: Recipient,
        cx: &mut Context<'_>,
    ) -> Asked {
        match lease {
            Lease::Connection { connection, is_trial, ttl_max_s } => {
                self.note(|| Server::Of(Arc::clone(connection.endpoint())));
                let capped;
                let request = match ttl_max_s {
                    None => request,
                    Some(ttl_max_s) => {
                        capped = failover::capped(request, ttl_max_s, unix_time_s());
                        &capped
                    }
                };
                let compared;
                let request = match request.compare() {
                    None => request,
                    Some(token) => match connection.poll_up(is_trial, cx.waker()) {
                        Poll::Ready(Ok((_, identity))) => {
                            compared = request.comparing(identity.epoch.cas(token));
                            &compared
                        }
                        Poll::Ready(Err(failure)) => return Asked::Answered(Answer::Failed(failure)),
                        Poll::Pending => return Asked::Busy,
                    },
                };
                let encode = |out: &mut Output| request.encode(out);
                match connection.send(recipient, Shape::of(request), is_trial, self.now, encode) {
                    Ok(()) => Asked::Waiting,
                    Err(failure) => Asked::Answered(Answer::Failed(failure)),
                }
            }
            Lease::Embedded(store) => {
                self.note(|| Server::Embedded);
                match store.execute(request) {
                    Executed::Now(reply) => Asked::Answered(Answer::Reply(reply)),
                    Executed::Later(reply) => {
                        deliver_later(Rc::clone(self.mailbox), self.ticket, reply);
                        Asked::Waiting
                    }
                }
            }
            Lease::Nothing => Asked::Answered(Answer::Reply(failover::nothing(request))),
            Lease::Program(plan) => {
                self.note(|| Server::Several);
                let owned = Owned::new(request);
                let (worker, mailbox) = (self.worker, self.mailbox);
                match programs::begin(worker, mailbox, self.ticket, *plan, owned, hash, cx.waker()) {
                    true => Asked::Waiting,
                    false => Asked::Busy,
                }
            }
            Lease::Busy => Asked::Busy,
            Lease::Failed(failure) => Asked::Answered(Answer::Failed(failure)),
        }
    }

    /// Asks every server. An answer for each, or none yet; nothing is sent while one of them is busy.
    pub(super) fn everyone(
        &self,
        broadcast: Broadcast<'_>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Option<Vec<Option<Answer>>> {
        if !self.mailbox.programs().borrow().is_empty() {
            // What they have yet to send must not come after this.
            return None;
        }
        let leases = view.lease_everyone(self.session, cx.waker())?;
        if leases.is_empty() {
            return Some(vec![Some(Answer::Failed(Failure::NoServer))]);
        }
        if let Broadcast::FlushAll { delay: 0 } = broadcast {
            let running = view.begin_in_changes();
            if !running.is_empty() || view.is_tiered() {
                let writing = Rc::new(view.desks().map(|desk| desk.write_all()).collect());
                return Some(self.flush_in_rounds(leases, (running, Part::WriteAll(writing))));
            }
        }
        let shape = match broadcast {
            Broadcast::FlushAll { .. } | Broadcast::Verbosity { .. } | Broadcast::MemLimit { .. } => {
                Shape::One
            }
            Broadcast::Stats(_) => Shape::UntilEnd,
        };
        let desks = view.desks();
        let writing = match broadcast {
            Broadcast::FlushAll { .. } => desks.map(|desk| desk.write_all()).collect(),
            Broadcast::Verbosity { .. } | Broadcast::MemLimit { .. } | Broadcast::Stats(_) => Vec::new(),
        };
        let writing = (!writing.is_empty()).then(|| Rc::new(writing));
        let asked = leases.into_iter().zip(self.ticket..).map(|(lease, ticket)| match lease {
            Lease::Connection { connection, is_trial, ttl_max_s: _ } => {
                let encode = |out: &mut Output| broadcast.encode(out);
                let part = writing.as_ref().map(|writing| Part::WriteAll(Rc::clone(writing)));
                let recipient = self.recipient_with(ticket, part);
                connection.send(recipient, shape, is_trial, self.now, encode).err().map(Answer::Failed)
            }
            Lease::Embedded(store) => Some(Answer::Reply(embedded_answer(&store, broadcast))),
            Lease::Program(_) | Lease::Nothing | Lease::Busy | Lease::Failed(_) => {
                Some(Answer::Failed(Failure::Down))
            }
        });
        Some(asked.collect())
    }

    /// Where the client may connect.
    pub(super) fn nodes(&self, asked: Nodes, view: &View) -> Answer {
        let told = view.topology().advertised.answer(asked, self.mailbox.local_addr());
        let line = told.unwrap_or(Bytes::from_static(match asked {
            Nodes::Config => b"ERROR",
            Nodes::Key => b"END",
        }));
        Answer::Reply(Reply::new(Status::Classic, line, Bytes::new()))
    }

    /// Asks the first server that is there for its version. The outer `None`: it is busy.
    pub(super) fn anyone(&self, view: &mut View, cx: &mut Context<'_>) -> Option<Option<Answer>> {
        let mut failure = Failure::NoServer;
        for lease in view.lease_everyone(self.session, cx.waker())? {
            match lease {
                Lease::Connection { connection, is_trial, ttl_max_s: _ } => {
                    let encode = |out: &mut Output| out.extend_from_slice(b"version\r\n");
                    let recipient = self.recipient(self.ticket);
                    match connection.send(recipient, Shape::One, is_trial, self.now, encode) {
                        Ok(()) => return Some(None),
                        Err(down) => failure = down,
                    }
                }
                Lease::Embedded(_) => {
                    let line = Bytes::from(format!("VERSION {}", store::VERSION));
                    return Some(Some(Answer::Reply(Reply::new(Status::Classic, line, Bytes::new()))));
                }
                Lease::Program(_) | Lease::Nothing | Lease::Busy | Lease::Failed(_) => {
                    failure = Failure::Down
                }
            }
        }
        Some(Some(Answer::Failed(failure)))
    }
}

fn unix_time_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Delivers what the embedded store has to ask its disk for.
fn deliver_later(mailbox: Rc<Mailbox>, ticket: Ticket, reply: oneshot::Receiver<Reply>) {
    spawn_local(async move {
        let answer = reply.await.map_or(Answer::Failed(Failure::Lost), Answer::Reply);
        if mailbox.deliver(ticket, answer) {
            mailbox.flush();
        }
    });
}

/// What the embedded store says to what every server is asked.
fn embedded_answer(store: &Store, broadcast: Broadcast<'_>) -> Reply {
    let line = |words| Reply::new(Status::Classic, Bytes::from_static(words), Bytes::new());
    match broadcast {
        Broadcast::FlushAll { delay } => {
            store.flush_all(delay);
            line(b"OK")
        }
        Broadcast::Verbosity { .. } => line(b"OK"),
        Broadcast::MemLimit { .. } => line(b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust"),
        Broadcast::Stats(stats) => match stats.arguments().next() {
            None => Reply::new(Status::End, Bytes::new(), store.stats()),
            Some(b"reset") => line(b"RESET"),
            Some(_) => Reply::new(Status::End, Bytes::new(), Bytes::new()),
        },
    }
}
