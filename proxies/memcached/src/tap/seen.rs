//! One exchange as it was seen, and the words for it. Keys are the client's own; values are never kept.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use groove_common::discovery::Endpoint;
use groove_common::error::Classified;
use serde::{Deserialize, Serialize};

use crate::session::state::Answer;
use crate::tenant::guest::value_len;
use crate::wire::meta::{Mode, Op, Request, Status, Wants};

/// What was asked, in the words of the classic protocol whatever the client spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verb {
    /// The word.
    pub name: &'static str,
    kind: Kind,
    /// How many bytes of value came with it.
    value_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Count,
    Delete,
}

impl Verb {
    /// Of a request.
    pub fn of(request: &Request<'_>) -> Self {
        let (name, kind) = match &request.op {
            Op::Get(get) if get.touch.is_none() && get.wants.has(Wants::CAS) => ("gets", Kind::Read),
            Op::Get(get) if get.touch.is_none() => ("get", Kind::Read),
            Op::Get(get) if get.wants.has(Wants::VALUE) => ("gat", Kind::Read),
            Op::Get(_) => ("touch", Kind::Read),
            Op::Store(store) if store.compare.is_some() => ("cas", Kind::Write),
            Op::Store(store) => match store.mode {
                Mode::Set => ("set", Kind::Write),
                Mode::Add => ("add", Kind::Write),
                Mode::Replace => ("replace", Kind::Write),
                Mode::Append => ("append", Kind::Write),
                Mode::Prepend => ("prepend", Kind::Write),
            },
            Op::Delete(_) => ("delete", Kind::Delete),
            Op::Arith(arith) => (if arith.decrement { "decr" } else { "incr" }, Kind::Count),
            Op::Debug => ("me", Kind::Read),
        };
        Self { name, kind, value_len: value_len(request) }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Result {
    /// It was there.
    Hit,
    /// It was not.
    Miss,
    /// It is there now.
    Stored,
    /// A condition did not hold.
    NotStored,
    /// Somebody else has changed it.
    Exists,
    /// It is gone.
    Deleted,
    /// There was nothing to change.
    NotFound,
    /// A server refused, or none answered.
    Error,
}

impl Result {
    fn of(verb: Verb, answer: &Answer) -> Self {
        let Answer::Reply(reply) = answer else { return Self::Error };
        match (reply.status, verb.kind) {
            (Status::Value | Status::Done | Status::Debug, Kind::Read) => Self::Hit,
            (Status::Value | Status::Done, Kind::Write | Kind::Count) => Self::Stored,
            (Status::Done, Kind::Delete) => Self::Deleted,
            (Status::Miss, _) => Self::Miss,
            (Status::NotFound, _) => Self::NotFound,
            (Status::NotStored, _) => Self::NotStored,
            (Status::Exists, _) => Self::Exists,
            (
                Status::Value
                | Status::Debug
                | Status::TooLarge
                | Status::Noop
                | Status::End
                | Status::Stat
                | Status::Error
                | Status::Classic,
                _,
            ) => Self::Error,
        }
    }

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stored => "stored",
            Self::NotStored => "not_stored",
            Self::Exists => "exists",
            Self::Deleted => "deleted",
            Self::NotFound => "not_found",
            Self::Error => "error",
        }
    }
}

/// Who answered.
#[derive(Debug, Clone)]
pub enum Server {
    /// This one.
    Of(Arc<Endpoint>),
    /// The embedded store.
    Embedded,
    /// More than one, in several steps.
    Several,
    /// The proxy itself.
    Proxy,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(endpoint) => endpoint.address.fmt(f),
            Self::Embedded => f.write_str("embedded"),
            Self::Several => f.write_str("several"),
            Self::Proxy => f.write_str("proxy"),
        }
    }
}

/// One exchange.
#[derive(Debug)]
pub struct Seen {
    /// When it was answered.
    pub at: SystemTime,
    /// Whose it was.
    pub tenant: Option<String>,
    /// Where its key lives.
    pub cluster: String,
    /// What was asked.
    pub verb: Verb,
    /// As the client writes it.
    pub key: Box<[u8]>,
    /// What came of it.
    pub result: Result,
    /// Bytes of value that were sent or received, if there were any.
    pub value_len: Option<usize>,
    /// From the request to the answer.
    pub took: Duration,
    /// Who answered.
    pub server: Server,
    /// Why nobody did.
    pub failure: Option<&'static str>,
}

impl Seen {
    /// Takes from an answer what is shown of it.
    pub(super) fn conclude(&mut self, answer: &Answer, took: Duration) {
        self.result = Result::of(self.verb, answer);
        self.took = took;
        self.value_len = match answer {
            Answer::Reply(reply) if self.result == Result::Hit => Some(reply.value.len()),
            Answer::Reply(_) | Answer::Failed(_) if self.verb.kind == Kind::Write => {
                Some(self.verb.value_len)
            }
            Answer::Reply(_) | Answer::Failed(_) => None,
        };
        self.failure = match answer {
            Answer::Failed(failure) => Some(failure.kind().label()),
            Answer::Reply(_) => None,
        };
    }
}

/// A key as people can read it, and as no terminal takes it for a command.
pub(super) fn readable(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => key.escape_ascii().to_string(),
    }
}
