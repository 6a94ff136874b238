//! Chance that can be had again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs only this seed of each simulation, when set.
const SEED_VARIABLE: &str = "GROOVE_SEED";

/// A sequence of numbers that its seed determines (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = end as u64;
        // Below a usize, so it fits.
        usize::try_from(self.roll().checked_rem(end).unwrap_or(0)).unwrap_or(0)
    }

    /// True `times` times out of `of`.
    pub fn chance(&mut self, times: usize, of: usize) -> bool {
        self.below(of) < times
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// Runs a simulation once a seed, and names the seed of a run that fails. `GROOVE_SEED=17 cargo test NAME` runs
/// that one alone.
pub fn simulate(seeds: u64, run: impl Fn(&mut Dice)) {
    let only = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..seeds, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(failure) = catch_unwind(AssertUnwindSafe(|| run(&mut Dice::new(seed)))) {
            // The test harness shows what a failing test wrote here.
            eprintln!("failed with {SEED_VARIABLE}={seed}");
            resume_unwind(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let rolls = |seed| {
            std::iter::repeat_with({
                let mut dice = Dice::new(seed);
                move || dice.roll()
            })
        };
        assert!(rolls(7).take(10).eq(rolls(7).take(10)));
        assert!(rolls(7).take(10).ne(rolls(8).take(10)));
    }

    #[test]
    fn every_number_below_the_end_comes_up() {
        let mut dice = Dice::new(1);
        let mut seen = [false; 6];
        (0..200).for_each(|_| seen[dice.below(6)] = true);
        assert_eq!(seen, [true; 6]);
        assert_eq!(dice.below(0), 0);
    }

    #[test]
    #[should_panic(expected = "rolled high")]
    fn a_failing_run_fails_the_simulation() {
        simulate(64, |dice| assert!(dice.below(8) < 7, "rolled high"));
    }
}
