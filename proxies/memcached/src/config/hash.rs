//! `clusters.X.hash`: how a key finds its server, in the words of those whose caches are to stay warm.

use std::str::FromStr;

use groove_common::balance::{Distribution, Function, Hasher, Part, Rule};
use groove_common::config::{Endpoint, Endpoints, Issues};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a key finds its server. Left out: `xxh3` and `jump`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hash {
    /// Sets function and distribution to those that this client has unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// The hash function of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<Function>,
    /// How hashes are spread over servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Two characters: only what stands between them in a key is hashed, so that keys with the same tag share a
    /// server. twemproxy's `hash_tag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// For `ch3`: the weight that is mcrouter's 1.0; the greatest of the weights if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub full_weight: Option<u32>,
}

/// A client whose way to hash is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `fnv1a_64`, `ketama`.
    Twemproxy,
    /// `one_at_a_time`, `modula`.
    Libmemcached,
    /// `md5`, `ketama_spymemcached`: its `KetamaConnectionFactory`.
    Spymemcached,
    /// `md5`, `ketama_evcache`.
    Evcache,
    /// `murmur3_32`, `rendezvous`.
    Pymemcache,
    /// `crc32a`, `dalli`.
    Dalli,
    /// `furc`, `ch3`; only what stands before a `|#|` is hashed.
    Mcrouter,
    /// `crc32`, `modula`.
    #[serde(rename = "python-memcached")]
    PythonMemcached,
}

impl Dialect {
    fn defaults(self) -> (Function, Distribution) {
        match self {
            Self::Twemproxy => (Function::Fnv1aX64, Distribution::Ketama),
            Self::Libmemcached => (Function::OneAtATime, Distribution::Modula),
            Self::Spymemcached => (Function::Md5, Distribution::KetamaSpymemcached),
            Self::Evcache => (Function::Md5, Distribution::KetamaEvcache),
            Self::Pymemcache => (Function::Murmur3, Distribution::Rendezvous),
            Self::Dalli => (Function::Crc32a, Distribution::Dalli),
            Self::Mcrouter => (Function::Furc, Distribution::Ch3),
            Self::PythonMemcached => (Function::Crc32, Distribution::Modula),
        }
    }
}

/// The two characters around a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(#[schemars(with = "String", length(min = 2, max = 2))] [u8; 2]);

impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match *text.as_bytes() {
            [open, close] if open.is_ascii_graphic() && close.is_ascii_graphic() => Ok(Self([open, close])),
            _ => Err("write two characters, such as `\"{}\"`".to_owned()),
        }
    }
}

impl TryFrom<String> for Tag {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0.map(char::from).iter().collect()
    }
}

impl Hash {
    /// How its keys are hashed.
    pub fn hasher(&self) -> Hasher {
        let part = match (self.tag, self.dialect) {
            (Some(Tag([open, close])), _) => Part::Tag(open, close),
            (None, Some(Dialect::Mcrouter)) => Part::Stop,
            (None, _) => Part::Whole,
        };
        Hasher { function: self.rule().function, part }
    }

    /// Where they go.
    pub fn rule(&self) -> Rule {
        let (function, distribution) = self.dialect.map(Dialect::defaults).unwrap_or_default();
        let distribution = match (self.distribution.unwrap_or(distribution), self.dialect) {
            (Distribution::Modula, Some(Dialect::Twemproxy)) => Distribution::ModulaByName,
            (distribution, _) => distribution,
        };
        // Where only one function fits there is nothing to say.
        let fitting = match distribution.functions() {
            [only] => *only,
            fitting if fitting.is_empty() || fitting.contains(&function) => function,
            _ => Function::Xxh3,
        };
        Rule { function: self.function.unwrap_or(fitting), distribution, full_weight: self.full_weight }
    }

    pub(super) fn check(&self, name: &str, endpoints: &Endpoints, issues: &mut Issues) {
        let Rule { function, distribution, .. } = self.rule();
        let fitting = distribution.functions();
        if !fitting.is_empty() && !fitting.contains(&function) {
            let names: Vec<_> = fitting.iter().map(|function| format!("`{}`", function.name())).collect();
            let help = format!("write {}, or leave `function` out", names.join(" or "));
            let path = ["clusters", name, "hash", "function"];
            issues.at(&path, "this distribution does not go with this function", Some(&help));
        }
        if function == Function::Furc && distribution != Distribution::Ch3 {
            let path = ["clusters", name, "hash", "function"];
            issues.at(&path, "this function is for `ch3` only", Some("add `distribution: ch3`"));
        }
        if self.full_weight.is_some() && distribution != Distribution::Ch3 {
            let path = ["clusters", name, "hash", "full_weight"];
            issues.at_key(&path, "only `ch3` has a full weight", Some("take it away"));
        }
        if self.full_weight == Some(0) {
            let path = ["clusters", name, "hash", "full_weight"];
            issues.at(&path, "no weight is a part of 0", Some("write the weight that is mcrouter's 1.0"));
        }
        if let Endpoints::Static(servers) = endpoints {
            self.check_weights(&["clusters", name, "endpoints"], servers, issues);
        }
    }

    /// Weights of servers at `path`, where this distribution has none.
    pub(super) fn check_weights(&self, path: &[&str], servers: &[Endpoint], issues: &mut Issues) {
        let Rule { function, distribution, .. } = self.rule();
        if distribution.takes_weights(function) {
            return;
        }
        for (index, _) in servers.iter().enumerate().filter(|(_, server)| server.weight != 1) {
            let number = index.to_string();
            let path = [path, &[&number, "weight"]].concat();
            let help = "leave `weight` out, or choose one of the rings, `modula` or `ch3`";
            issues.at_key(&path, "this distribution gives every server the same share", Some(help));
        }
    }
}
