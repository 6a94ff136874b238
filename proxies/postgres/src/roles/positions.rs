//! How far servers have come, for those who have to read what they have written.
//!
//! Nobody asks on their behalf: the monitor asks every server all the time. A position that the primary was asked for
//! *after* a commit is behind it or beyond it; and who has replayed up to there has the commit.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use groove_common::ids::EndpointId;

/// Positions of the primary that are remembered: at the monitor's shortest interval some three seconds.
const MARKS_MAX: usize = 64;

/// What is known of positions.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// When the primary was asked, and how far its WAL went; the oldest first.
    marks: VecDeque<(Instant, u64)>,
    replayed: HashMap<EndpointId, u64>,
}

impl Positions {
    /// The primary has said how far its WAL goes, asked at `asked`.
    pub(super) fn mark(&mut self, asked: Instant, written: u64) {
        // A server that tells nothing of its WAL says 0.
        if written == 0 || self.marks.back().is_some_and(|(last, _)| *last > asked) {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((asked, written));
    }

    /// A replica has said how far it has replayed.
    pub(super) fn replayed(&mut self, id: EndpointId, position: u64) {
        self.replayed.insert(id, position);
    }

    /// A server is gone, or no replica.
    pub(super) fn forget(&mut self, id: EndpointId) {
        self.replayed.remove(&id);
    }

    /// Whoever else there was is none of the servers any more.
    pub(super) fn retain(&mut self, is_member: impl Fn(EndpointId) -> bool) {
        self.replayed.retain(|id, _| is_member(*id));
    }

    /// A position, the least that is known, which whatever was committed before `time` is within.
    pub(super) fn after(&self, time: Instant) -> Option<u64> {
        self.marks.iter().find(|(asked, _)| *asked >= time).map(|(_, position)| *position)
    }

    /// Whether a replica is known to have replayed up to there.
    pub(super) fn has(&self, id: EndpointId, position: u64) -> bool {
        self.replayed.get(&id).is_some_and(|replayed| *replayed >= position)
    }

    /// Whether any is.
    pub(super) fn any_has(&self, position: u64) -> bool {
        self.replayed.values().any(|replayed| *replayed >= position)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_commit_is_within_what_was_asked_for_after_it() {
        let mut positions = Positions::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        positions.mark(at(10), 100);
        assert_eq!(positions.after(at(11)), None, "asked before the commit, it may not have it");
        assert_eq!(positions.after(at(10)), Some(100));
        positions.mark(at(20), 200);
        positions.mark(at(30), 300);
        assert_eq!(positions.after(at(11)), Some(200), "the first is enough");
        positions.mark(at(25), 500);
        assert_eq!(positions.after(at(21)), Some(300), "an answer that comes late is not taken");
        positions.mark(at(40), 0);
        assert_eq!(positions.after(at(31)), None, "a server that does not tell");
        for n in 5..200 {
            positions.mark(at(n * 10), n * 100);
        }
        assert_eq!(positions.marks.len(), MARKS_MAX);
        assert_eq!(positions.after(at(11)), Some(13_600), "what is forgotten is not made up");
    }

    #[test]
    fn a_replica_that_is_lost_has_nothing() {
        let (mut positions, id, other) = (Positions::default(), EndpointId::next(), EndpointId::next());
        positions.replayed(id, 100);
        assert!(positions.has(id, 100) && positions.any_has(100));
        assert!(!positions.has(id, 101) && !positions.has(other, 1) && !positions.any_has(101));
        positions.replayed(id, 50);
        assert!(!positions.has(id, 100), "made anew from an older copy");
        positions.replayed(other, 70);
        positions.retain(|member| member == id);
        assert!(!positions.any_has(51));
        positions.forget(id);
        assert!(!positions.any_has(1));
    }
}
