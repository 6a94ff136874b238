//! Shuffle-sharded fair queues, as a pure machine (Kubernetes' API priority and fairness has the idea).
//!
//! ```text
//!  flow ──hash──► its hand of queues ──► the shortest ──┐
//!                                                       ├── by turns ──► in
//!  other flows ──► other hands ─────────────────────────┘
//! ```
//!
//! Each flow has a few queues of many, dealt by its hash. One that floods fills its own; another shares all of them only
//! by a very unlikely deal, and waits for one turn of each queue that is not empty, however long the flood's are.

use std::collections::VecDeque;

/// Queues there are.
const QUEUES: usize = 128;
/// Queues in the hand of a flow.
const HAND: usize = 6;

/// A place in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    queue: usize,
    number: u64,
}

/// What became of somebody who came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Goes, and must `release` later.
    Admitted,
    /// Waits; the waiter comes back out of `release` or `resize`.
    Queued(Ticket),
    /// All of its queues are full.
    Full,
}

/// Who is in, and who waits.
#[derive(Debug)]
pub(super) struct FairLine<W> {
    limit: usize,
    in_use: usize,
    queues: Vec<VecDeque<(u64, W)>>,
    /// Those that are not empty, in the order of their turns.
    turns: VecDeque<usize>,
    length_max: usize,
    waiting: usize,
    next: u64,
}

impl<W> FairLine<W> {
    pub(super) fn new(limit: usize, length_max: usize) -> Self {
        Self {
            limit,
            in_use: 0,
            queues: (0..QUEUES).map(|_| VecDeque::new()).collect(),
            turns: VecDeque::new(),
            length_max,
            waiting: 0,
            next: 0,
        }
    }

    /// Goes in, or takes a place in the shortest of the flow's queues.
    pub(super) fn enter(&mut self, flow: u64, waiter: impl FnOnce() -> W) -> Entry {
        if self.in_use < self.limit && self.waiting == 0 {
            self.in_use += 1;
            return Entry::Admitted;
        }
        let length = |queue: &usize| self.queues.get(*queue).map_or(usize::MAX, VecDeque::len);
        let Some(index) = hand(flow).into_iter().min_by_key(length) else { return Entry::Full };
        let Some(queue) = self.queues.get_mut(index) else { return Entry::Full };
        if queue.len() >= self.length_max {
            return Entry::Full;
        }
        if queue.is_empty() {
            self.turns.push_back(index);
        }
        self.next += 1;
        queue.push_back((self.next, waiter()));
        self.waiting += 1;
        self.check_invariants();
        Entry::Queued(Ticket { queue: index, number: self.next })
    }

    /// Somebody leaves. `Some` goes in for it.
    pub(super) fn release(&mut self) -> Option<W> {
        debug_assert!(self.in_use > 0, "released twice");
        self.in_use -= 1;
        self.admit_next()
    }

    /// Leaves the line. `None`: it was served meanwhile.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> Option<W> {
        let queue = self.queues.get_mut(ticket.queue)?;
        let at = queue.binary_search_by_key(&ticket.number, |(number, _)| *number).ok()?;
        let (_, waiter) = queue.remove(at)?;
        if queue.is_empty() {
            self.turns.retain(|turn| *turn != ticket.queue);
        }
        self.waiting -= 1;
        self.check_invariants();
        Some(waiter)
    }

    /// Other bounds; those who may go in because of it come out. Nobody is thrown out.
    pub(super) fn resize(&mut self, limit: usize, length_max: usize) -> Vec<W> {
        (self.limit, self.length_max) = (limit, length_max);
        std::iter::from_fn(|| self.admit_next()).collect()
    }

    fn admit_next(&mut self) -> Option<W> {
        if self.in_use >= self.limit {
            return None;
        }
        let index = self.turns.pop_front()?;
        let queue = self.queues.get_mut(index)?;
        let (_, waiter) = queue.pop_front()?;
        if !queue.is_empty() {
            self.turns.push_back(index);
        }
        self.waiting -= 1;
        self.in_use += 1;
        self.check_invariants();
        Some(waiter)
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.queues.iter().map(VecDeque::len).sum::<usize>(), self.waiting);
        debug_assert_eq!(
            self.queues.iter().filter(|queue| !queue.is_empty()).count(),
            self.turns.len(),
            "each queue with somebody in it has one turn"
        );
    }
}

/// The queues of a flow: as cards from a deck that its hash shuffles.
fn hand(flow: u64) -> [usize; HAND] {
    let mut rest = flow;
    let mut dealt = [0; HAND];
    for index in 0..HAND {
        let left = (QUEUES - index) as u64;
        let mut card = usize::try_from(rest % left).unwrap_or_default();
        rest /= left;
        // The card's number among those that are not dealt yet.
        let (before, place) = dealt.split_at_mut(index);
        before.sort_unstable();
        for taken in before.iter() {
            if card >= *taken {
                card += 1;
            }
        }
        if let Some(place) = place.first_mut() {
            *place = card;
        }
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;
    use groove_common::balance::Dice;
    use std::collections::BTreeMap;

    #[test]
    fn hands_are_distinct_cards_and_differ_by_flow() {
        let mut dice = Dice::seeded(1);
        let mut uses = [0_u32; QUEUES];
        let mut same = 0;
        let mut before = [0; HAND];
        for _ in 0..20_000 {
            let mut cards = hand(dice.bits());
            cards.sort_unstable();
            assert!(cards.windows(2).all(|pair| pair[0] < pair[1]) && cards[HAND - 1] < QUEUES, "{cards:?}");
            cards.iter().for_each(|card| uses[*card] += 1);
            same += u32::from(cards == before);
            before = cards;
        }
        let mean = 20_000.0 * HAND as f64 / QUEUES as f64;
        assert!(uses.iter().all(|count| (f64::from(*count) - mean).abs() < mean / 4.0), "{uses:?}");
        assert_eq!(same, 0);
    }

    #[test]
    fn a_flood_of_one_makes_others_wait_for_a_turn_of_its_queues_only() {
        for seed in 0..50 {
            let mut dice = Dice::seeded(seed);
            let mut line = FairLine::new(10, 200);
            let (flood, quiet) = (dice.bits(), dice.bits());
            for _ in 0..10 {
                assert_eq!(line.enter(flood, || "flood"), Entry::Admitted);
            }
            let mut waiting = 0;
            while line.enter(flood, || "flood") != Entry::Full {
                waiting += 1;
            }
            assert_eq!(waiting, HAND * 200, "seed {seed}: its own queues and no others");
            assert!(matches!(line.enter(quiet, || "quiet"), Entry::Queued(_)), "seed {seed}");
            let turns = (1..).find(|_| line.release() == Some("quiet")).unwrap();
            assert!(turns <= HAND + 1, "seed {seed}: {turns}");
        }
    }

    /// Arrivals, departures, cancels and other bounds in random order: nobody is lost, nobody comes twice, and nobody
    /// waits while there is room.
    #[test]
    fn simulated_lines_lose_nothing() {
        for seed in 0..200 {
            let mut dice = Dice::seeded(seed);
            let (mut limit, mut line) = (3, FairLine::new(3, 5));
            let mut tickets = BTreeMap::new();
            let mut inside = 0;
            for number in 0..600 {
                let gone: Vec<i32> = match dice.below(8) {
                    0..=3 => {
                        match line.enter(dice.below(4) as u64 * 7_919, || number) {
                            Entry::Admitted => inside += 1,
                            Entry::Queued(ticket) => drop(tickets.insert(number, ticket)),
                            Entry::Full => {}
                        }
                        vec![]
                    }
                    4 | 5 if inside > 0 => {
                        inside -= 1;
                        line.release().into_iter().collect()
                    }
                    6 if !tickets.is_empty() => {
                        let (&number, &ticket) = tickets.iter().nth(dice.below(tickets.len())).unwrap();
                        assert_eq!(line.cancel(ticket), Some(number), "seed {seed}");
                        assert_eq!(line.cancel(ticket), None, "seed {seed}");
                        tickets.remove(&number);
                        vec![]
                    }
                    _ => {
                        limit = dice.below(6);
                        line.resize(limit, 5)
                    }
                };
                inside += gone.len();
                for number in gone {
                    assert!(tickets.remove(&number).is_some(), "seed {seed}: {number} came twice");
                }
                assert_eq!((line.waiting, line.in_use), (tickets.len(), inside), "seed {seed}");
                assert!(line.waiting == 0 || line.in_use >= limit, "seed {seed}: room, and somebody waits");
            }
        }
    }
}
