//! The time and the dice that the pure rooms below are handed.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::Dice;

/// A cluster's time: a duration since it began. Follows tokio's clock, so tests can pause it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(&self) -> Duration {
        self.0.elapsed()
    }

    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.0 + at
    }
}

/// Dice seeded by the system: two processes, or two workers, never throw the same.
pub fn fresh_dice() -> Dice {
    // The standard library's keys come from the system's random source.
    Dice::seeded(RandomState::new().hash_one(std::process::id()))
}
