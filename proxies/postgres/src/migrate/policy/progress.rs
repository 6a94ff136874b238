//! How fast a copy goes, and how long it may still take.

use std::collections::VecDeque;
use std::time::Duration;

/// Looks that a rate is made of.
const LOOKS: usize = 20;

/// How much of a copy is done, and since when.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    looks: VecDeque<(Duration, u64)>,
    total: u64,
}

impl Progress {
    /// At `now`, by a clock that began whenever, so many bytes of so many are copied.
    pub(crate) fn note(&mut self, now: Duration, done: u64, total: u64) {
        self.total = total;
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((now, done));
    }

    /// Bytes a second of late, if that can be said.
    pub(crate) fn rate(&self) -> Option<f64> {
        let ((begun, before), (now, done)) = (self.looks.front()?, self.looks.back()?);
        let took = now.saturating_sub(*begun).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
        let rate = done.saturating_sub(*before) as f64 / took;
        (took > 0.0 && rate > 0.0).then_some(rate)
    }

    /// How long the rest takes at this rate.
    pub(crate) fn left(&self) -> Option<Duration> {
        let (_, done) = self.looks.back()?;
        #[expect(clippy::cast_precision_loss, reason = "a guess is for people")]
        let seconds = self.total.saturating_sub(*done) as f64 / self.rate()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// In a line.
    pub(crate) fn told(&self) -> String {
        let done = self.looks.back().map_or(0, |(_, done)| *done);
        let mut line = format!("{} of {}", mebibytes(done), mebibytes(self.total));
        if let Some(rate) = self.rate() {
            line.push_str(&format!(", {:.1} MiB/s", rate / f64::from(1 << 20)));
        }
        if let Some(left) = self.left().filter(|_| done < self.total) {
            let left = Duration::from_secs(left.as_secs().max(1));
            line.push_str(&format!(", {} left", humantime::format_duration(left)));
        }
        line
    }
}

/// Bytes for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.1} MiB")
}
