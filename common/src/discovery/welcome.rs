//! What has to happen before a server that was away takes traffic again.
//!
//! While a server is away others stand in for it, so what it has when it returns may be stale. A cluster with a
//! [`Welcome`] keeps such a server out, whatever probes and breaker say, until it has been welcomed: for memcached,
//! until it has been flushed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};

use crate::health::Backoff;
use crate::ids::Address;

use super::clock::fresh_dice;
use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::probe::ProbeError;

/// For one welcome.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Between two that failed.
const RETRY: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(2) };

/// Makes a server that was away fit to take traffic. Each proxy gives its own.
pub trait Welcome: Send + Sync + 'static {
    /// Done when the server may be used. Dropped when it takes too long.
    fn welcome<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<(), ProbeError>>;
}

/// What became of a server that is to be welcomed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Welcomed {
    /// It serves, is away again, or has left: nothing more to do now.
    Over,
    /// To be tried again.
    NotYet,
}

/// Welcomes one endpoint, again and again until it worked or is of no use.
pub(super) async fn run(cluster: Weak<Cluster>, endpoint: Arc<Endpoint>) {
    let mut dice = fresh_dice();
    for attempt in 0.. {
        let Some(welcome) = cluster.upgrade().and_then(|cluster| cluster.welcome()) else { return };
        let result = match timeout(TIME_MAX, welcome.welcome(&endpoint.address)).await {
            Ok(result) => result,
            Err(_) => Err(ProbeError(format!("not done within {TIME_MAX:?}"))),
        };
        match cluster.upgrade().map(|cluster| cluster.on_welcome(&endpoint, result)) {
            None | Some(Welcomed::Over) => return,
            Some(Welcomed::NotYet) => sleep(RETRY.delay(attempt, dice.unit())).await,
        }
    }
}
