//! Which statements only read, so that a replica may answer them.
//!
//! ```text
//! text ─► reader (`sql`) ─ leaves nothing behind? ─► parser ─ one of the statements that read, nothing in it that
//!   │                                                         writes, locks, or calls what may? ─► Verdict
//!   └──── the same without its literals: was judged before ─────────────────────────────────────────▲
//! ```
//!
//! Whatever is not understood writes. And a verdict is not all that stands between a write and a replica: the replica
//! itself refuses it, and what it refuses before it has said anything is sent to the primary, see [`first_word`].

mod answer;
mod functions;
mod judge;
mod own_writes;
#[cfg(test)]
mod tests;
mod verdict;

pub use answer::{FirstWord, Owed, Why, first_word};
pub use functions::Functions;
pub use judge::Judge;
pub use own_writes::Wrote;
pub use verdict::{Modes, Verdict};
