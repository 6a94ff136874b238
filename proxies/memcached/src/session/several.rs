//! Retrievals of several keys: one question for each server that has some of them.

use std::rc::Rc;
use std::task::Context;

use smallvec::SmallVec;

use super::exchange::Exchange;
use super::state::{Gather, Key};
use crate::error::Failure;
use crate::tenant::guest::Guest;
use crate::tenant::key::ROOM;
use crate::upstream::connection::{Connection, Part};
use crate::upstream::view::{Lease, View};
use crate::wire::classic::items::Keys;
use crate::wire::request::Get;

/// What one connection is asked for.
struct Question {
    connection: Rc<Connection>,
    keys: Keys,
}

impl Exchange<'_> {
    /// Asks the servers of the keys at hand, up to `max` of them: as far as there is no more to a key than its server,
    /// and room for it beside what else its tenant has on its way. `None`: not even the first.
    pub(super) fn several(
        &self,
        guest: Option<&Guest>,
        get: &Get,
        max: usize,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Option<Gather> {
        if self.worker.tap.is_watched() || guest.is_some_and(Guest::pays) {
            return None;
        }
        let mut questions: SmallVec<[Question; 4]> = SmallVec::new();
        let mut keys = Vec::with_capacity(max);
        let fair = &self.worker.fair;
        let at = self.worker.since_start(self.now);
        for (span, own) in get.keys().take(max) {
            let mut room;
            let key = match guest {
                None => own,
                Some(guest) if guest.may_send(fair, at, cx) => {
                    room = ROOM;
                    let Some(key) = guest.rename_key(own, &mut room) else { break };
                    key
                }
                Some(_) => break,
            };
            let route = view.route(own, key);
            if !view.is_plain(route) {
                break;
            }
            let Lease::Connection { connection, is_trial: false, ttl_max_s: None } =
                view.lease(route, self.session, cx.waker())
            else {
                break;
            };
            let known = questions.iter().position(|question| Rc::ptr_eq(&question.connection, &connection));
            let number = known.unwrap_or(questions.len());
            // No cluster has so many servers that a retrieval could be spread over.
            let Ok(owner) = u8::try_from(number) else { break };
            if known.is_none() {
                questions.push(Question { connection, keys: Keys::default() });
            }
            if let Some(question) = questions.get_mut(number) {
                question.keys.push(key);
            }
            keys.push(Key { span, owner });
            if let Some(guest) = guest {
                guest.sent(0, fair);
            }
        }
        if keys.is_empty() {
            return None;
        }
        let mut gather = Gather::new(keys, questions.len());
        for (number, Question { connection, keys }) in (0..).zip(questions) {
            let count = keys.count();
            if let Err(failure) = self.ask_for(number, &connection, keys) {
                gather.set(number, Err(failure));
                if let Some(guest) = guest {
                    guest.answered(count, 0, fair, || at);
                }
            }
        }
        Some(gather)
    }

    fn ask_for(&self, number: u8, connection: &Connection, keys: Keys) -> Result<(), Failure> {
        let part = Box::new(Part { mailbox: Rc::clone(self.mailbox), ticket: self.ticket, number, keys });
        connection.send_part(part, self.now)
    }
}
