//! How long an acceptor waits when the system will not give it a descriptor.
//!
//! The listening socket stays readable all the while: without a pause the acceptor would spin, with a long
//! one it would not notice that descriptors are back.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// Grows with failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) length: Duration,
    /// The first since the last success: worth a line in the log.
    pub(super) is_first: bool,
}

impl Backoff {
    pub(super) fn failed(&mut self) -> Pause {
        let length = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        Pause { length, is_first: self.failures == 1 }
    }

    /// Is this the first success after failures?
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_only_the_first_is_news() {
        let mut backoff = Backoff::default();
        assert!(!backoff.succeeded());
        let pauses: Vec<_> = (0..50).map(|_| backoff.failed()).collect();
        assert_eq!(pauses[0], Pause { length: FIRST, is_first: true });
        assert_eq!(pauses[3], Pause { length: FIRST * 8, is_first: false });
        assert_eq!(pauses[49], Pause { length: LONGEST, is_first: false });
        assert!(backoff.succeeded());
        assert!(!backoff.succeeded());
        assert_eq!(backoff.failed(), pauses[0]);
    }
}
