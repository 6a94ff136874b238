//! Those who wait, as a pure machine: one line in the order of arrival, of which each endpoint serves whom it may.
//!
//! ```text
//!            push ──► at a desk ──── first_for(endpoint), take ──► served
//!                       │  ▲
//!                       │  └─ resettle: its endpoint is another now
//!                       └──── take ──► left
//! ```
//!
//! A desk is whom somebody waits for: any endpoint, or one. An endpoint that has room serves the first of those at its
//! own desk and at the desk of any, whoever came earlier.

use groove_common::ids::EndpointId;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Whom somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Desk {
    /// Whoever has room first.
    Any,
    /// This endpoint.
    At(EndpointId),
    /// An endpoint that is not there yet.
    Nobody,
}

/// Endpoints that a request has been tried with; mostly none.
pub(super) type Failed = SmallVec<[EndpointId; 2]>;

/// Somebody in line.
#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub(super) desk: Desk,
    pub(super) failed: Failed,
    /// What is held of its request.
    pub(super) bytes: usize,
    /// Whatever the shell needs to tell it.
    pub(super) handle: W,
}

/// The line.
#[derive(Debug)]
pub(super) struct Line<W> {
    waiters: BTreeMap<u64, Waiter<W>>,
    desks: HashMap<Desk, BTreeSet<u64>>,
    bytes: usize,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self { waiters: BTreeMap::new(), desks: HashMap::new(), bytes: 0 }
    }
}

impl<W> Line<W> {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// How many are at one desk.
    pub(super) fn len_at(&self, desk: Desk) -> usize {
        self.desks.get(&desk).map_or(0, BTreeSet::len)
    }

    /// What is held of all requests.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a place, which the number orders: the lower came earlier.
    pub(super) fn push(&mut self, number: u64, waiter: Waiter<W>) {
        debug_assert!(!self.waiters.contains_key(&number), "a number is given once");
        self.bytes += waiter.bytes;
        self.desks.entry(waiter.desk).or_default().insert(number);
        self.waiters.insert(number, waiter);
        self.check_invariants();
    }

    /// Leaves the line, served or not.
    pub(super) fn take(&mut self, number: u64) -> Option<Waiter<W>> {
        let waiter = self.waiters.remove(&number)?;
        self.bytes -= waiter.bytes;
        self.leave_desk(waiter.desk, number);
        self.check_invariants();
        Some(waiter)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Waiter<W>> {
        self.waiters.get(&number)
    }

    /// The first who may be served by an endpoint; only of those who wait for just that one unless it takes any.
    pub(super) fn first_for(&self, endpoint: EndpointId, takes_any: bool) -> Option<u64> {
        let first = |desk| self.desks.get(&desk)?.iter().copied().find(|number| self.may(*number, endpoint));
        match (first(Desk::At(endpoint)), first(Desk::Any).filter(|_| takes_any)) {
            (Some(own), Some(any)) => Some(own.min(any)),
            (own, any) => own.or(any),
        }
    }

    /// Asks of everybody where it waits from now on.
    pub(super) fn resettle(&mut self, mut desk_of: impl FnMut(&W) -> Desk) {
        let moved: Vec<(u64, Desk, Desk)> = self
            .waiters
            .iter_mut()
            .filter_map(|(number, waiter)| {
                let (before, desk) = (waiter.desk, desk_of(&waiter.handle));
                waiter.desk = desk;
                (before != desk).then_some((*number, before, desk))
            })
            .collect();
        for (number, before, desk) in moved {
            self.leave_desk(before, number);
            self.desks.entry(desk).or_default().insert(number);
        }
        self.check_invariants();
    }

    fn may(&self, number: u64, endpoint: EndpointId) -> bool {
        self.waiters.get(&number).is_some_and(|waiter| !waiter.failed.contains(&endpoint))
    }

    fn leave_desk(&mut self, desk: Desk, number: u64) {
        if let Some(at) = self.desks.get_mut(&desk) {
            at.remove(&number);
            if at.is_empty() {
                self.desks.remove(&desk);
            }
        }
    }

    fn check_invariants(&self) {
        debug_assert_eq!(
            self.desks.values().map(BTreeSet::len).sum::<usize>(),
            self.waiters.len(),
            "everybody is at one desk"
        );
        debug_assert!(self.desks.values().all(|at| !at.is_empty()), "no desk without anybody");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use groove_common::balance::Dice;

    fn waiter(desk: Desk, failed: &[EndpointId]) -> Waiter<Desk> {
        Waiter { desk, failed: failed.into(), bytes: 10, handle: desk }
    }

    /// Arrivals, departures, endpoints with room and moves of homes in random order, against a list that is searched.
    #[test]
    fn simulated_lines_serve_the_first_who_may_be_served() {
        for seed in 0..300 {
            let mut dice = Dice::seeded(seed);
            let endpoints: Vec<EndpointId> = (0..4).map(|_| EndpointId::next()).collect();
            let mut line = Line::default();
            let mut model: Vec<(u64, Desk, Option<EndpointId>)> = Vec::new();
            for number in 0..400_u64 {
                let any_of = |dice: &mut Dice| endpoints[dice.below(endpoints.len())];
                match dice.below(8) {
                    0..=3 => {
                        let desk = match dice.below(3) {
                            0 => Desk::At(any_of(&mut dice)),
                            1 => Desk::Any,
                            _ => {
                                if dice.below(5) == 0 {
                                    Desk::Nobody
                                } else {
                                    Desk::Any
                                }
                            }
                        };
                        let failed = (dice.below(4) == 0).then(|| any_of(&mut dice));
                        // A few come back to a place that they had before.
                        line.push(number, waiter(desk, failed.as_slice()));
                        model.push((number, desk, failed));
                    }
                    4 | 5 => {
                        let endpoint = any_of(&mut dice);
                        let first = model.iter().position(|(_, desk, failed)| {
                            (*desk == Desk::Any || *desk == Desk::At(endpoint)) && *failed != Some(endpoint)
                        });
                        let expected = first.map(|index| model.remove(index).0);
                        assert_eq!(line.first_for(endpoint, true), expected, "seed {seed} step {number}");
                        if let Some(number) = expected {
                            assert!(line.take(number).is_some());
                        }
                    }
                    6 if !model.is_empty() => {
                        let (left, ..) = model.remove(dice.below(model.len()));
                        assert!(line.take(left).is_some(), "seed {seed}");
                        assert!(line.take(left).is_none(), "seed {seed}: left twice");
                    }
                    _ => {
                        let (from, to) = (any_of(&mut dice), any_of(&mut dice));
                        let moved = |desk: Desk| if desk == Desk::At(from) { Desk::At(to) } else { desk };
                        for (_, desk, _) in &mut model {
                            *desk = moved(*desk);
                        }
                        let desks: BTreeMap<u64, Desk> =
                            model.iter().map(|(number, desk, _)| (*number, *desk)).collect();
                        let mut numbers = desks.values();
                        // Asked in the order of the line.
                        line.resettle(|_| *numbers.next().unwrap());
                    }
                }
                assert_eq!((line.len(), line.bytes()), (model.len(), model.len() * 10), "seed {seed}");
            }
        }
    }
}
