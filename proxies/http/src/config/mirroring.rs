//! `mirror`: which requests another cluster gets a copy of, as written.

use super::App;
use groove_common::config::{Duration, Issues, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest body that may be copied: each such copy is held in memory.
const BODY_MAX: Size = Size::mib(16);

/// A share of the requests is sent to another cluster, too; what that answers is read and forgotten (Gateway API's
/// RequestMirror).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Which of the app's `clusters` gets the copies.
    pub cluster: String,
    /// How many of a hundred requests.
    #[serde(default = "all")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: f64,
    /// Mark the copy's Host with `-shadow`, as Envoy does; it stays as it is if left out.
    #[serde(default)]
    pub shadow_host: bool,
    /// Requests with a longer body are not copied.
    #[serde(default = "default_body")]
    pub body: Size,
    /// Copies at once; more are dropped.
    #[serde(default = "default_in_flight")]
    #[schemars(range(min = 1, max = 65536))]
    pub in_flight: usize,
    /// What all copies may hold at once; those that would hold more are dropped.
    #[serde(default = "default_bytes")]
    pub bytes: Size,
    /// From a copy's beginning to the end of its reply.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

fn all() -> f64 {
    100.0
}

fn default_body() -> Size {
    Size::kib(64)
}

fn default_in_flight() -> usize {
    100
}

fn default_bytes() -> Size {
    Size::mib(16)
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

impl Mirror {
    pub(super) fn check(&self, path: &[&str], app: &App, issues: &mut Issues) {
        let at = |key: &'static str| [path, &[key]].concat();
        if !app.clusters.contains_key(&self.cluster) {
            let message = format!("the app has no cluster `{}`", self.cluster);
            issues.at(&at("cluster"), message, Some("add it under the app's `clusters`"));
        }
        if self.body > BODY_MAX {
            let help = format!("write an amount up to `{BODY_MAX}`: each such body is held in memory");
            issues.at(&at("body"), "this is no amount to hold", Some(&help));
        }
        if self.bytes < self.body || self.bytes < Size::kib(64) {
            let help = "write at least `64KiB`, and no less than `body`: a request's head counts too";
            issues.at(&at("bytes"), "this is too little to copy with", Some(help));
        }
        if self.timeout.is_zero() {
            let help = "write a length of time, like `10s`";
            issues.at(&at("timeout"), "no time at all would let no copy arrive", Some(help));
        }
    }
}
