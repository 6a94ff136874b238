//! What was asked and how it ended, for metrics and the access log.

use std::time::Instant;

use crate::error::Failure;
use crate::wire::request::{Mode, Oversized, Request, Store};

/// Names the commands, for metrics and the access log.
macro_rules! commands {
    ($($command:ident = $name:literal,)*) => {
        /// What was asked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Command {
            $(#[doc = concat!("`", $name, "`")] $command,)*
        }

        impl Command {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$command),*];

            /// Its name on the wire; `refused` stands for whatever was not understood.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$command => $name,)*
                }
            }
        }
    };
}

commands! {
    Get = "get",
    Gets = "gets",
    Gat = "gat",
    Gats = "gats",
    Set = "set",
    Add = "add",
    Replace = "replace",
    Append = "append",
    Prepend = "prepend",
    Cas = "cas",
    Incr = "incr",
    Decr = "decr",
    Touch = "touch",
    Delete = "delete",
    FlushAll = "flush_all",
    Verbosity = "verbosity",
    MemLimit = "cache_memlimit",
    Stats = "stats",
    Version = "version",
    Refused = "refused",
}

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
        Request::Store(Store { mode, .. }) | Request::Oversized(Oversized { mode, .. }) => match mode {
            Mode::Set => Command::Set,
            Mode::Add => Command::Add,
            Mode::Replace => Command::Replace,
            Mode::Append => Command::Append,
            Mode::Prepend => Command::Prepend,
            Mode::Cas(_) => Command::Cas,
        },
        Request::Arith(arith) if arith.decrement => Command::Decr,
        Request::Arith(_) => Command::Incr,
        Request::Touch(_) => Command::Touch,
        Request::Delete(_) => Command::Delete,
        Request::FlushAll { .. } => Command::FlushAll,
        Request::Verbosity { .. } => Command::Verbosity,
        Request::MemLimit { .. } => Command::MemLimit,
        Request::Stats(_) => Command::Stats,
        Request::Version | Request::Quit => Command::Version,
    }
}
