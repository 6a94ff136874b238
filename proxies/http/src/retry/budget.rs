//! How many requests may be sent again: a share of all, and a few a second (Finagle's retry budget).

use crate::config;
use groove_common::admission::SharedBucket;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Of a retry.
const PARTS: i64 = 10_000;
/// Retries that can be saved up: a burst of failures after a long calm is no reason for a storm.
const SAVED_MAX: i64 = 100 * PARTS;

/// What is left of a budget, for all workers.
#[derive(Debug)]
pub(super) struct Budget {
    configured: config::Budget,
    /// What each request adds, in parts of a retry.
    share: i64,
    saved: AtomicI64,
    steady: Option<SharedBucket>,
}

impl Budget {
    pub(super) fn new(budget: &config::Budget) -> Self {
        let rate = budget.min_per_second;
        Self {
            configured: budget.clone(),
            share: parts(budget.percent),
            saved: AtomicI64::new(0),
            steady: (rate > 0.0).then(|| SharedBucket::new(rate, rate)),
        }
    }

    pub(super) fn is_of(&self, budget: &config::Budget) -> bool {
        self.configured == *budget
    }

    /// A request has come.
    pub(super) fn deposit(&self) {
        // Threads that add at once may exceed the bound by a few shares; it is taken from all the same.
        if self.saved.load(Ordering::Relaxed) < SAVED_MAX {
            self.saved.fetch_add(self.share, Ordering::Relaxed);
        }
    }

    /// Pays for a retry, if that can be paid for.
    pub(super) fn withdraw(&self, now: Duration) -> bool {
        let pay = |saved: i64| (saved >= PARTS).then_some(saved - PARTS);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
            || self.steady.as_ref().is_some_and(|steady| steady.reserve(now, 1.0, Duration::ZERO).is_ok())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "`as` saturates, and shares are small")]
fn parts(percent: f64) -> i64 {
    (percent / 100.0 * PARTS as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use groove_common::balance::Dice;

    #[test]
    fn simulated_budgets_pay_for_their_share_and_the_few_a_second_and_no_more() {
        for seed in 0..100 {
            let mut dice = Dice::seeded(seed);
            let (percent, rate) = (dice.unit() * 50.0, dice.unit() * 20.0);
            let budget = Budget::new(&config::Budget { percent, min_per_second: rate });
            let (mut now, mut requests, mut paid) = (Duration::from_secs(100), 0.0, 0.0);
            for _ in 0..5_000 {
                now += Duration::from_micros(dice.below(2_000) as u64);
                budget.deposit();
                requests += 1.0;
                if dice.below(2) == 0 && budget.withdraw(now) {
                    paid += 1.0;
                }
            }
            let most = requests * percent / 100.0 + rate.max(1.0) + rate * (now.as_secs_f64() - 100.0) + 1.0;
            assert!(paid <= most, "seed {seed}: {paid} of {most}");
            assert!(paid >= (most * 0.9 - 10.0).min(requests * 0.4), "seed {seed}: only {paid} of {most}");
        }
    }

    #[test]
    fn what_is_saved_up_has_a_bound() {
        let budget = Budget::new(&config::Budget { percent: 100.0, min_per_second: 0.0 });
        (0..10_000).for_each(|_| budget.deposit());
        let paid = (0..10_000).filter(|_| budget.withdraw(Duration::ZERO)).count();
        assert!((100..=101).contains(&paid), "{paid}");
    }
}
