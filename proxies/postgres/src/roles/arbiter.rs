//! Who is the primary: sightings in, verdict out. No clock, no sockets.
//!
//! The primary is the one that is not in recovery. Of several the highest timeline wins, as each promotion begins a new
//! one: the others are primaries of before, which must not take writes any more. Of equal timelines, which no promotion
//! leads to, the present primary stays, or else the first of the list is taken. A timeline that has won once stays the
//! least that is taken, even while its server is away: an old primary that comes back just then is not believed. Only
//! that server itself can take it back, by an older timeline of its own: an operator has made it anew from the other.
//! And the first primary is not taken before all have been heard or given up: the one that answers first may be an old
//! one.

use std::collections::VecDeque;
use std::time::Duration;

use groove_common::config::EndpointRole;
use groove_common::ids::EndpointId;

use super::seen::Sighting;
use super::view::{Standing, View};

/// Positions that are remembered to measure lag by, eight times the bound on it. A replica that is behind them all is so
/// for longer than is told.
const HEADS_MAX: u16 = 512;
/// The time they span, where there is no bound.
const HEADS_SPAN: Duration = Duration::from_secs(600);

/// One database's servers as they were last seen.
#[derive(Debug)]
pub(super) struct Arbiter {
    /// A replica that is further behind is not used.
    lag_max: Option<Duration>,
    /// In the order of the configuration.
    entries: Vec<Entry>,
    primary: Option<EndpointId>,
    /// The highest timeline of a primary so far, and whose it is.
    floor: Option<(u32, EndpointId)>,
    /// The highest position heard of.
    head: u64,
    /// When which position was first heard of, oldest first.
    heads: VecDeque<(Duration, u64)>,
}

#[derive(Debug)]
struct Entry {
    id: EndpointId,
    declared: Option<EndpointRole>,
    seen: Seen,
    lag: Option<Lag>,
    is_lagging: bool,
}

/// How far a replica is behind what is known of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// For how long what it has not applied has been known of.
    pub time: Duration,
    /// How much that is.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Never,
    Lost,
    /// It is well; what it is was declared.
    Well,
    Said(Sighting),
}

/// Two servers of one timeline take writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) primary: EndpointId,
    pub(super) other: EndpointId,
}

impl Arbiter {
    pub(super) fn new(lag_max: Option<Duration>) -> Arbiter {
        Arbiter { lag_max, entries: Vec::new(), primary: None, floor: None, head: 0, heads: VecDeque::new() }
    }

    /// These are the servers now. Who stays is known as before.
    pub(super) fn set_members(&mut self, members: &[(EndpointId, Option<EndpointRole>)]) {
        let mut before = std::mem::take(&mut self.entries);
        for &(id, declared) in members {
            let known = before.iter().position(|entry| entry.id == id && entry.declared == declared);
            self.entries.push(match known {
                Some(at) => before.swap_remove(at),
                None => Entry { id, declared, seen: Seen::Never, lag: None, is_lagging: false },
            });
        }
        // An operator who takes the newest primary out of the list means one of the others.
        if self.floor.is_some_and(|(_, id)| !self.entries.iter().any(|entry| entry.id == id)) {
            self.floor = None;
        }
        self.decide();
    }

    /// A server has said what it is.
    pub(super) fn saw(&mut self, id: EndpointId, now: Duration, sighting: Sighting) {
        self.note_head(now, sighting.received.max(sighting.applied));
        let lag = sighting.in_recovery.then(|| self.lag(now, sighting.applied));
        let lag_max = self.lag_max;
        if self.floor.is_some_and(|(floor, holder)| holder == id && (1..floor).contains(&sighting.timeline)) {
            self.floor = None;
        }
        let Some(entry) = self.entry(id) else { return };
        entry.seen = Seen::Said(sighting);
        entry.lag = lag;
        // Who was too far behind has to come closer than that: connections do not come and go at the bound.
        let bound = lag_max.map(|lag_max| if entry.is_lagging { lag_max / 2 } else { lag_max });
        entry.is_lagging = lag.zip(bound).is_some_and(|(lag, bound)| lag.time > bound);
        self.decide();
    }

    /// A server does not answer, or says that it is not up.
    pub(super) fn lost(&mut self, id: EndpointId) {
        self.see(id, Seen::Lost);
    }

    /// A server does not let us ask: what it was it still is, or else nothing to us.
    pub(super) fn mute(&mut self, id: EndpointId) {
        if self.entry(id).is_some_and(|entry| entry.seen == Seen::Never) {
            self.lost(id);
        }
    }

    /// A server whose role is declared is well.
    pub(super) fn well(&mut self, id: EndpointId) {
        self.see(id, Seen::Well);
    }

    fn see(&mut self, id: EndpointId, seen: Seen) {
        let Some(entry) = self.entry(id) else { return };
        entry.seen = seen;
        entry.lag = None;
        self.decide();
    }

    /// What everybody is.
    pub(super) fn view(&self) -> View {
        View { standings: self.entries.iter().map(|entry| (entry.id, self.standing(entry))).collect() }
    }

    /// A replica's lag, where it is known.
    pub(super) fn lag_of(&self, id: EndpointId) -> Option<Lag> {
        self.entries.iter().find(|entry| entry.id == id)?.lag
    }

    /// The timeline that a server writes, if it has told.
    pub(super) fn timeline_of(&self, id: EndpointId) -> Option<u32> {
        let sighting = self.entries.iter().find(|entry| entry.id == id)?.writes()?;
        Some(sighting.timeline).filter(|timeline| *timeline > 0)
    }

    /// The primary, and another one that takes writes on the same timeline.
    pub(super) fn split(&self) -> Option<Split> {
        let primary = self.primary?;
        let of = |entry: &Entry| entry.writes().map(|sighting| sighting.timeline);
        let timeline = of(self.entries.iter().find(|entry| entry.id == primary)?)?;
        let is_other = |entry: &&Entry| entry.id != primary && of(entry) == Some(timeline);
        self.entries.iter().find(is_other).map(|other| Split { primary, other: other.id })
    }

    fn decide(&mut self) {
        self.primary = self.declared_primary().unwrap_or_else(|| self.elected_primary());
        self.check_invariants();
    }

    /// Whom the configuration names, if it names one: nobody else is asked then.
    fn declared_primary(&self) -> Option<Option<EndpointId>> {
        let mut declared =
            self.entries.iter().filter(|entry| entry.declared == Some(EndpointRole::Primary)).peekable();
        declared.peek()?;
        Some(declared.find(|entry| entry.seen == Seen::Well).map(|entry| entry.id))
    }

    fn elected_primary(&mut self) -> Option<EndpointId> {
        let writers = || self.entries.iter().filter_map(|entry| Some((entry.id, entry.writes()?.timeline)));
        let highest = writers().map(|(_, timeline)| timeline).max()?;
        if self.is_unsettled() {
            return None;
        }
        if self.floor.is_some_and(|(floor, _)| highest < floor) {
            return None;
        }
        let mut best = writers().filter(|(_, timeline)| *timeline == highest).map(|(id, _)| id);
        let first = best.clone().next();
        let stays = self.primary.filter(|primary| best.any(|id| id == *primary));
        let primary = stays.or(first)?;
        self.floor = Some((highest, primary));
        Some(primary)
    }

    /// Whether nobody was the primary yet, and somebody has not been heard who may be.
    fn is_unsettled(&self) -> bool {
        let is_awaited = |entry: &Entry| entry.seen == Seen::Never && entry.declared.is_none();
        self.floor.is_none() && self.entries.iter().any(is_awaited)
    }

    fn standing(&self, entry: &Entry) -> Standing {
        if self.primary == Some(entry.id) {
            return Standing::Primary;
        }
        match (entry.seen, entry.declared) {
            (Seen::Never, _) => Standing::Unknown,
            (Seen::Lost, _) | (Seen::Well, Some(EndpointRole::Primary) | None) => Standing::Lost,
            (Seen::Well, Some(EndpointRole::Replica)) => Standing::Replica,
            (Seen::Said(sighting), _) if !sighting.in_recovery && self.is_unsettled() => Standing::Unknown,
            (Seen::Said(sighting), _) if !sighting.in_recovery => Standing::Fenced,
            (Seen::Said(_), _) if entry.is_lagging => Standing::Lagging,
            (Seen::Said(_), _) => Standing::Replica,
        }
    }

    fn note_head(&mut self, now: Duration, position: u64) {
        if position <= self.head && !self.heads.is_empty() {
            return;
        }
        self.head = position;
        let span = self.lag_max.map_or(HEADS_SPAN, |lag_max| lag_max * 8);
        let apart = span / u32::from(HEADS_MAX);
        if self.heads.back().is_none_or(|(at, _)| now >= *at + apart) {
            self.heads.push_back((now, position));
        }
        if self.heads.len() > usize::from(HEADS_MAX) {
            self.heads.pop_front();
        }
    }

    fn lag(&self, now: Duration, applied: u64) -> Lag {
        let first = self.heads.iter().find(|(_, position)| *position > applied);
        let time = first.map_or(Duration::ZERO, |(at, _)| now.saturating_sub(*at));
        Lag { time, bytes: self.head.saturating_sub(applied) }
    }

    fn entry(&mut self, id: EndpointId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    fn check_invariants(&self) {
        debug_assert!(self.heads.len() <= usize::from(HEADS_MAX), "bounded");
        if cfg!(debug_assertions)
            && let Some(primary) =
                self.primary.and_then(|id| self.entries.iter().find(|entry| entry.id == id))
        {
            let timeline = primary.writes().map(|sighting| sighting.timeline);
            debug_assert!(
                primary.declared == Some(EndpointRole::Primary)
                    || timeline == self.floor.map(|(floor, _)| floor),
                "the primary writes the newest timeline there was"
            );
        }
    }
}

impl Entry {
    /// What it said, if that means that it takes writes. One that is declared to be a replica never does.
    fn writes(&self) -> Option<Sighting> {
        match (self.seen, self.declared) {
            (Seen::Said(sighting), None) if !sighting.in_recovery => Some(sighting),
            (Seen::Said(_) | Seen::Never | Seen::Lost | Seen::Well, _) => None,
        }
    }
}
