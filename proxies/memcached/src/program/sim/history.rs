//! Was it a register that may lose its value at any time?
//!
//! Every state that the register may be in is kept, each with those of the operations under way that have
//! taken effect in it and what they found. An answer rules states out; when none is left, no order of the
//! operations explains what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::number;

/// Beyond so many possibilities a run is given up: too much that may have happened or not.
const STATES_MAX: usize = 1_000;

/// What clients can tell apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Value {
    pub(super) bytes: Vec<u8>,
    pub(super) flags: u32,
    /// Thousands of seconds that it was given; 0 for ever.
    pub(super) ttl: u32,
}

impl Value {
    /// A touch makes no new version, in memcached.
    fn is_same_as(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.flags == other.flags
    }
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Get,
    Set(Value),
    Add(Value),
    Replace(Value),
    Delete,
    /// `flush_all`.
    Flush,
    Incr(u64),
    Append(Vec<u8>),
    Prepend(Vec<u8>),
    /// `gat`.
    Touch(u32),
    /// With the token of what was seen.
    Cas(Value, Value),
    CasDelete(Value),
    CasAppend(Value, Vec<u8>),
    CasIncr(Value, u64),
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    Hit(Value),
    Done,
    Number(u64),
    NotNumber,
    /// An add that met something.
    AlreadyThere,
    /// It met nothing, or another version: never wrong in a cache, but then it may not have had an effect.
    Nothing,
    /// It may have happened, or happen yet.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Option<Value>,
    effects: BTreeMap<usize, Said>,
}

#[derive(Debug)]
pub(super) struct History {
    states: BTreeSet<State>,
    pending: BTreeMap<usize, Act>,
    /// Nothing can be said any more.
    pub(super) is_lost: bool,
}

impl History {
    pub(super) fn new(value: Option<Value>) -> Self {
        let states = BTreeSet::from([State { value, effects: BTreeMap::new() }]);
        Self { states, pending: BTreeMap::new(), is_lost: false }
    }

    pub(super) fn asked(&mut self, id: usize, act: Act) {
        self.pending.insert(id, act);
    }

    /// False if that cannot be.
    pub(super) fn told(&mut self, id: usize, said: &Said) -> bool {
        let is_read = matches!(self.pending.get(&id), Some(Act::Get));
        match said {
            Said::Failed if !is_read => true,
            Said::Failed | Said::Nothing => {
                self.pending.remove(&id);
                let states = std::mem::take(&mut self.states);
                let unaffected =
                    states.into_iter().filter(|state| is_read || !state.effects.contains_key(&id));
                self.states = unaffected.map(|state| state.without(id)).collect();
                !self.states.is_empty()
            }
            Said::Hit(_) | Said::Done | Said::Number(_) | Said::NotNumber | Said::AlreadyThere => {
                self.states = self.after(id, said);
                self.pending.remove(&id);
                self.is_lost || !self.states.is_empty()
            }
        }
    }

    /// The states in which `id` has had this effect.
    fn after(&mut self, id: usize, said: &Said) -> BTreeSet<State> {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut todo: Vec<State> = self.states.iter().cloned().collect();
        while let Some(state) = todo.pop() {
            if !seen.insert(state.clone()) {
                continue;
            }
            if seen.len() > STATES_MAX {
                self.is_lost = true;
                return BTreeSet::new();
            }
            if let Some(effect) = state.effects.get(&id) {
                if effect == said {
                    found.insert(state.without(id));
                }
                continue;
            }
            if state.value.is_some() {
                todo.push(State { value: None, ..state.clone() });
            }
            for (other, act) in &self.pending {
                if state.effects.contains_key(other) {
                    continue;
                }
                if let Some((effect, value)) = act.effect(state.value.as_ref()) {
                    let mut effects = state.effects.clone();
                    effects.insert(*other, effect);
                    todo.push(State { value, effects });
                }
            }
        }
        found
    }
}

impl State {
    fn without(mut self, id: usize) -> Self {
        self.effects.remove(&id);
        self
    }
}

impl Act {
    /// What it says and leaves; none if it can only say [`Said::Nothing`].
    fn effect(&self, value: Option<&Value>) -> Option<(Said, Option<Value>)> {
        let done = |value: Value| Some((Said::Done, Some(value)));
        let joined = |old: &Value, bytes: [&[u8]; 2]| Value { bytes: bytes.concat(), ..old.clone() };
        let counted = |old: &Value, delta: u64| {
            let is_short = old.bytes.len() <= 20;
            let number = if is_short { number::unsigned(&old.bytes) } else { None };
            Some(match number {
                None => (Said::NotNumber, Some(old.clone())),
                Some(number) => {
                    let number = number.wrapping_add(delta);
                    let bytes = number.to_string().into_bytes();
                    (Said::Number(number), Some(Value { bytes, ..old.clone() }))
                }
            })
        };
        match (self, value) {
            (Self::Get, Some(old)) => Some((Said::Hit(old.clone()), Some(old.clone()))),
            (Self::Set(new), _) | (Self::Add(new), None) | (Self::Replace(new), Some(_)) => done(new.clone()),
            (Self::Add(_), Some(old)) => Some((Said::AlreadyThere, Some(old.clone()))),
            (Self::Delete | Self::Flush, _) => Some((Said::Done, None)),
            (Self::Incr(delta), Some(old)) => counted(old, *delta),
            (Self::Append(tail), Some(old)) => done(joined(old, [&old.bytes, tail])),
            (Self::Prepend(head), Some(old)) => done(joined(old, [head, &old.bytes])),
            (Self::Touch(ttl), Some(old)) => {
                let touched = Value { ttl: *ttl, ..old.clone() };
                Some((Said::Hit(touched.clone()), Some(touched)))
            }
            (Self::Cas(seen, new), Some(old)) if seen.is_same_as(old) => done(new.clone()),
            (Self::CasDelete(seen), Some(old)) if seen.is_same_as(old) => Some((Said::Done, None)),
            (Self::CasAppend(seen, tail), Some(old)) if seen.is_same_as(old) => {
                done(joined(old, [&old.bytes, tail]))
            }
            (Self::CasIncr(seen, delta), Some(old)) if seen.is_same_as(old) => counted(old, *delta),
            (Self::Cas(..) | Self::CasDelete(_) | Self::CasAppend(..) | Self::CasIncr(..), Some(_))
            | (
                Self::Get
                | Self::Replace(_)
                | Self::Incr(_)
                | Self::Append(_)
                | Self::Prepend(_)
                | Self::Touch(_)
                | Self::Cas(..)
                | Self::CasDelete(_)
                | Self::CasAppend(..)
                | Self::CasIncr(..),
                None,
            ) => None,
        }
    }
}

#[test]
fn it_sees_what_cannot_be() {
    let value = |bytes: &str| Value { bytes: bytes.into(), flags: 0, ttl: 0 };
    let hit = |bytes: &str| Said::Hit(value(bytes));
    let told = |acts: &[(Act, Said)]| {
        let mut history = History::new(Some(value("1")));
        acts.iter().enumerate().all(|(id, (act, said))| {
            history.asked(id, act.clone());
            history.told(id, said)
        })
    };
    let set = (Act::Set(value("2")), Said::Done);
    assert!(told(&[(Act::Get, hit("1")), set.clone(), (Act::Get, hit("2")), (Act::Get, Said::Nothing)]));
    // Stale, and back again.
    assert!(!told(&[set.clone(), (Act::Get, hit("1"))]));
    assert!(!told(&[(Act::Delete, Said::Done), (Act::Get, hit("1"))]));
    // A set that failed may have happened once.
    let failed = (Act::Set(value("2")), Said::Failed);
    assert!(told(&[failed.clone(), (Act::Get, hit("1")), (Act::Get, hit("2"))]));
    assert!(!told(&[failed, (Act::Get, hit("2")), (Act::Get, hit("1"))]));
    assert!(!told(&[set.clone(), (Act::Add(value("3")), Said::AlreadyThere), (Act::Get, hit("3"))]));
    assert!(!told(&[set.clone(), (Act::Cas(value("1"), value("3")), Said::Done)]));
    assert!(told(&[set, (Act::Incr(5), Said::Number(7)), (Act::Get, hit("7"))]));
    assert!(!told(&[(Act::Incr(5), Said::Number(7))]));
}
