//! One client's requests and answers, in order. No IO: bytes and replies come in, steps and bytes go out.
//!
//! ```text
//!   input ──► step ──────────────► the driver sends it ──► upstream
//!               │ commit: a slot at the back
//!               ▼
//!   slots  [value][value][end][store][line]…          ◄── answer(ticket, reply), in any order
//!               │ the front one, as soon as it is answered
//!               ▼
//!   output ──► the client
//! ```
//!
//! Every answer that a client will see has a slot, taken when its request is sent; a retrieval has one for
//! each key and one for its `END`. Slots leave from the front only, so answers are in the order of requests
//! however servers reply.

mod command;
mod emit;
mod step;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

pub use command::Finished;
pub use step::{Broadcast, Next, Step};

pub use crate::wire::request::Command;

use crate::error::Failure;
use crate::reply::Kind;
use crate::wire::decoder::Language;
use crate::wire::meta::{self, Reply};
use crate::wire::request::{DecodeError, Intent, One, Refusal, Request, To};
use crate::wire::{Decoder, Limits, Output, binary};
use command::{command_of, to_of};
use emit::Gathered;
use step::step_of;

/// Answers that may be outstanding for one client.
const SLOTS_MAX: usize = 1024;

/// Bytes that may be waiting for one client (or be on their way to it, as far as that can be foreseen)
/// before nothing more is asked for on its behalf.
const BUFFERED_LEN_MAX: usize = 4 << 20;

/// What a value is thought to be long before the first has been seen.
const VALUE_LEN_GUESS: u32 = 64 << 10;

/// A machine with room for more than so many answers, or bytes of keys, is not kept for another session.
const SLOTS_SPARE_MAX: usize = 256;
const WORDS_SPARE_LEN_MAX: usize = 16 << 10;

/// The number of an answer of its machine, counted from 0.
pub type Ticket = u64;

/// What came of a request to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This.
    Reply(Reply),
    /// Nothing.
    Failed(Failure),
}

#[derive(Debug)]
struct Slot {
    expect: Expect,
    command: Command,
    to: To,
    /// How many bytes of the machine's `words` are this slot's.
    words_len: u32,
    begun: Instant,
    answer: Option<Answer>,
}

/// What a slot makes of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// One key of a classic retrieval. Its words are the key.
    Value { cas: bool },
    /// The end of a classic retrieval. Needs no answer.
    ValuesEnd,
    /// What one thing done to one key comes to. Its words: for a meta client the key as it travels, which is
    /// `key_len` long, and the flags; for a binary one the key, if the answer has it.
    One { kind: Kind, key_len: u16, is_coded: bool },
    /// A line from a server, its version; or from the proxy itself.
    Line,
    /// The old value of an oversized store is taken away, then the client is told.
    Oversized,
    /// One server's answer to a broadcast, or its statistics.
    Share,
    /// The end of a broadcast: done, or what failed. Needs no answer.
    SharesEnd,
    /// The end of the statistics: all added up. Needs no answer.
    StatsEnd { adds: bool },
    /// Nothing can be done. Needs no answer.
    Refused(Refusal),
    /// Nothing need be done. Needs no answer.
    Done,
    /// The last word. Needs no answer.
    Goodbye(DecodeError),
}

impl Expect {
    fn needs_answer(self) -> bool {
        match self {
            Self::Value { .. } | Self::One { .. } | Self::Line | Self::Oversized | Self::Share => true,
            Self::ValuesEnd
            | Self::SharesEnd
            | Self::StatsEnd { .. }
            | Self::Refused(_)
            | Self::Done
            | Self::Goodbye(_) => false,
        }
    }
}

/// What a session remembers while it has no machine, see [`Machine::rest`].
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    language: Language,
    value_len_expected: u32,
}

impl Default for Kept {
    fn default() -> Self {
        Self { language: Language::default(), value_len_expected: VALUE_LEN_GUESS }
    }
}

/// A session's state, while it has something to do.
#[derive(Debug)]
pub struct Machine {
    decoder: Decoder,
    /// The request that is being sent; a retrieval is sent key by key.
    current: Option<Request>,
    slots: VecDeque<Slot>,
    /// What slots need of their requests for their answers: keys and flags, in the order of the slots.
    words: BytesMut,
    /// The ticket of the front slot.
    first: Ticket,
    gathered: Gathered,
    /// Bytes of values in slots that are not at the front.
    held_len: usize,
    /// How long a value may turn out to be: the largest seen lately.
    value_len_expected: u32,
    output: Output,
    finished: Vec<Finished>,
    is_over: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// A session that has seen nothing.
    pub fn new() -> Self {
        Self {
            decoder: Decoder::default(),
            current: None,
            slots: VecDeque::new(),
            words: BytesMut::new(),
            first: 0,
            gathered: Gathered::default(),
            held_len: 0,
            value_len_expected: VALUE_LEN_GUESS,
            output: Output::new(),
            finished: Vec::new(),
            is_over: false,
        }
    }

    /// Goes on with a session that has rested, in which this was kept. For a machine that has rested itself.
    pub fn resume(&mut self, kept: Kept) {
        self.decoder = Decoder::resume(kept.language);
        self.value_len_expected = kept.value_len_expected;
    }

    /// What to keep of a session that has nothing outstanding: its machine may then be another's. `None`: it has.
    pub fn rest(&self) -> Option<Kept> {
        let is_at_rest = self.is_settled() && self.finished.is_empty() && !self.is_over;
        let language = self.decoder.rest().filter(|_| is_at_rest)?;
        Some(Kept { language, value_len_expected: self.value_len_expected })
    }

    /// Has it grown so much that its memory is better given back?
    pub fn is_large(&self) -> bool {
        self.slots.capacity().max(self.finished.capacity()) > SLOTS_SPARE_MAX
            || self.words.capacity() > WORDS_SPARE_LEN_MAX
    }

    /// May another request be sent? If not, answers must come or output must go first.
    pub fn admits(&self) -> bool {
        let waiting = self.slots.len();
        waiting < SLOTS_MAX
            && self.output.len() + self.held_len + waiting * (self.value_len_expected as usize)
                < BUFFERED_LEN_MAX
    }

    /// May the answer of this ticket, which is so long, be put together now, beside others that are so long? One
    /// may whatever its length: the one that the client waits for, once it has taken all before.
    pub fn may_gather(&self, ticket: Ticket, len: usize, gathered_len: usize) -> bool {
        self.output.len() + self.held_len + gathered_len + len <= BUFFERED_LEN_MAX
            || (gathered_len == 0 && ticket <= self.first && self.output.is_empty())
    }

    /// Has the client been told goodbye? Then nothing more is read, and all that is left is the output.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Is every request that came answered, and every answer written?
    pub fn is_settled(&self) -> bool {
        self.current.is_none() && self.slots.is_empty() && self.output.is_empty()
    }

    /// Is an answer outstanding?
    pub fn is_waiting(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Is there a request that has not been sent in full?
    pub fn is_sending(&self) -> bool {
        self.current.is_some()
    }

    /// The bytes for the client.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// The exchanges that are over since the last call.
    pub fn finished(&mut self) -> std::vec::Drain<'_, Finished> {
        self.finished.drain(..)
    }

    /// What to do next, of the request at hand or else the next in `input`. The same step is given until
    /// it is committed. `None`: more bytes are needed, or the session is over.
    ///
    /// # Errors
    ///
    /// When the client's bytes cannot be read any further; the session is then over.
    pub fn step(
        &mut self,
        input: &mut BytesMut,
        limits: &Limits,
        now: Instant,
    ) -> Result<Option<Next<'_>>, DecodeError> {
        while self.current.is_none() && !self.is_over {
            match self.decoder.decode(input, limits) {
                Ok(None) => break,
                Ok(Some(request)) => self.take(request, now),
                Err(DecodeError::Refused { refusal, to }) => {
                    self.say(Expect::Refused(refusal), Command::Refused, to, now);
                }
                Err(error) => {
                    self.hang_up(error, now);
                    return Err(error);
                }
            }
        }
        let ticket = self.first + self.slots.len() as Ticket;
        Ok(self.current.as_ref().and_then(step_of).map(|step| Next { ticket, step }))
    }

    /// Nothing more of what the client sends is looked at.
    fn hang_up(&mut self, error: DecodeError, now: Instant) {
        self.is_over = true;
        let to = match error {
            DecodeError::Refused { to, .. } | DecodeError::HangUp { to, .. } => to,
            DecodeError::LineTooLong
            | DecodeError::Garbage
            | DecodeError::Http
            | DecodeError::Tls
            | DecodeError::BadMagic => To::TEXT,
        };
        self.say(Expect::Goodbye(error), Command::Refused, to, now);
    }

    /// Makes a request the current one, unless there is nothing to ask a server.
    fn take(&mut self, request: Request, now: Instant) {
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

    /// The step has been sent: its answer will have the ticket that [`Next`] told.
    pub fn commit(&mut self, now: Instant) {
        let Some(mut request) = self.current.take() else { return };
        let (command, to) = (command_of(&request), to_of(&request));
        let expect = match &mut request {
            Request::Get(get) => {
                let cas = get.cas;
                let words_len = self.words.len();
                self.words.extend_from_slice(get.key().unwrap_or_default());
                get.advance();
                let is_last = get.key().is_none();
                self.push(Expect::Value { cas }, command, to, words_len, now);
                match is_last {
                    true => self.push(Expect::ValuesEnd, command, to, self.words.len(), now),
                    false => self.current = Some(request),
                }
                return;
            }
            Request::One(one) => return self.commit_one(one, now),
            Request::Oversized(_) => Expect::Oversized,
            Request::Version(_) | Request::Nodes(_) => Expect::Line,
            // These are no steps for one server, or none at all.
            Request::FlushAll { .. }
            | Request::Verbosity { .. }
            | Request::MemLimit { .. }
            | Request::Stats(_)
            | Request::Noop(_)
            | Request::Quit(_) => return,
        };
        self.push(expect, command, to, self.words.len(), now);
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

    /// A [`Step::Everyone`] has been sent to so many servers, whose answers have as many tickets in a row.
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
        slot.answer = Some(Answer::Reply(Reply::new(meta::Status::End, Bytes::new(), text)));
    }

    /// What came of the request with this ticket.
    pub fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if let Answer::Reply(reply) = &answer {
            let seen = u32::try_from(reply.value.len()).unwrap_or(u32::MAX);
            let expected = self.value_len_expected;
            self.value_len_expected = seen.max(expected - expected / 8);
        }
        let Some(index) = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok()) else {
            return;
        };
        if index == 0 {
            if let Some(slot) = self.slots.pop_front() {
                self.first += 1;
                self.emit(&slot, Some(answer));
            }
            return self.settle();
        }
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.answer = Some(match answer {
            Answer::Reply(reply) => {
                self.held_len += reply.value.len();
                Answer::Reply(reply.detached())
            }
            Answer::Failed(_) => answer,
        });
    }

    /// A slot whose words are those from `words_from` on.
    fn push(&mut self, expect: Expect, command: Command, to: To, words_from: usize, begun: Instant) {
        let words_len = u32::try_from(self.words.len() - words_from).unwrap_or(u32::MAX);
        self.slots.push_back(Slot { expect, command, to, words_len, begun, answer: None });
    }

    /// An exchange that no server is asked for.
    fn say(&mut self, expect: Expect, command: Command, to: To, now: Instant) {
        self.push(expect, command, to, self.words.len(), now);
        self.settle();
    }

    /// Emits whatever is ready at the front.
    fn settle(&mut self) {
        while let Some(slot) =
            self.slots.pop_front_if(|slot| slot.answer.is_some() || !slot.expect.needs_answer())
        {
            self.first += 1;
            let mut slot = slot;
            let answer = slot.answer.take();
            if let (true, Some(Answer::Reply(reply))) = (slot.expect.needs_answer(), &answer) {
                self.held_len -= reply.value.len();
            }
            self.emit(&slot, answer);
        }
        debug_assert!(self.check_invariants());
    }

    /// What must hold between any two calls.
    fn check_invariants(&self) -> bool {
        let held = self.slots.iter().filter(|slot| slot.expect.needs_answer());
        let held_len: usize = held
            .filter_map(|slot| match &slot.answer {
                Some(Answer::Reply(reply)) => Some(reply.value.len()),
                Some(Answer::Failed(_)) | None => None,
            })
            .sum();
        let front_waits =
            self.slots.front().is_none_or(|slot| slot.answer.is_none() && slot.expect.needs_answer());
        let words_len: usize = self.slots.iter().map(|slot| slot.words_len as usize).sum();
        front_waits && held_len == self.held_len && words_len == self.words.len()
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
