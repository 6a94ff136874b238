//! What is sent again, and how much of it.
//!
//! Pure: whether, and after how long. The driver waits, and sends.

mod budget;

use crate::config::{self, Failure};
use crate::error::Error;
use budget::Budget;
use groove_common::balance::Dice;
use std::sync::Arc;
use std::time::Duration;

/// A set of statuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses(Box<[std::ops::RangeInclusive<u16>]>);

impl Statuses {
    /// Those among the failures.
    pub fn of(failures: &[Failure]) -> Self {
        let ranges = failures.iter().filter_map(|failure| match failure {
            Failure::Status(statuses) => Some(statuses.clone()),
            Failure::Connect | Failure::Reset | Failure::Timeout => None,
        });
        Self(ranges.collect())
    }

    /// Whether a status is among them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|statuses| statuses.contains(&status))
    }
}

/// A cluster's rules of what is sent again.
#[derive(Debug)]
pub struct Retry {
    /// How often one request is.
    pub attempts: u32,
    /// Requests that are not idempotent too.
    pub non_idempotent: bool,
    on_connect: bool,
    on_reset: bool,
    on_timeout: bool,
    statuses: Statuses,
    backoff_base: Duration,
    backoff_max: Duration,
    budget: Arc<Budget>,
}

impl Retry {
    /// As configured. What is left of the budget lives on where the rules `before` had the same.
    pub fn new(retry: &config::Retry, before: Option<&Self>) -> Self {
        let has = |wanted: &Failure| retry.on.contains(wanted);
        let budget = before.map(|before| &before.budget).filter(|budget| budget.is_of(&retry.budget));
        Self {
            attempts: retry.attempts,
            non_idempotent: retry.non_idempotent,
            on_connect: has(&Failure::Connect),
            on_reset: has(&Failure::Reset),
            on_timeout: has(&Failure::Timeout),
            statuses: Statuses::of(&retry.on),
            backoff_base: retry.backoff.base.get(),
            backoff_max: retry.backoff.max.get(),
            budget: budget.map_or_else(|| Arc::new(Budget::new(&retry.budget)), Arc::clone),
        }
    }

    /// Counts a request, of which the budget is a share.
    pub fn begin(&self) {
        self.budget.deposit();
    }

    /// Whether a reply with this status is kept from the client, and its request sent again: that is paid for here.
    pub fn takes_status(&self, status: u16, now: Duration) -> bool {
        self.statuses.contains(status) && self.budget.withdraw(now)
    }

    /// Whether a request that failed so is sent again, which is paid for here. `may_replay`: it does no harm if a
    /// server has acted on it.
    pub fn takes_error(&self, error: &Error, may_replay: bool, now: Duration) -> bool {
        // That one is paid for.
        if matches!(error, Error::Status(_)) {
            return true;
        }
        let is_unsent = matches!(error, Error::Unreachable { .. } | Error::ConnectTimeout(_));
        let wanted = (is_unsent && self.on_connect)
            || (may_replay && self.on_reset && matches!(error, Error::Unanswered))
            || (may_replay && self.on_timeout && matches!(error, Error::FirstByteTimeout));
        wanted && self.budget.withdraw(now)
    }

    /// How long to wait before a request is sent for the `attempt`-th time again, from 0 on.
    pub fn backoff(&self, attempt: u32, dice: &mut Dice) -> Duration {
        let most = self.backoff_base.saturating_mul(1 << attempt.min(16)).min(self.backoff_max);
        most.mul_f64(0.5 + dice.unit() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(yaml: config::Retry) -> Retry {
        Retry::new(&yaml, None)
    }

    #[test]
    fn what_a_server_may_have_acted_on_is_sent_again_only_where_that_does_no_harm() {
        let retry = retry(config::Retry::default());
        let now = Duration::ZERO;
        let refused = Error::Unreachable { address: "a:1".into(), reason: "refused".into() };
        assert!(retry.takes_error(&refused, false, now), "nothing was sent");
        assert!(!retry.takes_error(&Error::Unanswered, false, now));
        assert!(retry.takes_error(&Error::Unanswered, true, now));
        assert!(!retry.takes_error(&Error::FirstByteTimeout, true, now), "not asked for");
        assert!(!retry.takes_error(&Error::Cut, true, now), "the client has seen it");
        assert!(retry.takes_status(503, now) && !retry.takes_status(500, now));
    }

    #[test]
    fn waits_double_to_their_bound_and_are_never_less_than_half() {
        let retry = retry(config::Retry::default());
        let mut dice = Dice::seeded(1);
        for (attempt, most) in [(0, 25), (1, 50), (3, 200), (9, 1000), (200, 1000)] {
            for _ in 0..100 {
                let wait = retry.backoff(attempt, &mut dice);
                let most = Duration::from_millis(most);
                assert!(wait >= most / 2 && wait <= most, "{attempt}: {wait:?}");
            }
        }
    }
}
