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

pub use command::{Command, Finished};
pub use step::{Broadcast, Next, Step};

use crate::error::Failure;
use crate::reply::{self, Single};
use crate::wire::meta::{self, Reply};
use crate::wire::request::{DecodeError, Mode, Request};
use crate::wire::{Decoder, Limits, Output};
use command::command_of;
use emit::Gathered;
use step::step_of;

/// Answers that may be outstanding for one client.
const SLOTS_MAX: usize = 1024;

/// Bytes that may be waiting for one client (or be on their way to it, as far as that can be foreseen)
/// before nothing more is asked for on its behalf.
const BUFFERED_LEN_MAX: usize = 4 << 20;

/// What a value is thought to be long before the first has been seen.
const VALUE_LEN_GUESS: usize = 64 << 10;

/// The number of an answer in its session, counted from 0.
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
    noreply: bool,
    begun: Instant,
    answer: Option<Answer>,
}

/// What a slot makes of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// One key of a retrieval.
    Value { cas: bool },
    /// The end of a retrieval. Needs no answer.
    ValuesEnd,
    /// One line.
    Single(Single),
    /// The old value of an oversized `set` is taken away, then the client is told.
    Oversized,
    /// One server's answer to a broadcast, or its statistics.
    Share,
    /// The end of a broadcast: `OK`, or what failed. Needs no answer.
    SharesEnd,
    /// The end of the statistics: all added up. Needs no answer.
    StatsEnd { adds: bool },
    /// These words. Needs no answer.
    Words(&'static [u8]),
}

impl Expect {
    fn needs_answer(self) -> bool {
        match self {
            Self::Value { .. } | Self::Single(_) | Self::Oversized | Self::Share => true,
            Self::ValuesEnd | Self::SharesEnd | Self::StatsEnd { .. } | Self::Words(_) => false,
        }
    }
}

/// A session's state.
#[derive(Debug)]
pub struct Machine {
    decoder: Decoder,
    /// The request that is being sent; a retrieval is sent key by key.
    current: Option<Request>,
    slots: VecDeque<Slot>,
    /// The ticket of the front slot.
    first: Ticket,
    gathered: Gathered,
    /// Bytes of values in slots that are not at the front.
    held_len: usize,
    /// How long a value may turn out to be: the largest seen lately.
    value_len_expected: usize,
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
            first: 0,
            gathered: Gathered::default(),
            held_len: 0,
            value_len_expected: VALUE_LEN_GUESS,
            output: Output::new(),
            finished: Vec::new(),
            is_over: false,
        }
    }

    /// May another request be sent? If not, answers must come or output must go first.
    pub fn admits(&self) -> bool {
        let waiting = self.slots.len();
        waiting < SLOTS_MAX
            && self.output.len() + self.held_len + waiting * self.value_len_expected < BUFFERED_LEN_MAX
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
                Err(DecodeError::Refused { refusal, noreply }) => {
                    self.say(reply::refusal(refusal), Command::Refused, noreply, now);
                }
                Err(error) => {
                    self.is_over = true;
                    self.say(reply::goodbye(&error), Command::Refused, false, now);
                    return Err(error);
                }
            }
        }
        let ticket = self.first + self.slots.len() as Ticket;
        Ok(self.current.as_ref().and_then(step_of).map(|step| Next { ticket, step }))
    }

    /// Makes a request the current one, unless there is nothing to ask a server.
    fn take(&mut self, request: Request, now: Instant) {
        match &request {
            Request::Quit => self.is_over = true,
            Request::Get(get) if get.key().is_none() => {
                self.push(Expect::ValuesEnd, command_of(&request), false, now);
                self.settle();
            }
            Request::Oversized(store) if store.mode != Mode::Set => {
                self.say(reply::TOO_LARGE, command_of(&request), store.noreply, now);
            }
            Request::Get(_)
            | Request::Store(_)
            | Request::Oversized(_)
            | Request::Arith(_)
            | Request::Touch(_)
            | Request::Delete(_)
            | Request::FlushAll { .. }
            | Request::Verbosity { .. }
            | Request::MemLimit { .. }
            | Request::Stats(_)
            | Request::Version => self.current = Some(request),
        }
    }

    /// The step has been sent: its answer will have the ticket that [`Next`] told.
    pub fn commit(&mut self, now: Instant) {
        let Some(mut request) = self.current.take() else { return };
        let command = command_of(&request);
        let (single, noreply) = match &mut request {
            Request::Get(get) => {
                let cas = get.cas;
                get.advance();
                let is_last = get.key().is_none();
                self.push(Expect::Value { cas }, command, false, now);
                match is_last {
                    true => self.push(Expect::ValuesEnd, command, false, now),
                    false => self.current = Some(request),
                }
                return;
            }
            Request::Store(store) => (Single::Store, store.noreply),
            Request::Arith(arith) => (Single::Arith, arith.noreply),
            Request::Touch(touch) => (Single::Touch, touch.noreply),
            Request::Delete(delete) => (Single::Delete, delete.noreply),
            Request::Oversized(store) => {
                return self.push(Expect::Oversized, command, store.noreply, now);
            }
            Request::FlushAll { .. }
            | Request::Verbosity { .. }
            | Request::MemLimit { .. }
            | Request::Stats(_)
            | Request::Version
            | Request::Quit => (Single::Line, false),
        };
        self.push(Expect::Single(single), command, noreply, now);
    }

    /// A [`Step::Everyone`] has been sent to so many servers, whose answers have as many tickets in a row.
    /// `own` is added to statistics.
    pub fn commit_everyone(&mut self, servers: usize, own: Option<Bytes>, now: Instant) {
        let Some(request) = self.current.take() else { return };
        let command = command_of(&request);
        for _ in 0..servers {
            self.push(Expect::Share, command, true, now);
        }
        match request {
            Request::FlushAll { noreply, .. }
            | Request::Verbosity { noreply, .. }
            | Request::MemLimit { noreply, .. } => {
                self.push(Expect::SharesEnd, command, noreply, now);
            }
            Request::Stats(stats) => {
                // Settings are no amounts.
                let adds = stats.arguments().next() != Some(b"settings");
                self.push(Expect::StatsEnd { adds }, command, false, now);
                self.keep_own_stats(own);
            }
            Request::Get(_)
            | Request::Store(_)
            | Request::Oversized(_)
            | Request::Arith(_)
            | Request::Touch(_)
            | Request::Delete(_)
            | Request::Version
            | Request::Quit => (),
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
            let (seen, expected) = (reply.value.len(), self.value_len_expected);
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
            Answer::Failed(failure) => Answer::Failed(failure),
        });
    }

    fn push(&mut self, expect: Expect, command: Command, noreply: bool, begun: Instant) {
        self.slots.push_back(Slot { expect, command, noreply, begun, answer: None });
    }

    /// An exchange that no server is asked for.
    fn say(&mut self, words: &'static [u8], command: Command, noreply: bool, now: Instant) {
        self.push(Expect::Words(words), command, noreply, now);
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
        front_waits && held_len == self.held_len
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
