//! A worker's view of the topology, with the connections that are its own.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use arc_swap::{ArcSwap, Cache};
use groove_common::balance::{Dice, jump};
use groove_common::discovery::{Cluster, Health, Member, Reader, Snapshot, fresh_dice};
use groove_common::ids::EndpointId;
use smallvec::SmallVec;

use super::connection::{Connection, Settings};
use super::embedded::Store;
use super::{Backend, Kind, Servers, Topology};
use crate::config::Failover;
use crate::error::Failure;
use crate::metrics::UpstreamMetrics;
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
    /// None for the embedded store.
    servers: Option<LocalServers>,
}

struct LocalServers {
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
        let Some(local) = self.locals.get_mut(route.cluster) else { return Lease::Failed(Failure::NoServer) };
        let (servers, local) = match (&local.backend.kind, &mut local.servers) {
            (Kind::Servers(servers), Some(local)) => (servers, local),
            (Kind::Embedded(store), _) => return Lease::Embedded(Arc::clone(store)),
            (Kind::Servers(_), None) => return Lease::Failed(Failure::NoServer),
        };
        let snapshot = local.reader.get();
        if local.generation != Some(snapshot.generation) {
            local.generation = Some(snapshot.generation);
            let snapshot = Arc::clone(snapshot);
            relink(&mut local.links, &snapshot, servers, &mut self.dice);
        }
        let member = match pick(local.reader.get(), servers.failover, route.hash) {
            Ok(member) => member,
            Err(failure) => return Lease::Failed(failure),
        };
        let is_trial = member.health == Health::Trial;
        let link = local.links.get(member.endpoint.slot).and_then(Option::as_ref);
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
            let (servers, local) = match (&local.backend.kind, &mut local.servers) {
                (Kind::Servers(servers), Some(local)) => (servers, local),
                (Kind::Embedded(store), _) => {
                    leases.push(Lease::Embedded(Arc::clone(store)));
                    continue;
                }
                (Kind::Servers(_), None) => continue,
            };
            let snapshot = Arc::clone(local.reader.get());
            if local.generation != Some(snapshot.generation) {
                local.generation = Some(snapshot.generation);
                relink(&mut local.links, &snapshot, servers, &mut self.dice);
            }
            for connection in local.links.iter().flatten().filter_map(|link| link.of(session)) {
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
        let servers = match &backend.kind {
            Kind::Servers(servers) => {
                Some(LocalServers { reader: servers.cluster.reader(), generation: None, links: Vec::new() })
            }
            Kind::Embedded(_) => None,
        };
        Self { backend: Arc::clone(backend), servers }
    }

    fn retire(self) {
        for link in self.servers.into_iter().flat_map(|servers| servers.links).flatten() {
            link.retire();
        }
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
            let connect = |_| {
                let Servers { cluster, settings, metrics, .. } = servers;
                spawn(cluster, member, settings, metrics, dice)
            };
            Link { id: endpoint.id, connections: (0..servers.connections).map(connect).collect() }
        });
        if let Some(place) = links.get_mut(endpoint.slot) {
            *place = Some(link);
        }
    }
    old.values().for_each(Link::retire);
}

fn spawn(
    cluster: &Arc<Cluster>,
    member: &Member,
    settings: &Arc<Settings>,
    metrics: &UpstreamMetrics,
    dice: &mut Dice,
) -> Rc<Connection> {
    let dice = Dice::seeded(dice.bits());
    Connection::spawn(
        Arc::clone(cluster),
        Arc::clone(&member.endpoint),
        Arc::clone(settings),
        metrics.clone(),
        dice,
    )
}
