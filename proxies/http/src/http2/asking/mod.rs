//! Servers that speak HTTP/2: connections that carry many requests, and a pipe for each.

mod exchange;

use super::Bounds;
use super::alive::Alive;
use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::future::{Either, select};
use groove_common::ids::EndpointId;
use groove_common::net::Stream;
use groove_common::telemetry::Counter;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong, Reason};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::duplex;
use tokio::time::{sleep, timeout};
use tracing::debug;

/// The share of its patience after which an idle connection is looked at again.
const LOOKS: u32 = 4;

/// One worker's connections to servers.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    lists: RefCell<HashMap<EndpointId, Vec<Asked>, RandomState>>,
}

/// A connection that takes requests.
#[derive(Clone)]
struct Asked {
    requests: SendRequest<Bytes>,
    /// Streams that are under way.
    open: Arc<AtomicUsize>,
    scheme: &'static str,
    buffer_bytes: usize,
    /// How many restarts of apps there had been when it was opened.
    restarts: u32,
}

impl Connections {
    /// A stream of a connection that is there and has room for one, opened since the app's last restart. The calling
    /// task hears of what it says.
    pub(crate) fn open(
        &self,
        endpoint: EndpointId,
        restarted: u32,
        cx: &mut Context<'_>,
    ) -> Option<(Stream, u32)> {
        let mut lists = self.lists.borrow_mut();
        let list = lists.get_mut(&endpoint)?;
        // One that is forgotten ends with its last stream.
        list.retain_mut(|asked| asked.restarts >= restarted && !asked.has_ended());
        let asked = list.iter().find(|asked| asked.has_room())?;
        let (exchange, mut stream) = asked.open();
        tokio::task::spawn_local(exchange);
        (!stream.is_stale(cx)).then_some((stream, asked.restarts))
    }

    /// Makes a connection of a socket, for this request and for others. `restarts` is how many of apps there had been.
    pub(crate) async fn begin(
        self: &Rc<Self>,
        endpoint: EndpointId,
        socket: Stream,
        restarts: u32,
        bounds: Bounds,
        lost: &Counter,
    ) -> io::Result<Stream> {
        let (mut asked, connection, pings) = handshake(socket, bounds).await?;
        let alive = bounds.server_ping.and_then(|rules| pings.map(|pings| Alive::new(pings, rules)));
        let lost = lost.clone();
        asked.restarts = restarts;
        self.lists.borrow_mut().entry(endpoint).or_default().push(asked.clone());
        let (this, open) = (Rc::downgrade(self), Arc::clone(&asked.open));
        tokio::task::spawn_local(async move {
            let driven = pin!(until_idle(connection, &open, bounds.server_keep_alive));
            match until_lost(driven, alive).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a connection of HTTP/2 to a server failed"),
                Err(Lost) => {
                    debug!("a server of HTTP/2 does not answer to a PING");
                    lost.inc();
                }
            }
            if let Some(this) = this.upgrade() {
                this.forget(endpoint, &open);
            }
        });
        let (exchange, stream) = asked.open();
        tokio::task::spawn_local(exchange);
        Ok(stream)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.lists.borrow().is_empty()
    }

    /// Closes those to an endpoint that were opened before the restart of that number, once nothing is under way on them.
    pub(crate) fn close(&self, endpoint: EndpointId, number: u32) {
        if let Some(list) = self.lists.borrow_mut().get_mut(&endpoint) {
            list.retain(|asked| asked.restarts >= number);
        }
    }

    fn forget(&self, endpoint: EndpointId, open: &Arc<AtomicUsize>) {
        let mut lists = self.lists.borrow_mut();
        if let Some(list) = lists.get_mut(&endpoint) {
            list.retain(|asked| !Arc::ptr_eq(&asked.open, open));
            if list.is_empty() {
                lists.remove(&endpoint);
            }
        }
    }
}

/// One request over a socket of its own: `stream` takes it in HTTP/1.1's form. To be polled until it is over.
pub(crate) async fn ask(
    socket: Stream,
    bounds: Bounds,
) -> io::Result<(impl Future<Output = ()> + Send, Stream)> {
    let (asked, connection, _) = handshake(socket, bounds).await?;
    let (exchange, stream) = asked.open();
    drop(asked);
    let both = async {
        // It ends when nothing more is asked.
        let _ = tokio::join!(connection, exchange);
    };
    Ok((both, stream))
}

/// A connection whose server has said what it can do: what it answers to a PING comes behind its settings. One that speaks
/// something else is found out here, before it gets a request.
async fn handshake(
    socket: Stream,
    bounds: Bounds,
) -> io::Result<(Asked, Connection<Stream, Bytes>, Option<PingPong>)> {
    let scheme = if socket.is_tls() { "https" } else { "http" };
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(bounds.window())
        .initial_connection_window_size(bounds.window().saturating_mul(super::CONNECTION_WINDOWS))
        .max_header_list_size(bounds.head_bytes)
        .max_send_buffer_size(bounds.buffer_bytes);
    let handshake = async {
        let (requests, mut connection) = builder.handshake(socket).await?;
        let mut pings = connection.ping_pong();
        if let Some(pings) = &mut pings {
            match select(&mut connection, pin!(pings.ping(Ping::opaque()))).await {
                Either::Left((Ok(()), _)) => return Err(Reason::NO_ERROR.into()),
                Either::Left((Err(error), _)) | Either::Right((Err(error), _)) => return Err(error),
                Either::Right((Ok(_), _)) => {}
            }
        }
        Ok((requests, connection, pings))
    };
    let made = timeout(bounds.head_time, handshake).await?.map_err(io::Error::other)?;
    let (requests, connection, pings) = made;
    let asked =
        Asked { requests, open: Arc::default(), scheme, buffer_bytes: bounds.buffer_bytes, restarts: 0 };
    Ok((asked, connection, pings))
}

/// A server that does not answer.
struct Lost;

/// Drives a connection until it ends, or its server is found to be gone.
async fn until_lost<F: Future>(
    mut driven: Pin<&mut F>,
    alive: Option<Box<Alive>>,
) -> Result<F::Output, Lost> {
    let Some(mut alive) = alive else { return Ok(driven.await) };
    poll_fn(|cx| match alive.poll(cx) {
        Poll::Ready(()) => Poll::Ready(Err(Lost)),
        Poll::Pending => driven.as_mut().poll(cx).map(Ok),
    })
    .await
}

/// Drives a connection until it ends, or nothing was under way for so long.
async fn until_idle(
    connection: Connection<Stream, Bytes>,
    open: &AtomicUsize,
    patience: Duration,
) -> Result<(), h2::Error> {
    let mut connection = pin!(connection);
    let mut idle_looks = 0;
    while idle_looks <= LOOKS {
        let mut look = pin!(sleep(patience / LOOKS));
        let ended = poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => look.as_mut().poll(cx).map(|()| None),
        });
        if let Some(ended) = ended.await {
            return ended;
        }
        idle_looks = if open.load(Ordering::Relaxed) == 0 { idle_looks + 1 } else { 0 };
    }
    Ok(())
}

impl Asked {
    fn has_ended(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.requests.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        self.open.load(Ordering::Relaxed) < self.requests.current_max_send_streams()
    }

    /// A stream: what is to be spawned, and what takes the request.
    fn open(&self) -> (impl Future<Output = ()> + Send + use<>, Stream) {
        let (near, far) = duplex(self.buffer_bytes);
        let counted = Counted::new(&self.open);
        let exchange = exchange::run(self.requests.clone(), near, self.scheme);
        let counted = async move {
            exchange.await;
            drop(counted);
        };
        (counted, Stream::from(far))
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Counts a stream while it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
