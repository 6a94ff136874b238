//! What is said to servers before HTTP, and how slow clients may be, as written.

use groove_common::config::{Duration, Issues, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the PROXY protocol that servers are spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl From<ProxyProtocol> for groove_common::net::ProxyVersion {
    fn from(written: ProxyProtocol) -> Self {
        match written {
            ProxyProtocol::V1 => Self::V1,
            ProxyProtocol::V2 => Self::V2,
        }
    }
}

/// How slowly a client may send its body and take its reply, counted while the proxy waits for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MinRate {
    /// Bytes a second.
    pub rate: Size,
    /// So much time it may be behind that.
    #[serde(default = "default_grace")]
    pub grace: Duration,
}

fn default_grace() -> Duration {
    Duration::from_secs(10)
}

/// Checks `limits.min_rate`.
pub(super) fn min_rate(written: Option<&MinRate>, issues: &mut Issues) {
    let Some(MinRate { rate, grace }) = written else { return };
    if rate.0 == 0 {
        issues.at(
            &["limits", "min_rate", "rate"],
            "everything is as fast as this",
            Some("leave `min_rate` out for no bound"),
        );
    }
    if grace.is_zero() {
        let help = "write a length of time, like `10s`: nobody sends all the time";
        issues.at(&["limits", "min_rate", "grace"], "no client is never behind", Some(help));
    }
}
