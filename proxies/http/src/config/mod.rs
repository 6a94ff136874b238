//! The configuration as written. One block an app; what repeats is left to YAML's anchors.

pub mod auth;
mod auth_check;
mod balancing;
pub mod body;
mod check;
mod client_tls;
mod compression;
#[cfg(test)]
mod demands_tests;
pub mod edits;
mod fairness;
pub mod forwarded;
mod http2;
mod mirroring;
#[cfg(test)]
mod more_tests;
pub mod peers;
mod queueing;
mod retrying;
mod routing;
mod routing_check;
pub mod signify;
mod state;
#[cfg(test)]
mod tests;

pub use balancing::{Affinity, AffinityMode, Balance, HashKey, SessionCookie, SessionKey};
pub(crate) use check::one as check_app;
pub use client_tls::{ClientTls, Demand};
pub use compression::{Coding, Compression};
pub use edits::Headers;
pub use fairness::InFlight;
use groove_common::config::{
    Admin, Basics, Change, ClientTls as ServersTls, Document, Duration, Endpoints, Health, Issues, Listener,
    Log, Network, Size, default_drain, difference,
};
pub use http2::{Http2, Ping};
use ipnet::IpNet;
pub use mirroring::Mirror;
pub use queueing::{Adaptive, Concurrency, Gradient, Queue};
pub use retrying::{Budget, Failure, Outlier, Retry, SuccessRate};
pub use routing::{Cors, Redirect, Respond, Rewrite, Share, ValueMatch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use state::State;
use std::collections::BTreeMap;
use std::sync::Arc;

/// groove-http's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Listener>,
    /// The admin server.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
    /// How long a drain may take before connections are cut.
    #[serde(default = "default_drain")]
    pub drain: Duration,
    /// Worker threads; one a core if left out.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<usize>,
    /// A unix socket at which the next process asks for the listeners; none hands nothing over.
    #[serde(default)]
    pub handover: Option<std::path::PathBuf>,
    /// Networks whose X-Forwarded-*, Forwarded, X-Real-IP and X-Request-Id are believed; from all others they are
    /// removed.
    #[serde(default)]
    #[schemars(with = "Vec<Network>")]
    pub trusted: Vec<IpNet>,
    /// Our name in the Via header of requests; null adds none.
    #[serde(default = "default_via")]
    pub via: Option<String>,
    /// Where changes of apps over the admin API are kept; left out, they are gone with the process.
    #[serde(default)]
    pub state: Option<State>,
    /// What servers are told of who asks.
    #[serde(default)]
    pub forwarded: forwarded::Forwarded,
    /// Pages shown instead of the proxy's own, by status, class or code, for all apps.
    #[serde(default)]
    pub pages: signify::Pages,
    /// Bounds of one message and one connection.
    #[serde(default)]
    pub limits: Limits,
    /// How long each phase may take; `first_byte`, `connect` and `body_idle` can be set for each app too.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What is particular to HTTP/2.
    #[serde(default)]
    pub http2: Http2,
    /// The apps by name.
    pub apps: BTreeMap<String, Arc<App>>,
}

fn default_via() -> Option<String> {
    Some("groove".to_owned())
}

/// Bounds of one message and one connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The longest head, of a request or a reply.
    pub head: Size,
    /// The longest request target (path and query).
    pub target: Size,
    /// The most header fields.
    #[schemars(range(min = 8, max = 128))]
    pub fields: usize,
    /// The longest trailer section.
    pub trailers: Size,
    /// The longest request body; null is no bound. Bodies are streamed, so this protects the apps, not the proxy.
    pub body: Option<Size>,
    /// How much is held for a peer that reads slowly, for each direction.
    pub buffer: Size,
    /// Idle connections kept to each server by each worker.
    #[schemars(range(max = 65536))]
    pub idle_per_endpoint: usize,
    /// How many exchanges the proxy has under way; left out is no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
    /// Replies that are compressed at once, of all apps: each holds up to 2 MiB. More go out as they are.
    #[schemars(range(max = 1_000_000))]
    pub compressing: usize,
    /// Requests at once on a client's connection that speaks HTTP/2.
    #[schemars(range(min = 1, max = 65536))]
    pub streams: u32,
    /// The least rate of a client's body, and of its taking of a reply; null is no bound.
    pub min_rate: Option<peers::MinRate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Size::kib(32),
            target: Size::kib(8),
            fields: 100,
            trailers: Size::kib(8),
            body: None,
            buffer: Size::kib(64),
            idle_per_endpoint: 256,
            in_flight: None,
            compressing: 256,
            streams: 100,
            min_rate: None,
        }
    }
}

/// How long each phase may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A request's head, from its first byte to its last.
    pub head: Duration,
    /// A client's connection between two requests.
    pub keep_alive: Duration,
    /// Opening a connection to a server.
    pub connect: Duration,
    /// The server's first byte, once it has the request.
    pub first_byte: Duration,
    /// A body, of a request or a reply, on which nothing moves.
    pub body_idle: Duration,
    /// An upgraded connection on which nothing moves.
    pub tunnel_idle: Duration,
    /// An idle connection to a server. Shorter than the servers' own, or requests meet connections that just closed.
    pub server_keep_alive: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(30),
            body_idle: Duration::from_secs(55),
            tunnel_idle: Duration::from_secs(3600),
            server_keep_alive: Duration::from_secs(4),
        }
    }
}

/// One app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// The hosts it answers for: `shop.example.com`, `*.example.com` (all below it), or `*` (all others).
    #[schemars(length(min = 1))]
    pub hosts: Vec<String>,
    /// Where its servers are.
    pub endpoints: Endpoints,
    /// How their health is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Box<Health>>,
    /// The path that active probes GET; any status below 500 is healthy. Left out, a probe only connects.
    #[serde(default)]
    pub health_path: Option<String>,
    /// TLS to the servers.
    #[serde(default)]
    pub tls: Option<Box<ServersTls>>,
    /// Which endpoint takes a request, where any will do.
    #[serde(default)]
    pub balance: Balance,
    /// Requests of one session reach the endpoint that holds its state.
    #[serde(default)]
    pub affinity: Option<Box<Affinity>>,
    /// How many exchanges each endpoint may have under way.
    #[serde(default)]
    pub concurrency: Option<Box<Concurrency>>,
    /// Requests that find no endpoint free.
    #[serde(default)]
    pub queue: Option<Box<Queue>>,
    /// What is sent again after a failure.
    #[serde(default)]
    pub retry: Option<Box<Retry>>,
    /// What counts against a server beside connections that fail or break.
    #[serde(default)]
    pub outlier: Option<Box<Outlier>>,
    /// What the servers speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// Tells the servers of the client by a PROXY header; their connections are then not shared by clients.
    #[serde(default)]
    pub proxy_protocol: Option<peers::ProxyProtocol>,
    /// More servers by name, for routes to choose.
    #[serde(default)]
    pub clusters: BTreeMap<String, Cluster>,
    /// What differs by path and method. The most exact match wins, whatever the order.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Edits to each request.
    #[serde(default)]
    pub request_headers: Option<Box<Headers>>,
    /// Edits to each reply.
    #[serde(default)]
    pub response_headers: Option<Box<Headers>>,
    /// Pages of this app, before those of all apps.
    #[serde(default)]
    pub pages: signify::Pages,
    /// Closes the app for a while.
    #[serde(default)]
    pub maintenance: Option<Box<signify::Maintenance>>,
    /// Whose certificates its clients show.
    #[serde(default)]
    pub client_tls: Option<Box<ClientTls>>,
    /// Who may ask, and how that is known.
    #[serde(default)]
    pub auth: Option<Box<auth::Auth>>,
    /// What request bodies are taken.
    #[serde(default)]
    pub body: Option<Box<body::BodyRules>>,
    /// Which replies are compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Box<Compression>>,
    /// What differs from the timeouts of all apps.
    #[serde(default)]
    pub timeouts: AppTimeouts,
    /// What tells the app's tenants apart, where the proxy's own bound (`limits.in_flight`) has them take turns.
    #[serde(default)]
    pub tenants: Option<Box<HashKey>>,
    /// How often a request is tried on another server when a connection cannot be opened.
    #[serde(default = "default_retries")]
    #[schemars(range(max = 10))]
    pub retries: u32,
}

impl App {
    /// Its own servers, in the form that named clusters have.
    pub fn servers(&self) -> Cluster {
        Cluster {
            endpoints: self.endpoints.clone(),
            health: self.health.as_deref().cloned().unwrap_or_default(),
            health_path: self.health_path.clone(),
            tls: self.tls.clone(),
            balance: self.balance.clone(),
            affinity: self.affinity.clone(),
            concurrency: self.concurrency.clone(),
            queue: self.queue.clone(),
            retry: self.retry.clone(),
            outlier: self.outlier.clone(),
            protocol: self.protocol,
            proxy_protocol: self.proxy_protocol,
        }
    }
}

/// What servers speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, known beforehand or agreed on by TLS. gRPC needs it.
    Http2,
    /// What TLS agrees on; without TLS, HTTP/1.1.
    Auto,
}

fn default_retries() -> u32 {
    2
}

/// More servers of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Where the servers are.
    pub endpoints: Endpoints,
    /// How their health is known.
    #[serde(default)]
    pub health: Health,
    /// The path that active probes GET; any status below 500 is healthy. Left out, a probe only connects.
    #[serde(default)]
    pub health_path: Option<String>,
    /// TLS to the servers.
    #[serde(default)]
    pub tls: Option<Box<ServersTls>>,
    /// Which endpoint takes a request, where any will do.
    #[serde(default)]
    pub balance: Balance,
    /// Requests of one session reach the endpoint that holds its state.
    #[serde(default)]
    pub affinity: Option<Box<Affinity>>,
    /// How many exchanges each endpoint may have under way.
    #[serde(default)]
    pub concurrency: Option<Box<Concurrency>>,
    /// Requests that find no endpoint free.
    #[serde(default)]
    pub queue: Option<Box<Queue>>,
    /// What is sent again after a failure.
    #[serde(default)]
    pub retry: Option<Box<Retry>>,
    /// What counts against a server beside connections that fail or break.
    #[serde(default)]
    pub outlier: Option<Box<Outlier>>,
    /// What the servers speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// Tells the servers of the client by a PROXY header; their connections are then not shared by clients.
    #[serde(default)]
    pub proxy_protocol: Option<peers::ProxyProtocol>,
}

/// What differs for some requests of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which requests.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Which of the app's `clusters` serves them; its own endpoints if left out.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Clusters that share the requests by weight, instead of one.
    #[serde(default)]
    pub split: Vec<Share>,
    /// Send the client elsewhere.
    #[serde(default)]
    pub redirect: Option<Redirect>,
    /// Answer this, without a server.
    #[serde(default)]
    pub respond: Option<Respond>,
    /// Ask the server for something else than the client did.
    #[serde(default)]
    pub rewrite: Option<Rewrite>,
    /// Which pages of other origins may read the replies.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// Send a copy of the requests elsewhere, too.
    #[serde(default)]
    pub mirror: Option<Box<Mirror>>,
    /// Edits to the request, after the app's.
    #[serde(default)]
    pub request_headers: Option<Box<Headers>>,
    /// Edits to the reply, after the app's.
    #[serde(default)]
    pub response_headers: Option<Box<Headers>>,
    /// Closes the route for a while, or keeps it open while the app is closed.
    #[serde(default)]
    pub maintenance: Option<Box<signify::Maintenance>>,
    /// Who may ask, instead of the app's.
    #[serde(default)]
    pub auth: Option<Box<auth::Auth>>,
    /// What request bodies are taken; what is left out is the app's.
    #[serde(default)]
    pub body: Option<Box<body::BodyRules>>,
    /// Which replies are compressed, instead of the app's word.
    #[serde(default)]
    pub compression: Option<Box<Compression>>,
}

/// Which requests a route takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// `/login` for this path alone, `/api/*` for `/api` and all below it, `/*` for all.
    #[serde(default = "every_path")]
    pub path: String,
    /// Instead of `path`: an expression that has to match all of the path.
    #[serde(default)]
    pub path_regex: Option<String>,
    /// Methods, in capitals; all if left out.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Headers that the request has to have, by name.
    #[serde(default)]
    pub headers: BTreeMap<String, ValueMatch>,
    /// Parameters of the query that it has to have, by name; of several the first counts.
    #[serde(default)]
    pub query: BTreeMap<String, ValueMatch>,
    /// Cookies that it has to have, by name.
    #[serde(default)]
    pub cookies: BTreeMap<String, ValueMatch>,
}

fn every_path() -> String {
    "/*".to_owned()
}

/// An app's own timeouts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AppTimeouts {
    /// Opening a connection to a server.
    pub connect: Option<Duration>,
    /// The server's first byte, once it has the request.
    pub first_byte: Option<Duration>,
    /// A body, of a request or a reply, on which nothing moves.
    pub body_idle: Option<Duration>,
}

impl Config {
    /// The same with other apps.
    fn with(&self, apps: BTreeMap<String, Arc<App>>) -> Self {
        Self {
            listeners: self.listeners.clone(),
            admin: self.admin.clone(),
            log: self.log.clone(),
            drain: self.drain,
            workers: self.workers,
            handover: self.handover.clone(),
            trusted: self.trusted.clone(),
            via: self.via.clone(),
            state: self.state.clone(),
            forwarded: self.forwarded.clone(),
            pages: self.pages.clone(),
            limits: self.limits.clone(),
            timeouts: self.timeouts.clone(),
            http2: self.http2.clone(),
            apps,
        }
    }
}

impl Document for Config {
    fn basics(&self) -> Basics<'_> {
        Basics {
            listeners: &self.listeners,
            admin: self.admin.as_ref(),
            log: &self.log,
            drain: self.drain,
            workers: self.workers,
            handover: self.handover.as_deref(),
        }
    }

    fn changes(&self, old: &Self) -> Vec<Change> {
        // Of tens of thousands of apps a few differ: the others are not even written out.
        let others = |all: &BTreeMap<String, Arc<App>>, than: &BTreeMap<String, Arc<App>>| {
            let differs = |(name, app): &(&String, &Arc<App>)| than.get(*name) != Some(*app);
            all.iter().filter(differs).map(|(name, app)| (name.clone(), Arc::clone(app))).collect()
        };
        let before = old.with(others(&old.apps, &self.apps));
        difference(&before, &self.with(others(&self.apps, &old.apps)))
    }

    fn format(format: &str, text: &str) -> Result<(), String> {
        match format {
            "failure" => text.parse::<Failure>().map(drop),
            _ => Ok(()),
        }
    }

    fn validate(&self, issues: &mut Issues) {
        check::config(self, issues);
    }
}
