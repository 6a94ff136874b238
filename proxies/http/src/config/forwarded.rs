//! What servers are told of who asks, as written.

use crate::identity::Tracing;
use crate::wire::{Node, Says};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is added to each request. What is switched off here passes from trusted peers, and is removed from others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_excessive_bools, reason = "switches, each of one header")]
pub struct Forwarded {
    /// X-Forwarded-For: the peer's address, behind those that trusted peers bring.
    pub x_forwarded_for: bool,
    /// X-Forwarded-Proto: `http` or `https`.
    pub x_forwarded_proto: bool,
    /// X-Forwarded-Host: the host that was asked for.
    pub x_forwarded_host: bool,
    /// X-Forwarded-Port: the listener's port.
    pub x_forwarded_port: bool,
    /// X-Real-IP: the client's address, behind all trusted proxies.
    pub x_real_ip: bool,
    /// Forwarded (RFC 7239) with `for`, `host` and `proto`.
    pub forwarded: Option<ForwardedFor>,
    /// X-Request-Id, unless a trusted peer has given one.
    pub request_id: bool,
    /// W3C traceparent and tracestate; left out, they pass as they come.
    pub trace: Option<Trace>,
}

impl Default for Forwarded {
    fn default() -> Self {
        Self {
            x_forwarded_for: true,
            x_forwarded_proto: true,
            x_forwarded_host: true,
            x_forwarded_port: false,
            x_real_ip: false,
            forwarded: None,
            request_id: true,
            trace: None,
        }
    }
}

/// What stands in Forwarded as `for`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ForwardedFor {
    /// The peer's address.
    Address,
    /// An identifier that is another for each request, made of its id (RFC 7239, 6.3).
    Hidden,
}

/// What is done about traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Trace {
    /// Requests without a trace begin one.
    pub start: bool,
    /// The share of begun traces that is marked as sampled.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// Whose trace is continued.
    pub believe: Believe,
}

impl Default for Trace {
    fn default() -> Self {
        Self { start: true, sample: 1.0, believe: Believe::Trusted }
    }
}

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Believe {
    /// That of peers in `trusted` networks.
    Trusted,
    /// Everybody's.
    All,
}

impl Forwarded {
    /// The switches as the wire has them.
    pub fn says(&self) -> Says {
        Says {
            x_forwarded_for: self.x_forwarded_for,
            x_forwarded_proto: self.x_forwarded_proto,
            x_forwarded_host: self.x_forwarded_host,
            x_forwarded_port: self.x_forwarded_port,
            x_real_ip: self.x_real_ip,
            forwarded: self.forwarded.map(|it| match it {
                ForwardedFor::Address => Node::Address,
                ForwardedFor::Hidden => Node::Hidden,
            }),
            request_id: self.request_id,
            trace: self.trace.is_some(),
        }
    }

    /// What is done about traces, if anything.
    pub fn tracing(&self) -> Option<Tracing> {
        self.trace.as_ref().map(|trace| Tracing {
            start: trace.start,
            sample: trace.sample,
            believe_all: trace.believe == Believe::All,
        })
    }
}
