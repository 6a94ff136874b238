//! The client's stream: what is passed on, renamed, answered in the server's place.

use bytes::{Bytes, BytesMut};
use std::sync::Arc;

use super::{Backend, CloseRole, EXPECTED_MAX, Expect, Local, Machine, NAMES_MAX, ParseRole};
use crate::error::Error;
use crate::session::names::Known;
use crate::session::prepared::{Deallocate, Moment, Statement, server_name};
use crate::sql::{self, Kinds, Reading};
use crate::wire::backend::Status;
use crate::wire::frontend::{self, Parse, Tag, Target};
use crate::wire::{HEADER, Splice, cstr};

/// As much of a query's text as is looked at in session mode.
const PEEK: usize = 256;
/// The largest unnamed statement that is kept, to be parsed again on another connection.
const UNNAMED_MAX: usize = 16 << 10;

#[derive(PartialEq, Eq)]
enum Progress {
    Taken,
    Incomplete,
}

impl Machine {
    /// Takes in what the client sent. What is for the server goes to `to_server`; an answer whose turn has come
    /// goes to `to_client`. What stays in `input` is incomplete, or waits for replies.
    pub fn from_client(
        &mut self,
        input: &mut BytesMut,
        backend: &mut Backend,
        to_server: &mut BytesMut,
        to_client: &mut BytesMut,
    ) -> Result<(), Error> {
        let mut splice = Splice::new(input, to_server);
        let outcome = self.client_messages(&mut splice, backend);
        splice.finish();
        // In the midst of a message from the server nothing can be put between.
        if self.server_left == 0 {
            self.say_local(to_client);
        }
        self.check_invariants();
        outcome
    }

    fn client_messages(&mut self, splice: &mut Splice<'_>, backend: &mut Backend) -> Result<(), Error> {
        while !self.terminated {
            if self.client_left > 0 {
                let here = self.client_left.min(splice.rest().len());
                if here == 0 {
                    return Ok(());
                }
                splice.keep(here);
                self.client_left -= here;
            } else if self.expected.len() >= EXPECTED_MAX || self.is_fenced() {
                return Ok(());
            } else {
                let Some((tag, total)) = frontend::header(splice.rest())? else { return Ok(()) };
                if self.client_message(tag, total, splice, backend)? == Progress::Incomplete {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn client_message(
        &mut self,
        tag: Tag,
        total: usize,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) -> Result<Progress, Error> {
        if self.notes.is_some() && !self.note_message(tag, total, splice.rest()) {
            return Ok(Progress::Incomplete);
        }
        match tag {
            Tag::Terminate => {
                self.terminated = true;
                splice.cut(total);
                return Ok(Progress::Taken);
            }
            Tag::Password => return Err(crate::wire::DecodeError::FrontendType(b'p').into()),
            Tag::Sync => {
                self.skipping = false;
                self.pass_fence();
                if !self.copying_in {
                    self.batch_open = false;
                    self.expected.push_back(Expect::Sync);
                }
            }
            Tag::CopyDone | Tag::CopyFail => {
                self.copying_in = false;
                self.expected.push_back(Expect::CopyEnd);
            }
            Tag::CopyData | Tag::Flush => {}
            // The server ignores these until a Sync: they are owed nothing and change nothing.
            Tag::Query
            | Tag::FunctionCall
            | Tag::Parse
            | Tag::Bind
            | Tag::Describe
            | Tag::Close
            | Tag::Execute
                if self.skipping => {}
            Tag::Query => return Ok(self.query(total, splice, backend)),
            Tag::FunctionCall => {
                self.queries += 1;
                self.pass_fence();
                let before = self.unnamed.clone();
                self.note(&Reading::unknown(), backend);
                if self.notes.is_some() {
                    self.note_call();
                }
                self.expected.push_back(Expect::Query { before, change: None });
            }
            Tag::Execute => {
                self.queries += 1;
                if self.notes.is_some() {
                    self.note_execute(splice.rest());
                }
                self.extended(Expect::Execute);
            }
            Tag::Parse if self.is_shared() => return self.parse(total, splice, backend),
            Tag::Bind if self.is_shared() => return self.bind(total, splice, backend),
            Tag::Describe if self.is_shared() => return self.describe(total, splice, backend),
            Tag::Close if self.is_shared() => return self.close(total, splice, backend),
            Tag::Parse => self.extended(Expect::Parse(ParseRole::Plain)),
            Tag::Bind => self.extended(Expect::Bind),
            Tag::Describe => self.extended(Expect::Describe),
            Tag::Close => self.extended(Expect::Close(CloseRole::Plain)),
        }
        Ok(self.pass(total, splice))
    }

    /// Passes a message on, whether all of it is there or not.
    fn pass(&mut self, total: usize, splice: &mut Splice<'_>) -> Progress {
        let here = total.min(splice.rest().len());
        splice.keep(here);
        self.client_left = total - here;
        Progress::Taken
    }

    /// The same with a message of the extended protocol, and what is owed for it.
    fn pass_extended(&mut self, expect: Expect, total: usize, splice: &mut Splice<'_>) -> Progress {
        self.extended(expect);
        self.pass(total, splice)
    }

    fn extended(&mut self, expect: Expect) {
        self.batch_open = true;
        self.expected.push_back(expect);
    }

    fn query(&mut self, total: usize, splice: &mut Splice<'_>, backend: &mut Backend) -> Progress {
        // In session mode only what resets has to be seen, and no such text is long.
        let held_max = if self.is_shared() { self.bounds.message } else { PEEK };
        let message = splice.rest().get(..total);
        if message.is_none() && total <= held_max {
            return Progress::Incomplete;
        }
        self.queries += 1;
        self.pass_fence();
        let mut change = None;
        if let Some(message) = message.filter(|_| total <= held_max) {
            let text = frontend::query_text(message);
            if self.is_shared()
                && self.status != Status::Failed
                && let Some(Deallocate::One(name)) = Deallocate::read(text)
                && self.names.remove(&name).is_some()
            {
                splice.cut(total);
                self.unnamed.content = None;
                self.expected.push_back(Expect::Local(Local::Deallocated));
                return Progress::Taken;
            }
            let reading = sql::read(text);
            if !reading.is_nothing() {
                self.note(&reading, backend);
                if self.is_shared() && !reading.prepared.is_empty() {
                    let text = text.to_vec();
                    change = self.align(&text, &reading, backend, splice.out()).map(Box::new);
                }
            }
        } else if self.is_shared() {
            self.note(&Reading::unknown(), backend);
        }
        if self.notes.is_some() {
            self.note_query(splice.rest().get(..total).unwrap_or(splice.rest()));
        }
        // A simple query destroys the unnamed statement.
        let before = self.unnamed.replace(None);
        self.expected.push_back(Expect::Query { before, change });
        self.pass(total, splice)
    }

    fn parse(
        &mut self,
        total: usize,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) -> Result<Progress, Error> {
        let rest = splice.rest();
        let unnamed = match rest.get(HEADER) {
            None => return Ok(Progress::Incomplete),
            Some(first) => *first == 0,
        };
        if unnamed && total > self.bounds.message {
            self.note(&Reading::unknown(), backend);
            let before = self.unnamed.replace(None);
            return Ok(self.pass_extended(Expect::Parse(ParseRole::Unnamed { before }), total, splice));
        }
        let Some(message) = self.whole(rest, total)? else { return Ok(Progress::Incomplete) };
        let Ok(parse) = Parse::read(message) else {
            // The server says what is wrong with it.
            return Ok(self.pass_extended(Expect::Parse(ParseRole::Plain), total, splice));
        };
        if unnamed && let Some(content) = self.statements.unnamed.recall(parse.content) {
            let before = self.unnamed.replace(Some(content));
            return Ok(self.pass_extended(Expect::Parse(ParseRole::Unnamed { before }), total, splice));
        }
        if let Some(Deallocate::One(name)) = Deallocate::read(parse.text)
            && self.names.remove(&name).is_some()
        {
            let name = parse.name.to_vec();
            self.deallocate_void(&name, total, splice);
            return Ok(Progress::Taken);
        }
        if unnamed {
            let content = (total <= UNNAMED_MAX).then(|| Bytes::copy_from_slice(parse.content));
            let reading = sql::read(parse.text);
            match &content {
                Some(content) if reading.is_nothing() => self.statements.unnamed.remember(content),
                Some(_) | None => self.note_unnamed(&reading, splice, backend),
            }
            let before = self.unnamed.replace(content);
            self.unnamed.sets_by_parameter = reading.sets_by_parameter;
            self.unnamed.uses_names = reading.uses().next().is_some();
            return Ok(self.pass_extended(Expect::Parse(ParseRole::Unnamed { before }), total, splice));
        }
        let name: Box<[u8]> = parse.name.into();
        if let Some(known) = self.names.get(&name).map(Arc::clone) {
            // It fails: for its own faults if it has some, else for its name.
            let content = parse.content.to_vec();
            splice.cut(total);
            self.ensure(&known, splice, backend);
            frontend::put_parse(splice.out(), known.name.as_bytes(), &content);
            self.extended(Expect::Parse(ParseRole::Duplicate { name }));
            return Ok(Progress::Taken);
        }
        self.names.check_room(self.bounds.statements, &name, parse.content)?;
        let statement = self.statement_of(parse.content);
        splice.cut(total);
        self.names.insert(name.clone(), Arc::clone(&statement), self.statements.tick());
        if backend.parsed.touch(statement.id).is_some() {
            self.extended(Expect::Local(Local::ParseComplete { name }));
        } else {
            self.align_used(&statement, splice, backend);
            self.put_parse(&statement, splice.out(), backend);
            self.extended(Expect::Parse(ParseRole::Named { name, statement }));
        }
        Ok(Progress::Taken)
    }

    /// What a content means to this session.
    pub(super) fn statement_of(&self, content: &[u8]) -> Arc<Statement> {
        match self.dirt().contains(Kinds::TEMPORARY) {
            true => self.statements.private(content),
            false => self.statements.intern(content),
        }
    }

    /// What the text of an unnamed statement says.
    fn note_unnamed(&mut self, reading: &Reading, splice: &mut Splice<'_>, backend: &mut Backend) {
        if !reading.is_nothing() {
            self.note(reading, backend);
            self.align_extended(reading, backend, splice.out());
        }
    }

    /// `DEALLOCATE name` as an extended query, of a statement that others share: it deallocates one made for the
    /// purpose, so that the server's answer is right in every state it can be in.
    fn deallocate_void(&mut self, client_name: &[u8], total: usize, splice: &mut Splice<'_>) {
        splice.cut(total);
        self.voids += 1;
        let void = format!("groove_void_{}", self.voids);
        let text = |text: &str| [text.as_bytes(), &[0, 0, 0]].concat();
        frontend::put_parse(splice.out(), void.as_bytes(), &text(""));
        self.extended(Expect::Parse(ParseRole::Injected { statement: None }));
        frontend::put_parse(splice.out(), client_name, &text(&format!("DEALLOCATE {void}")));
        let before = self.unnamed.replace(None);
        self.extended(Expect::Parse(ParseRole::Unnamed { before }));
    }

    fn bind(
        &mut self,
        total: usize,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) -> Result<Progress, Error> {
        let rest = splice.rest();
        let Some((portal, name)) = frontend::bind_names(rest.get(..total.min(rest.len())).unwrap_or(rest))
        else {
            if rest.len() < total && rest.len() <= self.bounds.message {
                return Ok(Progress::Incomplete);
            }
            // The server says what is wrong with it.
            return Ok(self.pass_extended(Expect::Bind, total, splice));
        };
        if name.is_empty() {
            if self.unnamed.sets_by_parameter {
                let Some(message) = self.whole(rest, total)? else { return Ok(Progress::Incomplete) };
                self.note_parameters(frontend::bind_parameters(message));
            }
            self.ensure_unnamed(splice, backend);
        } else if let Some(Known { statement, since }) = self.names.known(name).cloned() {
            let (portal, name) = (portal.to_vec(), name.to_vec());
            if let Some(reading) = &statement.reading {
                if reading.sets_by_parameter {
                    let Some(message) = self.whole(rest, total)? else { return Ok(Progress::Incomplete) };
                    self.note_parameters(frontend::bind_parameters(message));
                }
                self.note(reading, backend);
                self.align_extended(reading, backend, splice.out());
            }
            let head = HEADER + portal.len() + name.len() + 2;
            self.ensure_for(&statement, since, splice, backend);
            frontend::put_bind_head(splice.out(), total, &portal, &name, statement.name.as_bytes());
            splice.cut(head);
            return Ok(self.pass_extended(Expect::Bind, total - head, splice));
        } else {
            let name = name.to_vec();
            self.align_unknown(&name, backend, splice.out());
        }
        Ok(self.pass_extended(Expect::Bind, total, splice))
    }

    fn describe(
        &mut self,
        total: usize,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) -> Result<Progress, Error> {
        let Some(message) = self.whole(splice.rest(), total)? else { return Ok(Progress::Incomplete) };
        match Target::read(message) {
            Ok(Target::Statement(b"")) => self.ensure_unnamed(splice, backend),
            Ok(Target::Statement(name)) => {
                if let Some(Known { statement, since }) = self.names.known(name).cloned() {
                    self.ensure_for(&statement, since, splice, backend);
                    frontend::put_describe_statement(splice.out(), statement.name.as_bytes());
                    splice.cut(total);
                    self.extended(Expect::Describe);
                    return Ok(Progress::Taken);
                }
                let name = name.to_vec();
                self.align_unknown(&name, backend, splice.out());
            }
            Ok(Target::Portal(_)) | Err(_) => {}
        }
        Ok(self.pass_extended(Expect::Describe, total, splice))
    }

    fn close(
        &mut self,
        total: usize,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) -> Result<Progress, Error> {
        let Some(message) = self.whole(splice.rest(), total)? else { return Ok(Progress::Incomplete) };
        match Target::read(message) {
            Ok(Target::Statement(name)) if !name.is_empty() => {
                let name: Box<[u8]> = name.into();
                let statement = self.names.remove(&name);
                let own = self.forget_by_sql(&name);
                if statement.is_none() && (self.traces.leaves | self.pinned).contains(Kinds::PREPARED) {
                    // What the session has prepared there by itself only the server knows.
                    self.drop_by_sql(&name, own, backend);
                    return Ok(self.pass_extended(Expect::Close(CloseRole::Plain), total, splice));
                }
                splice.cut(total);
                self.extended(Expect::Local(Local::CloseComplete { name, statement, own }));
                return Ok(Progress::Taken);
            }
            Ok(Target::Statement(_)) => {
                let before = self.unnamed.replace(None);
                self.extended(Expect::Close(CloseRole::Ended { before }));
            }
            Ok(Target::Portal(_)) | Err(_) => self.extended(Expect::Close(CloseRole::Plain)),
        }
        Ok(self.pass(total, splice))
    }

    /// Sees to it that the connection has parsed a statement, in the same write as its use. Gives when its plan was good
    /// last, if it was there.
    fn ensure(
        &mut self,
        statement: &Arc<Statement>,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) -> Option<Moment> {
        let good_at = backend.parsed.touch(statement.id);
        if good_at.is_none() {
            self.align_used(statement, splice, backend);
            self.put_parse(statement, splice.out(), backend);
            self.extended(Expect::Parse(ParseRole::Injected { statement: Some(Arc::clone(statement)) }));
        }
        good_at
    }

    /// The same for a message that begins here, of a client that had the statement parsed at a time.
    fn ensure_for(
        &mut self,
        statement: &Arc<Statement>,
        since: Moment,
        splice: &mut Splice<'_>,
        backend: &mut Backend,
    ) {
        if self.ensure(statement, splice, backend).is_some_and(|good_at| good_at < since) {
            self.suspect(statement.id, since, splice.rest());
        }
    }

    /// Before a statement is parsed that runs others by name: what it gives is settled there and then.
    fn align_used(&mut self, statement: &Statement, splice: &mut Splice<'_>, backend: &mut Backend) {
        for name in statement.reading.iter().flat_map(|reading| reading.uses()).take(NAMES_MAX) {
            self.align_name(name, backend, splice.out());
        }
    }

    /// Sees to it that the connection's unnamed statement is this session's, or none.
    fn ensure_unnamed(&mut self, splice: &mut Splice<'_>, backend: &mut Backend) {
        if self.unnamed.is_here {
            return self.align_unnamed(splice, backend);
        }
        self.unnamed.is_here = true;
        if let Some(content) = self.unnamed.content.clone() {
            if let Some((text, _)) = cstr(&content) {
                let reading = sql::read(text);
                self.unnamed.uses_names = reading.uses().next().is_some();
                self.note_unnamed(&reading, splice, backend);
            }
            frontend::put_parse(splice.out(), b"", &content);
            self.extended(Expect::Parse(ParseRole::Injected { statement: None }));
        } else {
            frontend::put_close_statement(splice.out(), b"");
            self.extended(Expect::Close(CloseRole::Foreign));
        }
    }

    /// The session's unnamed statement is there, but what it runs by name may be another one by now.
    fn align_unnamed(&mut self, splice: &mut Splice<'_>, backend: &mut Backend) {
        if self.unnamed.uses_names
            && let Some(content) = self.unnamed.content.clone()
            && let Some((text, _)) = cstr(&content)
        {
            for name in sql::read(text).uses().take(NAMES_MAX) {
                self.align_name(name, backend, splice.out());
                self.note_use(name, backend);
            }
        }
    }

    /// Writes the Parse, and before it the Close of what has to make room.
    pub(super) fn put_parse(
        &mut self,
        statement: &Statement,
        to_server: &mut BytesMut,
        backend: &mut Backend,
    ) {
        if let Some(oldest) = backend.parsed.insert(statement.id, self.statements.now()) {
            frontend::put_close_statement(to_server, server_name(oldest).as_bytes());
            self.expected.push_back(Expect::Close(CloseRole::Evict(oldest)));
        }
        frontend::put_parse(to_server, statement.name.as_bytes(), &statement.content);
    }

    /// The whole message, `None` while it is incomplete, an error if it is more than we hold.
    fn whole<'a>(&self, rest: &'a [u8], total: usize) -> Result<Option<&'a [u8]>, Error> {
        if total > self.bounds.message {
            return Err(crate::wire::DecodeError::TooLarge { bytes: total, max: self.bounds.message }.into());
        }
        Ok(rest.get(..total))
    }
}
