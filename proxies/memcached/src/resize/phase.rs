//! The state that all sidecars share, and the one who drives it: what comes next, or what is waited for. Pure.
//!
//! ```text
//!            ┌──────────────────────── abort ───────────────────────┐
//!            ▼                                                      │
//!  Plain ──► B ──────► C ──────────────► E ──────► F ──────► Plain  │
//!  (old)     │ guard,  │                 │ move    │ stubs   (new)  │
//!            │ purge   │ purge on the    │         │ have died      │
//!            │         │ way back        │         │                │
//!            └◄────────┴◄────────────────┘ ◄────────────────────────┘
//! ```
//!
//! Each arrow is one step, and a step is taken when all sidecars have acknowledged the one before. What a phase
//! means for a request is the table of `program`; what must be done in it, and why, is here:
//!
//! - **B**, forward: a request of before may still lie in a paused server's socket, so some time passes; then the
//!   moved keys are purged at the new servers, since C reads those. Backward from C: the old servers may hold
//!   stubs, which must have died before anybody reads them plainly.
//! - **C**, backward: before anybody is in B, where writes no longer delete at the new servers, the moved keys are
//!   purged there, or one who still is in C would read them.
//! - **E**: the mover runs, which nobody in C could bear: it starts when all are in E, and has ended before the
//!   step back to C.
//! - **F** lasts longer than the stubs live that E left at the new servers.
//! - A server that does not answer and is not a key's home costs its keys their writes until nobody reads it:
//!   first all agree not to read it (*leaving*), then that it need not be written (*gone*).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use groove_common::balance::Rule;
use groove_common::config::Endpoint;
use groove_common::ids::Address;
use serde::{Deserialize, Serialize};

use super::view::{Gone, Phase, View};
use super::wishes::Joined;

/// How long a stub lives that a program leaves (`N30`).
pub const STUB_LIFE: Duration = Duration::from_secs(30);

/// How long nobody may read plainly what may be a stub: its life, and the servers' clocks, which tick in seconds.
pub const STUBS_DIE: Duration = Duration::from_secs(33);

/// What all sidecars share of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Counts the changes that all must acknowledge.
    pub step: u64,
    /// The committed list, in its order; during a change the old one.
    pub slots: Vec<Endpoint>,
    /// What is under way.
    #[serde(default)]
    pub change: Option<Change>,
    /// What is wanted next.
    #[serde(default)]
    pub next: Option<Wish>,
    /// Nothing goes on.
    #[serde(default)]
    pub paused: bool,
    /// Counts the changes there were.
    #[serde(default)]
    pub changes: u64,
    /// Those of the servers in any of the lists that are there as standby servers, in the order in which they joined.
    #[serde(default)]
    pub standbys: Vec<Joined>,
}

/// A change under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which of the cluster's changes.
    pub id: u64,
    /// The list that it leads to.
    pub to: Vec<Endpoint>,
    /// How far it is; never [`Phase::Plain`].
    pub phase: Phase,
    /// How far it has ever been.
    pub reached: Phase,
    /// It goes back.
    #[serde(default)]
    pub is_aborting: bool,
    /// Servers that do not answer.
    #[serde(default)]
    pub gone: BTreeMap<Address, Gone>,
}

/// A list that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The list.
    pub to: Vec<Endpoint>,
    /// At once and without the phases: keys that move are lost, and for a moment sidecars disagree.
    #[serde(default)]
    pub is_immediate: bool,
}

/// What the one who drives knows.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Every sidecar that is present, with the step it has acknowledged.
    pub sidecars: BTreeMap<String, u64>,
    /// For how long all of them have been in this step.
    pub settled: Duration,
    /// How long B lasts at least on the way forward.
    pub guard: Duration,
    /// The moved keys were purged at the new servers, in this stay in this phase.
    pub is_purged: bool,
    /// The moved keys were moved, or the time for it is over.
    pub is_moved: bool,
    /// The mover has ended.
    pub is_mover_idle: bool,
    /// Servers that have not answered for some time.
    pub away: BTreeSet<Address>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing to do.
    Rest,
    /// Nothing can be done yet.
    Wait(Reason),
    /// Purge the moved keys at the new servers, but for those that are marked gone.
    Purge,
    /// Let the mover run.
    Move,
    /// Let the mover end.
    StopMover,
    /// Put this state.
    Put(State),
}

/// Why it does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// These have not acknowledged.
    #[error("waiting for {} to acknowledge", .0.join(", "))]
    Sidecars(Vec<String>),
    /// An operator wants it so.
    #[error("paused")]
    Paused,
    /// Requests of before must have died.
    #[error("letting requests of before end, {}s left", .0.as_secs() + 1)]
    Guard(Duration),
    /// Stubs must have died.
    #[error("letting placeholders expire, {}s left", .0.as_secs() + 1)]
    Stubs(Duration),
    /// These must answer first.
    #[error("waiting for {} to answer", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Servers(Vec<Address>),
}

impl State {
    /// The first state of a cluster.
    pub fn new(slots: Vec<Endpoint>) -> Self {
        let standbys = Vec::new();
        Self { step: 1, slots, change: None, next: None, paused: false, changes: 0, standbys }
    }

    /// What workers go by in it.
    pub fn view(&self, rule: Rule) -> View {
        match &self.change {
            None => View::plain(rule, self.step, &self.slots),
            Some(change) => {
                View::changing(rule, self.step, change.phase, &self.slots, &change.to, &change.gone)
            }
        }
    }

    /// The phase for all.
    pub fn phase(&self) -> Phase {
        self.change.as_ref().map_or(Phase::Plain, |change| change.phase)
    }

    /// One step on, without a change.
    fn plain(&self, slots: &[Endpoint]) -> Decision {
        let paused = self.paused && self.next.is_some();
        let state = Self { step: self.step + 1, slots: slots.to_vec(), change: None, paused, ..self.clone() };
        Decision::Put(state.pruned())
    }

    /// One step on in the change.
    fn with(&self, change: Change) -> Decision {
        let change = Change { reached: change.reached.max(change.phase), ..change };
        Decision::Put(Self { step: self.step + 1, change: Some(change), ..self.clone() })
    }
}

/// What comes next. To be asked again whenever something has changed.
pub fn decide(state: &State, facts: &Facts) -> Decision {
    let behind = facts.sidecars.iter().filter(|(_, acknowledged)| **acknowledged < state.step);
    let behind: Vec<String> = behind.map(|(name, _)| name.clone()).collect();
    if !behind.is_empty() {
        return Decision::Wait(Reason::Sidecars(behind));
    }
    if state.paused {
        return if facts.is_mover_idle { Decision::Wait(Reason::Paused) } else { Decision::StopMover };
    }
    match &state.change {
        None => begin(state),
        Some(change) => match (change.phase, change.is_aborting) {
            // A change is never plain; going on would be wrong, and ending it is not.
            (Phase::Plain, _) => state.plain(&state.slots),
            (Phase::B, false) => guard(state, change, facts),
            (Phase::C, false) => cross(state, change, facts),
            (Phase::E, false) => shift(state, change, facts),
            (Phase::F, _) => settle(state, change, facts),
            (Phase::E, true) if !facts.is_mover_idle => Decision::StopMover,
            (Phase::E, true) => state.with(Change { phase: Phase::C, ..change.clone() }),
            (Phase::C, true) => back_from_c(state, change, facts),
            (Phase::B, true) => back_from_b(state, change, facts),
        },
    }
}

/// Plain to B.
fn begin(state: &State) -> Decision {
    let Some(Wish { to, is_immediate }) = &state.next else { return Decision::Rest };
    let state = State { next: None, changes: state.changes + 1, ..state.clone() };
    if *to == state.slots {
        return Decision::Put(State { changes: state.changes - 1, ..state }.pruned());
    }
    if *is_immediate {
        return state.plain(to);
    }
    let gone = BTreeMap::new();
    let (id, to) = (state.changes, to.clone());
    state.with(Change { id, to, phase: Phase::B, reached: Phase::B, is_aborting: false, gone })
}

/// B to C.
fn guard(state: &State, change: &Change, facts: &Facts) -> Decision {
    if facts.settled < facts.guard {
        return Decision::Wait(Reason::Guard(facts.guard - facts.settled));
    }
    let away = away(&change.to, facts);
    match (away.is_empty(), facts.is_purged) {
        (false, _) => match state.give_up(&away) {
            Some(state) => Decision::Put(state),
            None => Decision::Wait(Reason::Servers(away)),
        },
        (true, false) => Decision::Purge,
        (true, true) => state.with(Change { phase: Phase::C, ..change.clone() }),
    }
}

/// C to E, or back to B if a new server has died: it would be a home for nothing.
fn cross(state: &State, change: &Change, facts: &Facts) -> Decision {
    let phase = if away(&change.to, facts).is_empty() { Phase::E } else { Phase::B };
    state.with(Change { phase, ..change.clone() })
}

/// E to F.
fn shift(state: &State, change: &Change, facts: &Facts) -> Decision {
    if let Some(change) = mark(change, &state.slots, facts) {
        // It may be at a key of that server, which from now on nobody is to read.
        return if facts.is_mover_idle { state.with(change) } else { Decision::StopMover };
    }
    match facts.is_moved {
        false => Decision::Move,
        true if !facts.is_mover_idle => Decision::StopMover,
        true => state.with(Change { phase: Phase::F, ..change.clone() }),
    }
}

/// F to the new list.
fn settle(state: &State, change: &Change, facts: &Facts) -> Decision {
    if let Some(change) = mark(change, &state.slots, facts) {
        return state.with(change);
    }
    match STUBS_DIE.checked_sub(facts.settled).filter(|left| !left.is_zero()) {
        Some(left) => Decision::Wait(Reason::Stubs(left)),
        None => state.plain(&change.to),
    }
}

/// C back to B.
fn back_from_c(state: &State, change: &Change, facts: &Facts) -> Decision {
    if change.reached < Phase::E || facts.is_purged {
        return state.with(Change { phase: Phase::B, ..change.clone() });
    }
    let unmarked = |address: &&Address| !change.gone.contains_key(*address);
    let away = away(&change.to, facts);
    match away.iter().find(unmarked) {
        Some(address) => {
            let mut change = change.clone();
            change.gone.insert(address.clone(), Gone::Leaving);
            state.with(change)
        }
        None => Decision::Purge,
    }
}

/// B back to the old list.
fn back_from_b(state: &State, change: &Change, facts: &Facts) -> Decision {
    let left = STUBS_DIE.checked_sub(facts.settled).filter(|left| !left.is_zero());
    match left {
        Some(left) if change.reached > Phase::B => Decision::Wait(Reason::Stubs(left)),
        Some(_) | None => state.plain(&state.slots),
    }
}

/// The change with one more mark: an old server that does not answer is left, one that was left is gone.
fn mark(change: &Change, old: &[Endpoint], facts: &Facts) -> Option<Change> {
    let mut change = change.clone();
    // All have acknowledged that they no longer read it.
    if let Some(leaving) = change.gone.values_mut().find(|mark| **mark == Gone::Leaving) {
        *leaving = Gone::Gone;
        return Some(change);
    }
    let address = away(old, facts).into_iter().find(|address| !change.gone.contains_key(address))?;
    change.gone.insert(address, Gone::Leaving);
    Some(change)
}

/// Those of a list that do not answer.
fn away(list: &[Endpoint], facts: &Facts) -> Vec<Address> {
    let addresses = list.iter().map(|endpoint| &endpoint.address);
    addresses.filter(|address| facts.away.contains(address)).cloned().collect()
}

#[cfg(test)]
#[path = "phase_tests.rs"]
mod tests;
