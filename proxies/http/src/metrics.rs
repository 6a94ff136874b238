//! What is counted. Handles are looked up once, when a table is built; the data path only adds.

use crate::config::Coding;
use crate::error::Error;
use crate::mirror::Dropped;
use crate::queue::Refusal;
use crate::signify::Code;
use groove_common::error::{Classified, Kind};
use groove_common::telemetry::{Counter, Gauge, Histogram, Registry};
use std::time::Duration;

/// Status classes, as labels.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counted for the whole proxy.
#[derive(Debug)]
pub struct Metrics {
    errors: Vec<(Kind, Counter)>,
    codes: Vec<(Code, Counter)>,
    /// Exchanges begun again on another connection.
    pub retries: Counter,
    /// Upgraded connections open now.
    pub tunnels: Gauge,
    /// How long they lasted, those that are over.
    pub tunnel_seconds: Histogram,
    /// Bytes they carried from clients to servers.
    pub tunnel_bytes_up: Counter,
    /// Bytes they carried from servers to clients.
    pub tunnel_bytes_down: Counter,
    /// Replies to requests that no app got.
    pub unrouted: AppMetrics,
    /// Clients' connections of HTTP/2 that did not answer to a PING.
    pub lost_clients: Counter,
    /// Servers' connections of HTTP/2 that did not.
    pub lost_servers: Counter,
}

impl Metrics {
    /// Makes the series.
    pub fn new(registry: &Registry) -> Self {
        let error = |kind: Kind| {
            (kind, registry.counter("groove_http_errors", "Exchanges that failed", &[("kind", kind.label())]))
        };
        let code = |code: &Code| {
            let help = "Exchanges that failed, by the code that their clients were told";
            (*code, registry.counter("groove_http_codes", help, &[("code", code.label())]))
        };
        let tunnel_bytes = |direction| {
            let help = "Bytes that upgraded connections carried, to servers (up) and clients (down)";
            registry.counter("groove_http_tunnel_bytes", help, &[("direction", direction)])
        };
        let lost = |peer| {
            let help = "Connections of HTTP/2 whose peer did not answer to a PING in time";
            registry.counter("groove_http_http2_ping_timeouts", help, &[("peer", peer)])
        };
        Self {
            errors: Kind::ALL.into_iter().map(error).collect(),
            codes: Code::ALL.iter().map(code).collect(),
            retries: registry.counter(
                "groove_http_retries",
                "Requests sent again on another connection",
                &[],
            ),
            tunnels: registry.gauge("groove_http_tunnels", "Upgraded connections that are open", &[]),
            tunnel_seconds: registry.histogram(
                "groove_http_tunnel_seconds",
                "How long upgraded connections lasted, from the 101 on",
                &[],
            ),
            tunnel_bytes_up: tunnel_bytes("up"),
            tunnel_bytes_down: tunnel_bytes("down"),
            unrouted: AppMetrics::new(registry, ""),
            lost_clients: lost("client"),
            lost_servers: lost("server"),
        }
    }

    /// Counts a failure.
    pub fn failed(&self, error: &Error) {
        let (kind, code) = (error.kind(), error.code());
        let kind = self.errors.iter().find(|(known, _)| *known == kind).map(|(_, counter)| counter);
        let code = self.codes.iter().find(|(known, _)| *known == code).map(|(_, counter)| counter);
        kind.into_iter().chain(code).for_each(Counter::inc);
    }
}

/// Counted for each app. A new table finds the same series by the app's name.
#[derive(Debug, Clone)]
pub struct AppMetrics {
    classes: [Counter; CLASSES.len()],
    seconds: Histogram,
    /// Exchanges going on now.
    pub in_flight: Gauge,
}

impl AppMetrics {
    /// The series of the app of that name.
    pub fn new(registry: &Registry, app: &str) -> Self {
        let class = |class: &str| {
            let labels = [("app", app), ("class", class)];
            registry.counter("groove_http_requests", "Requests answered, by class of status", &labels)
        };
        let labels = [("app", app)];
        Self {
            classes: CLASSES.map(class),
            seconds: registry.histogram(
                "groove_http_request_seconds",
                "From a request's head to the end of its reply",
                &labels,
            ),
            in_flight: registry.gauge("groove_http_in_flight", "Exchanges going on", &labels),
        }
    }

    /// Counts an exchange that is over.
    pub fn answered(&self, status: u16, took: Duration) {
        if let Some(counter) = self.classes.get(usize::from(status / 100).saturating_sub(1)) {
            counter.inc();
        }
        self.seconds.record(took);
    }

    /// Answers so far, for the status page.
    pub fn requests(&self) -> u64 {
        self.classes.iter().map(Counter::get).sum()
    }

    /// Answers of 500 and above so far.
    pub fn failures(&self) -> u64 {
        self.classes.last().map_or(0, Counter::get)
    }
}

/// Counted for each cluster.
#[derive(Debug, Clone)]
pub struct ClusterMetrics {
    /// Connections opened.
    pub connects: Counter,
    /// Connections that could not be opened.
    pub connect_failures: Counter,
    /// Exchanges that found an idle connection.
    pub reused: Counter,
}

impl ClusterMetrics {
    /// The series of the cluster of that name.
    pub fn new(registry: &Registry, cluster: &str) -> Self {
        let counter = |name, help| registry.counter(name, help, &[("cluster", cluster)]);
        Self {
            connects: counter("groove_http_upstream_connects", "Connections opened to servers"),
            connect_failures: counter(
                "groove_http_upstream_connect_failures",
                "Connections that could not be opened",
            ),
            reused: counter("groove_http_upstream_reused", "Exchanges on a connection that was idle"),
        }
    }
}

/// Counted for each cluster that has a queue.
#[derive(Debug, Clone)]
pub struct QueueMetrics {
    /// Requests that wait.
    pub waiting: Gauge,
    /// What is held of them.
    pub bytes: Gauge,
    /// How long those waited that got their turn.
    pub seconds: Histogram,
    full: Counter,
    over_bytes: Counter,
    endpoint: Counter,
    /// They waited for too long.
    pub timed_out: Counter,
    /// Their clients left.
    pub left: Counter,
}

impl QueueMetrics {
    /// The series of the cluster of that name.
    pub fn new(registry: &Registry, cluster: &str) -> Self {
        let labels = [("cluster", cluster)];
        let refused = |reason| {
            let labels = [("cluster", cluster), ("reason", reason)];
            registry.counter("groove_http_queue_refused", "Requests that got no turn", &labels)
        };
        Self {
            waiting: registry.gauge(
                "groove_http_queue_waiting",
                "Requests that wait for an endpoint",
                &labels,
            ),
            bytes: registry.gauge("groove_http_queue_bytes", "What is held of requests that wait", &labels),
            seconds: registry.histogram(
                "groove_http_queue_seconds",
                "How long requests waited that got their turn",
                &labels,
            ),
            full: refused("full"),
            over_bytes: refused("bytes"),
            endpoint: refused("endpoint"),
            timed_out: refused("timeout"),
            left: refused("left"),
        }
    }

    /// Counts somebody who may not wait.
    pub fn refused(&self, refusal: Refusal) {
        match refusal {
            Refusal::Full => self.full.inc(),
            Refusal::Bytes => self.over_bytes.inc(),
            Refusal::Endpoint => self.endpoint.inc(),
            // Nobody to wait for is an error of another kind.
            Refusal::Nobody => {}
        }
    }
}

/// Counted for each app that compresses replies.
#[derive(Debug, Clone)]
pub struct CompressionMetrics {
    /// Replies that were not compressed, as too many were.
    pub busy: Counter,
    finished: [(Coding, Counter); 3],
    taken: Counter,
    given: Counter,
}

impl CompressionMetrics {
    /// The series of the app of that name.
    pub fn new(registry: &Registry, app: &str) -> Self {
        let finished = |coding: Coding| {
            let labels = [("app", app), ("encoding", coding.name())];
            (coding, registry.counter("groove_http_compressed", "Replies that were compressed", &labels))
        };
        let bytes = |direction| {
            let labels = [("app", app), ("direction", direction)];
            let help = "Bytes of replies before compression (in) and after it (out)";
            registry.counter("groove_http_compression_bytes", help, &labels)
        };
        let help = "Replies that were not compressed, as too many were";
        Self {
            busy: registry.counter("groove_http_compression_skipped", help, &[("app", app)]),
            finished: [Coding::Gzip, Coding::Br, Coding::Zstd].map(finished),
            taken: bytes("in"),
            given: bytes("out"),
        }
    }

    /// Counts a reply that was compressed to its end.
    pub fn finished(&self, coding: Coding) {
        self.finished.iter().filter(|(known, _)| *known == coding).for_each(|(_, counter)| counter.inc());
    }

    /// Counts what went through an encoder.
    pub fn passed(&self, taken: u64, given: u64) {
        self.taken.add(taken);
        self.given.add(given);
    }
}

/// Counted for each cluster that gets copies of requests.
#[derive(Debug, Clone)]
pub struct MirrorMetrics {
    /// Copies that were answered.
    pub sent: Counter,
    dropped: Vec<(Dropped, Counter)>,
}

impl MirrorMetrics {
    /// The series of the cluster of that name.
    pub fn new(registry: &Registry, cluster: &str) -> Self {
        let dropped = |why: Dropped| {
            let labels = [("cluster", cluster), ("reason", why.label())];
            let help = "Copies of requests that were not sent, or not answered";
            (why, registry.counter("groove_http_mirror_dropped", help, &labels))
        };
        let help = "Copies of requests that were answered";
        Self {
            sent: registry.counter("groove_http_mirror_requests", help, &[("cluster", cluster)]),
            dropped: Dropped::ALL.map(dropped).into(),
        }
    }

    /// Counts one that was dropped.
    pub fn dropped(&self, why: Dropped) {
        self.dropped.iter().filter(|(known, _)| *known == why).for_each(|(_, counter)| counter.inc());
    }

    /// How many were dropped for this.
    pub fn count_of(&self, why: Dropped) -> u64 {
        self.dropped.iter().filter(|(known, _)| *known == why).map(|(_, counter)| counter.get()).sum()
    }

    /// How many were dropped so far.
    pub fn dropped_ever(&self) -> u64 {
        self.dropped.iter().map(|(_, counter)| counter.get()).sum()
    }
}

/// Counted where the proxy has a bound of its own.
#[derive(Debug, Clone)]
pub struct FairMetrics {
    /// Exchanges under way.
    pub in_flight: Gauge,
    /// Requests that wait for their turn.
    pub waiting: Gauge,
    /// How long those waited that got it.
    pub seconds: Histogram,
    /// Their queues were full.
    pub full: Counter,
    /// They waited for too long.
    pub timed_out: Counter,
}

impl FairMetrics {
    /// Makes the series.
    pub fn new(registry: &Registry) -> Self {
        let refused = |reason| {
            registry.counter(
                "groove_http_fair_refused",
                "Requests that got no turn under the proxy's own bound",
                &[("reason", reason)],
            )
        };
        Self {
            in_flight: registry.gauge(
                "groove_http_fair_in_flight",
                "Exchanges under the proxy's own bound",
                &[],
            ),
            waiting: registry.gauge(
                "groove_http_fair_waiting",
                "Requests that wait for a turn of the proxy",
                &[],
            ),
            seconds: registry.histogram(
                "groove_http_fair_seconds",
                "How long requests waited for a turn of the proxy",
                &[],
            ),
            full: refused("full"),
            timed_out: refused("timeout"),
        }
    }
}

/// One of those that a gauge counts, for as long as it lives.
#[derive(Debug)]
pub struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    /// Counts one more.
    pub fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
