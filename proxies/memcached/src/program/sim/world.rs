//! Sidecars, their clients and two servers: what they do when something happens.
//!
//! A request is two events: it is carried out, and its reply arrives. Whoever waits may give up before either;
//! a request nobody waits for may still be carried out, at any later time, as long as its connection stands.

mod events;
mod net;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

pub(super) use self::events::{Event, Troubles};
pub(super) use self::net::Sidecar;
use self::net::{Net, index};
use super::client::{Held, KEY, Stage, perform, read};
use super::history::{Act, History, Said, Value};
use super::server::{Item, Server};
use crate::error::Failure;
use crate::program::resize::{self, Key, Phase, Token};
use crate::program::{Link, Node, Outcome};
use crate::wire::meta::{Op, Request, Store};
use crate::wire::number;

enum Ended {
    Client(Result<Outcome, Failure>),
    Mover,
}

struct Running {
    sidecar: usize,
    /// The client and its operation's number; none for the mover.
    client: Option<(usize, usize, Act)>,
    task: Pin<Box<dyn Future<Output = Ended>>>,
}

pub(super) struct Client {
    pub(super) sidecar: usize,
    /// How many operations it still has to do.
    pub(super) left: usize,
    pub(super) held: Option<Held>,
    is_busy: bool,
}

pub(super) struct World {
    net: Rc<RefCell<Net>>,
    pub(super) now_s: u64,
    plan: Vec<Stage>,
    /// Each sidecar's place in the plan.
    places: Vec<usize>,
    pub(super) clients: Vec<Client>,
    running: Vec<Running>,
    history: History,
    pub(super) troubles: Troubles,
    asked: usize,
    pub(super) trace: Option<Vec<String>>,
}

impl World {
    /// One key with a value at the server that the plan begins with, and an older one at the other.
    pub(super) fn new(
        plan: &[Stage],
        sidecars: usize,
        clients: &[usize],
        left: usize,
        first: &Value,
    ) -> Self {
        let now_s = 1_800_000_000;
        let mut net = Net::new(now_s, sidecars);
        let seed = |server: &mut Server, bytes: &[u8]| {
            let bytes = bytes.to_vec().into();
            let store = Store::new(crate::wire::meta::Mode::Set, &bytes);
            server.execute(&Request { key: KEY, is_coded: false, op: Op::Store(store) });
        };
        seed(&mut net.servers[0], &first.bytes);
        if plan[0] <= Stage::Moving(Phase::B) {
            // Left there by an earlier change; purged before C.
            seed(&mut net.servers[1], b"leftover");
        }
        let client = |sidecar: &usize| Client { sidecar: *sidecar, left, held: None, is_busy: false };
        Self {
            net: Rc::new(RefCell::new(net)),
            now_s,
            plan: plan.to_vec(),
            places: vec![0; sidecars],
            clients: clients.iter().map(client).collect(),
            running: Vec::new(),
            history: History::new(Some(first.clone())),
            troubles: Troubles::default(),
            asked: 0,
            trace: None,
        }
    }

    /// The run has become too uncertain to be judged.
    pub(super) fn is_lost(&self) -> bool {
        self.history.is_lost
    }

    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    fn stage(&self, sidecar: usize) -> Stage {
        self.plan[self.places[sidecar]]
    }

    /// Lets it happen. `act` chooses what a client asks. False if what a client was told cannot be.
    pub(super) fn happen(&mut self, event: Event, act: impl FnOnce(&Self, usize) -> Act) -> bool {
        let before = self.trace.is_some().then(|| self.shown());
        match event {
            Event::Ask { client } => {
                let act = act(self, client);
                self.note(|| format!("client {client} asks {act:?}"));
                self.ask(client, act);
            }
            Event::Move { sidecar } => {
                self.troubles.moves -= 1;
                self.start_mover(sidecar);
            }
            Event::Execute { mail } => self.net.borrow_mut().execute(mail, self.trace.as_mut()),
            Event::Reply { mail } => self.net.borrow_mut().reply(mail),
            Event::GiveUp { mail } => {
                self.troubles.give_ups -= 1;
                self.net.borrow_mut().give_up(mail);
            }
            Event::Break { sidecar, server } => {
                self.troubles.breaks -= 1;
                self.net.borrow_mut().break_links(server, Some(sidecar));
            }
            Event::Restart { server } => {
                self.troubles.restarts -= 1;
                self.net.borrow_mut().restart(server);
            }
            Event::Evict { server } => {
                self.troubles.evictions -= 1;
                self.net.borrow_mut().servers[server].evict(KEY);
            }
            Event::Fill { server } => {
                self.troubles.fills -= 1;
                self.net.borrow_mut().servers[server].is_full = true;
            }
            Event::Tick => {
                self.troubles.ticks -= 1;
                self.now_s += 11;
                for server in &mut self.net.borrow_mut().servers {
                    server.now_s = self.now_s;
                }
            }
            Event::Forward { sidecar } => self.forward(sidecar),
            Event::Back { sidecar } => {
                self.troubles.backs -= 1;
                self.places[sidecar] -= 1;
            }
        }
        if let Some(before) = before {
            let after = self.shown();
            self.note(|| format!("{event:?}: {}", if before == after { String::new() } else { after }));
        }
        self.run()
    }

    fn ask(&mut self, client: usize, act: Act) {
        let Client { sidecar, held, left, is_busy } = &mut self.clients[client];
        (*left, *is_busy) = (*left - 1, true);
        let sidecar = *sidecar;
        let has_token =
            matches!(act, Act::Cas(..) | Act::CasDelete(_) | Act::CasAppend(..) | Act::CasIncr(..));
        let token = held.as_ref().filter(|_| has_token);
        let net = self.net.borrow();
        // What an adapter makes of a token's epoch.
        let token = token.map(|held| {
            let server = index(held.node);
            let pin = crate::program::Pin { cas: held.cas, link: net.links[sidecar][server] };
            match (held.incarnation == net.incarnations[server], held.node) {
                (true, Node::Old) => Token::Old(pin),
                (true, _) => Token::New(pin),
                (false, _) => Token::Foreign,
            }
        });
        drop(net);
        let nodes = Sidecar { net: Rc::clone(&self.net), number: sidecar };
        let (stage, now_s, id) = (self.stage(sidecar), self.now_s, self.asked);
        self.asked += 1;
        self.history.asked(id, act.clone());
        let task = perform(nodes, stage, now_s, act.clone(), token);
        let task = Box::pin(async move { Ended::Client(task.await) });
        self.running.push(Running { sidecar, client: Some((client, id, act)), task });
    }

    fn start_mover(&mut self, sidecar: usize) {
        let nodes = Sidecar { net: Rc::clone(&self.net), number: sidecar };
        let now_s = self.now_s;
        let task = Box::pin(async move {
            _ = resize::copy(&nodes, now_s, Key { bytes: KEY, is_coded: false }).await;
            Ended::Mover
        });
        self.running.push(Running { sidecar, client: None, task });
    }

    fn forward(&mut self, sidecar: usize) {
        let next = self.plan[self.places[sidecar] + 1];
        let is_first = self.places.iter().all(|place| *place <= self.places[sidecar]);
        if next == Stage::Moving(Phase::C) && is_first {
            self.net.borrow_mut().servers[1].evict(KEY);
        }
        self.places[sidecar] += 1;
    }

    /// Lets every program go as far as it comes.
    fn run(&mut self) -> bool {
        let mut index = 0;
        let mut is_possible = true;
        while index < self.running.len() {
            let mut cx = Context::from_waker(Waker::noop());
            match self.running[index].task.as_mut().poll(&mut cx) {
                Poll::Pending => index += 1,
                Poll::Ready(ended) => {
                    let Running { client, .. } = self.running.remove(index);
                    if let (Ended::Client(outcome), Some((client, id, act))) = (ended, client) {
                        is_possible &= self.answered(client, id, &act, &outcome);
                    }
                }
            }
        }
        is_possible
    }

    fn answered(&mut self, client: usize, id: usize, act: &Act, outcome: &Result<Outcome, Failure>) -> bool {
        let said = read(act, outcome);
        self.note(|| format!("client {client}: {act:?} is told {said:?}"));
        self.clients[client].is_busy = false;
        if matches!(act, Act::Get | Act::Touch(_)) {
            self.clients[client].held = match (&said, outcome) {
                (Said::Hit(seen), Ok(Outcome { reply, origin: Some(origin) })) => Some(Held {
                    seen: seen.clone(),
                    node: origin.node,
                    incarnation: self.incarnation(origin.node, origin.link),
                    cas: number::unsigned(reply.flag(b'c').unwrap()).unwrap(),
                }),
                (_, _) => None,
            };
        }
        self.history.told(id, &said)
    }

    /// The start of the server that this connection was to: the present one if the connection still stands.
    fn incarnation(&self, node: Node, link: Link) -> u64 {
        let net = self.net.borrow();
        let stands = net.links.iter().any(|links| links[index(node)] == link);
        if stands { net.incarnations[index(node)] } else { 0 }
    }

    fn shown(&self) -> String {
        let net = &mut *self.net.borrow_mut();
        let items =
            net.servers.each_mut().map(|server| server.item(KEY).map(Item::shown).unwrap_or_default());
        let stages: BTreeMap<usize, String> = self
            .places
            .iter()
            .enumerate()
            .map(|(at, place)| (at, format!("{:?}", self.plan[*place])))
            .collect();
        format!("{items:?} {stages:?}")
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }
}
