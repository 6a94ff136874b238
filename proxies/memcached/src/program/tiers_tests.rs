use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use groove_common::balance::Dice;

use super::*;
use crate::program;
use crate::store::{self};
use crate::wire::meta::Delete;

/// Two servers, and whoever asks waits for its turn once: the scheduler decides over the order of all requests.
struct World {
    front: Arc<store::Store>,
    overflow: Arc<store::Store>,
    /// Values that are said to be lost.
    lost: Cell<usize>,
    /// The front has no room for longer items.
    is_full: Cell<bool>,
    /// Requests that the server behind will still answer.
    answers_left: Cell<usize>,
}

impl World {
    fn new() -> Self {
        Self {
            front: store::Store::small(),
            overflow: store::Store::small(),
            lost: Cell::new(0),
            is_full: Cell::new(false),
            answers_left: Cell::new(usize::MAX),
        }
    }
}

struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pinned<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match std::mem::replace(&mut self.0, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Nodes for World {
    async fn ask(&self, node: Node, request: &Request<'_>, _: Option<Link>) -> Result<Told, Failure> {
        Turn(false).await;
        let store = match node {
            Node::Front => &self.front,
            Node::Overflow => {
                let left = self.answers_left.get().checked_sub(1).ok_or(Failure::Down)?;
                self.answers_left.set(left);
                &self.overflow
            }
            Node::Old | Node::New | Node::Replica(_) | Node::Home | Node::Part => {
                return Err(Failure::NoServer);
            }
        };
        let is_longer = matches!(request.op, Op::Store(Store { mode: Mode::Append, .. }));
        let reply = match node == Node::Front && is_longer && self.is_full.get() {
            true => Reply::new(Status::NotStored, Bytes::from_static(b"NS"), Bytes::new()),
            false => store.ask(request),
        };
        // The reply travels: others may come first.
        Turn(false).await;
        Ok(Told { reply, link: Link(7) })
    }

    fn note(&self, event: program::Event) {
        assert_eq!(event, program::Event::SpillLost);
        self.lost.set(self.lost.get() + 1);
    }
}

const KEY: &[u8] = b"k";
const NOW_S: u64 = 1_700_000_000;

fn request(op: Op<'_>) -> Request<'_> {
    Request { key: KEY, is_coded: false, op }
}

fn get_op() -> Op<'static> {
    Op::Get(Get { wants: Wants::VALUE.and(Wants::CAS), ..Get::default() })
}

/// What one client did, and when it began and ended.
#[derive(Debug, Clone)]
struct Event {
    what: What,
    begun: usize,
    ended: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Wrote this value, or deleted.
    Wrote(Option<Bytes>),
    /// Saw this value, or nothing.
    Saw(Option<Bytes>),
}

async fn client(world: &World, changes: bool, mut dice: Dice, name: usize, log: &RefCell<Log>) {
    let mut seen = None;
    for step in 0..6 {
        let value = Bytes::from(format!("{name}.{step}"));
        let begun = log.borrow_mut().tick();
        let what = match dice.below(if changes { 8 } else { 7 }) {
            0..=2 => {
                let outcome = run(world, NOW_S, &request(get_op()), None).await.unwrap();
                let hit = outcome.reply.status == Status::Value;
                seen = outcome.reply.cas().filter(|_| hit).zip(outcome.origin);
                What::Saw(hit.then_some(outcome.reply.value))
            }
            3 | 4 => {
                let op = Op::Store(Store::new(Mode::Set, &value));
                assert_eq!(run(world, NOW_S, &request(op), None).await.unwrap().reply.status, Status::Done);
                What::Wrote(Some(value))
            }
            5 => {
                run(world, NOW_S, &request(Op::Delete(Delete::default())), None).await.unwrap();
                What::Wrote(None)
            }
            6 => {
                let op = Op::Store(Store::new(Mode::Add, &value));
                if run(world, NOW_S, &request(op), None).await.unwrap().reply.status != Status::Done {
                    continue;
                }
                What::Wrote(Some(value))
            }
            _ => {
                let token = match seen {
                    Some((cas, origin)) if origin.node == Node::Front => {
                        Token::Front(Pin { cas, link: origin.link })
                    }
                    Some(_) => Token::Foreign,
                    None => continue,
                };
                let op = Op::Store(Store { compare: Some(1), ..Store::new(Mode::Set, &value) });
                if run(world, NOW_S, &request(op), Some(token)).await.unwrap().reply.status != Status::Done {
                    continue;
                }
                What::Wrote(Some(value))
            }
        };
        let ended = log.borrow_mut().tick();
        log.borrow_mut().events.push(Event { what, begun, ended });
    }
}

#[derive(Default)]
struct Log {
    now: usize,
    events: Vec<Event>,
}

impl Log {
    fn tick(&mut self) -> usize {
        self.now += 1;
        self.now
    }

    /// A value may be seen only if no other write came wholly between its own and the look at it.
    fn check(&self, seed: u64) {
        let writes: HashMap<&Bytes, &Event> = self
            .events
            .iter()
            .filter_map(|event| match &event.what {
                What::Wrote(Some(value)) => Some((value, event)),
                What::Wrote(None) | What::Saw(_) => None,
            })
            .collect();
        for event in &self.events {
            let What::Saw(Some(value)) = &event.what else { continue };
            let write = writes.get(value);
            let Some(write) = write else { panic!("seed {seed}: {value:?} was written by nobody") };
            let newer = self.events.iter().find(|other| {
                matches!(other.what, What::Wrote(_)) && other.begun > write.ended && other.ended < event.begun
            });
            assert!(newer.is_none(), "seed {seed}: {event:?} is stale, written by {write:?}, then {newer:?}");
        }
    }

    /// In the end there is nothing only if a delete may have been the last write.
    fn check_nothing_lost(&self, is_there: bool, seed: u64) {
        let is_write = |event: &&Event| matches!(event.what, What::Wrote(_));
        let is_last =
            |event: &Event| self.events.iter().filter(is_write).all(|other| other.begun < event.ended);
        let mut writes = self.events.iter().filter(is_write).peekable();
        let may_be_gone =
            writes.peek().is_none() || writes.any(|write| write.what == What::Wrote(None) && is_last(write));
        assert!(is_there || may_be_gone, "seed {seed}: what was written is lost: {:?}", self.events);
    }
}

/// Clients at random, their requests in any order, and now and then a server evicts.
fn simulate(seed: u64, evicting: Evicting) {
    let mut dice = Dice::seeded(seed);
    let (world, log) = (World::new(), RefCell::new(Log::default()));
    let changes = evicting != Evicting::FrontOnly;
    let mut clients: Vec<Pinned<Box<dyn Future<Output = ()> + '_>>> = (0..3)
        .map(|name| Box::pin(client(&world, changes, Dice::seeded(dice.bits()), name, &log)) as _)
        .collect();
    let mut cx = Context::from_waker(Waker::noop());
    while !clients.is_empty() {
        if dice.below(25) == 0 {
            world.front.ask(&request(Op::Delete(Delete::default())));
        }
        if evicting == Evicting::Both && dice.below(40) == 0 {
            world.overflow.ask(&request(Op::Delete(Delete::default())));
        }
        let index = dice.below(clients.len());
        if clients[index].as_mut().poll(&mut cx).is_ready() {
            drop(clients.swap_remove(index));
        }
    }
    let last = block_on(run(&world, NOW_S, &request(get_op()), None)).unwrap();
    let last = (last.reply.status == Status::Value).then_some(last.reply.value);
    let mut log = log.borrow_mut();
    let may_be_lost = match evicting {
        Evicting::FrontOnly => false,
        Evicting::Front => world.lost.get() > 0,
        Evicting::Both => true,
    };
    log.check_nothing_lost(may_be_lost || last.is_some(), seed);
    let begun = log.tick();
    log.events.push(Event { what: What::Saw(last), begun, ended: begun + 1 });
    log.check(seed);
}

/// Which servers lose what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evicting {
    /// The front, and no client changes what is there: nothing may be lost.
    FrontOnly,
    /// The front: nothing may be lost that is not counted.
    Front,
    Both,
}

/// Does a value come back that is flushed in this order while a read brings it to the front?
fn comes_back(order: [Node; 2]) -> bool {
    let value = Bytes::from_static(b"flushed");
    let turns = (0..10).flat_map(|before| (0..10).map(move |between| [before, between, 100]));
    turns.into_iter().any(|turns| {
        let world = World::new();
        let get = || request(get_op());
        block_on(run(&world, NOW_S, &request(Op::Store(Store::new(Mode::Set, &value))), None)).unwrap();
        world.front.ask(&request(Op::Delete(Delete::default())));
        let first = get();
        let mut reading = Some(Box::pin(run(&world, NOW_S, &first, None)));
        for (turns, node) in turns.into_iter().zip(order.into_iter().map(Some).chain([None])) {
            for _ in 0..turns {
                let mut cx = Context::from_waker(Waker::noop());
                if reading.as_mut().is_some_and(|reading| reading.as_mut().poll(&mut cx).is_ready()) {
                    reading = None;
                }
            }
            match node {
                Some(Node::Front) => world.front.flush_all(0),
                Some(_) => world.overflow.flush_all(0),
                None => (),
            }
        }
        block_on(run(&world, NOW_S, &get(), None)).unwrap().reply.status == Status::Value
    })
}

#[test]
fn what_was_flushed_does_not_come_back_if_it_is_flushed_behind_first() {
    assert!(!comes_back([Node::Overflow, Node::Front]));
    // A copy that is under way finds its stub in front, where the flush has been already.
    assert!(comes_back([Node::Front, Node::Overflow]));
}

#[test]
fn nothing_stale_is_seen_and_nothing_lost_whatever_the_order_and_whatever_is_evicted() {
    for seed in 0..3000 {
        simulate(seed, Evicting::FrontOnly);
        simulate(seed, Evicting::Front);
        simulate(seed, Evicting::Both);
    }
}

/// A `set` and another operation, one after the other stopped in the middle: is there something when both have ended
/// and the front has evicted it?
fn outlives(other: Op<'_>, is_there: bool, turns: [usize; 2]) -> bool {
    let world = World::new();
    let [first, second] = ["first", "second"].map(|value| Bytes::from_static(value.as_bytes()));
    if is_there {
        block_on(run(&world, NOW_S, &request(Op::Store(Store::new(Mode::Set, &first))), None)).unwrap();
    }
    let seen = block_on(run(&world, NOW_S, &request(get_op()), None)).unwrap();
    let pin = seen.origin.zip(seen.reply.cas()).map(|(origin, cas)| Pin { cas, link: origin.link });
    let (set, other) = (request(Op::Store(Store::new(Mode::Set, &second))), request(other));
    let token = other.compare().and(pin).map(Token::Front);
    let mut both =
        [Some(Box::pin(run(&world, NOW_S, &set, None))), Some(Box::pin(run(&world, NOW_S, &other, token)))];
    for (running, turns) in both.iter_mut().zip(turns) {
        let mut cx = Context::from_waker(Waker::noop());
        if (0..turns).any(|_| running.as_mut().is_some_and(|it| it.as_mut().poll(&mut cx).is_ready())) {
            *running = None;
        }
    }
    for running in both.into_iter().flatten() {
        block_on(running).unwrap();
    }
    world.front.ask(&request(Op::Delete(Delete::default())));
    block_on(run(&world, NOW_S, &request(get_op()), None)).unwrap().reply.status == Status::Value
}

#[test]
fn who_kills_a_copy_and_then_may_not_store_makes_it_good() {
    let value = Bytes::from_static(b"other");
    let compared = Store { compare: Some(1), ..Store::new(Mode::Set, &value) };
    for turns in (0..20).flat_map(|set| (0..20).map(move |other| [set, other])) {
        assert!(outlives(Op::Store(compared), true, turns), "cas, {turns:?}");
        assert!(outlives(Op::Store(Store::new(Mode::Add, &value)), false, turns), "add, {turns:?}");
        assert!(outlives(Op::Store(Store::new(Mode::Append, &value)), true, turns), "append, {turns:?}");
    }
}

#[test]
fn a_server_behind_that_goes_away_loses_nothing_uncounted() {
    let value = Bytes::from_static(b"4");
    let stores =
        [Mode::Set, Mode::Add, Mode::Replace, Mode::Append].map(|mode| Op::Store(Store::new(mode, &value)));
    let touch = Op::Get(Get { touch: Some(0), ..Get::default() });
    for op in stores.into_iter().chain([Op::Arith(Arith::up(1)), touch]) {
        for answers in 0..4 {
            let world = World::new();
            let ask = |op| block_on(run(&world, NOW_S, &request(op), None));
            ask(Op::Store(Store::new(Mode::Set, &value))).unwrap();
            world.answers_left.set(answers);
            let told = ask(op);
            world.answers_left.set(usize::MAX);
            world.front.ask(&request(Op::Delete(Delete::default())));
            let is_there = ask(get_op()).unwrap().reply.status == Status::Value;
            assert!(is_there || world.lost.get() > 0, "{op:?} with {answers} answers: {told:?}");
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}

#[test]
fn what_is_written_through_outlives_the_front() {
    let world = World::new();
    let ask = |op: Op<'_>| block_on(run(&world, NOW_S, &request(op), None)).unwrap().reply;
    let evict = || world.front.ask(&request(Op::Delete(Delete::default())));
    let number = Bytes::from_static(b"41");
    assert_eq!(ask(Op::Store(Store::new(Mode::Set, &number))).status, Status::Done);
    evict();
    assert_eq!(ask(get_op()).value, "41");
    evict();
    assert_eq!(ask(Op::Arith(Arith::up(1))).value, "42");
    evict();
    assert_eq!(ask(Op::Store(Store::new(Mode::Append, &number))).status, Status::Done);
    evict();
    assert_eq!(ask(Op::Store(Store::new(Mode::Add, &number))).status, Status::NotStored);
    assert_eq!(ask(get_op()).value, "4241");
    world.is_full.set(true);
    assert_eq!(ask(Op::Store(Store::new(Mode::Append, &number))).status, Status::NotStored);
    world.is_full.set(false);
    evict();
    assert_eq!(ask(get_op()).value, "4241");
    let words = Bytes::from_static(b"words");
    assert_eq!(ask(Op::Store(Store::new(Mode::Replace, &words))).status, Status::Done);
    assert_eq!(ask(Op::Arith(Arith::up(1))).status, Status::Error);
    evict();
    assert_eq!(ask(get_op()).value, "words");
    evict();
    assert_eq!(ask(Op::Get(Get { touch: Some(100), ..Get::default() })).status, Status::Done);
    evict();
    let life = ask(Op::Get(Get { wants: Wants::VALUE.and(Wants::TTL), ..Get::default() }));
    assert_eq!((&life.value[..], life.flag(b't')), (&b"words"[..], Some(&b"100"[..])));
    evict();
    assert_eq!(ask(Op::Delete(Delete::default())).status, Status::Done);
    assert_eq!(ask(Op::Delete(Delete::default())).status, Status::NotFound);
    assert_eq!(ask(get_op()).status, Status::Miss);
    assert_eq!(ask(Op::Arith(Arith { vivify: Some(0), initial: Some(7), ..Arith::up(1) })).value, "7");
    assert_eq!(ask(Op::Delete(Delete::default())).status, Status::Done);
    assert_eq!(ask(Op::Store(Store::new(Mode::Prepend, &words))).status, Status::NotStored);
    assert_eq!(
        ask(Op::Store(Store { vivify: Some(0), ..Store::new(Mode::Prepend, &words) })).status,
        Status::Done
    );
    assert_eq!(ask(Op::Store(Store::new(Mode::Prepend, &number))).status, Status::Done);
    evict();
    assert_eq!(ask(get_op()).value, "41words");
    assert_eq!(world.lost.get(), 0);
}
