//! The meta protocol: spoken with servers, where every request has exactly one reply, in order, and with
//! clients that like it.

mod answer;
pub mod base64;
mod client;
mod compare;
mod encode;
mod reply;

use bytes::{Bytes, BytesMut};

pub use answer::write as write_answer;
pub use client::{command, store};
pub use reply::{DecodeError, Decoder, Frame, LINE_LEN_MAX, Reply, Status};

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
    /// `me`: what the server knows of the item, in words for people.
    Debug,
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
    /// `R` looks at the life that the item had before `touch`.
    pub recache_first: bool,
    /// `E`: the CAS value of a stub that is made. Not in servers before 1.6.27.
    pub new_cas: Option<u64>,
    /// `C`: the value is left out if the item's CAS value is this one. Older servers send it all the same.
    pub compare: Option<u64>,
    /// `u`: the item is not counted as asked for.
    pub is_peek: bool,
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
    /// `t` behind `T` and `N`: the seconds left once those have been heeded.
    pub const NEW_TTL: Self = Self(1 << 8);
    /// What a classic retrieval tells.
    pub const ITEM: Self = Self::KEY.and(Self::FLAGS).and(Self::VALUE);

    /// What `mg` can tell.
    pub(super) const MG: Self = Self(u16::MAX);
    /// What `ms` can tell; the size of what is there now, not before 1.6.27.
    pub(super) const MS: Self = Self::CAS.and(Self::SIZE);
    /// What `ma` can tell.
    pub(super) const MA: Self = Self::CAS.and(Self::TTL).and(Self::NEW_TTL).and(Self::VALUE);

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

    /// What is in either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in it and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Is all of `other` in it?
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn write(self, tail: &mut BytesMut) {
        for (flag, letter) in Self::LETTERS {
            if self.has(flag) {
                tail.extend_from_slice(letter);
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
