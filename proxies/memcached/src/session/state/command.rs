//! What was asked and how it ended, for metrics and the access log.

use std::time::Instant;

use crate::error::Failure;
use crate::wire::request::{Command, Request, To};

/// One exchange that is over, as far as this session is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// What it was.
    pub command: Command,
    /// When its first part was sent.
    pub begun: Instant,
    /// Keys that were there: found, stored, deleted, counted.
    pub hits: u32,
    /// Keys that were not, or whose condition did not hold.
    pub misses: u32,
    /// It makes no sense, or a server would not do it, for lack of memory or for a reason of its own. Counted also
    /// where the client did not want to hear of it.
    pub is_refused: bool,
    /// The last failure of its parts.
    pub failure: Option<Failure>,
}

/// What a request is called.
pub(super) fn command_of(request: &Request) -> Command {
    match request {
        Request::Get(get) => match (get.touch.is_some(), get.cas) {
            (false, false) => Command::Get,
            (false, true) => Command::Gets,
            (true, false) => Command::Gat,
            (true, true) => Command::Gats,
        },
        Request::One(one) => one.command,
        Request::Oversized(store) => store.command,
        Request::FlushAll { .. } => Command::FlushAll,
        Request::Verbosity { .. } => Command::Verbosity,
        Request::MemLimit { .. } => Command::MemLimit,
        Request::Stats(_) => Command::Stats,
        Request::Version(_) => Command::Version,
        Request::Nodes(_) => Command::Nodes,
        Request::Noop(_) => Command::Noop,
        Request::Quit(_) => Command::Quit,
    }
}

/// How a request is to be answered.
pub(super) fn to_of(request: &Request) -> To {
    match request {
        Request::Get(_) | Request::Nodes(_) => To::TEXT,
        Request::One(one) => one.to,
        Request::Oversized(store) => store.to,
        Request::FlushAll { to, .. } | Request::Verbosity { to, .. } | Request::MemLimit { to, .. } => *to,
        Request::Stats(stats) => stats.to,
        Request::Version(to) | Request::Noop(to) | Request::Quit(to) => *to,
    }
}
