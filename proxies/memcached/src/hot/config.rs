//! `clusters.NAME.hot_keys`.

use groove_common::config::{Duration, Endpoints, Issues, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Cluster;

const TTL_MIN: Duration = Duration::from_millis(1);
const TTL_MAX: Duration = Duration::from_secs(10);
const CAPACITY_MIN: Size = Size::kib(64);

/// Values that are asked for very often are kept by the proxy for a moment. A write through another proxy is then
/// seen up to `ttl` late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Section {
    /// How long a value may be kept, from the moment its server is asked: up to 10 seconds.
    pub ttl: Duration,
    /// What all of them together may take.
    pub capacity: Size,
    /// The longest value that is kept.
    pub value: Size,
    /// From so many gets a second on a key is hot.
    #[schemars(range(min = 10, max = 50_000))]
    pub rate: u32,
}

impl Default for Section {
    fn default() -> Self {
        Self { ttl: Duration::from_millis(500), capacity: Size::mib(16), value: Size::kib(64), rate: 100 }
    }
}

impl Section {
    /// What its types cannot say.
    pub fn check(&self, name: &str, cluster: &Cluster, issues: &mut Issues) {
        let path = |option: &'static str| ["clusters", name, "hot_keys", option];
        if self.ttl < TTL_MIN || self.ttl > TTL_MAX {
            issues.at(&path("ttl"), "values are kept from 1ms to 10s", Some("write `500ms`"));
        }
        if self.capacity < CAPACITY_MIN {
            issues.at(&path("capacity"), "too small to keep anything", Some("write at least `64KiB`"));
        }
        if self.value > self.capacity {
            issues.at(&path("value"), "larger than all that is kept", Some("write less than `capacity`"));
        }
        let (message, help) = match cluster {
            Cluster { endpoints: Endpoints::Embedded(_), .. } => {
                ("the embedded store is as near as can be", "take `hot_keys` away")
            }
            Cluster { resize: Some(_), .. } => {
                ("during a resize no read may be older than the last write", "keep `resize` or `hot_keys`")
            }
            Cluster { replicas: Some(_), .. } => {
                ("keys that have copies are asked of these, and not kept", "keep `replicas` or `hot_keys`")
            }
            Cluster { overflow: Some(_), .. } => (
                "keys of two tiers are asked in several steps, and not kept",
                "keep `overflow` or `hot_keys`",
            ),
            Cluster { chunks: Some(_), .. } => {
                ("values in parts are not kept", "keep `chunks` or `hot_keys`")
            }
            Cluster { .. } => return,
        };
        issues.at_key(&["clusters", name, "hot_keys"], message, Some(help));
    }
}
