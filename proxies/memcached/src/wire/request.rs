//! Classic requests: lines and values from a client, read as memcached 1.6.18 reads them.

mod line;

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use line::{StoreHead, bytes_of, command, next_token};

use super::{COMMAND_LEN_MAX, Limits};

/// One complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `get`, `gets`, `gat`, `gats` with any number of keys.
    Get(Get),
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`.
    Store(Store),
    /// A store whose value is over the limit. The value is swallowed by the decoder; what is left to do is
    /// the error line and, for a `set`, taking the old value away, as memcached does.
    Oversized(Oversized),
    /// `incr`, `decr`.
    Arith(Arith),
    /// `touch`.
    Touch(Touch),
    /// `delete`.
    Delete(Delete),
    /// `flush_all`.
    FlushAll {
        /// Seconds from now, or a Unix time; never below 0.
        delay: i32,
        /// No answer is wanted.
        noreply: bool,
    },
    /// `verbosity`.
    Verbosity {
        /// As given.
        level: u32,
        /// No answer is wanted.
        noreply: bool,
    },
    /// `cache_memlimit`.
    MemLimit {
        /// As given.
        megabytes: u32,
        /// No answer is wanted.
        noreply: bool,
    },
    /// `stats` with what follows it.
    Stats(Stats),
    /// `version`.
    Version,
    /// `quit`.
    Quit,
}

/// A retrieval. The keys are checked but not taken apart: a line may hold a hundred thousand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    line: Bytes,
    key: Option<Span>,
    /// The answers carry the CAS token.
    pub cas: bool,
    /// `gat` and `gats`: the new expiry.
    pub touch: Option<i32>,
}

impl Get {
    /// The key at hand; none when all have been passed.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.map(|span| bytes_of(&self.line, span))
    }

    /// Goes on to the next key.
    pub fn advance(&mut self) {
        self.key = self.key.and_then(|span| next_token(&self.line, span.end));
    }
}

/// The place of a word in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
}

/// A key in the line it came in.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    line: Bytes,
    span: Span,
}

impl Key {
    /// Its bytes: 1 to [`super::KEY_LEN_MAX`], no space, no NUL, no line feed.
    pub fn as_bytes(&self) -> &[u8] {
        bytes_of(&self.line, self.span)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.line.slice(self.span.start..self.span.end), f)
    }
}

/// What a store does when the key is or is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Stores in any case.
    Set,
    /// Stores if the key is not there.
    Add,
    /// Stores if the key is there.
    Replace,
    /// Puts the value behind the one that is there.
    Append,
    /// Puts the value before the one that is there.
    Prepend,
    /// Stores if the item's CAS token is this one.
    Cas(u64),
}

/// A store with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Where.
    pub key: Key,
    /// How.
    pub mode: Mode,
    /// The client's own bits.
    pub flags: u32,
    /// Seconds from now, a Unix time, 0 for never, below 0 for at once.
    pub exptime: i32,
    /// The value without its line end.
    pub value: Bytes,
    /// No answer is wanted.
    pub noreply: bool,
}

/// A store that is too large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oversized {
    /// Where it would have gone.
    pub key: Key,
    /// How.
    pub mode: Mode,
    /// No answer is wanted.
    pub noreply: bool,
}

/// `incr` or `decr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arith {
    /// Where.
    pub key: Key,
    /// How much.
    pub delta: u64,
    /// Down instead of up.
    pub decrement: bool,
    /// No answer is wanted.
    pub noreply: bool,
}

/// `touch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// Where.
    pub key: Key,
    /// The new expiry, as in [`Store::exptime`].
    pub exptime: i32,
    /// No answer is wanted.
    pub noreply: bool,
}

/// `delete`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Where.
    pub key: Key,
    /// No answer is wanted.
    pub noreply: bool,
}

/// `stats` with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    line: Bytes,
}

impl Stats {
    /// What follows the word `stats`, one space between the parts.
    pub fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let span = next_token(&self.line, at)?;
            at = span.end;
            Some(bytes_of(&self.line, span))
        })
        .skip(1)
    }
}

/// Why a request is refused. `reply.rs` has the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such command, or a wrong number of words.
    #[error("unknown command")]
    UnknownCommand,
    /// A key or a number that cannot be.
    #[error("bad command line format")]
    BadFormat,
    /// The value's length does not match, or its line end is missing.
    #[error("bad data chunk")]
    BadDataChunk,
    /// `gat`, `touch`, `flush_all`: not a number.
    #[error("invalid exptime")]
    InvalidExptime,
    /// `incr`, `decr`: not a number.
    #[error("invalid delta")]
    InvalidDelta,
    /// `delete` with something behind the key.
    #[error("delete takes a key and nothing else")]
    DeleteUsage,
    /// `shutdown`, which no client may do.
    #[error("shutdown is not enabled")]
    Shutdown,
    /// A command that manages one server, while we stand for many.
    #[error("a command for one server")]
    OneServer,
}

/// What is wrong with the bytes of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The request is answered with an error line and the session goes on.
    #[error("{refusal}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// The client wants no answer, not even this one.
        noreply: bool,
    },
    /// A `get` line over the limit: told so, then closed.
    #[error("line too long")]
    LineTooLong,
    /// An endless line that is no `get`: closed without a word, as memcached does.
    #[error("not a command")]
    Garbage,
    /// An HTTP request: closed without a word, as memcached does.
    #[error("an HTTP request")]
    Http,
    /// The binary protocol's first byte.
    #[error("the binary protocol is not spoken here")]
    Binary,
}

impl DecodeError {
    fn refused(refusal: Refusal) -> Self {
        Self::Refused { refusal, noreply: false }
    }
}

/// Reads requests from the front of a buffer. Remembers only what it may not look at twice.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of an oversized value still to be thrown away.
    swallow_len: usize,
    /// Bytes of an unfinished line known to hold no line feed.
    scanned_len: usize,
    /// Something has been decoded: a first byte of 0x80 no longer means another protocol.
    begun: bool,
}

/// A longer line cannot have come with one read of memcached's, which then looks at its beginning.
const ONE_READ_LEN_MAX: usize = 16 * 1024;

/// The binary protocol's request magic.
const BINARY_MAGIC: u8 = 0x80;

impl Decoder {
    /// Takes one request off the front of `input`; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`]; after [`DecodeError::Refused`] decoding goes on behind the refused request.
    pub fn decode(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<Option<Request>, DecodeError> {
        if self.swallow_len > 0 {
            let taken = self.swallow_len.min(input.len());
            input.advance(taken);
            self.swallow_len -= taken;
        }
        if input.is_empty() {
            return Ok(None);
        }
        if !self.begun && input.first() == Some(&BINARY_MAGIC) {
            return Err(DecodeError::Binary);
        }
        self.begun = true;
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
        match next_token(line, 0).map(|span| bytes_of(line, span)) {
            Some(b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas") => {
                self.store(input, line_len, feed + 1, limits)
            }
            Some(_) | None => {
                let line = input.split_to(feed + 1).freeze().slice(..line_len);
                command(line).map(Some)
            }
        }
    }

    /// A storage command: its line is complete, its value may not be.
    fn store(
        &mut self,
        input: &mut BytesMut,
        line_len: usize,
        value_at: usize,
        limits: &Limits,
    ) -> Result<Option<Request>, DecodeError> {
        let head = match StoreHead::parse(input.get(..line_len).unwrap_or_default()) {
            Ok(head) => head,
            Err(error) => {
                input.advance(value_at);
                return Err(error);
            }
        };
        let StoreHead { mode, key, flags, exptime, value_len, noreply } = head;
        if value_len > limits.value_len_max {
            let key = Key { line: input.split_to(value_at).freeze(), span: key };
            self.swallow_len = value_len + 2;
            return Ok(Some(Request::Oversized(Oversized { key, mode, noreply })));
        }
        let end = value_at + value_len + 2;
        let Some(line_end) = input.get(end - 2..end) else {
            // The line is looked at again once more bytes are here, but its end is known to be near.
            input.reserve(end - input.len());
            return Ok(None);
        };
        if line_end != b"\r\n" {
            input.advance(end);
            return Err(DecodeError::Refused { refusal: Refusal::BadDataChunk, noreply });
        }
        let line = input.split_to(end).freeze();
        let value = line.slice(value_at..end - 2);
        let key = Key { line, span: key };
        Ok(Some(Request::Store(Store { key, mode, flags, exptime, value, noreply })))
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
#[path = "request_tests.rs"]
mod tests;
