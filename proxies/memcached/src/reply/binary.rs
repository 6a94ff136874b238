//! Packets of the binary protocol.

use groove_common::error::Classified;

use super::{Kind, Outcome, Question};
use crate::error::Failure;
use crate::wire::binary::{self, Head, Status, is_quiet, is_touch, write_status, write_value};
use crate::wire::meta::{self, Reply};
use crate::wire::output::Piece;
use crate::wire::request::Refusal;
use crate::wire::{Output, number};

pub(super) fn status(status: Status, words: &[u8], opcode: u8, opaque: [u8; 4], out: &mut Output) {
    write_status(Head::new(opcode, opaque, status), words, out);
}

/// The reply to anything that is one packet.
pub(super) fn one(
    question: &Question<'_>,
    opcode: u8,
    opaque: [u8; 4],
    reply: &Reply<impl Piece>,
    out: &mut Output,
) -> Outcome {
    use meta::Status as Told;
    let error = |told: Status, out: &mut Output| {
        status(told, told.words(), opcode, opaque, out);
        Outcome::Miss
    };
    match (question.kind, reply.status) {
        (Some(Kind::Get | Kind::Touch), Told::Value | Told::Done) => {
            item(question, opcode, opaque, reply, out)
        }
        (Some(Kind::Get | Kind::Touch), Told::Miss) => {
            miss(question.key, opcode, opaque, out);
            Outcome::Miss
        }
        (Some(Kind::Store), Told::Done) => good(b"", opcode, opaque, reply, out),
        (Some(Kind::Store), Told::NotStored) => error(binary::not_stored(opcode), out),
        (Some(Kind::Delete), Told::Done) => {
            if !is_quiet(opcode) {
                status(Status::Done, b"", opcode, opaque, out);
            }
            Outcome::Good
        }
        (Some(Kind::Arith), Told::Value) => {
            let Some(value) = number::unsigned(reply.value()) else {
                return Outcome::Unfit(Failure::Nonsense);
            };
            good(&value.to_be_bytes(), opcode, opaque, reply, out)
        }
        (Some(Kind::Store | Kind::Delete | Kind::Arith), Told::NotFound) => error(Status::NotFound, out),
        (Some(Kind::Store | Kind::Delete | Kind::Arith), Told::Exists) => error(Status::Exists, out),
        (None, Told::Classic) => {
            let version = reply.line().strip_prefix(b"VERSION ").unwrap_or(reply.line());
            status(Status::Done, version, opcode, opaque, out);
            Outcome::Good
        }
        (_, Told::Error) => {
            server_words(reply.line(), false, opcode, opaque, out);
            Outcome::Refused
        }
        (_, Told::TooLarge) => Outcome::Unfit(Failure::TooLarge),
        (_, _) => Outcome::Unfit(Failure::Nonsense),
    }
}

/// An answer that a quiet client need not hear.
fn good(body: &[u8], opcode: u8, opaque: [u8; 4], reply: &Reply<impl Piece>, out: &mut Output) -> Outcome {
    if !is_quiet(opcode) {
        let cas = reply.token().unwrap_or_default();
        write_status(Head { cas, ..Head::new(opcode, opaque, Status::Done) }, body, out);
    }
    Outcome::Good
}

fn item(
    question: &Question<'_>,
    opcode: u8,
    opaque: [u8; 4],
    reply: &Reply<impl Piece>,
    out: &mut Output,
) -> Outcome {
    let Some(flags) = reply.flag(b'f').and_then(number::flags) else {
        return Outcome::Unfit(Failure::Nonsense);
    };
    if (reply.status == meta::Status::Value) == is_touch(opcode) {
        return Outcome::Unfit(Failure::Nonsense);
    }
    let head = Head { cas: reply.token().unwrap_or_default(), ..Head::new(opcode, opaque, Status::Done) };
    write_value(head, flags, question.key, &reply.value, out);
    Outcome::Good
}

/// Who asked for the key to be told hears it instead of words.
fn miss(key: &[u8], opcode: u8, opaque: [u8; 4], out: &mut Output) {
    let head = Head::new(opcode, opaque, Status::NotFound);
    match key.is_empty() {
        _ if is_quiet(opcode) => (),
        true => write_status(head, Status::NotFound.words(), out),
        false => {
            binary::write_head(head, 0, key.len(), 0, out);
            out.extend_from_slice(key);
        }
    }
}

/// A request that no server answered.
pub(super) fn failure(failure: Failure, opcode: u8, opaque: [u8; 4], out: &mut Output) {
    let told = match failure {
        Failure::Down | Failure::Lost | Failure::TimedOut | Failure::NoServer => Status::Temporary,
        Failure::Contended | Failure::OverLimit(_) | Failure::NotReady => Status::Temporary,
        Failure::Nonsense => Status::Internal,
        Failure::TooLarge => Status::TooLarge,
    };
    status(told, failure.client_message().as_bytes(), opcode, opaque, out);
}

/// A request that cannot be.
pub(super) fn refusal(refusal: Refusal, opcode: u8, opaque: [u8; 4], out: &mut Output) {
    let told = match refusal {
        Refusal::UnknownCommand | Refusal::Shutdown | Refusal::OneServer => Status::UnknownCommand,
        Refusal::TooLarge => Status::TooLarge,
        Refusal::NoSuchStats => Status::NotFound,
        Refusal::KeyTooLong => {
            let words = b"A key with such bytes may have 186 of them";
            return status(Status::Invalid, words, opcode, opaque, out);
        }
        Refusal::BadFormat
        | Refusal::BadDataChunk
        | Refusal::InvalidExptime
        | Refusal::InvalidDelta
        | Refusal::DeleteUsage
        | Refusal::Flags(_)
        | Refusal::BadPacket => Status::Invalid,
    };
    status(told, told.words(), opcode, opaque, out);
}

/// What a server said in words, as a status.
pub(super) fn server_words(words: &[u8], is_stats: bool, opcode: u8, opaque: [u8; 4], out: &mut Output) {
    let rest = |prefix: &[u8]| words.strip_prefix(prefix);
    if is_stats {
        return match words {
            // `stats reset` and the like: an end without statistics.
            b"RESET" | b"OK" => status(Status::Done, b"", opcode, opaque, out),
            _ => status(Status::NotFound, Status::NotFound.words(), opcode, opaque, out),
        };
    }
    if words.ends_with(b"object too large for cache") {
        return status(Status::TooLarge, Status::TooLarge.words(), opcode, opaque, out);
    }
    if words.ends_with(b"non-numeric value") {
        return status(Status::NotNumeric, Status::NotNumeric.words(), opcode, opaque, out);
    }
    match (rest(b"SERVER_ERROR "), rest(b"CLIENT_ERROR ")) {
        (Some(words), _) if words.to_ascii_lowercase().starts_with(b"out of memory") => {
            status(Status::OutOfMemory, words, opcode, opaque, out);
        }
        (Some(words), _) => status(Status::Internal, words, opcode, opaque, out),
        (None, Some(words)) => status(Status::Invalid, words, opcode, opaque, out),
        (None, None) => status(Status::Internal, words, opcode, opaque, out),
    }
}
