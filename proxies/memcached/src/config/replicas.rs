//! Clusters that hold copies of another's keys.

use std::collections::BTreeMap;

use groove_common::config::{Endpoints, Issues};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cluster, Failover};

/// Copies of a cluster's keys in other clusters: written to all, read from any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replicas {
    /// The clusters that hold the copies. They may have other numbers of servers.
    #[schemars(length(min = 1, max = 4))]
    pub clusters: Vec<String>,
    /// Where reads begin; they go on where a key is missing or its server is away.
    #[serde(default)]
    pub read: Read,
    /// After how many of a hundred answers of a server a read that is still waiting for it asks another copy as
    /// well. None waits.
    #[serde(default)]
    #[schemars(range(min = 50, max = 99))]
    pub hedge: Option<u8>,
}

/// Where reads begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Read {
    /// At the cluster itself.
    #[default]
    Main,
    /// At any copy: each client at its own.
    Any,
}

impl Replicas {
    pub(super) fn check(&self, name: &str, clusters: &BTreeMap<String, Cluster>, issues: &mut Issues) {
        let own = clusters.get(name);
        for (index, copy) in self.clusters.iter().enumerate() {
            let number = index.to_string();
            let path = ["clusters", name, "replicas", "clusters", &number];
            let twice = self.clusters.iter().take(index).any(|earlier| earlier == copy);
            let other = clusters.get(copy);
            let (message, help) = match other {
                None => ("there is no such cluster", "name one of the clusters"),
                Some(_) if copy == name || twice => ("it is named already", "name each copy once"),
                Some(other) if other.replicas.is_some() => {
                    ("a copy has no copies", "take its `replicas` away, or name all copies here")
                }
                Some(other) if matches!(other.endpoints, Endpoints::Embedded(_)) => {
                    ("the embedded store holds no copies", "name a cluster of servers")
                }
                Some(other) if own.is_some_and(|own| own.hash != other.hash) => {
                    ("it finds its keys in another way", "give both the same `hash`")
                }
                Some(other) if other.resize.is_some() => {
                    ("the keys of a copy cannot be moved", "take its `resize` away")
                }
                Some(other) if other.failover != Failover::None => {
                    ("copies take the place of `failover`", "take its `failover` away")
                }
                Some(_) => continue,
            };
            issues.at(&path, message, Some(help));
        }
        let Some(own) = own else { return };
        if own.failover != Failover::None {
            let path = ["clusters", name, "failover"];
            issues.at(&path, "copies take the place of `failover`", Some("take it away"));
        }
        if own.resize.is_some() {
            let path = ["clusters", name, "resize"];
            issues.at_key(
                &path,
                "keys that have copies cannot be moved",
                Some("take `resize` or `replicas` away"),
            );
        }
        if matches!(own.endpoints, Endpoints::Embedded(_)) {
            let path = ["clusters", name, "replicas"];
            issues.at_key(&path, "the embedded store has no copies", Some("take it away"));
        }
    }
}
