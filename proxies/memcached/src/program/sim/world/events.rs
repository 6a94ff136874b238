//! Everything that may happen next.

use super::super::client::{KEY, Stage};
use super::World;
use super::net::{Mail, Net};
use crate::program::resize::Phase;

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::program::sim) enum Event {
    Ask { client: usize },
    Move { sidecar: usize },
    Execute { mail: usize },
    Reply { mail: usize },
    GiveUp { mail: usize },
    Break { sidecar: usize, server: usize },
    Restart { server: usize },
    Evict { server: usize },
    Fill { server: usize },
    Tick,
    Forward { sidecar: usize },
    Back { sidecar: usize },
}

/// How often things may go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::program::sim) struct Troubles {
    pub(in crate::program::sim) give_ups: usize,
    pub(in crate::program::sim) breaks: usize,
    pub(in crate::program::sim) restarts: usize,
    pub(in crate::program::sim) evictions: usize,
    pub(in crate::program::sim) fills: usize,
    pub(in crate::program::sim) ticks: usize,
    pub(in crate::program::sim) backs: usize,
    pub(in crate::program::sim) moves: usize,
}

impl World {
    /// Every event that is possible now, the ordinary ones first.
    pub(in crate::program::sim) fn events(&self) -> Vec<Event> {
        let net = self.net.borrow();
        let mut events = Vec::new();
        for (client, state) in self.clients.iter().enumerate() {
            if !state.is_busy && state.left > 0 {
                events.push(Event::Ask { client });
            }
        }
        for (mail, letter) in net.mail.iter().enumerate() {
            match (&letter.reply, &letter.slot) {
                (None, _) => events.push(Event::Execute { mail }),
                (Some(_), Some(_)) => events.push(Event::Reply { mail }),
                (Some(_), None) => (),
            }
        }
        for sidecar in 0..self.places.len() {
            if self.may_go_on(sidecar, &net) {
                events.push(Event::Forward { sidecar });
            }
        }
        self.troubles(&net, &mut events);
        events
    }

    fn troubles(&self, net: &Net, events: &mut Vec<Event>) {
        let Troubles { give_ups, breaks, restarts, evictions, fills, ticks, backs, moves } = self.troubles;
        for (mail, letter) in net.mail.iter().enumerate() {
            if give_ups > 0 && letter.slot.is_some() {
                events.push(Event::GiveUp { mail });
            }
        }
        for sidecar in 0..self.places.len() {
            if moves > 0 && self.may_move(sidecar) {
                events.push(Event::Move { sidecar });
            }
            if backs > 0 && self.may_go_back(sidecar) {
                events.push(Event::Back { sidecar });
            }
            for server in 0..2 {
                if breaks > 0 {
                    events.push(Event::Break { sidecar, server });
                }
            }
        }
        for server in 0..2 {
            let kinds = [
                (restarts, Event::Restart { server }),
                (evictions, Event::Evict { server }),
                (fills, Event::Fill { server }),
            ];
            events.extend(kinds.into_iter().filter(|(left, _)| *left > 0).map(|(_, event)| event));
        }
        if ticks > 0 {
            events.push(Event::Tick);
        }
    }

    fn is_idle(&self, sidecar: usize) -> bool {
        !self.running.iter().any(|running| running.sidecar == sidecar)
    }

    fn may_go_on(&self, sidecar: usize, net: &Net) -> bool {
        let place = self.places[sidecar];
        let Some(next) = self.plan.get(place + 1) else { return false };
        let mut own = net.mail.iter().filter(|mail| mail.sidecar == sidecar && mail.reply.is_none());
        let is_clear = match next {
            // What is still to be stored at old blindly may not come when others rely on it.
            Stage::Moving(Phase::C) => !own.any(Mail::is_unconditional),
            // F lasts longer than stubs live.
            Stage::H => {
                let mut net_servers = net.servers.clone();
                !net.mail.iter().any(|mail| mail.reply.is_none() && mail.makes_stub())
                    && !net_servers
                        .iter_mut()
                        .any(|server| server.item(KEY).is_some_and(|item| item.is_stub()))
            }
            Stage::A | Stage::Moving(Phase::B | Phase::E | Phase::F | Phase::G) => true,
        };
        is_clear && self.is_idle(sidecar) && self.places.iter().all(|other| *other >= place)
    }

    fn may_go_back(&self, sidecar: usize) -> bool {
        self.places[sidecar] > 0
            && self.stage(sidecar) == Stage::Moving(Phase::E)
            && self.is_idle(sidecar)
            && self.places.iter().all(|other| *other <= self.places[sidecar])
            && !self.running.iter().any(|running| running.client.is_none())
    }

    fn may_move(&self, sidecar: usize) -> bool {
        let in_e = |place: &usize| self.plan[*place] == Stage::Moving(Phase::E);
        let not_in_c = |place: &usize| self.plan[*place] > Stage::Moving(Phase::C);
        in_e(&self.places[sidecar]) && self.places.iter().all(not_in_c)
    }
}
