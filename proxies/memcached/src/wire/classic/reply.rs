//! Classic replies: written for clients, and read where we are a client ourselves.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

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
    let Some(feed) = memchr(b'\n', input) else {
        return if input.len() > limits.line_len_max { Err(DecodeError::LineTooLong) } else { Ok(None) };
    };
    let line_len = feed - usize::from(feed > 0 && input.get(feed - 1) == Some(&b'\r'));
    let line = input.get(..line_len).unwrap_or_default();
    if !line.starts_with(b"VALUE ") {
        let mut line = input.split_to(feed + 1).freeze();
        line.truncate(line_len);
        return Ok(Some(Frame::Line(line)));
    }
    let value_len = line
        .split(|byte| *byte == b' ')
        .nth(3)
        .and_then(number::unsigned)
        .and_then(|len| usize::try_from(len).ok())
        .filter(|len| *len <= limits.value_len_max)
        .ok_or(DecodeError::BadValue)?;
    let (value_at, end) = (feed + 1, feed + 1 + value_len + 2);
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

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
