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

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::error::Failure;
use crate::reply::{self, Outcome, Single};
use crate::stats;
use crate::wire::meta::{Op, Reply};
use crate::wire::request::{DecodeError, Mode, Oversized, Request, Store};
use crate::wire::{Decoder, Limits, Output, meta};

/// Answers that may be outstanding for one client.
const SLOTS_MAX: usize = 1024;

/// Bytes that may be waiting for one client (or be on their way to it, as far as that can be foreseen)
/// before nothing more is asked for on its behalf.
const BUFFERED_LEN_MAX: usize = 4 << 20;

/// What a value is thought to be long before the first has been seen.
const VALUE_LEN_GUESS: usize = 64 << 10;

/// The number of an answer in its session, counted from 0.
pub type Ticket = u64;

/// A step, and the ticket its (first) answer will have.
#[derive(Debug)]
pub struct Next<'a> {
    /// For the answer.
    pub ticket: Ticket,
    /// What to do.
    pub step: Step<'a>,
}

/// What the driver has to do next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Ask the server of this key; one slot.
    Key(meta::Request<'a>),
    /// Ask every server; a slot for each.
    Everyone(Broadcast<'a>),
    /// Ask any one server for its version.
    Version,
}

/// A request for all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broadcast<'a> {
    /// `flush_all`.
    FlushAll {
        /// Seconds from now, or a Unix time.
        delay: i32,
    },
    /// `verbosity`.
    Verbosity {
        /// As given.
        level: u32,
    },
    /// `cache_memlimit`.
    MemLimit {
        /// As given.
        megabytes: u32,
    },
    /// `stats` with its arguments.
    Stats(&'a crate::wire::request::Stats),
}

impl Broadcast<'_> {
    /// The classic command for a server.
    pub fn encode(&self, out: &mut Output) {
        match self {
            Self::FlushAll { delay: 0 } => out.extend_from_slice(b"flush_all"),
            Self::FlushAll { delay } => out.extend_from_slice(format!("flush_all {delay}").as_bytes()),
            Self::Verbosity { level } => out.extend_from_slice(format!("verbosity {level}").as_bytes()),
            Self::MemLimit { megabytes } => {
                out.extend_from_slice(format!("cache_memlimit {megabytes}").as_bytes());
            }
            Self::Stats(stats) => {
                out.extend_from_slice(b"stats");
                for argument in stats.arguments() {
                    out.extend_from_slice(b" ");
                    out.extend_from_slice(argument);
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What came of a request to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This.
    Reply(Reply),
    /// Nothing.
    Failed(Failure),
}

/// Names the commands, for metrics and the access log.
macro_rules! commands {
    ($($command:ident = $name:literal,)*) => {
        /// What was asked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Command {
            $(#[doc = concat!("`", $name, "`")] $command,)*
        }

        impl Command {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$command),*];

            /// Its name on the wire; `refused` stands for whatever was not understood.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$command => $name,)*
                }
            }
        }
    };
}

commands! {
    Get = "get",
    Gets = "gets",
    Gat = "gat",
    Gats = "gats",
    Set = "set",
    Add = "add",
    Replace = "replace",
    Append = "append",
    Prepend = "prepend",
    Cas = "cas",
    Incr = "incr",
    Decr = "decr",
    Touch = "touch",
    Delete = "delete",
    FlushAll = "flush_all",
    Verbosity = "verbosity",
    MemLimit = "cache_memlimit",
    Stats = "stats",
    Version = "version",
    Refused = "refused",
}

/// One exchange that is over, as far as this session is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// What it was.
    pub command: Command,
    /// When its first part was sent.
    pub begun: Instant,
    /// Keys that were there: found, stored, deleted, counted.
    pub hits: u32,
    /// Keys that were not, or whose condition did not hold.
    pub misses: u32,
    /// The last failure of its parts.
    pub failure: Option<Failure>,
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

/// What the slots of one exchange have come to so far.
#[derive(Debug, Default)]
struct Gathered {
    hits: u32,
    misses: u32,
    failure: Option<Failure>,
    /// A server's own words, for when there is nothing better to say.
    words: Option<Bytes>,
    /// Statistics: ours first if there are any, then each server's.
    own_stats: Option<Bytes>,
    stats: Vec<Bytes>,
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

    fn emit(&mut self, slot: &Slot, answer: Option<Answer>) {
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

/// What a request asks for next; none if it asks for nothing.
fn step_of(request: &Request) -> Option<Step<'_>> {
    let (key, op) = match request {
        Request::Get(get) => (get.key()?, Op::Get { cas: get.cas, touch: get.touch }),
        Request::Store(store) => {
            let (mode, flags, exptime, value) = (store.mode, store.flags, store.exptime, &store.value);
            (store.key.as_bytes(), Op::Store { mode, flags, exptime, value })
        }
        Request::Oversized(store) => (store.key.as_bytes(), Op::Delete),
        Request::Arith(arith) => {
            (arith.key.as_bytes(), Op::Arith { delta: arith.delta, decrement: arith.decrement })
        }
        Request::Touch(touch) => (touch.key.as_bytes(), Op::Touch { exptime: touch.exptime }),
        Request::Delete(delete) => (delete.key.as_bytes(), Op::Delete),
        Request::FlushAll { delay, .. } => {
            return Some(Step::Everyone(Broadcast::FlushAll { delay: *delay }));
        }
        Request::Verbosity { level, .. } => {
            return Some(Step::Everyone(Broadcast::Verbosity { level: *level }));
        }
        Request::MemLimit { megabytes, .. } => {
            return Some(Step::Everyone(Broadcast::MemLimit { megabytes: *megabytes }));
        }
        Request::Stats(stats) => return Some(Step::Everyone(Broadcast::Stats(stats))),
        Request::Version => return Some(Step::Version),
        Request::Quit => return None,
    };
    Some(Step::Key(meta::Request { key, op }))
}

fn command_of(request: &Request) -> Command {
    match request {
        Request::Get(get) => match (get.touch.is_some(), get.cas) {
            (false, false) => Command::Get,
            (false, true) => Command::Gets,
            (true, false) => Command::Gat,
            (true, true) => Command::Gats,
        },
        Request::Store(Store { mode, .. }) | Request::Oversized(Oversized { mode, .. }) => match mode {
            Mode::Set => Command::Set,
            Mode::Add => Command::Add,
            Mode::Replace => Command::Replace,
            Mode::Append => Command::Append,
            Mode::Prepend => Command::Prepend,
            Mode::Cas(_) => Command::Cas,
        },
        Request::Arith(arith) if arith.decrement => Command::Decr,
        Request::Arith(_) => Command::Incr,
        Request::Touch(_) => Command::Touch,
        Request::Delete(_) => Command::Delete,
        Request::FlushAll { .. } => Command::FlushAll,
        Request::Verbosity { .. } => Command::Verbosity,
        Request::MemLimit { .. } => Command::MemLimit,
        Request::Stats(_) => Command::Stats,
        Request::Version | Request::Quit => Command::Version,
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
