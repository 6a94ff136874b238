//! Operations of several steps, from the moment a session asks for one until it has its answer.
//!
//! Leasing decides for each request whether one server answers it (nearly always) or a program has to be run;
//! the [`Plan`] it gives out then knows the servers that take part, and holds the step it was begun in open.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use groove_common::discovery::{Cluster, Health};
use groove_common::ids::EndpointId;
use groove_common::telemetry::Counter;
use smallvec::SmallVec;

use super::changes::Running;
use super::connection::{Connection, Identity};
use super::fleet::Fleet;
use crate::error::Failure;
use crate::program::replicas::Copies;
use crate::program::resize::{At, Phase, Token};
use crate::program::{Event, Link, Node, Nodes, Origin, Outcome, Pin, Told, chunks, replicas, resize, tiers};
use crate::session::programs::Hold;
use crate::session::state::Answer;
use crate::wire::Epoch;
use crate::wire::meta::{Op, Reply, Request, Status, Store};
use crate::wire::output::BY_REFERENCE_LEN_MIN;

/// What a program is thought to hold besides the value that a client sent.
const HELD_LEN_GUESS: usize = 16 << 10;

/// An operation of several steps.
pub struct Plan {
    /// Which program.
    pub kind: Kind,
    /// Who takes part.
    pub seats: Seats,
    /// Its step stays open while it runs.
    pub running: Running,
}

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The key moves from one server to another, and this is how far that is.
    Resize(Phase),
    /// The key has copies. Which, and when to ask a second one for an answer.
    Replicas(Copies, Option<Duration>),
    /// The key lives in two tiers.
    Tiers,
    /// The key's value may be in parts.
    Chunks(chunks::At),
}

/// The servers that take part in one operation.
pub struct Seats {
    seats: SmallVec<[Seat; 2]>,
    /// It does not answer, and nobody reads it: a read of any kind is told a miss and not sent.
    unread: Option<Node>,
    /// Whose CAS values came on which connection, for the client's tokens.
    epochs: RefCell<SmallVec<[(Link, Epoch); 4]>>,
    /// Those that have parts of values, and the number of the session.
    fleet: Option<(Rc<Fleet>, usize)>,
    /// What the program may hold.
    hold: Option<Rc<Hold>>,
    /// Where it is counted what did not come to be in the tier behind.
    spills_lost: Option<Counter>,
    /// How often it copied the key, and began again.
    noted: Cell<(u32, u32)>,
}

/// One of them.
pub struct Seat {
    /// Its part.
    pub node: Node,
    /// A session uses the same one always, so that its requests stay in order.
    pub connection: Rc<Connection>,
    /// Its cluster, and who it is in it.
    pub cluster: Arc<Cluster>,
    /// Who it is in it.
    pub endpoint: EndpointId,
}

/// A request that outlives the client's bytes.
#[derive(Debug)]
pub struct Owned {
    key: Box<[u8]>,
    is_coded: bool,
    /// Of [`Op::Store`].
    value: Bytes,
    /// With no value in it.
    op: Op<'static>,
}

impl Plan {
    /// Runs the program for `request`, to its end.
    pub async fn run(self, request: Owned, hold: Rc<Hold>) -> Answer {
        let Self { kind, mut seats, running } = self;
        seats.hold = Some(hold);
        let request = request.request();
        let outcome = match kind {
            Kind::Resize(phase) => {
                let token = match request.compare() {
                    None => None,
                    Some(token) => Some(seats.token(token, &[Node::Old, Node::New]).await),
                };
                resize::run(&seats, At { phase, now_s: now_s() }, &request, token).await
            }
            Kind::Tiers => {
                let token = match request.compare() {
                    None => None,
                    Some(token) => {
                        let pin = seats.pin(token, Node::Front).await;
                        Some(pin.map_or(tiers::Token::Foreign, tiers::Token::Front))
                    }
                };
                tiers::run(&seats, now_s(), &request, token).await
            }
            Kind::Chunks(at) => match request.compare() {
                None => chunks::run(&seats, at, &request, None).await,
                Some(token) => match seats.chunk_token(token).await {
                    Ok((cas, token)) => chunks::run(&seats, at, &request.comparing(cas), Some(token)).await,
                    Err(failure) => Err(failure),
                },
            },
            Kind::Replicas(copies, hedge) => {
                let own;
                let request = match request.compare() {
                    None => &request,
                    Some(token) => match seats.own(Node::Replica(0), token).await {
                        Ok(cas) => {
                            own = request.comparing(cas);
                            &own
                        }
                        Err(failure) => return Answer::Failed(failure),
                    },
                };
                let late = async {
                    match hedge {
                        Some(time) => tokio::time::sleep(time).await,
                        None => pending().await,
                    }
                };
                replicas::run(&seats, copies, request, late).await
            }
        };
        let (copied, again) = seats.noted.get();
        running.agreement().count(copied, again);
        // Whatever it did is done.
        drop(running);
        seats.answer(outcome)
    }
}

pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Seats {
    /// These servers; with one that is not read, if there is one.
    pub fn new(seats: impl IntoIterator<Item = Seat>, unread: Option<Node>) -> Self {
        Self {
            seats: seats.into_iter().collect(),
            unread,
            epochs: RefCell::default(),
            noted: Cell::default(),
            fleet: None,
            hold: None,
            spills_lost: None,
        }
    }

    /// The key's own server, and all those that may have parts of its value.
    pub fn in_parts(fleet: &Rc<Fleet>, key: &[u8], session: usize) -> Result<Self, Failure> {
        let home = fleet.seat(Node::Home, key, session)?;
        Ok(Self { fleet: Some((Rc::clone(fleet), session)), ..Self::new([home], None) })
    }

    /// Counts what does not come to be in the tier behind.
    #[must_use]
    pub fn counting(self, spills_lost: Counter) -> Self {
        Self { spills_lost: Some(spills_lost), ..self }
    }

    /// Goes on with a retrieval that was told the head of a value in parts.
    pub async fn rest(mut self, at: chunks::At, request: &Request<'_>, told: Told, hold: Rc<Hold>) -> Answer {
        self.hold = Some(hold);
        self.remember(&told);
        let outcome = chunks::rest(&self, at, request, told).await;
        self.answer(outcome)
    }

    fn answer(&self, outcome: Result<Outcome, Failure>) -> Answer {
        match outcome {
            Ok(Outcome { mut reply, origin }) => {
                reply.epoch = origin.and_then(|origin| self.epoch(origin));
                Answer::Reply(reply.detached())
            }
            Err(failure) => Answer::Failed(failure),
        }
    }

    fn seat(&self, node: Node) -> Result<&Seat, Failure> {
        self.seats.iter().find(|seat| seat.node == node).ok_or(Failure::NoServer)
    }

    /// The server's own version in a client's token, if the token is one of this server's.
    async fn pin(&self, token: u64, node: Node) -> Option<Pin> {
        let (link, identity) = self.seat(node).ok()?.identity().await.ok()?;
        Some(Pin { cas: identity.epoch.own(token)?, link })
    }

    /// Whose a client's token is.
    async fn token(&self, token: u64, nodes: &[Node]) -> Token {
        for &node in nodes {
            let Some(pin) = self.pin(token, node).await else { continue };
            return match node {
                Node::Old => Token::Old(pin),
                Node::New => Token::New(pin),
                Node::Front | Node::Overflow | Node::Replica(_) | Node::Home | Node::Part => Token::Foreign,
            };
        }
        Token::Foreign
    }

    /// What the key's own server is to compare with in place of a client's token, and whose the token is.
    async fn chunk_token(&self, token: u64) -> Result<(u64, chunks::Token), Failure> {
        let (link, identity) = self.seat(Node::Home)?.identity().await?;
        let own = identity.epoch.own(token).map(|cas| chunks::Token::Own(Pin { cas, link }));
        Ok((identity.epoch.cas(token), own.unwrap_or(chunks::Token::Foreign)))
    }

    /// What this server is to compare with in place of a client's token.
    async fn own(&self, node: Node, token: u64) -> Result<u64, Failure> {
        let (_, identity) = self.seat(node)?.identity().await?;
        Ok(identity.epoch.cas(token))
    }

    /// Whose CAS value it is that has this origin.
    fn epoch(&self, origin: Origin) -> Option<Epoch> {
        self.epochs.borrow().iter().rev().find(|(link, _)| *link == origin.link).map(|(_, epoch)| *epoch)
    }

    fn remember(&self, told: &Told) {
        let Some(epoch) = told.reply.epoch else { return };
        let mut epochs = self.epochs.borrow_mut();
        if !epochs.iter().any(|(link, _)| *link == told.link) {
            epochs.push((told.link, epoch));
        }
    }
}

impl Nodes for Seats {
    async fn ask(&self, node: Node, request: &Request<'_>, pinned: Option<Link>) -> Result<Told, Failure> {
        if let (Node::Part, Some((fleet, session))) = (node, &self.fleet) {
            return fleet.seat(node, request.key, *session)?.ask(request, pinned).await;
        }
        let seat = self.seat(node)?;
        if self.unread == Some(node) && matches!(request.op, Op::Get(_)) {
            let reply = Reply::new(Status::Miss, Bytes::from_static(b"EN"), Bytes::new());
            return Ok(Told { reply, link: Link::default() });
        }
        let told = seat.ask(request, pinned).await?;
        self.remember(&told);
        Ok(told)
    }

    async fn room(&self, len: usize) {
        if let Some(hold) = &self.hold {
            hold.grow(len).await;
        }
    }

    fn note(&self, event: Event) {
        if let Some((fleet, _)) = &self.fleet {
            fleet.count(event);
        }
        let (copied, again) = self.noted.get();
        match event {
            Event::Copied => self.noted.set((copied + 1, again)),
            Event::Again => self.noted.set((copied, again + 1)),
            Event::SpillLost => self.spills_lost.iter().for_each(Counter::inc),
            Event::WholeStored | Event::WholeRead | Event::WholeLost | Event::PartLeft => (),
        }
    }
}

impl Seat {
    /// May it be asked? True if what comes of it decides over the server.
    fn admits(&self) -> Result<bool, Failure> {
        let snapshot = self.cluster.snapshot();
        match snapshot.member(self.endpoint) {
            Some(member) if member.admits() => Ok(member.health == Health::Trial),
            Some(_) => Err(Failure::Down),
            None => Err(Failure::NoServer),
        }
    }

    async fn ask(&self, request: &Request<'_>, pinned: Option<Link>) -> Result<Told, Failure> {
        let ready = poll_fn(|cx: &mut Context<'_>| match self.connection.is_ready(cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        ready.await;
        let is_trial = self.admits()?;
        self.connection.put(request, pinned, is_trial, Instant::now())?.answered().await
    }

    async fn identity(&self) -> Result<(Link, Identity), Failure> {
        let is_trial = self.admits()?;
        poll_fn(|cx| self.connection.poll_up(is_trial, cx.waker())).await
    }
}

impl Owned {
    /// A copy; a large value is shared.
    pub fn new(request: &Request<'_>) -> Self {
        let (value, op) = match request.op {
            Op::Get(get) => (Bytes::new(), Op::Get(get)),
            Op::Store(store) => (detached(store.value), Op::Store(without_value(store))),
            Op::Delete(delete) => (Bytes::new(), Op::Delete(delete)),
            Op::Arith(arith) => (Bytes::new(), Op::Arith(arith)),
            Op::Debug => (Bytes::new(), Op::Debug),
        };
        Self { key: request.key.into(), is_coded: request.is_coded, value, op }
    }

    /// The request.
    pub fn request(&self) -> Request<'_> {
        let op = match self.op {
            Op::Get(get) => Op::Get(get),
            Op::Store(store) => Op::Store(Store { value: &self.value, ..store }),
            Op::Delete(delete) => Op::Delete(delete),
            Op::Arith(arith) => Op::Arith(arith),
            Op::Debug => Op::Debug,
        };
        Request { key: &self.key, is_coded: self.is_coded, op }
    }

    /// What it holds, about.
    pub fn held_len(&self) -> usize {
        self.key.len() + self.value.len() + HELD_LEN_GUESS
    }
}

/// A small value keeps no client's buffer alive.
fn detached(value: &Bytes) -> Bytes {
    match value.len() >= BY_REFERENCE_LEN_MIN {
        true => value.clone(),
        false => Bytes::copy_from_slice(value),
    }
}

fn without_value(store: Store<'_>) -> Store<'static> {
    static NONE: Bytes = Bytes::new();
    let Store { mode, flags, exptime, value: _, compare, new_cas, invalidate, vivify, wants } = store;
    Store { mode, flags, exptime, value: &NONE, compare, new_cas, invalidate, vivify, wants }
}
