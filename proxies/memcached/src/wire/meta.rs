//! The meta protocol, spoken with servers: every request has exactly one reply, in order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr_iter};

use super::output::Output;
use super::{Limits, number};

/// A request about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Which: its true bytes.
    pub key: &'a [u8],
    /// The key has bytes that no line can hold, and travels in base64.
    pub is_coded: bool,
    /// What.
    pub op: Op<'a>,
}

/// What to do with a key: everything that any of a client's protocols can ask for, in memcached's meta
/// terms (protocol.txt, "Meta Commands"). What is 0 or none by default is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// `mg`.
    Get(Get),
    /// `ms`.
    Store(Store<'a>),
    /// `md`.
    Delete(Delete),
    /// `ma`.
    Arith(Arith),
}

/// `mg`: asks for nothing but whether it is there, unless `wants` says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Get {
    /// What comes back.
    pub wants: Wants,
    /// `T`: a new expiry. Seconds from now, a Unix time, 0 for never, below 0 for at once.
    pub touch: Option<i32>,
    /// `N`: on a miss, leave an empty stub that lives so many seconds. The first to meet it wins (`W`).
    pub vivify: Option<i32>,
    /// `R`: below so many seconds of life, one client wins the right to renew it.
    pub recache: Option<i32>,
    /// `E`: the CAS value of a stub that is made. Not in servers before 1.6.27.
    pub new_cas: Option<u64>,
}

/// `ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store<'a> {
    /// How.
    pub mode: Mode,
    /// The client's bits.
    pub flags: u32,
    /// As in [`Get::touch`]; 0, which is never, by default.
    pub exptime: i32,
    /// The value without its line end.
    pub value: &'a Bytes,
    /// `C`: only if the item's CAS value is this one.
    pub compare: Option<u64>,
    /// `E`: the item's new CAS value. Not in servers before 1.6.27.
    pub new_cas: Option<u64>,
    /// `I`: with `C` and a smaller CAS value, stores it and marks it stale.
    pub invalidate: bool,
    /// `N`: appending to nothing makes an item that lives so long.
    pub vivify: Option<i32>,
    /// What comes back.
    pub wants: Wants,
}

impl<'a> Store<'a> {
    /// Stores without a condition, for ever, and asks nothing back.
    pub fn new(mode: Mode, value: &'a Bytes) -> Self {
        Self {
            mode,
            flags: 0,
            exptime: 0,
            value,
            compare: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
            wants: Wants::NOTHING,
        }
    }
}

/// What `ms` does when the key is or is not there.
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
}

/// `md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delete {
    /// `C`: only if the item's CAS value is this one.
    pub compare: Option<u64>,
    /// `E`: the item's new CAS value, with `I` or `x`. Not in servers before 1.6.27.
    pub new_cas: Option<u64>,
    /// `I`: marks it stale instead.
    pub invalidate: bool,
    /// `T`: with `I`, its new expiry.
    pub touch: Option<i32>,
    /// `x`: takes its value and flags away, and leaves the item.
    pub clear: bool,
    /// What comes back.
    pub wants: Wants,
}

/// `ma`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arith {
    /// `D`: how much.
    pub delta: u64,
    /// `MD`: down instead of up.
    pub decrement: bool,
    /// `N`: a counter that is not there is made, and lives so long.
    pub vivify: Option<i32>,
    /// `J`: its first number.
    pub initial: Option<u64>,
    /// `T`: a new expiry.
    pub touch: Option<i32>,
    /// `C`: only if the item's CAS value is this one.
    pub compare: Option<u64>,
    /// `E`: the item's new CAS value. Not in servers before 1.6.27.
    pub new_cas: Option<u64>,
    /// What comes back.
    pub wants: Wants,
}

impl Arith {
    /// Up by `delta`, telling the new number.
    pub fn up(delta: u64) -> Self {
        Self {
            delta,
            decrement: false,
            vivify: None,
            initial: None,
            touch: None,
            compare: None,
            new_cas: None,
            wants: Wants::VALUE,
        }
    }
}

/// What a reply is to tell: a set of return flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants(u16);

impl Wants {
    /// Nothing but the status.
    pub const NOTHING: Self = Self(0);
    /// `k`: the key.
    pub const KEY: Self = Self(1);
    /// `f`: the client's bits.
    pub const FLAGS: Self = Self(1 << 1);
    /// `c`: the CAS value.
    pub const CAS: Self = Self(1 << 2);
    /// `t`: seconds left to live, -1 for ever.
    pub const TTL: Self = Self(1 << 3);
    /// `s`: the value's length.
    pub const SIZE: Self = Self(1 << 4);
    /// `h`: whether it has been hit since it was stored.
    pub const HIT: Self = Self(1 << 5);
    /// `l`: seconds since it was last asked for.
    pub const LAST: Self = Self(1 << 6);
    /// `v`: the value.
    pub const VALUE: Self = Self(1 << 7);
    /// What a classic retrieval tells.
    pub const ITEM: Self = Self::KEY.and(Self::FLAGS).and(Self::VALUE);

    const LETTERS: [(Self, &'static [u8]); 8] = [
        (Self::KEY, b" k"),
        (Self::FLAGS, b" f"),
        (Self::CAS, b" c"),
        (Self::TTL, b" t"),
        (Self::SIZE, b" s"),
        (Self::HIT, b" h"),
        (Self::LAST, b" l"),
        (Self::VALUE, b" v"),
    ];

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Is all of `other` in it?
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn write(self, tail: &mut BytesMut) {
        // What nearly every retrieval is, without a look at each letter.
        if self == Self::ITEM {
            return tail.extend_from_slice(b" k f v");
        }
        for (flag, letter) in Self::LETTERS {
            if self.has(flag) {
                tail.extend_from_slice(letter);
            }
        }
    }
}

impl Request<'_> {
    /// Appends the request to `out`.
    pub fn encode(&self, out: &mut Output) {
        let tail = out.tail();
        tail.extend_from_slice(match self.op {
            Op::Get(_) => b"mg ",
            Op::Store(_) => b"ms ",
            Op::Delete(_) => b"md ",
            Op::Arith(_) => b"ma ",
        });
        if self.is_coded {
            tail.extend_from_slice(STANDARD.encode(self.key).as_bytes());
        } else {
            tail.extend_from_slice(self.key);
        }
        match self.op {
            // Its length comes before the flags.
            Op::Store(store) => return encode_store(&store, self.is_coded, out),
            Op::Get(get) => encode_get(&get, tail),
            Op::Delete(delete) => encode_delete(&delete, tail),
            Op::Arith(arith) => encode_arith(&arith, tail),
        }
        tail.extend_from_slice(if self.is_coded { b" b\r\n" } else { b"\r\n" });
    }
}

fn encode_get(get: &Get, tail: &mut BytesMut) {
    get.wants.write(tail);
    write_time(b" T", get.touch, tail);
    write_time(b" N", get.vivify, tail);
    write_time(b" R", get.recache, tail);
    write_number(b" E", get.new_cas, tail);
}

fn encode_delete(delete: &Delete, tail: &mut BytesMut) {
    delete.wants.write(tail);
    write_number(b" C", delete.compare, tail);
    write_number(b" E", delete.new_cas, tail);
    if delete.invalidate {
        tail.extend_from_slice(b" I");
    }
    write_time(b" T", delete.touch, tail);
    if delete.clear {
        tail.extend_from_slice(b" x");
    }
}

fn encode_arith(arith: &Arith, tail: &mut BytesMut) {
    arith.wants.write(tail);
    if arith.decrement {
        tail.extend_from_slice(b" MD");
    }
    tail.extend_from_slice(b" D");
    number::write(arith.delta, tail);
    write_time(b" N", arith.vivify, tail);
    write_number(b" J", arith.initial, tail);
    write_time(b" T", arith.touch, tail);
    write_number(b" C", arith.compare, tail);
    write_number(b" E", arith.new_cas, tail);
}

fn encode_store(store: &Store<'_>, is_coded: bool, out: &mut Output) {
    let tail = out.tail();
    tail.extend_from_slice(b" ");
    number::write(store.value.len() as u64, tail);
    if is_coded {
        tail.extend_from_slice(b" b");
    }
    if store.flags != 0 {
        tail.extend_from_slice(b" F");
        number::write(u64::from(store.flags), tail);
    }
    if store.exptime != 0 {
        write_time(b" T", Some(store.exptime), tail);
    }
    tail.extend_from_slice(match store.mode {
        Mode::Set => b"",
        Mode::Add => b" ME",
        Mode::Replace => b" MR",
        Mode::Append => b" MA",
        Mode::Prepend => b" MP",
    });
    write_number(b" C", store.compare, tail);
    write_number(b" E", store.new_cas, tail);
    if store.invalidate {
        tail.extend_from_slice(b" I");
    }
    write_time(b" N", store.vivify, tail);
    store.wants.write(tail);
    tail.extend_from_slice(b"\r\n");
    out.push(store.value);
    out.extend_from_slice(b"\r\n");
}

fn write_number(flag: &[u8], value: Option<u64>, out: &mut BytesMut) {
    if let Some(value) = value {
        out.extend_from_slice(flag);
        number::write(value, out);
    }
}

fn write_time(flag: &[u8], value: Option<i32>, out: &mut BytesMut) {
    let Some(value) = value else { return };
    out.extend_from_slice(flag);
    if value < 0 {
        out.extend_from_slice(b"-");
    }
    number::write(u64::from(value.unsigned_abs()), out);
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The first word's meaning.
    pub status: Status,
    /// The line without its end.
    line: Bytes,
    /// The value of [`Status::Value`], without its line end.
    pub value: Bytes,
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
        Self { status, line, value }
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

    /// A copy that keeps no read buffer alive, unless the value is large.
    pub fn detached(self) -> Self {
        if self.value.len() >= super::output::BY_REFERENCE_LEN_MIN {
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
        Ok(Some(Reply { status, line, value: Bytes::new() }))
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
            return Ok(Some(Reply { status: Status::TooLarge, line, value: Bytes::new() }));
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
        Ok(Some(Reply { status: Status::Value, line, value }))
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

#[cfg(test)]
#[path = "meta_tests.rs"]
mod tests;
