//! Rendezvous hashing (Thaler, Ravishankar 1998), weighted.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The node that owns `key`: each node draws a number for it, and the highest wins. When a
/// node leaves only its own keys move, each to its second choice.
///
/// A node is its seed (say, the xxh3 of its name) and a weight; its draw is
/// `weight / -ln(u)` with `u` in `(0, 1)` from xxh3 of the key under that seed, which gives
/// each node its exact share (Schindelhauer, Schomaker 2005). Takes a time proportional to
/// the nodes: for tens of them.
pub fn rendezvous(key: &[u8], nodes: impl IntoIterator<Item = (u64, f64)>) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (draw, index) in draws(key, nodes) {
        if best.is_none_or(|(highest, _)| draw > highest) {
            best = Some((draw, index));
        }
    }
    best.map(|(_, index)| index)
}

/// What each node that has a weight draws for `key`, with its index.
pub(super) fn draws(
    key: &[u8],
    nodes: impl IntoIterator<Item = (u64, f64)>,
) -> impl Iterator<Item = (f64, usize)> {
    let weighty = nodes.into_iter().enumerate().filter(|(_, (_, weight))| *weight > 0.0);
    weighty
        .map(move |(index, (seed, weight))| (weight / -open_unit(xxh3_64_with_seed(key, seed)).ln(), index))
}

/// 53 bits of a hash as a number strictly between 0 and 1.
fn open_unit(hash: u64) -> f64 {
    ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}
