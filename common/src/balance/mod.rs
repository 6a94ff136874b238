//! Which endpoint takes the next exchange.
//!
//! | when | function |
//! |---|---|
//! | any will do | [`least_loaded`], [`p2c`], [`peak_ewma`], [`WeightedRoundRobin`] |
//! | the key decides | [`Hasher`] and [`Placement`]: every distribution that clients of memcached know |
//! | the same, by hand | [`jump`] over stable slots, [`Ring`] (ketama), [`rendezvous`], [`Maglev`] |
//!
//! All of it is pure: endpoints come as a slice of [`Candidate`]s, time as a duration since
//! the caller's origin, dice as [`Dice`]. No pick allocates.

mod dice;
mod function;
mod furc;
mod hash;
mod hashkit;
mod jump;
mod ketama;
mod load;
mod maglev;
mod placement;
mod rendezvous;
mod round_robin;
mod spooky;

pub use dice::Dice;
pub use function::{Function, Hasher, Part};
pub use hash::{crc32, crc32_libmemcached, fnv1a_64, fnv1a_64_low, md5_low, md5_words, mix};
pub use jump::jump;
pub use ketama::{Dialect, Ring, RingServer};
pub use load::{PeakEwma, least_loaded, p2c, peak_ewma, slow_start};
pub use maglev::Maglev;
pub use placement::{Distribution, Place, Placement, Rule};
pub use rendezvous::rendezvous;
pub use round_robin::WeightedRoundRobin;

#[cfg(test)]
mod tests;

use std::time::Duration;

/// What a policy may know of an endpoint.
pub trait Candidate {
    /// Whether it takes traffic at all.
    fn is_usable(&self) -> bool;
    /// Its share of the work beside the others'; 0 gets none.
    fn weight(&self, now: Duration) -> f64;
    /// Exchanges under way.
    fn in_flight(&self) -> u32;
    /// A peak-sensitive average of its latency, in seconds.
    fn latency_s(&self, now: Duration) -> f64;
}
