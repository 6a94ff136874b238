//! What servers say of themselves.

/// What a server said, asked once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sighting {
    /// It follows another.
    pub(super) in_recovery: bool,
    /// The timeline it writes, which each promotion raises, or the one it has followed so far; 0 if it does not tell.
    pub(super) timeline: u32,
    /// Up to where it has written its WAL, or applied that of another: bytes since its beginning.
    pub(super) applied: u64,
    /// Up to where it knows of WAL.
    pub(super) received: u64,
    /// Up to where a primary's WAL goes, whether it is written yet or not: every commit that it has confirmed is within.
    pub(super) inserted: u64,
}
