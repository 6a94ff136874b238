//! Retrievals of several keys: one question for each server that has some of them.

use std::rc::Rc;
use std::task::Context;

use smallvec::SmallVec;

use super::exchange::Exchange;
use super::state::{Gather, Key};
use crate::error::Failure;
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
    /// Asks the servers of the keys at hand, up to `max` of them: as far as there is no more to a key than its server.
    /// `None`: there is to the first or the second.
    pub(super) fn several(
        &self,
        get: &Get,
        max: usize,
        view: &mut View,
        cx: &mut Context<'_>,
    ) -> Option<Gather> {
        if self.worker.tap.is_watched() {
            return None;
        }
        let mut questions: SmallVec<[Question; 4]> = SmallVec::new();
        let mut keys = Vec::with_capacity(max);
        for (span, key) in get.keys().take(max) {
            let route = view.route(key, key);
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
        }
        if keys.len() < 2 {
            return None;
        }
        let mut gather = Gather::new(keys, questions.len());
        for (number, Question { connection, keys }) in (0..).zip(questions) {
            if let Err(failure) = self.ask_for(number, &connection, keys) {
                gather.set(number, Err(failure));
            }
        }
        Some(gather)
    }

    fn ask_for(&self, number: u8, connection: &Connection, keys: Keys) -> Result<(), Failure> {
        let part = Box::new(Part { mailbox: Rc::clone(self.mailbox), ticket: self.ticket, number, keys });
        connection.send_part(part, self.now)
    }
}
