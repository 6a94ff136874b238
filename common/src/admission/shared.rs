//! A token bucket that many threads take from, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of a nanosecond: fine enough for ten gigabytes a second, and 36 years fit.
const TICKS_PER_NS: f64 = 16.0;

/// The bucket as one number, as [`super::TokenBucket`] has it; here tokens may be reserved that are still to come,
/// so that whoever waits keeps his place and nobody looks twice.
///
/// Times are durations since any fixed origin that all threads keep to.
#[derive(Debug)]
pub struct SharedBucket {
    token_ticks: f64,
    burst_ticks: u64,
    full_at_ticks: AtomicU64,
}

impl SharedBucket {
    /// A full bucket: `rate` tokens flow in a second (more than 0), up to `burst` lie ready (at least one).
    pub fn new(rate: f64, burst: f64) -> Self {
        debug_assert!(rate > 0.0, "a bucket without inflow");
        let token_ticks = 1e9 * TICKS_PER_NS / rate;
        let burst_ticks = ticks_of(token_ticks * burst.max(1.0));
        Self { token_ticks, burst_ticks, full_at_ticks: AtomicU64::new(0) }
    }

    /// Takes `tokens`, those to come included, and says how long from `now` until they are there. More than the
    /// burst are lent, or one that is oversized could never pass.
    ///
    /// # Errors
    ///
    /// When that would be longer than `wait_max`: nothing is taken, and the wait is told.
    pub fn reserve(&self, now: Duration, tokens: f64, wait_max: Duration) -> Result<Duration, Duration> {
        let now_ticks = ticks_of(now.as_secs_f64() * 1e9 * TICKS_PER_NS);
        let cost_ticks = ticks_of(tokens * self.token_ticks);
        let mut known = self.full_at_ticks.load(Ordering::Relaxed);
        loop {
            let full_at = known.max(now_ticks);
            let due = full_at.saturating_add(cost_ticks.min(self.burst_ticks));
            let wait = duration_of(due.saturating_sub(self.burst_ticks).saturating_sub(now_ticks));
            if wait > wait_max {
                return Err(wait);
            }
            let next = full_at.saturating_add(cost_ticks);
            match self.full_at_ticks.compare_exchange_weak(known, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(wait),
                Err(seen) => known = seen,
            }
        }
    }

    /// Takes tokens for what has been used already; the bucket may go into debt.
    pub fn charge(&self, now: Duration, tokens: f64) {
        let now_ticks = ticks_of(now.as_secs_f64() * 1e9 * TICKS_PER_NS);
        let cost_ticks = ticks_of(tokens * self.token_ticks);
        let take = |known: u64| Some(known.max(now_ticks).saturating_add(cost_ticks));
        // The closure never refuses.
        _ = self.full_at_ticks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and times are positive"
)]
fn ticks_of(ticks: f64) -> u64 {
    ticks as u64
}

fn duration_of(ticks: u64) -> Duration {
    Duration::from_nanos(ticks / 16)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::*;

    const NO_WAIT: Duration = Duration::ZERO;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let bucket = SharedBucket::new(1000.0, 10.0);
        let now = ms(5000);
        for _ in 0..10 {
            assert_eq!(bucket.reserve(now, 1.0, NO_WAIT), Ok(NO_WAIT));
        }
        assert_eq!(bucket.reserve(now, 1.0, NO_WAIT), Err(ms(1)));
        assert_eq!(bucket.reserve(now + ms(1), 1.0, NO_WAIT), Ok(NO_WAIT));
        assert_eq!(bucket.reserve(now + ms(1), 1.0, NO_WAIT), Err(ms(1)));
        // It fills up, and no further.
        let later = now + ms(60_000);
        assert_eq!((0..20).filter(|_| bucket.reserve(later, 1.0, NO_WAIT).is_ok()).count(), 10);
    }

    #[test]
    fn who_waits_keeps_his_place() {
        let bucket = SharedBucket::new(100.0, 1.0);
        let now = ms(1000);
        let waits: Vec<_> = (0..5).map(|_| bucket.reserve(now, 1.0, ms(30))).collect();
        assert_eq!(waits, [Ok(ms(0)), Ok(ms(10)), Ok(ms(20)), Ok(ms(30)), Err(ms(40))]);
        // The one that was refused took nothing.
        assert_eq!(bucket.reserve(now + ms(10), 1.0, ms(30)), Ok(ms(30)));
    }

    #[test]
    fn what_is_larger_than_the_burst_is_lent() {
        let bucket = SharedBucket::new(1000.0, 10.0);
        let now = ms(1000);
        assert_eq!(bucket.reserve(now, 100.0, NO_WAIT), Ok(NO_WAIT));
        assert_eq!(bucket.reserve(now, 1.0, NO_WAIT), Err(ms(91)));
        bucket.charge(now, 9.0);
        assert_eq!(bucket.reserve(now, 1.0, NO_WAIT), Err(ms(100)));
    }

    #[test]
    fn threads_together_get_the_rate() {
        let bucket = Arc::new(SharedBucket::new(1000.0, 100.0));
        let take = |bucket: Arc<SharedBucket>| {
            move || {
                (0..1000u64)
                    .filter(|ms| bucket.reserve(Duration::from_millis(*ms), 1.0, NO_WAIT).is_ok())
                    .count()
            }
        };
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(take(Arc::clone(&bucket)))).collect();
        let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert!((1000..=1100).contains(&taken), "{taken} of 1000 and a burst of 100");
    }

    #[test]
    fn no_token_is_had_twice_by_threads_that_take_at_once() {
        const BURST: usize = 400_000;
        let (bucket, start) = (SharedBucket::new(1000.0, BURST as f64), Barrier::new(4));
        let take = || {
            start.wait();
            (0..BURST).filter(|_| bucket.reserve(ms(1000), 1.0, NO_WAIT).is_ok()).count()
        };
        let taken: usize = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(take));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, BURST);
    }
}
