//! Retrievals of several keys: one question for each server that has some of them.

use std::rc::Rc;
use std::task::Context;

use smallvec::SmallVec;

use super::exchange::{Asked, Exchange};
use super::state::{Gather, Owners};
use crate::tenant::fair::requests_of;
use crate::tenant::guest::Guest;
use crate::tenant::key::{Head, Namer};
use crate::upstream::connection::{Connection, Part};
use crate::upstream::view::View;
use crate::wire::classic::items::Keys;
use crate::wire::request::Get;
use crate::wire::words::Span;

/// What one connection is asked for.
struct Question {
    connection: Rc<Connection>,
    part: Box<Part>,
}

impl Exchange<'_> {
    /// Asks the servers of the keys at hand, up to `max` of them: as far as there is no more to a key than its server.
    /// `None`: there is more to the first of them, which is to be asked for by itself.
    pub(super) fn several(
        &self,
        guest: Option<&Guest>,
        get: &Get,
        max: usize,
        view: &View,
        cx: &mut Context<'_>,
    ) -> Option<Asked> {
        if self.worker.tap.is_watched() || guest.is_some_and(Guest::pays) {
            return None;
        }
        let fair = &self.worker.fair;
        let head = match guest {
            None => None,
            Some(guest) => {
                let requests = requests_of(get.keys().take(max).count());
                if !guest.may_send(requests, fair, self.worker.since_start(self.now), cx) {
                    return Some(Asked::InLine);
                }
                Some(guest.head()?)
            }
        };
        let cut_len = head.as_ref().map_or(0, |head| head.bytes().len());
        let (span, owners, questions) = self.questions(head.as_deref(), get, max, view, cx);
        if owners.is_empty() {
            return None;
        }
        let mut gather = Box::new(Gather::new(span, owners, questions.len(), cut_len));
        for (number, Question { connection, part }) in (0..).zip(questions) {
            let requests = requests_of(part.keys.count());
            match (connection.send_part(part, self.now), guest) {
                (Ok(()), Some(guest)) => guest.sent(requests, 0, fair),
                (Ok(()), None) => (),
                (Err(failure), _) => gather.set(number, Err(failure)),
            }
        }
        Some(Asked::Together(gather))
    }

    /// Which connection is to be asked for which keys, and which of these questions each key is in.
    fn questions(
        &self,
        head: Option<&Head>,
        get: &Get,
        max: usize,
        view: &View,
        cx: &mut Context<'_>,
    ) -> (Span, Owners, SmallVec<[Question; 4]>) {
        let mut questions: SmallVec<[Question; 4]> = SmallVec::new();
        let (mut span, mut owners) = (Span::default(), Owners::new());
        let mut namer = head.map(Namer::new);
        for (place, own) in get.keys().take(max) {
            // One that is hashed is asked for by itself: what the client calls it by is not in its answer.
            let Some(key) = namer.as_mut().map_or(Some(own), |namer| namer.whole(own)) else { break };
            let Some(connection) = view.plain(view.route(own, key), self.session) else { break };
            let known = questions.iter().position(|question| Rc::ptr_eq(&question.connection, connection));
            let number = known.unwrap_or(questions.len());
            // No cluster has so many servers that a retrieval could be spread over.
            let Ok(owner) = u8::try_from(number) else { break };
            if known.is_none() {
                if !connection.is_ready(cx.waker()) {
                    break;
                }
                let (mailbox, ticket) = (Rc::clone(self.mailbox), self.ticket);
                let part = Box::new(Part { mailbox, ticket, number: owner, keys: Keys::default() });
                questions.push(Question { connection: Rc::clone(connection), part });
            }
            if let Some(question) = questions.get_mut(number) {
                question.part.keys.push(key);
            }
            if owners.is_empty() {
                span.start = place.start;
            }
            span.end = place.end;
            owners.push(owner);
        }
        (span, owners, questions)
    }
}
