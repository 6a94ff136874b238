//! Jump consistent hash over stable slots (Lamping, Veach 2014, arXiv:1406.2294).

/// The multiplier of Knuth's generator, as in the paper.
const STEP: u64 = 2_862_933_555_777_941_757;

/// The slot of `0..slots` that owns a key with this hash; `None` when there are none.
///
/// Only the tail may grow or shrink: a slot in the middle keeps its number when its server
/// is replaced or away, or nearly every key would move.
pub fn jump(mut hash: u64, slots: usize) -> Option<usize> {
    // Numbers of 32 bits are floats in one instruction, longer ones in many.
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    let last = slots.checked_sub(1)?;
    let mut slot = 0_u32;
    // From the last slot on, every jump ends beyond it: a division less for each key.
    while slot < last {
        hash = hash.wrapping_mul(STEP).wrapping_add(1);
        let stretch = f64::from(1_u32 << 31) / (f64::from((hash >> 33) as u32) + 1.0);
        let next = (f64::from(slot) + 1.0) * stretch;
        if next >= f64::from(slots) {
            break;
        }
        slot = whole(next);
    }
    usize::try_from(slot).ok()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "less than the number of slots, and its whole part is meant"
)]
fn whole(next: f64) -> u32 {
    next as u32
}
