//! Answers become the client's bytes, slot by slot from the front.

use bytes::Bytes;

use super::{Answer, Expect, Finished, Machine, Slot};
use crate::error::Failure;
use crate::reply::{self, Outcome, Single};
use crate::stats;
use crate::wire::meta;

/// What the slots of one exchange have come to so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    hits: u32,
    misses: u32,
    failure: Option<Failure>,
    /// A server's own words, for when there is nothing better to say.
    words: Option<Bytes>,
    /// Statistics: ours first if there are any, then each server's.
    own_stats: Option<Bytes>,
    stats: Vec<Bytes>,
}

impl Machine {
    pub(super) fn emit(&mut self, slot: &Slot, answer: Option<Answer>) {
        match slot.expect {
            Expect::Value { cas } => return self.emit_value(cas, answer),
            Expect::Share => return self.gather_share(answer),
            Expect::ValuesEnd => self.emit_values_end(),
            Expect::Single(what) => self.emit_single(what, slot.noreply, answer),
            Expect::Oversized => {
                if let Some(Answer::Failed(failure)) = answer {
                    self.gathered.failure = Some(failure);
                }
                self.write(slot.noreply, reply::TOO_LARGE);
            }
            Expect::SharesEnd => self.emit_shares_end(slot.noreply, None),
            Expect::StatsEnd { adds } => {
                if let Some(Answer::Reply(own)) = answer {
                    self.gathered.own_stats = Some(own.value);
                }
                let text = stats::merge(self.gathered.own_stats.as_ref(), &self.gathered.stats, adds);
                self.emit_shares_end(false, Some(&text));
            }
            Expect::Words(words) => self.write(slot.noreply, words),
        }
        let Gathered { hits, misses, failure, .. } = std::mem::take(&mut self.gathered);
        self.finished.push(Finished { command: slot.command, begun: slot.begun, hits, misses, failure });
    }

    fn emit_value(&mut self, cas: bool, answer: Option<Answer>) {
        match answer {
            Some(Answer::Reply(reply)) => match reply::value(&reply, cas, &mut self.output) {
                Outcome::Good => self.gathered.hits += 1,
                Outcome::Miss => self.gathered.misses += 1,
                Outcome::Refused => self.gathered.words = Some(Bytes::copy_from_slice(reply.line())),
                Outcome::Unfit(failure) => self.gathered.failure = Some(failure),
            },
            Some(Answer::Failed(failure)) => self.gathered.failure = Some(failure),
            None => (),
        }
    }

    /// The keys of a server that failed count as missing, as long as any other key was answered.
    fn emit_values_end(&mut self) {
        let answered = self.gathered.hits + self.gathered.misses > 0;
        match (&self.gathered.words, self.gathered.failure) {
            (Some(words), _) if !answered => {
                self.output.extend_from_slice(words);
                self.output.extend_from_slice(b"\r\n");
            }
            (None, Some(failure)) if !answered => reply::failure(failure, &mut self.output),
            (_, _) => self.output.extend_from_slice(reply::END),
        }
    }

    fn emit_single(&mut self, what: Single, noreply: bool, answer: Option<Answer>) {
        let before = self.output.tail().len();
        let failure = match answer {
            Some(Answer::Reply(reply)) => match reply::single(what, &reply, &mut self.output) {
                Outcome::Good => {
                    self.gathered.hits += 1;
                    None
                }
                Outcome::Miss => {
                    self.gathered.misses += 1;
                    None
                }
                Outcome::Refused => None,
                Outcome::Unfit(failure) => Some(failure),
            },
            Some(Answer::Failed(failure)) => Some(failure),
            None => None,
        };
        if let Some(failure) = failure {
            self.gathered.failure = Some(failure);
            reply::failure(failure, &mut self.output);
        }
        if noreply {
            self.output.tail().truncate(before);
        }
    }

    fn gather_share(&mut self, answer: Option<Answer>) {
        match answer {
            Some(Answer::Reply(reply)) => match reply.status {
                meta::Status::End => self.gathered.stats.push(reply.value),
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
            Some(Answer::Failed(failure)) => self.gathered.failure = Some(failure),
            None => (),
        }
    }

    /// Statistics are told as far as they came; anything else has failed where one server has.
    fn emit_shares_end(&mut self, noreply: bool, stats: Option<&[u8]>) {
        if noreply {
            return;
        }
        let gathered = &self.gathered;
        match (stats, gathered.failure, &gathered.words) {
            (Some(text), _, _) if !gathered.stats.is_empty() => {
                self.output.extend_from_slice(text);
                self.output.extend_from_slice(reply::END);
            }
            (_, Some(failure), _) => reply::failure(failure, &mut self.output),
            (_, None, Some(words)) => {
                self.output.extend_from_slice(words);
                self.output.extend_from_slice(b"\r\n");
            }
            (_, None, None) => self.output.extend_from_slice(reply::OK),
        }
    }

    fn write(&mut self, noreply: bool, words: &[u8]) {
        if !noreply {
            self.output.extend_from_slice(words);
        }
    }
}
