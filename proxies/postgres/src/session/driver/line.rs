//! A session's place in line for a server connection, and what becomes of an exchange for which there is none.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use groove_common::lifecycle::Phase;
use groove_common::net::{Stream, Watch};
use groove_common::telemetry::Counter;

use super::splitting::source;
use super::{Session, UNSENT_MAX};
use crate::error::Error;
use crate::reply;
use crate::session::Lease;
use crate::session::cancel::Registered;
use crate::session::handover::Home;
use crate::upstream::refused;

impl Session {
    /// Gets a server connection, in turn. The client may cancel, or leave, while it waits. None is got if the session
    /// may move meanwhile, or the connection has died.
    pub(super) async fn lease(&mut self) -> Result<(), Error> {
        self.began = Instant::now();
        self.seen.asks(self.began);
        self.shared.tap.look(&mut self.machine);
        let pool = source(&self.splitting, &self.pool);
        let mut lease = pin!(pool.lease(pool.deadline(self.began.into()), &mut self.patience));
        let mut in_line = InLine {
            registered: &self.registered,
            client: &mut self.conn.stream,
            from_client: &mut self.from_client,
            watch: &mut self.client_watch,
            received: &self.pool.metrics.received,
        };
        let mut has_waited = false;
        let moves = self.home == Home::Here && !in_line.client.is_tls();
        let (draining, drain) = (&mut self.draining, &self.conn.drain);
        let leased = poll_fn(|cx| match lease.as_mut().poll(cx) {
            Poll::Ready(leased) => Poll::Ready(leased.map(Some).map_err(refused)),
            Poll::Pending => {
                if !std::mem::replace(&mut has_waited, true) {
                    pool.is_waited_for();
                }
                if moves
                    && Pin::new(&mut *draining).poll(cx).is_ready()
                    && drain.phase() == Phase::HandingOver
                {
                    return Poll::Ready(Ok(None));
                }
                in_line.poll_left(cx).map(Err)
            }
        })
        .await;
        // Who has not waited need not ask the clock how long.
        let waited = if has_waited { self.began.elapsed() } else { Duration::ZERO };
        pool.metrics.wait.record(waited);
        let Some(mut lease) = leased.inspect_err(|_| self.seen.released())? else {
            self.seen.released();
            return Ok(());
        };
        // One that came straight from another session may have died on the way; nothing was sent on it yet.
        if has_waited && lease.is_stale() {
            lease.close();
            self.seen.released();
            return Ok(());
        }
        lease.settle();
        self.seen.leased(lease.seen.as_ref(), self.began + waited);
        if let Some(notes) = self.machine.notes() {
            notes.leased(self.began + waited, waited);
        }
        self.lease = Some(Lease::Pooled(lease));
        Ok(())
    }

    /// Answers an exchange for which there is no server with an error; the session goes on.
    pub(super) async fn refuse(&mut self, error: Error) -> Result<(), Error> {
        if matches!(error, Error::Client(_)) {
            return Err(error);
        }
        self.registered.canceller.released();
        self.pool.metrics.failed(&error);
        self.log(Some(&error));
        self.shared.pgbadger.failed(&self.seen, &error);
        reply::put_exchange_error(&mut self.to_client, &error);
        self.machine.refuse();
        while !self.machine.drop_refused(&mut self.from_client, &mut self.to_client)? {
            // A client that ends its batch with a Flush says no more until it has heard of the error.
            self.conn.stream.send(&mut self.to_client).await.map_err(Error::Client)?;
            let (client, watch) = (&mut self.conn.stream, &mut self.client_watch);
            let filled = poll_fn(|cx| client.poll_fill_watched(cx, &mut self.from_client, watch)).await;
            let filled = filled.map_err(Error::Client)?;
            self.pool.metrics.received.add(filled as u64);
            if filled == 0 {
                return Err(Error::Client(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }
}

/// A client that waits for a server connection.
struct InLine<'a> {
    registered: &'a Registered,
    client: &'a mut Stream,
    from_client: &'a mut BytesMut,
    watch: &'a mut Watch,
    received: &'a Counter,
}

impl InLine<'_> {
    /// Why the client is no longer in line; what it sends meanwhile is kept, within bounds.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if self.registered.canceller.poll_cancelled_in_line(cx) {
            return Poll::Ready(Error::Cancelled);
        }
        while self.from_client.len() <= UNSENT_MAX {
            match ready!(self.client.poll_fill_watched(cx, self.from_client, self.watch)) {
                Ok(0) => return Poll::Ready(Error::Client(io::ErrorKind::UnexpectedEof.into())),
                Ok(filled) => self.received.add(filled as u64),
                Err(error) => return Poll::Ready(Error::Client(error)),
            }
        }
        Poll::Pending
    }
}
