//! How slow a client may be. Pure: the times come in as arguments.
//!
//! A client has a credit of time. While it is waited for the credit goes down, each byte that it sends or takes brings
//! some back, and it never has more than the grace. Time that the server takes costs the client nothing.

use std::time::Duration;
use tokio::time::Instant;

/// The least that a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes a second.
    pub bytes: u64,
    /// The most it can be behind.
    pub grace: Duration,
}

/// One client's credit during one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    min: MinRate,
    credit: Duration,
    /// Since when it is waited for.
    waiting: Option<Instant>,
}

impl Pace {
    /// Full credit.
    pub fn new(min: MinRate) -> Self {
        Self { min, credit: min.grace, waiting: None }
    }

    /// The client has sent or taken `bytes` since the last time, and is waited for from `now` on or not. Gives until when
    /// its credit lasts; `None` if it is not waited for.
    pub fn moved(&mut self, now: Instant, bytes: u64, is_waited_for: bool) -> Option<Instant> {
        if let Some(since) = self.waiting.take() {
            self.credit = self.credit.saturating_sub(now.saturating_duration_since(since));
        }
        // A second's bytes bring a second back.
        let earned = Duration::from_secs_f64(bytes as f64 / self.min.bytes.max(1) as f64);
        self.credit = self.credit.saturating_add(earned).min(self.min.grace);
        self.waiting = is_waited_for.then_some(now);
        self.waiting.map(|since| since + self.credit)
    }

    /// Whether the credit is used up.
    pub fn is_over(&self, now: Instant) -> bool {
        self.waiting.is_some_and(|since| now.saturating_duration_since(since) >= self.credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: MinRate = MinRate { bytes: 100, grace: Duration::from_secs(10) };

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_rate_is_never_cut_and_who_does_not_is() {
        let start = Instant::now();
        for (rate, wants_over) in [(100, false), (120, false), (50, true), (1, true)] {
            let mut pace = Pace::new(MIN);
            pace.moved(start, 0, true);
            let over = (1..120).find(|second| {
                let now = start + Duration::from_secs(*second);
                let is_over = pace.is_over(now);
                pace.moved(now, rate, true);
                is_over
            });
            assert_eq!(over.is_some(), wants_over, "{rate} a second: {over:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_is_the_servers_costs_nothing_and_a_burst_buys_no_more_than_the_grace() {
        let start = Instant::now();
        let mut pace = Pace::new(MIN);
        assert_eq!(pace.moved(start, 1_000_000, false), None);
        let later = start + Duration::from_secs(3600);
        assert!(!pace.is_over(later));
        assert_eq!(pace.moved(later, 0, true), Some(later + MIN.grace));
        assert!(pace.is_over(later + MIN.grace));
    }
}
