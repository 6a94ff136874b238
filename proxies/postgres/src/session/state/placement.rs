//! Where reads and writes are split: which servers an exchange is for, told before it begins.
//!
//! A replica gets as many of the batches and queries that are there as only read, one after the other, or a transaction
//! that was begun READ ONLY; the rest waits for what comes of that. So a statement that is pipelined behind reads is not
//! taken for one of them.

use super::Machine;
use super::deferred::Deferred;
use crate::split::{Judge, Modes, Verdict};
use crate::wire::backend::Status;
use crate::wire::frontend::{self, Parse, Tag, Target};

/// Where an exchange goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// More of it has to be there to tell.
    Unknown,
    /// To the primary.
    Primary,
    /// To a replica, this much of it.
    Replica(Grant),
}

/// What one server gets that only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// So many batches and queries.
    pub groups: u8,
    /// Their length; 0 if they are not to be repeated elsewhere.
    pub bytes: usize,
    /// They are a transaction, or the first of one, which more may follow in.
    pub in_transaction: bool,
}

/// Batches and queries that are looked at ahead.
const GROUPS_MAX: u8 = 64;

/// What a batch or query comes to.
enum Group {
    Incomplete,
    Whole(usize, Verdict),
}

/// What a session's transactions are where they do not say it.
#[derive(Clone, Copy)]
struct Defaults {
    is_read_only: bool,
    is_serializable: bool,
}

impl Defaults {
    /// Whether a transaction is one for a replica, on which there are none that are serializable.
    fn is_for_a_replica(self, modes: Modes) -> bool {
        modes.is_read_only.unwrap_or(self.is_read_only)
            && !modes.is_serializable.unwrap_or(self.is_serializable)
    }
}

/// Looks ahead at what a client has sent.
struct Ahead<'a> {
    machine: &'a Machine,
    judge: &'a Judge,
    defaults: Defaults,
    /// What is prepared under way.
    unnamed: Option<Verdict>,
    names: Vec<(&'a [u8], Verdict)>,
}

impl Machine {
    /// Where the exchange goes that begins with what the client has sent.
    pub fn placement(&self, input: &[u8], judge: &Judge) -> Placement {
        let whatever = Placement::Replica(Grant { groups: 1, bytes: 0, in_transaction: true });
        let is_on = |name| self.settings.get(name) == Some("on");
        match self.settings.asked("groove.role") {
            Some("primary") => return Placement::Primary,
            Some("replica") => return whatever,
            Some(_) | None => {}
        }
        // What a session is told of may not have come to a replica yet. And where backslashes escape, the parser and the
        // server would read two texts.
        if self.listening.is_some() || !is_on("standard_conforming_strings") {
            return Placement::Primary;
        }
        let defaults = Defaults {
            is_read_only: is_on("default_transaction_read_only"),
            is_serializable: self.settings.asked("default_transaction_isolation") == Some("serializable"),
        };
        let mut ahead = Ahead { machine: self, judge, defaults, unnamed: None, names: Vec::new() };
        match &self.deferred {
            None => ahead.reads(input),
            Some(Deferred::Failed) => Placement::Primary,
            Some(Deferred::Begun(begin)) => match judge.judge(begin) {
                Verdict::Begins(modes) => ahead.transaction(modes, input),
                Verdict::Reads | Verdict::Sets(_) | Verdict::Writes => Placement::Primary,
            },
        }
    }

    /// A replica has refused the batch or query that `input` begins with: what is in it is not sent to one again.
    pub fn misjudged(&self, input: &[u8], judge: &Judge) {
        let mut at = 0;
        while let Ok(Some((tag, total))) = frontend::header(input.get(at..).unwrap_or_default()) {
            let Some(message) = input.get(at..at + total) else { return };
            at += total;
            match tag {
                Tag::Query => return judge.misjudged(frontend::query_text(message)),
                Tag::Sync => return,
                Tag::Parse => Parse::read(message).iter().for_each(|parse| judge.misjudged(parse.text)),
                Tag::Bind => {
                    let name = frontend::bind_names(message).map(|(_, name)| name);
                    name.and_then(|name| self.names.get(name)).into_iter().for_each(|known| {
                        known.note_effect(false);
                    });
                }
                Tag::Close
                | Tag::CopyData
                | Tag::CopyDone
                | Tag::CopyFail
                | Tag::Describe
                | Tag::Execute
                | Tag::Flush
                | Tag::FunctionCall
                | Tag::Password
                | Tag::Terminate => {}
            }
        }
    }

    /// This server is for so many batches and queries, and for the transaction that they begin; `None` for all.
    pub fn set_fence(&mut self, groups: Option<u8>) {
        self.fence = groups;
    }

    /// Whether what the client has sent more is not for this server, or not yet: within a transaction it is, once it has
    /// answered what it has.
    pub(super) fn is_fenced(&mut self) -> bool {
        if self.fence != Some(0) {
            return false;
        }
        let goes_on = self.status != Status::Idle && self.expected.is_empty() && !self.batch_open;
        if goes_on {
            self.fence = Some(1);
        }
        !goes_on
    }

    /// A batch or query has been taken.
    pub(super) fn pass_fence(&mut self) {
        self.fence = self.fence.map(|groups| groups.saturating_sub(1));
    }

    /// Whether this server is not for all that the client has sent.
    pub fn has_fence(&self) -> bool {
        self.fence.is_some()
    }

    /// Whether this server has been sent all that it is for, so far.
    pub fn has_sent_all(&self) -> bool {
        self.fence == Some(0)
    }
}

impl<'a> Ahead<'a> {
    /// As much of what is there as only reads.
    fn reads(&mut self, input: &'a [u8]) -> Placement {
        let mut grant = Grant { groups: 0, bytes: 0, in_transaction: false };
        while grant.groups < GROUPS_MAX {
            match self.group(input.get(grant.bytes..).unwrap_or_default()) {
                Group::Whole(bytes, Verdict::Reads) if !self.defaults.is_serializable => {
                    grant.groups += 1;
                    grant.bytes += bytes;
                }
                Group::Whole(bytes, Verdict::Begins(modes))
                    if grant.groups == 0 && self.defaults.is_for_a_replica(modes) =>
                {
                    return Placement::Replica(Grant { groups: 1, bytes, in_transaction: true });
                }
                Group::Incomplete if grant.groups == 0 && input.len() < self.machine.bounds.message => {
                    return Placement::Unknown;
                }
                Group::Whole(..) | Group::Incomplete => break,
            }
        }
        if grant.groups == 0 { Placement::Primary } else { Placement::Replica(grant) }
    }

    /// Where a transaction goes that was begun without a server. Its first statement may say what it is.
    fn transaction(&mut self, modes: Modes, input: &'a [u8]) -> Placement {
        let (modes, bytes) = match self.group(input) {
            Group::Whole(bytes, Verdict::Sets(later)) => (modes.then(later), bytes),
            Group::Whole(bytes, _) => (modes, bytes),
            Group::Incomplete if input.len() < self.machine.bounds.message => return Placement::Unknown,
            Group::Incomplete => (modes, 0),
        };
        match self.defaults.is_for_a_replica(modes) {
            true => Placement::Replica(Grant { groups: 1, bytes, in_transaction: true }),
            false => Placement::Primary,
        }
    }

    /// The batch up to its Sync, or the query, that `input` begins with.
    fn group(&mut self, input: &'a [u8]) -> Group {
        let mut at = 0;
        // What it says of the transaction that it runs in, before all else.
        let mut says = None;
        let mut has_run = false;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let (tag, total) = match frontend::header(rest) {
                Ok(Some(header)) => header,
                Ok(None) => return Group::Incomplete,
                Err(_) => return Group::Whole(at, Verdict::Writes),
            };
            if total > self.machine.bounds.message {
                return Group::Whole(at, Verdict::Writes);
            }
            let Some(message) = rest.get(..total) else { return Group::Incomplete };
            let is_first = at == 0;
            at += total;
            let is_read_only = match says {
                Some(Verdict::Begins(modes)) => self.defaults.is_for_a_replica(modes),
                Some(Verdict::Reads | Verdict::Sets(_) | Verdict::Writes) | None => false,
            };
            let goes_on = match tag {
                Tag::Query if is_first => {
                    return Group::Whole(at, self.judge.judge(frontend::query_text(message)));
                }
                Tag::Sync => return Group::Whole(at, says.unwrap_or(Verdict::Reads)),
                Tag::Parse => self.parse(message) || is_read_only,
                Tag::Bind => {
                    let name = frontend::bind_names(message).map(|(_, name)| name);
                    let verdict = name.map_or(Verdict::Writes, |name| self.verdict_of(name));
                    match (verdict, says) {
                        (Verdict::Begins(_) | Verdict::Sets(_), None) if !has_run => says = Some(verdict),
                        (Verdict::Sets(later), Some(Verdict::Begins(modes))) => {
                            says = Some(Verdict::Begins(modes.then(later)));
                        }
                        (Verdict::Reads, _) => {}
                        (Verdict::Begins(_) | Verdict::Sets(_) | Verdict::Writes, _) if is_read_only => {}
                        (Verdict::Begins(_) | Verdict::Sets(_) | Verdict::Writes, _) => {
                            return Group::Whole(at, Verdict::Writes);
                        }
                    }
                    has_run = true;
                    true
                }
                Tag::Describe => match Target::read(message) {
                    Ok(Target::Statement(name)) => self.verdict_of(name) != Verdict::Writes || is_read_only,
                    Ok(Target::Portal(_)) => true,
                    Err(_) => false,
                },
                Tag::Execute | Tag::Close => true,
                // After a Flush the client goes on by what it hears.
                Tag::Query
                | Tag::Flush
                | Tag::FunctionCall
                | Tag::CopyData
                | Tag::CopyDone
                | Tag::CopyFail
                | Tag::Password
                | Tag::Terminate => false,
            };
            if !goes_on {
                return Group::Whole(at, Verdict::Writes);
            }
        }
    }

    /// Takes note of what is prepared; false if it writes.
    fn parse(&mut self, message: &'a [u8]) -> bool {
        let Ok(parse) = Parse::read(message) else { return false };
        let verdict = self.judge.judge(parse.text);
        match parse.name {
            b"" => self.unnamed = Some(verdict),
            name => self.names.push((name, verdict)),
        }
        verdict != Verdict::Writes
    }

    fn verdict_of(&self, name: &[u8]) -> Verdict {
        let text = |content| crate::wire::cstr(content).map(|(text, _)| text);
        if name.is_empty() {
            let kept = || self.machine.unnamed.content.as_deref().and_then(text);
            let judged = || kept().map_or(Verdict::Writes, |text| self.judge.judge(text));
            return self.unnamed.unwrap_or_else(judged);
        }
        let made = self.names.iter().rev().find(|(made, _)| *made == name).map(|(_, verdict)| *verdict);
        let known = || self.machine.names.get(name).map(|known| self.judge.judge_statement(known));
        made.or_else(known).unwrap_or(Verdict::Writes)
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
