//! `flush_all` while keys move.
//!
//! For each key it is a delete, and a delete goes to old first and then to new: what a copy has read at old before
//! is either at new already and goes too, or the stub that it was to fill is gone. One server may be old for some
//! keys and new for others, so no order of the servers is right for all keys: each server is flushed, and when all
//! have said so, each once more. What comes twice costs misses at most, of what was stored in between.

#[cfg(any(test, feature = "mutants"))]
use super::mutants::Mutant;

/// How often every server is flushed, each time after all have confirmed the time before.
pub fn rounds() -> u32 {
    #[cfg(any(test, feature = "mutants"))]
    if Mutant::current() == Some(Mutant::FlushOnce) {
        return 1;
    }
    2
}
