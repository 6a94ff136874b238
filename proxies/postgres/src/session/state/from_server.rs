//! The server's stream: what is passed on, what only we see, and what each reply settles.

use bytes::{Bytes, BytesMut};
use std::sync::Arc;

use super::meaning::{alters, has_code, is_fatal, is_identity, is_outdated, misses_ours};
use super::{Backend, CloseRole, Expect, Local, Machine, Mode, ParseRole, Run};
use crate::error::Error;
use crate::reply;
use crate::session::names::Known;
use crate::sql::Kinds;
use crate::wire::backend::{Status, parameter_status};
use crate::wire::{DecodeError, HEADER, Header, Splice};

/// Whom a ReadyForQuery is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Passes,
    Setup,
    Aside,
}

/// What a client may not know that it is told that something takes no writes.
const ON_A_REPLICA: &str =
    "It ran where reads go. SET groove.role = 'primary' sends all that follows to the primary.";

/// The largest message of a server that is looked at whole (ParameterStatus, CommandComplete).
const READ_MAX: usize = 64 << 10;

impl Machine {
    /// Takes in what the server sent; what is for the client goes to `to_client`. What stays in `input` is
    /// incomplete.
    pub fn from_server(
        &mut self,
        input: &mut BytesMut,
        backend: &mut Backend,
        to_client: &mut BytesMut,
    ) -> Result<(), Error> {
        let mut splice = Splice::new(input, to_client);
        let outcome = self.server_messages(&mut splice, backend);
        splice.finish();
        self.check_invariants();
        outcome
    }

    fn server_messages(&mut self, splice: &mut Splice<'_>, backend: &mut Backend) -> Result<(), Error> {
        loop {
            if self.server_left == 0 {
                let header = Header::read(splice.rest()).map_err(Error::Upstream)?;
                let Some(header) = header else { return Ok(()) };
                let Some(passes) = self.server_message(&header, splice, backend)? else { return Ok(()) };
                self.server_left = header.total;
                self.server_passes = passes;
            }
            let here = self.server_left.min(splice.rest().len());
            if here == 0 {
                return Ok(());
            }
            match self.server_passes {
                true => splice.keep(here),
                false => splice.cut(here),
            }
            self.server_left -= here;
            self.say_local_if_due(splice);
        }
    }

    /// Settles what a message that begins here is about, and says whether it is for the client. None if more of it
    /// must be there first.
    fn server_message(
        &mut self,
        header: &Header,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) -> Result<Option<bool>, Error> {
        let Header { tag, total } = *header;
        Ok(Some(match tag {
            // Rows and copied data are nearly all of the traffic.
            b'D' | b'd' => !self.hears_alone(),
            b'S' => {
                let Some(body) = whole(splice, total)? else { return Ok(None) };
                self.parameter(body, backend)?
            }
            b'C' => {
                let Some(body) = whole(splice, total)? else { return Ok(None) };
                self.command_complete(body, backend)
            }
            b'Z' => return self.ready_for_query(total, splice, backend),
            b'E' if self.in_setup() => return self.setup_refused(total, splice),
            b'E' if matches!(self.expected.front(), Some(Expect::Aside { .. })) => {
                self.aside_failed(backend);
                false
            }
            // The session has had its answer: a server that stops says goodbye to the connection, not to its client.
            b'E' if self.is_shared() && self.server_is_idle() && !self.keeps_server() => {
                backend.is_over = true;
                false
            }
            b'E' => return Ok(self.error_response(total, splice, backend)),
            b'1' => self.parse_complete(),
            b'3' => self.close_complete(),
            b'2' => self.bind_complete(splice, backend),
            b'T' | b'n' => {
                self.acquit(splice, backend);
                self.settle(|front| matches!(front, Expect::Describe))
            }
            b't' => return Ok(self.describes_parameters(total, splice)),
            b'I' | b's' => {
                if self.notes.is_some() {
                    self.note_stopped(tag == b's');
                }
                self.settle(|front| matches!(front, Expect::Execute))
            }
            b'G' => {
                self.copy_in();
                true
            }
            // A notification is nobody's answer.
            b'A' if self.listening.is_some() => {
                let Some(body) = whole(splice, total)? else { return Ok(None) };
                self.passes_notification(body)
            }
            b'A' => true,
            // Notices of our own query are as little the client's as its results; anything else is the
            // client's, known to us or not.
            _ => !self.hears_alone(),
        }))
    }

    fn ready_for_query(
        &mut self,
        total: usize,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) -> Result<Option<bool>, Error> {
        let Some(body) = whole(splice, total)? else { return Ok(None) };
        match self.ready(body, backend) {
            Ok(Heard::Passes) => Ok(Some(true)),
            Ok(Heard::Aside) => Ok(Some(false)),
            // What the server reported meanwhile counts.
            Ok(Heard::Setup) => {
                self.put_news(backend, splice.out());
                Ok(Some(false))
            }
            // Whoever reclaims the connection must not take it for another's.
            Err(error) => {
                splice.cut(total);
                Err(error)
            }
        }
    }

    /// The error that a query of ours ended with.
    fn setup_refused(&mut self, total: usize, splice: &mut Splice<'_>) -> Result<Option<bool>, Error> {
        let Some(body) = whole(splice, total)? else { return Ok(None) };
        let refusal = Bytes::copy_from_slice(body);
        splice.cut(total);
        self.setup_failed = true;
        Err(Error::Refused(refusal))
    }

    /// The error that something of the client's ended with. It may be too long to be looked at.
    fn error_response(
        &mut self,
        total: usize,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) -> Option<bool> {
        let whole = splice.rest().get(..total);
        let is_looked_at = self.has_duplicate_in_front() || self.suspect.is_some();
        if whole.is_none() && is_looked_at && total <= READ_MAX {
            return None;
        }
        let body = whole.and_then(|message| message.get(HEADER..));
        self.told_fatal |= is_fatal(body);
        backend.has_turned |= has_code(body, b"25006");
        let in_use = has_code(body, b"42P05");
        if self.is_shared() && misses_ours(body) {
            backend.dirt |= Kinds::PREPARED;
        }
        let is_outdated = is_outdated(body);
        if is_outdated && self.convict() {
            return Some(false);
        }
        if self.notes.is_some() {
            self.note_error(body);
        }
        let refused_write = body.filter(|_| self.fence.is_some() && has_code(body, b"25006"));
        let refused_write = refused_write.map(Bytes::copy_from_slice);
        let duplicate = self.error(backend).filter(|_| in_use);
        if is_outdated {
            self.renew();
        }
        self.let_go(splice.out());
        let passes = duplicate.is_none() && refused_write.is_none();
        if let Some(body) = refused_write {
            reply::put_hinted(splice.out(), &body, ON_A_REPLICA);
        }
        if let Some(name) = duplicate {
            reply::put_exchange_error(splice.out(), &Error::DuplicateStatement(name));
        }
        Some(passes)
    }

    fn say_local_if_due(&mut self, splice: &mut Splice<'_>) {
        let is_due = matches!(self.expected.front(), Some(Expect::Local(_) | Expect::CopyEnd));
        if is_due && self.server_left == 0 {
            self.say_local(splice.out());
        }
    }

    fn has_duplicate_in_front(&self) -> bool {
        matches!(self.expected.front(), Some(Expect::Parse(ParseRole::Duplicate { .. })))
    }

    /// Settles what is owed if it is this; passes unless it is our own affair.
    fn settle(&mut self, is: impl FnOnce(&Expect) -> bool) -> bool {
        if self.hears_alone() {
            return false;
        }
        if self.expected.front().is_some_and(is) {
            self.expected.pop_front();
        }
        true
    }

    fn bind_complete(&mut self, splice: &mut Splice<'_>, backend: &mut Backend) -> bool {
        self.acquit(splice, backend);
        self.settle(|front| matches!(front, Expect::Bind))
    }

    fn parse_complete(&mut self) -> bool {
        match self.expected.front() {
            Some(Expect::Parse(ParseRole::Injected { statement })) => {
                if let Some(statement) = statement {
                    statement.prove();
                }
                self.expected.pop_front();
                false
            }
            Some(Expect::Parse(ParseRole::ByClientsName { .. })) => {
                self.expected.pop_front();
                false
            }
            Some(Expect::Parse(role)) => {
                if let ParseRole::Named { statement, .. } = role {
                    statement.prove();
                }
                self.expected.pop_front();
                true
            }
            Some(_) | None => !self.hears_alone(),
        }
    }

    fn close_complete(&mut self) -> bool {
        match self.expected.front() {
            Some(Expect::Close(role)) => {
                let passes = matches!(role, CloseRole::Plain | CloseRole::Ended { .. });
                self.expected.pop_front();
                passes
            }
            Some(_) | None => true,
        }
    }

    fn parameter(&mut self, body: &[u8], backend: &mut Backend) -> Result<bool, Error> {
        let (name, value) = parameter_status(body).map_err(Error::Upstream)?;
        backend.has_turned |= name == "in_hot_standby";
        let is_identity = is_identity(name) && backend.settings.get(name) != Some(value);
        Arc::make_mut(&mut backend.settings).report(name, value);
        if self.hears_alone() {
            return Ok(false);
        }
        // SET ROLE and SET SESSION AUTHORIZATION, by whatever text.
        if is_identity {
            self.traces.leaves |= Kinds::SETTINGS;
        }
        Ok(true)
    }

    fn command_complete(&mut self, body: &[u8], backend: &mut Backend) -> bool {
        let tag = body.strip_suffix(b"\0").unwrap_or(body);
        if self.notes.is_some() && !self.hears_alone() {
            self.note_complete(tag);
        }
        match self.expected.front_mut() {
            Some(Expect::Setup | Expect::Aside { .. }) => return false,
            Some(Expect::Run(_)) => {
                self.expected.pop_front();
                return false;
            }
            Some(Expect::Query { change, .. }) => {
                if matches!(tag, b"PREPARE" | b"DEALLOCATE")
                    && let Some(change) = change.take()
                {
                    self.changed(*change, backend);
                }
            }
            Some(Expect::Execute) => _ = self.expected.pop_front(),
            Some(_) | None => {}
        }
        backend.completed(tag);
        self.note_tag(tag);
        // Who has temporary tables most likely drops one of those.
        self.has_altered |= alters(tag) && !self.dirt().contains(Kinds::TEMPORARY);
        if matches!(tag, b"DEALLOCATE ALL" | b"DISCARD ALL") {
            self.names.clear();
            self.by_sql = None;
            self.unnamed.content = None;
        }
        true
    }

    fn ready(&mut self, body: &[u8], backend: &mut Backend) -> Result<Heard, Error> {
        let status = Status::read(body).map_err(Error::Upstream)?;
        if self.notes.is_some() {
            self.note_ready(status == Status::Idle);
        }
        let heard = match self.expected.front() {
            Some(Expect::Setup) => {
                self.expected.pop_front();
                if !self.setup_failed {
                    Arc::make_mut(&mut backend.settings).take_asked(&self.settings);
                }
                Heard::Setup
            }
            Some(Expect::Aside { .. }) => {
                self.expected.pop_front();
                Heard::Aside
            }
            Some(Expect::Sync | Expect::Query { .. }) => {
                self.expected.pop_front();
                Heard::Passes
            }
            Some(_) | None => Heard::Passes,
        };
        // A setup comes before whatever the session believes begun.
        if heard != Heard::Setup {
            self.status = status;
            self.traces.troubled |= status != Status::Idle;
            // What a server would not tell the last time it may tell now.
            self.traces.releases |= self.pinned & Kinds::SETTINGS;
        }
        if heard == Heard::Passes {
            self.heard_ready();
        }
        if status == Status::Idle && std::mem::take(&mut self.has_altered) {
            self.statements.renew();
        }
        if self.mode == Mode::Statement && status != Status::Idle {
            return Err(Error::StatementMode);
        }
        Ok(heard)
    }

    /// An error ends the batch it happens in. Gives the name if it is the failure of a duplicate Parse.
    fn error(&mut self, backend: &mut Backend) -> Option<Box<[u8]>> {
        self.traces.troubled = true;
        self.note_failure();
        match self.expected.front_mut() {
            // Their ReadyForQuery follows.
            Some(Expect::Query { .. } | Expect::Sync | Expect::Setup | Expect::Aside { .. }) | None => {
                self.copying_in = false;
                None
            }
            Some(Expect::Parse(ParseRole::Duplicate { name })) => {
                let name = std::mem::take(name);
                self.fail_batch(backend);
                Some(name)
            }
            Some(
                Expect::Parse(_)
                | Expect::Bind
                | Expect::Describe
                | Expect::Execute
                | Expect::Close(_)
                | Expect::Run(_)
                | Expect::CopyEnd
                | Expect::Local(_),
            ) => {
                self.fail_batch(backend);
                None
            }
        }
    }

    /// The server skips to the next Sync: nothing before it is owed any more, and what was believed of it is
    /// taken back, the latest first.
    fn fail_batch(&mut self, backend: &mut Backend) {
        self.copying_in = false;
        let sync = self.expected.iter().position(|expect| matches!(expect, Expect::Sync));
        self.skipping = sync.is_none();
        let skipped = sync.unwrap_or(self.expected.len());
        let skipped: Vec<Expect> = self.expected.drain(..skipped).collect();
        self.take_back(skipped, true, backend);
    }

    /// Takes back what was believed of what the server has not done, the latest first. The first of it has failed, or
    /// was not even tried.
    pub(super) fn take_back(&mut self, undone: Vec<Expect>, has_failed: bool, backend: &mut Backend) {
        for (index, expect) in undone.into_iter().enumerate().rev() {
            let failed = has_failed && index == 0;
            match expect {
                Expect::Parse(ParseRole::Named { name, statement }) => {
                    self.names.remove(&name);
                    backend.parsed.remove(statement.id);
                }
                Expect::Parse(ParseRole::Injected { statement: Some(statement) }) => {
                    backend.parsed.remove(statement.id);
                }
                Expect::Parse(ParseRole::Injected { statement: None })
                | Expect::Close(CloseRole::Foreign) => {
                    self.unnamed.is_here = false;
                }
                // One that failed has destroyed what was before.
                Expect::Parse(ParseRole::Unnamed { .. }) if failed => self.unnamed.content = None,
                Expect::Parse(ParseRole::Unnamed { before })
                | Expect::Close(CloseRole::Ended { before })
                | Expect::Query { before, .. } => self.unnamed = before,
                Expect::Parse(ParseRole::ByClientsName { name }) => _ = backend.by_sql.remove(&name),
                Expect::Run(Run::Aside { name, before }) => match before {
                    Some(before) => _ = backend.by_sql.insert(name, before),
                    None => _ = backend.by_sql.remove(&name),
                },
                Expect::Close(CloseRole::Evict(id)) => backend.parsed.restore(id),
                Expect::Local(Local::ParseComplete { name }) => _ = self.names.remove(&name),
                Expect::Local(Local::CloseComplete { name, statement, own }) => {
                    if let Some(own) = own {
                        self.remember_by_sql(&name, own);
                    }
                    if let Some(Known { statement, since }) = statement {
                        self.names.insert(name, statement, since);
                    }
                }
                Expect::Local(Local::Dropped { name, own, there }) => {
                    self.undrop(name, own, there, backend);
                }
                Expect::Parse(ParseRole::Plain | ParseRole::Duplicate { .. })
                | Expect::Local(Local::Deallocated)
                | Expect::Close(CloseRole::Plain | CloseRole::Own)
                | Expect::Bind
                | Expect::Describe
                | Expect::Execute
                | Expect::Sync
                | Expect::Setup
                | Expect::Aside { .. }
                | Expect::Run(Run::Begin)
                | Expect::CopyEnd => {}
            }
        }
    }

    /// The server reads CopyData now. Until the client ends it, Syncs are swallowed: those it has sent already
    /// (libpq sends one with the Execute) are owed nothing.
    fn copy_in(&mut self) {
        let end = self.expected.iter().position(|expect| matches!(expect, Expect::CopyEnd));
        if matches!(self.expected.front(), Some(Expect::Execute)) {
            let upto = end.unwrap_or(self.expected.len());
            let mut index = 0;
            self.expected.retain(|expect| {
                index += 1;
                index > upto || !matches!(expect, Expect::Sync)
            });
            self.batch_open = true;
        }
        self.copying_in = end.is_none();
    }
}

/// The body of a message that is looked at whole; none until it is there.
fn whole<'s>(splice: &'s Splice<'_>, total: usize) -> Result<Option<&'s [u8]>, Error> {
    if total > READ_MAX {
        return Err(Error::Upstream(DecodeError::Length));
    }
    Ok(splice.rest().get(..total).and_then(|message| message.get(HEADER..)))
}
