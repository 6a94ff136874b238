//! Statements that are prepared by SQL (`PREPARE name AS …`) where server connections are shared.
//!
//! A session's are kept by their text; what it has prepared by protocol SQL may name, too. Before a text that names one
//! goes to a server, the server's idea of that name is made the session's: what another session left under it is
//! dropped, what this one had elsewhere is prepared again.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Backend, CloseRole, Expect, Local, Machine, NAMES_MAX, ParseRole, Run};
use crate::session::prepared::Statement;
use crate::sql::{self, Kinds, Prepared, Reading};
use crate::wire::backend::Status;
use crate::wire::frontend;

/// What SQL can name on a server connection.
#[derive(Debug, Clone)]
pub enum ByText {
    /// A statement that was prepared by SQL.
    Sql(Arc<Written>),
    /// One that was prepared by protocol, under the name that its client has for it.
    Protocol(Arc<Statement>),
}

/// A statement that was prepared by SQL.
#[derive(Debug)]
pub struct Written {
    /// The whole `PREPARE`.
    text: Bytes,
    /// What running it may leave behind.
    reading: Reading,
}

impl Written {
    /// As another process has kept it.
    pub(super) fn again(text: Vec<u8>) -> Written {
        let reading = Reading { prepared: Vec::new(), ..sql::read(&text) };
        Written { text: text.into(), reading }
    }
}

impl ByText {
    fn is(&self, other: &ByText) -> bool {
        match (self, other) {
            (ByText::Sql(this), ByText::Sql(other)) => Arc::ptr_eq(this, other),
            (ByText::Protocol(this), ByText::Protocol(other)) => this.id == other.id,
            (ByText::Sql(_), ByText::Protocol(_)) | (ByText::Protocol(_), ByText::Sql(_)) => false,
        }
    }
}

/// A session's statements by their names, and the bytes of their texts.
#[derive(Debug, Default)]
pub(super) struct BySql {
    known: HashMap<Box<str>, Arc<Written>>,
    bytes: usize,
}

/// What becomes of a name if the server does what it is told.
#[derive(Debug)]
pub(super) enum Change {
    Made(Box<str>, Arc<Written>),
    Dropped(Box<str>),
}

/// No client's portal has this name.
const PORTAL: &[u8] = b"groove";

impl BySql {
    /// All of them, as they were written.
    pub(super) fn texts(&self) -> impl Iterator<Item = (Box<str>, Vec<u8>)> {
        self.known.iter().map(|(name, statement)| (name.clone(), statement.text.to_vec()))
    }

    pub(super) fn insert(&mut self, name: Box<str>, statement: Arc<Written>) {
        self.bytes += statement.text.len() + name.len();
        if let Some((name, old)) = self.known.remove_entry(&name) {
            self.bytes -= old.text.len() + name.len();
        }
        self.known.insert(name, statement);
    }

    fn remove(&mut self, name: &str) -> Option<Arc<Written>> {
        let (name, old) = self.known.remove_entry(name)?;
        self.bytes -= old.text.len() + name.len();
        Some(old)
    }
}

impl Machine {
    /// Makes the server's idea of the names in a simple query the session's; says what the query then changes of them.
    pub(super) fn align(
        &mut self,
        text: &[u8],
        reading: &Reading,
        backend: &mut Backend,
        to_server: &mut BytesMut,
    ) -> Option<Change> {
        let mut change = None;
        for prepared in reading.prepared.iter().take(NAMES_MAX) {
            self.align_name(prepared.name(), backend, to_server);
            match prepared {
                Prepared::Made(_) if !self.has_room_for(text) => self.traces.leaves |= Kinds::PREPARED,
                Prepared::Made(name) => {
                    let reading = Reading { prepared: Vec::new(), ..reading.clone() };
                    let statement = Written { text: Bytes::copy_from_slice(text), reading };
                    change = Some(Change::Made(name.clone(), Arc::new(statement)));
                }
                Prepared::Dropped(name) => change = Some(Change::Dropped(name.clone())),
                Prepared::Used(name) => self.note_use(name, backend),
            }
        }
        change
    }

    /// The same for a statement of the extended protocol. Whether it is run, and how often, is not to be known: what
    /// comes of it the server is asked.
    pub(super) fn align_extended(
        &mut self,
        reading: &Reading,
        backend: &mut Backend,
        to_server: &mut BytesMut,
    ) {
        for prepared in reading.prepared.iter().take(NAMES_MAX) {
            self.align_name(prepared.name(), backend, to_server);
            match prepared {
                Prepared::Made(_) => self.traces.leaves |= Kinds::PREPARED,
                Prepared::Dropped(name) => {
                    self.traces.leaves |= Kinds::PREPARED;
                    let own = self.by_sql.as_ref().and_then(|own| own.known.get(name)).map(Arc::clone);
                    let there = backend.by_sql.get(name).cloned();
                    self.expected.push_back(Expect::Local(Local::Dropped { name: name.clone(), own, there }));
                    self.changed(Change::Dropped(name.clone()), backend);
                }
                Prepared::Used(name) => self.note_use(name, backend),
            }
        }
    }

    /// The same for a name in a message that the session has no statement for by protocol.
    pub(super) fn align_unknown(&mut self, name: &[u8], backend: &mut Backend, to_server: &mut BytesMut) {
        if let Ok(name) = std::str::from_utf8(name) {
            self.align_name(name, backend, to_server);
            self.note_use(name, backend);
        }
    }

    /// The client closes what it has under a name.
    pub(super) fn forget_by_sql(&mut self, name: &[u8]) -> Option<Arc<Written>> {
        let name = std::str::from_utf8(name).ok()?;
        self.by_sql.as_mut()?.remove(name)
    }

    /// The server is about to close what it has under a name; the session had this.
    pub(super) fn drop_by_sql(&mut self, name: &[u8], own: Option<Arc<Written>>, backend: &mut Backend) {
        if let Ok(name) = std::str::from_utf8(name) {
            let (name, there) = (name.into(), backend.by_sql.remove(name));
            self.expected.push_back(Expect::Local(Local::Dropped { name, own, there }));
        }
    }

    /// It has not closed it after all.
    pub(super) fn remember_by_sql(&mut self, name: &[u8], own: Arc<Written>) {
        if let Ok(name) = std::str::from_utf8(name) {
            self.by_sql.get_or_insert_default().insert(name.into(), own);
        }
    }

    pub(super) fn note_use(&mut self, name: &str, backend: &Backend) {
        match self.named(name) {
            Some(ByText::Sql(statement)) => self.note(&statement.reading, backend),
            Some(ByText::Protocol(statement)) => {
                if let Some(reading) = &statement.reading {
                    self.note(reading, backend);
                }
            }
            None => {}
        }
    }

    /// What the session means by a name.
    fn named(&self, name: &str) -> Option<ByText> {
        let by_sql = self.by_sql.as_ref().and_then(|own| own.known.get(name));
        let by_sql = by_sql.map(|statement| ByText::Sql(Arc::clone(statement)));
        by_sql.or_else(|| self.names.get(name.as_bytes()).map(|known| ByText::Protocol(Arc::clone(known))))
    }

    pub(super) fn has_room_for(&self, text: &[u8]) -> bool {
        let bounds = self.bounds.statements;
        self.by_sql.as_ref().is_none_or(|own| {
            own.known.len() < bounds.count as usize && own.bytes + text.len() <= bounds.bytes as usize
        })
    }

    /// Makes the server's idea of one name the session's.
    pub(super) fn align_name(&mut self, name: &str, backend: &mut Backend, to_server: &mut BytesMut) {
        if self.status == Status::Failed {
            return;
        }
        let own = self.named(name);
        let there = backend.by_sql.get(name);
        match (&own, there) {
            (None, None) => return,
            (Some(own), Some(there)) if own.is(there) => return,
            (Some(_) | None, Some(_)) => self.drop_there(name, backend, to_server),
            (Some(_), None) => {}
        }
        if let Some(own) = own {
            self.make_room(backend, to_server);
            match &own {
                ByText::Sql(own) => self.put_aside(name, &own.text, None, backend, to_server),
                ByText::Protocol(own) => self.put_parse_aside(name, own, to_server),
            }
            backend.by_sql.insert(name.into(), own);
        }
    }

    /// A connection keeps as many of these as of the pool's own.
    fn make_room(&mut self, backend: &mut Backend, to_server: &mut BytesMut) {
        if backend.by_sql.len() >= backend.parsed.max()
            && let Some(any) = backend.by_sql.keys().next().cloned()
        {
            self.drop_there(&any, backend, to_server);
        }
    }

    fn drop_there(&mut self, name: &str, backend: &mut Backend, to_server: &mut BytesMut) {
        let before = backend.by_sql.remove(name);
        let text = format!("DEALLOCATE \"{}\"", name.replace('"', "\"\""));
        self.put_aside(name, text.as_bytes(), before, backend, to_server);
    }

    /// Writes what only we hear the answer of. Within a batch it is part of it, and its failure the batch's: then
    /// the name means what it meant `before`.
    fn put_aside(
        &mut self,
        name: &str,
        text: &[u8],
        before: Option<ByText>,
        backend: &mut Backend,
        to_server: &mut BytesMut,
    ) {
        let name = name.into();
        if !self.batch_open {
            frontend::put_query_bytes(to_server, text);
            self.unnamed.is_here = false;
            return self.expected.push_back(Expect::Aside { name });
        }
        self.put_run(text, PORTAL, backend, to_server);
        self.expected.push_back(Expect::Run(Run::Aside { name, before }));
        frontend::put_close_portal(to_server, PORTAL);
        self.expected.push_back(Expect::Close(CloseRole::Own));
    }

    /// Parses a statement under the name its client has for it.
    fn put_parse_aside(&mut self, name: &str, statement: &Statement, to_server: &mut BytesMut) {
        frontend::put_parse(to_server, name.as_bytes(), &statement.content);
        if self.batch_open {
            let name = name.into();
            self.expected.push_back(Expect::Parse(ParseRole::ByClientsName { name }));
        } else {
            frontend::put_sync(to_server);
            self.expected.push_back(Expect::Aside { name: name.into() });
        }
    }

    /// A statement was not dropped after all, nor anything before it done.
    pub(super) fn undrop(
        &mut self,
        name: Box<str>,
        own: Option<Arc<Written>>,
        there: Option<ByText>,
        backend: &mut Backend,
    ) {
        if let Some(there) = there {
            backend.by_sql.insert(name.clone(), there);
        }
        if let Some(own) = own {
            self.by_sql.get_or_insert_default().insert(name, own);
        }
    }

    /// The server has not done what it was told aside: what it has under that name is not to be known.
    pub(super) fn aside_failed(&self, backend: &mut Backend) {
        if let Some(Expect::Aside { name }) = self.expected.front() {
            backend.by_sql.remove(name);
            backend.dirt |= Kinds::PREPARED;
        }
    }

    /// The server has done what a text told it.
    pub(super) fn changed(&mut self, change: Change, backend: &mut Backend) {
        let own = self.by_sql.get_or_insert_default();
        match change {
            Change::Made(name, statement) => {
                backend.by_sql.insert(name.clone(), ByText::Sql(Arc::clone(&statement)));
                own.insert(name, statement);
            }
            Change::Dropped(name) => {
                backend.by_sql.remove(&name);
                own.remove(&name);
            }
        }
    }
}
