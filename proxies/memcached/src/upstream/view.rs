//! A worker's view of the topology, with the connections that are its own.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use arc_swap::{ArcSwap, Cache};
use groove_common::balance::{Dice, jump};
use groove_common::discovery::{Health, Member, Reader, Snapshot, fresh_dice};
use groove_common::ids::EndpointId;
use smallvec::SmallVec;

use super::connection::Connection;
use super::embedded::Store;
use super::{Backend, Kind, Servers, Topology};
use crate::config::Failover;
use crate::error::Failure;
use crate::route::Route;

/// What a session gets to send a request with.
pub enum Lease {
    /// This connection.
    Connection {
        /// With room for the request.
        connection: Rc<Connection>,
        /// The request decides whether the server is well again.
        is_trial: bool,
    },
    /// The embedded store.
    Embedded(Arc<Store>),
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
}

/// A cluster, seen from one worker.
struct Local {
    backend: Arc<Backend>,
    kind: LocalKind,
}

enum LocalKind {
    Servers(LocalServers),
    Embedded(Arc<Store>),
}

struct LocalServers {
    servers: Arc<Servers>,
    reader: Reader,
    /// The generation that `links` are of.
    generation: Option<u64>,
    /// By slot.
    links: Vec<Option<Link>>,
}

/// The connections to one server.
#[derive(Clone)]
struct Link {
    id: EndpointId,
    connections: SmallVec<[Rc<Connection>; 2]>,
}

impl View {
    /// The view of a new worker.
    pub fn new(latest: Arc<ArcSwap<Topology>>) -> Self {
        let topology = latest.load_full();
        let locals = topology.clusters.iter().map(Local::new).collect();
        Self { latest: Cache::new(latest), topology, locals, dice: fresh_dice() }
    }

    /// The topology as of the last refresh.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Takes a new topology on, if there is one. Connections of clusters that stayed stay.
    pub fn refresh(&mut self) {
        let latest = self.latest.load();
        if Arc::ptr_eq(latest, &self.topology) {
            return;
        }
        self.topology = Arc::clone(latest);
        let mut old = std::mem::take(&mut self.locals);
        for backend in &self.topology.clusters {
            let known = old.iter().position(|local| Arc::ptr_eq(&local.backend, backend));
            self.locals.push(known.map_or_else(|| Local::new(backend), |index| old.swap_remove(index)));
        }
        old.into_iter().for_each(Local::retire);
    }

    /// The place of a key.
    pub fn route(&self, key: &[u8]) -> Route {
        self.topology.routes.route(key)
    }

    /// What to send a request for this place with. A session always gets the same of several connections,
    /// so that its requests stay in order.
    pub fn lease(&mut self, route: Route, session: usize, waker: &Waker) -> Lease {
        let local = match self.locals.get_mut(route.cluster).map(|local| &mut local.kind) {
            Some(LocalKind::Servers(local)) => local,
            Some(LocalKind::Embedded(store)) => return Lease::Embedded(Arc::clone(store)),
            None => return Lease::Failed(Failure::NoServer),
        };
        let failover = local.servers.failover;
        let (snapshot, links) = local.latest(&mut self.dice);
        let member = match pick(snapshot, failover, route.hash) {
            Ok(member) => member,
            Err(failure) => return Lease::Failed(failure),
        };
        let is_trial = member.health == Health::Trial;
        let link = links.get(member.endpoint.slot).and_then(Option::as_ref);
        match link.and_then(|link| link.of(session)) {
            Some(connection) if connection.is_ready(waker) => {
                Lease::Connection { connection: Rc::clone(connection), is_trial }
            }
            Some(_) => Lease::Busy,
            None => Lease::Failed(Failure::NoServer),
        }
    }

    /// A lease for every server and store there is, well or not. `None`: one of them is busy.
    pub fn lease_everyone(&mut self, session: usize, waker: &Waker) -> Option<Vec<Lease>> {
        let mut leases = Vec::new();
        for local in &mut self.locals {
            let local = match &mut local.kind {
                LocalKind::Servers(local) => local,
                LocalKind::Embedded(store) => {
                    leases.push(Lease::Embedded(Arc::clone(store)));
                    continue;
                }
            };
            let (_, links) = local.latest(&mut self.dice);
            for connection in links.iter().flatten().filter_map(|link| link.of(session)) {
                if !connection.is_ready(waker) {
                    return None;
                }
                leases.push(Lease::Connection { connection: Rc::clone(connection), is_trial: false });
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
    fn new(backend: &Arc<Backend>) -> Self {
        let kind = match &backend.kind {
            Kind::Servers(servers) => LocalKind::Servers(LocalServers {
                servers: Arc::clone(servers),
                reader: servers.cluster.reader(),
                generation: None,
                links: Vec::new(),
            }),
            Kind::Embedded(store) => LocalKind::Embedded(Arc::clone(store)),
        };
        Self { backend: Arc::clone(backend), kind }
    }

    fn retire(self) {
        match self.kind {
            LocalKind::Servers(local) => local.links.iter().flatten().for_each(Link::retire),
            LocalKind::Embedded(_) => (),
        }
    }
}

impl LocalServers {
    /// The servers as they are now, and the connections to them.
    fn latest(&mut self, dice: &mut Dice) -> (&Snapshot, &[Option<Link>]) {
        let snapshot = self.reader.get();
        if self.generation != Some(snapshot.generation) {
            self.generation = Some(snapshot.generation);
            relink(&mut self.links, snapshot, &self.servers, dice);
        }
        (snapshot, &self.links)
    }
}

impl Link {
    fn of(&self, session: usize) -> Option<&Rc<Connection>> {
        self.connections.get(session % self.connections.len().max(1))
    }

    fn retire(&self) {
        self.connections.iter().for_each(|connection| connection.retire());
    }
}

/// The server of a key, if it takes requests.
fn pick(snapshot: &Snapshot, failover: Failover, hash: u64) -> Result<&Member, Failure> {
    match failover {
        Failover::None => {
            let owner = jump(hash, snapshot.slots()).and_then(|slot| snapshot.at_slot(slot));
            let member = owner.ok_or(Failure::NoServer)?;
            if member.admits() { Ok(member) } else { Err(Failure::Down) }
        }
        Failover::Rehash if snapshot.slots() == 0 => Err(Failure::NoServer),
        Failover::Rehash => snapshot.by_hash(hash).ok_or(Failure::Down),
    }
}

/// Connections for the servers of `snapshot`: those that were there stay, the others are made or retired.
fn relink(links: &mut Vec<Option<Link>>, snapshot: &Snapshot, servers: &Servers, dice: &mut Dice) {
    let mut old: HashMap<EndpointId, Link> = links.drain(..).flatten().map(|link| (link.id, link)).collect();
    links.resize_with(snapshot.slots(), || None);
    for member in &snapshot.members {
        let endpoint = &member.endpoint;
        let link = old.remove(&endpoint.id).unwrap_or_else(|| {
            let connect = |_| spawn(servers, member, dice);
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
    Connection::spawn(
        Arc::clone(cluster),
        Arc::clone(&member.endpoint),
        Arc::clone(settings),
        metrics.clone(),
        dice,
    )
}
