//! Answers become the client's bytes, slot by slot from the front.

use bytes::Bytes;

use super::{Expect, Finished, Machine, Slot};
use crate::error::Failure;
use crate::reply::{self, Outcome, Question};
use crate::stats;
use crate::wire::meta::{self, Reply};
use crate::wire::output::Piece;
use crate::wire::request::Refusal;

/// Words that have been told are thrown away when they are so many, or the last.
const WORDS_TOLD_LEN_MAX: usize = 8 << 10;

/// What came of a slot's request.
type Told<'a, B> = Result<&'a Reply<B>, Failure>;

/// What the slots of one exchange have come to so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) hits: u32,
    pub(super) misses: u32,
    is_refused: bool,
    pub(super) failure: Option<Failure>,
    /// A server's own words, for when there is nothing better to say.
    pub(super) words: Option<Bytes>,
    /// Statistics: ours first if there are any, then each server's.
    own_stats: Option<Bytes>,
    stats: Vec<Bytes>,
}

impl Machine {
    pub(super) fn emit<B: Piece>(&mut self, slot: &Slot, answer: Option<Told<'_, B>>) {
        let is_part = self.emit_part(slot, answer);
        self.drop_words(slot.words_len as usize);
        if is_part {
            return;
        }
        let Gathered { hits, misses, is_refused, failure, .. } = std::mem::take(&mut self.gathered);
        let (command, begun) = (slot.command, slot.begun);
        self.is_due = true;
        self.finished.push(Finished { command, begun, hits, misses, is_refused, failure });
    }

    /// The front slot's words have been told.
    pub(super) fn drop_words(&mut self, len: usize) {
        self.words_at += len;
        if self.words_at == self.words.len() {
            self.words.clear();
            self.words_at = 0;
        } else if self.words_at >= WORDS_TOLD_LEN_MAX {
            self.words.drain(..self.words_at);
            self.words_at = 0;
        }
    }

    /// True if more slots belong to this exchange.
    fn emit_part<B: Piece>(&mut self, slot: &Slot, answer: Option<Told<'_, B>>) -> bool {
        let (to, out) = (slot.to, &mut self.output);
        match slot.expect {
            Expect::Value { cas } => {
                self.emit_value(cas, slot.words_len as usize, answer);
                return true;
            }
            Expect::Share => {
                self.gather_share(answer);
                return true;
            }
            // Told when its parts are put together.
            Expect::Values => return true,
            Expect::ValuesEnd => self.emit_values_end(),
            Expect::One { .. } | Expect::Line => self.emit_one(slot, answer),
            Expect::Oversized => {
                self.gathered.is_refused = true;
                reply::refusal(Refusal::TooLarge, to, out);
                if let Some(Err(failure)) = answer {
                    self.gathered.failure = Some(failure);
                }
            }
            Expect::SharesEnd => self.emit_shares_end(slot, None),
            Expect::StatsEnd { adds } => {
                if let Some(Ok(own)) = answer {
                    self.gathered.own_stats = Some(Bytes::copy_from_slice(own.value()));
                }
                let text = stats::merge(self.gathered.own_stats.as_ref(), &self.gathered.stats, adds);
                self.emit_shares_end(slot, Some(&text));
            }
            Expect::Refused(refusal) => {
                self.gathered.is_refused = true;
                reply::refusal(refusal, to, out);
            }
            Expect::Done => reply::done(to, out),
            Expect::Goodbye(error) => {
                self.gathered.is_refused = true;
                reply::goodbye(&error, to, out);
            }
        }
        false
    }

    fn emit_value<B: Piece>(&mut self, cas: bool, key_len: usize, answer: Option<Told<'_, B>>) {
        match answer {
            Some(Ok(reply)) => {
                let key = self.words.get(self.words_at..self.words_at + key_len).unwrap_or_default();
                match reply::value(reply, key, cas, &mut self.output) {
                    Outcome::Good => self.gathered.hits += 1,
                    Outcome::Miss => self.gathered.misses += 1,
                    Outcome::Refused => self.gathered.words = Some(Bytes::copy_from_slice(reply.line())),
                    Outcome::Unfit(failure) => self.gathered.failure = Some(failure),
                }
            }
            Some(Err(failure)) => self.gathered.failure = Some(failure),
            None => (),
        }
    }

    /// The keys of a server that failed count as missing, as long as any other key was answered.
    fn emit_values_end(&mut self) {
        let gathered = &mut self.gathered;
        gathered.is_refused = gathered.words.is_some();
        let answered = gathered.hits + gathered.misses > 0;
        match (&gathered.words, gathered.failure) {
            (Some(words), _) if !answered => {
                self.output.extend_from_slice(words);
                self.output.extend_from_slice(b"\r\n");
            }
            (None, Some(failure)) if !answered => reply::failure(failure, &mut self.output),
            (_, _) => self.output.extend_from_slice(reply::END),
        }
    }

    fn emit_one<B: Piece>(&mut self, slot: &Slot, answer: Option<Told<'_, B>>) {
        let words_end = self.words_at + slot.words_len as usize;
        let words = self.words.get(self.words_at..words_end).unwrap_or_default();
        let mut question = Question { to: slot.to, kind: None, key: b"", is_coded: false, flags: b"" };
        if let Expect::One { kind, key_len, is_coded } = slot.expect {
            let (key, flags) = words.split_at_checked(usize::from(key_len)).unwrap_or((words, b""));
            question = Question { kind: Some(kind), key, is_coded, flags, ..question };
        }
        let (outcome, out) = match answer {
            Some(Ok(reply)) => (reply::one(&question, reply, &mut self.output), &mut self.output),
            Some(Err(failure)) => (Outcome::Unfit(failure), &mut self.output),
            None => (Outcome::Unfit(Failure::Nonsense), &mut self.output),
        };
        match outcome {
            Outcome::Good => self.gathered.hits += 1,
            Outcome::Miss => self.gathered.misses += 1,
            Outcome::Refused => self.gathered.is_refused = true,
            Outcome::Unfit(failure) => {
                self.gathered.failure = Some(failure);
                reply::failed(&question, failure, out);
            }
        }
    }

    fn gather_share<B: Piece>(&mut self, answer: Option<Told<'_, B>>) {
        match answer {
            Some(Ok(reply)) => match reply.status {
                meta::Status::End => self.gathered.stats.push(Bytes::copy_from_slice(reply.value())),
                meta::Status::Classic if reply.line() == b"OK" => self.gathered.hits += 1,
                meta::Status::Classic | meta::Status::Error => {
                    self.gathered.words = Some(Bytes::copy_from_slice(reply.line()));
                }
                meta::Status::Done
                | meta::Status::Value
                | meta::Status::TooLarge
                | meta::Status::Miss
                | meta::Status::NotFound
                | meta::Status::NotStored
                | meta::Status::Exists
                | meta::Status::Noop
                | meta::Status::Debug
                | meta::Status::Stat => self.gathered.failure = Some(Failure::Nonsense),
            },
            Some(Err(failure)) => self.gathered.failure = Some(failure),
            None => (),
        }
    }

    /// Statistics are told as far as they came; anything else has failed where one server has.
    fn emit_shares_end(&mut self, slot: &Slot, stats: Option<&[u8]>) {
        let (to, gathered, out) = (slot.to, &mut self.gathered, &mut self.output);
        match (stats, gathered.failure, &gathered.words) {
            (Some(text), _, _) if !gathered.stats.is_empty() => reply::stats(text, to, out),
            (_, Some(failure), _) => reply::broadcast_failed(failure, to, out),
            (_, None, Some(words)) => {
                gathered.is_refused = words.starts_with(b"SERVER_ERROR");
                reply::server_words(words, stats.is_some(), to, out);
            }
            (_, None, None) => reply::done(to, out),
        }
    }
}
