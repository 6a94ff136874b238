//! `clusters.NAME.resize`, as written.

use std::path::PathBuf;

use groove_common::config::{Duration, Issues, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a change of a cluster's servers is carried out. Left out, it happens at once, on each proxy by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Section {
    /// What a changed list of servers leads to.
    pub policy: Policy,
    /// The folder that all proxies of this machine share for this cluster; made if it is not there.
    pub state: Option<PathBuf>,
    /// Keys that the mover moves in a second, at most.
    #[schemars(range(min = 1))]
    pub keys_per_second: u32,
    /// Bytes of values that the mover moves in a second, at most.
    pub bytes_per_second: Size,
    /// How long requests of before a resize may take to die, if a server is stopped just then.
    pub guard: Duration,
    /// A server that does not answer for so long during a resize counts as away.
    pub away_after: Duration,
    /// How long keys may find their own way when an old server does not list them (its crawler is off).
    pub unlisted: Duration,
}

/// What a changed list of servers leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// A resize with no stale read, during which keys are moved.
    #[default]
    Transparent,
    /// The new list at once: keys whose server is another one are lost, and may be stale if it comes back.
    Immediate,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            policy: Policy::Transparent,
            state: None,
            keys_per_second: 10_000,
            bytes_per_second: Size::mib(64),
            guard: Duration::from_secs(2),
            away_after: Duration::from_secs(5),
            unlisted: Duration::from_secs(600),
        }
    }
}

impl Section {
    /// Checks what its types cannot say. `timeout` is the cluster's.
    pub fn check(&self, path: &[&str], timeout: Duration, issues: &mut Issues) {
        let mut at = |key: &str, message: &str, help: &str| {
            let mut path = path.to_vec();
            path.push(key);
            issues.at(&path, message, Some(help));
        };
        if self.keys_per_second == 0 {
            at("keys_per_second", "nothing would ever be moved", "write `10000`");
        }
        if self.bytes_per_second < Size::kib(1) {
            at("bytes_per_second", "hardly anything would ever be moved", "write `64MiB`");
        }
        if self.guard < timeout {
            at("guard", "a request may take longer than this (`timeout`)", "write twice the `timeout`");
        }
        if self.away_after < Duration::from_secs(1) {
            at("away_after", "servers are asked once a second", "write `5s`");
        }
        if self.policy == Policy::Transparent && self.state.is_none() {
            let help = "add `state: FOLDER`, or write `policy: immediate`";
            issues.at_key(path, "a transparent resize needs a place where the proxies agree", Some(help));
        }
    }
}
