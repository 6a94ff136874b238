//! The whole way of a configuration, on a document as small as a proxy's can be.

mod loading;
mod reports;
mod watching;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;

/// Stands for a proxy's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sample {
    /// Where the proxy listens.
    listeners: Vec<Listener>,
    #[serde(default)]
    admin: Option<Admin>,
    #[serde(default)]
    log: Log,
    #[serde(default = "default_drain")]
    drain: Duration,
    #[serde(default)]
    workers: Option<usize>,
    #[serde(default)]
    clusters: BTreeMap<String, Cluster>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cluster {
    endpoints: Endpoints,
    #[serde(default)]
    health: Health,
    #[serde(default)]
    tls: Option<ClientTls>,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    mode: PoolMode,
    #[serde(default)]
    eager: bool,
    #[serde(default)]
    #[schemars(extend("format" = "key-prefix"))]
    prefix: Option<String>,
    #[serde(default)]
    shards: Option<Even>,
    #[serde(default)]
    on_miss: Option<OnMiss>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum PoolMode {
    #[default]
    Transaction,
    Session,
}

/// An enum whose variants hold something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnMiss {
    Fail,
    Ask { cluster: String },
    Wait(Duration),
}

/// Knows more than its schema says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32")]
#[schemars(with = "u32")]
struct Even(u32);

impl TryFrom<u32> for Even {
    type Error = String;

    fn try_from(value: u32) -> Result<Self, String> {
        if value.is_multiple_of(2) { Ok(Self(value)) } else { Err(format!("{value} is odd")) }
    }
}

impl Document for Sample {
    fn basics(&self) -> Basics<'_> {
        Basics {
            listeners: &self.listeners,
            admin: self.admin.as_ref(),
            log: &self.log,
            drain: self.drain,
            workers: self.workers,
            handover: None,
        }
    }

    fn validate(&self, issues: &mut Issues) {
        for (name, cluster) in &self.clusters {
            cluster.endpoints.check(&["clusters", name, "endpoints"], issues);
            cluster.health.check(&["clusters", name, "health"], issues);
            if let Some(tls) = &cluster.tls {
                tls.check(&["clusters", name, "tls"], issues);
            }
        }
    }

    fn format(format: &str, text: &str) -> Result<(), String> {
        match format {
            "key-prefix" if text.contains(' ') => Err("a prefix has no spaces".to_owned()),
            _ => Ok(()),
        }
    }
}

/// A text that holds.
fn good(text: &str) -> Sample {
    check_text("groove.yaml", text).unwrap_or_else(|report| panic!("{report}"))
}

/// What is said of a text that does not hold.
fn bad(text: &str) -> Report {
    match check_text::<Sample>("groove.yaml", text) {
        Ok(document) => panic!("nothing was found wrong with:\n{text}\n{document:?}"),
        Err(report) => report,
    }
}

/// A text with one cluster, `{}`, and what else a configuration needs.
fn with_cluster(cluster: &str) -> String {
    format!("listeners: [{{address: 127.0.0.1:80}}]\nclusters:\n  main: {cluster}\n")
}
