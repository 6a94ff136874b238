//! A client's bytes become requests, whatever it speaks.
//!
//! The first byte of a connection decides, as in memcached: 0x80 is the binary protocol for as long as the
//! connection lives, anything else is text, where classic and meta commands may follow each other freely.

use bytes::{Buf, BytesMut};
use memchr::memchr;

use super::request::{DecodeError, Request};
use super::words::{bytes_of, next_token};
use super::{COMMAND_LEN_MAX, Limits, binary, classic, meta};

/// Reads requests from the front of a buffer. Remembers only what it may not look at twice.
#[derive(Debug, Default)]
pub struct Decoder {
    language: Language,
    swallow: Swallow,
    /// Bytes of an unfinished line known to hold no line feed.
    scanned_len: usize,
}

/// What the first byte has told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Nothing has come yet.
    #[default]
    Unknown,
    /// Classic and meta commands.
    Text,
    /// Packets.
    Binary,
}

/// Bytes of a value that nobody wants, still to be thrown away.
#[derive(Debug, Default)]
pub struct Swallow {
    pub(super) len: usize,
}

impl Swallow {
    fn take(&mut self, input: &mut BytesMut) {
        if self.len > 0 {
            let taken = self.len.min(input.len());
            input.advance(taken);
            self.len -= taken;
        }
    }
}

/// A longer line cannot have come with one read of memcached's, which then looks at its beginning.
const ONE_READ_LEN_MAX: usize = 16 * 1024;

/// How TLS begins: a record of a handshake, of any version there has been.
const TLS_START: &[u8] = &[0x16, 0x03];

impl Decoder {
    /// One that goes on where another has rested.
    pub fn resume(language: Language) -> Self {
        Self { language, ..Self::default() }
    }

    /// All that has to be remembered between two requests; `None` in the middle of one.
    pub fn rest(&self) -> Option<Language> {
        (self.swallow.len == 0 && self.scanned_len == 0).then_some(self.language)
    }

    /// Takes one request off the front of `input`; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`]; after [`DecodeError::Refused`] decoding goes on behind the refused request.
    pub fn decode(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<Option<Request>, DecodeError> {
        self.swallow.take(input);
        if input.is_empty() {
            return Ok(None);
        }
        match self.language {
            Language::Unknown => {
                match input.get(..2) {
                    Some(start) if start == TLS_START => return Err(DecodeError::Tls),
                    None if input.first() == TLS_START.first() => return Ok(None),
                    Some(_) | None => (),
                }
                self.language = match input.first() {
                    Some(&binary::REQUEST_MAGIC) => Language::Binary,
                    Some(_) | None => Language::Text,
                };
                self.decode(input, limits)
            }
            Language::Binary => binary::decode(input, limits, &mut self.swallow),
            Language::Text => self.text(input, limits),
        }
    }

    fn text(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<Option<Request>, DecodeError> {
        let unseen = input.get(self.scanned_len..).unwrap_or_default();
        let Some(feed) = memchr(b'\n', unseen).map(|at| at + self.scanned_len) else {
            self.scanned_len = input.len();
            return unfinished_line(input, limits).map(|()| None);
        };
        self.scanned_len = 0;
        if feed > ONE_READ_LEN_MAX {
            unfinished_line(input.get(..feed).unwrap_or_default(), limits)?;
        }
        let line_len = command_len(input.get(..feed).unwrap_or_default());
        let line = input.get(..line_len).unwrap_or_default();
        let swallow = &mut self.swallow;
        match next_token(line, 0).map(|span| bytes_of(line, span)) {
            Some(b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas") => {
                classic::store(input, line_len, feed + 1, limits, swallow)
            }
            Some(b"ms") => meta::store(input, line_len, feed + 1, limits, swallow),
            Some([b'm', _]) => {
                let line = input.split_to(feed + 1).freeze().slice(..line_len);
                meta::command(line).map(Some)
            }
            Some(_) | None => {
                let line = input.split_to(feed + 1).freeze().slice(..line_len);
                classic::command(line).map(Some)
            }
        }
    }
}

/// The line before `feed`, without its carriage return, up to the first NUL (where C strings end).
fn command_len(line: &[u8]) -> usize {
    let len = match line.last() {
        // A lone "\r\n" keeps its carriage return in memcached; either way it is no command.
        Some(b'\r') if line.len() > 1 => line.len() - 1,
        Some(_) | None => line.len(),
    };
    line.get(..len).and_then(|line| memchr(0, line)).unwrap_or(len)
}

/// Is it worth waiting for the end of this line?
fn unfinished_line(line: &[u8], limits: &Limits) -> Result<(), DecodeError> {
    if line.len() <= COMMAND_LEN_MAX {
        return Ok(());
    }
    let spaces = line.iter().take_while(|byte| **byte == b' ').count();
    let command = line.get(spaces..).unwrap_or_default();
    if spaces > 100 || !(command.starts_with(b"get ") || command.starts_with(b"gets ")) {
        return Err(DecodeError::Garbage);
    }
    if line.len() > limits.line_len_max {
        return Err(DecodeError::LineTooLong);
    }
    Ok(())
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
