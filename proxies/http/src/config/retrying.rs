//! `retry` and `outlier`: what is tried again, and what counts against a server, as written.

use groove_common::config::{Duration, Issues};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::str::FromStr;

/// The shortest time by which servers are judged.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Requests that failed are sent again, to another server if there is one. Only those that may be: of which nothing was
/// sent, or that are idempotent and whole; and nothing of a reply has reached the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How often one request is sent again.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u32,
    /// After what.
    pub on: Vec<Failure>,
    /// Requests that are not idempotent too (POST, PATCH), where a server may have acted on them.
    pub non_idempotent: bool,
    /// How many requests may be sent again, so that a server in trouble does not get more of it.
    pub budget: Budget,
    /// How long is waited before.
    pub backoff: Backoff,
}

impl Default for Retry {
    fn default() -> Self {
        let statuses = [502, 503, 504].map(|status| Failure::Status(status..=status));
        let on = [Failure::Connect, Failure::Reset].into_iter().chain(statuses).collect();
        Self {
            attempts: 2,
            on,
            non_idempotent: false,
            budget: Budget::default(),
            backoff: Backoff::default(),
        }
    }
}

/// How many requests may be sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// For each hundred requests.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub percent: f64,
    /// Beside them, so that the few requests of a quiet app can be sent again.
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub min_per_second: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { percent: 20.0, min_per_second: 10.0 }
    }
}

/// How long is waited before a request is sent again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// At most so long before the first time; twice as long before each further one. A random part of it, from half on.
    pub base: Duration,
    /// Never longer.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_secs(1) }
    }
}

/// What counts against a server beside connections that fail or break.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outlier {
    /// Replies with these statuses: `health.breaker.consecutive_failures` of them in a row eject the server.
    #[serde(default = "server_errors")]
    #[schemars(length(min = 1))]
    pub on: Vec<Failure>,
    /// Ejects servers that fail more often than the others.
    #[serde(default)]
    pub success_rate: Option<SuccessRate>,
}

fn server_errors() -> Vec<Failure> {
    vec![Failure::Status(500..=599)]
}

/// Every interval the share of exchanges that went well is looked at, server by server: who is far below the others is
/// ejected, by the times of `health.breaker` (Envoy's success rate).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessRate {
    /// How often they are looked at.
    pub interval: Duration,
    /// With fewer servers that have had `request_volume` nobody is ejected.
    #[schemars(range(min = 2, max = 65536))]
    pub minimum_hosts: usize,
    /// Exchanges in an interval, with fewer of which a server is not judged.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub request_volume: u64,
    /// How many standard deviations below the mean is too far.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub stdev_factor: f64,
    /// How many of a hundred servers may be out at once; one always may, the last one never.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub max_ejection_percent: f64,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor: 1.9,
            max_ejection_percent: 10.0,
        }
    }
}

/// A way to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be opened: nothing was sent.
    Connect,
    /// The connection ended before a byte of the reply.
    Reset,
    /// The reply did not begin in time.
    Timeout,
    /// A reply with one of these statuses.
    Status(std::ops::RangeInclusive<u16>),
}

impl FromStr for Failure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "connect-failure" => Ok(Self::Connect),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            "5xx" => Ok(Self::Status(500..=599)),
            _ => match text.parse::<u16>() {
                Ok(status @ 400..=599) => Ok(Self::Status(status..=status)),
                Ok(_) | Err(_) => Err(format!(
                    "`{text}` is no failure: write `connect-failure`, `reset`, `timeout`, `5xx` or a status like `503`"
                )),
            },
        }
    }
}

impl Failure {
    fn text(&self) -> String {
        match self {
            Self::Connect => "connect-failure".to_owned(),
            Self::Reset => "reset".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Status(statuses) if statuses.start() == statuses.end() => statuses.start().to_string(),
            Self::Status(_) => "5xx".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Failure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl JsonSchema for Failure {
    fn schema_name() -> Cow<'static, str> {
        "Failure".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`connect-failure`, `reset`, `timeout`, `5xx`, or a status like `503`.",
            "anyOf": [
                { "type": "string", "format": "failure" },
                { "type": "integer", "minimum": 400, "maximum": 599 },
            ],
        })
    }
}

impl Retry {
    pub(super) fn check(&self, path: &[&str], issues: &mut Issues) {
        if self.on.is_empty() {
            let help = "write some, like `[connect-failure, reset, 503]`, or leave it out";
            issues.at(&[path, &["on"]].concat(), "nothing is ever sent again", Some(help));
        }
        if self.backoff.base > self.backoff.max {
            issues.at(
                &[path, &["backoff", "base"]].concat(),
                "this is longer than `max`",
                Some("write no more than `max`"),
            );
        }
    }
}

impl Outlier {
    pub(super) fn check(&self, path: &[&str], issues: &mut Issues) {
        for (index, failure) in self.on.iter().enumerate() {
            if !matches!(failure, Failure::Status(_)) {
                let index = index.to_string();
                let help = "write statuses only, like `[5xx]` or `[502, 503]`";
                issues.at(&[path, &["on", &index]].concat(), "this counts anyhow", Some(help));
            }
        }
        if self.success_rate.as_ref().is_some_and(|rate| rate.interval < INTERVAL_MIN) {
            let help = "write at least `100ms`: little can be told of less";
            let at = [path, &["success_rate", "interval"]].concat();
            issues.at(&at, "this is too short to judge anybody by", Some(help));
        }
    }
}
