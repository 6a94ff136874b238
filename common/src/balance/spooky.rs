//! SpookyHash V2 (Bob Jenkins, public domain): the dice of mcrouter's weights.

use super::hashkit::long_word;

const CONST: u64 = 0xdead_beef_dead_beef;
/// From this length on, a message is mixed in blocks of twelve words.
const LONG_LEN_MIN: usize = 192;
const BLOCK_LEN: usize = 96;

/// The low 32 bits of a message's hash under one seed.
pub(super) fn spooky_32(message: &[u8], seed: u64) -> u32 {
    let hash = if message.len() < LONG_LEN_MIN { short(message, seed) } else { long(message, seed) };
    // The low half is what the original returns.
    (hash & 0xffff_ffff) as u32
}

fn short(message: &[u8], seed: u64) -> u64 {
    let (mut a, mut b, mut c, mut d) = (seed, seed, CONST, CONST);
    let (blocks, mut rest) = message.as_chunks::<32>();
    for block in blocks {
        let mut words = block.chunks(8).map(long_word);
        let mut next = || words.next().unwrap_or_default();
        c = c.wrapping_add(next());
        d = d.wrapping_add(next());
        short_mix(&mut a, &mut b, &mut c, &mut d);
        a = a.wrapping_add(next());
        b = b.wrapping_add(next());
    }
    if let Some((half, after)) = rest.split_at_checked(16) {
        let (low, high) = half.split_at_checked(8).unwrap_or((half, &[]));
        c = c.wrapping_add(long_word(low));
        d = d.wrapping_add(long_word(high));
        short_mix(&mut a, &mut b, &mut c, &mut d);
        rest = after;
    }
    d = d.wrapping_add((message.len() as u64) << 56);
    if rest.is_empty() {
        c = c.wrapping_add(CONST);
        d = d.wrapping_add(CONST);
    } else {
        let (low, high) = rest.split_at_checked(8).unwrap_or((rest, &[]));
        c = c.wrapping_add(long_word(low));
        d = d.wrapping_add(long_word(high));
    }
    short_end(a, b, c, d)
}

fn short_mix(a: &mut u64, b: &mut u64, c: &mut u64, d: &mut u64) {
    for [first, second, third, fourth] in [[50, 52, 30, 41], [54, 48, 38, 37], [62, 34, 5, 36]] {
        *c = c.rotate_left(first).wrapping_add(*d);
        *a ^= *c;
        *d = d.rotate_left(second).wrapping_add(*a);
        *b ^= *d;
        *a = a.rotate_left(third).wrapping_add(*b);
        *c ^= *a;
        *b = b.rotate_left(fourth).wrapping_add(*c);
        *d ^= *b;
    }
}

fn short_end(a: u64, b: u64, c: u64, d: u64) -> u64 {
    // Each step folds a word into the next, around the circle c, d, a, b.
    let mut state = [c, d, a, b];
    for rotation in [15, 52, 26, 51, 28, 9, 47, 54, 32, 25, 63] {
        let [folded, into, third, fourth] = state;
        let into = into ^ folded;
        let folded = folded.rotate_left(rotation);
        state = [into.wrapping_add(folded), third, fourth, folded];
    }
    // Eleven steps: the circle stands at b, then c, d, a.
    let [_, _, _, a] = state;
    a
}

fn long(message: &[u8], seed: u64) -> u64 {
    let mut state = [seed, seed, CONST, seed, seed, CONST, seed, seed, CONST, seed, seed, CONST];
    let (blocks, rest) = message.as_chunks::<BLOCK_LEN>();
    for block in blocks {
        mix(&mut state, block);
    }
    let mut last = [0; BLOCK_LEN];
    for (place, &byte) in last.iter_mut().zip(rest) {
        *place = byte;
    }
    // Its length, which is below a block's, in the last byte.
    if let Some(place) = last.last_mut() {
        *place = u8::try_from(rest.len()).unwrap_or_default();
    }
    for (word, bytes) in state.iter_mut().zip(last.chunks(8)) {
        *word = word.wrapping_add(long_word(bytes));
    }
    for _ in 0..3 {
        end_part(&mut state);
    }
    let [first, ..] = state;
    first
}

/// One word after the other is stirred in, each at the front of a circle that then turns by one.
fn mix(state: &mut [u64; 12], block: &[u8; BLOCK_LEN]) {
    const ROTATIONS: [u32; 12] = [11, 32, 43, 31, 17, 28, 39, 57, 55, 54, 22, 46];
    for (bytes, rotation) in block.chunks(8).zip(ROTATIONS) {
        let [s0, s1, s2, .., s10, s11] = state;
        *s0 = s0.wrapping_add(long_word(bytes));
        *s2 ^= *s10;
        *s11 ^= *s0;
        *s0 = s0.rotate_left(rotation);
        *s11 = s11.wrapping_add(*s1);
        state.rotate_left(1);
    }
}

fn end_part(state: &mut [u64; 12]) {
    const ROTATIONS: [u32; 12] = [44, 15, 34, 21, 38, 33, 10, 13, 38, 53, 42, 54];
    for rotation in ROTATIONS {
        let [_, h1, h2, .., h11] = state;
        *h11 = h11.wrapping_add(*h1);
        *h2 ^= *h11;
        *h1 = h1.rotate_left(rotation);
        state.rotate_left(1);
    }
}
