//! Hashes of keys, as the continua of others have them. They are not for security: whoever
//! chooses keys can choose where they go.

use md5::{Digest, Md5};

const FNV_64_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_64_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a with 64 bits (Fowler, Noll, Vo; `draft-eastlake-fnv`).
pub fn fnv1a_64(key: &[u8]) -> u64 {
    key.iter().fold(FNV_64_OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_64_PRIME))
}

/// What libmemcached and twemproxy call `fnv1a_64`: their state is 32 bits wide, prime and
/// offset are cut to it, and a byte above 127 comes in with its sign (x86's `char`).
pub fn fnv1a_64_low(key: &[u8]) -> u32 {
    const OFFSET: u32 = (FNV_64_OFFSET & 0xffff_ffff) as u32;
    const PRIME: u32 = (FNV_64_PRIME & 0xffff_ffff) as u32;
    key.iter().fold(OFFSET, |hash, &byte| {
        let signed = i32::from(i8::from_ne_bytes([byte]));
        (hash ^ signed.cast_unsigned()).wrapping_mul(PRIME)
    })
}

/// The MD5 of a text as ketama uses it: four little-endian words.
pub fn md5_words(text: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(text).into();
    let (words, _) = digest.as_chunks::<4>();
    let mut found = [0; 4];
    for (word, bytes) in found.iter_mut().zip(words) {
        *word = u32::from_le_bytes(*bytes);
    }
    found
}

/// MD5 as a key hash: the first of [`md5_words`].
pub fn md5_low(key: &[u8]) -> u32 {
    let [first, ..] = md5_words(key);
    first
}

/// CRC-32 (ISO-HDLC, as in zlib); `crc32a` to twemproxy.
pub fn crc32(key: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc32_table();
    !key.iter().fold(!0, |crc: u32, &byte| {
        let [low, ..] = crc.to_le_bytes();
        // A byte is always inside a table of 256.
        TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default() ^ (crc >> 8)
    })
}

// `get_mut` and iterators are no const functions yet; the loop ends at the table's length.
#[allow(clippy::indexing_slicing)]
const fn crc32_table() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let mut table = [0_u32; 256];
    let mut index = 0_u32;
    while index < 256 {
        let mut crc = index;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

/// What libmemcached and twemproxy call `crc32`: fifteen bits of it.
pub fn crc32_libmemcached(key: &[u8]) -> u32 {
    (crc32(key) >> 16) & 0x7fff
}

/// Makes the `salt`-th independent hash out of one, for the next choice when the first is
/// down (the finalizer of SplitMix64 over both).
pub fn mix(hash: u64, salt: u32) -> u64 {
    if salt == 0 {
        return hash;
    }
    super::Dice::seeded(hash ^ u64::from(salt).wrapping_mul(FNV_64_PRIME)).bits()
}
