//! mcrouter's `Ch3` and `WeightedCh3` (there: `furc_hash`): a walk down a binary tree, a bit of the key's hash at
//! each fork, so that a server added at the end takes its share from all others and nothing else moves.

use super::hashkit::long_word;
use super::spooky::spooky_32;

const SEED: u64 = 4_193_360_111;
const M: u64 = 0xc6a4_a793_5bd1_e995;
/// Tries until a number below the servers' count comes up.
const TRIES_MAX: u32 = 32;
/// Between the bits of one number: up to 2²³ servers.
const STRIDE: u32 = 23;
/// The weights' dice, and how often they are thrown.
const WEIGHT_SEED: u64 = 0xface_2014;
const WEIGHT_TRIES_MAX: u32 = 32;

/// The first 64 bits of a key's stream (MurmurHash64A).
pub(super) fn furc_start(key: &[u8]) -> u64 {
    let mut hash = SEED ^ (key.len() as u64).wrapping_mul(M);
    let (blocks, rest) = key.as_chunks::<8>();
    for block in blocks {
        hash = stir(hash, u64::from_le_bytes(*block));
    }
    if !rest.is_empty() {
        hash = (hash ^ long_word(rest)).wrapping_mul(M);
    }
    finish(hash)
}

fn stir(hash: u64, block: u64) -> u64 {
    let mut k = block.wrapping_mul(M);
    k = (k ^ (k >> 47)).wrapping_mul(M);
    (hash ^ k).wrapping_mul(M)
}

fn finish(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 47)).wrapping_mul(M);
    hash ^ (hash >> 47)
}

/// Bits without end: each further 64 are the hash of those before.
struct Bits {
    block: u64,
    number: u32,
}

impl Bits {
    /// The bit at `index`. Going forward is cheap; going back starts over.
    fn at(&mut self, start: u64, index: u32) -> bool {
        let number = index / 64;
        if number < self.number {
            *self = Self { block: start, number: 0 };
        }
        while self.number < number {
            self.block = finish(stir(SEED ^ 8_u64.wrapping_mul(M), self.block));
            self.number += 1;
        }
        (self.block >> (index % 64)) & 1 == 1
    }
}

/// The server, of `0..servers`, of the key whose [`furc_start`] this is.
pub(super) fn furc(start: u64, servers: usize) -> usize {
    if servers <= 1 {
        return 0;
    }
    let mut bits = Bits { block: start, number: 0 };
    let mut depth = usize::BITS - (servers - 1).leading_zeros();
    let mut at = depth;
    for _ in 0..TRIES_MAX {
        while !bits.at(start, at) {
            depth -= 1;
            if depth == 0 {
                return 0;
            }
            at = depth;
        }
        at += STRIDE;
        let mut number = 1_usize;
        for _ in 1..depth {
            number = (number << 1) | usize::from(bits.at(start, at));
            at += STRIDE;
        }
        if number < servers {
            return number;
        }
    }
    0
}

/// The part of its keys that a server with this weight keeps, of all dice throws.
pub(super) fn threshold(weight: f64) -> u64 {
    // A weight is from 0 to 1, so this is at most 32 bits; the original cuts it off, too.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let threshold = (weight * f64::from(u32::MAX)) as u64;
    threshold
}

/// As [`furc`], but a server keeps a key only with the chance of its weight; otherwise the key is hashed again with
/// digits added.
pub(super) fn weighted_furc(key: &[u8], thresholds: &[u64]) -> usize {
    let mut owner = furc(furc_start(key), thresholds.len());
    let keeps = |owner: usize, key: &[u8]| {
        let threshold = thresholds.get(owner).copied().unwrap_or_default();
        u64::from(spooky_32(key, WEIGHT_SEED)) < threshold
    };
    if keeps(owner, key) {
        return owner;
    }
    let mut salted = key.to_vec();
    for salt in 0..WEIGHT_TRIES_MAX - 1 {
        salted.truncate(key.len());
        // Its decimal digits, the last one first.
        let digits = salt.to_string();
        salted.extend(digits.bytes().rev());
        owner = furc(furc_start(&salted), thresholds.len());
        if keeps(owner, &salted) {
            break;
        }
    }
    owner
}
