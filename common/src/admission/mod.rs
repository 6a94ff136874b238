//! Who may go now, who waits, and who is told no.
//!
//! [`Gate`] bounds how many exchanges run at once and queues the rest fairly;
//! [`TokenBucket`] bounds how many start in a second, [`SharedBucket`] does so for
//! many threads. All are policy: none reads a clock nor opens a socket. Deadlines and times come in as arguments.

mod bucket;
mod gate;
mod line;
mod shared;

pub use bucket::TokenBucket;
pub use gate::{Admission, Gate, GateStatus, Permit, Refused};
pub use line::Priority;
pub use shared::SharedBucket;

#[cfg(test)]
mod tests;
