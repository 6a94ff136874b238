//! What a cluster knows of its endpoints: who there is, at which slot, and how well.
//!
//! No tasks and no clock in here; [`super::cluster`] brings news in and carries results out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config;
use crate::health::{Breaker, BreakerPolicy, Change, ProbeVerdict, State, Verdict, may_eject};
use crate::ids::{Address, EndpointId};

use super::endpoint::Endpoint;
use super::probe::ProbeError;
use super::snapshot::{Health, Member, Snapshot};
use super::source::Found;
use super::status::EndpointStatus;
use super::welcome::Welcomed;

/// The part of a configuration that decides over health.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rules {
    pub(super) breaker: BreakerPolicy,
    pub(super) rise: u32,
    pub(super) fall: u32,
    pub(super) slow_start: Duration,
}

impl From<&config::Health> for Rules {
    fn from(health: &config::Health) -> Self {
        let breaker = BreakerPolicy {
            consecutive_failures: health.breaker.consecutive_failures,
            base_ejection: health.breaker.base_ejection.get(),
            max_ejection: health.breaker.max_ejection.get(),
            max_share: health.breaker.max_share,
        };
        let (rise, fall) = health.probe.as_ref().map_or((1, 1), |probe| (probe.successes, probe.failures));
        Self { breaker, rise, fall, slow_start: health.slow_start.get() }
    }
}

impl Rules {
    fn newcomer(&self, described: &config::Endpoint, slot: usize, slow_since: Option<Duration>) -> Entry {
        Entry {
            endpoint: Arc::new(Endpoint::new(described.address.clone(), slot)),
            described: Arc::new(described.clone()),
            breaker: Breaker::new(self.breaker),
            verdict: ProbeVerdict::new(self.rise, self.fall),
            probe_error: None,
            slow_since,
            was_away: false,
            is_being_welcomed: false,
        }
    }
}

pub(super) struct Registry {
    rules: Rules,
    /// In the order of their slots, which are unique.
    entries: Vec<Entry>,
    generation: u64,
    /// Counts the sets taken in that were another.
    set: u64,
    /// Who was away is kept out until it has been welcomed.
    welcomes: bool,
    /// Whom operators keep out, there or not.
    drained: BTreeSet<Address>,
}

struct Entry {
    endpoint: Arc<Endpoint>,
    described: Arc<config::Endpoint>,
    breaker: Breaker,
    verdict: ProbeVerdict,
    probe_error: Option<ProbeError>,
    slow_since: Option<Duration>,
    /// It was away since it last served, or was welcomed.
    was_away: bool,
    is_being_welcomed: bool,
}

/// Who came and who went by a new set.
#[derive(Debug, Default)]
pub(super) struct Delta {
    pub(super) joined: Vec<Arc<Endpoint>>,
    pub(super) left: Vec<Arc<Endpoint>>,
    /// Those that stayed have another weight, zone or metadata.
    pub(super) redescribed: bool,
}

impl Delta {
    pub(super) fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && !self.redescribed
    }
}

impl Registry {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, entries: Vec::new(), generation: 0, set: 0, welcomes: false, drained: BTreeSet::new() }
    }

    /// Takes a whole new set in. Who stays keeps endpoint, slot and health; who comes takes the
    /// lowest vacant slot. `None`: the set is empty and not to be believed.
    pub(super) fn apply(&mut self, found: &Found, now: Duration) -> Option<Delta> {
        if found.endpoints.is_empty() && !found.may_be_empty {
            return None;
        }
        let slow_since = (self.generation > 0).then_some(now);
        let mut mentioned = HashSet::new();
        // A second mention of one address adds nothing: the first one counts.
        let wanted: Vec<_> =
            found.endpoints.iter().filter(|endpoint| mentioned.insert(&endpoint.address)).collect();

        let left = self.entries.extract_if(.., |entry| !mentioned.contains(&entry.endpoint.address));
        let mut delta = Delta { left: left.map(|entry| entry.endpoint).collect(), ..Delta::default() };

        let occupied: HashSet<_> = self.endpoints().map(|endpoint| endpoint.slot).collect();
        let mut vacant = (0..).filter(|slot| !occupied.contains(slot));
        let mut newcomers = Vec::new();
        let mut known: HashMap<_, _> =
            self.entries.iter_mut().map(|entry| (entry.endpoint.address.clone(), entry)).collect();
        for described in wanted {
            match known.get_mut(&described.address) {
                Some(entry) if *entry.described == *described => {}
                Some(entry) => {
                    entry.described = Arc::new(described.clone());
                    delta.redescribed = true;
                }
                None => newcomers
                    .extend(vacant.next().map(|slot| self.rules.newcomer(described, slot, slow_since))),
            }
        }
        delta.joined = newcomers.iter().map(|entry| Arc::clone(&entry.endpoint)).collect();
        self.entries.extend(newcomers);
        self.entries.sort_by_key(|entry| entry.endpoint.slot);
        if !delta.is_empty() {
            self.set += 1;
        }
        Some(delta)
    }

    /// Lets these and no others have no new exchanges. What is known of their health stays. Whether that is new.
    pub(super) fn set_drained(&mut self, drained: BTreeSet<Address>) -> bool {
        let is_new = self.drained != drained;
        self.drained = drained;
        is_new
    }

    /// Takes other rules on; what is known of the endpoints stays.
    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        for entry in &mut self.entries {
            entry.breaker.set_policy(rules.breaker);
            entry.verdict.set_thresholds(rules.rise, rules.fall);
            entry.watch();
        }
    }

    /// An exchange's outcome. `None`: nothing that others must know, or an endpoint that left.
    pub(super) fn on_outcome(&mut self, id: EndpointId, now: Duration, success: bool) -> Option<Change> {
        let max_share = self.rules.breaker.max_share;
        let may_eject = may_eject(self.out_beside(id), self.entries.len(), max_share);
        let entry = self.entries.iter_mut().find(|entry| entry.endpoint.id == id)?;
        let change =
            if success { entry.breaker.on_success(now) } else { entry.breaker.on_failure(now, may_eject) };
        entry.settle(change, now);
        change
    }

    /// An endpoint that fails too often beside the others of its set, of which this share may be out at once.
    pub(super) fn on_outlier(&mut self, id: EndpointId, now: Duration, max_share: f64) -> Option<Change> {
        let may_eject = may_eject(self.out_beside(id), self.entries.len(), max_share);
        let entry = self.entries.iter_mut().find(|entry| entry.endpoint.id == id)?;
        let change = entry.breaker.on_outlier(now, may_eject);
        entry.settle(change, now);
        change
    }

    /// How many are out beside an endpoint. Down by its probes is out as well: the last that may be well is never ejected.
    fn out_beside(&self, id: EndpointId) -> usize {
        let welcomes = self.welcomes;
        let is_out = |entry: &&Entry| entry.endpoint.id != id && entry.health(welcomes) != Health::Up;
        self.entries.iter().filter(is_out).count()
    }

    /// A probe's result. `Some`: others must know that the verdict changed to this.
    pub(super) fn on_probe(
        &mut self,
        id: EndpointId,
        now: Duration,
        result: Result<(), ProbeError>,
    ) -> Option<Verdict> {
        let entry = self.entries.iter_mut().find(|entry| entry.endpoint.id == id)?;
        let before = entry.verdict.verdict();
        let changed = entry.verdict.on(result.is_ok());
        entry.probe_error = result.err();
        let changed = changed?;
        match (before, changed) {
            // It was trusted before it was asked.
            (Verdict::Unknown, Verdict::Up) => return None,
            (Verdict::Down, Verdict::Up) => entry.slow_since = Some(now),
            (Verdict::Unknown | Verdict::Up | Verdict::Down, _) => {}
        }
        Some(changed)
    }

    /// Forgets what probes said, when nobody probes any more.
    pub(super) fn forget_probes(&mut self) {
        for entry in &mut self.entries {
            entry.verdict = ProbeVerdict::new(self.rules.rise, self.rules.fall);
            entry.probe_error = None;
        }
    }

    /// Lets time pass. Whether somebody's health changed by it.
    pub(super) fn on_time(&mut self, now: Duration) -> bool {
        let mut changed = false;
        for entry in &mut self.entries {
            if let Some(change) = entry.breaker.on_time(now) {
                entry.settle(Some(change), now);
                changed = true;
            }
        }
        changed
    }

    /// When [`Registry::on_time`] has something to do next.
    pub(super) fn wakes_at(&self) -> Option<Duration> {
        self.entries.iter().filter_map(|entry| entry.breaker.wakes_at()).min()
    }

    /// The next generation's snapshot.
    pub(super) fn next_snapshot(&mut self) -> Snapshot {
        self.generation += 1;
        for entry in &mut self.entries {
            entry.was_away |= entry.fitness() != Health::Up;
        }
        let members: Vec<_> = self.entries.iter().map(|entry| self.member(entry)).collect();
        let slot_count = members.last().map_or(0, |member| member.endpoint.slot + 1);
        let mut slots = vec![None; slot_count];
        for (index, member) in members.iter().enumerate() {
            if let Some(slot) = slots.get_mut(member.endpoint.slot) {
                *slot = Some(index);
            }
        }
        // What was away and is fit again serves from this snapshot on, where nobody asks for a welcome.
        if !self.welcomes {
            self.entries.iter_mut().for_each(|entry| entry.was_away = false);
        }
        let has_trials = members.iter().any(|member| member.health == Health::Trial);
        Snapshot { generation: self.generation, set: self.set, members, slots, has_trials }
    }

    /// Whether those that were away are kept out until they are welcomed.
    pub(super) fn set_welcomes(&mut self, welcomes: bool) {
        self.welcomes = welcomes;
    }

    /// Those that are back and have to be welcomed, each told once.
    pub(super) fn returned(&mut self) -> Vec<Arc<Endpoint>> {
        let welcomes = self.welcomes;
        let due = |entry: &&mut Entry| {
            welcomes && entry.was_away && !entry.is_being_welcomed && entry.fitness() != Health::Down
        };
        let begin = |entry: &mut Entry| {
            entry.is_being_welcomed = true;
            Arc::clone(&entry.endpoint)
        };
        self.entries.iter_mut().filter(due).map(begin).collect()
    }

    /// A welcome's end. One that worked counts as an exchange that did.
    pub(super) fn on_welcome(&mut self, id: EndpointId, now: Duration, worked: bool) -> Welcomed {
        let welcomes = self.welcomes;
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.endpoint.id == id) else {
            return Welcomed::Over;
        };
        let is_away = entry.fitness() == Health::Down;
        if !worked && !is_away && welcomes {
            return Welcomed::NotYet;
        }
        entry.is_being_welcomed = false;
        // Away again: whatever was done, others stand in for it once more.
        if worked && !is_away {
            let change = entry.breaker.on_success(now);
            entry.settle(change, now);
            entry.was_away = entry.fitness() != Health::Up;
        }
        Welcomed::Over
    }

    /// Slots without an endpoint.
    pub(super) fn vacancies(&self) -> usize {
        self.entries.last().map_or(0, |last| last.endpoint.slot + 1 - self.entries.len())
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.entries.iter().map(|entry| &entry.endpoint)
    }

    pub(super) fn status(&self, now: Duration) -> Vec<EndpointStatus> {
        let status = |entry: &Entry| {
            let status = entry.status(now, self.welcomes);
            if self.is_drained(entry) { EndpointStatus { state: "drained", ..status } } else { status }
        };
        self.entries.iter().map(status).collect()
    }

    fn is_drained(&self, entry: &Entry) -> bool {
        !self.drained.is_empty() && self.drained.contains(&entry.endpoint.address)
    }

    fn member(&self, entry: &Entry) -> Member {
        let member = entry.member(self.rules.slow_start, self.welcomes);
        if self.is_drained(entry) { Member { health: Health::Down, ..member } } else { member }
    }
}

impl Entry {
    /// Brings the flags that workers read without a lock in line with the breaker.
    fn settle(&mut self, change: Option<Change>, now: Duration) {
        match change {
            Some(Change::HalfOpened) => {
                // Claimed here on behalf of whichever worker takes the offer, so that the
                // machine offers it again when none reports.
                let claimed = self.breaker.claim_trial(now);
                self.endpoint.trial_offered.store(claimed, Ordering::Relaxed);
            }
            Some(Change::Ejected { .. }) => self.endpoint.trial_offered.store(false, Ordering::Relaxed),
            Some(Change::Recovered) => {
                self.endpoint.trial_offered.store(false, Ordering::Relaxed);
                self.slow_since = Some(now);
            }
            None => {}
        }
        self.watch();
    }

    fn watch(&self) {
        let watched = self.breaker.state() != State::Healthy;
        self.endpoint.watched.store(watched, Ordering::Relaxed);
    }

    /// What its members are told: not fit before it was welcomed, where that is asked for.
    fn health(&self, welcomes: bool) -> Health {
        if welcomes && self.was_away { Health::Down } else { self.fitness() }
    }

    /// What probes and breaker say.
    fn fitness(&self) -> Health {
        match (self.verdict.verdict(), self.breaker.state()) {
            (Verdict::Down, _) | (_, State::Ejected { .. }) => Health::Down,
            (_, State::HalfOpen { .. }) => Health::Trial,
            (Verdict::Unknown | Verdict::Up, State::Healthy | State::Suspect { .. }) => Health::Up,
        }
    }

    fn member(&self, slow_start: Duration, welcomes: bool) -> Member {
        let slow_start = self.slow_since.filter(|_| !slow_start.is_zero()).map(|since| (since, slow_start));
        Member {
            endpoint: Arc::clone(&self.endpoint),
            health: self.health(welcomes),
            described: Arc::clone(&self.described),
            slow_start,
            is_draining: self.described.metadata.get("draining").is_some_and(|value| value == "true"),
        }
    }

    fn status(&self, now: Duration, welcomes: bool) -> EndpointStatus {
        let state = match (self.verdict.verdict(), self.breaker.state()) {
            (Verdict::Down, _) => "down",
            (_, State::Ejected { .. }) => "ejected",
            (Verdict::Unknown | Verdict::Up, _) if welcomes && self.was_away => "returning",
            (_, State::HalfOpen { .. }) => "half-open",
            (_, State::Suspect { .. }) => "suspect",
            (Verdict::Unknown | Verdict::Up, State::Healthy) => "up",
        };
        let (successes, failures) = self.endpoint.totals();
        EndpointStatus {
            id: self.endpoint.id,
            address: self.endpoint.address.clone(),
            slot: self.endpoint.slot,
            weight: self.described.weight,
            zone: self.described.zone.clone(),
            metadata: self.described.metadata.clone(),
            state,
            in_flight: self.endpoint.in_flight(),
            latency_ms: self.endpoint.latency_s(now) * 1e3,
            successes,
            failures,
            ejections: self.breaker.ejections(),
            probe_error: self.probe_error.as_ref().map(ToString::to_string),
        }
    }
}
