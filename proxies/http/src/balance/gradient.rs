//! How many exchanges an endpoint can have under way before they only wait for each other: a limit that follows its
//! latency (Netflix's gradient limit).
//!
//! ```text
//!  gradient = clamp(tolerance × long / short, 0.5, 1)        long: over minutes, short: over the latest window
//!  limit   += 0.2 × (limit × gradient + 4 − limit)           not beyond what is used
//! ```

use std::time::Duration;

/// A window is over with so many samples ...
const WINDOW_SAMPLES_MIN: u32 = 10;
/// ... and after so long.
const WINDOW_TIME_MIN: Duration = Duration::from_millis(100);
/// How much of a window's mean goes into the long average: little while things get worse, or a server that is kept
/// full would be taken to be always like that; more when they get better.
const LONG_SHARE_UP: f64 = 0.002;
const LONG_SHARE_DOWN: f64 = 0.05;
/// Room for a queue at the endpoint, without which no limit would ever grow.
const HEADROOM: f64 = 4.0;
/// How fast the limit follows.
const SMOOTHING: f64 = 0.2;

/// What the configuration says of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// Never below.
    pub min: u32,
    /// Never above.
    pub max: u32,
    /// Where it begins.
    pub initial: u32,
    /// How many times the long average the latency may be before the limit falls.
    pub tolerance: f64,
}

/// One endpoint's limit.
#[derive(Debug, Clone)]
pub struct Gradient {
    limit: f64,
    /// In seconds; 0 before the first window is over.
    long_s: f64,
    window_since: Duration,
    window_sum_s: f64,
    window_samples: u32,
    /// The most that was under way in this window.
    window_in_flight: u32,
}

impl Gradient {
    /// Before anything is known.
    pub fn new(rules: &Adaptive) -> Self {
        Self {
            limit: f64::from(rules.initial),
            long_s: 0.0,
            window_since: Duration::ZERO,
            window_sum_s: 0.0,
            window_samples: 0,
            window_in_flight: 0,
        }
    }

    /// The limit.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between its bounds, which are u32"
    )]
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// An exchange is over that took `latency`, with so many under way, itself included.
    pub fn observe(&mut self, rules: &Adaptive, now: Duration, latency: Duration, in_flight: u32) {
        if self.window_samples == 0 {
            self.window_since = now;
        }
        self.window_sum_s += latency.as_secs_f64();
        self.window_samples += 1;
        self.window_in_flight = self.window_in_flight.max(in_flight);
        let is_over = self.window_samples >= WINDOW_SAMPLES_MIN
            && now.saturating_sub(self.window_since) >= WINDOW_TIME_MIN;
        if is_over {
            self.follow(rules);
        }
    }

    fn follow(&mut self, rules: &Adaptive) {
        let short_s = (self.window_sum_s / f64::from(self.window_samples)).max(1e-9);
        let used = f64::from(self.window_in_flight);
        (self.window_sum_s, self.window_samples, self.window_in_flight) = (0.0, 0, 0);
        let share = if short_s > self.long_s { LONG_SHARE_UP } else { LONG_SHARE_DOWN };
        self.long_s = if self.long_s == 0.0 { short_s } else { mix(self.long_s, short_s, share) };
        let gradient = (rules.tolerance * self.long_s / short_s).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + HEADROOM;
        // What is not used says nothing of what could be.
        if wanted > self.limit && used < self.limit / 2.0 {
            return;
        }
        let next = mix(self.limit, wanted, SMOOTHING);
        self.limit = next.clamp(f64::from(rules.min), f64::from(rules.max));
    }
}

fn mix(before: f64, after: f64, share: f64) -> f64 {
    before + (after - before) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Adaptive = Adaptive { min: 1, max: 1000, initial: 20, tolerance: 1.5 };

    /// A server that does `capacity` at once in 10 ms each, and lets the others wait; always as many as the limit has.
    fn run(
        gradient: &mut Gradient,
        rules: &Adaptive,
        capacity: f64,
        rounds: u32,
        from: Duration,
    ) -> Duration {
        let mut now = from;
        for _ in 0..rounds {
            let in_flight = gradient.limit().max(1);
            let latency = Duration::from_millis(10).mul_f64((f64::from(in_flight) / capacity).max(1.0));
            for _ in 0..in_flight {
                gradient.observe(rules, now, latency, in_flight);
            }
            now += latency;
        }
        now
    }

    #[test]
    fn it_grows_to_what_the_server_can_do_and_not_far_beyond() {
        let mut gradient = Gradient::new(&RULES);
        run(&mut gradient, &RULES, 100.0, 3000, Duration::ZERO);
        let limit = gradient.limit();
        assert!((100..=220).contains(&limit), "{limit}");
    }

    #[test]
    fn it_falls_when_the_server_gets_slower_and_rises_again() {
        let mut gradient = Gradient::new(&RULES);
        let now = run(&mut gradient, &RULES, 100.0, 2000, Duration::ZERO);
        let before = gradient.limit();
        let now = run(&mut gradient, &RULES, 10.0, 30, now);
        let trouble = gradient.limit();
        assert!(trouble < before / 2, "{before} and then {trouble}");
        run(&mut gradient, &RULES, 100.0, 3000, now);
        assert!(gradient.limit() > trouble, "{trouble} and then {}", gradient.limit());
    }

    #[test]
    fn what_is_not_used_does_not_grow_and_bounds_hold() {
        let mut gradient = Gradient::new(&RULES);
        for step in 0..10_000 {
            gradient.observe(&RULES, Duration::from_millis(step * 20), Duration::from_millis(10), 1);
        }
        assert_eq!(gradient.limit(), 20);
        let narrow = Adaptive { min: 5, max: 30, ..RULES };
        let mut gradient = Gradient::new(&narrow);
        run(&mut gradient, &narrow, 1000.0, 500, Duration::ZERO);
        assert_eq!(gradient.limit(), 30);
        for step in 0..5000_u64 {
            let latency = Duration::from_millis(10 * step);
            gradient.observe(&narrow, Duration::from_secs(1000 + step), latency, 30);
        }
        assert!(gradient.limit() >= 5, "{}", gradient.limit());
    }
}
