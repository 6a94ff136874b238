//! What a session wants to be done: one request to the server of a key, or to all of them.

use super::Ticket;
use crate::wire::Output;
use crate::wire::meta::{self, Mode, Op, Wants};
use crate::wire::request::{self, Request};

/// A step, and the ticket its (first) answer will have.
#[derive(Debug)]
pub struct Next<'a> {
    /// For the answer.
    pub ticket: Ticket,
    /// What to do.
    pub step: Step<'a>,
}

/// What the driver has to do next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Ask the server of this key; one slot.
    Key(meta::Request<'a>),
    /// Ask every server; a slot for each.
    Everyone(Broadcast<'a>),
    /// Ask any one server for its version.
    Version,
}

/// A request for all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broadcast<'a> {
    /// `flush_all`.
    FlushAll {
        /// Seconds from now, or a Unix time.
        delay: i32,
    },
    /// `verbosity`.
    Verbosity {
        /// As given.
        level: u32,
    },
    /// `cache_memlimit`.
    MemLimit {
        /// As given.
        megabytes: u32,
    },
    /// `stats` with its arguments.
    Stats(&'a request::Stats),
}

impl Broadcast<'_> {
    /// The classic command for a server.
    pub fn encode(&self, out: &mut Output) {
        match self {
            Self::FlushAll { delay: 0 } => out.extend_from_slice(b"flush_all"),
            Self::FlushAll { delay } => out.extend_from_slice(format!("flush_all {delay}").as_bytes()),
            Self::Verbosity { level } => out.extend_from_slice(format!("verbosity {level}").as_bytes()),
            Self::MemLimit { megabytes } => {
                out.extend_from_slice(format!("cache_memlimit {megabytes}").as_bytes());
            }
            Self::Stats(stats) => {
                out.extend_from_slice(b"stats");
                for argument in stats.arguments() {
                    out.extend_from_slice(b" ");
                    out.extend_from_slice(argument);
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What a request asks for next; none if it asks for nothing.
pub(super) fn step_of(request: &Request) -> Option<Step<'_>> {
    let (key, op) = match request {
        Request::Get(get) => (get.key()?, get_of(get)),
        Request::Store(store) => (store.key.as_bytes(), store_of(store)),
        Request::Oversized(store) => (store.key.as_bytes(), Op::Delete(meta::Delete::default())),
        Request::Arith(arith) => (
            arith.key.as_bytes(),
            Op::Arith(meta::Arith { decrement: arith.decrement, ..meta::Arith::up(arith.delta) }),
        ),
        Request::Touch(touch) => {
            (touch.key.as_bytes(), Op::Get(meta::Get { touch: Some(touch.exptime), ..Default::default() }))
        }
        Request::Delete(delete) => (delete.key.as_bytes(), Op::Delete(meta::Delete::default())),
        Request::FlushAll { delay, .. } => {
            return Some(Step::Everyone(Broadcast::FlushAll { delay: *delay }));
        }
        Request::Verbosity { level, .. } => {
            return Some(Step::Everyone(Broadcast::Verbosity { level: *level }));
        }
        Request::MemLimit { megabytes, .. } => {
            return Some(Step::Everyone(Broadcast::MemLimit { megabytes: *megabytes }));
        }
        Request::Stats(stats) => return Some(Step::Everyone(Broadcast::Stats(stats))),
        Request::Version => return Some(Step::Version),
        Request::Quit => return None,
    };
    Some(Step::Key(meta::Request { key, is_coded: false, op }))
}

fn get_of(get: &request::Get) -> Op<'static> {
    let wants = if get.cas { Wants::ITEM.and(Wants::CAS) } else { Wants::ITEM };
    Op::Get(meta::Get { wants, touch: get.touch, ..Default::default() })
}

fn store_of(store: &request::Store) -> Op<'_> {
    let (mode, compare) = match store.mode {
        request::Mode::Set => (Mode::Set, None),
        request::Mode::Add => (Mode::Add, None),
        request::Mode::Replace => (Mode::Replace, None),
        request::Mode::Append => (Mode::Append, None),
        request::Mode::Prepend => (Mode::Prepend, None),
        request::Mode::Cas(token) => (Mode::Set, Some(token)),
    };
    let (flags, exptime) = (store.flags, store.exptime);
    Op::Store(meta::Store { flags, exptime, compare, ..meta::Store::new(mode, &store.value) })
}
