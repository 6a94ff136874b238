//! A tenant's keys as the servers see them: the one place where a client's key becomes another.
//!
//! ```text
//! shop/0:user:7                        head, then the client's key
//! shop/0~pages:2026:a-very-lon~q83v…   too long for a server: its beginning, then its hash
//! ╰─┬──╯╰ `:` a whole key, `~` a hashed one
//!   ╰ tenant's prefix, `/`, generation
//! ```
//!
//! No two clients' keys meet: a prefix holds no `/` and a generation is letters and digits, so a head ends where
//! it ends whatever the client writes behind it; the byte after it, which no client writes either, tells the
//! two forms apart; a whole key follows unchanged, and two hashed ones differ in 128 bits of SHA-256.
//!
//! What a server's name for a key is depends on the key's bytes alone, not on the protocol they came in.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::wire::KEY_LEN_MAX;

/// The longest prefix, in bytes: beside it, a generation and a hash, something of a long key stays readable.
pub const PREFIX_LEN_MAX: usize = 64;

/// The longest key that is told to servers in base64, as bytes that a line cannot hold are: 62 groups of three
/// make 248 letters.
const ENCODED_KEY_LEN_MAX: usize = 186;

/// The letters of 128 bits.
const HASH_LEN: usize = 22;

/// What stands in a hashed key for a byte that a line cannot hold.
const UNREADABLE: u8 = b'?';

/// What stands before every key of a tenant, in one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// `shop/0:`
    whole: Box<[u8]>,
}

/// Room for one key on the stack.
pub type Room = [u8; KEY_LEN_MAX];

/// Room that holds nothing yet.
pub const ROOM: Room = [0; KEY_LEN_MAX];

/// A key for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped<'a> {
    /// What the server hears.
    pub key: &'a [u8],
    /// How the client's own key is found again.
    pub back: Back,
}

/// How the client's own key is found again in a server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// Behind so many bytes.
    Cut(usize),
    /// Not at all: whoever asks has to keep it.
    Keep,
}

impl Head {
    /// The head of a tenant's keys. The prefix is one that [`is_prefix`] takes.
    pub fn new(prefix: &str, generation: u64) -> Self {
        debug_assert!(is_prefix(prefix));
        let mut whole = Vec::with_capacity(prefix.len() + 16);
        whole.extend_from_slice(prefix.as_bytes());
        whole.push(b'/');
        write_generation(generation, &mut whole);
        whole.push(b':');
        Self { whole: whole.into_boxed_slice() }
    }

    /// The bytes before a whole key, their `:` included.
    pub fn bytes(&self) -> &[u8] {
        &self.whole
    }

    /// The key that servers know a client's key by. What is no key (longer than [`KEY_LEN_MAX`]) is cut off;
    /// the codecs let none through.
    pub fn map<'a>(&self, key: &[u8], room: &'a mut Room) -> Mapped<'a> {
        let fits = self.fits(key);
        let back = if fits { Back::Cut(self.whole.len()) } else { Back::Keep };
        let written = match fits {
            true => fill(room, [&self.whole[..], key]),
            false => self.hash(key, room),
        };
        Mapped { key: room.get(..written).unwrap_or_default(), back }
    }

    /// Can a server's key hold this one whole?
    fn fits(&self, key: &[u8]) -> bool {
        let len = self.whole.len() + key.len();
        len <= ENCODED_KEY_LEN_MAX || (len <= KEY_LEN_MAX && key.iter().all(is_plain))
    }

    #[cold]
    fn hash(&self, key: &[u8], room: &mut Room) -> usize {
        let digest = digest(&SHA256, key);
        let hash = URL_SAFE_NO_PAD.encode(digest.as_ref().get(..16).unwrap_or_default());
        debug_assert_eq!(hash.len(), HASH_LEN);
        let head = self.whole.split_last().map_or(&[][..], |(_, head)| head);
        let readable_len = KEY_LEN_MAX - HASH_LEN - 2 - head.len();
        let readable: Vec<u8> = key
            .iter()
            .take(readable_len)
            .map(|byte| if is_plain(byte) { *byte } else { UNREADABLE })
            .collect();
        fill(room, [head, b"~", &readable, b"~", hash.as_bytes()])
    }
}

/// Names many keys of one tenant, each whole: the head is written once.
pub struct Namer<'a> {
    head: &'a Head,
    room: Room,
}

impl<'a> Namer<'a> {
    /// Of the keys behind this head.
    pub fn new(head: &'a Head) -> Self {
        let mut room = ROOM;
        fill(&mut room, [&head.whole]);
        Self { head, room }
    }

    /// The key that servers know a client's key by, as [`Head::map`]; `None` if it has to be hashed.
    pub fn whole(&mut self, key: &[u8]) -> Option<&[u8]> {
        if !self.head.fits(key) {
            return None;
        }
        let (from, to) = (self.head.whole.len(), self.head.whole.len() + key.len());
        self.room.get_mut(from..to)?.copy_from_slice(key);
        self.room.get(..to)
    }
}

/// What a tenant's client calls a key, as far as a server's name for it tells: all of a whole one, the beginning of
/// a hashed one.
pub fn own_part(key: &[u8]) -> &[u8] {
    let slash = key.iter().position(|byte| *byte == b'/');
    let rest = slash.and_then(|slash| key.get(slash + 1..)).unwrap_or_default();
    match rest.iter().position(|byte| !byte.is_ascii_alphanumeric()) {
        Some(end) if matches!(rest.get(end), Some(b':' | b'~')) => rest.get(end + 1..).unwrap_or_default(),
        Some(_) | None => key,
    }
}

/// May this stand before a tenant's keys?
pub fn is_prefix(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=PREFIX_LEN_MAX).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_letter)
}

/// Can a line of text hold this byte of a key?
pub fn is_plain(byte: &u8) -> bool {
    *byte > b' ' && *byte != 0x7f
}

/// In letters and digits, so that a clock's seconds take six of them.
fn write_generation(mut generation: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let start = out.len();
    loop {
        let digit = usize::try_from(generation % 36).unwrap_or_default();
        out.push(DIGITS.get(digit).copied().unwrap_or(b'0'));
        generation /= 36;
        if generation == 0 {
            break;
        }
    }
    out.get_mut(start..).unwrap_or_default().reverse();
}

/// Puts the pieces behind each other, as far as there is room, and answers how many bytes they are.
fn fill<const N: usize>(room: &mut Room, pieces: [&[u8]; N]) -> usize {
    let mut len = 0;
    for piece in pieces {
        let free = room.get_mut(len..).unwrap_or_default();
        let taken = piece.len().min(free.len());
        if let (Some(to), Some(from)) = (free.get_mut(..taken), piece.get(..taken)) {
            to.copy_from_slice(from);
        }
        len += taken;
    }
    len
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
