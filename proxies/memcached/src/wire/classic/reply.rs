//! Classic replies: written for clients, and read where we are a client ourselves.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use crate::wire::meta::LINE_LEN_MAX;
use crate::wire::output::{BY_REFERENCE_LEN_MIN, Output, Piece};
use crate::wire::{Limits, number};

/// What stands around key, flags and value: words, spaces, two numbers, line ends, and the `END` behind.
const WORDS_LEN_MAX: usize = 64;

/// `VALUE key flags length [cas]`, the value, and their line ends.
pub fn write_value(out: &mut Output, key: &[u8], flags: &[u8], cas: Option<u64>, value: &impl Piece) {
    let value_len = value.as_ref().len();
    let tail = out.tail();
    let copied_len = if value_len < BY_REFERENCE_LEN_MIN { value_len } else { 0 };
    tail.reserve(WORDS_LEN_MAX + key.len() + flags.len() + copied_len);
    tail.extend_from_slice(b"VALUE ");
    tail.extend_from_slice(key);
    tail.extend_from_slice(b" ");
    tail.extend_from_slice(flags);
    // In few pieces: each costs more than its few bytes.
    match cas {
        None => number::write_between(b" ", value_len as u64, b"\r\n", tail),
        Some(cas) => {
            number::write_between(b" ", value_len as u64, b" ", tail);
            number::write_between(b"", cas, b"\r\n", tail);
        }
    }
    value.push_to(out);
    out.extend_from_slice(b"\r\n");
}

/// One frame of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// `VALUE …` with its value. More frames follow, up to a line `END`.
    Value {
        /// The line without its end.
        line: Bytes,
        /// The value without its line end.
        value: Bytes,
    },
    /// Any other line, without its end.
    Line(Bytes),
}

/// An answer that is not memcached's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A line without an end.
    #[error("a line over the limit")]
    LineTooLong,
    /// A value whose length is wrong, or over the limit.
    #[error("a value with a wrong length")]
    BadValue,
    /// A value of a key that was not asked for.
    #[error("a value of another key")]
    OtherKey,
}

/// Takes one frame off the front of `input`; `None` if more bytes are needed.
///
/// # Errors
///
/// See [`DecodeError`]; none of them can be recovered from.
pub fn decode(input: &mut BytesMut, limits: &Limits) -> Result<Option<Frame>, DecodeError> {
    let (line_len, value_at, value_len) = match head(input)? {
        Head::Partial => return Ok(None),
        Head::Last { line_len, len } => {
            let mut line = input.split_to(len).freeze();
            line.truncate(line_len);
            return Ok(Some(Frame::Line(line)));
        }
        Head::Item { len, value_len, .. } => (len - 2, len, value_len),
    };
    if value_len > limits.value_len_max {
        return Err(DecodeError::BadValue);
    }
    let end = value_at + value_len + 2;
    let Some(line_end) = input.get(end - 2..end) else {
        return Ok(None);
    };
    if line_end != b"\r\n" {
        return Err(DecodeError::BadValue);
    }
    let mut line = input.split_to(end).freeze();
    let value = line.slice(value_at..end - 2);
    line.truncate(line_len);
    Ok(Some(Frame::Value { line, value }))
}

/// How an item's line begins.
pub(super) const VALUE: &[u8; 6] = b"VALUE ";

/// A line of an answer.
pub(super) enum Head {
    /// It has not come whole.
    Partial,
    /// An item's, which is so long with its end.
    Item { len: usize, key_len: usize, value_len: usize },
    /// Another: the last.
    Last { line_len: usize, len: usize },
}

/// The line of an item at the front of `rest`, if it is `key`'s and like most: how long it is with its end, and how long
/// the value.
#[inline]
pub(super) fn head_of(rest: &[u8], key: &[u8]) -> Option<(usize, usize)> {
    let told = rest.strip_prefix(VALUE)?.strip_prefix(key)?.strip_prefix(b" ")?;
    let (_, flags_len) = number_at(told, 0);
    let (value_len, end) = number_at(told, flags_len + 1);
    let is_line = matches!(flags_len, 1..=10)
        && matches!(end - flags_len, 2..=11)
        && told.get(flags_len) == Some(&b' ')
        && told.get(end..end + 2) == Some(b"\r\n");
    is_line.then_some((VALUE.len() + key.len() + 1 + end + 2, value_len))
}

/// Looks at the line at the front of `rest`.
pub(super) fn head(rest: &[u8]) -> Result<Head, DecodeError> {
    let Some((VALUE, told)) = rest.split_first_chunk() else {
        let Some(feed) = memchr(b'\n', rest) else { return partial(rest) };
        let line_len = feed - usize::from(feed > 0 && rest.get(feed - 1) == Some(&b'\r'));
        return if feed > LINE_LEN_MAX {
            Err(DecodeError::LineTooLong)
        } else {
            Ok(Head::Last { line_len, len: feed + 1 })
        };
    };
    let Some(key_len) = told.iter().position(|byte| matches!(byte, b' ' | b'\n')) else {
        return partial(rest);
    };
    // ` <flags> <length>[ <cas>]`, and the line's end. Ten digits are more than a gigabyte, the most a memcached item
    // can have; a CAS value may have twenty.
    let flags_at = VALUE.len() + key_len + 1;
    let (_, flags_end) = number_at(rest, flags_at);
    let (value_len, mut end) = number_at(rest, flags_end + 1);
    let mut is_well = told.get(key_len) == Some(&b' ')
        && rest.get(flags_end) == Some(&b' ')
        && matches!(flags_end - flags_at, 1..=10)
        && matches!(end - flags_end, 2..=11);
    if rest.get(end) == Some(&b' ') {
        let (_, cas_end) = number_at(rest, end + 1);
        is_well &= matches!(cas_end - end, 2..=21);
        end = cas_end;
    }
    match rest.get(end..end + 2) {
        Some(b"\r\n") if is_well && end < LINE_LEN_MAX => Ok(Head::Item { len: end + 2, key_len, value_len }),
        None if !rest.contains(&b'\n') => partial(rest),
        Some(_) | None => Err(DecodeError::BadValue),
    }
}

/// The number that begins at `at`, and where it ends. What it is says nothing if it has too many digits.
fn number_at(text: &[u8], at: usize) -> (usize, usize) {
    let (mut number, mut end) = (0_usize, at);
    while let Some(digit @ b'0'..=b'9') = text.get(end) {
        number = number.wrapping_mul(10).wrapping_add(usize::from(digit - b'0'));
        end += 1;
    }
    (number, end)
}

fn partial(rest: &[u8]) -> Result<Head, DecodeError> {
    if rest.len() > LINE_LEN_MAX { Err(DecodeError::LineTooLong) } else { Ok(Head::Partial) }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
