//! What meta clients hear: the server's answer, told with the client's flags in the client's order.

use super::{Reply, Status};
use crate::wire::number;
use crate::wire::output::{Output, Piece};
use crate::wire::words::{bytes_of, next_token};

/// Writes the answer `word` (`HD`, `VA` and their kin). `key` is the client's key as it travels, `flags` what
/// the client asked with; of those each that tells something is answered from `reply`.
pub fn write(
    word: &[u8],
    key: &[u8],
    is_coded: bool,
    flags: &[u8],
    reply: &Reply<impl Piece>,
    out: &mut Output,
) {
    let tail = out.tail();
    tail.extend_from_slice(word);
    if reply.status == Status::Value {
        tail.extend_from_slice(b" ");
        number::write(reply.value().len() as u64, tail);
    }
    let mut at = 0;
    while let Some(span) = next_token(flags, at) {
        at = span.end;
        let flag = bytes_of(flags, span);
        match flag.first() {
            Some(b'O') => {
                tail.extend_from_slice(b" ");
                tail.extend_from_slice(flag);
            }
            Some(b'k') => {
                tail.extend_from_slice(b" k");
                tail.extend_from_slice(key);
                if is_coded {
                    tail.extend_from_slice(b" b");
                }
            }
            Some(b'c') => {
                if let Some(token) = reply.token() {
                    tail.extend_from_slice(b" c");
                    // A store that was not done tells 0.
                    number::write(if reply.cas() == Some(0) { 0 } else { token }, tail);
                }
            }
            Some(letter @ (b's' | b't' | b'f' | b'l' | b'h')) => {
                if let Some(told) = reply.flag(*letter) {
                    tail.extend_from_slice(&[b' ', *letter]);
                    tail.extend_from_slice(told);
                }
            }
            Some(_) | None => (),
        }
    }
    // Whether the client has won, whether the item is stale, whether another has won already.
    for mark in reply.marks() {
        tail.extend_from_slice(&[b' ', mark]);
    }
    tail.extend_from_slice(b"\r\n");
    if reply.status == Status::Value {
        reply.value.push_to(out);
        out.extend_from_slice(b"\r\n");
    }
}
