//! The configuration as written. One block an app; what repeats is left to YAML's anchors.

pub mod auth;
mod auth_check;
pub mod body;
mod check;
pub mod edits;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod tests;

pub use edits::Headers;
use groove_common::config::{
    Admin, Basics, ClientTls, Document, Duration, Endpoints, Health, Issues, Listener, Log, Network, Size,
    default_drain,
};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// Bounds of one message and one connection.
    #[serde(default)]
    pub limits: Limits,
    /// How long each phase may take; `first_byte`, `connect` and `body_idle` can be set for each app too.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// The apps by name.
    pub apps: BTreeMap<String, App>,
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
    #[serde(default)]
    pub health: Health,
    /// The path that active probes GET; any status below 500 is healthy. Left out, a probe only connects.
    #[serde(default)]
    pub health_path: Option<String>,
    /// TLS to the servers.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// More servers by name, for routes to choose.
    #[serde(default)]
    pub clusters: BTreeMap<String, Cluster>,
    /// What differs by path and method. The most exact match wins, whatever the order.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Edits to each request.
    #[serde(default)]
    pub request_headers: Headers,
    /// Edits to each reply.
    #[serde(default)]
    pub response_headers: Headers,
    /// Who may ask, and how that is known.
    #[serde(default)]
    pub auth: Option<auth::Auth>,
    /// What request bodies are taken.
    #[serde(default)]
    pub body: Option<body::BodyRules>,
    /// What differs from the timeouts of all apps.
    #[serde(default)]
    pub timeouts: AppTimeouts,
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
            health: self.health.clone(),
            health_path: self.health_path.clone(),
            tls: self.tls.clone(),
        }
    }
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
    pub tls: Option<ClientTls>,
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
    /// Edits to the request, after the app's.
    #[serde(default)]
    pub request_headers: Headers,
    /// Edits to the reply, after the app's.
    #[serde(default)]
    pub response_headers: Headers,
    /// Who may ask, instead of the app's.
    #[serde(default)]
    pub auth: Option<auth::Auth>,
    /// What request bodies are taken; what is left out is the app's.
    #[serde(default)]
    pub body: Option<body::BodyRules>,
}

/// Which requests a route takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// `/login` for this path alone, `/api/*` for `/api` and all below it, `/*` for all.
    pub path: String,
    /// Methods, in capitals; all if left out.
    #[serde(default)]
    pub methods: Vec<String>,
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

    fn validate(&self, issues: &mut Issues) {
        check::config(self, issues);
    }
}
