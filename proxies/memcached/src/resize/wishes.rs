//! What may be asked of the shared state: an operator's list, a source's, and standby servers' coming and going.
//! Pure.
//!
//! What operators and sources say is the *listed* part of the servers. Standby servers that have joined stand
//! behind it, and stay there whatever is listed: to be listed is the only way for one to become an ordinary server.

use groove_common::config::Endpoint;
use groove_common::ids::Address;
use serde::{Deserialize, Serialize};

use super::phase::{State, Wish};
use super::plan::{self, Unfit};
use super::view::Phase;

/// A standby server that is in service, or about to be, or about to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Which.
    pub address: Address,
    /// Since when, in Unix seconds.
    pub since_s: u64,
    /// Why it joined, for people.
    pub why: String,
    /// How full the others were when they evicted, in percent of what they may hold: they are full at that.
    pub full_percent: u8,
}

/// Why an operator's wish is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a list.
    #[error("{0}")]
    Unfit(#[from] Unfit),
    /// The list is in effect.
    #[error("the cluster has these servers already")]
    Same,
    /// One at a time.
    #[error("a resize is under way: wait for it, or abort it")]
    UnderWay,
    /// Nothing to abort, pause or resume.
    #[error("no resize is under way")]
    Nothing,
    /// Too late to abort.
    #[error("too late: the keys have moved. Let it end, then resize back")]
    TooLate,
    /// It cannot go back.
    #[error("{0} was given up, and newer values of its keys are at the new servers: let the resize end")]
    Gone(Address),
}

impl State {
    /// The list that is in effect once all that is under way has ended.
    pub fn target(&self) -> &[Endpoint] {
        match (&self.next, &self.change) {
            (Some(wish), _) => &wish.to,
            (None, Some(change)) if !change.is_aborting => &change.to,
            (None, Some(_) | None) => &self.slots,
        }
    }

    /// What is listed of it: all but the standby servers.
    pub fn listed(&self) -> Vec<Endpoint> {
        self.target().iter().filter(|server| !self.is_standby(&server.address)).cloned().collect()
    }

    /// Is this server there as a standby server?
    pub fn is_standby(&self, address: &Address) -> bool {
        self.standbys.iter().any(|joined| joined.address == *address)
    }

    /// An operator lists other servers.
    ///
    /// # Errors
    ///
    /// When it cannot be.
    pub fn propose(&self, wish: Wish) -> Result<Self, Refused> {
        plan::check(&wish.to)?;
        if self.change.is_some() || self.next.is_some() {
            return Err(Refused::UnderWay);
        }
        self.list(wish)?.ok_or(Refused::Same)
    }

    /// A source lists other servers: they wait for what is under way. `None`: that changes nothing.
    pub fn follow(&self, wish: Wish) -> Option<Self> {
        self.list(wish).ok().flatten()
    }

    /// With what is listed by `wish` in place of what was.
    fn list(&self, Wish { to: listed, is_immediate }: Wish) -> Result<Option<Self>, Unfit> {
        plan::check(&listed)?;
        let is_listed = |address: &Address| listed.iter().any(|server| server.address == *address);
        let stays = |server: &&Endpoint| self.is_standby(&server.address) && !is_listed(&server.address);
        let behind: Vec<_> = self.target().iter().filter(stays).cloned().collect();
        let mut state = self.clone();
        state.standbys.retain(|joined| !is_listed(&joined.address));
        let to = [listed, behind].concat();
        plan::check(&to)?;
        if to != self.target() {
            state.next = Some(Wish { to, is_immediate });
        }
        Ok((state != *self).then_some(state))
    }

    /// A standby server joins. `None`: not now, or it is in service.
    pub fn join(&self, server: &Endpoint, joined: Joined) -> Option<Self> {
        let to = [&self.slots, std::slice::from_ref(server)].concat();
        if self.is_busy() || plan::check(&to).is_err() {
            return None;
        }
        let mut state = Self { next: Some(Wish { to, is_immediate: false }), ..self.clone() };
        state.standbys.push(joined);
        Some(state)
    }

    /// A standby server leaves. `None`: not now, or it is none.
    pub fn leave(&self, address: &Address) -> Option<Self> {
        let stays = |server: &&Endpoint| server.address != *address;
        let to: Vec<_> = self.slots.iter().filter(stays).cloned().collect();
        if self.is_busy() || !self.is_standby(address) || plan::check(&to).is_err() {
            return None;
        }
        Some(Self { next: Some(Wish { to, is_immediate: false }), ..self.clone() })
    }

    fn is_busy(&self) -> bool {
        self.change.is_some() || self.next.is_some() || self.paused
    }

    /// Back from B, if one of those that do not answer is a standby server that was to join: nobody has to have it.
    pub(super) fn give_up(&self, away: &[Address]) -> Option<Self> {
        let is_old = |address: &Address| self.slots.iter().any(|server| server.address == *address);
        let joins = |address: &&Address| self.is_standby(address) && !is_old(address);
        away.iter().find(joins)?;
        let mut state = self.clone();
        let change = state.change.as_mut().filter(|change| change.phase == Phase::B)?;
        change.is_aborting = true;
        if let Some(next) = &mut state.next {
            next.to.retain(|server| !away.iter().filter(joins).any(|it| *it == server.address));
        }
        Some(state)
    }

    /// Back to the old list.
    ///
    /// # Errors
    ///
    /// When it is too late, or nothing is under way.
    pub fn abort(&self) -> Result<Self, Refused> {
        let mut state = Self { next: None, paused: false, ..self.clone() };
        match &mut state.change {
            None if self.next.is_some() => Ok(state.pruned()),
            None => Err(Refused::Nothing),
            Some(change) if change.phase == Phase::F => Err(Refused::TooLate),
            Some(change) => {
                if let Some(address) = change.gone.keys().next().filter(|_| change.phase == Phase::E) {
                    return Err(Refused::Gone(address.clone()));
                }
                change.is_aborting = true;
                Ok(state)
            }
        }
    }

    /// Stops, or goes on.
    ///
    /// # Errors
    ///
    /// When nothing is under way.
    pub fn pause(&self, paused: bool) -> Result<Self, Refused> {
        match self.change.is_some() || self.next.is_some() {
            true => Ok(Self { paused, ..self.clone() }),
            false => Err(Refused::Nothing),
        }
    }

    /// Without standby servers that are in no list any more.
    pub(super) fn pruned(mut self) -> Self {
        let (slots, change, next) = (&self.slots, &self.change, &self.next);
        let to = change.iter().map(|change| &change.to);
        let lists = || std::iter::once(slots).chain(to.clone()).chain(next.iter().map(|wish| &wish.to));
        self.standbys.retain(|joined| lists().flatten().any(|server| server.address == joined.address));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::phase::Change;
    use super::*;

    fn list(ports: &[u16]) -> Vec<Endpoint> {
        ports.iter().map(|&port| Endpoint::from(Address::tcp("10.0.0.1", port))).collect()
    }

    fn joined(port: u16) -> Joined {
        Joined {
            address: Address::tcp("10.0.0.1", port),
            since_s: 1,
            why: "full".to_owned(),
            full_percent: 90,
        }
    }

    fn wish(ports: &[u16]) -> Wish {
        Wish { to: list(ports), is_immediate: false }
    }

    /// What a driver makes of the next wish, and the end of it.
    fn begun(state: State) -> State {
        let to = state.next.clone().unwrap().to;
        let (phase, gone) = (Phase::B, BTreeMap::new());
        let change = Change { id: 1, to, phase, reached: phase, is_aborting: false, gone };
        State { next: None, change: Some(change), ..state }
    }

    fn ended(state: State) -> State {
        let slots = state.change.clone().unwrap().to;
        State { slots, change: None, ..state }.pruned()
    }

    /// 1 and 2 are listed, 8 has joined.
    fn with_one() -> State {
        let state = State::new(list(&[1, 2])).join(&list(&[8])[0], joined(8)).unwrap();
        assert_eq!((state.target(), state.listed()), (&*list(&[1, 2, 8]), list(&[1, 2])));
        let state = ended(begun(state));
        assert_eq!(state.standbys, [joined(8)]);
        state
    }

    #[test]
    fn a_standby_server_stays_behind_whatever_is_listed() {
        let state = with_one();
        assert_eq!(state.follow(wish(&[1, 2])), None, "what is listed has not changed");
        let state = state.follow(wish(&[1, 2, 3])).unwrap();
        assert_eq!((state.target(), state.listed()), (&*list(&[1, 2, 3, 8]), list(&[1, 2, 3])));
        // Also while it is only about to join, or while something else is under way.
        let joining = begun(State::new(list(&[1])).join(&list(&[8])[0], joined(8)).unwrap());
        let followed = joining.follow(wish(&[1, 3])).unwrap();
        assert_eq!(followed.target(), list(&[1, 3, 8]));
        assert_eq!(with_one().propose(wish(&[2, 1])).unwrap().target(), list(&[2, 1, 8]));
        assert_eq!(with_one().propose(wish(&[1, 2])), Err(Refused::Same));
    }

    #[test]
    fn one_that_is_listed_is_an_ordinary_server_from_then_on() {
        let state = with_one().follow(wish(&[1, 2, 8])).unwrap();
        assert_eq!((state.next.clone(), state.standbys.len()), (None, 0), "it is where it was");
        assert_eq!(state.leave(&joined(8).address), None);
        let moved = with_one().follow(wish(&[8, 1])).unwrap();
        assert_eq!((moved.target(), moved.standbys.len()), (&*list(&[8, 1]), 0));
    }

    #[test]
    fn one_that_leaves_is_known_as_such_until_it_has_left_and_is_not_brought_back_by_a_list() {
        let leaving = with_one().leave(&joined(8).address).unwrap();
        assert_eq!(leaving.follow(wish(&[1])).unwrap().target(), list(&[1]));
        let leaving = begun(leaving);
        assert!(leaving.is_standby(&joined(8).address));
        // An operator who stops it has it back, still as a standby server.
        let back = leaving.abort().unwrap();
        assert_eq!((back.target(), back.listed()), (&*list(&[1, 2, 8]), list(&[1, 2])));
        assert_eq!(ended(leaving).standbys, []);
    }

    #[test]
    fn nothing_joins_or_leaves_while_something_is_under_way_or_twice() {
        let state = with_one();
        assert_eq!(state.join(&list(&[8])[0], joined(8)), None);
        assert_eq!(state.leave(&list(&[1])[0].address), None);
        let busy = state.join(&list(&[9])[0], joined(9)).unwrap();
        assert_eq!(busy.join(&list(&[7])[0], joined(7)), None);
        assert_eq!(busy.leave(&joined(8).address), None);
        // Nothing of a standby server is left when its joining is taken back.
        assert_eq!(busy.abort().unwrap(), state);
    }

    #[test]
    fn one_that_dies_before_it_serves_is_given_up_and_a_listed_one_is_waited_for() {
        let joining = begun(State::new(list(&[1])).join(&list(&[8])[0], joined(8)).unwrap());
        assert_eq!(joining.give_up(&[list(&[1])[0].address.clone()]), None);
        let joining = joining.follow(wish(&[1, 3])).unwrap();
        let back = joining.give_up(&[joined(8).address]).unwrap();
        assert!(back.change.as_ref().unwrap().is_aborting);
        assert_eq!(back.target(), list(&[1, 3]), "what was listed meanwhile is still wanted");
        let ordinary = begun(State::new(list(&[1])).follow(wish(&[1, 8])).unwrap());
        assert_eq!(ordinary.give_up(&[joined(8).address]), None);
    }
}
