//! `get` of several keys, spoken with a server: one line out, and what of them is there back.
//!
//! ```text
//!   get a b c      ─►
//!                  ◄─   VALUE a 0 1 / x / VALUE c 0 2 / yz / END
//!                             └───────┘         └────────┘    places: behind the key, up to the value's line end
//! ```
//!
//! Half the bytes of as many `mg`, and one answer instead of as many. Servers answer in the order of asking; a key that
//! was not asked for, or not yet, is a sign of lost count.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use super::DecodeError;
use crate::wire::meta::LINE_LEN_MAX;
use crate::wire::output::{BY_REFERENCE_LEN_MIN, Output};
use crate::wire::words::{Span, bytes_of, next_token};
use crate::wire::{Limits, number};

/// The keys of one `get`, one space between them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Keys {
    text: Vec<u8>,
    count: usize,
}

impl Keys {
    /// Asks for another key.
    pub fn push(&mut self, key: &[u8]) {
        if self.count > 0 {
            self.text.push(b' ');
        }
        self.text.extend_from_slice(key);
        self.count += 1;
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut Output) {
        out.extend_from_slice(b"get ");
        out.extend_from_slice(&self.text);
        out.extend_from_slice(b"\r\n");
    }
}

/// What a server has of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items {
    text: Bytes,
    /// By key, in the order of asking.
    places: Vec<Option<Span>>,
    /// The longest value.
    pub value_len_max: usize,
    /// One was over the limit, and has been thrown away.
    pub is_short: bool,
}

impl Items {
    /// What is to be told of the key that was asked for as the `number`th: flags, length and value, with a space before
    /// them and a line end behind.
    pub fn of(&self, number: usize) -> Option<&[u8]> {
        self.places.get(number).copied().flatten().map(|place| bytes_of(&self.text, place))
    }

    /// Appends it to what a client hears.
    pub fn push_to(&self, number: usize, key: &[u8], out: &mut Output) -> bool {
        let Some(place) = self.places.get(number).copied().flatten() else { return false };
        let tail = out.tail();
        if place.len() < BY_REFERENCE_LEN_MIN {
            tail.reserve(b"VALUE ".len() + key.len() + place.len());
        }
        tail.extend_from_slice(b"VALUE ");
        tail.extend_from_slice(key);
        match place.len() {
            ..BY_REFERENCE_LEN_MIN => tail.extend_from_slice(bytes_of(&self.text, place)),
            _ => out.push(&self.text.slice(place.start..place.end)),
        }
        true
    }

    /// Bytes that it holds.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Is nothing there?
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// A server's answer to a `get` of several keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What is there.
    Items(Items),
    /// An error, in the server's words.
    Refused(Bytes),
}

/// Reads the answer to one `get` at a time. Remembers what it has seen of it.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of the input that have been looked at.
    at: usize,
    places: Vec<Option<Span>>,
    /// Where the key that was found last ends in what was asked.
    asked_at: usize,
    value_len_max: usize,
    /// Items that came before one over the limit, which is not kept.
    before: BytesMut,
    is_short: bool,
    /// Bytes of such a one still to be thrown away.
    swallow_len: usize,
}

impl Decoder {
    /// Takes the answer for `keys` off the front of `input`; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`]; none of them can be recovered from.
    pub fn decode(
        &mut self,
        input: &mut BytesMut,
        keys: &Keys,
        limits: &Limits,
    ) -> Result<Option<Answer>, DecodeError> {
        loop {
            if self.swallow_len > 0 {
                let taken = self.swallow_len.min(input.len());
                input.advance(taken);
                self.swallow_len -= taken;
            }
            let rest = input.get(self.at..).unwrap_or_default();
            let Some(feed) = memchr(b'\n', rest) else {
                return if rest.len() > LINE_LEN_MAX { Err(DecodeError::LineTooLong) } else { Ok(None) };
            };
            let line = rest.get(..feed).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(told) = line.strip_prefix(b"VALUE ") else {
                let (is_end, line_len) = (line == b"END", line.len());
                return Ok(Some(self.end(input, is_end, line_len, feed + 1)));
            };
            let key_len = memchr(b' ', told).ok_or(DecodeError::BadValue)?;
            let (key, told) = told.split_at_checked(key_len).ok_or(DecodeError::BadValue)?;
            let value_len = value_len(told).ok_or(DecodeError::BadValue)?;
            if value_len > limits.value_len_max {
                self.pass_over(input, feed + 1, value_len);
                continue;
            }
            let end = feed + 1 + value_len + 2;
            match rest.get(end - 2..end) {
                None => {
                    input.reserve(self.at + end - input.len());
                    return Ok(None);
                }
                Some(b"\r\n") => (),
                Some(_) => return Err(DecodeError::BadValue),
            }
            let from = self.before.len() + self.at;
            let place = Span { start: from + b"VALUE ".len() + key_len, end: from + end };
            self.found(key, keys, place)?;
            self.value_len_max = self.value_len_max.max(value_len);
            self.at += end;
        }
    }

    /// Notes where an item is, and that those that were asked for between it and the one before are not there.
    fn found(&mut self, key: &[u8], keys: &Keys, place: Span) -> Result<(), DecodeError> {
        if self.places.is_empty() {
            self.places.reserve(keys.count);
        }
        while let Some(asked) = next_token(&keys.text, self.asked_at) {
            self.asked_at = asked.end;
            if bytes_of(&keys.text, asked) == key {
                self.places.push(Some(place));
                return Ok(());
            }
            self.places.push(None);
        }
        Err(DecodeError::OtherKey)
    }

    /// What came before is kept; the item at hand is not.
    fn pass_over(&mut self, input: &mut BytesMut, line_len: usize, value_len: usize) {
        self.before.extend_from_slice(input.get(..self.at).unwrap_or_default());
        input.advance(self.at + line_len);
        self.at = 0;
        self.swallow_len = value_len + 2;
        self.is_short = true;
    }

    /// The last line has come.
    fn end(&mut self, input: &mut BytesMut, is_end: bool, line_len: usize, taken_len: usize) -> Answer {
        let Self { at, places, value_len_max, mut before, is_short, .. } = std::mem::take(self);
        if !is_end {
            input.advance(at);
            let mut line = input.split_to(taken_len).freeze();
            line.truncate(line_len);
            return Answer::Refused(line);
        }
        let text = if !before.is_empty() {
            before.extend_from_slice(input.get(..at).unwrap_or_default());
            input.advance(at);
            before.freeze()
        } else if at < BY_REFERENCE_LEN_MIN {
            // Little never keeps a large buffer alive.
            let text = Bytes::copy_from_slice(input.get(..at).unwrap_or_default());
            input.advance(at);
            text
        } else {
            input.split_to(at).freeze()
        };
        input.advance(taken_len);
        Answer::Items(Items { text, places, value_len_max, is_short })
    }
}

/// The length in ` <flags> <length>`.
fn value_len(told: &[u8]) -> Option<usize> {
    let flags = next_token(told, 0)?;
    let len = next_token(told, flags.end)?;
    let digits = bytes_of(told, len);
    // Ten digits are more than a gigabyte, the most a memcached item can have.
    if digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    usize::try_from(number::unsigned(digits)?).ok()
}

#[cfg(test)]
#[path = "items_tests.rs"]
mod tests;
