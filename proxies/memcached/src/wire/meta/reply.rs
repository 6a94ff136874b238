//! What servers answer.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr_iter};

use crate::wire::output::BY_REFERENCE_LEN_MIN;
use crate::wire::{Epoch, Limits, number};

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The first word's meaning.
    pub status: Status,
    /// The line without its end.
    line: Bytes,
    /// The value of [`Status::Value`], without its line end.
    pub value: Bytes,
    /// Whose CAS values these are, once a connection has told.
    pub epoch: Option<Epoch>,
}

/// The first word of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// `HD`: done.
    Done,
    /// `VA`: done, and here is the value.
    Value,
    /// `VA` with a value over the limit, which has been thrown away.
    TooLarge,
    /// `EN`: a miss of `mg`.
    Miss,
    /// `NF`: nothing there to delete, to count on or to compare with.
    NotFound,
    /// `NS`: not stored, by the request's own condition.
    NotStored,
    /// `EX`: the CAS token is another.
    Exists,
    /// `MN`: the answer to `mn`.
    Noop,
    /// `ME`: what `me` found.
    Debug,
    /// `END`: the last line of `stats`.
    End,
    /// `STAT`, `ITEM`, `PREFIX`: one of its lines.
    Stat,
    /// `ERROR`, `CLIENT_ERROR`, `SERVER_ERROR`.
    Error,
    /// A line of the classic protocol: `OK`, `VERSION`, `RESET`.
    Classic,
}

impl Reply {
    /// A reply that no server sent: the embedded store's.
    pub fn new(status: Status, line: Bytes, value: Bytes) -> Self {
        Self { status, line, value, epoch: None }
    }

    /// The whole line.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// The argument of the flag `name`, such as the 12 of `c12`.
    pub fn flag(&self, name: u8) -> Option<&[u8]> {
        let skipped = if self.status == Status::Value { 2 } else { 1 };
        self.line.split(|byte| *byte == b' ').skip(skipped).find_map(|word| match word {
            [first, argument @ ..] if *first == name => Some(argument),
            _ => None,
        })
    }

    /// The server's own CAS value, for programs.
    pub fn cas(&self) -> Option<u64> {
        number::unsigned(self.flag(b'c')?)
    }

    /// The CAS value as a client sees it.
    pub fn token(&self) -> Option<u64> {
        let cas = self.cas()?;
        Some(self.epoch.map_or(cas, |epoch| epoch.token(cas)))
    }

    /// The flags without an argument that a server adds of itself, `W`, `X` and `Z`, in its order.
    pub fn marks(&self) -> impl Iterator<Item = u8> {
        self.line.split(|byte| *byte == b' ').skip(1).filter_map(|word| match word {
            [mark @ (b'W' | b'X' | b'Z')] => Some(*mark),
            _ => None,
        })
    }

    /// The same reply with another value, and its length wherever that is told.
    #[must_use]
    pub fn with_value(self, value: Bytes) -> Self {
        Self { value: value.clone(), ..self }.measured(value.len())
    }

    /// The same reply, telling another length: that of the whole, where a server knows only what stands for it.
    #[must_use]
    pub fn measured(self, len: usize) -> Self {
        let mut line = BytesMut::with_capacity(self.line.len() + 20);
        let is_value = self.status == Status::Value;
        for (index, word) in self.line.split(|byte| *byte == b' ').enumerate() {
            if index > 0 {
                line.extend_from_slice(b" ");
            }
            match word {
                _ if index == 1 && is_value => number::write(len as u64, &mut line),
                [b's', ..] if index > 0 => {
                    line.extend_from_slice(b"s");
                    number::write(len as u64, &mut line);
                }
                _ => line.extend_from_slice(word),
            }
        }
        Self { line: line.freeze(), ..self }
    }

    /// A copy that keeps no read buffer alive, unless the value is large.
    pub fn detached(self) -> Self {
        if self.value.len() >= BY_REFERENCE_LEN_MIN {
            return self;
        }
        Self { line: Bytes::copy_from_slice(&self.line), value: Bytes::copy_from_slice(&self.value), ..self }
    }
}

/// A server that does not speak the protocol. The connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A reply that starts like none of memcached's.
    #[error("a reply that is not memcached's")]
    UnknownReply,
    /// A line without an end.
    #[error("a reply line of more than {LINE_LEN_MAX} bytes")]
    LineTooLong,
    /// A value whose length is not a number, or whose end is not where it should be.
    #[error("a value with a wrong length")]
    BadValue,
}

/// The longest reply line: key, flags and numbers need less than a third of it.
pub const LINE_LEN_MAX: usize = 2048;

/// Reads replies from the front of a buffer.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of an oversized value still to be thrown away, its line end included.
    swallow_len: usize,
}

impl Decoder {
    /// Takes one reply off the front of `input`; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`]; none of them can be recovered from.
    pub fn decode(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<Option<Reply>, DecodeError> {
        if self.swallow_len > 0 {
            let taken = self.swallow_len.min(input.len());
            input.advance(taken);
            self.swallow_len -= taken;
        }
        let Some(feed) = memchr(b'\n', input) else {
            return if input.len() > LINE_LEN_MAX { Err(DecodeError::LineTooLong) } else { Ok(None) };
        };
        if feed > LINE_LEN_MAX {
            return Err(DecodeError::LineTooLong);
        }
        let line_len = feed - usize::from(feed > 0 && input.get(feed - 1) == Some(&b'\r'));
        let status = status_of(input.get(..line_len).unwrap_or_default())?;
        if status == Status::Value {
            return self.value(input, line_len, feed + 1, limits);
        }
        let mut line = input.split_to(feed + 1).freeze();
        line.truncate(line_len);
        Ok(Some(Reply { status, line, value: Bytes::new(), epoch: None }))
    }

    fn value(
        &mut self,
        input: &mut BytesMut,
        line_len: usize,
        value_at: usize,
        limits: &Limits,
    ) -> Result<Option<Reply>, DecodeError> {
        let value_len = value_len(input.get(..line_len).unwrap_or_default()).ok_or(DecodeError::BadValue)?;
        if value_len > limits.value_len_max {
            let mut line = input.split_to(value_at).freeze();
            line.truncate(line_len);
            self.swallow_len = value_len + 2;
            return Ok(Some(Reply { status: Status::TooLarge, line, value: Bytes::new(), epoch: None }));
        }
        let end = value_at + value_len + 2;
        let Some(line_end) = input.get(end - 2..end) else {
            input.reserve(end - input.len());
            return Ok(None);
        };
        if line_end != b"\r\n" {
            return Err(DecodeError::BadValue);
        }
        let mut line = input.split_to(end).freeze();
        let value = line.slice(value_at..end - 2);
        line.truncate(line_len);
        Ok(Some(Reply { status: Status::Value, line, value, epoch: None }))
    }
}

fn status_of(line: &[u8]) -> Result<Status, DecodeError> {
    let word = line.get(..memchr(b' ', line).unwrap_or(line.len())).unwrap_or_default();
    Ok(match word {
        b"VA" => Status::Value,
        b"HD" => Status::Done,
        b"EN" => Status::Miss,
        b"NF" => Status::NotFound,
        b"NS" => Status::NotStored,
        b"EX" => Status::Exists,
        b"MN" => Status::Noop,
        b"ME" => Status::Debug,
        b"STAT" | b"ITEM" | b"PREFIX" => Status::Stat,
        b"END" => Status::End,
        b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => Status::Error,
        b"OK" | b"VERSION" | b"RESET" => Status::Classic,
        b"MEMLIMIT_TOO_SMALL" | b"MEMLIMIT_ADJUST_FAILED" => Status::Classic,
        _ => return Err(DecodeError::UnknownReply),
    })
}

/// The number in `VA <number> …`.
fn value_len(line: &[u8]) -> Option<usize> {
    let mut spaces = memchr_iter(b' ', line);
    let start = spaces.next()? + 1;
    let end = spaces.next().unwrap_or(line.len());
    let digits = line.get(start..end)?;
    // Nine digits are a gigabyte, the most a memcached item can have.
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    usize::try_from(number::unsigned(digits)?).ok()
}
