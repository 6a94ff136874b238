//! Packets of clients.

use bytes::{Buf, Bytes, BytesMut};

use super::{HEAD_LEN, REQUEST_MAGIC};
use crate::wire::decoder::Swallow;
use crate::wire::meta::{Arith, Delete, Get, Mode, Wants, base64};
use crate::wire::request::{
    Command, DecodeError, Intent, Key, One, Oversized, Refusal, Request, Stats, Store, To,
};
use crate::wire::words::Span;
use crate::wire::{KEY_LEN_MAX, Limits};

/// The longest `stat` key, which goes on to servers as a line.
const STAT_LEN_MAX: usize = 200;

/// Statistics that memcached tells text clients only.
const TEXT_STATS: [&[u8]; 4] = [b"cachedump", b"conns", b"extstore", b"proxy"];

/// Counters with this expiry are not made where there are none.
const NO_VIVIFY: u32 = u32::MAX;

/// What to do, told by the opcode without its quietness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    Store(Command, Mode),
    Extend(Command, Mode),
    Delete,
    Arith { decrement: bool },
    Quit,
    Flush,
    Noop,
    Version,
    Stat,
    Touch(Command),
    Mechanisms,
    Login,
}

impl Kind {
    /// `None`: no opcode that memcached knows; `verbosity` and the opcodes of ranges are among those.
    fn of(opcode: u8) -> Option<Self> {
        Some(match opcode {
            0x00 | 0x09 | 0x0c | 0x0d => Self::Get,
            0x01 | 0x11 => Self::Store(Command::Set, Mode::Set),
            0x02 | 0x12 => Self::Store(Command::Add, Mode::Add),
            0x03 | 0x13 => Self::Store(Command::Replace, Mode::Replace),
            0x04 | 0x14 => Self::Delete,
            0x05 | 0x15 => Self::Arith { decrement: false },
            0x06 | 0x16 => Self::Arith { decrement: true },
            0x07 | 0x17 => Self::Quit,
            0x08 | 0x18 => Self::Flush,
            0x0a => Self::Noop,
            0x0b => Self::Version,
            0x0e | 0x19 => Self::Extend(Command::Append, Mode::Append),
            0x0f | 0x1a => Self::Extend(Command::Prepend, Mode::Prepend),
            super::STAT => Self::Stat,
            0x1c => Self::Touch(Command::Touch),
            0x1d | 0x1e | 0x23 | 0x24 => Self::Touch(Command::Gat),
            0x20 => Self::Mechanisms,
            0x21 | 0x22 => Self::Login,
            _ => return None,
        })
    }

    /// Do the packet's parts have lengths that go with it?
    fn fits(self, key_len: usize, extras_len: usize, value_len: usize) -> bool {
        let has_key = key_len > 0;
        match self {
            Self::Get | Self::Delete => has_key && extras_len == 0 && value_len == 0,
            Self::Store(..) => has_key && extras_len == 8,
            Self::Extend(..) | Self::Login => has_key && extras_len == 0,
            Self::Arith { .. } => has_key && extras_len == 20 && value_len == 0,
            Self::Touch(_) => has_key && extras_len == 4,
            Self::Flush => !has_key && value_len == 0 && matches!(extras_len, 0 | 4),
            Self::Quit | Self::Noop | Self::Version | Self::Mechanisms => {
                !has_key && extras_len == 0 && value_len == 0
            }
            Self::Stat => extras_len == 0,
        }
    }

    /// How long its value may be; what is longer is thrown away.
    fn value_len_max(self, limits: &Limits) -> usize {
        match self {
            Self::Store(..) | Self::Extend(..) => limits.value_len_max,
            Self::Get
            | Self::Delete
            | Self::Arith { .. }
            | Self::Quit
            | Self::Flush
            | Self::Noop
            | Self::Version
            | Self::Stat
            | Self::Touch(_)
            | Self::Mechanisms
            | Self::Login => 0,
        }
    }
}

/// A packet's head.
#[derive(Debug, Clone, Copy)]
struct Head {
    to: To,
    opcode: u8,
    key_len: usize,
    extras_len: usize,
    body_len: usize,
    cas: Option<u64>,
}

impl Head {
    /// `None`: not all of it is there.
    fn parse(input: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some(&head) = input.first_chunk::<HEAD_LEN>() else { return Ok(None) };
        let [magic, opcode, k0, k1, extras, _, _, _, b0, b1, b2, b3, o0, o1, o2, o3, cas @ ..] = head;
        if magic != REQUEST_MAGIC {
            return Err(DecodeError::BadMagic);
        }
        let cas = u64::from_be_bytes(cas);
        Ok(Some(Self {
            to: To::Binary { opcode, opaque: [o0, o1, o2, o3] },
            opcode,
            key_len: usize::from(u16::from_be_bytes([k0, k1])),
            extras_len: usize::from(extras),
            body_len: usize::try_from(u32::from_be_bytes([b0, b1, b2, b3])).unwrap_or(usize::MAX),
            cas: (cas != 0).then_some(cas),
        }))
    }

    fn hang_up(&self, refusal: Refusal) -> DecodeError {
        DecodeError::HangUp { refusal, to: self.to }
    }

    fn refused(&self, refusal: Refusal) -> DecodeError {
        DecodeError::Refused { refusal, to: self.to }
    }
}

/// Takes one packet off the front of `input`; `None` if more bytes are needed.
///
/// # Errors
///
/// See [`DecodeError`].
pub fn decode(
    input: &mut BytesMut,
    limits: &Limits,
    swallow: &mut Swallow,
) -> Result<Option<Request>, DecodeError> {
    let Some(head) = Head::parse(input)? else { return Ok(None) };
    let value_at = HEAD_LEN + head.extras_len + head.key_len;
    if input.len() < value_at {
        return Ok(None);
    }
    let Some(value_len) = head.body_len.checked_sub(head.key_len + head.extras_len) else {
        return Err(head.hang_up(Refusal::UnknownCommand));
    };
    if head.key_len > KEY_LEN_MAX {
        return Err(head.hang_up(Refusal::BadPacket));
    }
    let Some(kind) = Kind::of(head.opcode) else {
        input.advance(value_at);
        swallow.len = value_len;
        return Err(head.refused(Refusal::UnknownCommand));
    };
    if !kind.fits(head.key_len, head.extras_len, value_len) {
        return Err(head.hang_up(Refusal::BadPacket));
    }
    if value_len > kind.value_len_max(limits) {
        let packet = Packet { head, value_at, bytes: input.split_to(value_at).freeze() };
        swallow.len = value_len;
        return packet.without_value(kind).map(Some);
    }
    let end = value_at + value_len;
    if input.len() < end {
        input.reserve(end - input.len());
        return Ok(None);
    }
    Packet { head, value_at, bytes: input.split_to(end).freeze() }.request(kind).map(Some)
}

/// A whole packet, or all of it but the value.
struct Packet {
    head: Head,
    value_at: usize,
    bytes: Bytes,
}

impl Packet {
    /// One whose value is too long for what it is.
    fn without_value(self, kind: Kind) -> Result<Request, DecodeError> {
        match kind {
            Kind::Store(command, _) | Kind::Extend(command, _) => Ok(Request::Oversized(Oversized {
                command,
                deletes: command == Command::Set,
                to: self.head.to,
                key: self.key()?,
            })),
            Kind::Login => self.request(kind),
            // What follows a key here has no meaning, and memcached takes it for the next packet.
            Kind::Stat | Kind::Touch(_) => self.request(kind),
            Kind::Get
            | Kind::Delete
            | Kind::Arith { .. }
            | Kind::Quit
            | Kind::Flush
            | Kind::Noop
            | Kind::Version
            | Kind::Mechanisms => Err(self.head.hang_up(Refusal::BadPacket)),
        }
    }

    fn request(self, kind: Kind) -> Result<Request, DecodeError> {
        let to = self.head.to;
        match kind {
            Kind::Quit => Ok(Request::Quit(to)),
            Kind::Noop => Ok(Request::Noop(to)),
            Kind::Version => Ok(Request::Version(to)),
            // Whoever has to log in has done so before the session began.
            Kind::Mechanisms | Kind::Login => Err(self.head.refused(Refusal::UnknownCommand)),
            Kind::Flush => {
                let delay = if self.head.extras_len == 4 { self.exptime(0) } else { 0 };
                Ok(Request::FlushAll { delay, to })
            }
            Kind::Stat => self.stat(),
            Kind::Get => {
                let wants = Wants::ITEM.and(Wants::CAS);
                self.one(Command::Get, Intent::Get(Get { wants, ..Default::default() }))
            }
            Kind::Touch(command) => {
                let item = if command == Command::Touch { Wants::FLAGS } else { Wants::ITEM };
                let wants = item.and(Wants::CAS);
                let touch = Some(self.exptime(0));
                self.one(command, Intent::Get(Get { wants, touch, ..Default::default() }))
            }
            Kind::Store(command, mode) => {
                let store = Store { flags: self.u32(0), exptime: self.exptime(4), ..self.store(mode) };
                self.one(command, Intent::Store(store))
            }
            Kind::Extend(command, mode) => {
                let store = self.store(mode);
                self.one(command, Intent::Store(store))
            }
            Kind::Delete => {
                let compare = self.head.cas;
                self.one(Command::Delete, Intent::Delete(Delete { compare, ..Default::default() }))
            }
            Kind::Arith { decrement } => {
                let vivify = (self.u32(16) != NO_VIVIFY).then(|| self.exptime(16));
                let arith = Arith {
                    delta: self.u64(0),
                    decrement,
                    vivify,
                    initial: vivify.map(|_| self.u64(8)),
                    touch: None,
                    compare: self.head.cas,
                    new_cas: None,
                    wants: Wants::VALUE.and(Wants::CAS),
                };
                let command = if decrement { Command::Decr } else { Command::Incr };
                self.one(command, Intent::Arith(arith))
            }
        }
    }

    fn store(&self, mode: Mode) -> Store {
        let compare = self.head.cas;
        // With a CAS value memcached does not care whether it was to add or to replace.
        let mode = match (mode, compare) {
            (Mode::Add | Mode::Replace, Some(_)) => Mode::Set,
            (mode, _) => mode,
        };
        Store {
            mode,
            flags: 0,
            exptime: 0,
            value: self.bytes.slice(self.value_at..),
            compare,
            new_cas: None,
            invalidate: false,
            vivify: None,
            wants: Wants::CAS,
        }
    }

    /// `stat`: its key becomes a line to servers, so only what may stand in one is let through.
    fn stat(self) -> Result<Request, DecodeError> {
        let (line, at, to) = (self.bytes.slice(HEAD_LEN..self.value_at), 0, self.head.to);
        let is_line = line.iter().all(|byte| matches!(byte, b' '..=b'~')) && line.len() <= STAT_LEN_MAX;
        let is_text_only = TEXT_STATS.iter().any(|name| line.starts_with(name));
        match is_line && !is_text_only {
            true => Ok(Request::Stats(Stats { line, at, to })),
            false => Err(self.head.refused(Refusal::NoSuchStats)),
        }
    }

    fn one(self, command: Command, intent: Intent) -> Result<Request, DecodeError> {
        let to = self.head.to;
        Ok(Request::One(One { command, key: self.key()?, intent, to, flags: Bytes::new() }))
    }

    /// The key may have bytes that only base64 takes to a server.
    fn key(self) -> Result<Key, DecodeError> {
        let span = Span { start: HEAD_LEN + self.head.extras_len, end: self.value_at };
        let key = self.bytes.get(span.start..span.end).unwrap_or_default();
        let is_coded = key.iter().any(|byte| *byte <= b' ' || *byte == 0x7f);
        if is_coded && key.len() > base64::KEY_LEN_MAX {
            return Err(self.head.refused(Refusal::KeyTooLong));
        }
        Ok(Key { line: self.bytes, span, is_coded })
    }

    fn extras<const LEN: usize>(&self, at: usize) -> [u8; LEN] {
        let extras = self.bytes.get(HEAD_LEN + at..).and_then(|extras| extras.first_chunk());
        extras.copied().unwrap_or([0; LEN])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.extras(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.extras(at))
    }

    /// Text has signed times: what is later than 2038 is told as that.
    fn exptime(&self, at: usize) -> i32 {
        i32::try_from(self.u32(at)).unwrap_or(i32::MAX)
    }
}
