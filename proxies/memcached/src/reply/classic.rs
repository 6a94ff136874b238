//! Lines of the classic protocol.

use super::{Kind, Outcome};
use crate::error::Failure;
use crate::wire::meta::{Reply, Status};
use crate::wire::output::Piece;
use crate::wire::{Output, classic};

/// The reply of `mg k f v`, as `VALUE`.
pub fn value(reply: &Reply<impl Piece>, key: &[u8], with_cas: bool, out: &mut Output) -> Outcome {
    match reply.status {
        Status::Value => {
            let Some(flags) = reply.flag(b'f') else {
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

/// The reply of any other request, as one line, or as none with `noreply`.
pub(super) fn one(kind: Option<Kind>, noreply: bool, reply: &Reply<impl Piece>, out: &mut Output) -> Outcome {
    let (line, outcome): (&[u8], _) = match (kind, reply.status) {
        (Some(Kind::Store), Status::Done) => (b"STORED", Outcome::Good),
        (Some(Kind::Store), Status::NotStored) => (b"NOT_STORED", Outcome::Miss),
        (Some(Kind::Store), Status::Exists) => (b"EXISTS", Outcome::Miss),
        (Some(Kind::Delete), Status::Done) => (b"DELETED", Outcome::Good),
        (Some(Kind::Touch), Status::Done) => (b"TOUCHED", Outcome::Good),
        (Some(Kind::Touch), Status::Miss) => (b"NOT_FOUND", Outcome::Miss),
        (Some(Kind::Store | Kind::Delete | Kind::Arith), Status::NotFound) => (b"NOT_FOUND", Outcome::Miss),
        (Some(Kind::Arith), Status::Value) => (reply.value(), Outcome::Good),
        (None, Status::Classic) => (reply.line(), Outcome::Good),
        (_, Status::Error) => (reply.line(), Outcome::Refused),
        (_, _) => return Outcome::Unfit(Failure::Nonsense),
    };
    if !noreply {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    outcome
}
