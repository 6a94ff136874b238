//! What the types cannot say: names that must exist, and what does not go together.

use std::collections::BTreeMap;

use groove_common::config::{Endpoints, Issues, Size};

use super::{Cluster, Config, Failover};
use crate::resize;
use crate::wire::KEY_LEN_MAX;

/// The most that memcached's `-I` takes.
const VALUE_MAX: Size = Size::mib(1024);

/// Room for one command of any kind but `get`.
const LINE_MIN: Size = Size::kib(2);

/// The most a `get` line may hold.
const LINE_MAX: Size = Size::mib(64);

impl Config {
    /// Checks the whole document.
    pub(super) fn check(&self, issues: &mut Issues) {
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

    fn check_routes(&self, issues: &mut Issues) {
        let help = self.one_of_the_clusters();
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
                let message = format!("there is no cluster `{}`", overflow.cluster);
                issues.at(&at, message, Some(&self.one_of_the_clusters()));
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

    fn one_of_the_clusters(&self) -> String {
        let names = self.clusters.keys().cloned().collect::<Vec<_>>().join("`, `");
        format!("write one of `{names}`")
    }
}

impl Cluster {
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
