//! `http2`: what is particular to HTTP/2, as written.

use crate::http2;
use groove_common::config::{Duration, Issues};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shortest and the longest that may be written.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// What is particular to HTTP/2.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Asks clients whether they are still there; null asks nobody.
    pub ping: Option<Ping>,
    /// Asks servers whether they are still there; null asks nobody.
    pub server_ping: Option<Ping>,
}

/// A PING every so often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ping {
    /// Between an answer and the next question.
    pub interval: Duration,
    /// The connection is closed where an answer takes longer.
    pub timeout: Duration,
}

impl Default for Ping {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(20) }
    }
}

impl From<&Ping> for http2::KeepAlive {
    fn from(written: &Ping) -> Self {
        Self { interval: written.interval.get(), timeout: written.timeout.get() }
    }
}

impl Http2 {
    pub(super) fn check(&self, issues: &mut Issues) {
        for (key, ping) in [("ping", &self.ping), ("server_ping", &self.server_ping)] {
            let Some(ping) = ping else { continue };
            for (name, value, (least, most)) in
                [("interval", ping.interval, INTERVAL), ("timeout", ping.timeout, TIMEOUT)]
            {
                if value < least || value > most {
                    let help = format!("write a length of time from `{least}` to `{most}`");
                    issues.at(&["http2", key, name], format!("{value} is out of range"), Some(&help));
                }
            }
        }
    }
}
