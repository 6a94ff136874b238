//! A worker's view of the topology, with the connections that are its own.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use groove_common::balance::Dice;
use groove_common::discovery::fresh_dice;

use super::changes::Running;
use super::connection::Connection;
use super::fleet::Fleet;
use super::local::LocalServers;
use super::plan::{Kind as Program, Plan, Seat, Seats};
use super::{Backend, Kind, Replicas, Tier, Topology};
use crate::config::Read;
use crate::error::Failure;
use crate::hot::Desk;
use crate::program::Node;
use crate::program::replicas::Copies;
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
    /// Where its keys live is all there is to it: no replicas, no tier behind, no values in parts, no hot keys. What
    /// is asked for each request, told once.
    is_plain: bool,
}

enum LocalKind {
    Servers(LocalServers),
    Embedded(Arc<Store>),
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
                LocalKind::Servers(servers) => servers.has_chunks(),
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

    /// The connection for a request for this place, if there is no more to it than its server, and that is well.
    pub fn plain(&self, route: Route<'_>, session: usize) -> Option<&Rc<Connection>> {
        match self.locals.get(route.cluster)? {
            Local { is_plain: true, kind: LocalKind::Servers(local), .. } => local.plain(route, session),
            Local { .. } => None,
        }
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
            Some(LocalKind::Servers(local)) => local.failover_ttl_max_s(),
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
        let local = match self.locals.get(route.cluster).map(|local| &local.kind) {
            Some(LocalKind::Servers(local)) => local,
            Some(LocalKind::Embedded(store)) => return Lease::Embedded(Arc::clone(store)),
            None => return Lease::Failed(Failure::NoServer),
        };
        local.lease(route, session, waker)
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
        Lease::Program(Box::new(Plan { kind: Program::Tiers, seats, running }))
    }

    /// The servers of this place's cluster, if values may be in parts there.
    pub fn fleet(&self, route: Route<'_>) -> Option<&Rc<Fleet>> {
        match &self.locals.get(route.cluster)?.kind {
            LocalKind::Servers(local) => local.fleet(),
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
        let changing = servers.filter(|servers| servers.is_changing());
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
            for connection in local.everyone(session) {
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
            Kind::Servers(servers) => LocalKind::Servers(LocalServers::new(servers, generation)),
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
            LocalKind::Servers(local) => local.retire(),
            LocalKind::Embedded(_) => (),
        }
    }
}
