//! The servers' side: clusters that outlive a reload, and connections that outlive an exchange.
//!
//! Connections rest in lists of their worker alone. A shared pool would put a lock and a permit on the way of every
//! exchange, to bound what the endpoints' own count of exchanges bounds already.

use crate::balance::Plan;
use crate::config::{self, Protocol};
use crate::fair::Permit;
use crate::metrics::{ClusterMetrics, QueueMetrics};
use crate::probe::HttpProber;
use crate::queue::Queue;
use crate::retry::{Retry, Statuses};
use crate::table::Table;
use foldhash::fast::RandomState;
use groove_common::app::StartError;
use groove_common::discovery::{Cluster, ConnectProber, Endpoint, Exchange, Outcome, Prober};
use groove_common::ids::EndpointId;
use groove_common::net::{Connector, Stream};
use groove_common::pool::IdleList;
use groove_common::telemetry::Registry;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// A cluster, and how it is spoken to.
#[derive(Debug)]
pub struct Upstream {
    /// Its place among the table's upstreams.
    pub index: usize,
    /// The servers.
    pub cluster: Arc<Cluster>,
    /// TLS to them.
    pub tls: Option<Connector>,
    /// What they speak.
    pub protocol: Protocol,
    /// Its numbers.
    pub metrics: ClusterMetrics,
    /// How its endpoints are chosen; the least loaded of all if there is nothing to say.
    pub plan: Option<Arc<Plan>>,
    /// Who waits for them, where they have bounds.
    pub queue: Option<Arc<Queue>>,
    /// Their bounds follow their latency.
    is_adaptive: bool,
    /// What is sent again.
    pub retry: Option<Retry>,
    /// Statuses that count against a server.
    pub outlier: Option<Statuses>,
    /// The queue of a table before, which this one has no use for. There may still be somebody in it.
    unused: Option<Arc<Queue>>,
    /// As configured, to know on a reload what changed.
    servers: config::Cluster,
}

impl Upstream {
    /// Everything known, for the admin API.
    pub fn status(&self) -> Value {
        let mut status = json!(self.cluster.status());
        if let (Some(queue), Some(fields)) = (&self.queue, status.as_object_mut()) {
            fields.insert("waiting".to_owned(), queue.metrics().waiting.get().into());
        }
        status
    }

    /// An exchange is over that was answered with this status.
    pub fn answered(&self, endpoint: &Endpoint, status: u16, latency: Duration) {
        let outcome = match &self.outlier {
            Some(outlier) if outlier.contains(status) => Outcome::Failure,
            Some(_) | None => Outcome::Success { latency },
        };
        self.cluster.report(endpoint, outcome);
        if let Some(queue) = self.queue.as_ref().filter(|_| self.is_adaptive) {
            queue.observe(endpoint, latency);
        }
    }
}

/// The upstreams of a table in the making.
#[derive(Debug)]
pub struct Upstreams<'a> {
    runtime: &'a Handle,
    registry: &'a Registry,
    before: Option<&'a Table>,
    made: BTreeMap<String, Arc<Upstream>>,
}

impl<'a> Upstreams<'a> {
    /// None yet. Those of the table `before` live on where they are asked for again.
    pub fn new(runtime: &'a Handle, registry: &'a Registry, before: Option<&'a Table>) -> Self {
        Self { runtime, registry, before, made: BTreeMap::new() }
    }

    /// The upstream of that name. A cluster of the table before keeps its endpoints' state: what is in flight, what is
    /// ejected, which connections are idle.
    pub fn take(&mut self, name: &str, servers: &config::Cluster) -> Result<Arc<Upstream>, StartError> {
        if let Some(made) = self.made.get(name) {
            return Ok(Arc::clone(made));
        }
        let offered: &[&[u8]] = match servers.protocol {
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[b"h2"],
            Protocol::Auto => &[b"h2", b"http/1.1"],
        };
        let tls = servers.tls.as_ref().map(|tls| Connector::new(tls, offered)).transpose()?;
        let before = self.before.and_then(|table| table.upstreams.get(name)).filter(|before| {
            before.servers.tls == servers.tls
                && before.servers.protocol == servers.protocol
                && before.servers.health_path == servers.health_path
        });
        let cluster = match before {
            Some(before) => Arc::clone(&before.cluster),
            None => {
                let prober = prober(servers, tls.as_ref());
                Cluster::start(name, &servers.endpoints, &servers.health, prober, self.runtime)?
            }
        };
        // What did not change is the same plan: whose turn it is, and which bounds were found, is not forgotten.
        let plan = match before.filter(|before| Plan::is_same(&before.servers, servers)) {
            Some(before) => before.plan.clone(),
            None => Plan::of(servers)?.map(Arc::new),
        };
        let former = before.and_then(|before| before.queue.clone().or_else(|| before.unused.clone()));
        let is_adaptive = plan.as_ref().is_some_and(|plan| plan.adaptive.is_some());
        let (queue, unused) = match &plan {
            Some(plan) if plan.waits.is_some() => {
                let start = || {
                    let metrics = QueueMetrics::new(self.registry, name);
                    Queue::start(Arc::clone(&cluster), Arc::clone(plan), metrics, self.runtime)
                };
                (Some(former.unwrap_or_else(start)), None)
            }
            Some(_) | None => (None, former),
        };
        let upstream = Arc::new(Upstream {
            index: self.made.len(),
            cluster,
            tls,
            plan,
            queue,
            is_adaptive,
            retry: servers
                .retry
                .as_ref()
                .map(|retry| Retry::new(retry, before.and_then(|before| before.retry.as_ref()))),
            outlier: servers.outlier.as_ref().map(|outlier| Statuses::of(&outlier.on)),
            unused,
            protocol: servers.protocol,
            metrics: ClusterMetrics::new(self.registry, name),
            servers: servers.clone(),
        });
        self.made.insert(name.to_owned(), Arc::clone(&upstream));
        Ok(upstream)
    }

    /// All that were taken, once nothing else of the table can fail: only now do clusters that live on learn what
    /// changed, all of them or, on an error, none.
    pub fn finish(self) -> Result<BTreeMap<String, Arc<Upstream>>, StartError> {
        let mut updates = Vec::with_capacity(self.made.len());
        for upstream in self.made.values() {
            updates.push(upstream.cluster.prepare(&upstream.servers.endpoints, &upstream.servers.health)?);
        }
        for (upstream, update) in self.made.values().zip(updates) {
            // The files of its certificates may have changed although the configuration did not.
            upstream.cluster.set_prober(prober(&upstream.servers, upstream.tls.as_ref()));
            update.apply();
            match (&upstream.queue, &upstream.unused) {
                (Some(queue), _) => queue.set_plan(upstream.plan.clone().unwrap_or_default()),
                (None, Some(unused)) => unused.set_plan(Arc::default()),
                (None, None) => {}
            }
        }
        Ok(self.made)
    }
}

fn prober(servers: &config::Cluster, tls: Option<&Connector>) -> Arc<dyn Prober> {
    match &servers.health_path {
        Some(path) => Arc::new(HttpProber::new(path, tls.cloned(), servers.protocol)),
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
    /// It was idle: the server may have closed it in the very moment it was taken.
    pub is_reused: bool,
    /// The right to have it under way, where the proxy has a bound.
    pub permit: Option<Permit>,
    /// When it was had.
    pub at: Instant,
    /// The endpoint's identity, if the client is to be told that its session lives there from now on.
    pub new_home: Option<Box<str>>,
}

/// One worker's idle connections.
#[derive(Debug, Default)]
pub struct Idle {
    lists: HashMap<EndpointId, IdleList<Stream>, RandomState>,
}

impl Idle {
    /// An idle connection to the endpoint that its server has not closed.
    pub fn take(&mut self, endpoint: EndpointId, now: Instant, cx: &mut Context<'_>) -> Option<Stream> {
        let list = self.lists.get_mut(&endpoint)?;
        loop {
            let mut stream = list.take(now)?;
            if !stream.is_stale(cx) {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection for the next exchange.
    pub fn put(
        &mut self,
        endpoint: EndpointId,
        stream: Stream,
        now: Instant,
        len_max: usize,
        age_max: Duration,
    ) {
        let list = self.lists.entry(endpoint).or_insert_with(|| IdleList::new(len_max, age_max));
        list.bound(len_max, age_max);
        drop(list.put(stream, now));
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
    use crate::config::Config;
    use groove_common::config::{Embedded, Endpoints, Size, check_text};

    #[tokio::test]
    async fn a_reload_that_fails_late_leaves_every_cluster_as_it_was() {
        let (runtime, registry) = (Handle::current(), Registry::new(1));
        let text = "listeners: [{address: 127.0.0.1:1}]\napps:\n  a: {hosts: [a.test], endpoints: [127.0.0.1:9]}\n  \
                    b: {hosts: [b.test], endpoints: [127.0.0.1:9]}\n";
        let build = |config: &Config, before| Table::build(config, before, &runtime, &registry);
        let addresses = |table: &Table| {
            let endpoints = table.upstreams["a"].cluster.status().endpoints;
            endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>()
        };
        let config: Config = check_text("http.yaml", text).expect("a good configuration");
        let before = build(&config, None).expect("a table");

        // `b` has no source that could be followed.
        let mut config: Config = check_text("http.yaml", &text.replace(":9", ":10")).expect("a good one");
        let b = config.apps.get_mut("b").expect("an app");
        b.endpoints = Endpoints::Embedded(Embedded { capacity: Size::mib(1), disk: None });
        build(&config, Some(&before)).expect_err("no source");
        assert_eq!(addresses(&before), ["127.0.0.1:9"]);

        let config: Config = check_text("http.yaml", &text.replace(":9", ":10")).expect("a good one");
        build(&config, Some(&before)).expect("a table");
        assert_eq!(addresses(&before), ["127.0.0.1:10"]);
    }
}
