//! A worker's view of the topology, with the connections that are its own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use groove_common::balance::{Dice, Placement};
use groove_common::config;
use groove_common::discovery::{Health, Member, Reader, Snapshot, fresh_dice};
use groove_common::ids::EndpointId;
use smallvec::SmallVec;

use super::changes::{Changes, Running};
use super::connection::Connection;
use super::fleet::Fleet;
use super::plan::{Kind as Program, Plan, Seat, Seats};
use super::{Backend, Kind, Replicas, Servers, Tier, Topology};
use crate::config::{Failover, Read};
use crate::error::Failure;
use crate::hot::Desk;
use crate::program::Node;
use crate::program::replicas::Copies;
use crate::resize::{self, Place, Server};
use crate::route::Route;
use crate::store::Store;

/// What a session gets to send a request with.
pub enum Lease {
    /// This connection.
    Connection {
        /// With room for the request.
        connection: Rc<Connection>,
        /// The request decides whether the server is well again.
        is_trial: bool,
        /// The server stands in for another: nothing may live longer there, in seconds.
        ttl_max_s: Option<i32>,
    },
    /// The embedded store.
    Embedded(Arc<Store>),
    /// No server: the answer is that of one which has nothing and keeps nothing.
    Nothing,
    /// A program: it takes several steps. Boxed, as it is rare.
    Program(Box<Plan>),
    /// Nothing just now: the session is woken when there is room.
    Busy,
    /// Nothing at all.
    Failed(Failure),
}

/// A worker's view. Refreshed at the beginning of each session's turn, at the cost of a look.
pub struct View {
    latest: Cache<Arc<ArcSwap<Topology>>, Arc<Topology>>,
    topology: Arc<Topology>,
    locals: Vec<Local>,
    dice: Dice,
    /// Grows whenever requests may go elsewhere than before.
    generation: Rc<Cell<u64>>,
}

/// A cluster, seen from one worker.
struct Local {
    backend: Arc<Backend>,
    kind: LocalKind,
    /// Clusters with copies of its keys.
    replicas: Option<Arc<Replicas>>,
    /// Keeps what is asked very often.
    hot: Option<Rc<Desk>>,
    /// There is nothing to it but servers: no replicas, no tier behind, no values in parts, no hot keys.
    is_plain: bool,
}

enum LocalKind {
    Servers(LocalServers),
    Embedded(Arc<Store>),
}

struct LocalServers {
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

impl View {
    /// The view of a new worker.
    pub fn new(latest: Arc<ArcSwap<Topology>>) -> Self {
        let topology = latest.load_full();
        let generation = Rc::default();
        let locals = topology.clusters.iter().map(|backend| Local::new(backend, &generation)).collect();
        let mut view = Self { latest: Cache::new(latest), topology, locals, dice: fresh_dice(), generation };
        view.tell_neighbours();
        view
    }

    /// The topology as of the last refresh.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Takes on what is new. To be called at the beginning of each session's turn: all of one turn goes by the
    /// same.
    pub fn refresh(&mut self) {
        let latest = self.latest.load();
        if !Arc::ptr_eq(latest, &self.topology) {
            self.topology = Arc::clone(latest);
            self.rebuild();
        }
        for local in &mut self.locals {
            match &mut local.kind {
                LocalKind::Servers(local) => local.refresh(&mut self.dice, &self.generation),
                LocalKind::Embedded(_) => (),
            }
        }
    }

    /// A new topology. Connections of clusters that stayed stay.
    fn rebuild(&mut self) {
        self.generation.set(self.generation.get() + 1);
        let mut old = std::mem::take(&mut self.locals);
        for backend in &self.topology.clusters {
            let known = old.iter().position(|local| Arc::ptr_eq(&local.backend, backend));
            self.locals.push(
                known.map_or_else(|| Local::new(backend, &self.generation), |index| old.swap_remove(index)),
            );
        }
        old.into_iter().for_each(Local::retire);
        self.tell_neighbours();
    }

    fn tell_neighbours(&mut self) {
        let behind = self.topology.replicas.iter().zip(&self.topology.tiers);
        for (local, (replicas, tier)) in self.locals.iter_mut().zip(behind) {
            local.replicas = replicas.clone();
            let has_chunks = match &local.kind {
                LocalKind::Servers(servers) => servers.servers.chunks.is_some(),
                LocalKind::Embedded(_) => false,
            };
            local.is_plain = replicas.is_none() && tier.is_none() && local.hot.is_none() && !has_chunks;
        }
    }

    /// Which of its decisions are the latest. While it is the same, a key's requests all go the same way.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// The place of a key, that the client calls by `own`.
    pub fn route<'k>(&self, own: &[u8], key: &'k [u8]) -> Route<'k> {
        self.topology.routes.route_renamed(own, key)
    }

    /// The name of the cluster of a key, as the client calls it.
    pub fn cluster_name(&self, own: &[u8]) -> &str {
        let cluster = self.topology.routes.route(own).cluster;
        self.topology.clusters.get(cluster).map_or("", |backend| backend.name())
    }

    /// Is a request for this place one for a server, and no more to it?
    pub fn is_plain(&self, route: Route<'_>) -> bool {
        self.locals.get(route.cluster).is_some_and(|local| local.is_plain)
    }

    /// What to send a request for this place with. A session always gets the same of several connections,
    /// so that its requests stay in order.
    pub fn lease(&mut self, route: Route<'_>, session: usize, waker: &Waker) -> Lease {
        if let Some(Local { replicas: Some(replicas), .. }) = self.locals.get(route.cluster) {
            return self.replicated(route, replicas, session);
        }
        let lease = self.lease_own(route, session, waker);
        if matches!(lease, Lease::Failed(Failure::Down)) {
            return self.lease_gutter(route, session, waker);
        }
        lease
    }

    /// Of the cluster that stands in for the key's own, if there is one.
    fn lease_gutter(&mut self, route: Route<'_>, session: usize, waker: &Waker) -> Lease {
        let ttl_max_s = match self.locals.get(route.cluster).map(|local| &local.kind) {
            Some(LocalKind::Servers(local)) => local.servers.failover_ttl_max_s,
            Some(LocalKind::Embedded(_)) | None => None,
        };
        let Some(gutter) = self.topology.gutters.get(route.cluster).copied().flatten() else {
            return Lease::Failed(Failure::Down);
        };
        let route = self.topology.routes.route_in(gutter, route.part);
        let mut lease = self.lease_own(route, session, waker);
        if let Lease::Connection { ttl_max_s: own, .. } = &mut lease {
            *own = ttl_max_s;
        }
        lease
    }

    fn lease_own(&mut self, route: Route<'_>, session: usize, waker: &Waker) -> Lease {
        let local = match self.locals.get_mut(route.cluster).map(|local| &mut local.kind) {
            Some(LocalKind::Servers(local)) => local,
            Some(LocalKind::Embedded(store)) => return Lease::Embedded(Arc::clone(store)),
            None => return Lease::Failed(Failure::NoServer),
        };
        let agreed = &local.agreed;
        let place = (agreed.view.step > 0).then(|| agreed.view.place(route.part, route.hash));
        let member = match place {
            None => match pick(&local.snapshot, &local.placement.1, &local.servers.failover, route) {
                Ok(None) => return Lease::Nothing,
                Ok(Some(picked)) => Ok(picked),
                Err(failure) => Err(failure),
            },
            Some(Place::One(server)) => {
                let member = admitted(agreed.member(server, &local.snapshot));
                member.map(|member| Picked { member, stands_in: false })
            }
            Some(Place::Nowhere) => Err(Failure::NoServer),
            Some(Place::Moving { phase, old, new, is_new_unread }) => {
                let unread = is_new_unread.then_some(Node::New);
                return local.plan(
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
        let ttl_max_s = local.servers.failover_ttl_max_s.filter(|_| stands_in);
        let is_trial = member.health == Health::Trial;
        let link = local.links.get(member.endpoint.slot).and_then(Option::as_ref);
        match link.and_then(|link| link.of(session)) {
            Some(connection) if connection.is_ready(waker) => {
                Lease::Connection { connection: Rc::clone(connection), is_trial, ttl_max_s }
            }
            Some(_) => Lease::Busy,
            None => Lease::Failed(Failure::NoServer),
        }
    }

    /// A program in which all copies of a key take part.
    fn replicated(&self, route: Route<'_>, replicas: &Replicas, session: usize) -> Lease {
        let Replicas { clusters, configured } = replicas;
        let seat = |(number, cluster): (u8, usize)| match &self.locals.get(cluster)?.kind {
            LocalKind::Servers(local) => local.copy(Node::Replica(number), route, session),
            LocalKind::Embedded(_) => None,
        };
        let numbers = std::iter::once(route.cluster).chain(clusters.iter().copied());
        let seats: Vec<Seat> = (0..).zip(numbers).filter_map(seat).collect();
        let count = u8::try_from(clusters.len() + 1).unwrap_or(u8::MAX);
        let first = match configured.read {
            Read::Main => 0,
            Read::Any => u8::try_from(session % usize::from(count)).unwrap_or_default(),
        };
        let late = configured.hedge.and_then(|percentile| {
            let asked = seats.iter().find(|seat| seat.node == Node::Replica(first))?;
            asked.connection.usual_time(percentile, Instant::now())
        });
        let Some(Local { kind: LocalKind::Servers(main), .. }) = self.locals.get(route.cluster) else {
            return Lease::Failed(Failure::NoServer);
        };
        let kind = Program::Replicas(Copies { count, first }, late);
        let seats = Seats::new(seats, None);
        Lease::Program(Box::new(Plan { kind, seats, running: main.begin() }))
    }

    /// Who keeps hot keys of the cluster of this place, if anybody does.
    pub fn hot(&self, route: Route<'_>) -> Option<&Rc<Desk>> {
        self.locals.get(route.cluster).and_then(|local| local.hot.as_ref())
    }

    /// Who keeps hot keys.
    pub fn desks(&self) -> impl Iterator<Item = &Rc<Desk>> {
        self.locals.iter().filter_map(|local| local.hot.as_ref())
    }

    /// What is behind the cluster of this place.
    pub fn tier(&self, route: Route<'_>) -> Option<&Tier> {
        self.topology.tiers.get(route.cluster).and_then(Option::as_ref)
    }

    /// Is any cluster behind another?
    pub fn is_tiered(&self) -> bool {
        self.topology.tiers.iter().any(Option::is_some)
    }

    /// A program over the key's server in front and the one behind it.
    pub fn lease_tiers(&self, route: Route<'_>, tier: &Tier, key: &[u8], session: usize) -> Lease {
        let front = match self.servers(route.cluster) {
            Ok(front) => front,
            Err(failure) => return Lease::Failed(failure),
        };
        let seat = match front.part(Node::Front, route, session) {
            Ok(seat) => seat,
            Err(failure) => return Lease::Failed(failure),
        };
        // Without the one behind, what is in front can still be read; nothing can be written.
        let behind = self.topology.routes.route_in(tier.cluster, key);
        let behind =
            self.servers(tier.cluster).and_then(|servers| servers.part(Node::Overflow, behind, session));
        let seats = Seats::new([Some(seat), behind.ok()].into_iter().flatten(), None);
        let seats = seats.counting(tier.lost.clone());
        let running = front.begin();
        Lease::Program(Box::new(Plan { kind: Program::Tiers(tier.spill), seats, running }))
    }

    /// The servers of this place's cluster, if values may be in parts there.
    pub fn fleet(&self, route: Route<'_>) -> Option<&Rc<Fleet>> {
        match &self.locals.get(route.cluster)?.kind {
            LocalKind::Servers(local) => local.fleet.as_ref(),
            LocalKind::Embedded(_) => None,
        }
    }

    /// A program over the key's server and those that may have parts of its value.
    pub fn lease_chunks(&self, route: Route<'_>, fleet: &Rc<Fleet>, key: &[u8], session: usize) -> Lease {
        let begun = self.servers(route.cluster).and_then(|local| {
            let seats = Seats::in_parts(fleet, key, session)?;
            Ok(Plan { kind: Program::Chunks(fleet.at()), seats, running: local.begin() })
        });
        begun.map_or_else(Lease::Failed, |plan| Lease::Program(Box::new(plan)))
    }

    fn servers(&self, cluster: usize) -> Result<&LocalServers, Failure> {
        match self.locals.get(cluster).map(|local| &local.kind) {
            Some(LocalKind::Servers(servers)) => Ok(servers),
            Some(LocalKind::Embedded(_)) | None => Err(Failure::NoServer),
        }
    }

    /// Of each cluster whose keys move: something begins that is about all of them.
    pub fn begin_in_changes(&self) -> Vec<Running> {
        let servers = self.locals.iter().filter_map(|local| match &local.kind {
            LocalKind::Servers(servers) => Some(servers),
            LocalKind::Embedded(_) => None,
        });
        let changing = servers.filter(|servers| servers.agreed.view.phase != resize::Phase::Plain);
        changing.map(LocalServers::begin).collect()
    }

    /// A lease for every server and store there is, well or not. `None`: one of them is busy.
    pub fn lease_everyone(&self, session: usize, waker: &Waker) -> Option<Vec<Lease>> {
        let mut leases = Vec::new();
        for local in &self.locals {
            let local = match &local.kind {
                LocalKind::Servers(local) => local,
                LocalKind::Embedded(store) => {
                    leases.push(Lease::Embedded(Arc::clone(store)));
                    continue;
                }
            };
            for connection in local.links.iter().flatten().filter_map(|link| link.of(session)) {
                if !connection.is_ready(waker) {
                    return None;
                }
                let connection = Rc::clone(connection);
                leases.push(Lease::Connection { connection, is_trial: false, ttl_max_s: None });
            }
        }
        Some(leases)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        std::mem::take(&mut self.locals).into_iter().for_each(Local::retire);
    }
}

impl Local {
    fn new(backend: &Arc<Backend>, generation: &Rc<Cell<u64>>) -> Self {
        let kind = match &backend.kind {
            Kind::Servers(servers) => LocalKind::Servers(LocalServers {
                servers: Arc::clone(servers),
                reader: servers.cluster.reader(),
                changes: Changes::enrol(&servers.agreement, Rc::clone(generation)),
                snapshot: Arc::default(),
                agreed: Agreed { view: Arc::new(resize::View::unknown()), seats: Vec::new() },
                placement: (0, Arc::default()),
                links: Vec::new(),
                fleet: None,
            }),
            Kind::Embedded(store) => LocalKind::Embedded(Arc::clone(store)),
        };
        let hot = match &backend.kind {
            Kind::Servers(servers) => servers.hot.as_ref().map(|hot| Desk::new(hot, servers.connections)),
            Kind::Embedded(_) => None,
        };
        Self { backend: Arc::clone(backend), kind, replicas: None, hot, is_plain: false }
    }

    fn retire(self) {
        match self.kind {
            LocalKind::Servers(local) => {
                local.links.iter().flatten().for_each(Link::retire);
                local.changes.retire();
            }
            LocalKind::Embedded(_) => (),
        }
    }
}

impl LocalServers {
    /// Takes on the servers as they are now, with connections to them.
    fn refresh(&mut self, dice: &mut Dice, generation: &Cell<u64>) {
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
    fn begin(&self) -> Running {
        self.changes.begin(self.agreed.view.step)
    }

    /// The part of a key's server in a program.
    fn part(&self, node: Node, route: Route<'_>, session: usize) -> Result<Seat, Failure> {
        let slot = self.placement.1.owner(route.part, route.hash);
        let member = admitted(slot.and_then(|slot| self.snapshot.at_slot(slot)))?;
        self.seat_of(node, member, session).ok_or(Failure::NoServer)
    }

    /// The server of a key that has copies. None while the key moves: copies are not moved.
    fn copy(&self, node: Node, route: Route<'_>, session: usize) -> Option<Seat> {
        let view = &self.agreed.view;
        let member = match view.step {
            0 => {
                let slot = self.placement.1.owner(route.part, route.hash)?;
                self.snapshot.at_slot(slot)
            }
            _ => match view.place(route.part, route.hash) {
                Place::One(server) => self.agreed.member(server, &self.snapshot),
                Place::Moving { .. } | Place::Nowhere => None,
            },
        };
        self.seat_of(node, member?, session)
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
