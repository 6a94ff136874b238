//! What several probes together say.

/// Counts probes in a row until they weigh enough to change the verdict: `rise`
/// successes bring an endpoint up, `fall` failures take it down.
#[derive(Debug, Clone)]
pub struct ProbeVerdict {
    rise: u32,
    fall: u32,
    verdict: Verdict,
    /// Results in a row that speak against the verdict.
    against: u32,
}

/// Whether an endpoint answers its probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet probed: trusted until the first result says otherwise.
    Unknown,
    /// Answers.
    Up,
    /// Does not.
    Down,
}

impl ProbeVerdict {
    /// Nothing known yet. Zero counts as one.
    pub fn new(rise: u32, fall: u32) -> Self {
        Self { rise: rise.max(1), fall: fall.max(1), verdict: Verdict::Unknown, against: 0 }
    }

    /// Takes other thresholds on; the verdict stays.
    pub fn set_thresholds(&mut self, rise: u32, fall: u32) {
        (self.rise, self.fall) = (rise.max(1), fall.max(1));
    }

    /// Takes one result in; `Some` when the verdict changed by it.
    ///
    /// The first result decides alone: nobody should send traffic to a server for
    /// `fall` intervals only because it was dead from the start.
    pub fn on(&mut self, success: bool) -> Option<Verdict> {
        let (agrees, needed, other) = match self.verdict {
            Verdict::Unknown => (false, 1, if success { Verdict::Up } else { Verdict::Down }),
            Verdict::Up => (success, self.fall, Verdict::Down),
            Verdict::Down => (!success, self.rise, Verdict::Up),
        };
        self.against = if agrees { 0 } else { self.against + 1 };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.verdict = other;
        Some(other)
    }

    /// The verdict so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}
