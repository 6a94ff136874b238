//! The configuration, as written.

mod check;
mod chunks;
mod hash;
mod replicas;
mod standby;

use std::collections::BTreeMap;
use std::path::PathBuf;

use groove_common::config::{
    Admin, Basics, ClientTls, Document, Duration, Endpoints, Health, Issues, Listener, Log, Size,
    default_drain,
};
use groove_common::ids::Address;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::chunks::Chunks;
pub use self::hash::{Dialect, Hash, Tag};
pub use self::replicas::{Read, Replicas};
pub use self::standby::{Join, Leave, Standby};
use crate::hot;
use crate::resize;
use crate::tenant::config::{Authentication, Fairness, Sections, Tenant};
use crate::wire::Limits;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Listener>,
    /// The admin server; none if left out.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
    /// Worker threads; one a core if left out.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<usize>,
    /// A unix socket at which the next process asks for the listeners; none hands nothing over.
    #[serde(default)]
    pub handover: Option<std::path::PathBuf>,
    /// How long a drain may take before what is left is cut.
    #[serde(default = "default_drain")]
    pub drain: Duration,
    /// The servers, by name.
    #[schemars(length(min = 1))]
    pub clusters: BTreeMap<String, Cluster>,
    /// Which keys go to which cluster. The longest prefix that fits decides.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// The cluster of all other keys; the only one, or `main`, if left out.
    #[serde(default)]
    pub default_cluster: Option<String>,
    /// The proxies that clients are told which ask `config get cluster`; left out, the listener that they came in by.
    #[serde(default)]
    pub advertise: Vec<Address>,
    /// What clients and servers may make the proxy hold.
    #[serde(default)]
    pub limits: LimitSection,
    /// Whose clients these are, by name: each tenant has keys, limits and statistics of its own. Without
    /// tenants every client is served, and all share their keys.
    #[serde(default)]
    pub tenants: BTreeMap<String, Tenant>,
    /// The tenant of clients that nothing else tells; none if left out: they have to log in.
    #[serde(default)]
    pub default_tenant: Option<String>,
    /// Clients that have not said yet who they are.
    #[serde(default)]
    pub authentication: Authentication,
    /// How tenants share the proxy.
    #[serde(default)]
    pub fairness: Fairness,
    /// The folder that all proxies of this machine share for what tenants flush; made if it is not there.
    #[serde(default)]
    pub state: Option<PathBuf>,
}

/// Servers that share their keys: each key lives on one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The servers, or a source that knows them. Their order matters: a key's server is found by its
    /// position. Add at the end, or replace in place.
    pub endpoints: Endpoints,
    /// How a key finds its server.
    #[serde(default)]
    pub hash: Hash,
    /// Connections of each worker thread to each server.
    #[serde(default = "default_connections")]
    #[schemars(range(min = 1, max = 64))]
    pub connections: usize,
    /// For each request, until its server has answered.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// For opening a connection.
    #[serde(default = "default_timeout")]
    pub connect_timeout: Duration,
    /// Where the keys of a server go that is known to be away.
    #[serde(default)]
    pub failover: Failover,
    /// How long what is written to a server that stands in for another may live; 0 for as long as the client says.
    #[serde(default = "default_failover_ttl")]
    pub failover_ttl: Duration,
    /// What happens to a server that was away before it serves again: `flush` unless `failover` is `none`.
    #[serde(default)]
    pub on_return: Option<OnReturn>,
    /// Other clusters that hold copies of its keys.
    #[serde(default)]
    pub replicas: Option<Replicas>,
    /// Keeps what is asked for very often for a moment; nothing is kept if left out.
    #[serde(default)]
    pub hot_keys: Option<hot::Section>,
    /// How the health of the servers is known.
    #[serde(default)]
    pub health: Health,
    /// Speak TLS with the servers.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// How a change of the servers is carried out; at once if left out.
    #[serde(default)]
    pub resize: Option<resize::Section>,
    /// Servers that join by themselves when the others evict.
    #[serde(default)]
    pub standby: Option<Standby>,
    /// A larger cluster behind this one: what these servers evict is still found there.
    #[serde(default)]
    pub overflow: Option<Overflow>,
    /// Values that are longer than the servers take are stored in parts.
    #[serde(default)]
    pub chunks: Option<Chunks>,
}

/// The tier behind a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overflow {
    /// The cluster's name. Its servers may be any that speak memcached's meta protocol: ones with extstore, or a
    /// groove-memcached with an embedded store on disk.
    pub cluster: String,
    /// When what is written comes to be there.
    #[serde(default)]
    pub spill: Spill,
}

/// When a value comes to be in the tier behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Spill {
    /// When it is written, before the client is answered: what the front evicts is never lost.
    #[default]
    Write,
}

fn default_failover_ttl() -> Duration {
    Duration::from_secs(60)
}

fn default_connections() -> usize {
    1
}

fn default_timeout() -> Duration {
    Duration::from_secs(1)
}

/// What becomes of the keys of a server that is away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Failover {
    /// Their requests are answered with an error until it is back.
    #[default]
    None,
    /// They are spread over the other servers until it is back.
    Rehash,
    /// They are answered as by a server that has nothing and keeps nothing.
    Miss,
    /// They go to another cluster.
    Gutter(String),
}

/// What happens to a server that was away before it serves again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnReturn {
    /// It is flushed: what it has may be stale.
    Flush,
    /// It serves what it had.
    Keep,
}

/// Keys that go to a cluster of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The beginning of the keys.
    #[schemars(length(min = 1, max = 250))]
    pub prefix: String,
    /// The cluster's name.
    pub cluster: String,
}

/// What clients and servers may make the proxy hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSection {
    /// The longest value, as the servers' `-I`. Longer ones are refused without being read into memory.
    pub value: Size,
    /// The longest `get` line.
    pub line: Size,
}

impl Default for LimitSection {
    fn default() -> Self {
        Self { value: Size::mib(1), line: Size::mib(1) }
    }
}

impl Config {
    /// The limits of the codecs.
    pub fn limits(&self) -> Limits {
        Limits { value_len_max: self.limits.value.bytes(), line_len_max: self.limits.line.bytes() }
    }

    /// Everything about tenants.
    pub fn tenancy(&self) -> Sections<'_> {
        Sections {
            tenants: &self.tenants,
            default_tenant: self.default_tenant.as_deref(),
            authentication: &self.authentication,
            listeners: &self.listeners,
        }
    }

    /// The name of the cluster that takes keys without a route, if it can be told.
    pub fn default_cluster(&self) -> Option<&str> {
        match &self.default_cluster {
            Some(name) => Some(name),
            None if self.clusters.len() == 1 => self.clusters.keys().next().map(String::as_str),
            None => self.clusters.contains_key("main").then_some("main"),
        }
    }

    /// The number of a cluster in [`Self::clusters`].
    pub fn cluster_number(&self, name: &str) -> Option<usize> {
        self.clusters.keys().position(|known| known == name)
    }
}

impl Cluster {
    /// Is a server that was away flushed before it serves again?
    pub fn flushes_on_return(&self) -> bool {
        match self.on_return {
            Some(OnReturn::Flush) => true,
            Some(OnReturn::Keep) => false,
            None => self.failover != Failover::None,
        }
    }

    /// The cap on what stands in for another's, in whole seconds.
    pub fn failover_ttl_s(&self) -> Option<i32> {
        let seconds = i32::try_from(self.failover_ttl.get().as_secs()).unwrap_or(i32::MAX);
        (seconds > 0).then_some(seconds)
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

    fn validate(&self, issues: &mut Issues) {
        self.check(issues);
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
