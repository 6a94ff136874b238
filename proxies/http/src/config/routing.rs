//! What a route looks at and what it does, in Gateway API's words.

use groove_common::config::Duration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// What a header, query parameter or cookie has to be: a text is this value and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// This value.
    Exact(String),
    /// All of the value is what this expression describes.
    Regex(String),
    /// It is there, whatever its value, or it is not.
    Present(bool),
}

/// One of the two.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ValueFields {
    /// All of the value is what this expression describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    /// It is there, whatever its value; false: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    present: Option<bool>,
}

impl<'de> Deserialize<'de> for ValueMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = ValueMatch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, `{regex: EXPRESSION}` or `{present: true}`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ValueMatch, E> {
                Ok(ValueMatch::Exact(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ValueMatch, A::Error> {
                match ValueFields::deserialize(MapAccessDeserializer::new(map))? {
                    ValueFields { regex: Some(regex), present: None } => Ok(ValueMatch::Regex(regex)),
                    ValueFields { regex: None, present: Some(present) } => Ok(ValueMatch::Present(present)),
                    ValueFields { .. } => Err(A::Error::custom("write one of `regex` and `present`")),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl Serialize for ValueMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = match self {
            Self::Exact(text) => return serializer.serialize_str(text),
            Self::Regex(regex) => ValueFields { regex: Some(regex.clone()), present: None },
            Self::Present(present) => ValueFields { regex: None, present: Some(*present) },
        };
        fields.serialize(serializer)
    }
}

impl JsonSchema for ValueMatch {
    fn schema_name() -> Cow<'static, str> {
        "ValueMatch".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<ValueFields>();
        json_schema!({ "anyOf": [{ "type": "string" }, fields] })
    }
}

/// One of several clusters that share a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Which of the app's `clusters`; its own endpoints if left out.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Its part of the sum of all weights; 0 gets none.
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
}

/// Sends the client elsewhere. What is left out stays as the client asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// `http` or `https`. Where nothing but this and `port` is given, who speaks it already is served.
    pub scheme: Option<String>,
    /// Another host.
    pub host: Option<String>,
    /// Another port. Left out with another scheme: the one that is usual there.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The whole path; the query stays.
    pub path: Option<String>,
    /// What takes the place of the route's prefix.
    pub prefix: Option<String>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { scheme: None, host: None, port: None, path: None, prefix: None, status: 302 }
    }
}

impl Redirect {
    /// Only another scheme: who speaks it already is served as if there were no redirect.
    pub(super) fn wants_scheme_alone(&self) -> bool {
        self.scheme.is_some() && self.host.is_none() && self.path.is_none() && self.prefix.is_none()
    }
}

/// What the server is asked for instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// Another Host.
    pub host: Option<String>,
    /// The whole path; the query stays.
    pub path: Option<String>,
    /// What takes the place of the route's prefix.
    pub prefix: Option<String>,
}

/// An answer that no server is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// Its status.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Its body.
    #[serde(default)]
    pub body: String,
}

/// Which pages of other origins may read the replies (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins as browsers write them, `https://shop.example.com`; `https://*.example.com` for all below it; `*` for all.
    #[schemars(length(min = 1))]
    pub allow_origins: Vec<String>,
    /// Methods besides GET, HEAD and POST.
    #[serde(default)]
    pub allow_methods: Vec<String>,
    /// Request headers that pages may set; `*` for all.
    #[serde(default)]
    pub allow_headers: Vec<String>,
    /// Reply headers that pages may read; `*` for all.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Cookies and the like may come along. Not with `*`.
    #[serde(default)]
    pub allow_credentials: bool,
    /// How long a browser may remember what it was told.
    #[serde(default = "default_max_age")]
    pub max_age: Duration,
}

fn default_max_age() -> Duration {
    Duration::from_secs(600)
}
