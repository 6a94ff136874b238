//! Lines of the meta protocol.

use super::{Kind, Outcome, Question};
use crate::error::Failure;
use crate::wire::Output;
use crate::wire::meta::{self, Reply, Status};
use crate::wire::output::Piece;

/// What a quiet client hears: misses of `mg`, and of the others what is not as good as it gets. Errors always.
pub(super) fn one(
    question: &Question<'_>,
    quiet: bool,
    reply: &Reply<impl Piece>,
    out: &mut Output,
) -> Outcome {
    let (word, outcome): (&[u8], _) = match (question.kind, reply.status) {
        (Some(Kind::Get | Kind::Touch | Kind::Arith), Status::Value) => (b"VA", Outcome::Good),
        (Some(Kind::Get | Kind::Touch), Status::Done) => (b"HD", Outcome::Good),
        (Some(Kind::Get | Kind::Touch | Kind::Debug), Status::Miss) => (b"EN", Outcome::Miss),
        (Some(Kind::Store | Kind::Delete | Kind::Arith), Status::Done) => (b"HD", Outcome::Good),
        (Some(Kind::Store | Kind::Arith), Status::NotStored) => (b"NS", Outcome::Miss),
        (Some(Kind::Store | Kind::Delete | Kind::Arith), Status::NotFound) => (b"NF", Outcome::Miss),
        (Some(Kind::Store | Kind::Delete | Kind::Arith), Status::Exists) => (b"EX", Outcome::Miss),
        (Some(Kind::Debug), Status::Debug) => {
            debug(question, reply, out);
            return Outcome::Good;
        }
        (_, Status::Error) => {
            out.extend_from_slice(reply.line());
            out.extend_from_slice(b"\r\n");
            return Outcome::Refused;
        }
        (_, Status::TooLarge) => return Outcome::Unfit(Failure::TooLarge),
        (_, _) => return Outcome::Unfit(Failure::Nonsense),
    };
    let is_get = matches!(question.kind, Some(Kind::Get | Kind::Touch));
    let is_silent = match outcome {
        Outcome::Good => quiet && !is_get,
        Outcome::Miss => quiet && is_get,
        Outcome::Refused | Outcome::Unfit(_) => false,
    };
    if !is_silent {
        meta::write_answer(word, question.key, question.is_coded, question.flags, reply, out);
    }
    outcome
}

/// What a server knows of an item, under the client's name for it.
fn debug(question: &Question<'_>, reply: &Reply<impl Piece>, out: &mut Output) {
    let known = reply.line().splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    out.extend_from_slice(b"ME ");
    out.extend_from_slice(question.key);
    out.extend_from_slice(b" ");
    out.extend_from_slice(known);
    out.extend_from_slice(b"\r\n");
}
