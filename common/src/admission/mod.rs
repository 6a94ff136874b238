//! Who may go now, who waits, and who is told no.
//!
//! [`Gate`] bounds how many exchanges run at once and queues the rest fairly;
//! [`TokenBucket`] bounds how many start in a second. Both are policy: neither
//! reads a clock nor opens a socket. Deadlines and times come in as arguments.

mod bucket;
mod gate;
mod line;

pub use bucket::TokenBucket;
pub use gate::{Admission, Gate, GateStatus, Permit, Refused};
pub use line::Priority;

#[cfg(test)]
mod tests;
