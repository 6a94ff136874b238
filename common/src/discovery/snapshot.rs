//! What everybody sees of a cluster at one moment.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::{self, Candidate, Dice, Place, Placement, Rule, slow_start};
use crate::config;
use crate::ids::EndpointId;

use super::endpoint::Endpoint;

/// Endpoints and their health, swapped whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows by one with each change.
    pub generation: u64,
    /// Grows by one when endpoints come, go or are described in another way; their health leaves it as it is.
    pub set: u64,
    /// Every endpoint, in the order of their slots.
    pub members: Vec<Member>,
    /// Slot to index in `members`. A slot may be vacant.
    pub(super) slots: Vec<Option<usize>>,
    /// Somebody is half-open: picks look for an unclaimed trial first.
    pub(super) has_trials: bool,
}

/// An endpoint as of one snapshot.
#[derive(Debug, Clone)]
pub struct Member {
    /// The endpoint, the same object through all snapshots.
    pub endpoint: Arc<Endpoint>,
    /// Whether it takes traffic.
    pub health: Health,
    /// As its source describes it: weight, zone, metadata.
    pub described: Arc<config::Endpoint>,
    /// When its slow start began, and how long that takes.
    pub(super) slow_start: Option<(Duration, Duration)>,
    /// It keeps what it has and gets nothing new: its metadata says `draining: "true"`.
    pub is_draining: bool,
}

/// Whether an endpoint takes traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Up,
    /// One exchange, to be claimed by [`Endpoint::claim_trial`].
    Trial,
    /// No.
    Down,
}

/// How to pick where any endpoint will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Fewest exchanges per weight, ties at random.
    #[default]
    LeastLoaded,
    /// The better of two at random.
    PowerOfTwo,
    /// Shortest expected latency.
    PeakEwma,
}

impl Snapshot {
    /// An endpoint for the next exchange; a half-open one whose trial is open goes first.
    /// `None`: nobody takes traffic.
    pub fn pick(&self, policy: Policy, now: Duration, dice: &mut Dice) -> Option<&Member> {
        if let Some(member) = self.claim_any_trial() {
            return Some(member);
        }
        let index = match policy {
            Policy::LeastLoaded => balance::least_loaded(&self.members, now, dice),
            Policy::PowerOfTwo => balance::p2c(&self.members, now, dice),
            Policy::PeakEwma => balance::peak_ewma(&self.members, now, dice),
        };
        self.members.get(index?)
    }

    /// Where keys live among these endpoints. To be built once a [`Self::set`].
    pub fn placement<'a>(&'a self, rule: Rule) -> Placement {
        let place = |member: &'a Member| Place {
            slot: member.endpoint.slot,
            address: &member.endpoint.address,
            name: member.described.name.as_deref(),
            weight: member.described.weight,
        };
        let places: Vec<_> = self.members.iter().map(place).collect();
        Placement::new(rule, &places)
    }

    /// Who takes a key: its owner, or while that is away the heir that every sidecar finds. The placement is of this
    /// snapshot's [`Self::set`]; key and hash as [`balance::Hasher`] gives them.
    pub fn by_key(&self, placement: &Placement, key: &[u8], hash: u64) -> Option<&Member> {
        let slot = placement.pick(key, hash, |slot| self.at_slot(slot).is_some_and(Member::admits))?;
        self.at_slot(slot)
    }

    /// The member at a slot of the hash, well or not; `None` when it is vacant.
    pub fn at_slot(&self, slot: usize) -> Option<&Member> {
        self.slots.get(slot).copied().flatten().and_then(|index| self.members.get(index))
    }

    /// Slots of the hash, vacant ones included.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The member of that id.
    pub fn member(&self, id: EndpointId) -> Option<&Member> {
        self.members.iter().find(|member| member.endpoint.id == id)
    }

    fn claim_any_trial(&self) -> Option<&Member> {
        if !self.has_trials {
            return None;
        }
        self.members.iter().find(|member| {
            member.health == Health::Trial && !member.is_draining && member.endpoint.claim_trial()
        })
    }
}

impl Member {
    /// What a hash knows it by: its name, or else its address.
    pub fn identity(&self) -> Cow<'_, str> {
        match &self.described.name {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(self.endpoint.address.to_string()),
        }
    }

    /// Whether it takes this exchange: it is up, or the trial was free and is claimed now.
    pub fn admits(&self) -> bool {
        match self.health {
            Health::Up => true,
            Health::Trial => self.endpoint.claim_trial(),
            Health::Down => false,
        }
    }
}

impl Candidate for Member {
    fn is_usable(&self) -> bool {
        self.health == Health::Up && !self.is_draining
    }

    fn weight(&self, now: Duration) -> f64 {
        let weight = f64::from(self.described.weight);
        match self.slow_start {
            None => weight,
            Some((since, window)) => weight * slow_start(now.saturating_sub(since), window),
        }
    }

    fn in_flight(&self) -> u32 {
        self.endpoint.in_flight()
    }

    fn latency_s(&self, now: Duration) -> f64 {
        self.endpoint.latency_s(now)
    }
}
