//! How many may start in a second.

use std::time::Duration;

/// A token bucket as one number: the time at which it will be full again (GCRA,
/// ITU-T I.371). `rate` tokens flow in a second, and up to `burst` lie ready.
///
/// Times are durations since any fixed origin that the caller keeps to.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    token_ns: f64,
    burst_ns: f64,
    full_at_ns: f64,
}

impl TokenBucket {
    /// A full bucket. `rate` is in tokens a second and must be positive; a burst
    /// below one token could never let anybody through and counts as one.
    pub fn new(rate: f64, burst: f64) -> Self {
        debug_assert!(rate > 0.0, "a bucket without inflow");
        let token_ns = 1e9 / rate;
        Self { token_ns, burst_ns: token_ns * burst.max(1.0), full_at_ns: 0.0 }
    }

    /// Takes `tokens`, or says how long from `now` until they will be there.
    ///
    /// More than the burst are lent: a full bucket goes into debt for them, or one
    /// oversized request could never pass.
    pub fn take(&mut self, now: Duration, tokens: f64) -> Result<(), Duration> {
        let now_ns = nanos(now);
        let cost_ns = tokens * self.token_ns;
        let full_at_ns = self.full_at_ns.max(now_ns);
        let wait_ns = full_at_ns + cost_ns.min(self.burst_ns) - self.burst_ns - now_ns;
        // Rounding may leave a fraction of a nanosecond; nobody waits for that.
        if wait_ns >= 1.0 {
            return Err(Duration::from_secs_f64(wait_ns / 1e9));
        }
        self.full_at_ns = full_at_ns + cost_ns;
        Ok(())
    }

    /// Tokens that lie ready at `now`; negative while in debt.
    pub fn available(&self, now: Duration) -> f64 {
        let missing_ns = (self.full_at_ns - nanos(now)).max(0.0);
        (self.burst_ns - missing_ns) / self.token_ns
    }

    /// Changes rate and burst; what was drawn stays drawn.
    pub fn reconfigure(&mut self, now: Duration, rate: f64, burst: f64) {
        let drawn = (self.full_at_ns - nanos(now)).max(0.0) / self.token_ns;
        *self = Self::new(rate, burst);
        self.full_at_ns = nanos(now) + drawn * self.token_ns;
    }
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
