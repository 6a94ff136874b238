//! Leases: an idle connection that is alive, or a new one, to the endpoint that has least to do.

use crate::error::Error;
use crate::table::{App, Target};
use crate::upstream::{Lease, Upstream};
use crate::worker::{View, Worker};
use groove_common::discovery::Outcome;
use groove_common::ids::EndpointId;
use groove_common::net::{connect_saying, header};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use tokio::time::Instant;
use tracing::debug;

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dial<'a> {
    pub(super) app: &'a App,
    pub(super) target: &'a Target,
    /// The client's and our own end of its connection, for a PROXY header.
    pub(super) from: (Option<SocketAddr>, Option<SocketAddr>),
    pub(super) now: Instant,
    /// No idle one: the last turned out to be dead.
    pub(super) wants_fresh: bool,
}

/// A connection to the least loaded endpoint; to another if it cannot be connected to.
pub(super) async fn lease(worker: &Worker, view: &View, dial: &Dial<'_>) -> Result<Lease, Error> {
    let upstream = &*dial.target.upstream;
    let mut failed: Vec<EndpointId> = Vec::new();
    let mut last = None;
    loop {
        let picked = view.pick(upstream, &failed, &mut worker.dice());
        let Some(exchange) = picked else {
            return Err(last.unwrap_or_else(|| none(view, upstream)));
        };
        let proxy = upstream.proxy_protocol();
        if !dial.wants_fresh && failed.is_empty() && proxy.is_none() {
            let endpoint = exchange.endpoint().id;
            let idle = poll_fn(|cx| Poll::Ready(worker.take_idle(endpoint, dial.now, cx))).await;
            if let Some(stream) = idle {
                upstream.metrics.reused.inc();
                return Ok(Lease { stream, exchange, is_private: false, is_reused: true });
            }
        }
        let address = &exchange.endpoint().address;
        // Boxed: a session does not carry the size of a dial that it seldom makes.
        let first = proxy.map(|version| header(version.into(), dial.from.0, dial.from.1)).unwrap_or_default();
        match Box::pin(connect_saying(address, &first, upstream.tls.as_ref(), dial.app.connect)).await {
            Ok(stream) => {
                upstream.metrics.connects.inc();
                return Ok(Lease { stream, exchange, is_private: proxy.is_some(), is_reused: false });
            }
            Err(error) => {
                upstream.metrics.connect_failures.inc();
                upstream.cluster.report(exchange.endpoint(), Outcome::Failure);
                debug!(cluster = upstream.cluster.name(), endpoint = %address, %error, "cannot connect");
                let error = unreachable(address.to_string(), &error);
                if failed.len() >= dial.app.retries as usize {
                    return Err(error);
                }
                failed.push(exchange.endpoint().id);
                last = Some(error);
            }
        }
    }
}

/// Nobody is there, or nobody who may be asked: an app that is off, and one that is broken.
fn none(view: &View, upstream: &Upstream) -> Error {
    let name = upstream.cluster.name().to_owned();
    if view.has_members(upstream) { Error::NoEndpoint(name) } else { Error::NoServer(name) }
}

fn unreachable(address: String, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::TimedOut {
        Error::ConnectTimeout(address)
    } else {
        Error::Unreachable { address, reason: error.to_string() }
    }
}
