//! What is counted.

use std::sync::Arc;
use std::time::Duration;

use groove_common::error::{Classified, Kind, Side};
use groove_common::ids::Address;
use groove_common::telemetry::{Counter, Gauge, Histogram, Registry};

use crate::session::state::{Command, Finished};

/// The proxy's counters; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Arc<[Counter]>,
    hits: Counter,
    misses: Counter,
    refused: Arc<[Counter]>,
    failures: Arc<[Counter]>,
    /// Sessions there are.
    pub sessions: Gauge,
    /// Sessions there have been.
    pub sessions_total: Counter,
}

impl Metrics {
    /// All series from the start, so that a first event is seen as a step from 0.
    pub fn new(registry: &Registry) -> Self {
        let request = |command: &Command| {
            let help = "Requests answered, by command";
            registry.counter("groove_memcached_requests", help, &[("command", command.name())])
        };
        let refused = |command: &Command| {
            let help = "Requests that made no sense, or that a server would not carry out, by command";
            registry.counter("groove_memcached_refused", help, &[("command", command.name())])
        };
        let failure = |kind: &Kind| {
            let help = "Requests with a key that no server answered, by the kind of failure";
            let labels = [("kind", kind.label()), ("side", Side::Upstream.label())];
            registry.counter("groove_memcached_failures", help, &labels)
        };
        let keys = |result| {
            let help = "Keys that were found, stored, counted or deleted (hit), or were not (miss)";
            registry.counter("groove_memcached_keys", help, &[("result", result)])
        };
        Self {
            requests: Command::ALL.iter().map(request).collect(),
            hits: keys("hit"),
            misses: keys("miss"),
            refused: Command::ALL.iter().map(refused).collect(),
            failures: Kind::ALL.iter().map(failure).collect(),
            sessions: registry.gauge("groove_memcached_sessions", "Client sessions", &[]),
            sessions_total: registry.counter("groove_memcached_sessions_begun", "Client sessions begun", &[]),
        }
    }

    /// Counts an exchange.
    pub fn count(&self, finished: &Finished) {
        if let Some(counter) = self.requests.get(finished.command as usize) {
            counter.inc();
        }
        if finished.hits > 0 {
            self.hits.add(u64::from(finished.hits));
        }
        if finished.misses > 0 {
            self.misses.add(u64::from(finished.misses));
        }
        if finished.is_refused
            && let Some(counter) = self.refused.get(finished.command as usize)
        {
            counter.inc();
        }
        if let Some(failure) = finished.failure
            && let Some(counter) = self.failures.get(failure.kind() as usize)
        {
            counter.inc();
        }
    }
}

/// Where the counters of a cluster's servers are made.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    registry: Arc<Registry>,
    cluster: Arc<str>,
}

/// A server's counters; clones share them.
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    /// From a request's being sent to its reply.
    pub latency: Histogram,
    /// Connections that are up.
    pub connections: Gauge,
    /// Attempts that failed.
    pub connect_failures: Counter,
}

impl UpstreamMetrics {
    /// For the servers of this cluster.
    pub fn new(registry: &Arc<Registry>, cluster: &str) -> Self {
        Self { registry: Arc::clone(registry), cluster: cluster.into() }
    }

    /// How long one server takes to answer.
    pub fn latency(&self, address: &Address) -> Histogram {
        self.registry.histogram(
            "groove_memcached_upstream_seconds",
            "From a request's being sent to a server to its reply",
            &[("cluster", &*self.cluster), ("server", &*address.to_string())],
        )
    }

    /// The series of one server. They are there as long as somebody has a connection to it, or the place of one.
    pub fn server(&self, address: &Address) -> ServerMetrics {
        let latency = self.latency(address);
        let address = address.to_string();
        let labels = [("cluster", &*self.cluster), ("server", &*address)];
        ServerMetrics {
            latency,
            connections: self.registry.gauge(
                "groove_memcached_upstream_connections",
                "Connections to servers",
                &labels,
            ),
            connect_failures: self.registry.counter(
                "groove_memcached_upstream_connect_failures",
                "Attempts to connect to a server that failed",
                &labels,
            ),
        }
    }
}

/// In how many milliseconds half of all that was counted came to its end, and all but a hundredth, for the admin API.
/// Nothing where nothing was counted.
pub fn usual_ms(latency: &Histogram) -> [(&'static str, Option<f64>); 2] {
    let all = latency.snapshot();
    // Three digits are microseconds; more would be noise.
    let millis = |took: Duration| (took.as_secs_f64() * 1e6).round() / 1e3;
    let within = |share| (all.count() > 0).then(|| millis(all.quantile(share)));
    [("p50_ms", within(0.5)), ("p99_ms", within(0.99))]
}
