//! Finding out who sends a request, between route and lease: what `auth:` says is carried out here, and nowhere else.

use super::driver::{Next, Session};
use super::early::skip_body;
use super::local::Local;
use super::record::Client;
use super::refusal::{About, Refused};
use crate::apps::Seat;
use crate::auth::{Auth, Identity, Verdict};
use crate::error::Error;
use crate::reply::{self, Audience};
use crate::scene::{Kept, Scene};
use crate::table::Target;
use crate::wire::edits::Stripped;
use crate::wire::{Framing, Malformed};
use crate::worker::View;
use bytes::{Buf, BytesMut};
use groove_common::telemetry::Event;
use std::io;
use std::net::IpAddr;
use tokio::time::{Instant, timeout};

/// A request that nobody has vouched for yet. Its head is still where it was read.
pub(super) struct Question<'v> {
    pub(super) seat: &'v Seat,
    pub(super) target: &'v Target,
    pub(super) auth: &'v Auth,
    pub(super) stripped: Option<&'v Stripped>,
    /// The client behind all trusted proxies, where that is not the peer.
    pub(super) client: Option<IpAddr>,
    pub(super) kept: Kept,
    /// Its id, if its peer's is not kept.
    pub(super) request_id: [u8; 32],
    pub(super) framing: Framing,
    pub(super) audience: Audience,
    /// Of its head.
    pub(super) length: usize,
}

impl<'v> Question<'v> {
    fn scene(&self) -> Scene<'_> {
        self.kept.scene(&self.seat.app.name, self.stripped, None)
    }

    /// How what it is answered here is edited.
    fn local(self) -> Option<Box<Local<'v>>> {
        let origin = self.scene().header("origin").map(<[u8]>::to_vec);
        Local::of((&self.seat.app, self.target), origin.as_deref(), None, || self.kept)
    }
}

impl Session {
    /// Who sends it; or what becomes of the connection once it is answered without its app.
    pub(super) async fn let_in(&mut self, view: &View, asked: Question<'_>) -> Result<Box<Identity>, Next> {
        let at = Instant::now();
        let scene = asked.scene();
        let verdict = match self.whole_body(&asked, &scene).await {
            Ok(None) => asked.auth.verdict(&scene, None).await,
            Ok(Some(length)) => {
                let body = self.inbox.get(asked.length..asked.length + length).unwrap_or_default();
                asked.auth.verdict(&scene, Some(body)).await
            }
            Err(error) => Verdict::Denied(error),
        };
        let mut audience = asked.audience;
        match verdict {
            Verdict::Admitted(mut identity) => {
                identity.request_id = Some(asked.request_id);
                Ok(identity)
            }
            Verdict::Denied(Error::ClientGone) => {
                self.worker.shared.metrics.failed(&Error::ClientGone);
                Err(Next::Cut)
            }
            Verdict::Denied(error) => {
                audience.close |= self.drops(view, &asked);
                let about = About::asked(&scene, asked.client);
                let took = at.elapsed();
                let (app, target) = (Some(&*asked.seat.app), Some(asked.target));
                let local = asked.local();
                let refused = Refused { error, audience, app, target, about, local, is_read: true, took };
                Err(self.refuse(view, refused).await)
            }
            Verdict::Answered(answer) => {
                let mut out = BytesMut::new();
                audience.close |= self.drops(view, &asked);
                reply::answer(&answer, audience, scene.request_id, &mut out);
                self.note(&asked, at, answer.status, answer.reason);
                if let Some(local) = asked.local() {
                    local.apply(&mut out, &mut self.worker.fields());
                }
                Err(self.answer(&mut out, audience.close, audience.close).await)
            }
        }
    }

    /// Takes what is there of a request that goes nowhere; true if more of it is to come, so that the connection has to end.
    fn drops(&mut self, view: &View, asked: &Question<'_>) -> bool {
        self.inbox.advance(asked.length);
        !skip_body(asked.framing, &mut self.inbox, &view.table.limits) || self.conn.drain.is_draining()
    }

    /// Waits for the whole body where its signature has to be checked, and says how long it is.
    async fn whole_body(&mut self, asked: &Question<'_>, scene: &Scene<'_>) -> Result<Option<usize>, Error> {
        let Some(bytes_max) = asked.auth.body_bytes_max(scene) else { return Ok(None) };
        let length = match asked.framing {
            Framing::None => return Ok(Some(0)),
            Framing::Length(length) if length <= bytes_max => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::Length(_) => return Err(Error::Request(Malformed::BodyTooLarge)),
            Framing::Chunked | Framing::Close => {
                let reason = "a body that is signed needs a Content-Length";
                return Err(Error::Unauthenticated {
                    way: "hmac",
                    reason,
                    challenges: vec!["HMAC-SHA256".to_owned()],
                });
            }
        };
        if scene.header("expect").is_some() && self.inbox.len() == asked.length {
            let mut interim = BytesMut::from(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]);
            self.conn.stream.send(&mut interim).await.map_err(|_: io::Error| Error::ClientGone)?;
        }
        while self.inbox.len() < asked.length + length {
            match timeout(asked.seat.app.body_idle, self.conn.stream.fill(&mut self.inbox)).await {
                Ok(Ok(0) | Err(_)) => return Err(Error::ClientGone),
                Ok(Ok(_)) => {}
                Err(_) => return Err(Error::UploadTimeout),
            }
        }
        Ok(Some(length))
    }

    /// Leaves a line in the access log, without the query: what a client is known by may stand there.
    fn note(&self, asked: &Question<'_>, at: Instant, status: u16, reason: &'static str) {
        let took = at.elapsed();
        let app = &asked.seat.app;
        app.metrics.answered(status, took);
        self.worker.shared.access.record(false, || {
            let scene = asked.scene();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Event::new(format!("{} {}", text(scene.method), text(scene.path())))
                .with("app", &*app.name)
                .with("host", text(scene.host))
                .with("request_id", text(scene.request_id))
                .show("client", Client { peer: &self.conn.peer, behind: asked.client })
                .with("protocol", self.protocol(asked.audience.is_http10))
                .with("status", status)
                .time("took_ms", took)
                .with("reason", reason)
        });
    }
}
