//! What a worker goes by.

use std::collections::BTreeMap;
use std::sync::Arc;

use groove_common::balance::{self, Placement, Rule};
use groove_common::config::Endpoint;
use groove_common::ids::Address;
use serde::{Deserialize, Serialize};

use crate::program::resize as program;

/// How far a change of servers has come. Neighbours (in this order) may be in use at the same time on
/// different sidecars, never others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// No change is under way. In the model A before a change, with the old list, and H after it, with the new
    /// one.
    Plain,
    /// The old server alone, with regard for what the next phase leaves there.
    B,
    /// The old server is a key's home, and both are read.
    C,
    /// The new server is its home, reads fall back to the old one, and keys are moved.
    E,
    /// The new server alone, but writes still delete at the old one.
    F,
}

/// What has become of a server that does not answer during a change, and is not a key's home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gone {
    /// It is no longer read, but writes of its moved keys must still reach it: others may still read it.
    Leaving,
    /// Nobody reads it any more: for moved keys it counts as an empty server that need not be asked.
    Gone,
}

/// A server of a view, by its place in [`View::servers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Server(pub usize);

/// An ordered list of servers, and where keys live among them.
#[derive(Debug, Clone)]
pub struct Slots {
    servers: Vec<Server>,
    placement: Placement,
}

/// The servers of a cluster as of one step, swapped whole.
#[derive(Debug, Clone)]
pub struct View {
    /// Grows with every change that all sidecars must have taken on before the next may come. 0: nothing is
    /// known yet, and nothing may be served.
    pub step: u64,
    /// How far the change is.
    pub phase: Phase,
    /// Every server of either list, each once.
    pub servers: Arc<[Endpoint]>,
    /// The list before the change.
    pub old: Slots,
    /// The list after it; the same while there is none.
    pub new: Slots,
    /// Those that do not answer: old ones in E and F, new ones on the way back in C.
    pub gone: BTreeMap<usize, Gone>,
}

/// Where a key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The cluster has no server, or its list is not known yet.
    Nowhere,
    /// On one server: plain requests.
    One(Server),
    /// It moves: the program of this phase, which is the view's but for servers that are away.
    Moving {
        /// For this key: F for E if its old server is leaving, G for E and F if it is gone.
        phase: program::Phase,
        /// Its server before.
        old: Server,
        /// Its server afterwards.
        new: Server,
        /// The new server does not answer, on the way back from E: an `mg` of any kind that the program sends it
        /// is answered with a miss and not sent. All else is sent.
        is_new_unread: bool,
    },
}

impl Slots {
    /// The servers of `list`, in this order; each of them is in `servers`, which grows by those that are not.
    fn new<'l>(rule: Rule, list: &'l [Endpoint], servers: &mut Vec<Endpoint>) -> Self {
        let place = |(slot, endpoint): (usize, &'l Endpoint)| balance::Place {
            slot,
            address: &endpoint.address,
            name: endpoint.name.as_deref(),
            weight: endpoint.weight,
        };
        let places: Vec<_> = list.iter().enumerate().map(place).collect();
        let placement = Placement::new(rule, &places);
        let mut server = |endpoint: &Endpoint| {
            let known = servers.iter().position(|known| known.address == endpoint.address);
            Server(known.unwrap_or_else(|| {
                servers.push(endpoint.clone());
                servers.len() - 1
            }))
        };
        Self { servers: list.iter().map(&mut server).collect(), placement }
    }

    /// How many slots.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// By slot.
    pub fn iter(&self) -> impl Iterator<Item = Server> + '_ {
        self.servers.iter().copied()
    }

    /// The owner of a key: by the part of it that counts, and its hash.
    pub fn owner(&self, part: &[u8], hash: u64) -> Option<Server> {
        self.placement.owner(part, hash).and_then(|slot| self.servers.get(slot).copied())
    }
}

impl View {
    /// Nothing is known yet.
    pub fn unknown() -> Self {
        Self::plain(Rule::default(), 0, &[])
    }

    /// No change is under way.
    pub fn plain(rule: Rule, step: u64, list: &[Endpoint]) -> Self {
        Self::changing(rule, step, Phase::Plain, list, list, &BTreeMap::new())
    }

    /// From one list to another. `rule` is how keys are spread over either.
    pub fn changing(
        rule: Rule,
        step: u64,
        phase: Phase,
        old: &[Endpoint],
        new: &[Endpoint],
        gone: &BTreeMap<Address, Gone>,
    ) -> Self {
        let mut servers: Vec<Endpoint> = Vec::new();
        let old = Slots::new(rule, old, &mut servers);
        let new = Slots::new(rule, new, &mut servers);
        let mark = |(index, server): (usize, &Endpoint)| Some((index, *gone.get(&server.address)?));
        let gone: BTreeMap<_, _> = servers.iter().enumerate().filter_map(mark).collect();
        Self { step, phase, old, new, gone, servers: servers.into() }
    }

    /// What is known of a server.
    pub fn server(&self, server: Server) -> Option<&Endpoint> {
        self.servers.get(server.0)
    }

    /// Where a key lives, by the part of it that counts, and its hash.
    pub fn place(&self, part: &[u8], hash: u64) -> Place {
        let Some(old) = self.old.owner(part, hash) else { return Place::Nowhere };
        if self.phase == Phase::Plain {
            return Place::One(old);
        }
        match self.new.owner(part, hash) {
            None => Place::Nowhere,
            Some(new) if new == old => Place::One(old),
            Some(new) => self.moving(old, new),
        }
    }

    fn moving(&self, old: Server, new: Server) -> Place {
        let (mark, new_mark) = (self.gone.get(&old.0), self.gone.get(&new.0));
        let phase = match (self.phase, mark) {
            (Phase::Plain, _) => return Place::One(old),
            (Phase::B, _) => program::Phase::B,
            (Phase::C, _) => program::Phase::C,
            (Phase::E, None) => program::Phase::E,
            (Phase::E, Some(Gone::Leaving)) | (Phase::F, None | Some(Gone::Leaving)) => program::Phase::F,
            (Phase::E | Phase::F, Some(Gone::Gone)) => program::Phase::G,
        };
        Place::Moving { phase, old, new, is_new_unread: self.phase == Phase::C && new_mark.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use groove_common::balance::jump;

    use super::*;

    const RULE: Rule = Rule {
        function: balance::Function::Xxh3,
        distribution: balance::Distribution::Jump,
        full_weight: None,
    };

    fn list(ports: &[u16]) -> Vec<Endpoint> {
        ports.iter().map(|&port| Endpoint::from(Address::tcp("10.0.0.1", port))).collect()
    }

    fn port(view: &View, server: Server) -> u16 {
        match &view.server(server).unwrap().address {
            Address::Tcp { port, .. } => *port,
            Address::Unix(_) => panic!(),
        }
    }

    #[test]
    fn nothing_is_served_from_what_is_not_known() {
        assert_eq!(View::unknown().place(b"", 7), Place::Nowhere);
    }

    #[test]
    fn a_plain_view_has_one_server_for_each_key() {
        let view = View::plain(RULE, 3, &list(&[1, 2, 3]));
        for hash in 0..100 {
            let Place::One(server) = view.place(b"", hash) else { panic!() };
            assert_eq!(u64::from(port(&view, server)), jump(hash, 3).unwrap() as u64 + 1);
        }
    }

    #[test]
    fn a_key_moves_if_its_owner_is_another_server_and_not_if_only_its_slot_is() {
        // 2 is replaced in place by 4, and 1 and 3 have changed places.
        let view = View::changing(RULE, 3, Phase::E, &list(&[1, 2, 3]), &list(&[3, 4, 1]), &BTreeMap::new());
        assert_eq!(view.servers.len(), 4);
        for hash in 0..100 {
            let (old, new) = match jump(hash, 3).unwrap() {
                0 => (1, 3),
                1 => (2, 4),
                _ => (3, 1),
            };
            let Place::Moving { phase: program::Phase::E, old: from, new: to, is_new_unread: false } =
                view.place(b"", hash)
            else {
                panic!();
            };
            assert_eq!((port(&view, from), port(&view, to)), (old, new));
        }
        let view = View::changing(RULE, 3, Phase::C, &list(&[1, 2]), &list(&[1, 2]), &BTreeMap::new());
        assert!((0..100).all(|hash| matches!(view.place(b"", hash), Place::One(_))));
    }

    #[test]
    fn a_server_that_is_gone_takes_its_own_keys_on_and_no_others() {
        let (old, new) = (list(&[1, 2]), list(&[3, 4]));
        let mark = |mark| BTreeMap::from([(old[0].address.clone(), mark)]);
        for (gone, expected) in [(Gone::Leaving, program::Phase::F), (Gone::Gone, program::Phase::G)] {
            let view = View::changing(RULE, 3, Phase::E, &old, &new, &mark(gone));
            for hash in 0..100 {
                let Place::Moving { phase, old, .. } = view.place(b"", hash) else { panic!() };
                assert_eq!(phase, if port(&view, old) == 1 { expected } else { program::Phase::E });
            }
        }
        let mark = BTreeMap::from([(new[1].address.clone(), Gone::Leaving)]);
        for phase in [Phase::B, Phase::C] {
            let view = View::changing(RULE, 3, phase, &old, &new, &mark);
            for hash in 0..100 {
                let Place::Moving { new, is_new_unread, .. } = view.place(b"", hash) else { panic!() };
                assert_eq!(is_new_unread, phase == Phase::C && port(&view, new) == 4);
            }
        }
    }
}
