//! Leases: an idle connection that is alive, or a new one, to the endpoint that has least to do.

use crate::apps::Seat;
use crate::balance::{Ask, Key};
use crate::error::Error;
use crate::fair::Permit;
use crate::http2::Bounds;
use crate::queue::{Entry, Grant, Place, Queue, Refusal, Refused};
use crate::table::Target;
use crate::upstream::{Lease, Upstream};
use crate::worker::{View, Worker};
use groove_common::discovery::{Exchange, Outcome};
use groove_common::ids::EndpointId;
use groove_common::net::{Stream, connect_saying, header};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dial<'a> {
    pub(super) seat: &'a Seat,
    pub(super) target: &'a Target,
    /// The client's and our own end of its connection, for a PROXY header.
    pub(super) from: (Option<SocketAddr>, Option<SocketAddr>),
    pub(super) now: Instant,
    /// When the request came.
    pub(super) since: Instant,
    /// No idle one: the last turned out to be dead.
    pub(super) wants_fresh: bool,
    /// Where the request belongs.
    pub(super) key: Key,
    /// Who asks, and may leave while it waits.
    pub(super) client: &'a Stream,
    /// What is held of the request.
    pub(super) bytes: usize,
    /// Whose turn it takes under the proxy's own bound.
    pub(super) flow: u64,
}

/// What a request was let in for, when its connection turned out to be dead: it does not queue again.
#[derive(Debug)]
pub(super) struct Held {
    grant: Grant,
    permit: Option<Permit>,
}

impl From<Lease> for Held {
    fn from(lease: Lease) -> Self {
        let Lease { exchange, new_home, permit, .. } = lease;
        Self { grant: Grant { exchange, new_home }, permit }
    }
}

/// A connection to the endpoint that is chosen; to another if it cannot be connected to. Those that `failed` before
/// are taken only if there is no other. One that was `held` before is held on to.
pub(super) async fn lease(
    worker: &Worker,
    view: &View,
    dial: &Dial<'_>,
    failed: &mut Vec<EndpointId>,
    held: Option<Held>,
) -> Result<Lease, Error> {
    let upstream = &dial.target.upstream;
    let mut tries = 0;
    let mut last = None;
    let (mut held, mut permit) = match held {
        Some(Held { grant, permit }) => (Some(grant), permit),
        None => (None, None),
    };
    let mut line = InLine { number: None, since: dial.since, waited: false };
    loop {
        let ask = Ask { key: dial.key, failed };
        let picked = match &upstream.queue {
            _ if held.is_some() => held.take(),
            None => dial.seat.pick(upstream, &ask, &mut worker.dice()),
            Some(queue) => line.turn(queue, &ask, dial).await?,
        };
        let Some(Grant { exchange, new_home }) = picked else {
            if tries == 0 && !failed.is_empty() {
                failed.clear();
                continue;
            }
            return Err(last.unwrap_or_else(|| none(dial.seat, upstream)));
        };
        // Last, so that what waits for an app takes nothing from others.
        if let (Some((fair, _)), None) = (&view.table.fair, &permit) {
            permit = Some(fair.enter(dial.flow, dial.client).await?);
        }
        let may_have_waited = line.waited || permit.is_some();
        let at = if may_have_waited { Instant::now() } else { dial.now };
        let is_private = upstream.proxy_protocol.is_some();
        if !dial.wants_fresh && tries == 0 && !is_private {
            let endpoint = exchange.endpoint().id;
            let restarted = dial.seat.app.stand.restarted();
            let idle = poll_fn(|cx| {
                let idle = worker.take_idle(endpoint, restarted, at, cx);
                Poll::Ready(idle.or_else(|| worker.http2.open(endpoint, restarted, cx)))
            });
            if let Some((stream, restarts)) = idle.await {
                upstream.metrics.reused.inc();
                return Ok(Lease {
                    stream,
                    exchange,
                    is_private,
                    is_reused: true,
                    restarts,
                    permit,
                    at,
                    new_home,
                });
            }
        }
        let restarts = worker.shared.restarts.count();
        let address = &exchange.endpoint().address;
        // Boxed: a session does not carry the size of a dial that it seldom makes.
        match Box::pin(make(worker, upstream, dial.seat.app.connect, dial.from, &exchange, restarts)).await {
            Ok(stream) => {
                upstream.metrics.connects.inc();
                return Ok(Lease {
                    stream,
                    exchange,
                    is_private,
                    is_reused: false,
                    restarts,
                    permit,
                    at,
                    new_home,
                });
            }
            Err(error) => {
                upstream.metrics.connect_failures.inc();
                upstream.cluster.report(exchange.endpoint(), Outcome::Failure);
                debug!(cluster = upstream.cluster.name(), endpoint = %address, %error, "cannot connect");
                let error = unreachable(address.to_string(), &error);
                failed.push(exchange.endpoint().id);
                if tries >= dial.seat.app.retries {
                    return Err(error);
                }
                tries += 1;
                last = Some(error);
            }
        }
    }
}

/// A request's place before a queue, which it keeps when it has to come back.
struct InLine {
    number: Option<u64>,
    since: Instant,
    waited: bool,
}

impl InLine {
    /// Its turn, at once or when it comes; `None`: there is nobody to wait for.
    async fn turn(
        &mut self,
        queue: &Arc<Queue>,
        ask: &Ask<'_>,
        dial: &Dial<'_>,
    ) -> Result<Option<Grant>, Error> {
        match queue.enter(ask, dial.bytes, self.number) {
            Ok(Entry::Granted(grant)) => Ok(Some(grant)),
            Ok(Entry::Waiting(place)) => {
                self.number = Some(place.number());
                self.waited = true;
                // Boxed, as most never wait.
                Box::pin(wait(place, queue, self.since, dial)).await.map(Some)
            }
            Err(Refused { why: Refusal::Nobody, .. }) => Ok(None),
            Err(Refused { why: Refusal::Full | Refusal::Bytes | Refusal::Endpoint, retry_after_s }) => {
                Err(Error::QueueFull { cluster: name(&dial.target.upstream), retry_after_s })
            }
        }
    }
}

/// Waits for a turn, for as long as may be waited and the client is there. Nothing is read meanwhile.
async fn wait(mut place: Place, queue: &Queue, since: Instant, dial: &Dial<'_>) -> Result<Grant, Error> {
    let metrics = queue.metrics();
    let began = Instant::now();
    tokio::select! {
        biased;
        grant = place.turn() => {
            metrics.seconds.record(began.elapsed());
            grant.ok_or_else(|| none(dial.seat, &dial.target.upstream))
        }
        () = dial.client.closed() => {
            metrics.left.inc();
            Err(Error::ClientGone)
        }
        () = sleep_until(since + queue.age_max()) => {
            metrics.timed_out.inc();
            let retry_after_s = queue.retry_after_s();
            Err(Error::QueueTimeout { cluster: name(&dial.target.upstream), retry_after_s })
        }
    }
}

fn name(upstream: &Upstream) -> String {
    upstream.name.to_string()
}

/// A connection to the endpoint, or a stream of one that will carry others beside it.
/// `from` are a client's ends of its connection, for a PROXY header.
pub(super) async fn make(
    worker: &Worker,
    upstream: &Upstream,
    patience: Duration,
    from: (Option<SocketAddr>, Option<SocketAddr>),
    exchange: &Exchange,
    restarts: u32,
) -> io::Result<Stream> {
    let endpoint = exchange.endpoint();
    let proxy = upstream.proxy_protocol;
    let first = proxy.map(|version| header(version.into(), from.0, from.1)).unwrap_or_default();
    let stream = connect_saying(&endpoint.address, &first, upstream.tls.as_deref(), patience).await?;
    if upstream.protocol.is_http2(&stream) {
        let bounds = Bounds { head_time: patience, ..worker.view().table.http2 };
        let lost = &worker.shared.metrics.lost_servers;
        return worker.http2.begin(endpoint.id, stream, restarts, bounds, lost).await;
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
