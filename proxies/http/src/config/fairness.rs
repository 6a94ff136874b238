//! `limits.in_flight`: how much the proxy has under way, and who goes first when that is reached, as written.

use crate::fair::Bounds;
use groove_common::config::{Duration, Issues};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many exchanges the proxy has under way. When it has so many, apps and their tenants go by turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InFlight {
    /// Never more, by all workers together. Upgraded connections do not count.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max: usize,
    /// How many requests may wait in each of the queues, of which an app (or a tenant of it) has six.
    #[serde(default = "default_queue")]
    #[schemars(range(max = 1_000_000))]
    pub queue: usize,
    /// How long one may wait.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
}

fn default_queue() -> usize {
    100
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

impl InFlight {
    /// As the proxy keeps them.
    pub fn bounds(&self) -> Bounds {
        Bounds { limit: self.max, length_max: self.queue, age_max: self.timeout.get() }
    }

    pub(super) fn check(&self, issues: &mut Issues) {
        if self.timeout.is_zero() {
            let help = "write a length of time, like `10s`, or `queue: 0` for no queue";
            issues.at(
                &["limits", "in_flight", "timeout"],
                "no time at all would let nobody wait",
                Some(help),
            );
        }
    }
}
