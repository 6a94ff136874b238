//! Requests that are sent become slots, which wait for their answers.

use std::time::Instant;

use bytes::Bytes;

use super::held::Held;
use super::{Answer, Expect, Gather, Machine, command_of, to_of};
use crate::reply::Kind;
use crate::wire::binary;
use crate::wire::meta::{self, Reply};
use crate::wire::request::{Command, Intent, One, Refusal, Request, To};

impl Machine {
    /// Makes a request the current one, unless there is nothing to ask a server.
    pub(super) fn take(&mut self, request: Request, now: Instant) {
        let (command, to) = (command_of(&request), to_of(&request));
        match &request {
            Request::Quit(_) => {
                self.is_over = true;
                if let To::Binary { .. } = to {
                    self.say(Expect::Done, command, to, now);
                }
            }
            Request::Noop(_) => self.say(Expect::Done, command, to, now),
            Request::Get(get) if get.key().is_none() => self.say(Expect::ValuesEnd, command, to, now),
            Request::Oversized(store) if !store.deletes => {
                self.say(Expect::Refused(Refusal::TooLarge), command, to, now);
            }
            Request::Get(_)
            | Request::One(_)
            | Request::Oversized(_)
            | Request::FlushAll { .. }
            | Request::Verbosity { .. }
            | Request::MemLimit { .. }
            | Request::Stats(_)
            | Request::Version(_)
            | Request::Nodes(_) => self.current = Some(request),
        }
    }

    /// The step has been sent: its answer will have the ticket that [`Next`](super::Next) told.
    pub fn commit(&mut self, now: Instant) {
        if let Some(request @ Request::Get(_)) = &self.current {
            let (command, to) = (command_of(request), to_of(request));
            return self.commit_key(command, to, now);
        }
        let Some(request) = self.current.take() else { return };
        let (command, to) = (command_of(&request), to_of(&request));
        let expect = match &request {
            Request::One(one) => return self.commit_one(one, now),
            Request::Oversized(_) => Expect::Oversized,
            Request::Version(_) | Request::Nodes(_) => Expect::Line,
            // These are no steps for one server, or none at all; a retrieval is committed key by key.
            Request::Get(_)
            | Request::FlushAll { .. }
            | Request::Verbosity { .. }
            | Request::MemLimit { .. }
            | Request::Stats(_)
            | Request::Noop(_)
            | Request::Quit(_) => return,
        };
        self.push(expect, command, to, self.words.len(), now);
    }

    /// The key at hand of a retrieval, which stays where it is while it has more.
    fn commit_key(&mut self, command: Command, to: To, now: Instant) {
        let Some(Request::Get(get)) = &mut self.current else { return };
        let (cas, words_from) = (get.cas, self.words.len());
        self.words.extend_from_slice(get.key().unwrap_or_default());
        get.advance();
        let is_last = get.key().is_none();
        self.push(Expect::Value { cas }, command, to, words_from, now);
        if is_last {
            self.current = None;
            self.push(Expect::ValuesEnd, command, to, self.words.len(), now);
        }
    }

    /// A [`Step::Keys`](super::Step::Keys) has been sent, as far as `gather` goes.
    pub fn commit_keys(&mut self, gather: Box<Gather>, now: Instant) {
        let Some(request) = &mut self.current else { return };
        let (command, to) = (command_of(request), to_of(request));
        let Request::Get(get) = request else { return };
        get.pass(gather.span());
        let is_last = get.key().is_none();
        self.more_values += gather.keys() - 1;
        self.push(Expect::Values, command, to, self.words.len(), now);
        if let Some(slot) = self.slots.back_mut() {
            slot.held = Some(Held::Gather(gather));
        }
        if is_last {
            self.current = None;
            self.push(Expect::ValuesEnd, command, to, self.words.len(), now);
        }
        // All parts may have failed at once.
        self.settle();
    }

    fn commit_one(&mut self, one: &One, now: Instant) {
        let words_from = self.words.len();
        let mut key_len = 0;
        match one.to {
            To::Classic { .. } => (),
            To::Meta { .. } => {
                match one.key.is_coded {
                    true => meta::base64::encode(one.key.as_bytes(), &mut self.words),
                    false => self.words.extend_from_slice(one.key.as_bytes()),
                }
                key_len = self.words.len() - words_from;
                self.words.extend_from_slice(&one.flags);
            }
            To::Binary { opcode, .. } if binary::tells_key(opcode) => {
                self.words.extend_from_slice(one.key.as_bytes());
                key_len = self.words.len() - words_from;
            }
            To::Binary { .. } => (),
        }
        let kind = match &one.intent {
            Intent::Get(_) if one.command == Command::Touch => Kind::Touch,
            Intent::Get(_) => Kind::Get,
            Intent::Store(_) => Kind::Store,
            Intent::Delete(_) => Kind::Delete,
            Intent::Arith(_) => Kind::Arith,
            Intent::Debug => Kind::Debug,
        };
        let key_len = u16::try_from(key_len).unwrap_or(u16::MAX);
        let expect = Expect::One { kind, key_len, is_coded: one.key.is_coded };
        self.push(expect, one.command, one.to, words_from, now);
    }

    /// A [`Step::Everyone`](super::Step::Everyone) has been sent to so many servers, whose answers have as many tickets in a row.
    /// `own` is added to statistics.
    pub fn commit_everyone(&mut self, servers: usize, own: Option<Bytes>, now: Instant) {
        let Some(request) = self.current.take() else { return };
        let (command, to, at) = (command_of(&request), to_of(&request), self.words.len());
        for _ in 0..servers {
            self.push(Expect::Share, command, to, at, now);
        }
        if let Request::Stats(stats) = request {
            // Settings are no amounts.
            let adds = stats.arguments().next() != Some(b"settings");
            self.push(Expect::StatsEnd { adds }, command, to, at, now);
            self.keep_own_stats(own);
        } else {
            self.push(Expect::SharesEnd, command, to, at, now);
        }
        self.settle();
    }

    /// Statistics of our own wait in the last slot for their turn.
    fn keep_own_stats(&mut self, own: Option<Bytes>) {
        let (Some(text), Some(slot)) = (own, self.slots.back_mut()) else { return };
        let own = Answer::Reply(Reply::new(meta::Status::End, Bytes::new(), text));
        slot.held = Some(Held::Answer(Box::new(own)));
    }
}
