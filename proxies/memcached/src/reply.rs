//! The words for the client: the only place that turns results and errors into bytes.
//!
//! All lines are memcached 1.6.18's own, except those that only a proxy has need of.

use groove_common::error::Classified;

use crate::error::Failure;
use crate::wire::meta::{Reply, Status};
use crate::wire::request::{DecodeError, Refusal};
use crate::wire::{Output, classic};

/// The last line of a retrieval and of `stats`.
pub const END: &[u8] = b"END\r\n";
/// Done, where there is nothing to say.
pub const OK: &[u8] = b"OK\r\n";
/// A value over the limit.
pub const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
/// The listener has no room.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"ERROR Too many open connections\r\n";

/// A request that cannot be.
pub fn refusal(refusal: Refusal) -> &'static [u8] {
    match refusal {
        Refusal::UnknownCommand => b"ERROR\r\n",
        Refusal::BadFormat => b"CLIENT_ERROR bad command line format\r\n",
        Refusal::BadDataChunk => b"CLIENT_ERROR bad data chunk\r\n",
        Refusal::InvalidExptime => b"CLIENT_ERROR invalid exptime argument\r\n",
        Refusal::InvalidDelta => b"CLIENT_ERROR invalid numeric delta argument\r\n",
        Refusal::DeleteUsage => b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
        Refusal::Shutdown => b"ERROR: shutdown not enabled\r\n",
        Refusal::OneServer => b"CLIENT_ERROR this command is for one server, ask it directly\r\n",
    }
}

/// The last word before a client is hung up on; most get none.
pub fn goodbye(error: &DecodeError) -> &'static [u8] {
    match error {
        DecodeError::LineTooLong => b"CLIENT_ERROR line too long\r\n",
        DecodeError::Refused { refusal: reason, .. } => refusal(*reason),
        DecodeError::Garbage | DecodeError::Http | DecodeError::Binary => b"",
    }
}

/// A request that no server answered.
pub fn failure(failure: Failure, out: &mut Output) {
    let tail = out.tail();
    tail.extend_from_slice(b"SERVER_ERROR ");
    tail.extend_from_slice(failure.client_message().as_bytes());
    tail.extend_from_slice(b"\r\n");
}

/// What a reply means to a client that sent a classic command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Written, and as good as it gets.
    Good,
    /// Nothing there. For retrievals nothing is written.
    Miss,
    /// The server refused; its own words are written.
    Refused,
    /// The reply does not fit the request. Nothing is written.
    Unfit(Failure),
}

/// The reply of `mg k f v`, as `VALUE`.
pub fn value(reply: &Reply, with_cas: bool, out: &mut Output) -> Outcome {
    match reply.status {
        Status::Value => {
            let (Some(key), Some(flags)) = (reply.flag(b'k'), reply.flag(b'f')) else {
                return Outcome::Unfit(Failure::Nonsense);
            };
            let cas = if with_cas { Some(reply.token().unwrap_or_default()) } else { None };
            classic::write_value(out, key, flags, cas, &reply.value);
            Outcome::Good
        }
        Status::Miss => Outcome::Miss,
        Status::TooLarge => Outcome::Unfit(Failure::TooLarge),
        Status::Error => Outcome::Refused,
        Status::Done
        | Status::NotFound
        | Status::NotStored
        | Status::Exists
        | Status::Noop
        | Status::Debug
        | Status::End
        | Status::Stat
        | Status::Classic => Outcome::Unfit(Failure::Nonsense),
    }
}

/// A request with one line for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Single {
    /// `set` and its kin.
    Store,
    /// `delete`.
    Delete,
    /// `incr`, `decr`.
    Arith,
    /// `touch`.
    Touch,
    /// `version` and other classic commands, passed on as they are.
    Line,
}

/// The reply of any other request, as one line.
pub fn single(what: Single, reply: &Reply, out: &mut Output) -> Outcome {
    let (line, outcome): (&[u8], _) = match (what, reply.status) {
        (Single::Store, Status::Done) => (b"STORED\r\n", Outcome::Good),
        (Single::Store, Status::NotStored) => (b"NOT_STORED\r\n", Outcome::Miss),
        (Single::Store, Status::Exists) => (b"EXISTS\r\n", Outcome::Miss),
        (Single::Delete, Status::Done) => (b"DELETED\r\n", Outcome::Good),
        (Single::Touch, Status::Done) => (b"TOUCHED\r\n", Outcome::Good),
        (Single::Touch, Status::Miss) => (b"NOT_FOUND\r\n", Outcome::Miss),
        (Single::Store | Single::Delete | Single::Arith, Status::NotFound) => {
            (b"NOT_FOUND\r\n", Outcome::Miss)
        }
        (Single::Arith, Status::Value) => {
            out.extend_from_slice(&reply.value);
            (b"\r\n", Outcome::Good)
        }
        (Single::Line, Status::Classic) => {
            out.extend_from_slice(reply.line());
            (b"\r\n", Outcome::Good)
        }
        (_, Status::Error) => {
            out.extend_from_slice(reply.line());
            (b"\r\n", Outcome::Refused)
        }
        (_, _) => return Outcome::Unfit(Failure::Nonsense),
    };
    out.extend_from_slice(line);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn reply(status: Status, line: &'static str, value: &'static str) -> Reply {
        Reply::new(status, Bytes::from_static(line.as_bytes()), Bytes::from_static(value.as_bytes()))
    }

    fn written(output: &Output) -> String {
        String::from_utf8_lossy(output.front()).into_owned()
    }

    #[test]
    fn a_value_is_told_as_memcached_tells_it() {
        let mut out = Output::new();
        let hit = reply(Status::Value, "VA 3 ka f7 c12", "xyz");
        assert_eq!(value(&hit, false, &mut out), Outcome::Good);
        assert_eq!(value(&hit, true, &mut out), Outcome::Good);
        assert_eq!(value(&reply(Status::Miss, "EN", ""), true, &mut out), Outcome::Miss);
        assert_eq!(written(&out), "VALUE a 7 3\r\nxyz\r\nVALUE a 7 3 12\r\nxyz\r\n");
    }

    #[test]
    fn a_reply_to_another_request_is_nonsense_and_writes_nothing() {
        let mut out = Output::new();
        let nonsense = Outcome::Unfit(Failure::Nonsense);
        assert_eq!(value(&reply(Status::Done, "HD", ""), false, &mut out), nonsense);
        assert_eq!(value(&reply(Status::Value, "VA 0", ""), false, &mut out), nonsense);
        assert_eq!(single(Single::Store, &reply(Status::Miss, "EN", ""), &mut out), nonsense);
        assert_eq!(single(Single::Arith, &reply(Status::Done, "HD", ""), &mut out), nonsense);
        assert!(out.is_empty());
    }

    #[test]
    fn every_line_ends_as_a_line() {
        let refusals = [
            Refusal::UnknownCommand,
            Refusal::BadFormat,
            Refusal::BadDataChunk,
            Refusal::InvalidExptime,
            Refusal::InvalidDelta,
            Refusal::DeleteUsage,
            Refusal::Shutdown,
            Refusal::OneServer,
        ];
        let mut failures = Output::new();
        for reason in Failure::ALL {
            failure(reason, &mut failures);
        }
        let lines = failures.front().split_inclusive(|byte| *byte == b'\n').chain(refusals.map(refusal));
        for line in lines {
            assert_eq!(line.iter().position(|byte| *byte == b'\r'), Some(line.len() - 2));
            assert!(line.ends_with(b"\r\n"));
        }
    }
}
