//! The words for the client: the only place that turns results and errors into bytes.
//!
//! All words are memcached 1.6.18's own, except those that only a proxy has need of. A client is told in the
//! language it asked in: [`To`] says which.

mod binary;
mod classic;
mod meta;

use groove_common::error::Classified;

use crate::error::Failure;
use crate::wire::meta::Reply;
use crate::wire::output::Piece;
use crate::wire::request::{BadFlags, DecodeError, Refusal, To};
use crate::wire::{Output, binary as packets};

pub use classic::value;

/// The last line of a retrieval and of `stats`.
pub const END: &[u8] = b"END\r\n";
/// Done, where there is nothing to say.
pub const OK: &[u8] = b"OK\r\n";
/// The listener has no room.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"ERROR Too many open connections\r\n";

/// What TLS calls `protocol_version`, fatal (RFC 8446, section 6): a client that tries TLS on a port without
/// it learns so at once, instead of waiting for a line to be answered.
const TLS_ALERT: &[u8] = &[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46];

/// What was done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was asked for.
    Get,
    /// Its expiry was set, and the value left where it was.
    Touch,
    /// `set` and its kin.
    Store,
    /// `delete`.
    Delete,
    /// `incr`, `decr`.
    Arith,
    /// `me`.
    Debug,
}

/// What an answer has to know of its request.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// How to answer.
    pub to: To,
    /// What was done; none for a classic line that is passed on, such as a version.
    pub kind: Option<Kind>,
    /// The key: as it travels for a meta client; for a binary one only if the answer has it.
    pub key: &'a [u8],
    /// A meta client's key is in base64.
    pub is_coded: bool,
    /// A meta client's flags.
    pub flags: &'a [u8],
}

/// What a reply means to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Written, and as good as it gets.
    Good,
    /// Nothing there, or a condition that did not hold. For classic retrievals nothing is written.
    Miss,
    /// The server refused; its own words are written.
    Refused,
    /// The reply does not fit the request. Nothing is written.
    Unfit(Failure),
}

/// The reply to anything but a classic retrieval.
pub fn one(question: &Question<'_>, reply: &Reply<impl Piece>, out: &mut Output) -> Outcome {
    match question.to {
        To::Classic { noreply } => classic::one(question.kind, noreply, reply, out),
        To::Meta { quiet } => meta::one(question, quiet, reply, out),
        To::Binary { opcode, opaque } => binary::one(question, opcode, opaque, reply, out),
    }
}

/// A request that no server answered. Who asks quietly for values asks for many: as in a classic retrieval of
/// several keys, those that cannot be had count as missing.
pub fn failed(question: &Question<'_>, failure: Failure, out: &mut Output) {
    let is_get = question.kind == Some(Kind::Get);
    match question.to {
        To::Classic { noreply: true } => (),
        To::Meta { quiet: true } if is_get => (),
        To::Binary { opcode, .. } if is_get && packets::is_quiet(opcode) => (),
        To::Classic { noreply: false } | To::Meta { .. } => self::failure(failure, out),
        To::Binary { opcode, opaque } => binary::failure(failure, opcode, opaque, out),
    }
}

/// A broadcast that not all servers have done.
pub fn broadcast_failed(failure: Failure, to: To, out: &mut Output) {
    failed(&Question { to, kind: None, key: b"", is_coded: false, flags: b"" }, failure, out);
}

/// A request that no server answered, for a text client.
pub fn failure(failure: Failure, out: &mut Output) {
    let tail = out.tail();
    tail.extend_from_slice(b"SERVER_ERROR ");
    tail.extend_from_slice(failure.client_message().as_bytes());
    tail.extend_from_slice(b"\r\n");
}

/// A request that cannot be.
pub fn refusal(refusal: Refusal, to: To, out: &mut Output) {
    match to {
        To::Classic { noreply: true } => (),
        To::Classic { noreply: false } | To::Meta { .. } => out.extend_from_slice(line(refusal)),
        To::Binary { opcode, opaque } => binary::refusal(refusal, opcode, opaque, out),
    }
}

fn line(refusal: Refusal) -> &'static [u8] {
    match refusal {
        Refusal::UnknownCommand | Refusal::NoSuchStats => b"ERROR\r\n",
        Refusal::BadFormat | Refusal::BadPacket => b"CLIENT_ERROR bad command line format\r\n",
        Refusal::BadDataChunk => b"CLIENT_ERROR bad data chunk\r\n",
        Refusal::InvalidExptime => b"CLIENT_ERROR invalid exptime argument\r\n",
        Refusal::InvalidDelta => b"CLIENT_ERROR invalid numeric delta argument\r\n",
        Refusal::DeleteUsage => b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
        Refusal::Shutdown => b"ERROR: shutdown not enabled\r\n",
        Refusal::OneServer => b"CLIENT_ERROR this command is for one server, ask it directly\r\n",
        Refusal::TooLarge => b"SERVER_ERROR object too large for cache\r\n",
        Refusal::KeyTooLong => b"CLIENT_ERROR the key is too long\r\n",
        Refusal::Flags(bad) => flags_line(bad),
    }
}

fn flags_line(bad: BadFlags) -> &'static [u8] {
    match bad {
        BadFlags::Duplicate => b"CLIENT_ERROR duplicate flag\r\n",
        BadFlags::Unknown => b"CLIENT_ERROR invalid flag\r\n",
        BadFlags::Any => b"CLIENT_ERROR invalid or duplicate flag\r\n",
        BadFlags::Format => b"CLIENT_ERROR bad command line format\r\n",
        BadFlags::Number => b"CLIENT_ERROR bad token in command line format\r\n",
        BadFlags::Key => b"CLIENT_ERROR error decoding key\r\n",
        BadFlags::ModeLength => b"CLIENT_ERROR incorrect length for M token\r\n",
        BadFlags::StoreMode => b"CLIENT_ERROR invalid mode for ms M token\r\n",
        BadFlags::ArithMode => b"CLIENT_ERROR invalid mode for ma M token\r\n",
        BadFlags::Initial => b"CLIENT_ERROR invalid numeric initial value\r\n",
        BadFlags::Delta => b"CLIENT_ERROR invalid numeric delta value\r\n",
        BadFlags::Opaque => b"CLIENT_ERROR opaque token too long\r\n",
        BadFlags::TooManyForGet => b"CLIENT_ERROR options flags are too long\r\n",
        BadFlags::TooMany => b"CLIENT_ERROR options flags too long\r\n",
    }
}

/// The last word before a client is hung up on; most get none.
pub fn goodbye(error: &DecodeError, to: To, out: &mut Output) {
    match error {
        DecodeError::LineTooLong => out.extend_from_slice(b"CLIENT_ERROR line too long\r\n"),
        DecodeError::Refused { refusal: reason, .. } | DecodeError::HangUp { refusal: reason, .. } => {
            refusal(*reason, to, out);
        }
        DecodeError::Tls => out.extend_from_slice(TLS_ALERT),
        DecodeError::Garbage | DecodeError::Http | DecodeError::BadMagic => (),
    }
}

/// All servers have done it, or there was nothing to do.
pub fn done(to: To, out: &mut Output) {
    match to {
        To::Classic { noreply: true } => (),
        To::Classic { noreply: false } => out.extend_from_slice(OK),
        To::Meta { .. } => out.extend_from_slice(b"MN\r\n"),
        To::Binary { opcode, .. } if packets::is_quiet(opcode) => (),
        To::Binary { opcode, opaque } => binary::status(packets::Status::Done, b"", opcode, opaque, out),
    }
}

/// Statistics, as lines without an end.
pub fn stats(text: &[u8], to: To, out: &mut Output) {
    match to {
        To::Classic { .. } | To::Meta { .. } => {
            out.extend_from_slice(text);
            out.extend_from_slice(END);
        }
        To::Binary { opaque, .. } => packets::write_stats(opaque, text, out),
    }
}

/// What a server said to a broadcast, if it is neither `OK` nor statistics.
pub fn server_words(words: &[u8], is_stats: bool, to: To, out: &mut Output) {
    match to {
        To::Classic { noreply: true } => (),
        To::Classic { noreply: false } | To::Meta { .. } => {
            out.extend_from_slice(words);
            out.extend_from_slice(b"\r\n");
        }
        To::Binary { opcode, opaque } => binary::server_words(words, is_stats, opcode, opaque, out),
    }
}

#[cfg(test)]
mod tests;
