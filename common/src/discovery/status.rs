//! A cluster from outside, for the admin API.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ids::{Address, EndpointId};

/// A cluster at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterStatus {
    /// As configured.
    pub name: String,
    /// Of the snapshot described.
    pub generation: u64,
    /// Where its endpoints come from.
    pub source: String,
    /// In the order of their slots.
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointStatus {
    /// Unique in the process.
    pub id: EndpointId,
    /// Where it answers.
    pub address: Address,
    /// Its position in the hash.
    pub slot: usize,
    /// Its share of the work.
    pub weight: u32,
    /// Where it stands.
    pub zone: Option<String>,
    /// Whatever else its source knows of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// `up`, `suspect`, `ejected`, `half-open`, `down` (by its probes) or `drained` (by an operator).
    pub state: &'static str,
    /// Exchanges under way.
    pub in_flight: u32,
    /// The peak-sensitive average.
    pub latency_ms: f64,
    /// Exchanges that succeeded.
    pub successes: u64,
    /// Exchanges that failed.
    pub failures: u64,
    /// Times it was ejected.
    pub ejections: u64,
    /// Why the last probe failed, until one succeeds.
    pub probe_error: Option<String>,
}
