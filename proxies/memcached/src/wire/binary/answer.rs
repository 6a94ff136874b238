//! Packets for clients.

use super::{ANSWER_MAGIC, STAT, Status};
use crate::wire::output::{Output, Piece};

/// What an answer's head tells.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// The request's.
    pub opcode: u8,
    /// The request's.
    pub opaque: [u8; 4],
    /// How it ended.
    pub status: Status,
    /// The item's CAS value, 0 if there is none.
    pub cas: u64,
}

impl Head {
    /// An answer that carries no CAS value.
    pub fn new(opcode: u8, opaque: [u8; 4], status: Status) -> Self {
        Self { opcode, opaque, status, cas: 0 }
    }
}

/// Writes a head. What it announces has to follow: extras, key, value, in this order.
pub fn write_head(head: Head, extras_len: u8, key_len: usize, value_len: usize, out: &mut Output) {
    let key_len = u16::try_from(key_len).unwrap_or(u16::MAX);
    let body_len = usize::from(extras_len) + usize::from(key_len) + value_len;
    let body_len = u32::try_from(body_len).unwrap_or(u32::MAX);
    let tail = out.tail();
    tail.extend_from_slice(&[ANSWER_MAGIC, head.opcode]);
    tail.extend_from_slice(&key_len.to_be_bytes());
    tail.extend_from_slice(&[extras_len, 0]);
    tail.extend_from_slice(&head.status.code().to_be_bytes());
    tail.extend_from_slice(&body_len.to_be_bytes());
    tail.extend_from_slice(&head.opaque);
    tail.extend_from_slice(&head.cas.to_be_bytes());
}

/// Writes an answer that has nothing but words, or not even those.
pub fn write_status(head: Head, words: &[u8], out: &mut Output) {
    write_head(head, 0, 0, words.len(), out);
    out.extend_from_slice(words);
}

/// Writes an item.
pub fn write_value(head: Head, flags: u32, key: &[u8], value: &impl Piece, out: &mut Output) {
    write_head(head, 4, key.len(), value.as_ref().len(), out);
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(key);
    value.push_to(out);
}

/// Writes statistics, told as the lines of a text answer without its end: a packet for each, and an empty one.
pub fn write_stats(opaque: [u8; 4], text: &[u8], out: &mut Output) {
    let head = Head::new(STAT, opaque, Status::Done);
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(stat) = line.strip_prefix(b"STAT ") else { continue };
        let name_len = stat.iter().position(|byte| *byte == b' ').unwrap_or(stat.len());
        let (name, value) = stat.split_at_checked(name_len).unwrap_or((stat, b""));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        write_head(head, 0, name.len(), value.len(), out);
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    write_head(head, 0, 0, 0, out);
}
