//! Who is well: the passive [`Breaker`], the verdict over active probes, and how
//! long to leave a sick server alone ([`Backoff`], [`Redial`]).
//!
//! Nothing here reads a clock or throws dice. `now` is a duration since any fixed
//! origin that the caller keeps to; `dice` is a number in `0.0..1.0`.

mod backoff;
mod breaker;
mod probe;

pub use backoff::{Backoff, Redial, Turn};
pub use breaker::{Breaker, BreakerPolicy, Change, State, may_eject};
pub use probe::{ProbeVerdict, Verdict};

#[cfg(test)]
mod tests;
