//! The servers: clusters as all workers share them, and each worker's own connections.
//!
//! | file | what |
//! |---|---|
//! | here | [`Topology`]: every cluster and the routes to them, swapped whole by a reload |
//! | `view.rs` | a worker's view of it, with its connections |
//! | `changes.rs` | a worker's part in changes of the servers: which step it goes by, when it is done with the one before |
//! | `fleet.rs` | all servers of a cluster whose values may be in parts |
//! | `plan.rs` | an operation of several steps: who takes part, and running it |
//! | `connection.rs` | one pipelined connection |
//! | `flush.rs` | flushing a server that was away, before it serves again |
//! | `probe.rs` | asking a server whether it is well |

pub mod changes;
pub mod connection;
pub mod fleet;
mod flush;
mod local;
pub mod plan;
mod probe;
pub mod view;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use groove_common::app::{Context, StartError};
use groove_common::balance::{Placement, Rule};
use groove_common::config::{Embedded, Endpoints};
use groove_common::discovery::{Cluster, Snapshot, Update, Welcome};
use groove_common::net::Connector;
use groove_common::telemetry::Counter;
use parking_lot::Mutex;

use crate::advertise::Advertised;
use crate::config::{self, Config, Failover};
use crate::hot::Hot;
use crate::metrics::{UpstreamMetrics, usual_ms};
use crate::resize::{self, Agreement, Control};
use crate::route::Table;
use crate::store::{self, DiskMetrics, DiskSettings, Store};
use crate::tenant::directory::{Directory, Makings};
use crate::tenant::key::own_part;
use crate::wire::Limits;
use connection::Settings;

/// Every cluster and the routes to them.
#[derive(Debug)]
pub struct Topology {
    /// In the order of their names; routes tell them by number.
    pub clusters: Vec<Arc<Backend>>,
    /// By cluster.
    pub replicas: Vec<Option<Arc<Replicas>>>,
    /// Which keys go where.
    pub routes: Table,
    /// By cluster: the number of the one that stands in for it, with `failover: {gutter: …}`.
    pub gutters: Vec<Option<usize>>,
    /// The tiers behind clusters, by cluster.
    pub tiers: Vec<Option<Tier>>,
    /// What peers may make us hold.
    pub limits: Limits,
    /// Whose clients are whose.
    pub directory: Arc<Directory>,
    /// What tenants share of each worker, see [`crate::tenant::fair`].
    pub window: usize,
    /// What clients are told that ask where to connect.
    pub advertised: Advertised,
}

/// The other clusters that hold copies of one's keys.
#[derive(Debug)]
pub struct Replicas {
    /// Their numbers.
    clusters: Vec<usize>,
    configured: config::Replicas,
}

/// Questions that one request may become, one after the other.
const STEPS_MAX: u32 = 10;

/// What is behind a cluster.
#[derive(Debug, Clone)]
pub struct Tier {
    /// The cluster behind it, by its number.
    pub cluster: usize,
    /// What was written and is not there.
    pub lost: Counter,
}

/// A cluster as configured.
#[derive(Debug)]
pub struct Backend {
    name: String,
    configured: config::Cluster,
    limits: Limits,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Servers(Arc<Servers>),
    Embedded(Arc<Store>),
}

#[derive(Debug)]
struct Servers {
    cluster: Arc<Cluster>,
    /// Which of its servers have which keys, when that is agreed on with other sidecars.
    agreement: Arc<Agreement>,
    /// Keeps to what is agreed on, if anything is.
    control: Option<Arc<Control>>,
    settings: Arc<Settings>,
    failover: Failover,
    /// Of what stands in for another's: the longest it may live, in seconds.
    failover_ttl_max_s: Option<i32>,
    rule: Rule,
    /// Where keys live, and the set of servers that holds for. Built by the first worker that sees the set.
    placement: Mutex<Option<(u64, Arc<Placement>)>>,
    /// Of each worker to each server.
    connections: usize,
    /// What is asked of them very often.
    hot: Option<Arc<Hot>>,
    /// How values are stored in parts, if they may be.
    chunks: Option<Arc<fleet::Settings>>,
    metrics: UpstreamMetrics,
}

impl Servers {
    /// Where keys live among the servers of `snapshot`.
    fn placement(&self, snapshot: &Snapshot) -> Arc<Placement> {
        let mut known = self.placement.lock();
        match &*known {
            Some((set, placement)) if *set == snapshot.set => Arc::clone(placement),
            Some(_) | None => {
                let placement = Arc::new(snapshot.placement(self.rule));
                *known = Some((snapshot.set, Arc::clone(&placement)));
                placement
            }
        }
    }
}

impl Servers {
    /// For the admin API: the cluster, and of each endpoint how long it usually takes to answer.
    fn status(&self) -> serde_json::Value {
        let cluster = self.cluster.status();
        let mut status = serde_json::json!(cluster);
        if let (Some(hot), Some(status)) = (&self.hot, status.as_object_mut()) {
            status.insert("hot_keys".to_owned(), hot.status());
        }
        let endpoints = status.get_mut("endpoints").and_then(serde_json::Value::as_array_mut);
        for (endpoint, shown) in cluster.endpoints.iter().zip(endpoints.into_iter().flatten()) {
            let Some(shown) = shown.as_object_mut() else { continue };
            for (name, millis) in usual_ms(&self.metrics.latency(&endpoint.address)) {
                shown.insert(name.to_owned(), serde_json::json!(millis));
            }
        }
        status
    }
}

impl Topology {
    /// What `config` describes. Clusters that were there before keep their servers' health, and their
    /// connections unless their own section has changed.
    ///
    /// # Errors
    ///
    /// When a source or a certificate cannot be read. Nothing has changed then.
    pub fn build(
        config: &Config,
        before: Option<&Self>,
        makings: &Makings,
        cx: &Context,
    ) -> Result<Self, StartError> {
        let limits = config.limits();
        let old = |name: &str| before.and_then(|before| before.clusters.iter().find(|old| old.name == name));
        let number = |name: &str| config.cluster_number(name).unwrap_or_default();
        let rules =
            config.routes.iter().map(|route| (route.prefix.clone().into_bytes(), number(&route.cluster)));
        let hashers = config.clusters.values().map(|section| section.hash.hasher()).collect();
        let routes = Table::new(rules, config.default_cluster().map_or(0, number), hashers);
        let mut planned = Vec::new();
        for (name, section) in &config.clusters {
            planned.push(Plan::new(name, section, limits, old(name), cx)?);
        }
        let hot_from = before.map(|before| Instant::now() + before.longest_request());
        let clusters = config.clusters.iter().zip(planned).map(|((name, section), plan)| {
            let place_of = place_of(&routes, number(name), !config.tenants.is_empty());
            plan.carry_out(name, section, limits, place_of, hot_from, cx)
        });
        let clusters = clusters.collect();
        let known = before.map(|before| &before.directory);
        let directory = Directory::build(config.tenancy(), known, makings);
        let window = usize::try_from(config.fairness.window).unwrap_or(usize::MAX);
        let replicas = config.clusters.values().map(|section| {
            let configured = section.replicas.clone()?;
            let clusters = configured.clusters.iter().map(|name| number(name)).collect();
            Some(Arc::new(Replicas { clusters, configured }))
        });
        let replicas = replicas.collect();
        let gutter = |section: &config::Cluster| match &section.failover {
            Failover::Gutter(name) => config.cluster_number(name),
            Failover::None | Failover::Rehash | Failover::Miss => None,
        };
        let gutters = config.clusters.values().map(gutter).collect();
        let tier = |(name, section): (&String, &config::Cluster)| {
            let config::Overflow { cluster, spill: config::Spill::Write } = section.overflow.as_ref()?;
            let help = "Values that were stored in front and could not be copied to the tier behind";
            let lost = cx.registry.counter("groove_memcached_spills_lost", help, &[("cluster", name)]);
            Some(Tier { cluster: number(cluster), lost })
        };
        let tiers = config.clusters.iter().map(tier).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let known = before.map(|before| &before.advertised);
        let advertised = Advertised::new(&config.advertise, known, now.as_secs());
        let built =
            Self { clusters, replicas, routes, gutters, tiers, limits, directory, window, advertised };
        resize::wait_until_joined(built.controls(), &cx.runtime);
        Ok(built)
    }

    /// In this time everything has been answered that was asked before, programs of several steps included.
    fn longest_request(&self) -> Duration {
        let step = |backend: &Arc<Backend>| {
            backend.configured.timeout.get() + backend.configured.connect_timeout.get()
        };
        self.clusters.iter().map(step).max().unwrap_or_default() * STEPS_MAX
    }

    /// The clusters whose servers are agreed on with other sidecars.
    pub fn controls(&self) -> impl Iterator<Item = (&str, &Arc<Control>)> {
        let control = |backend: &'_ Arc<Backend>| backend.control().is_some();
        let shared = self.clusters.iter().filter(move |backend| control(backend));
        shared.filter_map(|backend| Some((backend.name.as_str(), backend.control()?)))
    }

    /// For the admin API: a row a cluster, its endpoints in it.
    pub fn status(&self) -> serde_json::Value {
        self.clusters.iter().map(|backend| backend.status()).collect()
    }
}

/// What has to be done for a cluster, with everything that may fail done already.
enum Plan {
    Keep(Arc<Backend>),
    Start { cluster: Arc<Cluster>, part: resize::Part, tls: Option<Connector> },
    Update { known: Arc<Servers>, update: Update, part: resize::Part, tls: Option<Connector> },
    Store { store: Arc<Store>, settings: store::Settings },
}

impl Plan {
    fn new(
        name: &str,
        section: &config::Cluster,
        limits: Limits,
        old: Option<&Arc<Backend>>,
        cx: &Context,
    ) -> Result<Self, StartError> {
        if let Some(old) = old
            // A certificate may have changed in its file.
            && section.tls.is_none()
            && old.configured == *section
            && old.limits == limits
        {
            return Ok(Self::Keep(Arc::clone(old)));
        }
        if let Endpoints::Embedded(embedded) = &section.endpoints {
            let settings = store_settings(name, embedded, limits, cx);
            let known = old.and_then(|old| old.store_like(embedded));
            let store = match known {
                Some(known) => known,
                None => Store::new(&settings).map_err(|error| format!("cluster {name}: {error}"))?,
            };
            return Ok(Self::Store { store, settings });
        }
        let tls = section.tls.as_ref().map(|tls| Connector::new(tls, &[])).transpose()?;
        let known = old.and_then(|old| match &old.kind {
            Kind::Servers(servers) => Some((old, servers)),
            Kind::Embedded(_) => None,
        });
        let control = known.and_then(|(old, servers)| Some((&old.configured, servers.control.as_ref()?)));
        let part =
            resize::Part::plan(section, control).map_err(|error| format!("cluster {name}: {error}"))?;
        let failed = |error| format!("cluster {name}: {error}");
        // Whoever begins or ceases to share starts anew.
        let known = known.filter(|(_, servers)| part.goes_on(servers.control.as_ref()));
        let (endpoints, health) = (&section.endpoints, &section.health);
        match known {
            Some((_, known)) => {
                let update = match part.is_shared() {
                    true => known.cluster.prepare_health(health),
                    false => known.cluster.prepare(endpoints, health).map_err(failed)?,
                };
                Ok(Self::Update { known: Arc::clone(known), update, part, tls })
            }
            None => {
                let prober = prober(tls.as_ref());
                let cluster = match part.is_shared() {
                    true => Cluster::with_source(name, resize::told(section), health, prober, &cx.runtime),
                    false => Cluster::start(name, endpoints, health, prober, &cx.runtime).map_err(failed)?,
                };
                Ok(Self::Start { cluster, part, tls })
            }
        }
    }

    fn carry_out(
        self,
        name: &str,
        section: &config::Cluster,
        limits: Limits,
        place_of: resize::PlaceOf,
        hot_from: Option<Instant>,
        cx: &Context,
    ) -> Arc<Backend> {
        let hot = |known: Option<&Servers>| {
            let known = known.and_then(|known| known.hot.as_deref());
            let section = section.hot_keys.as_ref()?;
            Some(Hot::new(section, known, hot_from, cx.workers, &cx.registry, name))
        };
        let servers = |cluster: Arc<Cluster>, agreement, part: resize::Part, tls: Option<Connector>, hot| {
            let flush = |tls| Arc::new(flush::Flush::new(tls)) as Arc<dyn Welcome>;
            cluster.set_welcome(section.flushes_on_return().then(|| flush(tls.clone())));
            let settings = Arc::new(Settings {
                timeout: section.timeout.get(),
                connect_timeout: section.connect_timeout.get(),
                tls,
                limits,
            });
            let control = part.carry_out(name, section, &cluster, &settings, Arc::clone(&place_of), cx);
            let agreement = control.as_ref().map_or(agreement, |control| Arc::clone(control.agreement()));
            Kind::Servers(Arc::new(Servers {
                cluster,
                agreement,
                control,
                settings,
                failover: section.failover.clone(),
                failover_ttl_max_s: section.failover_ttl_s(),
                rule: section.hash.rule(),
                placement: Mutex::new(None),
                connections: section.connections,
                hot,
                chunks: section.chunks.as_ref().map(|chunks| {
                    Arc::new(fleet::Settings {
                        part_len: chunks.size.bytes(),
                        value_len_max: limits.value_len_max,
                        hasher: section.hash.hasher(),
                        metrics: fleet::Metrics::new(&cx.registry, name),
                    })
                }),
                metrics: UpstreamMetrics::new(&cx.registry, name),
            }))
        };
        let kind = match self {
            Self::Keep(backend) => {
                backend.keep(&place_of);
                return backend;
            }
            Self::Store { store, settings } => {
                store.resize(&settings);
                Kind::Embedded(store)
            }
            Self::Start { cluster, part, tls } => servers(cluster, Arc::default(), part, tls, hot(None)),
            Self::Update { known, update, part, tls } => {
                known.cluster.set_prober(prober(tls.as_ref()));
                update.apply();
                let agreement = Arc::clone(&known.agreement);
                servers(Arc::clone(&known.cluster), agreement, part, tls, hot(Some(&known)))
            }
        };
        Arc::new(Backend { name: name.to_owned(), configured: section.clone(), limits, kind })
    }
}

fn store_settings(name: &str, embedded: &Embedded, limits: Limits, cx: &Context) -> store::Settings {
    let disk = embedded.disk.as_ref().map(|disk| DiskSettings {
        path: disk.path.clone(),
        capacity_len: disk.capacity.0,
        metrics: DiskMetrics::new(&cx.registry, name),
    });
    store::Settings {
        capacity_len: embedded.capacity.0,
        value_len_max: limits.value_len_max,
        workers: cx.workers,
        disk,
    }
}

fn prober(tls: Option<&Connector>) -> Arc<probe::NoopProber> {
    Arc::new(probe::NoopProber::new(tls.cloned()))
}

/// Where a cluster's keys live, told by their form on the servers; nothing of those that others have there.
fn place_of(routes: &Table, number: usize, has_tenants: bool) -> resize::PlaceOf {
    let routes = routes.clone();
    Arc::new(move |view, key| {
        // The rules are about what a client calls its key.
        let route = if has_tenants { routes.route_renamed(own_part(key), key) } else { routes.route(key) };
        (route.cluster == number).then(|| view.place(route.part, route.hash))
    })
}

impl Backend {
    /// As configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its workers go by while its servers change, if it has servers. Nothing (step 0) has been agreed on
    /// at first: then every sidecar goes by what discovery tells it.
    pub fn agreement(&self) -> Option<&Arc<Agreement>> {
        match &self.kind {
            Kind::Servers(servers) => Some(&servers.agreement),
            Kind::Embedded(_) => None,
        }
    }

    /// Who keeps its servers to what is agreed on with other sidecars.
    fn control(&self) -> Option<&Arc<Control>> {
        match &self.kind {
            Kind::Servers(servers) => servers.control.as_ref(),
            Kind::Embedded(_) => None,
        }
    }

    /// Its own section is as it was; the routes may have changed.
    fn keep(&self, place_of: &resize::PlaceOf) {
        if let Kind::Servers(servers) = &self.kind
            && let Some(control) = &servers.control
        {
            control.rehash(&self.configured, &servers.settings, place_of);
        }
    }

    /// Its store, if one that is configured like this keeps its disk tier, or its having none.
    fn store_like(&self, embedded: &Embedded) -> Option<Arc<Store>> {
        let place = |embedded: &Embedded| embedded.disk.as_ref().map(|disk| disk.path.clone());
        match (&self.kind, &self.configured.endpoints) {
            (Kind::Embedded(store), Endpoints::Embedded(known)) if place(known) == place(embedded) => {
                Some(Arc::clone(store))
            }
            (Kind::Embedded(_) | Kind::Servers(_), _) => None,
        }
    }

    fn status(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Servers(servers) => servers.status(),
            Kind::Embedded(store) => serde_json::json!({
                "name": self.name,
                "source": "embedded",
                "items": store.items(),
                "bytes": store.held_len(),
                "capacity": store.capacity_len(),
                "disk": store.disk_status(),
                "endpoints": [],
            }),
        }
    }
}
