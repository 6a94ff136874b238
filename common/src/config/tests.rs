use super::*;

#[test]
fn look() {
    let text = "listeners:\n  - adress: 127.0.0.1:80\n    max_connections: 0\n  - address: 1.2.3.4\n    mode: 0660\n    tls: {certificate: nope.pem}\nlog: {level: verbose, access: yes}\nadmin: {address: 0.0.0.0:9000, tokn: hunter2}\nclusters:\n  a:\n    endpoints: [1.2.3.4:5, 1.2.3.4:5, {address: 1.2.3.4:6, weigth: 3}]\n    health: {probe: {interval: 1, timeout: 5s}}\n  b:\n    endpoints: {etcd: x}\n  c:\n    endpoints: {dns: foo}\n  d:\n    endpoints: []\n  d: 5\n";
    println!("{}", check_text::<Sample>("groove.yaml", text).unwrap_err().styled());
    println!("{}", serde_json::to_string_pretty(&schema::<Sample>()).unwrap());
}

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A proxy's configuration, as small as can be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sample {
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
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum PoolMode {
    #[default]
    Transaction,
    Session,
}

impl Document for Sample {
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
            cluster.endpoints.check(&["clusters", name, "endpoints"], issues);
            cluster.health.check(&["clusters", name, "health"], issues);
            if let Some(tls) = &cluster.tls {
                tls.check(&["clusters", name, "tls"], issues);
            }
        }
    }
}
