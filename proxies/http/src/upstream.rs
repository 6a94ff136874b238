//! The servers' side: clusters that outlive a reload, and connections that outlive an exchange.
//!
//! Connections rest in lists of their worker alone. A shared pool would put a lock and a permit on the way of every
//! exchange, to bound what the endpoints' own count of exchanges bounds already.

use crate::auth::providers::Known;
use crate::balance::Plan;
use crate::compress::Encoders;
use crate::config::peers::ProxyProtocol;
use crate::config::{self, Protocol};
use crate::fair::Permit;
use crate::metrics::{ClusterMetrics, QueueMetrics};
use crate::outlier::Outlier;
use crate::probe::HttpProber;
use crate::queue::Queue;
use crate::retry::Retry;
use crate::table::App;
use foldhash::fast::RandomState;
use groove_common::app::StartError;
use groove_common::config::{self as common_config, Endpoints, Health};
use groove_common::discovery::{Cluster, ConnectProber, Endpoint, Exchange, Outcome, Prober, Update};
use groove_common::ids::{Address, EndpointId};
use groove_common::net::{Connector, Stream};
use groove_common::pool::IdleList;
use groove_common::telemetry::Registry;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock};
use std::task::Context;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Makes a cluster or a family of metrics when it is first asked for.
pub(crate) type Make<T> = Box<dyn FnOnce() -> T + Send>;

/// What the making of apps, clusters and metrics takes.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Where probes and discovery run.
    pub runtime: Handle,
    /// Where metrics are made.
    pub registry: Arc<Registry>,
    /// What is known of those who are asked who a client is.
    pub known: Arc<Known>,
    /// Replies that are being compressed.
    pub encoders: Arc<Encoders>,
    /// How many apps have authorities for clients' certificates of their own.
    pub client_authorities: Arc<AtomicUsize>,
}

impl Ground {
    /// Nothing is known yet.
    pub fn new(runtime: Handle, registry: Arc<Registry>) -> Self {
        let known = Arc::default();
        Self { runtime, registry, known, encoders: Arc::default(), client_authorities: Arc::default() }
    }
}

/// A cluster, and how it is spoken to. One of tens of thousands may never be asked for: what costs memory or time is
/// made when it is.
#[derive(Debug)]
pub struct Upstream {
    /// Its name: `APP` or `APP/CLUSTER`.
    pub name: Arc<str>,
    /// The servers. Begins when it is first looked at, or with the table where it has something to find out before.
    pub cluster: LazyLock<Arc<Cluster>, Make<Arc<Cluster>>>,
    /// TLS to them.
    pub tls: Option<Box<Connector>>,
    /// What they speak.
    pub protocol: Protocol,
    /// How they are told of the client before HTTP.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Its numbers.
    pub metrics: LazyLock<Box<ClusterMetrics>, Make<Box<ClusterMetrics>>>,
    /// How its endpoints are chosen; the least loaded of all if there is nothing to say.
    pub plan: Option<Arc<Plan>>,
    /// Who waits for them, where they have bounds.
    pub queue: Option<Arc<Queue>>,
    /// Their bounds follow their latency.
    is_adaptive: bool,
    /// What is sent again.
    pub retry: Option<Box<Retry>>,
    /// What counts against a server.
    pub outlier: Option<Box<Outlier>>,
    /// The queue of before, which this one has no use for. There may still be somebody in it.
    unused: Option<Arc<Queue>>,
    /// As configured, to know on a reload what changed.
    config: Arc<config::App>,
    /// Which of the app's clusters; its own servers if it is none.
    named: Option<Box<str>>,
}

impl Upstream {
    /// As configured.
    pub fn servers(&self) -> Option<config::Cluster> {
        match &self.named {
            Some(named) => self.config.clusters.get(&**named).cloned(),
            None => Some(self.config.servers()),
        }
    }

    /// Where its servers are, as far as is known.
    pub fn addresses(&self) -> Vec<Address> {
        match self.begun() {
            Some(cluster) => {
                cluster.snapshot().members.iter().map(|member| member.endpoint.address.clone()).collect()
            }
            None => match self.servers().map(|it| it.endpoints) {
                Some(Endpoints::Static(list)) => list.into_iter().map(|it| it.address).collect(),
                _ => Vec::new(),
            },
        }
    }

    /// For the status page. One that was never asked for says no more than its configuration does.
    pub fn status(&self) -> Value {
        match self.begun() {
            Some(cluster) => {
                let mut status = json!(cluster.status());
                if let (Some(queue), Some(fields)) = (&self.queue, status.as_object_mut()) {
                    fields.insert("waiting".to_owned(), queue.metrics().waiting.get().into());
                }
                status
            }
            None => {
                let endpoint =
                    |it: &common_config::Endpoint| json!({ "address": it.address, "state": "untried" });
                let endpoints: Vec<_> = match self.servers().map(|it| it.endpoints) {
                    Some(Endpoints::Static(list)) => list.iter().map(endpoint).collect(),
                    _ => Vec::new(),
                };
                json!({ "name": self.name, "source": "static", "endpoints": endpoints })
            }
        }
    }

    /// An exchange is over that was answered with this status.
    pub fn answered(&self, endpoint: &Endpoint, status: u16, latency: Duration) {
        let outcome = match &self.outlier {
            Some(outlier) if outlier.statuses.contains(status) => Outcome::Failure,
            Some(_) | None => Outcome::Success { latency },
        };
        self.cluster.report(endpoint, outcome);
        if let Some(queue) = self.queue.as_ref().filter(|_| self.is_adaptive) {
            queue.observe(endpoint, latency);
        }
    }

    /// The cluster, if it has begun.
    pub fn begun(&self) -> Option<&Arc<Cluster>> {
        LazyLock::get(&self.cluster)
    }
}

/// The upstreams of an app in the making.
#[derive(Debug)]
pub struct Upstreams<'a> {
    ground: &'a Arc<Ground>,
    config: &'a Arc<config::App>,
    before: Option<&'a App>,
    made: Vec<Arc<Upstream>>,
    changes: Changes,
}

/// What clusters that live on have yet to learn.
#[derive(Default)]
#[must_use = "nothing changes before they are applied"]
pub struct Changes {
    clusters: Vec<(Arc<Cluster>, Arc<dyn Prober>, Update)>,
    queues: Vec<(Arc<Queue>, Arc<Plan>)>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clusters.iter().map(|(cluster, ..)| cluster.name())).finish()
    }
}

impl Changes {
    /// Tells them, which cannot fail: a change of several clusters happens to all of them or to none.
    pub fn apply(self) {
        for (cluster, prober, update) in self.clusters {
            cluster.set_prober(prober);
            update.apply();
        }
        for (queue, plan) in self.queues {
            queue.set_plan(plan);
        }
    }
}

impl<'a> Upstreams<'a> {
    /// None yet. Those of the app `before` live on where they are asked for again.
    pub fn new(ground: &'a Arc<Ground>, config: &'a Arc<config::App>, before: Option<&'a App>) -> Self {
        Self { ground, config, before, made: Vec::new(), changes: Changes::default() }
    }

    /// Where they are made.
    pub fn ground(&self) -> Arc<Ground> {
        Arc::clone(self.ground)
    }

    /// The upstream of that name. A cluster of the app before keeps its endpoints' state: what is in flight, what is
    /// ejected, which connections are idle.
    pub fn take(
        &mut self,
        name: Arc<str>,
        named: Option<&str>,
        servers: &config::Cluster,
    ) -> Result<Arc<Upstream>, StartError> {
        if let Some(made) = self.made.iter().find(|made| made.name == name) {
            return Ok(Arc::clone(made));
        }
        let before = self.before.and_then(|app| app.upstreams.iter().find(|before| before.name == name));
        let upstream = match before {
            // The files of its certificates may have changed although the configuration did not.
            Some(before) if servers.tls.is_none() && before.servers().as_ref() == Some(servers) => {
                Arc::clone(before)
            }
            before => Arc::new(self.make(name, named, servers, before)?),
        };
        self.made.push(Arc::clone(&upstream));
        Ok(upstream)
    }

    fn make(
        &mut self,
        name: Arc<str>,
        named: Option<&str>,
        servers: &config::Cluster,
        before: Option<&Arc<Upstream>>,
    ) -> Result<Upstream, StartError> {
        let offered: &[&[u8]] = match servers.protocol {
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[b"h2"],
            Protocol::Auto => &[b"h2", b"http/1.1"],
        };
        let tls = servers.tls.as_ref().map(|tls| Connector::new(tls, offered)).transpose()?;
        let same_way = |before: &Upstream| {
            let known = before.servers();
            known.is_some_and(|it| {
                it.tls == servers.tls
                    && it.protocol == servers.protocol
                    && it.proxy_protocol == servers.proxy_protocol
                    && it.health_path == servers.health_path
            })
        };
        let before = before.filter(|before| same_way(before));
        let living = before.and_then(|before| before.begun());
        let prober = prober(servers, tls.as_ref());
        let cluster = match living {
            Some(living) => {
                let update = living.prepare(&servers.endpoints, &servers.health)?;
                self.changes.clusters.push((Arc::clone(living), prober, update));
                begun(Arc::clone(living))
            }
            None if waits_for_requests(servers) => {
                let (ground, name, config) =
                    (Arc::clone(self.ground), Arc::clone(&name), Arc::clone(self.config));
                let named: Option<Box<str>> = named.map(Into::into);
                LazyLock::new(Box::new(move || {
                    let cluster = named.as_ref().and_then(|it| config.clusters.get(&**it));
                    let endpoints = cluster.map_or(&config.endpoints, |cluster| &cluster.endpoints);
                    let (health, prober) = (Health::default(), Arc::new(ConnectProber));
                    Cluster::of_list(&*name, endpoints, &health, prober, &ground.runtime)
                }) as Make<_>)
            }
            None => begun(Cluster::start(
                &*name,
                &servers.endpoints,
                &servers.health,
                prober,
                &self.ground.runtime,
            )?),
        };
        let (ground, label) = (Arc::clone(self.ground), Arc::clone(&name));
        let metrics = LazyLock::new(
            Box::new(move || Box::new(ClusterMetrics::new(&ground.registry, &label))) as Make<_>,
        );
        let (plan, queue, unused) = self.dispatch(&name, servers, before, &cluster)?;
        let outlier = servers.outlier.as_ref().map(|outlier| {
            let known = || Arc::clone(&cluster);
            Box::new(Outlier::new(outlier, known, &self.ground.registry, &self.ground.runtime))
        });
        let retry = servers.retry.as_ref().map(|retry| {
            let before = before.and_then(|before| before.retry.as_deref());
            Box::new(Retry::new(retry, before))
        });
        Ok(Upstream {
            name,
            cluster,
            tls: tls.map(Box::new),
            is_adaptive: plan.as_ref().is_some_and(|plan| plan.adaptive.is_some()),
            plan,
            queue,
            retry,
            outlier,
            unused,
            protocol: servers.protocol,
            proxy_protocol: servers.proxy_protocol,
            metrics,
            config: Arc::clone(self.config),
            named: named.map(Into::into),
        })
    }

    /// How endpoints are chosen, who waits for them, and the queue of before if nobody is to wait any more.
    fn dispatch(
        &mut self,
        name: &str,
        servers: &config::Cluster,
        before: Option<&Arc<Upstream>>,
        cluster: &LazyLock<Arc<Cluster>, Make<Arc<Cluster>>>,
    ) -> Result<Dispatch, StartError> {
        // What did not change is the same plan: whose turn it is, and which bounds were found, is not forgotten.
        let is_same = |before: &Upstream| before.servers().is_some_and(|it| Plan::is_same(&it, servers));
        let plan = match before.filter(|before| is_same(before)) {
            Some(before) => before.plan.clone(),
            None => Plan::of(servers)?.map(Arc::new),
        };
        let former = before.and_then(|before| before.queue.clone().or_else(|| before.unused.clone()));
        Ok(match plan {
            Some(plan) if plan.waits.is_some() => {
                let ground = self.ground;
                let queue = former.unwrap_or_else(|| {
                    let metrics = QueueMetrics::new(&ground.registry, name);
                    Queue::start(Arc::clone(cluster), Arc::clone(&plan), metrics, &ground.runtime)
                });
                self.changes.queues.push((Arc::clone(&queue), Arc::clone(&plan)));
                (Some(plan), Some(queue), None)
            }
            plan => {
                self.changes.queues.extend(former.clone().map(|unused| (unused, Arc::default())));
                (plan, None, former)
            }
        })
    }

    /// All that were taken, and what those that live on have yet to learn, once nothing else can fail.
    pub fn finish(self) -> (Box<[Arc<Upstream>]>, Changes) {
        (self.made.into(), self.changes)
    }
}

/// See [`Upstream`].
type Dispatch = (Option<Arc<Plan>>, Option<Arc<Queue>>, Option<Arc<Queue>>);

fn begun(cluster: Arc<Cluster>) -> LazyLock<Arc<Cluster>, Make<Arc<Cluster>>> {
    let lazy = LazyLock::new(Box::new(move || cluster) as Make<_>);
    LazyLock::force(&lazy);
    lazy
}

/// A list is known without asking, and its servers are not probed before somebody wants something of them, unless the
/// configuration has a word on health: of tens of thousands of apps most are at rest.
fn waits_for_requests(servers: &config::Cluster) -> bool {
    let is_list = matches!(servers.endpoints, Endpoints::Static(_));
    let is_watched = servers.outlier.as_ref().is_some_and(|outlier| outlier.success_rate.is_some());
    is_list && !is_watched && servers.health == Health::default() && servers.health_path.is_none()
}

fn prober(servers: &config::Cluster, tls: Option<&Connector>) -> Arc<dyn Prober> {
    match &servers.health_path {
        Some(path) => Arc::new(HttpProber::new(path, tls.cloned(), servers)),
        None => Arc::new(ConnectProber),
    }
}

impl Protocol {
    /// Whether a connection that was made speaks HTTP/2.
    pub fn is_http2(self, stream: &Stream) -> bool {
        match self {
            Self::Http1 => false,
            Self::Http2 => true,
            Self::Auto => stream.agreed_protocol() == Some(b"h2"),
        }
    }
}

/// A connection to a server, and the count of the exchange on it.
#[derive(Debug)]
pub struct Lease {
    /// The connection.
    pub stream: Stream,
    /// The endpoint, in whose count this exchange is until the lease goes.
    pub exchange: Exchange,
    /// It was made for this exchange's client alone: its PROXY header names it.
    pub is_private: bool,
    /// It was idle: the server may have closed it in the very moment it was taken.
    pub is_reused: bool,
    /// How many restarts of apps there had been when it was opened.
    pub restarts: u32,
    /// The right to have it under way, where the proxy has a bound.
    pub permit: Option<Permit>,
    /// When it was had.
    pub at: Instant,
    /// The endpoint's identity, if the client is to be told that its session lives there from now on.
    pub new_home: Option<Box<str>>,
}

/// A connection at rest, and how many restarts of apps there had been when it was opened.
type Resting = (Stream, u32);

/// One worker's idle connections.
#[derive(Debug, Default)]
pub struct Idle {
    lists: HashMap<EndpointId, IdleList<Resting>, RandomState>,
}

impl Idle {
    /// An idle connection to the endpoint that its server has not closed, opened since the app's last restart.
    pub fn take(
        &mut self,
        endpoint: EndpointId,
        restarted: u32,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Option<Resting> {
        let list = self.lists.get_mut(&endpoint)?;
        loop {
            let (mut stream, restarts) = list.take(now)?;
            if restarts >= restarted && !stream.is_stale(cx) {
                return Some((stream, restarts));
            }
        }
    }

    /// Keeps a connection for the next exchange.
    pub fn put(
        &mut self,
        endpoint: EndpointId,
        resting: Resting,
        now: Instant,
        len_max: usize,
        age_max: Duration,
    ) {
        let list = self.lists.entry(endpoint).or_insert_with(|| IdleList::new(len_max, age_max));
        list.bound(len_max, age_max);
        drop(list.put(resting, now));
    }

    /// Closes the connections to an endpoint.
    pub fn close(&mut self, endpoint: EndpointId) {
        self.lists.remove(&endpoint);
    }

    /// Closes what has been idle for too long, and forgets endpoints that nobody speaks to.
    pub fn expire(&mut self, now: Instant) {
        self.lists.retain(|_, list| list.expire(now).is_some());
    }

    /// Connections at rest.
    pub fn len(&self) -> usize {
        self.lists.values().map(IdleList::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::Roster;
    use groove_common::config::{Embedded, Size, check_text};

    fn app(port: u16) -> Arc<config::App> {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\napps:\n  a: {{hosts: [a.test], endpoints: [127.0.0.1:{port}]}}\n"
        );
        let config: config::Config = check_text("http.yaml", &text).expect("a good configuration");
        Arc::clone(&config.apps["a"])
    }

    fn roster() -> Roster {
        let ground = Ground::new(Handle::current(), Registry::new(1));
        Roster::new(Arc::new(ground), Arc::default())
    }

    fn addresses(roster: &Roster) -> Vec<String> {
        let status = roster.get("a").expect("an app").upstreams[0].cluster.status();
        status.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    #[tokio::test]
    async fn a_reload_that_fails_late_leaves_every_cluster_as_it_was() {
        let timeouts = config::Timeouts::default();
        let mut roster = roster();
        let a = app(9);
        let change = roster.prepare([("a", Some(&a))], &timeouts).expect("a good change");
        roster.apply(change);
        assert_eq!(addresses(&roster), ["127.0.0.1:9"]);

        // `b` has no source that could be followed.
        let (a, mut b) = (app(10), config::App::clone(&a));
        b.hosts = vec!["b.test".to_owned()];
        b.endpoints = Endpoints::Embedded(Embedded { capacity: Size::mib(1), disk: None });
        let b = Arc::new(b);
        roster.prepare([("a", Some(&a)), ("b", Some(&b))], &timeouts).expect_err("no source");
        assert_eq!(addresses(&roster), ["127.0.0.1:9"]);

        let before = Arc::clone(roster.get("a").expect("an app"));
        let change = roster.prepare([("a", Some(&a))], &timeouts).expect("a good change");
        roster.apply(change);
        assert_eq!(addresses(&roster), ["127.0.0.1:10"]);
        let after = roster.get("a").expect("an app");
        assert!(
            Arc::ptr_eq(&before.upstreams[0].cluster, &after.upstreams[0].cluster),
            "the cluster lives on"
        );
        assert!(before.is_retired() && !after.is_retired());
    }

    #[tokio::test]
    async fn an_app_at_rest_has_no_cluster_and_no_metrics() {
        let mut roster = roster();
        let a = app(9);
        let change = roster.prepare([("a", Some(&a))], &config::Timeouts::default()).expect("a good change");
        roster.apply(change);
        let a = roster.get("a").expect("an app");
        assert!(a.counted().is_none() && a.upstreams[0].begun().is_none(), "nobody has asked");
        assert_eq!(a.upstreams[0].status()["endpoints"][0]["state"], "untried");
        a.upstreams[0].cluster.snapshot();
        assert_eq!(a.upstreams[0].status()["endpoints"][0]["state"], "up");
    }
}
