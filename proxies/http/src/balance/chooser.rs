//! The choice among a snapshot's members. One [`Chooser`] a worker, or one for all where there is a queue: it keeps
//! whose turn it is, and what a set's identities hash to.

use super::{Gradient, Key, Plan};
use crate::config::Balance;
use foldhash::fast::RandomState;
use groove_common::balance::{Candidate, Dice, WeightedRoundRobin, least_loaded, p2c, peak_ewma, rendezvous};
use groove_common::discovery::{Endpoint, Health, Member, Snapshot};
use groove_common::ids::EndpointId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// What a request asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// Where it belongs.
    pub key: Key,
    /// Endpoints that it was tried with already.
    pub failed: &'a [EndpointId],
}

/// Where a session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Anywhere.
    Any,
    /// With the member at this index.
    At(usize),
    /// Nowhere yet: there is no endpoint.
    Nowhere,
}

/// A member that takes a request.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'s> {
    /// The member.
    pub member: &'s Member,
    /// A session begins with it, or moves there for good: its client is to be told.
    pub is_new_home: bool,
}

/// A member as the policies see it.
#[derive(Debug, Clone, Copy)]
struct Seat {
    is_usable: bool,
    weight: f64,
    in_flight: u32,
    latency_s: f64,
}

impl Candidate for Seat {
    fn is_usable(&self) -> bool {
        self.is_usable
    }

    fn weight(&self, _: Duration) -> f64 {
        self.weight
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn latency_s(&self, _: Duration) -> f64 {
        self.latency_s
    }
}

/// What a member's identity gives, once a set.
#[derive(Debug, Clone, Copy)]
struct Identity {
    seed: u64,
    token: Option<u64>,
}

/// Chooses for one cluster.
#[derive(Debug, Default)]
pub struct Chooser {
    /// The plan and the set that the rest is of.
    plan: Option<Arc<Plan>>,
    set: Option<u64>,
    identities: Vec<Identity>,
    turns: WeightedRoundRobin,
    /// The turns have begun, somewhere: with the first, a chooser that is often made anew would always choose that.
    has_begun: bool,
    /// Of the latest choice; kept so that none allocates.
    seats: Vec<Seat>,
    /// Of each endpoint of the set, where they follow its latency.
    limits: HashMap<EndpointId, Gradient, RandomState>,
}

impl Chooser {
    /// How many exchanges an endpoint may have now.
    pub fn hard(&self, plan: &Plan, endpoint: EndpointId) -> u32 {
        match (&plan.adaptive, self.limits.get(&endpoint)) {
            (None, _) => plan.bounds.hard,
            (Some(_), Some(gradient)) => gradient.limit(),
            (Some(rules), None) => rules.initial,
        }
    }

    /// An exchange with an endpoint is over, and took that long.
    pub fn observe(&mut self, plan: &Plan, endpoint: &Endpoint, now: Duration, latency: Duration) {
        if let Some(rules) = &plan.adaptive {
            let gradient = self.limits.entry(endpoint.id).or_insert_with(|| Gradient::new(rules));
            gradient.observe(rules, now, latency, endpoint.in_flight());
        }
    }

    /// The member for a request, if one has room: its exchange is to begin now. One that is half-open comes first,
    /// and its trial is claimed by this.
    ///
    /// A session that has a home gets that, or under a soft plan the next best. A home that drains or, under a strict
    /// plan, is down stays the home.
    pub fn choose<'s>(
        &mut self,
        plan: &Arc<Plan>,
        snapshot: &'s Snapshot,
        ask: Ask<'_>,
        now: Duration,
        dice: &mut Dice,
    ) -> Option<Choice<'s>> {
        let home = self.home(plan, snapshot, ask.key);
        let mut is_homeless = plan.names_endpoints();
        if plan.has_sessions
            && let Home::At(index) = home
        {
            let member = snapshot.members.get(index)?;
            let is_out = ask.failed.contains(&member.endpoint.id);
            if !is_out && self.has_room(plan, member) && member.admits() {
                return Some(Choice { member, is_new_home: false });
            }
            if plan.is_strict {
                return None;
            }
            // One that only is full keeps its sessions.
            is_homeless &= is_out || member.health == Health::Down;
        }
        let trial = snapshot.members.iter().find(|member| {
            let takes = member.health == Health::Trial && !member.is_draining;
            takes
                && self.has_room(plan, member)
                && !ask.failed.contains(&member.endpoint.id)
                && member.admits()
        });
        let member = match trial {
            Some(member) => member,
            None => {
                self.take_seats(plan, snapshot, ask.failed, now);
                let index = self.by_policy(plan, snapshot, ask.key, now, dice)?;
                snapshot.members.get(index)?
            }
        };
        Some(Choice { member, is_new_home: is_homeless })
    }

    /// Where a key's requests belong: the member that its cookie names, or the one with the highest draw for its hash.
    /// Health does not count: state does not move because its server is slow to answer.
    pub fn home(&mut self, plan: &Arc<Plan>, snapshot: &Snapshot, key: Key) -> Home {
        self.know(plan, snapshot);
        match key {
            Key::None => Home::Any,
            Key::Named(token) => {
                let index = self.identities.iter().position(|identity| identity.token == Some(token));
                // A session of an endpoint that is gone begins anew.
                index.map_or(Home::Any, Home::At)
            }
            Key::Hash(hash) => {
                let weights = snapshot.members.iter().map(|member| f64::from(member.described.weight));
                let nodes = self.identities.iter().map(|identity| identity.seed).zip(weights);
                rendezvous(&hash.to_le_bytes(), nodes).map_or(Home::Nowhere, Home::At)
            }
        }
    }

    fn has_room(&self, plan: &Plan, member: &Member) -> bool {
        member.endpoint.in_flight() < self.hard(plan, member.endpoint.id)
    }

    /// Who takes traffic and has room; of those only who is below its soft bound, if anybody is.
    fn take_seats(&mut self, plan: &Plan, snapshot: &Snapshot, failed: &[EndpointId], now: Duration) {
        self.seats.clear();
        let soft = plan.bounds.soft;
        let mut below_soft = false;
        for member in &snapshot.members {
            let in_flight = member.endpoint.in_flight();
            let seat = Seat {
                is_usable: member.is_usable()
                    && self.has_room(plan, member)
                    && !failed.contains(&member.endpoint.id),
                weight: member.weight(now),
                in_flight,
                latency_s: member.latency_s(now),
            };
            below_soft |= seat.is_usable && in_flight < soft;
            self.seats.push(seat);
        }
        if below_soft {
            for seat in &mut self.seats {
                seat.is_usable &= seat.in_flight < soft;
            }
        }
    }

    fn by_policy(
        &mut self,
        plan: &Plan,
        snapshot: &Snapshot,
        key: Key,
        now: Duration,
        dice: &mut Dice,
    ) -> Option<usize> {
        // The next best for a value is its best once those that cannot take it are left out.
        if let Key::Hash(hash) = key {
            let shares =
                self.seats.iter().zip(&snapshot.members).map(|(seat, member)| {
                    if seat.is_usable { f64::from(member.described.weight) } else { 0.0 }
                });
            let nodes = self.identities.iter().map(|identity| identity.seed).zip(shares);
            return rendezvous(&hash.to_le_bytes(), nodes);
        }
        match plan.balance {
            Balance::LeastLoaded | Balance::Hash(_) => least_loaded(&self.seats, now, dice),
            Balance::P2c => p2c(&self.seats, now, dice),
            Balance::PeakEwma => peak_ewma(&self.seats, now, dice),
            Balance::RoundRobin => {
                if !std::mem::replace(&mut self.has_begun, true) {
                    for _ in 0..dice.below(self.seats.len()) {
                        self.turns.pick(&self.seats, now);
                    }
                }
                self.turns.pick(&self.seats, now)
            }
        }
    }

    fn know(&mut self, plan: &Arc<Plan>, snapshot: &Snapshot) {
        if !self.plan.as_ref().is_some_and(|known| Arc::ptr_eq(known, plan)) {
            self.plan = Some(Arc::clone(plan));
            self.set = None;
            self.limits.clear();
        }
        if self.set == Some(snapshot.set) && self.identities.len() == snapshot.members.len() {
            return;
        }
        self.set = Some(snapshot.set);
        self.identities.clear();
        self.identities.extend(snapshot.members.iter().map(|member| {
            let identity = member.identity();
            Identity { seed: xxh3_64(identity.as_bytes()), token: plan.token(&identity) }
        }));
        let stays = |id: &EndpointId| snapshot.members.iter().any(|member| member.endpoint.id == *id);
        self.limits.retain(|id, _| stays(id));
        self.has_begun = false;
        self.turns = WeightedRoundRobin::new(snapshot.members.len());
    }
}
