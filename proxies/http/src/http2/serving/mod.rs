//! A client's connection: its streams, its bounds, its end.

mod meter;
mod stream;

use super::alive::Alive;
use super::{Bounds, CONNECTION_WINDOWS};
use crate::worker::Worker;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use groove_common::net::{Downstream, Origin, Reached, Stream, Timer};
use h2::Reason;
use h2::server::{Builder, Connection};
use meter::Meter;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};
use tracing::debug;

/// What a client says before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// Streams that clients reset, or that were refused, before the server side has seen them.
const RESETS_MAX: usize = 20;
/// Streams that may fail for what their client did wrong, in the life of a connection.
const ERRORS_MAX: usize = 256;
/// A client that was told to leave may take this long over it when nothing is under way.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves a connection whose first bytes are `first`, to its end.
pub(crate) async fn serve(worker: Rc<Worker>, conn: Downstream, first: BytesMut, bounds: Bounds) {
    let (socket, origin) = conn.split();
    let is_flood = Rc::new(Cell::new(false));
    let io = Metered {
        first,
        socket,
        meter: Meter::new(PREFACE_BYTES),
        begun: Instant::now(),
        is_flood: Rc::clone(&is_flood),
    };
    let handshake = Builder::new()
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(bounds.head_bytes)
        .initial_window_size(bounds.window())
        .initial_connection_window_size(bounds.window().saturating_mul(CONNECTION_WINDOWS))
        .max_send_buffer_size(bounds.buffer_bytes)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(ERRORS_MAX))
        .enable_connect_protocol()
        .handshake::<_, Bytes>(io);
    match timeout(bounds.head_time, handshake).await {
        Ok(Ok(h2)) => Serving::new(worker, origin, h2, is_flood, bounds).run().await,
        Ok(Err(error)) => debug!(peer = %origin.peer, %error, "no handshake of HTTP/2"),
        Err(_) => debug!(peer = %origin.peer, "the handshake of HTTP/2 took too long"),
    }
}

type Request = Pin<Box<dyn Future<Output = ()>>>;

/// A connection after its handshake.
struct Serving {
    worker: Rc<Worker>,
    origin: Origin,
    h2: Connection<Metered, Bytes>,
    is_flood: Rc<Cell<bool>>,
    requests: FuturesUnordered<Request>,
    draining: Reached,
    is_parting: bool,
    timer: Timer,
    bounds: Bounds,
    alive: Option<Box<Alive>>,
}

impl Serving {
    fn new(
        worker: Rc<Worker>,
        origin: Origin,
        mut h2: Connection<Metered, Bytes>,
        is_flood: Rc<Cell<bool>>,
        bounds: Bounds,
    ) -> Self {
        Self {
            alive: bounds.ping.and_then(|rules| h2.ping_pong().map(|pings| Alive::new(pings, rules))),
            draining: origin.drain.draining(),
            timer: Timer::new(Instant::now() + bounds.keep_alive),
            requests: FuturesUnordered::new(),
            is_parting: false,
            worker,
            origin,
            h2,
            is_flood,
            bounds,
        }
    }

    /// To its end: the client leaves, is idle for too long, breaks the rules, or is sent away by the drain.
    async fn run(mut self) {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        if let Err(error) = ended {
            debug!(peer = %self.origin.peer, %error, "a connection of HTTP/2 failed");
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if !self.is_parting && Pin::new(&mut self.draining).poll(cx).is_ready() {
            self.part();
        }
        if self.alive.as_mut().is_some_and(|alive| alive.poll(cx).is_ready()) {
            debug!(peer = %self.origin.peer, "a client of HTTP/2 does not answer to a PING");
            self.worker.shared.metrics.lost_clients.inc();
            return Poll::Ready(Ok(()));
        }
        // Requests first: what they say goes out with this turn of the connection.
        while let Poll::Ready(Some(())) = self.requests.poll_next_unpin(cx) {
            self.timer.set(Instant::now() + self.bounds.keep_alive);
        }
        loop {
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (worker, origin) = (Rc::clone(&self.worker), self.origin.clone());
                    self.requests.push(Box::pin(stream::serve(
                        worker,
                        origin,
                        request,
                        respond,
                        self.bounds,
                    )));
                    // It has not asked to be woken before it has run.
                    while let Poll::Ready(Some(())) = self.requests.poll_next_unpin(cx) {}
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        if self.is_flood.take() && !self.is_parting {
            debug!(peer = %self.origin.peer, "too many frames that carry nothing");
            self.is_parting = true;
            self.requests.clear();
            self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            self.timer.set(Instant::now() + GOODBYE);
            cx.waker().wake_by_ref();
        }
        if self.requests.is_empty() && self.timer.poll(cx).is_ready() {
            if self.is_parting {
                // It has been told, and does not listen.
                return Poll::Ready(Ok(()));
            }
            self.part();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// No more streams; those that are there go on to their end.
    fn part(&mut self) {
        self.is_parting = true;
        self.h2.graceful_shutdown();
        self.timer.set(Instant::now() + GOODBYE);
    }
}

/// The socket, with what had been read of it before, and a meter on what comes.
struct Metered {
    first: BytesMut,
    socket: Stream,
    meter: Meter,
    begun: Instant,
    is_flood: Rc<Cell<bool>>,
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.first.is_empty() {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        } else {
            let here = this.first.len().min(buf.remaining());
            buf.put_slice(this.first.get(..here).unwrap_or_default());
            this.first.advance(here);
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        if !this.meter.count(read, this.begun.elapsed()) {
            this.is_flood.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.socket).poll_write(cx, buf))?;
        this.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.socket).poll_write_vectored(cx, bufs))?;
        this.meter.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
