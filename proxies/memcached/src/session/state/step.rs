//! What a session wants to be done: one request to the server of a key, or to all of them.

use super::Ticket;
use crate::wire::Output;
use crate::wire::meta::{self, Op};
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
    /// Ask the servers of these keys, with one question each; one slot for as many of the keys as are asked for, and no
    /// more than `max`. If there is more to the first of them, it is a [`Step::Key`].
    Keys {
        /// What the server of the first of them is asked.
        first: meta::Request<'a>,
        /// At the first of them.
        get: &'a request::Get,
        /// Two at least.
        max: usize,
    },
    /// Ask every server; a slot for each.
    Everyone(Broadcast<'a>),
    /// Ask any one server for its version.
    Version,
    /// Tell where to connect.
    Nodes(request::Nodes),
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

/// What a request asks for next, of so many keys at most; none if it asks for nothing.
pub(super) fn step_of(request: &Request, keys_max: impl FnOnce() -> usize) -> Option<Step<'_>> {
    Some(match request {
        Request::Get(get) => {
            let first = get.request()?;
            match if get.is_of_several() { keys_max() } else { 1 } {
                0 | 1 => Step::Key(first),
                max => Step::Keys { first, get, max },
            }
        }
        Request::One(one) => Step::Key(one.request()),
        Request::Oversized(store) => Step::Key(meta::Request {
            key: store.key.as_bytes(),
            is_coded: store.key.is_coded,
            op: Op::Delete(meta::Delete::default()),
        }),
        Request::FlushAll { delay, .. } => Step::Everyone(Broadcast::FlushAll { delay: *delay }),
        Request::Verbosity { level, .. } => Step::Everyone(Broadcast::Verbosity { level: *level }),
        Request::MemLimit { megabytes, .. } => Step::Everyone(Broadcast::MemLimit { megabytes: *megabytes }),
        Request::Stats(stats) => Step::Everyone(Broadcast::Stats(stats)),
        Request::Version(_) => Step::Version,
        Request::Nodes(asked) => Step::Nodes(*asked),
        Request::Noop(_) | Request::Quit(_) => return None,
    })
}
