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
mod commit;
mod emit;
mod gather;
mod held;
mod step;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

pub use command::Finished;
pub use gather::{Gather, Owners};
pub use step::{Broadcast, Next, Step};

pub use crate::wire::request::Command;

use crate::error::Failure;
use crate::reply::Kind;
use crate::wire::classic::items;
use crate::wire::decoder::Language;
use crate::wire::meta::Reply;
use crate::wire::output::Piece;
use crate::wire::request::{DecodeError, Refusal, Request, To};
use crate::wire::{Decoder, Limits, Output};
use command::{command_of, to_of};
use emit::Gathered;
use held::{Held, Kept, SmallReplies};
use step::step_of;

/// Answers that may be outstanding for one client.
const SLOTS_MAX: usize = 1024;

/// Bytes that may be waiting for one client (or be on their way to it, as far as that can be foreseen)
/// before nothing more is asked for on its behalf.
const BUFFERED_LEN_MAX: usize = 4 << 20;

/// The beginning of an answer waits for its end up to here.
const WAITING_LEN_MAX: usize = 32 << 10;

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

impl Answer {
    /// Bytes of its value.
    pub fn value_len(&self) -> usize {
        match self {
            Self::Reply(reply) => reply.value.len(),
            Self::Failed(_) => 0,
        }
    }

    fn told(&self) -> Result<&Reply, Failure> {
        match self {
            Self::Reply(reply) => Ok(reply),
            Self::Failed(failure) => Err(*failure),
        }
    }
}

#[derive(Debug)]
struct Slot {
    expect: Expect,
    command: Command,
    to: To,
    /// How many bytes of the machine's `words` are this slot's.
    words_len: u32,
    begun: Instant,
    held: Option<Held>,
}

/// What a slot makes of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// One key of a classic retrieval. Its words are the key.
    Value { cas: bool },
    /// Several keys of one. Its words are they, as the client wrote them, if servers know them by other names.
    Values,
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

impl Slot {
    /// Can its client be told?
    fn is_ready(&self) -> bool {
        match &self.held {
            None => !self.expect.needs_answer(),
            Some(Held::Gather(gather)) => gather.is_complete(),
            Some(Held::Answer(_) | Held::Kept(_)) => true,
        }
    }
}

impl Expect {
    fn needs_answer(self) -> bool {
        match self {
            Self::Value { .. }
            | Self::Values
            | Self::One { .. }
            | Self::Line
            | Self::Oversized
            | Self::Share => true,
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
pub struct Rest {
    language: Language,
    value_len_expected: u32,
}

impl Default for Rest {
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
    words: Vec<u8>,
    /// Where the front slot's begin; those before have been told.
    words_at: usize,
    /// The ticket of the front slot.
    first: Ticket,
    gathered: Gathered,
    /// Bytes of values in slots that are not at the front.
    held_len: usize,
    /// Values that are awaited beyond one a slot.
    more_values: usize,
    small: SmallReplies,
    /// How long a value may turn out to be: the largest seen lately.
    value_len_expected: u32,
    output: Output,
    /// Some of the output ends an exchange.
    is_due: bool,
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
            words: Vec::new(),
            words_at: 0,
            first: 0,
            gathered: Gathered::default(),
            held_len: 0,
            more_values: 0,
            small: SmallReplies::default(),
            value_len_expected: VALUE_LEN_GUESS,
            output: Output::new(),
            is_due: false,
            finished: Vec::new(),
            is_over: false,
        }
    }

    /// Goes on with a session that has rested, of which this is left. For a machine that has rested itself.
    pub fn resume(&mut self, rest: Rest) {
        self.decoder = Decoder::resume(rest.language);
        self.value_len_expected = rest.value_len_expected;
    }

    /// What to keep of a session that has nothing outstanding: its machine may then be another's. `None`: it has.
    pub fn rest(&self) -> Option<Rest> {
        let is_at_rest = self.is_settled() && self.finished.is_empty() && !self.is_over;
        let language = self.decoder.rest().filter(|_| is_at_rest)?;
        Some(Rest { language, value_len_expected: self.value_len_expected })
    }

    /// Has it grown so much that its memory is better given back?
    pub fn is_large(&self) -> bool {
        self.slots.capacity().max(self.finished.capacity()) > SLOTS_SPARE_MAX
            || self.words.capacity() > WORDS_SPARE_LEN_MAX
    }

    /// May another request be sent? If not, answers must come or output must go first.
    pub fn admits(&self) -> bool {
        let waiting = self.slots.len() + self.more_values;
        waiting < SLOTS_MAX
            && self.output.len() + self.held_len + waiting * (self.value_len_expected as usize)
                < BUFFERED_LEN_MAX
    }

    /// How many keys of a retrieval may be asked for with one question; 0 or 1: none.
    fn keys_max(&self) -> usize {
        let waiting = self.slots.len() + self.more_values;
        let used_len = self.output.len() + self.held_len;
        let room = BUFFERED_LEN_MAX.saturating_sub(used_len) / (self.value_len_expected as usize).max(1);
        gather::KEYS_MAX.min(room.saturating_sub(waiting))
    }

    /// May the answer of this ticket, which is so long, be put together now, beside others that are so long? One
    /// may whatever its length: the one that the client waits for, once it has taken all before but what waits for it.
    pub fn may_gather(&self, ticket: Ticket, len: usize, gathered_len: usize) -> bool {
        self.output.len() + self.held_len + gathered_len + len <= BUFFERED_LEN_MAX
            || (gathered_len == 0 && ticket <= self.first && (self.output.is_empty() || self.may_wait()))
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

    /// Had the output better wait? It is the beginning of a retrieval, and the client cannot go on before its end:
    /// when all servers have answered, one write does.
    pub fn may_wait(&self) -> bool {
        !self.is_due && self.is_waiting() && self.output.len() < WAITING_LEN_MAX
    }

    /// Output has been written.
    pub fn written(&mut self) {
        self.is_due &= !self.output.is_empty();
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
        let step = self.current.as_ref().and_then(|request| step_of(request, || self.keys_max()));
        Ok(step.map(|step| Next { ticket, step }))
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

    /// What came of the request with this ticket.
    pub fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if let Answer::Reply(reply) = &answer {
            self.note_value_len(reply.value.len());
        }
        if ticket == self.first {
            return self.answer_first(answer.told());
        }
        self.hold(ticket, |_| match answer {
            Answer::Reply(reply) => Held::Answer(Box::new(Answer::Reply(reply.detached()))),
            Answer::Failed(_) => Held::Answer(Box::new(answer)),
        });
    }

    /// The same for a small reply that is only lent: most are copied once, from the server's bytes to the client's.
    pub fn hear(&mut self, ticket: Ticket, reply: &Reply<&[u8]>) {
        self.note_value_len(reply.value.len());
        if ticket == self.first {
            return self.answer_first(Ok(reply));
        }
        self.hold(ticket, |machine| machine.small.keep(reply));
    }

    /// What came of one of the questions for several keys.
    pub fn hear_part(&mut self, ticket: Ticket, number: u8, told: Result<items::Answer, Failure>) {
        if let Ok(items::Answer::Items(items)) = &told {
            self.note_value_len(items.value_len_max);
        }
        let index = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) else { return };
        let Some(Held::Gather(gather)) = &mut slot.held else { return };
        let before = gather.len();
        gather.set(number, told);
        self.held_len += gather.len() - before;
        self.settle();
    }

    fn note_value_len(&mut self, len: usize) {
        let seen = u32::try_from(len).unwrap_or(u32::MAX);
        let expected = self.value_len_expected;
        self.value_len_expected = seen.max(expected - expected / 8);
    }

    fn answer_first(&mut self, told: Result<&Reply<impl Piece>, Failure>) {
        if let Some(slot) = self.slots.pop_front() {
            self.first += 1;
            self.emit(&slot, Some(told));
        }
        self.settle();
    }

    /// An answer that has to wait for others.
    fn hold(&mut self, ticket: Ticket, held: impl FnOnce(&mut Self) -> Held) {
        let index = ticket.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|index| *index < self.slots.len()) else { return };
        let held = held(self);
        self.held_len += held.value_len();
        if let Some(slot) = self.slots.get_mut(index) {
            slot.held = Some(held);
        }
    }

    /// A slot whose words are those from `words_from` on.
    fn push(&mut self, expect: Expect, command: Command, to: To, words_from: usize, begun: Instant) {
        let words_len = u32::try_from(self.words.len() - words_from).unwrap_or(u32::MAX);
        self.slots.push_back(Slot { expect, command, to, words_len, begun, held: None });
    }

    /// An exchange that no server is asked for.
    fn say(&mut self, expect: Expect, command: Command, to: To, now: Instant) {
        self.push(expect, command, to, self.words.len(), now);
        self.settle();
    }

    /// Emits whatever is ready at the front.
    fn settle(&mut self) {
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.is_ready()) {
            self.first += 1;
            if let (true, Some(held)) = (slot.expect.needs_answer(), &slot.held) {
                self.held_len -= held.value_len();
            }
            match &slot.held {
                None => self.emit::<Bytes>(&slot, None),
                Some(Held::Kept(kept)) => self.emit_kept(&slot, kept),
                Some(Held::Answer(answer)) => self.emit(&slot, Some(answer.told())),
                Some(Held::Gather(gather)) => {
                    self.more_values -= gather.keys() - 1;
                    self.emit_gathered(gather);
                }
            }
        }
        debug_assert!(self.check_invariants());
    }

    fn emit_kept(&mut self, slot: &Slot, kept: &Kept) {
        let mut replies = std::mem::take(&mut self.small);
        self.emit(slot, Some(Ok(&replies.get(kept))));
        replies.drop_one();
        self.small = replies;
    }

    /// What must hold between any two calls.
    fn check_invariants(&self) -> bool {
        let held = self.slots.iter().filter(|slot| slot.expect.needs_answer());
        let held_len: usize = held.filter_map(|slot| slot.held.as_ref()).map(Held::value_len).sum();
        let kept_count = self.slots.iter().filter(|slot| matches!(slot.held, Some(Held::Kept(_)))).count();
        let front_waits = self.slots.front().is_none_or(|slot| !slot.is_ready());
        let words_len: usize = self.slots.iter().map(|slot| slot.words_len as usize).sum();
        front_waits
            && (held_len, kept_count) == (self.held_len, self.small.count())
            && words_len == self.words.len() - self.words_at
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
