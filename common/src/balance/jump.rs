//! Jump consistent hash over stable slots (Lamping, Veach 2014, arXiv:1406.2294).

/// The key whose first step `key × 2862933555777941757 + 1` is 2⁶⁴. The crate adds with
/// overflow checks where the build has them; in wrapping arithmetic the answer is 0.
///
/// Later steps of other keys can meet the same state (with a chance of about 2⁻⁶⁰ a key):
/// the workspace builds the crate without overflow checks for their sake.
const OVERFLOWS: u64 = 0x2019_97f8_6663_13ab;

/// The slot of `0..slots` that owns a key with this hash; `None` when there are none.
///
/// Only the tail may grow or shrink: a slot in the middle keeps its number when its server
/// is replaced or away, or nearly every key would move.
pub fn jump(hash: u64, slots: usize) -> Option<usize> {
    if slots == 0 {
        return None;
    }
    if hash == OVERFLOWS {
        return Some(0);
    }
    usize::try_from(jump_consistent_hash::hash(hash, slots)).ok()
}
