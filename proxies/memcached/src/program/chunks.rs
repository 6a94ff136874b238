//! One operation on a key whose value may be too long for one item: then it is stored in parts.
//!
//! A small *head* stands at the key and names a version; the parts stand at keys made of that name, each on its own
//! server. What makes it sound:
//!
//! - *The parts are there before the head.* The head is stored over the version that was seen before, or where
//!   nothing was, and makes the value visible all at once.
//! - *A part belongs to one version.* A reader that misses one looks at the key again: either there is a newer
//!   version, or the value is lost. Then it answers a miss and takes the head away. It never mixes two.
//! - *Whoever takes a head away knows it*, because every store and delete looks first and names the version it
//!   has seen. So it can delete the parts.
//!
//! | | at the key | parts |
//! |---|---|---|
//! | get | `mg`: a value | |
//! | | a head | `mg` of each; one is missing: `mg` again, the same head: `md C`, and delete the others |
//! | set, add, replace, cas | `mg s c`, then `ms C` or `ms ME` | before: `ms` each; after: touch them, delete the old ones |
//! | delete | `mg s c`, then `md C` | after: delete them |
//! | append, prepend | `mg s c`, then `ms MA C`; a head, or too long: read it, store it | as get and set |
//! | touch, gat | `mg T s` | after: touch them |
//!
//! *No part stays behind for long.* Until the head is in, parts have `STAGED_S` to live, whatever becomes of the
//! writer. Then they live a little longer than the head. Those of a value without an expiry have `LEASE_S`, which
//! is renewed by reading: a head that is evicted or whose server dies takes no part with it. When nobody
//! can tell whether a head has been stored, its parts and the ones before it are deleted: the value is lost.

mod head;
mod parts;
mod write;

use std::cell::Cell;

use bytes::Bytes;

use self::head::{HEAD_LEN, Head};
use super::steps::{Steps, Stop, Swap, attempts, pin_of, seen, swapped};
use super::{Event, Node, Nodes, Origin, Outcome, Pin, Told};
use crate::error::Failure;
use crate::wire::meta::{Delete, Get, Mode, Op, Reply, Request, Status, Store, Wants};
use crate::wire::number;

pub use self::head::is_head;

/// How long a part lives in seconds before its head is in.
const STAGED_S: i32 = 120;

/// How long the parts of a value without an expiry live: 30 days, the longest time that is not a Unix time.
const LEASE_S: i32 = 60 * 60 * 24 * 30;

/// When and how a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The Unix time in seconds.
    pub now_s: u64,
    /// Names the version that it may make. Like no other: thrown by dice.
    pub id: u128,
    /// Longer values are stored in parts, which are so long at the most.
    pub part_len: usize,
    /// The longest value.
    pub value_len_max: usize,
}

/// A client's CAS token, by whose it is. The epoch in it has been checked and taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Of the key's server as it runs now.
    Own(Pin),
    /// Of another server, or of one that has been restarted.
    Foreign,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is sent as it is.
    Plain,
    /// It is sent as it is; if the answer [is a head](is_head), [`rest`] goes on from there.
    Look,
    /// All of [`run`].
    Steps,
}

/// What a request needs. Counting does not: a server calls a head no number.
pub fn way(request: &Request<'_>) -> Way {
    match request.op {
        Op::Get(Get { touch: Some(_), .. }) | Op::Store(_) | Op::Delete(_) => Way::Steps,
        Op::Get(get) if get.wants.has(Wants::VALUE) => Way::Look,
        Op::Get(get) if get.wants.has(Wants::SIZE) => Way::Steps,
        Op::Get(_) | Op::Arith(_) | Op::Debug => Way::Plain,
    }
}

/// Carries out what a client asked. `token` stands for the client's CAS token; `compare` in the request is what the
/// server is to compare with.
///
/// # Errors
///
/// Why nothing can be told. Nothing was acknowledged; it may have been done all the same, now or a little later.
pub async fn run<N: Nodes>(
    nodes: &N,
    at: At,
    request: &Request<'_>,
    token: Option<Token>,
) -> Result<Outcome, Failure> {
    let chunked = Chunked::new(nodes, at, request);
    let outcome = attempts(|| chunked.operation(token)).await;
    if let Some(head) = chunked.staged.take() {
        // It is not in: nobody will ask for these.
        chunked.remove(head).await;
    }
    outcome
}

/// Goes on with a retrieval that was told a head.
///
/// # Errors
///
/// Why nothing can be told.
pub async fn rest<N: Nodes>(
    nodes: &N,
    at: At,
    request: &Request<'_>,
    told: Told,
) -> Result<Outcome, Failure> {
    let chunked = Chunked::new(nodes, at, request);
    let told = Cell::new(Some(told));
    attempts(|| chunked.get(told.take())).await
}

/// An operation on a key whose value may be in parts.
struct Chunked<'a, N> {
    steps: Steps<'a, N>,
    at: At,
    request: &'a Request<'a>,
    /// The version whose parts are there, or on their way, and whose head is not in.
    staged: Cell<Option<Head>>,
    /// Of the next version.
    id: Cell<u128>,
}

/// What is at a key.
#[derive(Debug, Clone, Copy)]
struct Item {
    pin: Pin,
    len: usize,
    head: Option<Head>,
}

impl<'a, N> Chunked<'a, N> {
    fn new(nodes: &'a N, at: At, request: &'a Request<'a>) -> Self {
        let (staged, id) = (Cell::new(None), Cell::new(at.id));
        Self { steps: Steps::of(nodes, request), at, request, staged, id }
    }
}

impl<N: Nodes> Chunked<'_, N> {
    async fn operation(&self, token: Option<Token>) -> Result<Outcome, Stop> {
        match self.request.op {
            Op::Get(_) => self.get(None).await,
            Op::Store(store @ Store { mode: Mode::Append | Mode::Prepend, .. }) => {
                self.append(store, token).await
            }
            Op::Store(store) => self.store(store, token).await,
            Op::Delete(delete) => self.delete(delete, token).await,
            Op::Arith(_) | Op::Debug => Ok(pass(self.ask(self.request.op, None).await?)),
        }
    }

    /// Asks the key's own server.
    async fn ask(&self, op: Op<'_>, pin: Option<Pin>) -> Result<Told, Failure> {
        self.steps.ask(Node::Home, op, pin).await
    }

    /// What is there, and its head if it has one. Values themselves are not asked for.
    async fn look(&self) -> Result<Option<Item>, Stop> {
        let get =
            |wants: Wants| Op::Get(Get { wants: wants.and(Wants::CAS).and(Wants::SIZE), ..Get::default() });
        match item(self.ask(get(Wants::NOTHING), None).await?)? {
            Some(Item { len: HEAD_LEN, .. }) => item(self.ask(get(Wants::VALUE), None).await?),
            seen => Ok(seen),
        }
    }

    /// Reads; `first` is what the key's server was heard to say, if it has been asked.
    async fn get(&self, first: Option<Told>) -> Result<Outcome, Stop> {
        let Op::Get(get) = self.request.op else { return Err(Failure::Nonsense.into()) };
        let told = match first {
            Some(told) => told,
            None => self.ask(Op::Get(Get { wants: get.wants.and(Wants::SIZE), ..get }), None).await?,
        };
        if told.reply.status == Status::Value {
            return match Head::read(&told.reply.value) {
                Some(head) => self.whole(get, head, told).await,
                None => Ok(pass(told)),
            };
        }
        if told.reply.status != Status::Done || size(&told.reply) != Some(HEAD_LEN) {
            return Ok(pass(told));
        }
        // Without its value it only looks like a head.
        match self.look().await? {
            Some(Item { head: Some(head), .. }) => {
                if let Some(exptime) = get.touch
                    && !self.touch(head, exptime).await?
                {
                    // It was touched. What it is worth is for the next reader to hear.
                    _ = self.lost(head).await;
                }
                Ok(pass(Told { reply: told.reply.measured(head.len()), ..told }))
            }
            Some(_) | None => Ok(pass(told)),
        }
    }

    /// Puts the value together whose head was told.
    async fn whole(&self, get: Get, head: Head, told: Told) -> Result<Outcome, Stop> {
        let Some((value, left_s)) = self.fetch(head).await? else { return self.lost(head).await };
        match get.touch {
            Some(exptime) => _ = self.touch(head, exptime).await?,
            None => self.renew(head, left_s, &told).await,
        }
        self.steps.nodes.note(Event::WholeRead);
        Ok(pass(Told { reply: told.reply.with_value(value), ..told }))
    }

    /// A part is missing: there is a newer version by now, or none at all. All begins again.
    async fn lost(&self, head: Head) -> Result<Outcome, Stop> {
        if let Some(Item { pin, head: Some(now), .. }) = self.look().await?
            && now.id == head.id
            && let Swap::Done(_) = self.steps.kill_if(Node::Home, pin).await?
        {
            self.steps.nodes.note(Event::WholeLost);
            self.remove(head).await;
        }
        Err(Stop::Again)
    }

    async fn delete(&self, delete: Delete, token: Option<Token>) -> Result<Outcome, Stop> {
        let Some(Item { pin, head, .. }) = self.look().await? else {
            return Ok(self.bare(delete.wants, Status::NotFound));
        };
        if token.is_some_and(|token| token != Token::Own(pin)) {
            return Ok(self.bare(delete.wants, Status::Exists));
        }
        let asked = self.ask(Op::Delete(Delete { compare: Some(pin.cas), ..delete }), Some(pin)).await;
        let told = match asked {
            Ok(told) => told,
            Err(failure) => {
                self.forget(failure, head).await;
                return Err(failure.into());
            }
        };
        let told = match (swapped(told)?, token) {
            (Swap::Done(told), _) => told,
            (Swap::Exists | Swap::Nothing, None) => return Err(Stop::Again),
            (Swap::Exists, Some(_)) => return Ok(self.bare(delete.wants, Status::Exists)),
            (Swap::Nothing, Some(_)) => return Ok(self.bare(delete.wants, Status::NotFound)),
        };
        match (head, delete) {
            (Some(head), Delete { invalidate: true, clear: false, touch: Some(exptime), .. }) => {
                _ = self.touch(head, exptime).await;
            }
            // It is marked, and stays.
            (_, Delete { invalidate: true, clear: false, .. }) | (None, _) => (),
            (Some(head), _) => self.remove(head).await,
        }
        Ok(pass(told))
    }

    /// Something that may have taken a head away has failed. Whether it has been done or not, the parts go: they
    /// must not stay without a head, and without them a head is a miss.
    async fn forget(&self, failure: Failure, head: Option<Head>) {
        if let Some(head) = head
            && !matches!(failure, Failure::Down | Failure::NoServer)
        {
            self.remove(head).await;
        }
    }

    fn bare(&self, wants: Wants, status: Status) -> Outcome {
        super::found::bare(self.request, wants, status)
    }
}

/// The server's reply is the answer.
fn pass(told: Told) -> Outcome {
    Outcome { reply: told.reply, origin: Some(Origin { node: Node::Home, link: told.link }) }
}

/// Reads the reply of an `mg` that asked for `c` and `s`, and perhaps for the value.
fn item(told: Told) -> Result<Option<Item>, Stop> {
    let Some(told) = seen(told)? else { return Ok(None) };
    let len = size(&told.reply).ok_or(Failure::Nonsense)?;
    Ok(Some(Item { pin: pin_of(&told)?, len, head: Head::read(&told.reply.value) }))
}

fn size(reply: &Reply) -> Option<usize> {
    number::unsigned(reply.flag(b's')?).and_then(|len| usize::try_from(len).ok())
}

/// How long parts are to live whose head gets this expiry: a little longer, as servers count whole seconds, each
/// from its own moment.
fn exptime_of_parts(exptime: i32, now_s: u64) -> i32 {
    const MARGIN_S: i32 = 10;
    match exptime {
        ..=0 => LEASE_S,
        _ if exptime <= LEASE_S - MARGIN_S => exptime + MARGIN_S,
        _ if exptime <= LEASE_S => {
            let at_s = now_s.saturating_add(u64::from(exptime.unsigned_abs())).saturating_add(10);
            i32::try_from(at_s).unwrap_or(i32::MAX)
        }
        _ => exptime.saturating_add(MARGIN_S),
    }
}

static NOTHING: Bytes = Bytes::new();
