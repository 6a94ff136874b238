//! How fast a line moves, for those who are turned away: when may they come back? Pure.

use std::time::Duration;

/// What was seen so long ago counts about a third of what is seen now.
const MEMORY: Duration = Duration::from_secs(10);
/// Nobody is told to stay away for longer.
const WAIT_S_MAX: u64 = 60;

/// Who left the line lately because it was its turn, and the time in which that was: only while somebody waited.
#[derive(Debug, Default)]
pub(super) struct Drain {
    served: f64,
    seconds: f64,
    /// Up to when it is known; `None` while nobody waits.
    seen: Option<Duration>,
}

impl Drain {
    /// So many were served just now, and somebody waits from now on, or nobody does.
    pub(super) fn observe(&mut self, now: Duration, served: usize, is_waited: bool) {
        self.pass(now);
        self.served += served as f64;
        self.seen = is_waited.then_some(now);
    }

    /// In how many seconds a line of this length may be at its end: at least one, at most a minute.
    pub(super) fn seconds_for(&mut self, now: Duration, length: usize) -> u64 {
        self.pass(now);
        // One more is about to go: in a line that has only begun nobody has gone yet.
        let seconds = length as f64 * self.seconds / (self.served + 1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the bounds")]
        let whole = seconds.ceil().clamp(1.0, WAIT_S_MAX as f64) as u64;
        whole
    }

    fn pass(&mut self, now: Duration) {
        let Some(seen) = self.seen else { return };
        let passed = now.saturating_sub(seen).as_secs_f64();
        let kept = (-passed / MEMORY.as_secs_f64()).exp();
        self.served *= kept;
        self.seconds = self.seconds * kept + passed;
        self.seen = Some(now.max(seen));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_s(seconds: f64) -> Duration {
        Duration::from_secs_f64(100.0 + seconds)
    }

    /// A line of which so many were served, at this pace.
    fn moving(per_second: f64, count: u32) -> Drain {
        let mut drain = Drain::default();
        drain.observe(after_s(0.0), 0, true);
        for number in 1..=count {
            drain.observe(after_s(f64::from(number) / per_second), 1, true);
        }
        drain
    }

    #[test]
    fn the_wait_is_what_the_line_takes_at_its_pace() {
        for (per_second, count, length, want) in
            [(10.0, 600, 100, 10), (10.0, 600, 5, 1), (100.0, 6000, 1000, 10), (2.0, 120, 60, 30)]
        {
            let wait = moving(per_second, count).seconds_for(after_s(60.0), length);
            assert!(wait.abs_diff(want) <= 1 + want / 10, "{per_second} a second, {length}: {wait}");
        }
    }

    #[test]
    fn it_is_bounded_and_a_line_that_has_only_begun_is_not_taken_to_stand() {
        let mut drain = Drain::default();
        assert_eq!(drain.seconds_for(after_s(0.0), 1000), 1, "nobody has ever waited");
        drain.observe(after_s(0.0), 0, true);
        assert_eq!(drain.seconds_for(after_s(0.0001), 1000), 1);
        assert_eq!(drain.seconds_for(after_s(30.0), 1000), WAIT_S_MAX, "it stands");
        assert_eq!(moving(0.1, 3).seconds_for(after_s(30.0), 1_000_000), WAIT_S_MAX);
    }

    #[test]
    fn time_in_which_nobody_waits_says_nothing_and_old_news_fade() {
        let mut drain = moving(10.0, 200);
        drain.observe(after_s(20.0), 0, false);
        let wait = drain.seconds_for(after_s(500.0), 100);
        assert!((9..=11).contains(&wait), "{wait}");
        // It was quick, and is slow now.
        drain.observe(after_s(500.0), 0, true);
        for second in 1..=40 {
            drain.observe(after_s(500.0 + f64::from(second)), 1, true);
        }
        let wait = drain.seconds_for(after_s(540.0), 30);
        assert!((25..=33).contains(&wait), "{wait}");
    }
}
