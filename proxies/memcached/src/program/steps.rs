//! The single steps that programs are made of, each one question to one server.

use bytes::Bytes;

use super::found::{Found, Look};
use super::{Node, Nodes, Outcome, Pin, Told};
use crate::error::Failure;
use crate::wire::meta::{Arith, Delete, Get, Mode, Op, Reply, Request, Status, Store, Wants};
use crate::wire::number;

/// How long a stub lives in seconds: longer than any program that made one, short for those who wait for it.
const STUB_S: i32 = 30;

/// How often an operation is begun again before its client is told to. Each time somebody else got something
/// done, so it is reached only where very many write one key at once.
const ATTEMPTS_MAX: usize = 64;

/// Why a program cannot go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// Somebody else changed the key in between: from the beginning.
    Again,
    /// No reply.
    Failed(Failure),
    /// A server's own words.
    Refused(Reply),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What became of something that was to be done only to a certain version of an item.
#[derive(Debug)]
pub(super) enum Swap {
    /// It is done.
    Done(Told),
    /// There is another version.
    Exists,
    /// There is nothing.
    Nothing,
}

impl Swap {
    /// It must be done, or all begins again.
    pub(super) fn or_again(self) -> Result<Told, Stop> {
        match self {
            Self::Done(told) => Ok(told),
            Self::Exists | Self::Nothing => Err(Stop::Again),
        }
    }
}

/// A key and its servers.
pub(super) struct Steps<'a, N> {
    pub(super) nodes: &'a N,
    pub(super) key: &'a [u8],
    pub(super) is_coded: bool,
}

impl<N> Clone for Steps<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Steps<'_, N> {}

impl<'a, N> Steps<'a, N> {
    /// For the key of a request.
    pub(super) fn of(nodes: &'a N, request: &Request<'a>) -> Self {
        Self { nodes, key: request.key, is_coded: request.is_coded }
    }

    /// For another key, which any line can hold.
    pub(super) fn at<'b>(self, key: &'b [u8]) -> Steps<'b, N>
    where
        'a: 'b,
    {
        Steps { nodes: self.nodes, key, is_coded: false }
    }
}

impl<N: Nodes> Steps<'_, N> {
    /// Looks at the item and changes nothing.
    pub(super) async fn look(self, node: Node, wants: Wants) -> Result<Look, Stop> {
        self.get(node, Get { wants, ..Get::default() }).await
    }

    /// Looks at the item; if there is none, leaves a stub, so that there is a version to compare with.
    pub(super) async fn claim(self, node: Node, wants: Wants) -> Result<Look, Stop> {
        self.get(node, Get { wants, vivify: Some(STUB_S), ..Get::default() }).await
    }

    async fn get(self, node: Node, mut get: Get) -> Result<Look, Stop> {
        get.wants = get.wants.and(Wants::CAS).and(Wants::SIZE);
        match seen(self.ask(node, Op::Get(get), None).await?)? {
            Some(told) => Ok(Look::read(node, told)?),
            None => Ok(Look::Nothing),
        }
    }

    /// Deletes whatever is there. True if there was something. It is certain afterwards, or an error.
    pub(super) async fn kill(self, node: Node) -> Result<bool, Stop> {
        match self.swap(node, Op::Delete(Delete::default()), None).await? {
            Swap::Done(_) => Ok(true),
            Swap::Nothing => Ok(false),
            Swap::Exists => Err(Failure::Nonsense.into()),
        }
    }

    /// Deletes this version.
    pub(super) async fn kill_if(self, node: Node, pin: Pin) -> Result<Swap, Stop> {
        let delete = Delete { compare: Some(pin.cas), ..Delete::default() };
        self.swap(node, Op::Delete(delete), Some(pin)).await
    }

    /// Stores in place of this version.
    pub(super) async fn store_if(self, node: Node, pin: Pin, store: Store<'_>) -> Result<Swap, Stop> {
        let store = Store { compare: Some(pin.cas), ..plain(store) };
        self.swap(node, Op::Store(store), Some(pin)).await
    }

    /// Stores under no other condition than the mode's.
    pub(super) async fn store(self, node: Node, store: Store<'_>) -> Result<Swap, Stop> {
        self.swap(node, Op::Store(Store { compare: None, ..plain(store) }), None).await
    }

    /// Counts on this version.
    pub(super) async fn count_if(self, node: Node, pin: Pin, arith: Arith) -> Result<Swap, Stop> {
        let arith = Arith { compare: Some(pin.cas), ..counted(arith) };
        self.swap(node, Op::Arith(arith), Some(pin)).await
    }

    /// Counts on whatever is there.
    pub(super) async fn count(self, node: Node, arith: Arith) -> Result<Swap, Stop> {
        self.swap(node, Op::Arith(Arith { compare: None, ..counted(arith) }), None).await
    }

    /// Gives this version a new CAS value and changes nothing else: whoever read it before can no longer
    /// change or delete it.
    pub(super) async fn bump(self, node: Node, pin: Pin) -> Result<Option<Pin>, Stop> {
        let nothing = Bytes::new();
        match self.store_if(node, pin, Store::new(Mode::Append, &nothing)).await? {
            Swap::Done(told) => Ok(Some(pin_of(&told)?)),
            Swap::Exists | Swap::Nothing => Ok(None),
        }
    }

    async fn swap(self, node: Node, op: Op<'_>, pin: Option<Pin>) -> Result<Swap, Stop> {
        swapped(self.ask(node, op, pin).await?)
    }

    /// Anything else.
    pub(super) async fn ask(self, node: Node, op: Op<'_>, pin: Option<Pin>) -> Result<Told, Failure> {
        let request = Request { key: self.key, is_coded: self.is_coded, op };
        self.nodes.ask(node, &request, pin.map(|pin| pin.link)).await
    }
}

/// Runs `attempt` until it has come to something.
pub(super) async fn attempts<F>(mut attempt: impl FnMut() -> F) -> Result<Outcome, Failure>
where
    F: Future<Output = Result<Outcome, Stop>>,
{
    for _ in 0..ATTEMPTS_MAX {
        match attempt().await {
            Ok(outcome) => return Ok(outcome),
            Err(Stop::Again) => (),
            Err(Stop::Failed(failure)) => return Err(failure),
            Err(Stop::Refused(reply)) => return Ok(Outcome { reply, origin: None }),
        }
    }
    Err(Failure::Contended)
}

/// The CAS value in a reply that must have one.
pub(super) fn pin_of(told: &Told) -> Result<Pin, Failure> {
    let cas = told.reply.flag(b'c').and_then(number::unsigned).ok_or(Failure::Nonsense)?;
    Ok(Pin { cas, link: told.link })
}

/// What an `mg` has seen, if anything.
pub(super) fn seen(told: Told) -> Result<Option<Told>, Stop> {
    match heard(told)? {
        Heard::Done(told) => Ok(Some(told)),
        Heard::Miss => Ok(None),
        Heard::Exists | Heard::Nothing => Err(Failure::Nonsense.into()),
    }
}

/// What became of an `ms`, `md` or `ma`.
pub(super) fn swapped(told: Told) -> Result<Swap, Stop> {
    match heard(told)? {
        Heard::Done(told) => Ok(Swap::Done(told)),
        Heard::Exists => Ok(Swap::Exists),
        Heard::Nothing => Ok(Swap::Nothing),
        Heard::Miss => Err(Failure::Nonsense.into()),
    }
}

/// What the reply to a step may say.
enum Heard {
    Done(Told),
    Miss,
    Exists,
    Nothing,
}

fn heard(told: Told) -> Result<Heard, Stop> {
    match told.reply.status {
        Status::Done | Status::Value => Ok(Heard::Done(told)),
        Status::Miss => Ok(Heard::Miss),
        Status::Exists => Ok(Heard::Exists),
        Status::NotFound | Status::NotStored => Ok(Heard::Nothing),
        Status::TooLarge => Err(Failure::TooLarge.into()),
        Status::Error => Err(Stop::Refused(told.reply)),
        Status::Noop | Status::Debug | Status::End | Status::Stat | Status::Classic => {
            Err(Failure::Nonsense.into())
        }
    }
}

/// What every server knows: the rest is done here.
fn plain(store: Store<'_>) -> Store<'_> {
    Store { new_cas: None, invalidate: false, vivify: None, wants: Wants::CAS, ..store }
}

fn counted(arith: Arith) -> Arith {
    let wants = arith.wants.and(Wants::VALUE).and(Wants::CAS);
    Arith { vivify: None, initial: None, new_cas: None, wants, ..arith }
}

/// The found item as it is to be stored elsewhere.
pub(super) fn again(found: &Found, now_s: u64) -> Store<'_> {
    Store { flags: found.flags, exptime: found.exptime(now_s), ..Store::new(Mode::Set, found.value()) }
}
