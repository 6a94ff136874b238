//! Asking servers whether they are well.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::balance::Dice;
use crate::ids::Address;

use super::cluster::Cluster;
use super::endpoint::Endpoint;

/// Asks one server. Each proxy gives its own, in its protocol's words.
pub trait Prober: Send + Sync + 'static {
    /// Whether the server at `address` is well. Dropped when it takes too long.
    fn probe<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<(), ProbeError>>;
}

/// Why a probe failed, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(pub String);

impl ProbeError {
    /// From whatever went wrong.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// The least a server can do: accept a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectProber;

impl Prober for ConnectProber {
    fn probe<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(async move {
            match address {
                Address::Tcp { host, port } => {
                    TcpStream::connect((host.as_str(), *port)).await.map(drop).map_err(ProbeError::new)
                }
                Address::Unix(path) => UnixStream::connect(path).await.map(drop).map_err(ProbeError::new),
            }
        })
    }
}

/// How often, and how long a probe may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProbeTimes {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

/// Probes one endpoint until its cluster or the endpoint is gone (then the task is aborted).
///
/// The first probe comes after a random part of the interval, and each interval is a tenth
/// longer or shorter: sidecars that start together do not knock together.
pub(super) async fn run(cluster: Weak<Cluster>, endpoint: Arc<Endpoint>, times: ProbeTimes, mut dice: Dice) {
    sleep(times.interval.mul_f64(dice.unit())).await;
    loop {
        let Some(prober) = cluster.upgrade().map(|cluster| cluster.prober()) else { return };
        let result = match timeout(times.timeout, prober.probe(&endpoint.address)).await {
            Ok(result) => result,
            Err(_) => Err(ProbeError(format!("no answer within {:?}", times.timeout))),
        };
        match cluster.upgrade() {
            Some(cluster) => cluster.on_probe(&endpoint, result),
            None => return,
        }
        sleep(times.interval.mul_f64(0.9 + 0.2 * dice.unit())).await;
    }
}
