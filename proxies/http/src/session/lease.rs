//! Leases: an idle connection that is alive, or a new one, to the endpoint that has least to do.

use crate::error::Error;
use crate::http2::Bounds;
use crate::table::{App, Target};
use crate::upstream::Lease;
use crate::worker::{View, Worker};
use groove_common::discovery::{Exchange, Outcome};
use groove_common::ids::EndpointId;
use groove_common::net::{Stream, connect};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::time::Instant;
use tracing::debug;

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dial<'a> {
    pub(super) app: &'a App,
    pub(super) target: &'a Target,
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
            return Err(last.unwrap_or_else(|| Error::NoEndpoint(upstream.cluster.name().to_owned())));
        };
        if !dial.wants_fresh && failed.is_empty() {
            let endpoint = exchange.endpoint().id;
            let idle = poll_fn(|cx| {
                let idle = worker.take_idle(endpoint, dial.now, cx);
                Poll::Ready(idle.or_else(|| worker.http2.open(endpoint, cx)))
            });
            if let Some(stream) = idle.await {
                upstream.metrics.reused.inc();
                return Ok(Lease { stream, exchange, is_reused: true });
            }
        }
        let address = &exchange.endpoint().address;
        // Boxed: a session does not carry the size of a dial that it seldom makes.
        match Box::pin(make(worker, view, dial, &exchange)).await {
            Ok(stream) => {
                upstream.metrics.connects.inc();
                return Ok(Lease { stream, exchange, is_reused: false });
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

/// A connection to the endpoint, or a stream of one that will carry others beside it.
async fn make(worker: &Worker, view: &View, dial: &Dial<'_>, exchange: &Exchange) -> io::Result<Stream> {
    let (upstream, endpoint) = (&dial.target.upstream, exchange.endpoint());
    let stream = connect(&endpoint.address, upstream.tls.as_ref(), dial.app.connect).await?;
    if upstream.protocol.is_http2(&stream) {
        let bounds = Bounds { head_time: dial.app.connect, ..view.table.http2 };
        return worker.http2.begin(endpoint.id, stream, bounds).await;
    }
    Ok(stream)
}

fn unreachable(address: String, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::TimedOut {
        Error::ConnectTimeout(address)
    } else {
        Error::Unreachable { address, reason: error.to_string() }
    }
}
