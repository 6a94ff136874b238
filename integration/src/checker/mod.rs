//! Whether what many clients saw of a cache can be explained: a history checker.
//!
//! Each key is a register that **may lose its value at any time** (eviction, a crash): a miss is always allowed,
//! and from then on the key is absent until somebody writes it again. Operations take effect at one moment between
//! their request and their answer. An operation whose answer never came or was an error may have taken effect at
//! any later moment, once, or never.
//!
//! # Why it takes one pass
//!
//! Every write leaves a content that no other write leaves (`value`), so a read tells exactly which write it saw.
//!
//! 1. All operations on one content (its write, what read it) stand side by side in any explanation, since nothing
//!    brings an overwritten content back. A content made from another (a cas, an increment, an append whose result
//!    was seen) follows it at once: both belong to one **chain**. A miss, or a delete, writes "absent", a chain of
//!    its own: loss needs no event.
//! 2. Within a chain the order is known. It holds if nothing that belongs to a later content was answered before
//!    something that belongs to an earlier one was asked.
//! 3. Between chains: A must come before B if an operation of A was answered before one of B was asked, so if
//!    `f(A) < s(B)` with f the earliest answer and s the latest request of a chain. An explanation exists if and
//!    only if this relation has no cycle. A cycle implies one of two chains: take the chain A of a cycle with the
//!    least f, its predecessor P and P's predecessor Q. `f(P) < s(A)`; were there no cycle of two, `s(P) <= f(A)`,
//!    but `f(Q) < s(P) <= f(A)` contradicts the choice of A. So pairs suffice: chains that were certainly there
//!    from f to s (`f < s`) must not overlap, and a chain with `s <= f` must not lie within one of these.
//!
//! (This is Gibbons' and Korach's argument of 1997 for registers whose reads name their write, with chains for
//! clusters and loss for one more write.) Sorting a key's chains is the most expensive part.
//!
//! What is weaker than it could be, and never alarms falsely: an operation that only tells that *something* was
//! there (touch, a refused add, DELETED, replace, an append that nobody saw) is checked against certain
//! absence alone, and increments with unknown outcomes are counted, not placed. `tests` compares all of this with a
//! search through every order.

mod check;
mod client;
mod history;
mod load;
mod run;
mod steady;
#[cfg(test)]
mod tests;
mod value;

pub use check::{Violation, What, check_key};
pub use client::Protocol;
pub use history::{Did, History, Link, Record, Report, Version};
pub use run::{Change, Outcome, Plan};
pub use steady::{Hits, Window};
