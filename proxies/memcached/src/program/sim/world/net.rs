//! The two servers, and the mail between them and the sidecars.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::super::server::{Letter, Server};
use crate::error::Failure;
use crate::program::{Link, Node, Nodes, Told};
use crate::wire::meta::{Get, Op, Reply, Request, Store};

type Slot = Rc<RefCell<Option<Result<Told, Failure>>>>;

/// A request under way.
pub(super) struct Mail {
    pub(super) sidecar: usize,
    server: usize,
    link: Link,
    letter: Letter,
    pub(super) reply: Option<Reply>,
    /// Gone when nobody waits any more.
    pub(super) slot: Option<Slot>,
}

impl Mail {
    /// Stores whatever is there.
    pub(super) fn is_unconditional(&self) -> bool {
        match self.letter.request().op {
            Op::Store(Store { compare, .. }) => compare.is_none(),
            Op::Arith(arith) => arith.compare.is_none(),
            Op::Get(Get { touch, .. }) => touch.is_some(),
            Op::Delete(_) | Op::Debug => false,
        }
    }

    pub(super) fn makes_stub(&self) -> bool {
        matches!(self.letter.request().op, Op::Get(Get { vivify: Some(_), .. }))
    }
}

pub(super) struct Net {
    pub(super) servers: [Server; 2],
    /// How often each has been started.
    pub(super) incarnations: [u64; 2],
    /// By sidecar and server.
    pub(super) links: Vec<[Link; 2]>,
    last_link: u64,
    pub(super) mail: Vec<Mail>,
}

impl Net {
    /// Servers of this time, and connections of so many sidecars to both.
    pub(super) fn new(now_s: u64, sidecars: usize) -> Self {
        let mut net = Self {
            servers: std::array::from_fn(|_| Server::new(now_s)),
            incarnations: [1, 1],
            links: Vec::new(),
            last_link: 0,
            mail: Vec::new(),
        };
        net.links = (0..sidecars).map(|_| [net.new_link(), net.new_link()]).collect();
        net
    }

    fn new_link(&mut self) -> Link {
        self.last_link += 1;
        Link(self.last_link)
    }

    /// A server carries out a request, for the trace too.
    pub(super) fn execute(&mut self, mail: usize, trace: Option<&mut Vec<String>>) {
        let Mail { server, letter, .. } = &self.mail[mail];
        let reply = self.servers[*server].execute(&letter.request());
        if let Some(trace) = trace {
            let line = String::from_utf8_lossy(reply.line());
            trace.push(format!("  {server} {} -> {line} {:?}", letter.shown(), reply.value));
        }
        match self.mail[mail].slot {
            Some(_) => self.mail[mail].reply = Some(reply),
            None => drop(self.mail.remove(mail)),
        }
    }

    /// A reply arrives.
    pub(super) fn reply(&mut self, mail: usize) {
        let Mail { link, reply, slot, .. } = self.mail.remove(mail);
        if let (Some(reply), Some(slot)) = (reply, slot) {
            *slot.borrow_mut() = Some(Ok(Told { reply, link }));
        }
    }

    /// Whoever waits for a reply does so no longer.
    pub(super) fn give_up(&mut self, mail: usize) {
        fail(self.mail[mail].slot.take(), Failure::TimedOut);
    }

    /// A server begins anew, with nothing.
    pub(super) fn restart(&mut self, server: usize) {
        self.servers[server].restart();
        self.incarnations[server] += 1;
        self.break_links(server, None);
    }

    /// What was under way to that server is lost, together with who waits for it. Requests that were already
    /// received are carried out, unless the server is no more.
    pub(super) fn break_links(&mut self, server: usize, sidecar: Option<usize>) {
        let concerns = |number| sidecar.is_none_or(|sidecar| sidecar == number);
        for number in 0..self.links.len() {
            if concerns(number) {
                self.links[number][server] = self.new_link();
            }
        }
        for mail in &mut self.mail {
            if mail.server == server && concerns(mail.sidecar) {
                fail(mail.slot.take(), Failure::Lost);
            }
        }
        let is_restart = sidecar.is_none();
        self.mail.retain(|mail| {
            let is_gone = mail.reply.is_some() || is_restart;
            mail.slot.is_some() || mail.server != server || !is_gone
        });
    }
}

pub(super) fn index(node: Node) -> usize {
    match node {
        Node::Old => 0,
        Node::New => 1,
        Node::Front | Node::Overflow | Node::Replica(_) | Node::Home | Node::Part => {
            unreachable!("a resize has two servers")
        }
    }
}

/// The servers as one sidecar reaches them.
#[derive(Clone)]
pub(in crate::program::sim) struct Sidecar {
    pub(super) net: Rc<RefCell<Net>>,
    pub(super) number: usize,
}

impl Nodes for Sidecar {
    async fn ask(&self, node: Node, request: &Request<'_>, pinned: Option<Link>) -> Result<Told, Failure> {
        let slot = Slot::default();
        {
            let net = &mut *self.net.borrow_mut();
            let link = net.links[self.number][index(node)];
            if pinned.is_some_and(|pinned| pinned != link) {
                return Err(Failure::Lost);
            }
            net.mail.push(Mail {
                sidecar: self.number,
                server: index(node),
                link,
                letter: Letter::new(request),
                reply: None,
                slot: Some(Rc::clone(&slot)),
            });
        }
        poll_fn(move |_| match slot.borrow_mut().take() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        })
        .await
    }
}

fn fail(slot: Option<Slot>, failure: Failure) {
    if let Some(slot) = slot {
        *slot.borrow_mut() = Some(Err(failure));
    }
}
