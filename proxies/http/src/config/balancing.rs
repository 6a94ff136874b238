//! `balance` and `affinity`: which endpoint a request gets, as written.

use groove_common::config::{Issues, Secret};
use regex::bytes::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::fmt;

use crate::wire::scan::is_token;

/// A shorter secret can be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// Which endpoint takes a request, where any will do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The one with the fewest exchanges under way for its weight; among equals a random one.
    #[default]
    LeastLoaded,
    /// The better of two random ones.
    P2c,
    /// The one that is expected to answer first.
    PeakEwma,
    /// By turns, in proportion to weight.
    RoundRobin,
    /// Always the same one for the same value; when endpoints come and go, few values move.
    Hash(HashKey),
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The value of this header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The value of this parameter of the query, as it is written.
    Query(String),
    /// The client's address.
    ClientIp,
    /// The path.
    Path,
}

/// Requests of one session reach the endpoint that holds its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// What tells sessions apart. A request without it goes wherever there is room.
    pub by: SessionKey,
    /// What to do when the session's endpoint cannot take a request now.
    #[serde(default)]
    pub mode: AffinityMode,
}

/// What tells sessions apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionKey {
    /// A cookie: the app's own by its name, or one that the proxy makes.
    Cookie(SessionCookie),
    /// The value of this header.
    Header(String),
    /// The value of this parameter of the query, as it is written.
    Query(String),
    /// What the first group of this regular expression (or all of it) matches in the path.
    Path(String),
    /// The n-th part of the path, from 1 on: 2 is `7` in `/games/7/moves`.
    Segment(#[schemars(range(min = 1, max = 64))] usize),
    /// This claim of the token in `Authorization: Bearer`. The token is not verified here.
    JwtClaim(String),
}

/// What to do when a session's endpoint cannot take a request now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AffinityMode {
    /// Wait for it, as long as it is among the endpoints.
    Strict,
    /// Take another one.
    #[default]
    Soft,
}

/// A cookie that tells sessions apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionCookie {
    /// Its name.
    pub name: String,
    /// The proxy sets it, and it names the endpoint: sessions stay where they are when endpoints come.
    pub generate: bool,
    /// What the cookie's value is made with, so that it tells nobody anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

/// A cookie that tells sessions apart, in its long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CookieFields {
    /// Its name.
    name: String,
    /// The proxy sets it, and it names the endpoint: sessions stay where they are when endpoints come.
    #[serde(default)]
    generate: bool,
    /// What the cookie's value is made with, so that it tells nobody anything. The same on every proxy of an app.
    #[serde(default)]
    secret: Option<Secret>,
}

impl<'de> Deserialize<'de> for SessionCookie {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrFields;

        impl<'de> Visitor<'de> for NameOrFields {
            type Value = SessionCookie;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a cookie, or `{name: NAME, generate: true, secret: ...}`")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<SessionCookie, E> {
                Ok(SessionCookie { name: name.to_owned(), generate: false, secret: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SessionCookie, A::Error> {
                let CookieFields { name, generate, secret } =
                    CookieFields::deserialize(MapAccessDeserializer::new(map))?;
                Ok(SessionCookie { name, generate, secret })
            }
        }

        deserializer.deserialize_any(NameOrFields)
    }
}

impl JsonSchema for SessionCookie {
    fn schema_name() -> Cow<'static, str> {
        "SessionCookie".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<CookieFields>();
        json_schema!({
            "description": "A cookie that tells sessions apart.",
            "anyOf": [{ "type": "string" }, fields],
        })
    }
}

impl Balance {
    pub(super) fn check(&self, path: &[&str], issues: &mut Issues) {
        if let Self::Hash(key) = self {
            key.check(&[path, &["hash"]].concat(), issues);
        }
    }
}

impl HashKey {
    pub(super) fn check(&self, path: &[&str], issues: &mut Issues) {
        match self {
            Self::Header(name) => token(&[path, &["header"]].concat(), name, issues),
            Self::Cookie(name) => token(&[path, &["cookie"]].concat(), name, issues),
            Self::Query(name) => not_empty(&[path, &["query"]].concat(), name, issues),
            Self::ClientIp | Self::Path => {}
        }
    }
}

impl Affinity {
    pub(super) fn check(&self, path: &[&str], issues: &mut Issues) {
        let at = |key: &'static str| [path, &["by", key]].concat();
        match &self.by {
            SessionKey::Cookie(cookie) => cookie.check(&at("cookie"), issues),
            SessionKey::Header(name) => token(&at("header"), name, issues),
            SessionKey::Query(name) => not_empty(&at("query"), name, issues),
            SessionKey::Path(pattern) => {
                if let Err(error) = Regex::new(pattern) {
                    let help = "write one like `^/games/([^/]+)`";
                    let what = error.to_string();
                    let what = what.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    issues.at(&at("path"), format!("this is no regular expression: {what}"), Some(help));
                }
            }
            SessionKey::Segment(_) => {}
            SessionKey::JwtClaim(name) => not_empty(&at("jwt_claim"), name, issues),
        }
    }
}

impl SessionCookie {
    fn check(&self, path: &[&str], issues: &mut Issues) {
        if self.name.is_empty() || !self.name.bytes().all(is_token) {
            let help = "write letters, digits, `-` and `_`";
            issues.at(path, "this is no name of a cookie", Some(help));
        }
        match &self.secret {
            None if self.generate => {
                let help = "add `secret: {env: NAME}`, the same on every proxy of this app";
                issues.at(path, "a cookie that names an endpoint is made with a secret", Some(help));
            }
            Some(secret) if secret.expose().len() < SECRET_BYTES_MIN => {
                let help = "write at least 16 random characters";
                issues.at(&[path, &["secret"]].concat(), "this secret is too short", Some(help));
            }
            Some(_) | None => {}
        }
    }
}

fn token(path: &[&str], name: &str, issues: &mut Issues) {
    if name.is_empty() || !name.bytes().all(is_token) {
        issues.at(path, "this is no name", Some("write letters, digits, `-` and `_`"));
    }
}

fn not_empty(path: &[&str], name: &str, issues: &mut Issues) {
    if name.is_empty() {
        issues.at(path, "this name is empty", Some("write a name"));
    }
}
