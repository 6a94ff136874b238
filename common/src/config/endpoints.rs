//! Where servers are: a list, or one source that knows.
//!
//! ```yaml
//! endpoints: [10.0.0.1:11211, {address: 10.0.0.2:11211, weight: 2, zone: b}]
//! endpoints: [{address: 10.0.0.1:5432, role: primary}]  # copies of one database, where the proxy has use for it
//! endpoints: {dns: cache.internal:11211}              # A and AAAA
//! endpoints: {dns: _memcache._tcp.internal}           # SRV, which brings the port
//! endpoints: {dns: {name: cache.internal, port: 11211, refresh: 10s}}
//! endpoints: {elasticache: x.cfg.use1.cache.amazonaws.com:11211}  # a configuration endpoint, asked again and again
//! endpoints: {file: endpoints.yaml}                   # a file with such a list, watched
//! endpoints: {embedded: {capacity: 64MiB}}            # the proxy's own store, where it has one
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ClientTls, Duration, InputFile, Size};
use crate::ids::Address;

/// Where a cluster's servers are.
#[derive(Debug, Clone, PartialEq)]
pub enum Endpoints {
    /// Written in the configuration.
    Static(Vec<Endpoint>),
    /// Asked of DNS, again and again.
    Dns(Dns),
    /// Asked of a server that speaks ElastiCache's auto discovery, again and again.
    Elasticache(Box<Elasticache>),
    /// A file with a list of endpoints, watched.
    File(InputFile),
    /// No server at all: the proxy's own store. Only where the proxy has one.
    Embedded(Embedded),
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it answers.
    pub address: Address,
    /// What hash rings know it by, if not by its address.
    pub name: Option<String>,
    /// Its share of the work beside the others'; 0 gets none.
    pub weight: u32,
    /// Where it stands, to prefer the near.
    pub zone: Option<String>,
    /// What it is among the copies of one database, where that is declared. Only where the proxy has use for it.
    pub role: Option<EndpointRole>,
    /// Whatever else is known of it.
    pub metadata: BTreeMap<String, String>,
}

/// What a server is among the copies of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EndpointRole {
    /// It takes writes.
    Primary,
    /// It follows the primary, and is read from.
    Replica,
}

/// Servers by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The name to ask for.
    pub name: String,
    /// The port of A and AAAA answers; none asks for SRV, which brings its own.
    pub port: Option<u16>,
    /// Ask at least this often, whatever the answer's TTL.
    pub refresh: Duration,
}

/// A configuration endpoint of ElastiCache's, or whoever answers like one.
#[derive(Debug, Clone, PartialEq)]
pub struct Elasticache {
    /// Whom to ask.
    pub address: Address,
    /// How often.
    pub refresh: Duration,
    /// Ask it over TLS.
    pub tls: Option<ClientTls>,
}

/// The proxy's own store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// How much it may hold in memory.
    pub capacity: Size,
    /// What memory gives up is kept on disk. Left out: it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<EmbeddedDisk>,
}

/// The disk tier of the proxy's own store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedDisk {
    /// A directory on a local file system. It is made if it is not there; one process uses it at a time.
    pub path: PathBuf,
    /// How much it may take. Over that, the oldest items go.
    pub capacity: Size,
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        Self { address, name: None, weight: 1, zone: None, role: None, metadata: BTreeMap::new() }
    }
}

impl FromStr for Endpoint {
    type Err = crate::ids::AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Address>().map(Self::from)
    }
}

impl FromStr for Dns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('_') && !text.contains(':') {
            return Ok(Self { name: text.to_owned(), port: None, refresh: default_refresh() });
        }
        match text.parse::<Address>() {
            Ok(Address::Tcp { host, port }) => {
                Ok(Self { name: host, port: Some(port), refresh: default_refresh() })
            }
            Ok(Address::Unix(_)) => Err("DNS knows no unix sockets: write `NAME:PORT`".to_owned()),
            Err(error) => Err(format!("{error}, or `_SERVICE._tcp.NAME` to ask for SRV")),
        }
    }
}

impl FromStr for Elasticache {
    type Err = crate::ids::AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { address: text.parse()?, refresh: default_poll(), tls: None })
    }
}

fn default_poll() -> Duration {
    Duration::from_secs(60)
}

fn default_weight() -> u32 {
    1
}

fn default_refresh() -> Duration {
    Duration::from_secs(30)
}

/// A server, and what is known of it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "EndpointFields")]
#[serde(deny_unknown_fields)]
struct EndpointFields {
    /// Where it answers: `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`.
    address: Address,
    /// What hash rings know it by, if not by its address: twemproxy's server names, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    name: Option<String>,
    /// Its share of the work beside the others'; 0 gets none.
    #[serde(default = "default_weight")]
    #[schemars(range(max = 1_000_000))]
    weight: u32,
    /// Where it stands, to prefer the near.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    /// What it is among the copies of one database, so that it need not be asked. Only for PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<EndpointRole>,
    /// Whatever else is known of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

impl From<EndpointFields> for Endpoint {
    fn from(fields: EndpointFields) -> Self {
        let EndpointFields { address, name, weight, zone, role, metadata } = fields;
        Self { address, name, weight, zone, role, metadata }
    }
}

/// Servers by name, and how to ask.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DnsFields {
    /// The name to ask for.
    #[schemars(length(min = 1))]
    name: String,
    /// The port of A and AAAA answers; left out asks for SRV, which brings its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    port: Option<u16>,
    /// Ask at least this often, whatever the answer's TTL.
    #[serde(default = "default_refresh")]
    refresh: Duration,
}

impl From<DnsFields> for Dns {
    fn from(fields: DnsFields) -> Self {
        let DnsFields { name, port, refresh } = fields;
        Self { name, port, refresh }
    }
}

/// A configuration endpoint, and how to ask it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ElasticacheFields {
    /// Whom to ask: `HOST:PORT`.
    address: Address,
    /// How often to ask.
    #[serde(default = "default_poll")]
    refresh: Duration,
    /// Ask it over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<ClientTls>,
}

impl From<ElasticacheFields> for Elasticache {
    fn from(fields: ElasticacheFields) -> Self {
        let ElasticacheFields { address, refresh, tls } = fields;
        Self { address, refresh, tls }
    }
}

impl<'de> Deserialize<'de> for Elasticache {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_fields::<_, _, ElasticacheFields>(deserializer, "HOST:PORT or `{address: HOST:PORT, ...}`")
    }
}

impl Serialize for Elasticache {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { address, refresh, tls } = self.clone();
        ElasticacheFields { address, refresh, tls }.serialize(serializer)
    }
}

impl JsonSchema for Elasticache {
    fn schema_name() -> Cow<'static, str> {
        "Elasticache".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (address, fields) =
            (generator.subschema_for::<Address>(), generator.subschema_for::<ElasticacheFields>());
        json_schema!({
            "description": "A configuration endpoint of ElastiCache's: HOST:PORT.",
            "anyOf": [address, fields],
        })
    }
}

/// Reads a value that is a text in its short form and a mapping in its long one, without an untagged
/// enum: those lose the place of an error.
fn text_or_fields<'de, D, T, F>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display> + From<F>,
    F: DeserializeOwned,
{
    struct TextOrFields<T, F>(&'static str, PhantomData<(T, F)>);

    impl<'de, T: FromStr<Err: fmt::Display> + From<F>, F: DeserializeOwned> Visitor<'de> for TextOrFields<T, F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            F::deserialize(MapAccessDeserializer::new(map)).map(T::from)
        }
    }

    deserializer.deserialize_any(TextOrFields(expecting, PhantomData))
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_fields::<_, _, EndpointFields>(deserializer, "HOST:PORT or `{address: HOST:PORT, ...}`")
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { address, name, weight, zone, role, metadata } = self.clone();
        EndpointFields { address, name, weight, zone, role, metadata }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Dns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_fields::<_, _, DnsFields>(deserializer, "NAME:PORT or `{name: NAME, port: PORT}`")
    }
}

impl Serialize for Dns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, port, refresh } = self.clone();
        DnsFields { name, port, refresh }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Endpoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EndpointsVisitor)
    }
}

struct EndpointsVisitor;

impl<'de> Visitor<'de> for EndpointsVisitor {
    type Value = Endpoints;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of endpoints, or one source like `{dns: NAME:PORT}`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Endpoints, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Endpoints::Static)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Endpoints, A::Error> {
        let Some(kind) = map.next_key::<String>()? else {
            return Err(A::Error::custom("a source is missing: write `{dns: NAME:PORT}` or `{file: PATH}`"));
        };
        let endpoints = match kind.as_str() {
            "dns" => Endpoints::Dns(map.next_value()?),
            "elasticache" => Endpoints::Elasticache(Box::new(map.next_value()?)),
            "file" => Endpoints::File(map.next_value()?),
            "embedded" => Endpoints::Embedded(map.next_value()?),
            _ => return Err(A::Error::unknown_variant(&kind, &["dns", "elasticache", "file", "embedded"])),
        };
        match map.next_key::<String>()? {
            Some(_) => Err(A::Error::custom("endpoints come from one source only")),
            None => Ok(endpoints),
        }
    }
}

impl Serialize for Endpoints {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Static(list) => serializer.collect_seq(list),
            Self::Dns(dns) => serializer.collect_map([("dns", dns)]),
            Self::Elasticache(source) => serializer.collect_map([("elasticache", &**source)]),
            Self::File(path) => serializer.collect_map([("file", path)]),
            Self::Embedded(store) => serializer.collect_map([("embedded", store)]),
        }
    }
}

impl JsonSchema for Endpoint {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (address, fields) =
            (generator.subschema_for::<Address>(), generator.subschema_for::<EndpointFields>());
        json_schema!({ "description": "A server.", "anyOf": [address, fields] })
    }
}

impl JsonSchema for Dns {
    fn schema_name() -> Cow<'static, str> {
        "Dns".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<DnsFields>();
        json_schema!({
            "description": "Servers by name: NAME:PORT, or _SERVICE._tcp.NAME for SRV.",
            "anyOf": [{ "type": "string", "format": "dns-name" }, fields],
        })
    }
}

impl JsonSchema for Endpoints {
    fn schema_name() -> Cow<'static, str> {
        "Endpoints".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let list = generator.subschema_for::<Vec<Endpoint>>();
        let dns = generator.subschema_for::<Dns>();
        let file = json_schema!({
            "type": "string",
            "format": "endpoints-file",
            "description": "A YAML file with a list of endpoints, watched.",
        });
        let elasticache = generator.subschema_for::<Elasticache>();
        let embedded = generator.subschema_for::<Embedded>();
        let source = json_schema!({
            "type": "object",
            "description": "One source that knows the servers.",
            "properties": { "dns": dns, "elasticache": elasticache, "file": file, "embedded": embedded },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
            "x-key": "source",
        });
        json_schema!({ "description": "Servers: a list, or one source.", "anyOf": [list, source] })
    }
}
