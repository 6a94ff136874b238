//! Values in parts: clients of several sidecars at one key, with evictions, restarts, lost and late requests.
//!
//! The history shows a mixture of two versions as a value that nobody wrote, and an older one as stale. At the end
//! no part may be left that does not expire; and none at all, if nothing went wrong.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin as Pinned;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use groove_common::testing::{Dice, simulate};

use super::client::{KEY, bytes_of, op_of, read};
use super::history::{Act, History, Said, Value};
use super::server::{Letter, Server};
use crate::error::Failure;
use crate::program::chunks::{self, At, Token, Way, is_head, way};
use crate::program::{Link, Node, Nodes, Outcome, Pin, Told};
use crate::wire::meta::{Reply, Request};
use crate::wire::number;

const SERVERS: usize = 3;
const PART_LEN: usize = 60;
const DAY_S: u64 = 24 * 60 * 60;

/// What heads begin with; clients may write it too.
const MAGIC: &[u8] = b"\0groove parts 1\0";

struct Net {
    servers: [Server; SERVERS],
    links: [Link; SERVERS],
    /// Which start of its server a connection is to.
    starts: HashMap<Link, u64>,
    starts_count: u64,
    /// Carried out when nobody waits any more.
    late: Vec<(usize, Letter)>,
    dice: Dice,
    /// Things that may still go wrong.
    troubles: usize,
}

impl Net {
    fn new(seed: Dice, now_s: u64, troubles: usize) -> Self {
        let links = std::array::from_fn(|server| Link(server as u64 + 1));
        Self {
            servers: std::array::from_fn(|_| Server::new(now_s)),
            links,
            starts: links.iter().map(|link| (*link, 1)).collect(),
            starts_count: 1,
            late: Vec::new(),
            dice: seed,
            troubles,
        }
    }

    fn relink(&mut self, server: usize) {
        let start = self.starts[&self.links[server]];
        let link = Link(self.starts.len() as u64 + 1);
        self.links[server] = link;
        self.starts.insert(link, start);
    }

    fn restart(&mut self, server: usize) {
        self.relink(server);
        self.servers[server].restart();
        self.late.retain(|(late, _)| *late != server);
        self.starts_count += 1;
        self.starts.insert(self.links[server], self.starts_count);
    }

    /// Something that happens to servers, now and then.
    fn happen(&mut self) {
        if !self.late.is_empty() && self.dice.chance(1, 20) {
            let (server, letter) = self.late.swap_remove(self.dice.below(self.late.len()));
            self.servers[server].execute(&letter.request());
        }
        if self.troubles == 0 || !self.dice.chance(1, 60) {
            return;
        }
        self.troubles -= 1;
        let server = self.dice.below(SERVERS);
        match self.dice.below(8) {
            0..5 => {
                let keys = self.servers[server].lives();
                if let Some((key, _)) = self.dice.pick(&keys) {
                    self.servers[server].evict(key);
                }
            }
            5 => self.restart(server),
            6 => self.servers[server].is_full = true,
            _ => self.servers.iter_mut().for_each(|server| server.now_s += 130),
        }
    }
}

#[derive(Clone)]
struct Sidecar(Rc<RefCell<Net>>);

/// Lets the others go first.
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        // Several questions at once are asked again only if they say so.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Nodes for Sidecar {
    async fn ask(&self, node: Node, request: &Request<'_>, pinned: Option<Link>) -> Result<Told, Failure> {
        let server = match node {
            Node::Home => 0,
            Node::Part => request.key.iter().map(|byte| usize::from(*byte)).sum::<usize>() % SERVERS,
            Node::Old | Node::New | Node::Front | Node::Overflow | Node::Replica(_) => {
                return Err(Failure::NoServer);
            }
        };
        Turn(false).await;
        let (reply, link) = self.carry_out(server, request, pinned)?;
        Turn(false).await;
        match self.0.borrow().links[server] == link {
            true => Ok(Told { reply, link }),
            false => Err(Failure::Lost),
        }
    }
}

impl Sidecar {
    fn carry_out(
        &self,
        server: usize,
        request: &Request<'_>,
        pinned: Option<Link>,
    ) -> Result<(Reply, Link), Failure> {
        let net = &mut *self.0.borrow_mut();
        if pinned.is_some_and(|pinned| pinned != net.links[server]) {
            return Err(Failure::Lost);
        }
        let is_trouble = net.troubles > 0 && net.dice.chance(1, 40);
        if !is_trouble {
            return Ok((net.servers[server].execute(request), net.links[server]));
        }
        net.troubles -= 1;
        match net.dice.below(4) {
            0 => return Err(Failure::Down),
            1 => (),
            2 => net.late.push((server, Letter::new(request))),
            _ => drop(net.servers[server].execute(request)),
        }
        net.relink(server);
        Err(Failure::Lost)
    }
}

/// What a client has read, and the token it got with it.
struct Held {
    seen: Value,
    cas: u64,
    start: u64,
}

fn value(dice: &mut Dice, touches: bool, id: usize) -> Value {
    let word = format!("{id}.");
    let bytes = match dice.below(6) {
        0 => [MAGIC, word.as_bytes()].concat(),
        1 => (id + 2).to_string().into_bytes(),
        // As long as a head.
        2 => word.into_bytes().into_iter().cycle().take(48).collect(),
        _ => word.into_bytes().repeat(1 + dice.below(50)),
    };
    let ttl = if !touches && dice.chance(1, 3) { 500 + u32::try_from(id).unwrap_or(0) * 2 } else { 0 };
    Value { bytes, flags: u32::try_from(id).unwrap_or(0), ttl }
}

/// A touch is no new version: a `gat` may give its life to one that is overwritten before it has been read, and an
/// append to a value in parts, which stores it anew, may undo one. So in a run there are touches, whose lives nobody
/// looks at, or appends.
fn act(dice: &mut Dice, touches: bool, held: Option<&Held>, id: usize) -> Act {
    let part = format!("<{id}>").into_bytes().repeat(1 + dice.below(20));
    if let Some(Held { seen, .. }) = held
        && dice.chance(1, 3)
    {
        let seen = seen.clone();
        return match dice.below(4) {
            0 => Act::CasDelete(seen),
            1 if !touches => Act::CasAppend(seen, part),
            _ => Act::Cas(seen, value(dice, touches, id)),
        };
    }
    match dice.below(20) {
        0..8 => Act::Get,
        8..13 => Act::Set(value(dice, touches, id)),
        13 => Act::Delete,
        14 => Act::Add(value(dice, touches, id)),
        15 => Act::Replace(value(dice, touches, id)),
        16 | 17 if touches => Act::Touch(500 + u32::try_from(id).unwrap_or(0) * 2),
        16 => Act::Append(part),
        17 => Act::Prepend(if dice.chance(1, 3) { MAGIC[..dice.below(17)].to_vec() } else { part }),
        _ => Act::Incr(3),
    }
}

/// As a session does it.
async fn perform(
    nodes: &Sidecar,
    at: At,
    act: &Act,
    token: Option<(u64, Token)>,
) -> Result<Outcome, Failure> {
    let bytes = bytes_of(act);
    let mut request = Request { key: KEY, is_coded: false, op: op_of(act, &bytes, at.now_s) };
    if let Some((cas, _)) = token {
        request = request.comparing(cas);
    }
    match way(&request) {
        Way::Steps => chunks::run(nodes, at, &request, token.map(|(_, token)| token)).await,
        Way::Plain | Way::Look => {
            let told = nodes.ask(Node::Home, &request, None).await?;
            match is_head(&told.reply.value) {
                true => chunks::rest(nodes, at, &request, told).await,
                false => Ok(Outcome {
                    origin: Some(crate::program::Origin { node: Node::Home, link: told.link }),
                    reply: told.reply,
                }),
            }
        }
    }
}

/// Bytes as text.
fn shown(of: &impl std::fmt::Debug) -> String {
    let text = format!("{of:?}");
    let mut shown = String::new();
    let mut parts = text.split("bytes: [");
    shown += parts.next().unwrap_or_default();
    for part in parts {
        let (bytes, rest) = part.split_once(']').unwrap_or((part, ""));
        let bytes: Vec<u8> = bytes.split(", ").filter_map(|byte| byte.parse().ok()).collect();
        let (len, start) = (bytes.len(), &bytes[..bytes.len().min(24)]);
        shown += &format!("{:?} ({len}){rest}", String::from_utf8_lossy(start));
    }
    shown
}

struct Shared {
    history: History,
    asked: usize,
    trace: Vec<String>,
}

async fn client(nodes: Sidecar, shared: Rc<RefCell<Shared>>, mut dice: Dice, touches: bool) {
    let mut held: Option<Held> = None;
    for _ in 0..8 {
        let id = shared.borrow().asked + 10;
        let act = act(&mut dice, touches, held.as_ref(), id);
        {
            let shared = &mut *shared.borrow_mut();
            shared.asked += 1;
            let touch = matches!(act, Act::Touch(_)).then_some(Act::Touch(0));
            shared.history.asked(id, touch.unwrap_or_else(|| act.clone()));
            shared.trace.push(format!("{id} asks {}", shown(&act)));
        }
        let is_compared = matches!(act, Act::Cas(..) | Act::CasDelete(_) | Act::CasAppend(..));
        let token = held.as_ref().filter(|_| is_compared).map(|held| {
            let link = nodes.0.borrow().links[0];
            match nodes.0.borrow().starts[&link] == held.start {
                true => (held.cas, Token::Own(Pin { cas: held.cas, link })),
                false => (u64::MAX, Token::Foreign),
            }
        });
        let now_s = nodes.0.borrow().servers[0].now_s;
        let id_of_version = u128::from(dice.roll()) << 64 | u128::from(dice.roll());
        let at = At { now_s, id: id_of_version, part_len: PART_LEN, value_len_max: 100_000 };
        let outcome = perform(&nodes, at, &act, token).await;
        let mut said = read(&act, &outcome);
        if let (Said::Hit(seen), true) = (&mut said, touches) {
            seen.ttl = 0;
        }
        let shared = &mut *shared.borrow_mut();
        shared.trace.push(format!("{id} is told {}", shown(&said)));
        let is_possible = shared.history.told(id, &said) || shared.history.is_lost;
        assert!(is_possible, "this cannot be: {:#?}", shared.trace);
        if let (Act::Get, Said::Hit(seen), Ok(Outcome { reply, origin: Some(origin) })) =
            (&act, &said, &outcome)
        {
            let cas = number::unsigned(reply.flag(b'c').unwrap()).unwrap();
            let start = nodes.0.borrow().starts[&origin.link];
            held = Some(Held { seen: seen.clone(), cas, start });
        }
    }
}

/// Runs clients against each other; the servers afterwards.
fn play(dice: &mut Dice, troubles: usize) -> Sidecar {
    let nodes = Sidecar(Rc::new(RefCell::new(Net::new(Dice::new(dice.roll()), 1_800_000_000, troubles))));
    let (history, touches) = (History::new(None), dice.chance(1, 2));
    let shared = Rc::new(RefCell::new(Shared { history, asked: 0, trace: Vec::new() }));
    let mut clients: Vec<Pinned<Box<dyn Future<Output = ()>>>> = (0..3)
        .map(|_| Box::pin(client(nodes.clone(), Rc::clone(&shared), Dice::new(dice.roll()), touches)) as _)
        .collect();
    let mut cx = Context::from_waker(Waker::noop());
    while !clients.is_empty() {
        nodes.0.borrow_mut().happen();
        let index = dice.below(clients.len());
        if clients[index].as_mut().poll(&mut cx).is_ready() {
            drop(clients.swap_remove(index));
        }
    }
    nodes
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}

fn parts(nodes: &Sidecar) -> Vec<Option<u64>> {
    let mut net = nodes.0.borrow_mut();
    let lives = net.servers.iter_mut().flat_map(Server::lives);
    lives.filter(|(key, _)| key.starts_with(b"groove-part:")).map(|(_, expires_s)| expires_s).collect()
}

#[test]
fn nothing_is_mixed_or_stale_whatever_is_evicted_lost_or_late() {
    simulate(1_500, |dice| {
        let nodes = play(dice, 6);
        let now_s = nodes.0.borrow().servers[0].now_s;
        // A clock that is a little off apart, all have a month at most; those that are in doubt much less.
        let longest = now_s + 31 * DAY_S;
        let left = parts(&nodes);
        assert!(left.iter().all(|expires_s| expires_s.is_some_and(|at_s| at_s <= longest)), "{left:?}");
    });
}

#[test]
fn no_part_is_left_once_its_value_is_overwritten_or_deleted() {
    simulate(800, |dice| {
        let nodes = play(dice, 0);
        let at = At { now_s: 1_800_000_000, id: 7, part_len: PART_LEN, value_len_max: 100_000 };
        let small = Value { bytes: b"small".to_vec(), flags: 0, ttl: 0 };
        let last = if dice.chance(1, 2) { Act::Delete } else { Act::Set(small) };
        wait(perform(&nodes, at, &last, None)).unwrap();
        assert_eq!(parts(&nodes), []);
    });
}
