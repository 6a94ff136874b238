//! What servers answer.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use crate::wire::output::BY_REFERENCE_LEN_MIN;
use crate::wire::{Epoch, Limits, number};

/// What a server answered. Its words are its own, or where they were read into: a `Reply<&[u8]>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<B = Bytes> {
    /// The first word's meaning.
    pub status: Status,
    /// The line without its end.
    line: B,
    /// The value of [`Status::Value`], without its line end.
    pub value: B,
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

impl<B> Reply<B> {
    /// A reply that no connection has read: the embedded store's, or one that was kept.
    pub fn new(status: Status, line: B, value: B) -> Self {
        Self { status, line, value, epoch: None }
    }

    /// The same, with CAS values of this epoch.
    #[must_use]
    pub fn of(self, epoch: Option<Epoch>) -> Self {
        Self { epoch, ..self }
    }
}

impl<B: AsRef<[u8]>> Reply<B> {
    /// The whole line.
    pub fn line(&self) -> &[u8] {
        self.line.as_ref()
    }

    /// The value, as bytes.
    pub fn value(&self) -> &[u8] {
        self.value.as_ref()
    }

    /// The argument of the flag `name`, such as the 12 of `c12`.
    pub fn flag(&self, name: u8) -> Option<&[u8]> {
        let skipped = if self.status == Status::Value { 2 } else { 1 };
        self.line().split(|byte| *byte == b' ').skip(skipped).find_map(|word| match word {
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
        self.line().split(|byte| *byte == b' ').skip(1).filter_map(|word| match word {
            [mark @ (b'W' | b'X' | b'Z')] => Some(*mark),
            _ => None,
        })
    }
}

impl Reply<&[u8]> {
    /// A copy of its own.
    pub fn to_owned(&self) -> Reply {
        let (line, value) = (Bytes::copy_from_slice(self.line), Bytes::copy_from_slice(self.value));
        Reply { status: self.status, line, value, epoch: self.epoch }
    }
}

impl Reply {
    /// The same reply, lent.
    pub fn lent(&self) -> Reply<&[u8]> {
        Reply::new(self.status, self.line(), self.value()).of(self.epoch)
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
        if self.value.len() >= BY_REFERENCE_LEN_MIN { self } else { self.lent().to_owned() }
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

/// Where a complete reply is, at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    status: Status,
    line_len: usize,
    value_at: usize,
    value_len: usize,
    len: usize,
}

impl Frame {
    /// The reply, as it lies there. For one whose value is not large: see [`Self::is_large`].
    pub fn of<'a>(&self, input: &'a [u8]) -> Reply<&'a [u8]> {
        let line = input.get(..self.line_len).unwrap_or_default();
        let value = input.get(self.value_at..self.value_at + self.value_len).unwrap_or_default();
        Reply { status: self.status, line, value, epoch: None }
    }

    /// Had it better be taken, and passed on by reference?
    pub fn is_large(&self) -> bool {
        self.value_len >= BY_REFERENCE_LEN_MIN
    }

    /// Takes the reply off the front of the buffer.
    pub fn take(&self, input: &mut BytesMut) -> Reply {
        let mut line = input.split_to(self.len).freeze();
        let value = match self.value_len {
            0 => Bytes::new(),
            len => line.slice(self.value_at..self.value_at + len),
        };
        line.truncate(self.line_len);
        Reply { status: self.status, line, value, epoch: None }
    }

    /// Drops the reply off the front of the buffer.
    pub fn skip(&self, input: &mut BytesMut) {
        input.advance(self.len);
    }
}

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
        Ok(self.find(input, limits)?.map(|frame| frame.take(input)))
    }

    /// Finds one reply at the front of `input`, which is then to be taken or skipped before the next; `None` if more
    /// bytes are needed.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`]; none of them can be recovered from.
    pub fn find(&mut self, input: &mut BytesMut, limits: &Limits) -> Result<Option<Frame>, DecodeError> {
        self.swallow(input);
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
        Ok(Some(Frame { status, line_len, value_at: feed + 1, value_len: 0, len: feed + 1 }))
    }

    /// Throws away what is left of a value over the limit, as far as it has come. To be called before anybody else
    /// reads on: none of it is theirs.
    pub fn swallow(&mut self, input: &mut BytesMut) {
        if self.swallow_len > 0 {
            let taken = self.swallow_len.min(input.len());
            input.advance(taken);
            self.swallow_len -= taken;
        }
    }

    fn value(
        &mut self,
        input: &mut BytesMut,
        line_len: usize,
        value_at: usize,
        limits: &Limits,
    ) -> Result<Option<Frame>, DecodeError> {
        let value_len = value_len(input.get(..line_len).unwrap_or_default()).ok_or(DecodeError::BadValue)?;
        if value_len > limits.value_len_max {
            self.swallow_len = value_len + 2;
            let status = Status::TooLarge;
            return Ok(Some(Frame { status, line_len, value_at, value_len: 0, len: value_at }));
        }
        let end = value_at + value_len + 2;
        let Some(line_end) = input.get(end - 2..end) else {
            input.reserve(end - input.len());
            return Ok(None);
        };
        if line_end != b"\r\n" {
            return Err(DecodeError::BadValue);
        }
        Ok(Some(Frame { status: Status::Value, line_len, value_at, value_len, len: end }))
    }
}

fn status_of(line: &[u8]) -> Result<Status, DecodeError> {
    // Nearly all have two letters.
    if let [first, second] | [first, second, b' ', ..] = line {
        match &[*first, *second] {
            b"VA" => return Ok(Status::Value),
            b"HD" => return Ok(Status::Done),
            b"EN" => return Ok(Status::Miss),
            b"NF" => return Ok(Status::NotFound),
            b"NS" => return Ok(Status::NotStored),
            b"EX" => return Ok(Status::Exists),
            b"MN" => return Ok(Status::Noop),
            b"ME" => return Ok(Status::Debug),
            _ => (),
        }
    }
    let word = line.get(..memchr(b' ', line).unwrap_or(line.len())).unwrap_or_default();
    Ok(match word {
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
    let told = line.get(3..)?;
    let (mut value_len, mut digits) = (0, 0);
    for byte in told.iter().take_while(|byte| **byte != b' ') {
        // Ten digits are more than a gigabyte, the most a memcached item can have.
        if !byte.is_ascii_digit() || digits == 10 {
            return None;
        }
        value_len = value_len * 10 + usize::from(byte - b'0');
        digits += 1;
    }
    (digits > 0).then_some(value_len)
}
