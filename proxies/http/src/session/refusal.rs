//! Requests that no server gets to see: what is remembered of them, what their client is told, and the line they leave.

use super::driver::{Next, Session};
use super::early::Early;
use super::local::Local;
use super::record::{Client, Record, failed};
use crate::error::Error;
use crate::reply::{self, Audience, Notice};
use crate::scene::Scene;
use crate::table::{App, Target};
use crate::wire::RequestHead;
use crate::worker::View;
use bytes::BytesMut;
use groove_common::telemetry::Event;
use std::net::IpAddr;
use std::time::Duration;
use tracing::debug;

/// Of what is no request, this much is logged.
const LINE_BYTES_MAX: usize = 200;

/// A request that no server gets to see.
pub(super) struct Refused<'v> {
    pub(super) error: Error,
    pub(super) audience: Audience,
    /// Whose it would have been.
    pub(super) app: Option<&'v App>,
    pub(super) target: Option<&'v Target>,
    pub(super) about: About,
    /// How its page is edited.
    pub(super) local: Option<Box<Local<'v>>>,
    /// Its head was one.
    pub(super) is_read: bool,
    /// How long it took to find out.
    pub(super) took: Duration,
}

impl Refused<'_> {
    /// Of which nothing is known: it is no request.
    pub(super) fn unread(error: Error, about: About) -> Box<Self> {
        Box::new(Self {
            error,
            audience: Audience::default(),
            app: None,
            target: None,
            about,
            local: None,
            is_read: false,
            took: Duration::ZERO,
        })
    }
}

impl<'v> Refused<'v> {
    /// Of a request whose head was read.
    pub(super) fn read(
        error: Error,
        audience: Audience,
        (app, target): (Option<&'v App>, Option<&'v Target>),
        about: About,
        local: Option<Box<Local<'v>>>,
    ) -> Early<'v> {
        let (is_read, took) = (true, Duration::ZERO);
        Early::Refused(Box::new(Self { error, audience, app, target, about, local, is_read, took }))
    }
}

/// What is told and logged of a refused request.
pub(super) struct About {
    request: String,
    host: String,
    request_id: String,
    client: Option<IpAddr>,
}

impl About {
    /// Of a request that was read.
    pub(super) fn of(
        head: &RequestHead<'_>,
        client: Option<IpAddr>,
        given_id: Option<&[u8]>,
        own_id: &[u8],
    ) -> Self {
        Self {
            request: format!("{} {}", text(head.method), text(head.target)),
            host: text(head.host),
            request_id: text(given_id.unwrap_or(own_id)),
            client,
        }
    }

    /// Of a request whose sender was asked for. Without the query: what a client is known by may stand there.
    pub(super) fn asked(scene: &Scene<'_>, client: Option<IpAddr>) -> Self {
        Self {
            request: format!("{} {}", text(scene.method), text(scene.path())),
            host: text(scene.host),
            request_id: text(scene.request_id),
            client,
        }
    }

    /// Of a request whose head was ready for the server.
    pub(super) fn written(head: &[u8], client: Option<IpAddr>) -> Self {
        let record = Record::of(head);
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        Self {
            request: text(line.strip_suffix(b" HTTP/1.1").unwrap_or(line)),
            host: text(record.field("host").unwrap_or_default()),
            request_id: text(record.field("x-request-id").unwrap_or_default()),
            client,
        }
    }

    /// Of bytes that are none: their first line, as far as it can be shown.
    pub(super) fn unread(bytes: &[u8], own_id: &[u8]) -> Self {
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let shown = line.get(..LINE_BYTES_MAX).unwrap_or(line);
        let request = text(shown).chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect();
        Self { request, host: String::new(), request_id: text(own_id), client: None }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Session {
    /// Answers what never became a request.
    pub(super) async fn refuse_unread(&mut self, error: Error) -> Next {
        let about = About::unread(&self.inbox, &self.worker.request_id());
        let view = self.worker.view();
        self.refuse(&view, *Refused::unread(error, about)).await
    }

    /// Answers a request that no server gets to see.
    pub(super) async fn refuse(&mut self, view: &View, refused: Refused<'_>) -> Next {
        let Refused { error, mut audience, app, target, about, local, is_read, took } = refused;
        debug!(client = %self.conn.peer, %error, "a request was refused");
        let metrics = &self.worker.shared.metrics;
        metrics.failed(&error);
        app.map_or(&metrics.unrouted, |app| &app.metrics).answered(error.status(), took);
        audience.close |= error.ends_client() || self.conn.drain.is_draining();
        let name = app.map(|app| &*app.name).unwrap_or_default();
        let client = Client { peer: &self.conn.peer, behind: about.client };
        self.worker.shared.access.record(true, || {
            let event = Event::new(about.request.as_str())
                .with("app", name)
                .with("host", about.host.as_str())
                .with("request_id", about.request_id.as_str())
                .show("client", &client)
                .with("status", error.status());
            // Of what was no request nobody knows what it was to be.
            let event =
                if is_read { event.with("protocol", self.protocol(audience.is_http10)) } else { event };
            failed(event, &error)
        });
        let notice = Notice {
            error: &error,
            request_id: &about.request_id,
            app: name,
            host: &about.host,
            client: &client.address(),
            page: view.table.page(app, target, &error),
        };
        let mut out = BytesMut::new();
        reply::error(&notice, audience, &mut out);
        if let Some(local) = local {
            local.apply_to_failure(&mut out, &mut self.worker.fields());
        }
        self.answer(&mut out, audience.close, audience.close).await
    }
}
