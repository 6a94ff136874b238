//! Idle connections of one worker: no lock, no permit, no other thread.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

/// A bounded stack of idle connections, warmest on top, for one thread-per-core worker and
/// one endpoint. It neither dials nor tests: whoever takes a connection checks that the
/// server has not closed it meanwhile.
#[derive(Debug)]
pub struct IdleList<C> {
    /// Oldest in front.
    entries: VecDeque<(C, Instant)>,
    len_max: usize,
    age_max: Duration,
    /// It is one worker's: never sent.
    _local: PhantomData<Rc<()>>,
}

impl<C> IdleList<C> {
    /// Keeps at most `len_max` connections, each for at most `age_max`.
    pub fn new(len_max: usize, age_max: Duration) -> Self {
        Self { entries: VecDeque::new(), len_max, age_max, _local: PhantomData }
    }

    /// Other bounds, from the next call on: a list that is always in use is never made anew.
    pub fn bound(&mut self, len_max: usize, age_max: Duration) {
        (self.len_max, self.age_max) = (len_max, age_max);
        let excess = self.entries.len().saturating_sub(len_max);
        self.entries.drain(..excess);
    }

    /// The connection put in last, unless all are too old (they are dropped then).
    pub fn take(&mut self, now: Instant) -> Option<C> {
        let (conn, since) = self.entries.pop_back()?;
        if now.saturating_duration_since(since) < self.age_max {
            return Some(conn);
        }
        // What lies below has been there for longer.
        self.entries.clear();
        None
    }

    /// Keeps a connection. Over the bound the oldest goes, and comes back to be closed.
    pub fn put(&mut self, conn: C, now: Instant) -> Option<C> {
        self.entries.push_back((conn, now));
        if self.entries.len() <= self.len_max {
            return None;
        }
        self.entries.pop_front().map(|(conn, _)| conn)
    }

    /// Drops those that are too old; returns when to do so next, if any are left.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let age_max = self.age_max;
        self.entries.retain(|(_, since)| now.saturating_duration_since(*since) < age_max);
        self.entries.front().map(|(_, since)| *since + age_max)
    }

    /// Drops all: the endpoint left, or is ejected.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Connections at rest.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
