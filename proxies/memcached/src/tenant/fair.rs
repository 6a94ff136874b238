//! How tenants share a worker: while more than one has requests, each has its part of a window. Pure.
//!
//! ```text
//!   one tenant active:   as many on their way as it likes
//!   n tenants active:    window / n each, and a line for what is over; more while all others want as much
//!
//!   flood  ▮▮▮▮▮▮▮▮ on their way │ line: s7 s2 s9 s4 …   one answer in, the next of the line out
//!   quiet  ▮        on its way   │ line: empty           goes at once, behind window / n others at most
//! ```
//!
//! Servers and the worker itself take what comes in the order it comes, so what a request waits for is what others
//! have on their way before it. A turn for each tenant (round robin) would bound what they get; it would still let
//! a quiet one wait for its turn. A part of the window that is kept free for it bounds the wait itself, and shares
//! as evenly: who is always over gets its part of the answers. Large items count as many small ones.
//!
//! Who itself has much on its way waits for that, and not longer for as much of another's: as long as every other
//! tenant wants more than its part, a tenant may have what the least of them wants. So there is a bound for the sake
//! of the quiet only, and tenants that are all busy keep the batches that make them cheap.
//!
//! A tenant's own sessions take turns: the line is in order of asking, and each turn a few requests.
//!
//! Several keys of one `get` go together, and cost far less than as many requests: see [`requests_of`].

use std::collections::VecDeque;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};

/// Bytes of values that count as one more request: about what they cost beyond the request itself.
const COST_LEN: usize = 4096;

/// A tenant that has asked for nothing for so long is no longer counted among those that share.
const ACTIVE_FOR: Duration = Duration::from_millis(50);

/// Between two looks at who is active.
const SWEEP_EVERY: Duration = Duration::from_millis(5);

/// Requests that a session sends in its turn while others of its tenant are in line.
const TURN_REQUESTS: usize = 8;

/// Keys of one `get` that count as a request: for proxy and server such a key is a tenth of one, and has a value.
const KEYS_A_REQUEST: usize = 4;

/// As how many requests so many keys count that a server is asked for together.
pub fn requests_of(keys: usize) -> usize {
    keys.div_ceil(KEYS_A_REQUEST)
}

/// The tenants of one worker. `W` wakes a session. Times are durations since any fixed origin.
#[derive(Debug)]
pub struct Fair<W> {
    window: usize,
    /// By the tenants' numbers.
    lines: Vec<Line<W>>,
    /// Numbers of those that share the window.
    active: Vec<usize>,
    /// The two of them that wanted least before the last sweep.
    least: [Want; 2],
    swept_at: Duration,
}

/// What a tenant wanted.
#[derive(Debug, Clone, Copy, Default)]
struct Want {
    tenant: usize,
    /// In small requests.
    cost: usize,
}

/// A tenant on this worker.
#[derive(Debug)]
struct Line<W> {
    is_active: bool,
    /// Asked last.
    asked_at: Duration,
    /// Requests on their way.
    in_flight: usize,
    /// The most there may be, whoever else is there.
    in_flight_max: usize,
    /// How long its values are: the largest seen lately.
    value_len: usize,
    /// The most, since the last sweep, that were on their way or in line at a time.
    wanted: usize,
    /// Sessions in line, and those that were called from it, by their numbers.
    places: HashMap<usize, Place<W>>,
    /// Whose turn is next: session and ticket. Who left the line meanwhile has no place of this ticket.
    order: VecDeque<(usize, u64)>,
    next_ticket: u64,
    /// Requests of all that have a place, and of those that were called.
    waiting: usize,
    called: usize,
}

#[derive(Debug)]
struct Place<W> {
    ticket: u64,
    waker: W,
    /// What it wants to send counts as so many.
    requests: usize,
    /// Requests that it may send in this turn; 0 while it has not been called.
    turn: usize,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self {
            is_active: false,
            asked_at: Duration::ZERO,
            in_flight: 0,
            in_flight_max: usize::MAX,
            value_len: 0,
            wanted: 0,
            places: HashMap::new(),
            order: VecDeque::new(),
            next_ticket: 0,
            waiting: 0,
            called: 0,
        }
    }
}

impl<W: Clone> Line<W> {
    /// How many small requests one of its own costs.
    fn weight(&self) -> usize {
        1 + self.value_len / COST_LEN
    }

    /// Takes note of how much it wants just now.
    fn note_wanted(&mut self) {
        self.wanted = self.wanted.max(self.in_flight + self.waiting);
    }

    fn join(&mut self, session: usize, requests: usize, waker: W) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.order.push_back((session, ticket));
        self.places.insert(session, Place { ticket, waker, requests, turn: 0 });
        self.waiting += requests;
        self.note_wanted();
    }

    /// Takes a session out, wherever it stands.
    fn remove(&mut self, session: usize) {
        let Some(place) = self.places.remove(&session) else { return };
        self.waiting -= place.requests;
        if place.turn > 0 {
            self.called -= place.requests;
        }
        if self.places.is_empty() {
            self.order.clear();
        } else if self.order.len() > 2 * self.places.len() + 16 {
            let places = &self.places;
            self.order
                .retain(|(session, ticket)| places.get(session).is_some_and(|place| place.ticket == *ticket));
        }
    }

    /// The next in line has its turn, if there is one.
    fn call(&mut self) -> Option<(usize, W)> {
        while let Some((session, ticket)) = self.order.pop_front() {
            let Some(place) = self.places.get_mut(&session) else { continue };
            if place.ticket == ticket && place.turn == 0 {
                place.turn = TURN_REQUESTS;
                self.called += place.requests;
                return Some((session, place.waker.clone()));
            }
        }
        None
    }
}

/// What a session asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// The tenant's number.
    pub tenant: usize,
    /// The session's number.
    pub session: usize,
    /// The most that the tenant may have on their way on this worker, whoever else is there.
    pub in_flight_max: usize,
    /// What it wants to send counts as so many requests.
    pub requests: usize,
    /// Now.
    pub now: Duration,
}

impl<W: Clone> Fair<W> {
    /// A worker that has so many requests on their way while tenants share it.
    pub fn new(window: usize) -> Self {
        Self {
            window: window.max(1),
            lines: Vec::new(),
            active: Vec::new(),
            least: [Want::default(); 2],
            swept_at: Duration::ZERO,
        }
    }

    /// Another window, from now on.
    pub fn set_window(&mut self, window: usize) {
        self.window = window.max(1);
    }

    /// May this session send a request? If not, it is in line, and its waker is given out when it may.
    pub fn may_send(&mut self, ask: Ask, waker: impl FnOnce() -> W) -> bool {
        self.enter(&ask);
        let bound = self.bound(ask.tenant);
        let Some(line) = self.lines.get_mut(ask.tenant) else { return true };
        let has_room = line.in_flight < bound;
        if has_room && line.places.is_empty() {
            return true;
        }
        let Some(place) = line.places.get_mut(&ask.session) else {
            line.join(ask.session, ask.requests, waker());
            return false;
        };
        place.waker = waker();
        if place.turn > 0 && !has_room {
            // Called, but others were quicker: it stays the first in line.
            place.turn = 0;
            line.called -= place.requests;
            line.order.push_front((ask.session, place.ticket));
            return false;
        }
        place.turn > 0
    }

    /// The session has sent what counts as so many requests, with so many bytes of value each.
    pub fn sent(&mut self, tenant: usize, session: usize, requests: usize, value_len: usize) {
        self.make_room(tenant);
        let Some(line) = self.lines.get_mut(tenant) else { return };
        line.in_flight += requests;
        line.value_len = line.value_len.max(value_len);
        line.note_wanted();
        let Some(place) = line.places.get_mut(&session) else { return };
        match place.turn.checked_sub(requests) {
            _ if place.turn == 0 => (),
            None | Some(0) => line.remove(session),
            Some(left) => place.turn = left,
        }
    }

    /// The session wants nothing more for now, or is gone: the next in line may go.
    pub fn leave(&mut self, tenant: usize, session: usize, wake: impl FnMut(W)) {
        let Some(line) = self.lines.get_mut(tenant) else { return };
        if line.places.is_empty() {
            return;
        }
        line.remove(session);
        self.call_up(tenant, wake);
    }

    /// What counts as so many requests was answered, with so many bytes of value each.
    pub fn answered(&mut self, tenant: usize, requests: usize, value_len: usize, wake: impl FnMut(W)) {
        let Some(line) = self.lines.get_mut(tenant) else { return };
        debug_assert!(line.in_flight >= requests, "an answer that nobody asked for");
        line.in_flight = line.in_flight.saturating_sub(requests);
        line.value_len = value_len.max(line.value_len - line.value_len.div_ceil(8));
        if !line.places.is_empty() {
            self.call_up(tenant, wake);
        }
    }

    /// Do several tenants share the worker just now?
    pub fn is_shared(&self) -> bool {
        self.active.len() > 1
    }

    /// Does the tenant want more than its part, and is held back for the sake of one that wants less?
    pub fn is_over(&self, tenant: usize) -> bool {
        self.is_shared()
            && self.wanted_beside(tenant) < self.part()
            && self
                .lines
                .get(tenant)
                .is_some_and(|line| !line.places.is_empty() && self.bound(tenant) < line.in_flight_max)
    }

    /// Wakes as many of the line as there is room for.
    fn call_up(&mut self, tenant: usize, mut wake: impl FnMut(W)) {
        let bound = self.bound(tenant);
        let Some(line) = self.lines.get_mut(tenant) else { return };
        while line.in_flight.saturating_add(line.called) < bound {
            let Some((_, waker)) = line.call() else { return };
            wake(waker);
        }
    }

    /// How many requests a tenant may have on their way.
    fn bound(&self, tenant: usize) -> usize {
        let Some(line) = self.lines.get(tenant) else { return usize::MAX };
        if self.active.len() < 2 {
            return line.in_flight_max;
        }
        let room = self.part().max(self.wanted_beside(tenant)) / line.weight();
        room.max(1).min(line.in_flight_max)
    }

    /// What each of those that share the window has of it, in small requests.
    fn part(&self) -> usize {
        self.window / self.active.len().max(1)
    }

    /// What the least of the others wants, in small requests.
    fn wanted_beside(&self, tenant: usize) -> usize {
        let [least, second] = self.least;
        if least.tenant == tenant { second.cost } else { least.cost }
    }

    fn make_room(&mut self, tenant: usize) {
        if self.lines.len() <= tenant {
            self.lines.resize_with(tenant + 1, Line::default);
        }
    }

    fn enter(&mut self, ask: &Ask) {
        let Ask { tenant, in_flight_max, now, .. } = *ask;
        self.make_room(tenant);
        if now.saturating_sub(self.swept_at) >= SWEEP_EVERY {
            self.sweep(now);
        }
        let Some(line) = self.lines.get_mut(tenant) else { return };
        line.asked_at = now;
        line.in_flight_max = in_flight_max.max(1);
        if !line.is_active {
            line.is_active = true;
            self.active.push(tenant);
            // Until it is known what it wants, there is room for it.
            self.least = [Want::default(); 2];
        }
    }

    /// Leaves out those that were quiet for a while, and sees what the others want.
    fn sweep(&mut self, now: Duration) {
        self.swept_at = now;
        let lines = &mut self.lines;
        let none = Want { tenant: usize::MAX, cost: usize::MAX };
        let mut least = [none; 2];
        self.active.retain(|tenant| {
            let Some(line) = lines.get_mut(*tenant) else { return false };
            let is_recent = now.saturating_sub(line.asked_at) < ACTIVE_FOR;
            line.is_active = is_recent || line.in_flight > 0 || !line.places.is_empty();
            if line.is_active {
                let want = Want { tenant: *tenant, cost: line.wanted.saturating_mul(line.weight()) };
                let [first, second] = least;
                if want.cost < first.cost {
                    least = [want, first];
                } else if want.cost < second.cost {
                    least = [first, want];
                }
            }
            line.wanted = 0;
            line.note_wanted();
            line.is_active
        });
        self.least = least;
    }
}

#[cfg(test)]
#[path = "fair_tests.rs"]
mod tests;
