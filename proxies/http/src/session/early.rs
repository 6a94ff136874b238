//! Requests that no server gets to see: refused, or answered by their route.

use super::begin::Begun;
use super::driver::{Next, Session};
use super::letting_in::Question;
use super::refusal::Refused;
use crate::apps::Seat;
use crate::auth::Identity;
use crate::rules::{Action, Manner};
use crate::wire::{Body, Framing, Limits, RequestHead, Version};
use crate::worker::View;
use bytes::{Buf, BytesMut};
use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// A request that no server gets to see.
pub(super) enum Early<'v> {
    /// It cannot be served.
    Refused(Box<Refused<'v>>),
    /// The route itself is the answer.
    Answered(Box<Answered>),
    /// Who sends it has to be found out first.
    Asks(Box<Question<'v>>),
}

/// Who asks, and for what.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    /// The client behind all trusted proxies, where that is not the peer.
    pub(super) client: Option<IpAddr>,
    /// Who it was found to be.
    pub(super) identity: Option<&'a Identity>,
    /// Without what it was known by.
    pub(super) target: &'a [u8],
}

/// An answer that no server was asked for.
pub(super) struct Answered {
    pub(super) out: BytesMut,
    pub(super) close: bool,
    /// The client still sends its body.
    pub(super) lingers: bool,
}

impl Session {
    /// What becomes of a request that does not go to a server at once: it does after all, or it is answered here.
    pub(super) async fn early<'v>(
        &mut self,
        view: &View,
        place: &'v OnceCell<Rc<Seat>>,
        length: usize,
        early: Early<'v>,
    ) -> Result<Begun<'v>, Next> {
        let early = match early {
            Early::Asks(question) => {
                let identity = self.let_in(view, *question).await?;
                match self.begin(view, place, length, Some(identity)) {
                    Ok(begun) => return Ok(begun),
                    Err(early) => early,
                }
            }
            early @ (Early::Refused(_) | Early::Answered(_)) => early,
        };
        Err(match early {
            Early::Refused(refused) => self.refuse(view, *refused).await,
            Early::Answered(answered) => {
                let Answered { mut out, close, lingers } = *answered;
                self.answer(&mut out, close, lingers).await
            }
            // Whom it is of was just found out.
            Early::Asks(_) => Next::Cut,
        })
    }

    /// What a route itself answers, if it does, and how much of what came was the request.
    pub(super) fn answered(
        &self,
        head: &RequestHead<'_>,
        action: &Action,
        seat: &Seat,
        close: bool,
        asking: &Asking<'_>,
    ) -> Option<(Answered, usize)> {
        let limits = &self.worker.view().table.limits;
        let preflight = action.cors.as_ref().filter(|cors| cors.is_preflight(head));
        let answer = action.answer.as_ref().filter(|answer| answer.wants_scheme() != Some(self.scheme()));
        if preflight.is_none() && answer.is_none() {
            return None;
        }
        let body = whole_body(head.framing, self.inbox.get(head.raw.len()..).unwrap_or_default(), limits);
        let close = close || body.is_none() || self.conn.drain.is_draining();
        let manner = Manner { close, is_http10: head.version == Version::Http10 };
        let mut out = BytesMut::new();
        let status = match (preflight, answer) {
            (Some(cors), _) => {
                cors.write(head, manner, &mut out);
                204
            }
            (None, answer) => {
                let answer = answer?;
                answer.write(head, self.scheme(), manner, &mut out);
                answer.status()
            }
        };
        seat.app.metrics.answered(status, Duration::ZERO);
        self.record_early(head.raw, seat, asking, status);
        let taken = head.raw.len() + body.unwrap_or_default();
        Some((Answered { out, close, lingers: body.is_none() }, taken))
    }
}

/// Drops a request's body if all of it is there already, so that the next request can be read behind it.
pub(super) fn skip_body(framing: Framing, inbox: &mut BytesMut, limits: &Limits) -> bool {
    match whole_body(framing, inbox, limits) {
        Some(taken) => inbox.advance(taken),
        None => return false,
    }
    true
}

/// How long a request's body is, if all of it is there.
fn whole_body(framing: Framing, bytes: &[u8], limits: &Limits) -> Option<usize> {
    let mut body = Body::new(framing);
    let taken = body.advance(bytes, limits, |_| {}).ok()?;
    body.is_done().then_some(taken)
}
