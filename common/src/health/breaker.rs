//! The passive breaker: what exchanges tell us about an endpoint without asking.

use std::time::Duration;

/// When to eject, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerPolicy {
    /// Failures in a row that eject; 0 turns the breaker off.
    pub consecutive_failures: u32,
    /// The first ejection; the n-th in a row lasts n times as long.
    pub base_ejection: Duration,
    /// The longest ejection.
    pub max_ejection: Duration,
    /// The share of a set, `0.0..=1.0`, that may be out at once.
    pub max_share: f64,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection: Duration::from_secs(5),
            max_ejection: Duration::from_secs(60),
            max_share: 0.5,
        }
    }
}

/// Whether one more of a set of `total` may be ejected when `ejected` are out.
///
/// One always may, however small the share; the last one never: an endpoint that may be
/// well beats none at all.
pub fn may_eject(ejected: usize, total: usize, max_share: f64) -> bool {
    let after = ejected + 1;
    after < total && (after == 1 || after as f64 <= total as f64 * max_share)
}

/// One endpoint's breaker.
///
/// ```text
/// Healthy ─failure─► Suspect{n} ─n reaches the limit─► Ejected{until}
///    ▲                  │                                 │      ▲
///    ├─────success──────┘                         time up │      │ failure: longer
///    │                                                    ▼      │
///    └──────────────success──────────────────────── HalfOpen ────┘
///                                              (one trial at a time)
/// ```
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// Ejections since the last recovery that lasted; decides the next one's length.
    streak: u32,
    /// Ejections ever.
    ejections: u64,
    recovered_at: Duration,
}

/// Where a breaker stands. Times count from the caller's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing against it.
    Healthy,
    /// So many failures in a row, not yet enough.
    Suspect {
        /// Failures in a row.
        failures: u32,
    },
    /// Takes no traffic.
    Ejected {
        /// When the trial may begin.
        until: Duration,
    },
    /// Takes one exchange, which decides.
    HalfOpen {
        /// When the exchange on trial is taken for lost (nobody reported), if one runs.
        trial_until: Option<Duration>,
    },
}

/// What a report did to the breaker, if anything that others must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Out, until then.
    Ejected {
        /// When the trial may begin.
        until: Duration,
    },
    /// The trial may begin.
    HalfOpened,
    /// Back among the healthy.
    Recovered,
}

impl Breaker {
    /// A healthy endpoint's breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Healthy, streak: 0, ejections: 0, recovered_at: Duration::ZERO }
    }

    /// An exchange failed. `may_eject` is the set's word, see [`may_eject`]; it does not
    /// bind an endpoint on trial, which is counted among the ejected already.
    pub fn on_failure(&mut self, now: Duration, may_eject: bool) -> Option<Change> {
        match self.state {
            State::Healthy => self.suspect(now, 1, may_eject),
            State::Suspect { failures } => self.suspect(now, failures.saturating_add(1), may_eject),
            State::HalfOpen { .. } => Some(self.eject(now)),
            // An exchange that began before the ejection: it tells nothing new.
            State::Ejected { .. } => None,
        }
    }

    /// An exchange succeeded.
    pub fn on_success(&mut self, now: Duration) -> Option<Change> {
        match self.state {
            State::Healthy => None,
            State::Suspect { .. } => {
                self.state = State::Healthy;
                None
            }
            State::HalfOpen { .. } => {
                self.state = State::Healthy;
                self.recovered_at = now;
                Some(Change::Recovered)
            }
            // It began before the ejection; the trial will tell.
            State::Ejected { .. } => None,
        }
    }

    /// Beside the others of its set it fails too often, whatever it did last. `may_eject` as for [`Breaker::on_failure`].
    pub fn on_outlier(&mut self, now: Duration, may_eject: bool) -> Option<Change> {
        match self.state {
            State::Healthy | State::Suspect { .. } => may_eject.then(|| self.eject(now)),
            // It is out already.
            State::Ejected { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Lets time pass: opens the door for a trial, and frees a trial that nobody reported.
    pub fn on_time(&mut self, now: Duration) -> Option<Change> {
        match self.state {
            State::Ejected { until } if now >= until => {
                self.state = State::HalfOpen { trial_until: None };
                Some(Change::HalfOpened)
            }
            State::HalfOpen { trial_until: Some(until) } if now >= until => {
                self.state = State::HalfOpen { trial_until: None };
                Some(Change::HalfOpened)
            }
            State::Healthy | State::Suspect { .. } | State::Ejected { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Claims the one trial of a half-open breaker; the claimant must report.
    pub fn claim_trial(&mut self, now: Duration) -> bool {
        match self.state {
            State::HalfOpen { trial_until: None } => {
                self.state = State::HalfOpen { trial_until: Some(now + self.policy.base_ejection) };
                true
            }
            State::Healthy | State::Suspect { .. } | State::Ejected { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// When [`Breaker::on_time`] has something to do, if ever.
    pub fn wakes_at(&self) -> Option<Duration> {
        match self.state {
            State::Ejected { until } => Some(until),
            State::HalfOpen { trial_until } => trial_until,
            State::Healthy | State::Suspect { .. } => None,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it counts among the ejected of its set (a trial does).
    pub fn is_out(&self) -> bool {
        match self.state {
            State::Ejected { .. } | State::HalfOpen { .. } => true,
            State::Healthy | State::Suspect { .. } => false,
        }
    }

    /// Ejections ever.
    pub fn ejections(&self) -> u64 {
        self.ejections
    }

    /// Takes a new policy on; the state stays, unless the breaker is off from now on.
    pub fn set_policy(&mut self, policy: BreakerPolicy) {
        self.policy = policy;
        if policy.consecutive_failures == 0 {
            self.state = State::Healthy;
        }
    }

    fn suspect(&mut self, now: Duration, failures: u32, may_eject: bool) -> Option<Change> {
        let limit = self.policy.consecutive_failures;
        if limit == 0 {
            return None;
        }
        if failures >= limit && may_eject {
            return Some(self.eject(now));
        }
        self.state = State::Suspect { failures: failures.min(limit) };
        None
    }

    fn eject(&mut self, now: Duration) -> Change {
        // Health that outlasted the longest ejection wipes the slate.
        if now.saturating_sub(self.recovered_at) > self.policy.max_ejection && !self.is_out() {
            self.streak = 0;
        }
        self.streak = self.streak.saturating_add(1);
        self.ejections += 1;
        let length = self.policy.base_ejection.saturating_mul(self.streak).min(self.policy.max_ejection);
        let until = now + length;
        self.state = State::Ejected { until };
        Change::Ejected { until }
    }
}
