//! What stands at the key of a value that is stored in parts, and what its parts are called.
//!
//! ```text
//! \0groove parts 1\0   id        length    of a part  checksum
//! 16 bytes             16 bytes  4         4          8          big-endian, 48 in all
//! ```
//!
//! Every version has an id of its own, thrown by dice, and the names of its parts are made of that: whoever finds a
//! part has one of this version and of no other. A client's own value that begins with the same 16 bytes is stored
//! in parts whatever its length, so nothing but a head is ever mistaken for one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

/// What a head begins with.
pub(super) const MAGIC: [u8; 16] = *b"\0groove parts 1\0";

/// The length of every head.
pub(super) const HEAD_LEN: usize = 48;

/// What the name of a part begins with.
const PART: &[u8] = b"groove-part:";

/// A head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Of this version and no other.
    pub(super) id: u128,
    /// Bytes of the whole value.
    pub(super) len: u32,
    /// Bytes of every part but the last, which may be shorter. Never 0.
    part_len: u32,
    /// Of the whole value.
    checksum: u64,
}

/// Does this begin a head, as far as one can see without its end?
pub fn is_head(value: &[u8]) -> bool {
    value.starts_with(&MAGIC)
}

/// Might a value that begins with this be taken for a head?
pub(super) fn may_begin_head(value: &[u8]) -> bool {
    value.starts_with(&MAGIC) || MAGIC.starts_with(value)
}

impl Head {
    /// Of this value. None if it is longer than memcached can hold.
    pub(super) fn of(value: &[u8], id: u128, part_len: usize) -> Option<Self> {
        let len = u32::try_from(value.len()).ok()?;
        let part_len = u32::try_from(part_len).unwrap_or(u32::MAX).max(1);
        Some(Self { id, len, part_len, checksum: xxh3_64(value) })
    }

    /// Reads one. None if it is something else.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let (magic, rest) = value.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (part_len, rest) = rest.split_first_chunk()?;
        let head = Self {
            id: u128::from_be_bytes(*id),
            len: u32::from_be_bytes(*len),
            part_len: u32::from_be_bytes(*part_len),
            checksum: u64::from_be_bytes(rest.try_into().ok()?),
        };
        (*magic == MAGIC && head.part_len > 0).then_some(head)
    }

    /// As it is stored.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.id.to_be_bytes());
        bytes.extend_from_slice(&self.len.to_be_bytes());
        bytes.extend_from_slice(&self.part_len.to_be_bytes());
        bytes.extend_from_slice(&self.checksum.to_be_bytes());
        bytes
    }

    /// Is this the value?
    pub(super) fn is_of(&self, value: &[u8]) -> bool {
        value.len() == self.len() && xxh3_64(value) == self.checksum
    }

    /// Bytes of the whole value.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }

    /// The numbers of its parts.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let head = *self;
        (0..head.len.div_ceil(head.part_len)).map(move |number| {
            let from = u64::from(number) * u64::from(head.part_len);
            let to = (from + u64::from(head.part_len)).min(u64::from(head.len));
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            Part { key: head.key(number), from: place(from), to: place(to) }
        })
    }

    /// What a part is called: 46 letters at the most.
    fn key(&self, number: u32) -> Vec<u8> {
        let mut key = PART.to_vec();
        key.extend_from_slice(URL_SAFE_NO_PAD.encode(self.id.to_be_bytes()).as_bytes());
        key.extend_from_slice(format!(":{number}").as_bytes());
        key
    }
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Its key.
    pub(super) key: Vec<u8>,
    /// Where it begins in the value.
    pub(super) from: usize,
    /// Where it ends.
    pub(super) to: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_and_nothing_else_is_one() {
        let value = vec![7; 2500];
        let head = Head::of(&value, 99 << 100, 1000).unwrap();
        let bytes = head.write();
        assert_eq!((bytes.len(), Head::read(&bytes)), (HEAD_LEN, Some(head)));
        assert!(is_head(&bytes) && head.is_of(&value) && !head.is_of(&[8; 2500]));
        assert_eq!(Head::read(&bytes[..HEAD_LEN - 1]), None);
        assert_eq!(Head::read(&[&bytes[..], b"x"].concat()), None);
        assert_eq!(Head::read(&[0; HEAD_LEN]), None);
        for short in [&b""[..], b"\0", b"\0groove", &MAGIC, &bytes] {
            assert!(may_begin_head(short), "{short:?}");
        }
        assert!(!may_begin_head(b"groove") && !may_begin_head(b"\0groove parts 2\0"));
    }

    #[test]
    fn the_parts_cover_the_value_and_no_two_have_one_key() {
        for (len, of) in [(1, 1), (2500, 1000), (3000, 1000), (16, 1000), (1 << 20, 1 << 10)] {
            let head = Head::of(&vec![1; len], 5, of).unwrap();
            let parts: Vec<Part> = head.parts().collect();
            assert_eq!(parts.iter().map(|part| part.to - part.from).sum::<usize>(), len);
            assert!(parts.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].key != pair[1].key));
            assert!(parts.iter().all(|part| part.to - part.from <= of && part.key.len() <= 46));
        }
    }
}
