//! How a connection ends, or goes on after an exchange that failed.

use super::driver::{Begun, Next, Session};
use super::record::{Facts, Record};
use crate::error::Error;
use crate::reply::{self, Audience, Form};
use crate::upstream::Lease;
use bytes::BytesMut;
use groove_common::error::Classified;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tracing::debug;

/// A reply to a request that is not read to its end: its sender is listened to for this long and for so many bytes.
/// Closing at once would reset the connection, and the reply with it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 16 << 20;

impl Session {
    /// The exchange failed: the client is told, if it has not been told anything else.
    pub(super) async fn fail(&mut self, begun: &mut Begun<'_>, error: Error) -> Next {
        let took = begun.at.elapsed();
        debug!(app = begun.app.name, %error, "an exchange failed");
        self.worker.shared.metrics.failed(error.kind());
        begun.app.metrics.answered(begun.exchange.status().unwrap_or(error.status()), took);
        self.record(begun, None, took, Some(&error));
        if begun.exchange.is_begun() || matches!(error, Error::ClientGone | Error::ClientStuck) {
            return Next::Cut;
        }
        let request = Record::of(&begun.outgoing.head);
        let mut audience = begun.audience;
        audience.form = Form::accepted(request.field("accept"));
        let uploaded = begun.exchange.is_uploaded();
        audience.close |= error.ends_client() || !uploaded || self.conn.drain.is_draining();
        reply::error(&error, audience, request.field("x-request-id").unwrap_or_default(), &mut begun.reply);
        self.answer(&mut begun.reply, audience.close, !uploaded).await
    }

    /// Answers a request that no server gets to see.
    pub(super) async fn refuse(&mut self, error: Error, mut audience: Audience) -> Next {
        debug!(client = %self.conn.peer, %error, "a request was refused");
        let metrics = &self.worker.shared.metrics;
        metrics.failed(error.kind());
        metrics.unrouted.answered(error.status(), Duration::ZERO);
        audience.close |= error.ends_client() || self.conn.drain.is_draining();
        let mut out = BytesMut::new();
        reply::error(&error, audience, &[], &mut out);
        self.answer(&mut out, audience.close, audience.close).await
    }

    pub(super) async fn answer(&mut self, out: &mut BytesMut, close: bool, linger: bool) -> Next {
        let timeouts = self.worker.view().table.timeouts;
        match timeout(timeouts.head, self.conn.stream.send(out)).await {
            Ok(Ok(())) if linger => Next::Linger,
            Ok(Ok(())) if close => Next::Close,
            Ok(Ok(())) => {
                self.timer.set(Instant::now() + timeouts.keep_alive);
                Next::Request
            }
            Ok(Err(_)) | Err(_) => Next::Cut,
        }
    }

    /// Leaves a line in the access log.
    pub(super) fn record(
        &self,
        begun: &Begun<'_>,
        lease: Option<&Lease>,
        took: Duration,
        error: Option<&Error>,
    ) {
        let status = begun.exchange.status().or(error.map(Error::status)).unwrap_or_default();
        self.worker.shared.access.record(error.is_some(), || {
            let endpoint = lease.map(|lease| lease.exchange.endpoint().address.to_string());
            let facts = Facts {
                app: &begun.app.name,
                client: &self.conn.peer,
                endpoint: endpoint.as_deref(),
                status,
                user: begun.own.as_ref().and_then(|own| own.identity.as_ref()).map_or("", |it| &it.user),
                took,
                error,
            };
            Record::of(&begun.outgoing.head).event(&facts)
        });
    }

    /// All is said, and heard.
    pub(super) async fn close(mut self) {
        // For TLS a word of its own, for TCP what dropping the socket would do: a client that left does not hear it.
        drop(timeout(LINGER, self.conn.stream.shutdown()).await);
    }

    /// All is said, but the client is still sending: its bytes are dropped until it has read our reply and closed.
    pub(super) async fn linger(mut self) {
        let listen = async {
            self.conn.stream.shutdown().await?;
            let mut bytes_left = LINGER_BYTES_MAX;
            loop {
                self.inbox.clear();
                let read = self.conn.stream.fill(&mut self.inbox).await?;
                bytes_left = bytes_left.saturating_sub(read);
                if read == 0 || bytes_left == 0 {
                    return std::io::Result::Ok(());
                }
            }
        };
        drop(timeout(LINGER, listen).await);
    }
}
