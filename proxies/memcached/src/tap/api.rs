//! `POST /api/v1/tap`: lines of JSON for as long as the watcher reads them and the proxy does not drain.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use groove_common::admin::{Request, Response, Routes, plain};
use groove_common::net::Drain;
use groove_common::tap::{Pace, Tell, answer};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::seen::{self, Seen, readable};
use super::summary::{Report, Summary};
use super::{Filter, Hub};
use crate::upstream::Topology;

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
    answer::<Summary, _>(watch, wish.pace(), drain.clone())
}

impl Wish {
    fn pace(&self) -> Pace {
        Pace { sample: self.sample, top: self.top, every_ms: self.every_ms }
    }

    fn check(&self, topology: &Topology) -> Result<(), String> {
        self.pace().check()?;
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

impl Tell for Summary {
    type Seen = Seen;
    type Line = Line;

    fn new(top: usize) -> Self {
        Self::new(top)
    }

    fn add(&mut self, seen: &Seen) {
        self.add(seen);
    }

    fn summary(&self, took: Duration, sample: f64, dropped: u64) -> Line {
        Line::Summary(self.report(took, sample, dropped))
    }

    fn exchange(seen: &Seen) -> Line {
        Line::Exchange(seen.into())
    }

    fn dropped(exchanges: u64) -> Line {
        Line::Dropped { exchanges }
    }
}
