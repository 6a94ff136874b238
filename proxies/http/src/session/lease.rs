//! Leases: an idle connection that is alive, or a new one, to the endpoint that has least to do.

use crate::apps::Seat;
use crate::error::Error;
use crate::http2::Bounds;
use crate::table::Target;
use crate::upstream::{Lease, Upstream};
use crate::worker::Worker;
use groove_common::discovery::{Exchange, Outcome};
use groove_common::ids::EndpointId;
use groove_common::net::{Stream, connect_saying, header};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use tokio::time::Instant;
use tracing::debug;

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dial<'a> {
    pub(super) seat: &'a Seat,
    pub(super) target: &'a Target,
    /// The client's and our own end of its connection, for a PROXY header.
    pub(super) from: (Option<SocketAddr>, Option<SocketAddr>),
    pub(super) now: Instant,
    /// No idle one: the last turned out to be dead.
    pub(super) wants_fresh: bool,
}

/// A connection to the least loaded endpoint; to another if it cannot be connected to.
pub(super) async fn lease(worker: &Worker, dial: &Dial<'_>) -> Result<Lease, Error> {
    let upstream = &dial.target.upstream;
    let mut failed: Vec<EndpointId> = Vec::new();
    let mut last = None;
    loop {
        let picked = dial.seat.pick(upstream, &failed, &mut worker.dice());
        let Some(exchange) = picked else {
            return Err(last.unwrap_or_else(|| none(dial.seat, upstream)));
        };
        let proxy = upstream.proxy_protocol;
        if !dial.wants_fresh && failed.is_empty() && proxy.is_none() {
            let endpoint = exchange.endpoint().id;
            let restarted = dial.seat.app.stand.restarted();
            let idle = poll_fn(|cx| {
                let idle = worker.take_idle(endpoint, restarted, dial.now, cx);
                Poll::Ready(idle.or_else(|| worker.http2.open(endpoint, restarted, cx)))
            });
            if let Some((stream, restarts)) = idle.await {
                upstream.metrics.reused.inc();
                return Ok(Lease { stream, exchange, is_private: false, is_reused: true, restarts });
            }
        }
        let restarts = worker.shared.restarts.load(Ordering::Acquire);
        let address = &exchange.endpoint().address;
        // Boxed: a session does not carry the size of a dial that it seldom makes.
        match Box::pin(make(worker, dial, &exchange, restarts)).await {
            Ok(stream) => {
                upstream.metrics.connects.inc();
                return Ok(Lease {
                    stream,
                    exchange,
                    is_private: proxy.is_some(),
                    is_reused: false,
                    restarts,
                });
            }
            Err(error) => {
                upstream.metrics.connect_failures.inc();
                upstream.cluster.report(exchange.endpoint(), Outcome::Failure);
                debug!(cluster = upstream.cluster.name(), endpoint = %address, %error, "cannot connect");
                let error = unreachable(address.to_string(), &error);
                if failed.len() >= dial.seat.app.retries as usize {
                    return Err(error);
                }
                failed.push(exchange.endpoint().id);
                last = Some(error);
            }
        }
    }
}

/// A connection to the endpoint, or a stream of one that will carry others beside it.
async fn make(worker: &Worker, dial: &Dial<'_>, exchange: &Exchange, restarts: u32) -> io::Result<Stream> {
    let (upstream, endpoint, patience) = (&dial.target.upstream, exchange.endpoint(), dial.seat.app.connect);
    let proxy = upstream.proxy_protocol;
    let first = proxy.map(|version| header(version.into(), dial.from.0, dial.from.1)).unwrap_or_default();
    let stream = connect_saying(&endpoint.address, &first, upstream.tls.as_deref(), patience).await?;
    if upstream.protocol.is_http2(&stream) {
        let bounds = Bounds { head_time: patience, ..worker.view().table.http2 };
        return worker.http2.begin(endpoint.id, stream, restarts, bounds).await;
    }
    Ok(stream)
}

/// Nobody is there, or nobody who may be asked: an app that is off, and one that is broken.
fn none(seat: &Seat, upstream: &Arc<Upstream>) -> Error {
    let name = upstream.name.to_string();
    if seat.has_members(upstream) { Error::NoEndpoint(name) } else { Error::NoServer(name) }
}

fn unreachable(address: String, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::TimedOut {
        Error::ConnectTimeout(address)
    } else {
        Error::Unreachable { address, reason: error.to_string() }
    }
}
