//! What a look at a key shows, and the replies made of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use super::steps::pin_of;
use super::{Node, Origin, Outcome, Pin, Told};
use crate::error::Failure;
use crate::wire::meta::{Op, Reply, Request, Status, Wants};
use crate::wire::number;

/// Longer times are Unix times (protocol.txt, "Expiration times").
const RELATIVE_S_MAX: u64 = 60 * 60 * 24 * 30;

/// What is needed to store an item elsewhere.
pub(super) const WHOLE: Wants = Wants::VALUE.and(Wants::FLAGS).and(Wants::TTL);

/// What a look at a key shows.
#[derive(Debug)]
pub(super) enum Look {
    /// An item.
    Value(Found),
    /// Something that clients must not see: what a claim left, or a value that a client has marked stale.
    Stub {
        /// Its version.
        pin: Pin,
        /// This very look made it.
        is_mine: bool,
    },
    /// Nothing.
    Nothing,
}

impl Look {
    /// Reads the reply of an `mg` that asked for `c` and `s`, and found something.
    pub(super) fn read(node: Node, told: Told) -> Result<Self, Failure> {
        let pin = pin_of(&told)?;
        let reply = told.reply;
        let size = reply.flag(b's').and_then(number::unsigned).ok_or(Failure::Nonsense)?;
        let is_mine = reply.flag(b'W').is_some();
        // A client's own `R` marks good values too, and those are never empty.
        let is_marked = is_mine || reply.flag(b'Z').is_some();
        if is_marked && (size == 0 || reply.flag(b'X').is_some()) {
            return Ok(Self::Stub { pin, is_mine });
        }
        let flags = match reply.flag(b'f') {
            None => 0,
            Some(digits) => number::flags(digits).ok_or(Failure::Nonsense)?,
        };
        let left_s = match reply.flag(b't') {
            // For ever, or not asked for.
            Some(b"-1") | None => None,
            Some(digits) => Some(number::unsigned(digits).ok_or(Failure::Nonsense)?),
        };
        Ok(Self::Value(Found { node, pin, reply, flags, left_s, new_left_s: left_s }))
    }

    /// The version of what is there.
    pub(super) fn pin(&self) -> Option<Pin> {
        match self {
            Self::Value(found) => Some(found.pin),
            Self::Stub { pin, .. } => Some(*pin),
            Self::Nothing => None,
        }
    }

    /// The version of what is there after a claim, which leaves nothing empty.
    pub(super) fn claimed(&self) -> Result<Pin, Failure> {
        self.pin().ok_or(Failure::Nonsense)
    }

    /// Something that clients may see.
    pub(super) fn is_value(&self) -> bool {
        matches!(self, Self::Value(_))
    }
}

/// An item as it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Where its CAS value counts.
    pub(super) node: Node,
    /// Its version there.
    pub(super) pin: Pin,
    /// The client's bits, if asked for.
    pub(super) flags: u32,
    /// How long it has to live; none for ever, or not asked for.
    left_s: Option<u64>,
    /// The same, once a request's `T` has been heeded.
    new_left_s: Option<u64>,
    reply: Reply,
}

impl Found {
    /// The value, if asked for.
    pub(super) fn value(&self) -> &Bytes {
        &self.reply.value
    }

    /// The same item under another version.
    pub(super) fn at(self, node: Node, pin: Pin) -> Self {
        Self { node, pin, ..self }
    }

    /// The same item, once it has been stored again where it was.
    pub(super) fn stored(&self, pin: Pin) -> Self {
        Self { pin, reply: self.reply.clone(), ..*self }
    }

    /// The same item with the life that a request's `T` gave it.
    pub(super) fn touched(self, exptime: i32, now_s: u64) -> Self {
        let new_left_s = match u64::try_from(exptime) {
            Ok(0) => None,
            Ok(seconds @ 1..=RELATIVE_S_MAX) => Some(seconds),
            Ok(at_s) => Some(at_s.saturating_sub(now_s)),
            Err(_) => Some(0),
        };
        Self { new_left_s, ..self }
    }

    /// The `T` that gives a copy the rest of this item's life. Beyond 30 days a server takes `T` for a Unix
    /// time, and 0 for never.
    pub(super) fn exptime(&self, now_s: u64) -> i32 {
        match self.left_s {
            None => 0,
            Some(left_s @ 0..=RELATIVE_S_MAX) => i32::try_from(left_s.max(1)).unwrap_or(i32::MAX),
            Some(left_s) => i32::try_from(now_s.saturating_add(left_s)).unwrap_or(i32::MAX),
        }
    }

    /// The reply to a client that asked for it.
    pub(super) fn hit(&self, request: &Request<'_>, wants: Wants) -> Outcome {
        let has_value = wants.has(Wants::VALUE);
        let mut line = head(request, wants, has_value.then(|| self.value().len()));
        if wants.has(Wants::FLAGS) {
            write_flag(b'f', u64::from(self.flags), &mut line);
        }
        if wants.has(Wants::CAS) {
            write_flag(b'c', self.pin.cas, &mut line);
        }
        for (want, left_s) in [(Wants::TTL, self.left_s), (Wants::NEW_TTL, self.new_left_s)] {
            match (wants.has(want), left_s) {
                (true, None) => line.extend_from_slice(b" t-1"),
                (true, Some(left_s)) => write_flag(b't', left_s, &mut line),
                (false, _) => (),
            }
        }
        for (want, name) in [(Wants::SIZE, b's'), (Wants::HIT, b'h'), (Wants::LAST, b'l')] {
            if let (true, Some(argument)) = (wants.has(want), self.reply.flag(name)) {
                line.extend_from_slice(&[b' ', name]);
                line.extend_from_slice(argument);
            }
        }
        let (status, value) = match has_value {
            true => (Status::Value, self.value().clone()),
            false => (Status::Done, Bytes::new()),
        };
        let origin = Some(Origin { node: self.node, link: self.pin.link });
        Outcome { reply: Reply::new(status, line.freeze(), value), origin }
    }
}

/// What the reply to this is to tell.
pub(super) fn wants_of(op: &Op<'_>) -> Wants {
    match op {
        Op::Get(get) => get.wants,
        Op::Store(store) => store.wants,
        Op::Delete(delete) => delete.wants,
        Op::Arith(arith) => arith.wants,
        Op::Debug => Wants::NOTHING,
    }
}

/// The reply to something that was done at `node`, with what `wants` asked for.
pub(super) fn done(request: &Request<'_>, wants: Wants, node: Node, told: &Told) -> Outcome {
    let has_value = wants.has(Wants::VALUE) && told.reply.status == Status::Value;
    let value = if has_value { told.reply.value.clone() } else { Bytes::new() };
    let mut line = head(request, wants, has_value.then_some(value.len()));
    for (want, name) in [(Wants::FLAGS, b'f'), (Wants::CAS, b'c'), (Wants::TTL, b't')] {
        if let (true, Some(argument)) = (wants.has(want), told.reply.flag(name)) {
            line.extend_from_slice(&[b' ', name]);
            line.extend_from_slice(argument);
        }
    }
    let status = if has_value { Status::Value } else { Status::Done };
    let origin = Some(Origin { node, link: told.link });
    Outcome { reply: Reply::new(status, line.freeze(), value), origin }
}

/// A reply that tells nothing but how it went.
pub(super) fn bare(request: &Request<'_>, wants: Wants, status: Status) -> Outcome {
    let mut line = BytesMut::from(match status {
        Status::Done => &b"HD"[..],
        Status::Miss => b"EN",
        Status::NotFound => b"NF",
        Status::NotStored => b"NS",
        Status::Exists => b"EX",
        Status::Value
        | Status::TooLarge
        | Status::Noop
        | Status::Debug
        | Status::End
        | Status::Stat
        | Status::Error
        | Status::Classic => b"",
    });
    if status != Status::Miss {
        write_key(request, wants, &mut line);
    }
    Outcome { reply: Reply::new(status, line.freeze(), Bytes::new()), origin: None }
}

fn head(request: &Request<'_>, wants: Wants, value_len: Option<usize>) -> BytesMut {
    let mut line = BytesMut::with_capacity(request.key.len() + 64);
    match value_len {
        None => line.extend_from_slice(b"HD"),
        Some(len) => {
            line.extend_from_slice(b"VA ");
            number::write(len as u64, &mut line);
        }
    }
    write_key(request, wants, &mut line);
    line
}

fn write_key(request: &Request<'_>, wants: Wants, line: &mut BytesMut) {
    if wants.has(Wants::KEY) {
        line.extend_from_slice(b" k");
        if request.is_coded {
            line.extend_from_slice(STANDARD.encode(request.key).as_bytes());
            line.extend_from_slice(b" b");
        } else {
            line.extend_from_slice(request.key);
        }
    }
}

fn write_flag(name: u8, value: u64, line: &mut BytesMut) {
    line.extend_from_slice(&[b' ', name]);
    number::write(value, line);
}
