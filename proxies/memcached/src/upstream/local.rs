//! A cluster's servers, seen from one worker: where its keys live, and the connections there.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use groove_common::balance::{Dice, Placement};
use groove_common::config;
use groove_common::discovery::{Health, Member, Reader, Snapshot};
use groove_common::ids::EndpointId;
use smallvec::SmallVec;

use super::Servers;
use super::changes::{Changes, Running};
use super::connection::Connection;
use super::fleet::Fleet;
use super::plan::{Kind as Program, Plan, Seat, Seats};
use super::view::Lease;
use crate::config::Failover;
use crate::error::Failure;
use crate::program::Node;
use crate::resize::{self, Place, Server};
use crate::route::Route;

/// What one worker knows and has of them.
pub(super) struct LocalServers {
    servers: Arc<Servers>,
    reader: Reader,
    changes: Rc<Changes>,
    /// The servers that `links` and `placement` are of, and `agreed` as well. Of one moment for a whole turn: what
    /// is known by number is looked up in what it was numbered by.
    snapshot: Arc<Snapshot>,
    agreed: Agreed,
    /// Where keys live among these servers, and the set of servers that holds for.
    placement: (u64, Arc<Placement>),
    /// By slot.
    links: Vec<Option<Link>>,
    /// The same of those that are well: all that most requests need to know.
    well: Vec<Option<Link>>,
    /// All of them, if values may be in parts.
    fleet: Option<Rc<Fleet>>,
}

/// What was agreed on with other sidecars, in one piece: a server's number in the view says nothing in another's
/// seats.
struct Agreed {
    view: Arc<resize::View>,
    /// The members of the snapshot that are the view's servers, in its order.
    seats: Vec<Option<usize>>,
}

/// The connections to one server.
#[derive(Clone)]
pub(super) struct Link {
    id: EndpointId,
    connections: SmallVec<[Rc<Connection>; 2]>,
}

impl LocalServers {
    /// The servers of a new worker's view, of which it knows none yet.
    pub(super) fn new(servers: &Arc<Servers>, generation: &Rc<Cell<u64>>) -> Self {
        Self {
            servers: Arc::clone(servers),
            reader: servers.cluster.reader(),
            changes: Changes::enrol(&servers.agreement, Rc::clone(generation)),
            snapshot: Arc::default(),
            agreed: Agreed { view: Arc::new(resize::View::unknown()), seats: Vec::new() },
            placement: (0, Arc::default()),
            links: Vec::new(),
            well: Vec::new(),
            fleet: None,
        }
    }

    /// Its connections are used no more.
    pub(super) fn retire(self) {
        self.links.iter().flatten().for_each(Link::retire);
        self.changes.retire();
    }

    /// What to send a request for this place with.
    pub(super) fn lease(&self, route: Route<'_>, session: usize, waker: &Waker) -> Lease {
        let agreed = &self.agreed;
        let place = (agreed.view.step > 0).then(|| agreed.view.place(route.part, route.hash));
        let member = match place {
            None => match pick(&self.snapshot, &self.placement.1, &self.servers.failover, route) {
                Ok(None) => return Lease::Nothing,
                Ok(Some(picked)) => Ok(picked),
                Err(failure) => Err(failure),
            },
            Some(Place::One(server)) => {
                let member = admitted(agreed.member(server, &self.snapshot));
                member.map(|member| Picked { member, stands_in: false })
            }
            Some(Place::Nowhere) => Err(Failure::NoServer),
            Some(Place::Moving { phase, old, new, is_new_unread }) => {
                let unread = is_new_unread.then_some(Node::New);
                return self.plan(
                    Program::Resize(phase),
                    [(Node::Old, old), (Node::New, new)],
                    unread,
                    session,
                );
            }
        };
        let Picked { member, stands_in } = match member {
            Ok(picked) => picked,
            Err(failure) => return Lease::Failed(failure),
        };
        let ttl_max_s = self.servers.failover_ttl_max_s.filter(|_| stands_in);
        let is_trial = member.health == Health::Trial;
        let link = self.links.get(member.endpoint.slot).and_then(Option::as_ref);
        match link.and_then(|link| link.of(session)) {
            Some(connection) if connection.is_ready(waker) => {
                Lease::Connection { connection: Rc::clone(connection), is_trial, ttl_max_s }
            }
            Some(_) => Lease::Busy,
            None => Lease::Failed(Failure::NoServer),
        }
    }

    /// The connection for a request for this place, if its server is well and the key stays there.
    pub(super) fn plain(&self, route: Route<'_>, session: usize) -> Option<&Rc<Connection>> {
        self.well.get(self.only_slot(route)?)?.as_ref()?.of(session)
    }

    /// The connections to every server there is, well or not, that are this session's.
    pub(super) fn everyone(&self, session: usize) -> impl Iterator<Item = &Rc<Connection>> {
        self.links.iter().flatten().filter_map(move |link| link.of(session))
    }

    /// The servers, if values may be in parts there.
    pub(super) fn fleet(&self) -> Option<&Rc<Fleet>> {
        self.fleet.as_ref()
    }

    /// May values be in parts?
    pub(super) fn has_chunks(&self) -> bool {
        self.servers.chunks.is_some()
    }

    /// How long something may live that a server has for another, in seconds.
    pub(super) fn failover_ttl_max_s(&self) -> Option<i32> {
        self.servers.failover_ttl_max_s
    }

    /// Do keys move?
    pub(super) fn is_changing(&self) -> bool {
        self.agreed.view.phase != resize::Phase::Plain
    }

    /// Takes on the servers as they are now, with connections to them.
    pub(super) fn refresh(&mut self, dice: &mut Dice, generation: &Cell<u64>) {
        let snapshot = self.reader.get();
        if Arc::ptr_eq(snapshot, &self.snapshot) && self.changes.goes_by(&self.agreed.view) {
            return;
        }
        if snapshot.set != self.snapshot.set || self.servers.failover != Failover::None {
            // Keys may have gone elsewhere. A change of step counts by itself.
            generation.set(generation.get() + 1);
        }
        self.snapshot = Arc::clone(snapshot);
        let snapshot = &self.snapshot;
        relink(&mut self.links, snapshot, &self.servers, &self.changes, dice);
        let is_well = |slot| snapshot.at_slot(slot).is_some_and(|member| member.health == Health::Up);
        self.well =
            (0..).zip(&self.links).map(|(slot, link)| link.clone().filter(|_| is_well(slot))).collect();
        if self.placement.0 != snapshot.set {
            self.placement = (snapshot.set, self.servers.placement(snapshot));
        }
        self.agreed = Agreed::new(self.changes.view(), snapshot);
        self.fleet = self.servers.chunks.as_ref().map(|settings| {
            Rc::new(Fleet {
                settings: Arc::clone(settings),
                cluster: Arc::clone(&self.servers.cluster),
                snapshot: Arc::clone(&self.snapshot),
                placement: Arc::clone(&self.placement.1),
                links: self.links.clone(),
                dice: RefCell::new(Dice::seeded(dice.bits())),
            })
        });
    }

    /// A program begins, by what was agreed on as of this turn.
    pub(super) fn begin(&self) -> Running {
        self.changes.begin(self.agreed.view.step)
    }

    /// The part of a key's server in a program.
    pub(super) fn part(&self, node: Node, route: Route<'_>, session: usize) -> Result<Seat, Failure> {
        let slot = self.placement.1.owner(route.part, route.hash);
        let member = admitted(slot.and_then(|slot| self.snapshot.at_slot(slot)))?;
        self.seat_of(node, member, session).ok_or(Failure::NoServer)
    }

    /// The server of a key that has copies. None while the key moves: copies are not moved.
    pub(super) fn copy(&self, node: Node, route: Route<'_>, session: usize) -> Option<Seat> {
        self.seat_of(node, self.snapshot.at_slot(self.only_slot(route)?)?, session)
    }

    /// The slot of a key that does not move.
    fn only_slot(&self, route: Route<'_>) -> Option<usize> {
        let view = &self.agreed.view;
        if view.step == 0 {
            return self.placement.1.owner(route.part, route.hash);
        }
        match view.place(route.part, route.hash) {
            Place::One(server) => Some(self.agreed.member(server, &self.snapshot)?.endpoint.slot),
            Place::Moving { .. } | Place::Nowhere => None,
        }
    }

    fn seat_of(&self, node: Node, member: &Member, session: usize) -> Option<Seat> {
        let connection = self.links.get(member.endpoint.slot)?.as_ref()?.of(session)?;
        Some(Seat {
            node,
            connection: Rc::clone(connection),
            cluster: Arc::clone(&self.servers.cluster),
            endpoint: member.endpoint.id,
        })
    }

    /// A program in which these servers take part.
    fn plan<const N: usize>(
        &self,
        kind: Program,
        parts: [(Node, Server); N],
        unread: Option<Node>,
        session: usize,
    ) -> Lease {
        // A server that is not known takes no part; a program that asks it anyway is told so.
        let seats = parts.into_iter().filter_map(|(node, server)| {
            let member = self.agreed.member(server, &self.snapshot)?;
            self.seat_of(node, member, session)
        });
        let seats = Seats::new(seats, unread);
        Lease::Program(Box::new(Plan { kind, seats, running: self.begin() }))
    }
}

impl Link {
    pub(super) fn of(&self, session: usize) -> Option<&Rc<Connection>> {
        match &self.connections[..] {
            // A division costs more than all else here.
            [only] => Some(only),
            connections => connections.get(session % connections.len().max(1)),
        }
    }

    fn retire(&self) {
        self.connections.iter().for_each(|connection| connection.retire());
    }
}

impl Agreed {
    fn new(view: Arc<resize::View>, snapshot: &Snapshot) -> Self {
        let seat = |server: &config::Endpoint| {
            snapshot.members.iter().position(|member| member.endpoint.address == server.address)
        };
        let seats = view.servers.iter().map(seat).collect();
        Self { view, seats }
    }

    /// A server of the view, as discovery knows it: in the snapshot that the seats are of.
    fn member<'a>(&self, server: Server, snapshot: &'a Snapshot) -> Option<&'a Member> {
        self.seats.get(server.0).copied().flatten().and_then(|index| snapshot.members.get(index))
    }
}

fn admitted(member: Option<&Member>) -> Result<&Member, Failure> {
    let member = member.ok_or(Failure::NoServer)?;
    if member.admits() { Ok(member) } else { Err(Failure::Down) }
}

/// The server for a key.
struct Picked<'s> {
    member: &'s Member,
    /// It is not the key's owner.
    stands_in: bool,
}

/// The server of a key, if it takes requests, or who stands in for it; `None` if nobody does and nobody minds.
fn pick<'s>(
    snapshot: &'s Snapshot,
    placement: &Placement,
    failover: &Failover,
    route: Route<'_>,
) -> Result<Option<Picked<'s>>, Failure> {
    let Route { part, hash, .. } = route;
    let owner = placement.owner(part, hash).and_then(|slot| snapshot.at_slot(slot));
    match (failover, admitted(owner)) {
        (_, Ok(member)) => Ok(Some(Picked { member, stands_in: false })),
        (Failover::None | Failover::Gutter(_), Err(failure)) => Err(failure),
        (Failover::Miss, Err(Failure::Down)) => Ok(None),
        (Failover::Miss, Err(failure)) => Err(failure),
        (Failover::Rehash, Err(failure)) if snapshot.members.is_empty() => Err(failure),
        (Failover::Rehash, Err(_)) => {
            let heir = snapshot.by_key(placement, part, hash).ok_or(Failure::Down)?;
            Ok(Some(Picked { member: heir, stands_in: true }))
        }
    }
}

/// Connections for the servers of `snapshot`: those that were there stay, the others are made or retired.
fn relink(
    links: &mut Vec<Option<Link>>,
    snapshot: &Snapshot,
    servers: &Servers,
    changes: &Changes,
    dice: &mut Dice,
) {
    let mut old: HashMap<EndpointId, Link> = links.drain(..).flatten().map(|link| (link.id, link)).collect();
    links.resize_with(snapshot.slots(), || None);
    for member in &snapshot.members {
        let endpoint = &member.endpoint;
        let link = old.remove(&endpoint.id).unwrap_or_else(|| {
            let connect = |_| {
                let connection = spawn(servers, member, dice);
                changes.watch(&connection);
                connection
            };
            Link { id: endpoint.id, connections: (0..servers.connections).map(connect).collect() }
        });
        if let Some(place) = links.get_mut(endpoint.slot) {
            *place = Some(link);
        }
    }
    old.values().for_each(Link::retire);
}

fn spawn(servers: &Servers, member: &Member, dice: &mut Dice) -> Rc<Connection> {
    let Servers { cluster, settings, metrics, .. } = servers;
    let dice = Dice::seeded(dice.bits());
    Connection::spawn(Arc::clone(cluster), Arc::clone(&member.endpoint), Arc::clone(settings), metrics, dice)
}
