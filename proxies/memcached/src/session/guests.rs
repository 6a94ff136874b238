//! Steps of a session that is a tenant's: its keys are renamed, and what is about whole servers is about it alone.

use std::rc::Rc;
use std::task::Context;

use bytes::Bytes;

use super::exchange::{Asked, Exchange};
use super::state::{Answer, Broadcast};
use crate::tenant::generations::flush_at;
use crate::tenant::guest::{Admit, Guest, value_len};
use crate::tenant::key::ROOM;
use crate::upstream::view::View;
use crate::wire::meta::{Reply, Request, Status};

/// What an operator may ask of servers, and a tenant may not.
const NOT_YOURS: &[u8] = b"CLIENT_ERROR a tenant may not ask this";

impl Exchange<'_> {
    /// Asks the server of a key, on behalf of whoever the session is.
    pub(super) fn key(
        &self,
        guest: Option<&Guest>,
        request: &Request<'_>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Asked {
        if self.worker.tap.is_watched() {
            return self.key_tapped(guest, request, view, cx);
        }
        self.key_of_any(guest, request, view, cx)
    }

    /// The same, whether or not anybody watches.
    pub(super) fn key_of_any(
        &self,
        guest: Option<&Guest>,
        request: &Request<'_>,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Asked {
        match guest {
            None => self.one(request.key, request, view, cx),
            Some(guest) => self.key_of(guest, request, view, cx),
        }
    }

    fn key_of(&self, guest: &Guest, request: &Request<'_>, view: &mut View, cx: &mut Context<'_>) -> Asked {
        let fair = &self.worker.fair;
        let refused = |failure| {
            guest.done();
            Asked::Answered(Answer::Failed(failure))
        };
        let now = (self.now, self.worker.since_start(self.now));
        match guest.admit(request, fair, now, cx) {
            Admit::Go => (),
            Admit::Wait => return Asked::InLine,
            Admit::Refused(failure) => return refused(failure),
        }
        let mut room = ROOM;
        let renamed = match guest.rename(request, &mut room) {
            Ok(renamed) => renamed,
            Err(failure) => return refused(failure),
        };
        let asked = self.one(request.key, &renamed, view, cx);
        match &asked {
            Asked::Waiting => guest.sent(1, value_len(request), fair),
            Asked::Answered(answer) => guest.done_with(answer, now.1),
            Asked::Together(_) | Asked::Busy | Asked::InLine => (),
        }
        asked
    }

    /// What a tenant is told where others would ask every server. None: it is told later.
    pub(super) fn everyone_of(&self, guest: &Guest, broadcast: Broadcast<'_>) -> Option<Answer> {
        let line = |status, words| Answer::Reply(Reply::new(status, Bytes::from_static(words), Bytes::new()));
        match broadcast {
            Broadcast::FlushAll { delay } => {
                self.flush(guest, delay);
                None
            }
            Broadcast::Verbosity { .. } | Broadcast::MemLimit { .. } => Some(line(Status::Error, NOT_YOURS)),
            Broadcast::Stats(stats) => Some(match stats.arguments().next() {
                None => {
                    let text = self.worker.tenant_stats(guest);
                    Answer::Reply(Reply::new(Status::End, Bytes::new(), text))
                }
                // What is to be seen of the servers' insides: nothing.
                Some(b"items" | b"slabs" | b"sizes" | b"settings" | b"conns" | b"extstore") => {
                    line(Status::End, b"")
                }
                Some(_) => line(Status::Error, NOT_YOURS),
            }),
        }
    }

    /// Begins another generation of the tenant's keys. The session waits for it.
    fn flush(&self, guest: &Guest, delay: i32) {
        guest.set_flushing(true);
        guest.sent(1, 0, &self.worker.fair);
        let (prefix, at) = (guest.prefix(), flush_at(delay));
        let (worker, mailbox, ticket) = (Rc::clone(self.worker), Rc::clone(self.mailbox), self.ticket);
        tokio::task::spawn_local(async move {
            let (status, line) = match worker.reception.generations.flush(&prefix, at).await {
                Ok(()) => (Status::Classic, Bytes::from_static(b"OK")),
                Err(error) => (Status::Error, Bytes::from(format!("SERVER_ERROR {error}"))),
            };
            if let Some(guest) = mailbox.guest() {
                guest.set_flushing(false);
            }
            mailbox.deliver(ticket, Answer::Reply(Reply::new(status, line, Bytes::new())));
            mailbox.flush();
        });
    }
}
