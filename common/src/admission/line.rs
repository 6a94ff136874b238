//! The queue behind a [`Gate`](super::Gate), as a pure state machine.
//!
//! ```text
//!              enter ──► Admitted ───────────────► release ──► out
//!                │                                   │
//!                ├─────► Queued ──── next in line ◄──┘   the permit changes hands,
//!                │         │                             it never lies on the counter
//!                │         └──────── cancel ──► out
//!                └─────► Refused (line full, or closed)
//! ```
//!
//! Whoever comes while others wait goes behind them, even when a permit could be
//! had at that instant: there is no barging, so waiting is bounded by what was
//! in front on arrival.

use std::collections::VecDeque;

/// Who goes first among those who wait. Within a priority, first come first served.
///
/// Priorities are strict: a `Low` waiter is served once no other waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before everybody else: health checks, cancels, an operator's session.
    High,
    /// The usual traffic.
    #[default]
    Normal,
    /// After everybody else: batch jobs, warming.
    Low,
}

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    priority: Priority,
    number: u64,
}

/// What became of somebody who came to the gate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Goes straight in and must `release` later.
    Admitted,
    /// Waits; the waiter comes back out of `release`, `resize` or `close`.
    Queued(Ticket),
    /// As many wait already as may.
    Full,
    /// Nobody is let in any more.
    Closed,
}

/// Permits and waiters. `W` is whatever the shell needs to wake a waiter.
#[derive(Debug)]
pub(super) struct Line<W> {
    limit: usize,
    in_use: usize,
    waiting: Waiting<W>,
    waiting_max: usize,
    next_number: u64,
    closed: bool,
}

impl<W> Line<W> {
    pub(super) fn new(limit: usize, waiting_max: usize) -> Self {
        Self { limit, in_use: 0, waiting: Waiting::new(), waiting_max, next_number: 0, closed: false }
    }

    /// Takes a permit if one is free and nobody waits for it.
    pub(super) fn try_enter(&mut self) -> bool {
        let free = !self.closed && self.in_use < self.limit && self.waiting.is_empty();
        if free {
            self.in_use += 1;
        }
        self.check_invariants();
        free
    }

    /// Takes a permit or a place in the line; `waiter` is made only for the latter.
    pub(super) fn enter(&mut self, priority: Priority, waiter: impl FnOnce() -> W) -> Entry {
        if self.closed {
            return Entry::Closed;
        }
        if self.try_enter() {
            return Entry::Admitted;
        }
        if self.waiting.len() >= self.waiting_max {
            return Entry::Full;
        }
        let ticket = Ticket { priority, number: self.next_number };
        self.next_number += 1;
        self.waiting.push(ticket, waiter());
        self.check_invariants();
        Entry::Queued(ticket)
    }

    /// Gives a permit back. `Some` is the waiter who holds it from now on.
    pub(super) fn release(&mut self) -> Option<W> {
        debug_assert!(self.in_use > 0, "a permit was released twice");
        self.in_use -= 1;
        let heir = self.admit_next();
        self.check_invariants();
        heir
    }

    /// Keeps a permit out and gives it to the next in line, if there is one and the permit may stay.
    pub(super) fn pass_on(&mut self) -> Option<W> {
        if self.in_use > self.limit {
            return None;
        }
        self.waiting.pop()
    }

    /// Leaves the line. `None`: the ticket was served (or the line closed) in the meantime.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> Option<W> {
        self.waiting.remove(ticket)
    }

    /// Changes the number of permits; those who may go in because of it come out.
    ///
    /// When it shrinks nobody is thrown out: permits vanish as they are released.
    pub(super) fn resize(&mut self, limit: usize, waiting_max: usize) -> Vec<W> {
        self.limit = limit;
        self.waiting_max = waiting_max;
        let admitted = std::iter::from_fn(|| self.admit_next()).collect();
        self.check_invariants();
        admitted
    }

    /// Lets nobody in any more and sends everybody home who waits.
    pub(super) fn close(&mut self) -> Vec<W> {
        self.closed = true;
        std::iter::from_fn(|| self.waiting.pop()).collect()
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn waiting_max(&self) -> usize {
        self.waiting_max
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether all permits are back and none will be given out as things stand.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_use == 0 && (self.closed || self.limit == 0)
    }

    fn admit_next(&mut self) -> Option<W> {
        if self.in_use >= self.limit {
            return None;
        }
        let waiter = self.waiting.pop()?;
        self.in_use += 1;
        Some(waiter)
    }

    /// A free permit and a waiter never coexist; a closed line is empty.
    fn check_invariants(&self) {
        debug_assert!(
            self.waiting.is_empty() || self.in_use >= self.limit,
            "{} wait while {} of {} permits are out",
            self.waiting.len(),
            self.in_use,
            self.limit
        );
        debug_assert!(!self.closed || self.waiting.is_empty(), "somebody waits at a closed gate");
    }
}

/// Those who wait, in the order in which they are served. Nearly all leave at the front, so that a queue costs less than
/// a tree; whoever leaves before leaves a hole.
#[derive(Debug)]
struct Waiting<W> {
    /// One for each priority; numbers grow.
    queues: [VecDeque<(u64, Option<W>)>; 3],
    count: usize,
}

impl<W> Waiting<W> {
    fn new() -> Self {
        Self { queues: [VecDeque::new(), VecDeque::new(), VecDeque::new()], count: 0 }
    }

    fn len(&self) -> usize {
        self.count
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn queue(&mut self, priority: Priority) -> &mut VecDeque<(u64, Option<W>)> {
        let [high, normal, low] = &mut self.queues;
        match priority {
            Priority::High => high,
            Priority::Normal => normal,
            Priority::Low => low,
        }
    }

    /// The ticket's number is the highest so far.
    fn push(&mut self, ticket: Ticket, waiter: W) {
        self.queue(ticket.priority).push_back((ticket.number, Some(waiter)));
        self.count += 1;
    }

    fn pop(&mut self) -> Option<W> {
        for queue in &mut self.queues {
            while let Some((_, waiter)) = queue.pop_front() {
                if waiter.is_some() {
                    self.count -= 1;
                    return waiter;
                }
            }
        }
        None
    }

    fn remove(&mut self, ticket: Ticket) -> Option<W> {
        let (all, queue) = (self.count, self.queue(ticket.priority));
        let at = queue.binary_search_by_key(&ticket.number, |(number, _)| *number).ok()?;
        let waiter = queue.get_mut(at)?.1.take()?;
        // With permits that are out for long, holes would be all there is.
        if queue.len() > 2 * all + 16 {
            queue.retain(|(_, waiter)| waiter.is_some());
        }
        self.count -= 1;
        Some(waiter)
    }
}
