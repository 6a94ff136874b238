//! Sidecars, their clients, two servers and the mail between them; and everything that may happen next.
//!
//! A request is two events: it is carried out, and its reply arrives. Whoever waits may give up before either;
//! a request nobody waits for may still be carried out, at any later time, as long as its connection stands.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::client::{Held, KEY, Stage, perform, read};
use super::history::{Act, History, Said, Value};
use super::server::{Item, Letter, Server};
use crate::error::Failure;
use crate::program::resize::{self, Key, Phase, Token};
use crate::program::{Link, Node, Nodes, Outcome, Told};
use crate::wire::meta::{Get, Op, Reply, Request, Store};
use crate::wire::number;

type Slot = Rc<RefCell<Option<Result<Told, Failure>>>>;

/// A request under way.
struct Mail {
    sidecar: usize,
    server: usize,
    link: Link,
    letter: Letter,
    reply: Option<Reply>,
    /// Gone when nobody waits any more.
    slot: Option<Slot>,
}

impl Mail {
    /// Stores whatever is there.
    fn is_unconditional(&self) -> bool {
        match self.letter.request().op {
            Op::Store(Store { compare, .. }) => compare.is_none(),
            Op::Arith(arith) => arith.compare.is_none(),
            Op::Get(Get { touch, .. }) => touch.is_some(),
            Op::Delete(_) | Op::Debug => false,
        }
    }

    fn makes_stub(&self) -> bool {
        matches!(self.letter.request().op, Op::Get(Get { vivify: Some(_), .. }))
    }
}

struct Net {
    servers: [Server; 2],
    incarnations: [u64; 2],
    /// By sidecar and server.
    links: Vec<[Link; 2]>,
    last_link: u64,
    mail: Vec<Mail>,
}

impl Net {
    fn new_link(&mut self) -> Link {
        self.last_link += 1;
        Link(self.last_link)
    }
}

fn index(node: Node) -> usize {
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
pub(super) struct Sidecar {
    net: Rc<RefCell<Net>>,
    number: usize,
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

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Ask { client: usize },
    Move { sidecar: usize },
    Execute { mail: usize },
    Reply { mail: usize },
    GiveUp { mail: usize },
    Break { sidecar: usize, server: usize },
    Restart { server: usize },
    Evict { server: usize },
    Fill { server: usize },
    Tick,
    Forward { sidecar: usize },
    Back { sidecar: usize },
}

/// How often things may go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Troubles {
    pub(super) give_ups: usize,
    pub(super) breaks: usize,
    pub(super) restarts: usize,
    pub(super) evictions: usize,
    pub(super) fills: usize,
    pub(super) ticks: usize,
    pub(super) backs: usize,
    pub(super) moves: usize,
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
        let mut net = Net {
            servers: std::array::from_fn(|_| Server::new(now_s)),
            incarnations: [1, 1],
            links: Vec::new(),
            last_link: 0,
            mail: Vec::new(),
        };
        net.links = (0..sidecars).map(|_| [net.new_link(), net.new_link()]).collect();
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

    /// Every event that is possible now, the ordinary ones first.
    pub(super) fn events(&self) -> Vec<Event> {
        let net = self.net.borrow();
        let mut events = Vec::new();
        for (client, state) in self.clients.iter().enumerate() {
            if !state.is_busy && state.left > 0 {
                events.push(Event::Ask { client });
            }
        }
        for (mail, letter) in net.mail.iter().enumerate() {
            match (&letter.reply, &letter.slot) {
                (None, _) => events.push(Event::Execute { mail }),
                (Some(_), Some(_)) => events.push(Event::Reply { mail }),
                (Some(_), None) => (),
            }
        }
        for sidecar in 0..self.places.len() {
            if self.may_go_on(sidecar, &net) {
                events.push(Event::Forward { sidecar });
            }
        }
        self.troubles(&net, &mut events);
        events
    }

    fn troubles(&self, net: &Net, events: &mut Vec<Event>) {
        let Troubles { give_ups, breaks, restarts, evictions, fills, ticks, backs, moves } = self.troubles;
        for (mail, letter) in net.mail.iter().enumerate() {
            if give_ups > 0 && letter.slot.is_some() {
                events.push(Event::GiveUp { mail });
            }
        }
        for sidecar in 0..self.places.len() {
            if moves > 0 && self.may_move(sidecar) {
                events.push(Event::Move { sidecar });
            }
            if backs > 0 && self.may_go_back(sidecar) {
                events.push(Event::Back { sidecar });
            }
            for server in 0..2 {
                if breaks > 0 {
                    events.push(Event::Break { sidecar, server });
                }
            }
        }
        for server in 0..2 {
            let kinds = [
                (restarts, Event::Restart { server }),
                (evictions, Event::Evict { server }),
                (fills, Event::Fill { server }),
            ];
            events.extend(kinds.into_iter().filter(|(left, _)| *left > 0).map(|(_, event)| event));
        }
        if ticks > 0 {
            events.push(Event::Tick);
        }
    }

    fn is_idle(&self, sidecar: usize) -> bool {
        !self.running.iter().any(|running| running.sidecar == sidecar)
    }

    fn may_go_on(&self, sidecar: usize, net: &Net) -> bool {
        let place = self.places[sidecar];
        let Some(next) = self.plan.get(place + 1) else { return false };
        let mut own = net.mail.iter().filter(|mail| mail.sidecar == sidecar && mail.reply.is_none());
        let is_clear = match next {
            // What is still to be stored at old blindly may not come when others rely on it.
            Stage::Moving(Phase::C) => !own.any(Mail::is_unconditional),
            // F lasts longer than stubs live.
            Stage::H => {
                let mut net_servers = net.servers.clone();
                !net.mail.iter().any(|mail| mail.reply.is_none() && mail.makes_stub())
                    && !net_servers
                        .iter_mut()
                        .any(|server| server.item(KEY).is_some_and(|item| item.is_stub()))
            }
            Stage::A | Stage::Moving(Phase::B | Phase::E | Phase::F | Phase::G) => true,
        };
        is_clear && self.is_idle(sidecar) && self.places.iter().all(|other| *other >= place)
    }

    fn may_go_back(&self, sidecar: usize) -> bool {
        self.places[sidecar] > 0
            && self.stage(sidecar) == Stage::Moving(Phase::E)
            && self.is_idle(sidecar)
            && self.places.iter().all(|other| *other <= self.places[sidecar])
            && !self.running.iter().any(|running| running.client.is_none())
    }

    fn may_move(&self, sidecar: usize) -> bool {
        let in_e = |place: &usize| self.plan[*place] == Stage::Moving(Phase::E);
        let not_in_c = |place: &usize| self.plan[*place] > Stage::Moving(Phase::C);
        in_e(&self.places[sidecar]) && self.places.iter().all(not_in_c)
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
            Event::Execute { mail } => self.execute(mail),
            Event::Reply { mail } => self.reply(mail),
            Event::GiveUp { mail } => {
                self.troubles.give_ups -= 1;
                let slot = self.net.borrow_mut().mail[mail].slot.take();
                fail(slot, Failure::TimedOut);
            }
            Event::Break { sidecar, server } => {
                self.troubles.breaks -= 1;
                self.break_links(server, Some(sidecar));
            }
            Event::Restart { server } => {
                self.troubles.restarts -= 1;
                self.net.borrow_mut().servers[server].restart();
                self.net.borrow_mut().incarnations[server] += 1;
                self.break_links(server, None);
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

    fn execute(&mut self, mail: usize) {
        let net = &mut *self.net.borrow_mut();
        let Mail { server, letter, .. } = &net.mail[mail];
        let reply = net.servers[*server].execute(&letter.request());
        if let Some(trace) = &mut self.trace {
            let line = String::from_utf8_lossy(reply.line());
            trace.push(format!("  {server} {} -> {line} {:?}", letter.shown(), reply.value));
        }
        match net.mail[mail].slot {
            Some(_) => net.mail[mail].reply = Some(reply),
            None => drop(net.mail.remove(mail)),
        }
    }

    fn reply(&mut self, mail: usize) {
        let Mail { link, reply, slot, .. } = self.net.borrow_mut().mail.remove(mail);
        if let (Some(reply), Some(slot)) = (reply, slot) {
            *slot.borrow_mut() = Some(Ok(Told { reply, link }));
        }
    }

    /// What was under way to that server is lost, together with who waits for it. Requests that were already
    /// received are carried out, unless the server is no more.
    fn break_links(&mut self, server: usize, sidecar: Option<usize>) {
        let net = &mut *self.net.borrow_mut();
        let concerns = |number| sidecar.is_none_or(|sidecar| sidecar == number);
        for number in 0..net.links.len() {
            if concerns(number) {
                net.links[number][server] = net.new_link();
            }
        }
        for mail in &mut net.mail {
            if mail.server == server && concerns(mail.sidecar) {
                fail(mail.slot.take(), Failure::Lost);
            }
        }
        let is_restart = sidecar.is_none();
        net.mail.retain(|mail| {
            let is_gone = mail.reply.is_some() || is_restart;
            mail.slot.is_some() || mail.server != server || !is_gone
        });
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

fn fail(slot: Option<Slot>, failure: Failure) {
    if let Some(slot) = slot {
        *slot.borrow_mut() = Some(Err(failure));
    }
}
