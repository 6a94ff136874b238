//! The sections that all three proxies share.

use std::borrow::Cow;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{CertificateFile, Duration, KeyFile, Mode, Secret};
use crate::ids::Address;

/// Where the proxy listens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Where to listen: `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`.
    pub address: Address,
    /// A name for logs and metrics; the address if left out.
    #[serde(default)]
    pub name: Option<String>,
    /// Permissions of a unix socket, like "0660".
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Serve TLS here.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// Take the client's address from a PROXY protocol header (version 1 or 2).
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Connections at once; those over it are closed as soon as they come. No bound of its own if left out.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_connections: Option<u32>,
    /// Connections that the system keeps until the proxy takes them.
    #[serde(default = "default_backlog")]
    #[schemars(range(min = 1, max = 65535))]
    pub backlog: u32,
}

fn default_backlog() -> u32 {
    4096
}

impl Listener {
    /// A listener with nothing but an address.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            name: None,
            mode: None,
            tls: None,
            proxy_protocol: None,
            max_connections: None,
            backlog: default_backlog(),
        }
    }

    /// Its name for logs and metrics.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.address.to_string())
    }
}

/// TLS towards the app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file with the certificate and its chain.
    pub certificate: CertificateFile,
    /// PEM file with the private key.
    pub key: KeyFile,
    /// More certificates. A client is shown the one that has the name it asks for (SNI), and else the one above.
    #[serde(default)]
    pub certificates: Vec<CertificateAndKey>,
    /// PEM file with the authorities that sign clients' certificates.
    #[serde(default)]
    pub client_ca: Option<CertificateFile>,
    /// Whether clients must show a certificate; `required` if left out and there is a `client_ca`.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
}

/// One of several certificates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateAndKey {
    /// PEM file with the certificate and its chain.
    pub certificate: CertificateFile,
    /// PEM file with the private key.
    pub key: KeyFile,
}

impl ServerTls {
    /// What is asked of clients.
    pub fn client_auth(&self) -> ClientAuth {
        self.client_auth.unwrap_or(if self.client_ca.is_some() {
            ClientAuth::Required
        } else {
            ClientAuth::None
        })
    }
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They are asked; one that is shown must be good.
    Optional,
    /// They must show a good one.
    Required,
}

/// The PROXY protocol on a listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Networks whose header is believed, like 10.0.0.0/8. Others are refused.
    #[schemars(with = "Vec<Network>")]
    #[schemars(length(min = 1))]
    pub trusted: Vec<IpNet>,
}

/// Stands for [`IpNet`] in the schema.
#[derive(Debug)]
pub struct Network;

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "network", "description": "A network like 10.0.0.0/8." })
    }
}

/// The admin server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Where it listens. Only this machine can reach it unless there is a token.
    pub address: Address,
    /// Asked of everyone as `Authorization: Bearer`.
    #[serde(default)]
    pub token: Option<Secret>,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `auto` is human on a terminal and json elsewhere.
    pub format: LogFormat,
    /// error, warn, info, debug or trace; or a filter like `info,groove_common::net=debug`.
    #[schemars(extend("format" = "log-level"))]
    pub level: String,
    /// One line an exchange; none if left out.
    pub access: Option<AccessLog>,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned(), access: None }
    }
}

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// The share of exchanges that is logged, 0 to 1. Errors are always logged.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { sample: 1.0 }
    }
}

/// How long a drain may take before what is left is cut.
pub fn default_drain() -> Duration {
    Duration::from_secs(30)
}

/// How the health of servers is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Ask each server on its own connection; null does not.
    pub probe: Option<Probe>,
    /// Watch the exchanges themselves.
    pub breaker: Breaker,
    /// How long a server that joined or recovered takes to get its full share; 0s gives it at once.
    pub slow_start: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self { probe: Some(Probe::default()), breaker: Breaker::default(), slow_start: Duration::default() }
    }
}

/// Active: the proxy asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// Between two probes of a server.
    pub interval: Duration,
    /// For one probe; at most the interval.
    pub timeout: Duration,
    /// Failed probes in a row that make a server unhealthy.
    #[schemars(range(min = 1))]
    pub failures: u32,
    /// Good probes in a row that make it healthy again.
    #[schemars(range(min = 1))]
    pub successes: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), timeout: Duration::from_secs(1), failures: 2, successes: 1 }
    }
}

/// Passive: failures of exchanges eject a server for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Failures in a row that eject; 0 never does.
    pub consecutive_failures: u32,
    /// The first ejection; the n-th in a row is n times as long.
    pub base_ejection: Duration,
    /// The longest ejection.
    pub max_ejection: Duration,
    /// The share of a cluster that may be ejected at once, 0 to 1; one server always may, the last one never.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_share: f64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection: Duration::from_secs(1),
            max_ejection: Duration::from_secs(60),
            max_share: 0.5,
        }
    }
}

/// TLS towards the servers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    /// PEM file with the authorities to believe; the system's own if left out.
    pub ca: Option<CertificateFile>,
    /// PEM file with our certificate, if the server asks for one.
    pub certificate: Option<CertificateFile>,
    /// PEM file with its private key.
    pub key: Option<KeyFile>,
    /// The name to expect in the server's certificate; the endpoint's host if left out.
    pub server_name: Option<String>,
    /// How much of the server's certificate is checked.
    pub verify: Verify,
}

/// How much of a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// That an authority signed it, for this name.
    #[default]
    Full,
    /// That an authority signed it.
    Ca,
    /// Nothing: encrypted, but with whom is not known.
    None,
}
