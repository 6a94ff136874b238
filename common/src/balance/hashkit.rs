//! The hash functions of libmemcached's `hashkit`, which twemproxy took over, and those of other clients. Each
//! gives what its original gives on x86-64, oddities included: the keys of warm caches lie where they say.
//!
//! Where an original adds a `char`, a byte above 127 comes in with its sign; [`signed`] says where.

/// A byte as C's `char` on x86-64, widened to an unsigned word.
fn signed(byte: u8) -> u32 {
    i32::from(i8::from_ne_bytes([byte])).cast_unsigned()
}

/// Up to four bytes, little-endian, the missing ones zero.
pub(super) fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| (word << 8) | u32::from(byte))
}

/// Up to eight bytes, little-endian, the missing ones zero.
pub(super) fn long_word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| (word << 8) | u64::from(byte))
}

/// Jenkins' one-at-a-time.
pub(super) fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = key.iter().fold(0_u32, |hash, &byte| {
        let hash = hash.wrapping_add(signed(byte));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

const FNV_32_OFFSET: u32 = 0x811c_9dc5;
const FNV_32_PRIME: u32 = 0x0100_0193;
/// The low halves of the 64-bit constants: only the low half of the hash is used.
const FNV_64_OFFSET_LOW: u32 = 0x8422_2325;
const FNV_64_PRIME_LOW: u32 = 0x0000_01b3;

/// FNV-1 of 64 bits, its low half.
pub(super) fn fnv1_64(key: &[u8]) -> u32 {
    fnv1(key, FNV_64_OFFSET_LOW, FNV_64_PRIME_LOW)
}

/// FNV-1 of 32 bits.
pub(super) fn fnv1_32(key: &[u8]) -> u32 {
    fnv1(key, FNV_32_OFFSET, FNV_32_PRIME)
}

/// FNV-1a of 32 bits.
pub(super) fn fnv1a_32(key: &[u8]) -> u32 {
    key.iter().fold(FNV_32_OFFSET, |hash, &byte| (hash ^ signed(byte)).wrapping_mul(FNV_32_PRIME))
}

fn fnv1(key: &[u8], offset: u32, prime: u32) -> u32 {
    key.iter().fold(offset, |hash, &byte| hash.wrapping_mul(prime) ^ signed(byte))
}

/// CRC-16 of the CCITT's polynomial as twemproxy has it: what is shifted out of the 16 bits stays in the upper half.
pub(super) fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0_u32, |crc, &byte| (crc << 8) ^ crc16_of(((crc >> 8) ^ u32::from(byte)) & 0xff))
}

/// The CRC of one byte.
fn crc16_of(byte: u32) -> u32 {
    (0..8).fold(byte << 8, |crc, _| ((crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }) & 0xffff)
}

/// Hsieh's SuperFastHash, started at 0.
pub(super) fn hsieh(key: &[u8]) -> u32 {
    let mut hash = 0_u32;
    let (blocks, rest) = key.as_chunks::<4>();
    for &[a, b, c, d] in blocks {
        hash = hash.wrapping_add(word(&[a, b]));
        hash = (hash << 16) ^ (word(&[c, d]) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *rest {
        [a, b, c] => {
            hash = hash.wrapping_add(word(&[a, b]));
            hash ^= hash << 16;
            hash ^= signed(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(word(&[a, b]));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        [] | [_, _, _, _, ..] => (),
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

/// MurmurHash2 of 32 bits with libmemcached's seed, 0xdeadbeef times the length.
pub(super) fn murmur(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // Keys are short; the originals cut the length to 32 bits, too.
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = 0xdead_beef_u32.wrapping_mul(len) ^ len;
    let (blocks, rest) = key.as_chunks::<4>();
    for block in blocks {
        let mut k = u32::from_le_bytes(*block).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        hash = (hash ^ word(rest)).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// MurmurHash3 for x86, 32 bits, seed 0.
pub(super) fn murmur3_32(parts: &[&[u8]]) -> u32 {
    const fn scramble(k: u32) -> u32 {
        k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
    }
    let (mut hash, mut len, mut block, mut filled) = (0_u32, 0_u32, 0_u32, 0_u32);
    for &byte in parts.iter().copied().flatten() {
        block |= u32::from(byte) << (8 * filled);
        (filled, len) = (filled + 1, len.wrapping_add(1));
        if filled == 4 {
            hash = (hash ^ scramble(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
            (block, filled) = (0, 0);
        }
    }
    hash ^= scramble(block) ^ len;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// Jenkins' lookup3 (`hashlittle`) with libmemcached's start value, 13.
pub(super) fn jenkins(key: &[u8]) -> u32 {
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let start = 0xdead_beef_u32.wrapping_add(len).wrapping_add(13);
    let (mut a, mut b, mut c) = (start, start, start);
    // The last block is mixed in another way, also when it is full.
    let whole = key.len().saturating_sub(1) / 12 * 12;
    let (blocks, last) = key.split_at_checked(whole).unwrap_or((key, &[]));
    let add = |block: &[u8], a: &mut u32, b: &mut u32, c: &mut u32| {
        for (state, bytes) in [a, b, c].into_iter().zip(block.chunks(4)) {
            *state = state.wrapping_add(word(bytes));
        }
    };
    for block in blocks.chunks(12) {
        add(block, &mut a, &mut b, &mut c);
        lookup3_mix(&mut a, &mut b, &mut c);
    }
    if last.is_empty() {
        return c;
    }
    add(last, &mut a, &mut b, &mut c);
    lookup3_end(a, b, c)
}

fn lookup3_mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    for rotations in [[4, 6, 8], [16, 19, 4]] {
        let [first, second, third] = rotations;
        *a = a.wrapping_sub(*c) ^ c.rotate_left(first);
        *c = c.wrapping_add(*b);
        *b = b.wrapping_sub(*a) ^ a.rotate_left(second);
        *a = a.wrapping_add(*c);
        *c = c.wrapping_sub(*b) ^ b.rotate_left(third);
        *b = b.wrapping_add(*a);
    }
}

fn lookup3_end(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// `String.hashCode` of Java, spymemcached's default. A key that is no UTF-8 counts byte by byte.
pub(super) fn java(key: &[u8]) -> u32 {
    let add = |hash: u32, unit: u16| hash.wrapping_mul(31).wrapping_add(u32::from(unit));
    match std::str::from_utf8(key) {
        Ok(text) => text.encode_utf16().fold(0, add),
        Err(_) => key.iter().map(|&byte| u16::from(byte)).fold(0, add),
    }
}
