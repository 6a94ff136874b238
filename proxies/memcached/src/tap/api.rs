//! `POST /api/v1/tap`: lines of JSON for as long as the watcher reads them and the proxy does not drain.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use groove_common::admin::{Request, Response, Routes, plain, stream};
use groove_common::net::Drain;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::seen::{self, Seen, readable};
use super::summary::{Report, Summary};
use super::{Filter, Hub, Watch};
use crate::upstream::Topology;

/// Exchanges that are written at once.
const BATCH_LEN: usize = 512;
/// Chunks on their way to a watcher.
const CHUNKS: usize = 4;
/// A watcher that takes nothing for so long is given up.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// How often it is told what there was no room for.
const TELL_DROPPED_EVERY: Duration = Duration::from_secs(1);
/// The lengths of an interval.
const EVERY_MS: std::ops::RangeInclusive<u64> = 100..=600_000;
/// Lines of a list.
const TOP: std::ops::RangeInclusive<usize> = 1..=1000;

/// What a watcher wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wish {
    /// Of this tenant only.
    pub tenant: Option<String>,
    /// In this cluster only.
    pub cluster: Option<String>,
    /// Keys that begin like this only, as clients write them.
    pub prefix: String,
    /// The share that is looked at, above 0 and up to 1.
    pub sample: f64,
    /// A summary of so many lines a list, instead of each exchange.
    pub top: Option<usize>,
    /// How often there is a summary.
    pub every_ms: u64,
}

impl Default for Wish {
    fn default() -> Self {
        Self { tenant: None, cluster: None, prefix: String::new(), sample: 0.01, top: None, every_ms: 2000 }
    }
}

/// What a watcher is told: one a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// One exchange.
    Exchange(Exchange),
    /// An interval.
    Summary(Report),
    /// What there was no room for.
    Dropped {
        /// Since the last line of this kind.
        exchanges: u64,
    },
}

/// One exchange, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// When it was answered, as in RFC 3339.
    pub at: String,
    /// Whose it was, if there are tenants.
    pub tenant: Option<String>,
    /// Where its key lives.
    pub cluster: String,
    /// What was asked, in the classic protocol's words.
    pub verb: String,
    /// The client's own key.
    pub key: String,
    /// What came of it.
    pub result: seen::Result,
    /// Bytes of the value that went one way or the other.
    pub value_bytes: Option<usize>,
    /// From the request to the answer, in microseconds.
    pub took_us: u64,
    /// Who answered.
    pub server: String,
    /// Why nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl From<&Seen> for Exchange {
    fn from(seen: &Seen) -> Self {
        Self {
            at: humantime::format_rfc3339_micros(seen.at).to_string(),
            tenant: seen.tenant.clone(),
            cluster: seen.cluster.clone(),
            verb: seen.verb.name.to_owned(),
            key: readable(&seen.key),
            result: seen.result,
            value_bytes: seen.value_len,
            took_us: u64::try_from(seen.took.as_micros()).unwrap_or(u64::MAX),
            server: seen.server.to_string(),
            failure: seen.failure.map(str::to_owned),
        }
    }
}

/// The route.
pub fn routes(hub: &Arc<Hub>, topology: &Arc<ArcSwap<Topology>>, drain: &Drain) -> Routes {
    let (hub, topology, drain) = (Arc::clone(hub), Arc::clone(topology), drain.clone());
    let about = "what goes through, line by line: `{tenant, cluster, prefix, sample, top, every_ms}`";
    Routes::new().post("/api/v1/tap", about, move |request| {
        let answer = watch(&hub, &topology.load(), &drain, &request);
        async move { answer }
    })
}

fn watch(hub: &Arc<Hub>, topology: &Topology, drain: &Drain, request: &Request) -> Response {
    let body: &[u8] = if request.body().is_empty() { b"{}" } else { request.body() };
    let wish: Wish = match serde_json::from_slice(body) {
        Ok(wish) => wish,
        Err(error) => return plain(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if let Err(message) = wish.check(topology) {
        return plain(StatusCode::UNPROCESSABLE_ENTITY, message);
    }
    let filter = Filter {
        tenant: wish.tenant.clone(),
        cluster: wish.cluster.clone(),
        prefix: wish.prefix.clone().into_bytes(),
    };
    let Some(watch) = hub.watch(filter, wish.sample) else {
        return plain(StatusCode::TOO_MANY_REQUESTS, "as many watch as may");
    };
    let (chunks, parts) = mpsc::channel(CHUNKS);
    let drain = drain.clone();
    tokio::spawn(async move {
        let told = async {
            match wish.top {
                None => tell_each(watch, &chunks).await,
                Some(top) => tell_summaries(watch, &wish, top, &chunks).await,
            }
        };
        tokio::select! {
            () = told => (),
            () = chunks.closed() => (),
            () = drain.draining() => (),
        }
    });
    stream("application/x-ndjson", parts)
}

impl Wish {
    fn check(&self, topology: &Topology) -> Result<(), String> {
        if !(self.sample > 0.0 && self.sample <= 1.0) {
            return Err("`sample` is a share above 0 and up to 1".to_owned());
        }
        if !EVERY_MS.contains(&self.every_ms) {
            return Err("`every_ms` is from 100 (100ms) to 600000 (10m)".to_owned());
        }
        if self.top.is_some_and(|top| !TOP.contains(&top)) {
            return Err("`top` is from 1 to 1000".to_owned());
        }
        let clusters: Vec<_> = topology.clusters.iter().map(|backend| backend.name()).collect();
        let tenants: Vec<_> = topology.directory.tenants().iter().map(|tenant| tenant.name()).collect();
        for (what, name, known) in [("cluster", &self.cluster, clusters), ("tenant", &self.tenant, tenants)] {
            if let Some(name) = name
                && !known.contains(&name.as_str())
            {
                return Err(match known.is_empty() {
                    true => format!("there are no {what}s"),
                    false => format!("there is no {what} `{name}`; there are `{}`", known.join("`, `")),
                });
            }
        }
        Ok(())
    }
}

/// Each exchange in a line, until nobody reads them.
async fn tell_each(mut watch: Watch, chunks: &mpsc::Sender<Bytes>) {
    let mut batch = Vec::with_capacity(BATCH_LEN);
    let (mut told, mut tick) = (0, interval(TELL_DROPPED_EVERY));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut chunk = Vec::new();
        tokio::select! {
            _ = watch.seen.recv_many(&mut batch, BATCH_LEN) => {
                for seen in batch.drain(..) {
                    write(&mut chunk, &Line::Exchange(Exchange::from(&*seen)));
                }
            }
            _ = tick.tick() => {
                let dropped = watch.dropped();
                if dropped > told {
                    write(&mut chunk, &Line::Dropped { exchanges: dropped - told });
                    told = dropped;
                }
            }
        }
        if !chunk.is_empty() && !send(chunks, chunk).await {
            return;
        }
    }
}

/// A summary of each interval in a line.
async fn tell_summaries(mut watch: Watch, wish: &Wish, top: usize, chunks: &mpsc::Sender<Bytes>) {
    let every = Duration::from_millis(wish.every_ms);
    let mut batch = Vec::with_capacity(BATCH_LEN);
    let (mut summary, mut told, mut since) = (Summary::new(top), 0, Instant::now());
    let mut tick = tokio::time::interval_at(since + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => {
                let dropped = watch.dropped();
                let report = summary.report(since.elapsed(), wish.sample, dropped - told);
                let mut chunk = Vec::new();
                write(&mut chunk, &Line::Summary(report));
                if !send(chunks, chunk).await {
                    return;
                }
                (summary, told, since) = (Summary::new(top), dropped, Instant::now());
            }
            _ = watch.seen.recv_many(&mut batch, BATCH_LEN) => {
                batch.drain(..).for_each(|seen| summary.add(&seen));
            }
        }
    }
}

fn write(chunk: &mut Vec<u8>, line: &Line) {
    // Writing to memory cannot fail, and neither can what is written.
    serde_json::to_writer(&mut *chunk, line).unwrap_or_default();
    chunk.push(b'\n');
}

/// False: nobody takes it.
async fn send(chunks: &mpsc::Sender<Bytes>, chunk: Vec<u8>) -> bool {
    matches!(timeout(UNREAD_MAX, chunks.send(Bytes::from(chunk))).await, Ok(Ok(())))
}
