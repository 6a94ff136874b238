//! How long to wait before the next try.

use std::time::Duration;

/// Exponential back-off with full jitter: try `n` waits a uniformly random time
/// between nothing and `base × 2ⁿ`, at most `max`.
///
/// Full jitter spreads a thousand sidecars that lost the same server at the same
/// instant over the whole window, where equal or no jitter brings them back in waves
/// (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The window of the first wait.
    pub base: Duration,
    /// The widest window.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

impl Backoff {
    /// The wait before try `attempt` (0 for the first one after a failure).
    pub fn delay(&self, attempt: u32, dice: f64) -> Duration {
        self.window(attempt).mul_f64(dice.clamp(0.0, 1.0))
    }

    /// The longest wait before try `attempt`.
    pub fn window(&self, attempt: u32) -> Duration {
        self.base.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.max)
    }
}

/// When a server that refused us may be dialled again, for everybody who wants to.
///
/// While all is well anybody dials. After a failure the wait doubles with each failed
/// trial, and when it is over exactly one dials while the others watch:
///
/// ```text
/// Open ──failed──► Waiting{until} ──ask, time is up──► Trial ──succeeded──► Open
///                        ▲                               │
///                        └────────── failed, given up ───┘
/// ```
#[derive(Debug)]
pub struct Redial {
    backoff: Backoff,
    failures: u32,
    state: RedialState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RedialState {
    Open,
    Waiting { until: Duration },
    Trial,
}

/// Whose turn it is to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Yours: dial, and report [`Redial::succeeded`], [`Redial::failed`] or [`Redial::gave_up`].
    Dial,
    /// Nobody's before this much time has passed.
    Wait(Duration),
    /// Somebody else's; ask again when it has reported.
    Watch,
}

impl Redial {
    /// Everything is well so far.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0, state: RedialState::Open }
    }

    /// Takes another back-off on, from the next failure.
    pub fn set_backoff(&mut self, backoff: Backoff) {
        self.backoff = backoff;
    }

    /// May the caller dial?
    pub fn ask(&mut self, now: Duration) -> Turn {
        match self.state {
            RedialState::Open => Turn::Dial,
            RedialState::Waiting { until } if now < until => Turn::Wait(until - now),
            RedialState::Waiting { .. } => {
                self.state = RedialState::Trial;
                Turn::Dial
            }
            RedialState::Trial => Turn::Watch,
        }
    }

    /// The server answered: everybody may dial again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.state = RedialState::Open;
    }

    /// The server did not answer.
    ///
    /// Those who dialled at once while all was well fail at once: that is one failure.
    pub fn failed(&mut self, now: Duration, dice: f64) {
        match self.state {
            RedialState::Waiting { .. } => {}
            RedialState::Open | RedialState::Trial => {
                let until = now + self.backoff.delay(self.failures, dice);
                self.failures = self.failures.saturating_add(1);
                self.state = RedialState::Waiting { until };
            }
        }
    }

    /// Whoever dialled was cancelled and knows nothing: the next one to ask takes the turn.
    pub fn gave_up(&mut self, now: Duration) {
        match self.state {
            RedialState::Trial => self.state = RedialState::Waiting { until: now },
            RedialState::Open | RedialState::Waiting { .. } => {}
        }
    }

    /// Failed trials in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}
