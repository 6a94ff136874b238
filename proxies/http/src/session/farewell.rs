//! How a connection ends, or goes on after an exchange that failed.

use super::begin::Begun;
use super::driver::{Next, Session};
use super::early::Asking;
use super::record::Client;
use super::record::{Facts, Record};
use crate::apps::Seat;
use crate::error::Error;
use crate::reply::{self, Form, Notice};
use crate::upstream::Lease;
use crate::wire::{Outlet, Output};
use crate::worker::View;
use bytes::BytesMut;
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
    pub(super) async fn fail(&mut self, view: &View, begun: &mut Begun<'_>, error: Error) -> Next {
        let took = begun.at.elapsed();
        debug!(app = &*begun.app.name, %error, "an exchange failed");
        self.worker.shared.metrics.failed(&error);
        begun.app.metrics.answered(begun.status(Some(&error)), took);
        self.record(begun, None, took, Some(&error));
        if begun.is_heard || matches!(error, Error::ClientGone | Error::ClientStuck) {
            return Next::Cut;
        }
        if begun.exchange.is_begun() {
            // The beginning of a reply that turned out to be none.
            begun.reply = Outlet::default();
        }
        let request = Record::of(&begun.outgoing.head);
        let mut audience = begun.audience;
        audience.form = Form::accepted(request.field("accept"));
        let uploaded = begun.exchange.is_uploaded();
        audience.close |= error.ends_client() || !uploaded || self.conn.drain.is_draining();
        let notice = Notice {
            error: &error,
            request_id: &String::from_utf8_lossy(request.field("x-request-id").unwrap_or_default()),
            app: &begun.app.name,
            host: &String::from_utf8_lossy(request.field("host").unwrap_or_default()),
            client: &Client { peer: &self.conn.peer, behind: begun.client }.address(),
            page: view.table.page(Some(begun.app), Some(begun.target), &error),
        };
        let out = begun.reply.tail();
        reply::error(&notice, audience, out);
        let program = begun.own.as_ref().and_then(|own| own.reply.as_ref());
        if program.is_some() || !begun.edits.is_empty() {
            reply::edit_failure(out, &begun.edits, program, &mut self.worker.fields());
        }
        self.answer(out, audience.close, !uploaded).await
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

    /// Leaves a line in the access log for an answer that no server was asked for.
    pub(super) fn record_early(&self, head: &[u8], seat: &Seat, asking: &Asking<'_>, status: u16) {
        self.worker.shared.access.record(false, || {
            let is_http10 = head.split(|byte| *byte == b'\r').next().is_some_and(|it| it.ends_with(b"/1.0"));
            let facts = Facts {
                app: &seat.app.name,
                peer: &self.conn.peer,
                client: asking.client,
                endpoint: None,
                protocol: self.protocol(is_http10),
                status,
                target: Some(asking.target),
                user: asking.identity.map_or("", |it| &it.user),
                took: Duration::ZERO,
                error: None,
            };
            Record::of(head).event(&facts)
        });
    }

    /// Leaves a line in the access log.
    pub(super) fn record(
        &self,
        begun: &Begun<'_>,
        lease: Option<&Lease>,
        took: Duration,
        error: Option<&Error>,
    ) {
        let status = begun.status(error);
        self.worker.shared.access.record(error.is_some(), || {
            let facts = Facts {
                app: &begun.app.name,
                peer: &self.conn.peer,
                client: begun.client,
                endpoint: lease.map(|lease| &lease.exchange.endpoint().address),
                protocol: self.protocol(begun.audience.is_http10),
                status,
                target: None,
                user: begun.own.as_ref().and_then(|own| own.identity.as_ref()).map_or("", |it| &it.user),
                took,
                error,
            };
            Record::of(&begun.outgoing.head).event(&facts)
        });
    }

    /// All is said, and heard.
    pub(super) async fn close(mut self) {
        // A client that left does not hear it.
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
