//! The servers behind one name: sources, probes and reports come in, snapshots go out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::config;
use crate::health::{Change, Verdict};
use crate::ids::{Address, EndpointId};

use super::clock::{Clock, fresh_dice};
use super::endpoint::{Endpoint, Outcome};
use super::probe::{self, ProbeError, ProbeTimes, Prober};
use super::registry::{Registry, Rules};
use super::snapshot::Snapshot;
use super::source::{Found, Source, SourceError, Static, from_config};
use super::status::ClusterStatus;
use super::welcome::{self, Welcome, Welcomed};

/// The servers behind one name. Its tasks end when the last `Arc` goes.
pub struct Cluster {
    me: Weak<Self>,
    name: String,
    clock: Clock,
    registry: Mutex<Registry>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    generation: watch::Sender<u64>,
    /// The breakers' next wake-up may have moved.
    wake: Arc<Notify>,
    prober: Mutex<Arc<dyn Prober>>,
    welcome: Mutex<Option<Arc<dyn Welcome>>>,
    /// Welcomes under way.
    welcomes: Mutex<HashMap<EndpointId, AbortOnDropHandle<()>>>,
    probes: Mutex<Probes>,
    origin: Mutex<Origin>,
    /// Counts the sources followed: what an earlier one still says is not heard.
    sources: AtomicU64,
    runtime: Handle,
    /// Ends with the cluster.
    timekeeper: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Default)]
struct Probes {
    times: Option<ProbeTimes>,
    tasks: HashMap<EndpointId, AbortOnDropHandle<()>>,
}

/// Where the endpoints come from.
struct Origin {
    description: String,
    /// As configured; `None` for a source that a proxy made itself.
    configured: Option<config::Endpoints>,
    task: Option<AbortOnDropHandle<()>>,
}

/// A changed configuration of a cluster, ready to be taken.
#[must_use = "nothing changes before it is applied"]
pub struct Update {
    cluster: Arc<Cluster>,
    /// If it is another one.
    source: Option<(Box<dyn Source>, config::Endpoints)>,
    health: config::Health,
}

impl Update {
    /// Takes it on, which cannot fail: a reload of several clusters happens to all of them or to none.
    /// Endpoints that stay keep everything; a source that did not change goes on undisturbed.
    pub fn apply(self) {
        let Self { cluster, source, health } = self;
        let _context = cluster.runtime.enter();
        cluster.take_rules(&health);
        if let Some((source, configured)) = source {
            cluster.follow(source, Some(configured));
        }
    }
}

/// A worker's own view of the latest snapshot: one atomic load while nothing changes.
pub struct Reader(Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>);

impl Reader {
    /// The latest snapshot.
    pub fn get(&mut self) -> &Arc<Snapshot> {
        self.0.load()
    }
}

impl Cluster {
    /// A cluster as configured. What a source knows without waiting (a list, a file) is
    /// there on return; DNS follows, see [`Cluster::ready`].
    pub fn start(
        name: impl Into<String>,
        endpoints: &config::Endpoints,
        health: &config::Health,
        prober: Arc<dyn Prober>,
        runtime: &Handle,
    ) -> Result<Arc<Self>, SourceError> {
        let _context = runtime.enter();
        let source = from_config(endpoints)?;
        let cluster = Self::with_source(name, source, health, prober, runtime);
        cluster.origin.lock().configured = Some(endpoints.clone());
        Ok(cluster)
    }

    /// As [`Cluster::start`] for a list, which cannot fail. Of any other source nothing is known.
    pub fn of_list(
        name: impl Into<String>,
        endpoints: &config::Endpoints,
        health: &config::Health,
        prober: Arc<dyn Prober>,
        runtime: &Handle,
    ) -> Arc<Self> {
        let list = match endpoints {
            config::Endpoints::Static(list) => list.clone(),
            config::Endpoints::Dns(_)
            | config::Endpoints::Elasticache(_)
            | config::Endpoints::File(_)
            | config::Endpoints::Embedded(_) => Vec::new(),
        };
        let cluster = Self::with_source(name, Box::new(Static(list)), health, prober, runtime);
        cluster.origin.lock().configured = Some(endpoints.clone());
        cluster
    }

    /// A cluster whose endpoints come from a source of the proxy's own making.
    pub fn with_source(
        name: impl Into<String>,
        source: Box<dyn Source>,
        health: &config::Health,
        prober: Arc<dyn Prober>,
        runtime: &Handle,
    ) -> Arc<Self> {
        let _context = runtime.enter();
        let cluster = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            name: name.into(),
            clock: Clock::start(),
            registry: Mutex::new(Registry::new(Rules::from(health))),
            snapshot: Arc::default(),
            generation: watch::Sender::new(0),
            wake: Arc::default(),
            prober: Mutex::new(prober),
            welcome: Mutex::new(None),
            welcomes: Mutex::default(),
            probes: Mutex::new(Probes { times: probe_times(health), tasks: HashMap::new() }),
            origin: Mutex::new(Origin { description: String::new(), configured: None, task: None }),
            sources: AtomicU64::new(0),
            runtime: runtime.clone(),
            timekeeper: Mutex::new(None),
        });
        cluster.follow(source, None);
        let timekeeper = keep_time(Arc::downgrade(&cluster), Arc::clone(&cluster.wake));
        *cluster.timekeeper.lock() = Some(AbortOnDropHandle::new(runtime.spawn(timekeeper)));
        cluster
    }

    /// Does all of a changed configuration that may fail. On an error nothing has changed.
    pub fn prepare(
        self: &Arc<Self>,
        endpoints: &config::Endpoints,
        health: &config::Health,
    ) -> Result<Update, SourceError> {
        let _context = self.runtime.enter();
        let changed = self.origin.lock().configured.as_ref() != Some(endpoints);
        let source = if changed { Some((from_config(endpoints)?, endpoints.clone())) } else { None };
        Ok(Update { cluster: Arc::clone(self), source, health: health.clone() })
    }

    /// As [`Cluster::prepare`] for a cluster that is told its endpoints by [`Cluster::set_endpoints`].
    pub fn prepare_health(self: &Arc<Self>, health: &config::Health) -> Update {
        Update { cluster: Arc::clone(self), source: None, health: health.clone() }
    }

    /// These are the endpoints now. For a cluster whose source is a [`Told`](super::Told), or they hold until
    /// the source speaks.
    pub fn set_endpoints(self: &Arc<Self>, endpoints: Vec<config::Endpoint>) {
        let source = self.sources.load(Ordering::SeqCst);
        let _context = self.runtime.enter();
        self.apply(&Found { endpoints, may_be_empty: true }, source);
    }

    /// Probes with another prober from now on: its certificates, say, have changed.
    pub fn set_prober(&self, prober: Arc<dyn Prober>) {
        *self.prober.lock() = prober;
    }

    /// These endpoints, and no others, get no new exchanges, there or not; those that have begun go on.
    pub fn set_drained(&self, drained: BTreeSet<Address>) {
        let mut registry = self.registry.lock();
        if registry.set_drained(drained) {
            self.publish(&mut registry);
        }
    }

    /// From now on a server that was away is welcomed like this before it takes traffic; `None`: it need not be.
    pub fn set_welcome(&self, welcome: Option<Arc<dyn Welcome>>) {
        let mut registry = self.registry.lock();
        registry.set_welcomes(welcome.is_some());
        *self.welcome.lock() = welcome;
        self.publish(&mut registry);
    }

    pub(super) fn welcome(&self) -> Option<Arc<dyn Welcome>> {
        self.welcome.lock().clone()
    }

    pub(super) fn on_welcome(&self, endpoint: &Endpoint, result: Result<(), ProbeError>) -> Welcomed {
        let mut registry = self.registry.lock();
        let welcomed = registry.on_welcome(endpoint.id, self.clock.now(), result.is_ok());
        self.publish(&mut registry);
        drop(registry);
        self.wake.notify_one();
        match result {
            Ok(()) => info!(cluster = self.name, endpoint = %endpoint.address, "welcomed back"),
            Err(reason) => {
                warn!(cluster = self.name, endpoint = %endpoint.address, %reason, "not fit to come back yet");
            }
        }
        welcomed
    }

    pub(super) fn prober(&self) -> Arc<dyn Prober> {
        Arc::clone(&self.prober.lock())
    }

    /// As configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This cluster's time, for picks from its snapshots.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// The latest snapshot. Workers on a hot path keep a [`Reader`] instead.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// A cached view for one worker.
    pub fn reader(&self) -> Reader {
        Reader(Cache::new(Arc::clone(&self.snapshot)))
    }

    /// Waits for a snapshot newer than `seen` and returns its generation.
    pub async fn changed(&self, seen: u64) -> u64 {
        let mut generations = self.generation.subscribe();
        let generation =
            generations.wait_for(|&generation| generation > seen).await.map(|generation| *generation);
        match generation {
            Ok(generation) => generation,
            // The sender lives in `self`.
            Err(_) => pending().await,
        }
    }

    /// Waits until endpoints were found for the first time.
    pub async fn ready(&self) {
        self.changed(0).await;
    }

    /// An exchange with `endpoint` ended. Cheap while all is well.
    pub fn report(&self, endpoint: &Endpoint, outcome: Outcome) {
        let now = self.clock.now();
        endpoint.count(now, outcome);
        let success = match outcome {
            Outcome::Success { .. } => true,
            Outcome::Failure => false,
        };
        if success && !endpoint.watched.load(Ordering::Relaxed) {
            return;
        }
        let mut registry = self.registry.lock();
        let Some(change) = registry.on_outcome(endpoint.id, now, success) else { return };
        self.publish(&mut registry);
        drop(registry);
        match change {
            Change::Ejected { until } => warn!(
                cluster = self.name,
                endpoint = %endpoint.address,
                seconds = until.saturating_sub(now).as_secs_f64(),
                "ejected after failures in a row"
            ),
            Change::Recovered => info!(cluster = self.name, endpoint = %endpoint.address, "recovered"),
            Change::HalfOpened => {}
        }
        self.wake.notify_one();
    }

    /// Ejects an endpoint that fails too often beside the others, as long as no more than this share of them is out. It
    /// comes back as any that was ejected does. Whether it was.
    pub fn eject(&self, endpoint: &Endpoint, max_share: f64) -> bool {
        let now = self.clock.now();
        let mut registry = self.registry.lock();
        let Some(Change::Ejected { until }) = registry.on_outlier(endpoint.id, now, max_share) else {
            return false;
        };
        self.publish(&mut registry);
        drop(registry);
        let seconds = until.saturating_sub(now).as_secs_f64();
        warn!(
            cluster = self.name,
            endpoint = %endpoint.address,
            seconds,
            "ejected: it fails more often than the others"
        );
        self.wake.notify_one();
        true
    }

    /// Everything known, for the admin API.
    pub fn status(&self) -> ClusterStatus {
        ClusterStatus {
            name: self.name.clone(),
            generation: *self.generation.borrow(),
            source: self.origin.lock().description.clone(),
            endpoints: self.registry.lock().status(self.clock.now()),
        }
    }

    pub(super) fn on_probe(&self, endpoint: &Endpoint, result: Result<(), ProbeError>) {
        let reason = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let mut registry = self.registry.lock();
        let verdict = registry.on_probe(endpoint.id, self.clock.now(), result);
        let Some(verdict) = verdict else { return };
        self.publish(&mut registry);
        drop(registry);
        match verdict {
            Verdict::Down => {
                warn!(cluster = self.name, endpoint = %endpoint.address, reason, "down by its probes");
            }
            Verdict::Up => info!(cluster = self.name, endpoint = %endpoint.address, "up by its probes"),
            Verdict::Unknown => {}
        }
    }

    /// Listens to `source` from now on, and to no other. What is known stays until it speaks.
    fn follow(self: &Arc<Self>, mut source: Box<dyn Source>, configured: Option<config::Endpoints>) {
        let description = source.describe();
        // The task that is aborted here may be at its last answer.
        let number = self.sources.fetch_add(1, Ordering::SeqCst) + 1;
        drop(self.origin.lock().task.take());
        if let Some(found) = source.initial() {
            self.apply(&found, number);
        }
        let cluster = Arc::downgrade(self);
        let task = self.runtime.spawn(async move {
            loop {
                let found = source.next().await;
                match cluster.upgrade() {
                    Some(cluster) => cluster.apply(&found, number),
                    None => return,
                }
            }
        });
        let task = Some(AbortOnDropHandle::new(task));
        *self.origin.lock() = Origin { description, configured, task };
    }

    fn apply(self: &Arc<Self>, found: &Found, source: u64) {
        let mut registry = self.registry.lock();
        if self.sources.load(Ordering::SeqCst) != source {
            return;
        }
        let Some(delta) = registry.apply(found, self.clock.now()) else {
            warn!(cluster = self.name, "the source knows of no endpoint; keeping those there are");
            return;
        };
        if delta.is_empty() && self.snapshot.load().generation > 0 {
            return;
        }
        self.publish(&mut registry);
        let vacancies = registry.vacancies();
        drop(registry);
        for endpoint in &delta.left {
            info!(cluster = self.name, endpoint = %endpoint.address, slot = endpoint.slot, "left");
        }
        for endpoint in &delta.joined {
            info!(cluster = self.name, endpoint = %endpoint.address, slot = endpoint.slot, "joined");
        }
        if vacancies > 0 && !delta.left.is_empty() {
            warn!(
                cluster = self.name,
                vacancies,
                "slots in the middle are vacant: replace a server in place rather than removing it"
            );
        }
        self.tend_probes();
    }

    fn take_rules(self: &Arc<Self>, health: &config::Health) {
        let times = probe_times(health);
        let mut registry = self.registry.lock();
        registry.set_rules(Rules::from(health));
        if times.is_none() {
            registry.forget_probes();
        }
        self.publish(&mut registry);
        drop(registry);
        let mut probes = self.probes.lock();
        if probes.times != times {
            *probes = Probes { times, tasks: HashMap::new() };
        }
        drop(probes);
        self.tend_probes();
        self.wake.notify_one();
    }

    /// One probing task for each endpoint there is, none for those that left.
    fn tend_probes(self: &Arc<Self>) {
        let endpoints: Vec<_> = self.registry.lock().endpoints().map(Arc::clone).collect();
        let present: HashSet<_> = endpoints.iter().map(|endpoint| endpoint.id).collect();
        let mut probes = self.probes.lock();
        probes.tasks.retain(|id, _| present.contains(id));
        let Some(times) = probes.times else { return };
        for endpoint in endpoints {
            probes.tasks.entry(endpoint.id).or_insert_with(|| {
                let task = probe::run(Arc::downgrade(self), endpoint, times, fresh_dice());
                AbortOnDropHandle::new(self.runtime.spawn(task))
            });
        }
    }

    /// Under the registry's lock, so that snapshots come out in the order of their generations.
    fn publish(&self, registry: &mut Registry) {
        let snapshot = registry.next_snapshot();
        let generation = snapshot.generation;
        self.snapshot.store(Arc::new(snapshot));
        self.generation.send_replace(generation);
        self.greet(registry);
    }

    /// Begins to welcome those that are back.
    fn greet(&self, registry: &mut Registry) {
        let returned = registry.returned();
        if returned.is_empty() {
            return;
        }
        let mut welcomes = self.welcomes.lock();
        welcomes.retain(|_, task| !task.is_finished());
        for endpoint in returned {
            let id = endpoint.id;
            let task = welcome::run(Weak::clone(&self.me), endpoint);
            welcomes.insert(id, AbortOnDropHandle::new(self.runtime.spawn(task)));
        }
    }

    /// Moves the breakers along; returns when to do so again.
    fn on_time(&self) -> Option<tokio::time::Instant> {
        let mut registry = self.registry.lock();
        if registry.on_time(self.clock.now()) {
            self.publish(&mut registry);
        }
        registry.wakes_at().map(|at| self.clock.instant(at))
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.name).finish_non_exhaustive()
    }
}

fn probe_times(health: &config::Health) -> Option<ProbeTimes> {
    health
        .probe
        .as_ref()
        .map(|probe| ProbeTimes { interval: probe.interval.get(), timeout: probe.timeout.get() })
}

/// Opens doors for trials when their time has come.
async fn keep_time(cluster: Weak<Cluster>, wake: Arc<Notify>) {
    loop {
        let next = match cluster.upgrade() {
            Some(cluster) => cluster.on_time(),
            None => return,
        };
        match next {
            Some(next) => tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = wake.notified() => {}
            },
            None => wake.notified().await,
        }
    }
}
