//! Asking a server whether it is well: does it answer `mn` with `MN`?

use std::time::Duration;

use futures_util::future::BoxFuture;
use groove_common::discovery::{ProbeError, Prober};
use groove_common::ids::Address;
use groove_common::net::{Connector, connect};

use super::connection::greet;

/// Longer than any probe may take: the cluster drops probes at its own timeout.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Sends the meta no-op on a connection of its own.
pub(super) struct NoopProber {
    tls: Option<Connector>,
}

impl NoopProber {
    pub(super) fn new(tls: Option<Connector>) -> Self {
        Self { tls }
    }
}

impl Prober for NoopProber {
    fn probe<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(async move {
            let mut stream = connect(address, self.tls.as_ref(), TIME_MAX).await.map_err(ProbeError::new)?;
            greet(&mut stream).await.map_err(ProbeError::new)
        })
    }
}
