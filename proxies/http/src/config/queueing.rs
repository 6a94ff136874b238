//! `concurrency` and `queue`: how much an app takes at once, and who waits, as written.

use crate::balance;
use groove_common::config::{Duration, Issues, Size};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// How many exchanges each endpoint may have under way. WebSockets count for as long as they live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Never more, by all workers together.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub hard: u32,
    /// Not more while another endpoint is below it. As `hard` if left out.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub soft: Option<u32>,
    /// The hard bound follows each endpoint's latency, and is never more than `hard`.
    #[serde(default)]
    pub adaptive: Adaptive,
}

/// Whether the bound follows latency: `true`, or how.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Adaptive(pub Option<Gradient>);

/// How the bound follows latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gradient {
    /// Never below.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min: u32,
    /// Where it begins.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub initial: u32,
    /// How many times its usual latency an endpoint may take before its bound falls.
    #[schemars(range(min = 1.0, max = 10.0))]
    pub tolerance: f64,
}

impl Default for Gradient {
    fn default() -> Self {
        Self { min: 1, initial: 20, tolerance: 1.5 }
    }
}

impl<'de> Deserialize<'de> for Adaptive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchOrFields;

        impl<'de> Visitor<'de> for SwitchOrFields {
            type Value = Adaptive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, or `{min: 1, initial: 20, tolerance: 1.5}`")
            }

            fn visit_bool<E: serde::de::Error>(self, is_on: bool) -> Result<Adaptive, E> {
                Ok(Adaptive(is_on.then(Gradient::default)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Adaptive, A::Error> {
                Gradient::deserialize(MapAccessDeserializer::new(map))
                    .map(|gradient| Adaptive(Some(gradient)))
            }
        }

        deserializer.deserialize_any(SwitchOrFields)
    }
}

impl Serialize for Adaptive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => serializer.serialize_bool(false),
            Some(gradient) => gradient.serialize(serializer),
        }
    }
}

impl JsonSchema for Adaptive {
    fn schema_name() -> Cow<'static, str> {
        "Adaptive".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<Gradient>();
        json_schema!({
            "description": "Whether the bound follows latency: `true`, or how.",
            "anyOf": [{ "type": "boolean" }, fields],
        })
    }
}

/// Requests that find no endpoint free, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// How many may wait; 0 refuses at once.
    #[schemars(range(max = 1_000_000))]
    pub max: usize,
    /// How many of them may wait for one endpoint, as sessions of a strict `affinity` do; `max` if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_per_endpoint: Option<usize>,
    /// How long one may wait.
    pub timeout: Duration,
    /// How many bytes of them may be held: heads, and what has come of bodies.
    pub bytes: Size,
}

impl Default for Queue {
    fn default() -> Self {
        Self { max: 1000, max_per_endpoint: None, timeout: Duration::from_secs(30), bytes: Size::mib(16) }
    }
}

impl Concurrency {
    /// How its bound follows latency.
    pub fn adaptive(&self) -> Option<balance::Adaptive> {
        self.adaptive.0.as_ref().map(|adaptive| balance::Adaptive {
            min: adaptive.min.min(self.hard),
            max: self.hard,
            initial: adaptive.initial.clamp(adaptive.min.min(self.hard), self.hard),
            tolerance: adaptive.tolerance,
        })
    }

    pub(super) fn check(&self, path: &[&str], issues: &mut Issues) {
        if self.soft.is_some_and(|soft| soft > self.hard) {
            let help = "write no more than `hard`, or leave it out";
            issues.at(
                &[path, &["soft"]].concat(),
                "a soft bound above the hard one would never be met",
                Some(help),
            );
        }
    }
}

impl Queue {
    pub(super) fn check(&self, path: &[&str], issues: &mut Issues) {
        if self.timeout.is_zero() {
            let help = "write a length of time, like `30s`, or `max: 0` for no queue";
            issues.at(&[path, &["timeout"]].concat(), "no time at all would let nobody wait", Some(help));
        }
        if self.bytes < Size::kib(64) {
            let help = "write at least `64KiB`: a request's head counts too";
            issues.at(&[path, &["bytes"]].concat(), "this is too little to wait with", Some(help));
        }
    }
}
