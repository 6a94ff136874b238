//! What clients do, as requests, and what they make of the answers.

use bytes::Bytes;

use super::history::{Act, Said, Value};
use super::world::Sidecar;
use crate::error::Failure;
use crate::program::flush;
use crate::program::resize::{self, At, Phase, Token};
use crate::program::{Link, Node, Nodes, Origin, Outcome, Pin};
use crate::wire::meta::{Arith, Delete, Get, Mode, Op, Request, Status, Store, Wants};
use crate::wire::number;

pub(super) const KEY: &[u8] = b"k";

/// What a sidecar does for a key that moves, in the order in which that may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Plain, old.
    A,
    Moving(Phase),
    /// Plain, new.
    H,
}

/// A token as a client holds it.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) seen: Value,
    pub(super) node: Node,
    /// Which start of the server gave it.
    pub(super) incarnation: u64,
    pub(super) cas: u64,
}

/// The `T` of so many thousand seconds.
fn exptime(ttl: u32, now_s: u64) -> i32 {
    let seconds = u64::from(ttl) * 1000;
    i32::try_from(if seconds > 2_592_000 { now_s + seconds } else { seconds }).unwrap()
}

/// The value that comes with `act`.
pub(super) fn bytes_of(act: &Act) -> Bytes {
    Bytes::copy_from_slice(match act {
        Act::Set(value) | Act::Add(value) | Act::Replace(value) | Act::Cas(_, value) => &value.bytes,
        Act::Append(part) | Act::Prepend(part) | Act::CasAppend(_, part) => part,
        Act::Get | Act::Delete | Act::Incr(_) | Act::Touch(_) | Act::CasDelete(_) | Act::CasIncr(..) => &[],
        Act::Flush => &[],
    })
}

/// As a server is asked.
pub(super) fn op_of<'a>(act: &Act, bytes: &'a Bytes, now_s: u64) -> Op<'a> {
    let whole = |mode, value: &Value| {
        let exptime = exptime(value.ttl, now_s);
        Op::Store(Store { flags: value.flags, exptime, ..Store::new(mode, bytes) })
    };
    let wants = Wants::ITEM.and(Wants::CAS);
    match act {
        Act::Get => Op::Get(Get { wants: wants.and(Wants::TTL), ..Get::default() }),
        Act::Touch(ttl) => {
            let touch = Some(exptime(*ttl, now_s));
            Op::Get(Get { wants: wants.and(Wants::NEW_TTL), touch, ..Get::default() })
        }
        Act::Set(value) | Act::Cas(_, value) => whole(Mode::Set, value),
        Act::Add(value) => whole(Mode::Add, value),
        Act::Replace(value) => whole(Mode::Replace, value),
        Act::Delete | Act::Flush | Act::CasDelete(_) => Op::Delete(Delete::default()),
        Act::Incr(delta) | Act::CasIncr(_, delta) => Op::Arith(Arith::up(*delta)),
        Act::Append(_) | Act::CasAppend(..) => Op::Store(Store::new(Mode::Append, bytes)),
        Act::Prepend(_) => Op::Store(Store::new(Mode::Prepend, bytes)),
    }
}

/// Asks for `act` and waits.
pub(super) async fn perform(
    nodes: Sidecar,
    stage: Stage,
    now_s: u64,
    act: Act,
    token: Option<Token>,
) -> Result<Outcome, Failure> {
    if act == Act::Flush {
        return flush_all(&nodes, stage).await;
    }
    let bytes = bytes_of(&act);
    let op = op_of(&act, &bytes, now_s);
    let request = Request { key: KEY, is_coded: false, op };
    match stage {
        Stage::A => plain(&nodes, Node::Old, request, token).await,
        Stage::H => plain(&nodes, Node::New, request, token).await,
        Stage::Moving(phase) => resize::run(&nodes, At { phase, now_s }, &request, token).await,
    }
}

/// Every server, in any order: what a session does, with the key for all that a server has.
async fn flush_all(nodes: &Sidecar, stage: Stage) -> Result<Outcome, Failure> {
    let delete = Request { key: KEY, is_coded: false, op: Op::Delete(Delete::default()) };
    let flush = |node| nodes.ask(node, &delete, None);
    let rounds = match stage {
        Stage::A | Stage::H => 1,
        Stage::Moving(_) => flush::rounds(),
    };
    let mut told = tokio::try_join!(flush(Node::Old), flush(Node::New))?.1;
    for _ in 1..rounds {
        told = tokio::try_join!(flush(Node::Old), flush(Node::New))?.1;
    }
    told.reply.status = Status::Done;
    Ok(Outcome { reply: told.reply, origin: None })
}

async fn plain(
    nodes: &Sidecar,
    node: Node,
    mut request: Request<'_>,
    token: Option<Token>,
) -> Result<Outcome, Failure> {
    let never = Pin { cas: u64::MAX, link: Link(u64::MAX) };
    let pin = token.map(|token| match (token, node) {
        (Token::Old(pin), Node::Old) | (Token::New(pin), Node::New) => pin,
        (_, _) => never,
    });
    let compare = pin.map(|pin| pin.cas);
    match &mut request.op {
        Op::Store(store) => store.compare = compare,
        Op::Delete(delete) => delete.compare = compare,
        Op::Arith(arith) => arith.compare = compare,
        Op::Get(_) | Op::Debug => (),
    }
    let pinned = pin.filter(|pin| *pin != never).map(|pin| pin.link);
    let told = nodes.ask(node, &request, pinned).await?;
    Ok(Outcome { reply: told.reply, origin: Some(Origin { node, link: told.link }) })
}

/// What a client makes of the answer.
pub(super) fn read(act: &Act, outcome: &Result<Outcome, Failure>) -> Said {
    let Ok(Outcome { reply, .. }) = outcome else { return Said::Failed };
    match (reply.status, act) {
        (Status::Value, Act::Get | Act::Touch(_)) => Said::Hit(value(&reply.value, reply)),
        (Status::Value, _) => Said::Number(number::unsigned(&reply.value).unwrap()),
        (Status::Done, _) => Said::Done,
        // A delete leaves nothing, whatever it found.
        (Status::NotFound, Act::Delete) => Said::Done,
        (Status::NotStored, Act::Add(_)) => Said::AlreadyThere,
        (Status::Miss | Status::NotFound | Status::NotStored | Status::Exists, _) => Said::Nothing,
        (Status::Error, Act::Incr(_) | Act::CasIncr(..)) if reply.line().starts_with(b"CLIENT") => {
            Said::NotNumber
        }
        (Status::Error, _) => Said::Failed,
        (status, _) => panic!("{act:?} was told {status:?}"),
    }
}

fn value(bytes: &Bytes, reply: &crate::wire::meta::Reply) -> Value {
    let number = |name| number::unsigned(reply.flag(name).unwrap());
    let ttl = match reply.flag(b't').unwrap() {
        b"-1" => 0,
        // The clock has moved on a little since it was given.
        _ => u32::try_from((number(b't').unwrap() + 500) / 1000).unwrap(),
    };
    Value { bytes: bytes.to_vec(), flags: u32::try_from(number(b'f').unwrap()).unwrap(), ttl }
}
