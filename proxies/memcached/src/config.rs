//! The configuration, as written.

mod chunks;
mod hash;
mod replicas;
mod standby;

use std::collections::BTreeMap;
use std::path::PathBuf;

use groove_common::config::{
    Admin, ClientTls, Document, Duration, Endpoints, Health, Issues, Listener, Log, Size, default_drain,
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
use crate::wire::{KEY_LEN_MAX, Limits};

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

/// The most that memcached's `-I` takes.
const VALUE_MAX: Size = Size::mib(1024);

/// Room for one command of any kind but `get`.
const LINE_MIN: Size = Size::kib(2);

/// The most a `get` line may hold.
const LINE_MAX: Size = Size::mib(64);

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

    fn check_routes(&self, issues: &mut Issues) {
        let names = self.clusters.keys().cloned().collect::<Vec<_>>().join("`, `");
        let help = format!("write one of `{names}`");
        if let Some(name) = &self.default_cluster
            && !self.clusters.contains_key(name)
        {
            issues.at(&["default_cluster"], format!("there is no cluster `{name}`"), Some(&help));
        }
        if self.default_cluster().is_none() {
            let message = "which of the clusters takes keys without a route is not said";
            issues.at_key(&["clusters"], message, Some("name one `main`, or add `default_cluster: NAME`"));
        }
        for (index, route) in self.routes.iter().enumerate() {
            let number = index.to_string();
            if !self.clusters.contains_key(&route.cluster) {
                let path = ["routes", &number, "cluster"];
                issues.at(&path, format!("there is no cluster `{}`", route.cluster), Some(&help));
            }
            let path = ["routes", &number, "prefix"];
            if self.routes.iter().take(index).any(|earlier| earlier.prefix == route.prefix) {
                issues.at(&path, "this prefix has a route already", Some("keep one of the two"));
            }
            if route.prefix.len() > KEY_LEN_MAX || route.prefix.bytes().any(|byte| byte <= b' ') {
                let help = "write up to 250 bytes without spaces or control characters";
                issues.at(&path, "no key can begin like this", Some(help));
            }
        }
    }

    fn check_overflow(&self, name: &str, issues: &mut Issues) {
        let Some(cluster) = self.clusters.get(name) else { return };
        let Some(overflow) = &cluster.overflow else { return };
        let path = ["clusters", name, "overflow"];
        let at = ["clusters", name, "overflow", "cluster"];
        match self.clusters.get(&overflow.cluster) {
            None => {
                let names = self.clusters.keys().cloned().collect::<Vec<_>>().join("`, `");
                let message = format!("there is no cluster `{}`", overflow.cluster);
                issues.at(&at, message, Some(&format!("write one of `{names}`")));
            }
            Some(_) if overflow.cluster == name => {
                issues.at(&at, "a cluster cannot be behind itself", Some("name another cluster"));
            }
            Some(behind) if behind.overflow.is_some() => {
                issues.at(&at, "there are two tiers, not three", Some("take that cluster's `overflow` away"));
            }
            Some(behind) if matches!(behind.endpoints, Endpoints::Embedded(_)) => {
                let help = "run it as a groove-memcached of its own, and list its listener's address";
                issues.at(&at, "other sidecars would not see what is in this store", Some(help));
            }
            Some(behind) => {
                if behind.failover != Failover::None || cluster.failover != Failover::None {
                    let message = "keys that fail over elsewhere come back with old values";
                    issues.at_key(&path, message, Some("write `failover: none` in both clusters"));
                }
                if behind.replicas.is_some() || cluster.replicas.is_some() {
                    let message = "a key has copies or tiers, not both";
                    issues.at_key(&path, message, Some("take `replicas` away from both clusters"));
                }
                if behind.resize.is_some() || cluster.resize.is_some() {
                    let message = "the servers of two tiers cannot be changed while clients go on";
                    issues.at_key(&path, message, Some("take `resize` away from both clusters"));
                }
            }
        }
        if matches!(cluster.endpoints, Endpoints::Embedded(_)) {
            let help = "give the store a `disk`, or list servers";
            issues.at_key(&path, "the embedded store has a tier of its own", Some(help));
        }
    }

    fn check_limits(&self, issues: &mut Issues) {
        if self.limits.value > VALUE_MAX || self.limits.value < Size::kib(1) {
            issues.at(&["limits", "value"], "memcached takes from 1KiB to 1GiB", Some("write `1MiB`"));
        }
        if self.limits.line < LINE_MIN || self.limits.line > LINE_MAX {
            issues.at(&["limits", "line"], "a line may have from 2KiB to 64MiB", Some("write `1MiB`"));
        }
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

    fn check_failover(&self, name: &str, others: &BTreeMap<String, Self>, issues: &mut Issues) {
        let ttl_max = std::time::Duration::from_secs(30 * 24 * 60 * 60);
        let ttl = self.failover_ttl.get();
        if ttl > ttl_max || (!ttl.is_zero() && ttl.subsec_nanos() > 0) {
            let path = ["clusters", name, "failover_ttl"];
            issues.at(&path, "memcached counts whole seconds, up to 30 days", Some("write `60s`"));
        }
        let Failover::Gutter(gutter) = &self.failover else { return };
        let path = ["clusters", name, "failover", "gutter"];
        match others.get(gutter) {
            None => {
                let help = "write the name of one of `clusters`";
                issues.at(&path, format!("there is no cluster `{gutter}`"), Some(help));
            }
            Some(_) if gutter == name => {
                issues.at(
                    &path,
                    "a cluster cannot stand in for itself",
                    Some("name another, or write `rehash`"),
                );
            }
            Some(other) if matches!(other.failover, Failover::Gutter(_)) => {
                let help = "give that cluster another `failover`";
                issues.at(&path, "a cluster that stands in for others has no gutter itself", Some(help));
            }
            Some(other) if matches!(other.endpoints, Endpoints::Embedded(_)) => {
                let help = "name a cluster of servers";
                issues.at(&path, "sidecars do not share their embedded stores", Some(help));
            }
            Some(_) => (),
        }
    }

    fn check(&self, name: &str, issues: &mut Issues) {
        self.endpoints.check(&["clusters", name, "endpoints"], issues);
        self.health.check(&["clusters", name, "health"], issues);
        if let Some(tls) = &self.tls {
            tls.check(&["clusters", name, "tls"], issues);
        }
        if let Some(resize) = &self.resize {
            resize.check(&["clusters", name, "resize"], self.timeout, issues);
            if matches!(self.endpoints, Endpoints::Embedded(_)) {
                let path = ["clusters", name, "resize"];
                issues.at_key(&path, "the embedded store has no servers to change", Some("take it away"));
            }
            if resize.policy == resize::Policy::Transparent && self.failover != Failover::None {
                let help = "write `failover: none`, or `policy: immediate` in `resize`";
                let path = ["clusters", name, "failover"];
                issues.at(&path, "keys that fail over elsewhere cannot be moved", Some(help));
            }
        }
        if self.timeout.is_zero() {
            issues.at(&["clusters", name, "timeout"], "no server answers in no time", Some("write `1s`"));
        }
        if self.connect_timeout.is_zero() {
            let path = ["clusters", name, "connect_timeout"];
            issues.at(&path, "no connection opens in no time", Some("write `1s`"));
        }
        if let Some(hot_keys) = &self.hot_keys {
            hot_keys.check(name, self, issues);
        }
        self.hash.check(name, &self.endpoints, issues);
        if let Some(standby) = &self.standby {
            standby.check(name, self, issues);
        }
        if let Endpoints::Embedded(store) = &self.endpoints {
            if store.capacity < Size::mib(1) {
                let path = ["clusters", name, "endpoints", "embedded", "capacity"];
                issues.at(&path, "too small for a store", Some("write at least `1MiB`"));
            }
            if self.tls.is_some() {
                let path = ["clusters", name, "tls"];
                issues.at_key(&path, "the embedded store has no connections", Some("take it away"));
            }
        }
    }
}

impl Document for Config {
    fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    fn admin(&self) -> Option<&Admin> {
        self.admin.as_ref()
    }

    fn log(&self) -> &Log {
        &self.log
    }

    fn drain(&self) -> Duration {
        self.drain
    }

    fn workers(&self) -> Option<usize> {
        self.workers
    }

    fn validate(&self, issues: &mut Issues) {
        for (name, cluster) in &self.clusters {
            cluster.check(name, issues);
            if let Some(replicas) = &cluster.replicas {
                replicas.check(name, &self.clusters, issues);
            }
            cluster.check_failover(name, &self.clusters, issues);
            self.check_overflow(name, issues);
            if let Some(chunks) = &cluster.chunks {
                chunks.check(name, &self.clusters, &self.limits, issues);
            }
        }
        self.check_routes(issues);
        self.check_limits(issues);
        crate::advertise::check(&self.advertise, issues);
        self.tenancy().check(issues);
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
