//! One session as a pure machine: bytes in, bytes out, and the answer to one question: whose turn is it?
//!
//! The machine walks both streams, passes on what a pooler has no business with, and keeps a queue of what the
//! server still owes (`Expect`). A server connection may go to another session when nothing is owed, no batch
//! is open and the server says it is idle.
//!
//! ```text
//!            begin(backend)                          is_free(): end(backend)
//!  no lease ───────────────▶ leased: from_client ⇄ from_server ───────────────▶ no lease
//!      └─ refuse(): what the client sent is answered with an error, up to its Sync or Query
//! ```

mod backend;
mod between;
mod by_sql;
mod deferred;
mod from_client;
mod from_server;
#[cfg(test)]
mod leaks;
mod listening;
mod meaning;
mod notes;
mod outdated;
mod placement;
mod portable;
#[cfg(test)]
mod tests;
mod traces;
mod unheard;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

pub use backend::Backend;
pub use between::Need;
pub use by_sql::ByText;
pub use listening::Listening;
pub(crate) use meaning::is_outdated;
pub use notes::{Finished, How, Notes, Outcome, Settled, Text};
pub use placement::{Grant, Placement};
pub use portable::{Portable, PortableError};
pub use unheard::Before;

use by_sql::{BySql, Change, Written};
use deferred::Deferred;
use outdated::Suspect;
use traces::Traces;

use super::names::{Known, NameBounds, Names};
use super::prepared::{Statement, StatementId, Statements};
use super::settings::{Settings, or_nothing};
use crate::sql::Kinds;
use crate::wire::backend::{
    Status, put_close_complete, put_command_complete, put_parameter_status, put_parse_complete, put_ready,
};
use crate::wire::frontend;

/// When a server connection goes back to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// When the client leaves.
    Session,
    /// After each transaction.
    Transaction,
    /// After each statement; transaction blocks are refused.
    Statement,
}

/// What one client may make us remember.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a message that has to be held whole.
    pub message: usize,
    /// Prepared statements of one client.
    pub statements: NameBounds,
}

/// Messages in flight to a server before we read no more from the client. Their replies are larger than a
/// server's send buffer (8 KiB), so it has to send some before this can stand still.
const EXPECTED_MAX: usize = 10_000;
/// What of our own one message may bring along: each name in its text takes three queries at most, at its Bind and
/// again at the Parse that goes before, and a text has no more of them than that.
const OWN_MAX: usize = 2 * 3 * NAMES_MAX + 3;
/// Names of statements prepared by SQL in one text that are looked at.
const NAMES_MAX: usize = 16;

/// Something the server owes, or that we owe in its place, in order.
#[derive(Debug)]
enum Expect {
    /// ParseComplete.
    Parse(ParseRole),
    /// BindComplete.
    Bind,
    /// RowDescription or NoData.
    Describe,
    /// CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close(CloseRole),
    /// ReadyForQuery after a Sync.
    Sync,
    /// All of a simple query's or function call's replies up to ReadyForQuery.
    Query {
        /// What the query destroyed, unless the server skips it.
        before: Unnamed,
        /// What becomes of a statement prepared by SQL.
        change: Option<Box<Change>>,
    },
    /// All replies to our own query at the begin of a lease; the client sees none.
    Setup,
    /// The same within it, about a statement that was prepared by SQL. It may fail: then the name means nothing.
    Aside { name: Box<str> },
    /// BindComplete and CommandComplete of something of ours within a batch.
    Run(Run),
    /// Nothing: marks where the client ended its side of a COPY.
    CopyEnd,
    /// Ours to say, when its turn comes.
    Local(Local),
}

/// Something of ours that the server runs within a client's batch, or before its query.
#[derive(Debug)]
enum Run {
    /// A BEGIN that the client has had its answer to.
    Begin,
    /// About a statement that was prepared by SQL, and what its name meant before.
    Aside { name: Box<str>, before: Option<ByText> },
}

/// Why a Parse was sent, and so what its failure undoes.
#[derive(Debug)]
enum ParseRole {
    /// The client's, and nothing to us.
    Plain,
    /// The client's unnamed statement, in place of another.
    Unnamed { before: Unnamed },
    /// The client's; the statement is new on this connection.
    Named { name: Box<[u8]>, statement: Arc<Statement> },
    /// Ours: the client uses what it has parsed on another connection.
    Injected { statement: Option<Arc<Statement>> },
    /// Ours: SQL of the client's names what it has prepared by protocol.
    ByClientsName { name: Box<str> },
    /// The client parses a name it has already: it fails, and the error has to have the client's name.
    Duplicate { name: Box<[u8]> },
}

/// Why a Close was sent.
#[derive(Debug)]
enum CloseRole {
    /// The client's.
    Plain,
    /// The client's, of its unnamed statement.
    Ended { before: Unnamed },
    /// Ours: this statement makes room for another.
    Evict(StatementId),
    /// Ours: the unnamed statement on this connection is another session's.
    Foreign,
    /// Ours, of a portal of ours.
    Own,
}

#[derive(Debug)]
enum Local {
    /// The statement is parsed on this connection already.
    ParseComplete { name: Box<[u8]> },
    /// Only what the session has by that name is forgotten: a statement of the protocol or of SQL's.
    CloseComplete { name: Box<[u8]>, statement: Option<Known>, own: Option<Arc<Written>> },
    /// A simple query `DEALLOCATE name` of such a name.
    Deallocated,
    /// Nothing: a statement that was prepared by SQL is about to be dropped; the session had one by that name, and so
    /// had the server.
    Dropped { name: Box<str>, own: Option<Arc<Written>>, there: Option<ByText> },
}

/// A session's unnamed statement.
#[derive(Debug, Clone, Default)]
struct Unnamed {
    /// Its content, if there is one and it is small enough to be parsed again elsewhere.
    content: Option<Bytes>,
    /// The connection's unnamed statement (or its lack of one) is this session's.
    is_here: bool,
    /// It sets what its parameters name.
    sets_by_parameter: bool,
    /// It runs others by their names.
    uses_names: bool,
}

impl Unnamed {
    /// What is known once the connection has `content`; gives what was known before.
    fn replace(&mut self, content: Option<Bytes>) -> Unnamed {
        std::mem::replace(self, Unnamed { content, is_here: true, ..Unnamed::default() })
    }
}

/// A session's machine.
#[derive(Debug)]
pub struct Machine {
    mode: Mode,
    bounds: Bounds,
    statements: Arc<Statements>,
    names: Names,
    unnamed: Unnamed,
    settings: Arc<Settings>,
    /// Those it began with.
    startup: Arc<Settings>,
    by_sql: Option<Box<BySql>>,
    traces: Traces,
    /// What keeps the server connection beyond a transaction.
    pinned: Kinds,
    deferred: Option<Deferred>,
    /// Few sessions ever listen.
    listening: Option<Box<Listening>>,
    expected: VecDeque<Expect>,
    status: Status,
    /// Extended messages were sent that no Sync has ended.
    batch_open: bool,
    /// The server ignores what comes until a Sync.
    skipping: bool,
    /// The server reads CopyData, and the client has not ended it.
    copying_in: bool,
    /// Bytes of a message that are still to come from the client.
    client_left: usize,
    /// Bytes of a message that are still to come from the server, and whether they pass.
    server_left: usize,
    server_passes: bool,
    /// Statements made only to be deallocated.
    voids: u32,
    /// Our own query at the begin of the lease failed.
    setup_failed: bool,
    /// Something was changed that statements are made of.
    has_altered: bool,
    /// An answer of ours to an exchange that never got a server.
    refusing: bool,
    terminated: bool,
    told_fatal: bool,
    /// How many more batches and queries this server is for; as many as there are, if it is not said.
    fence: Option<u8>,
    queries: u64,
    /// Only while somebody wants to know.
    notes: Option<Box<Notes>>,
    /// Only until the server has taken it.
    suspect: Option<Box<Suspect>>,
}

impl Machine {
    /// A session that has just logged in, with the settings its client was told.
    pub fn new(mode: Mode, bounds: Bounds, statements: Arc<Statements>, settings: Arc<Settings>) -> Machine {
        Machine {
            mode,
            bounds,
            statements,
            names: Names::new(),
            unnamed: Unnamed::default(),
            startup: Arc::clone(&settings),
            settings,
            by_sql: None,
            traces: Traces::default(),
            pinned: Kinds::empty(),
            deferred: None,
            listening: None,
            expected: VecDeque::new(),
            status: Status::Idle,
            batch_open: false,
            skipping: false,
            copying_in: false,
            client_left: 0,
            server_left: 0,
            server_passes: true,
            voids: 0,
            setup_failed: false,
            has_altered: false,
            refusing: false,
            terminated: false,
            told_fatal: false,
            fence: None,
            queries: 0,
            notes: None,
            suspect: None,
        }
    }

    /// Takes a server connection on: its settings become the session's, and a transaction that was begun without it
    /// begins, before anything else is said.
    pub fn begin(&mut self, backend: &mut Backend, to_server: &mut BytesMut, to_client: &mut BytesMut) {
        debug_assert!(self.expected.is_empty(), "nothing is owed before a lease");
        self.begin_settings(backend, to_server, to_client);
        self.begin_deferred(to_server);
    }

    fn begin_settings(&mut self, backend: &mut Backend, to_server: &mut BytesMut, to_client: &mut BytesMut) {
        if Arc::ptr_eq(&self.settings, &backend.settings) {
            return;
        }
        if self.settings == backend.settings {
            // One of the two serves both from now on, and by the order of their addresses one serves all: the
            // next comparison is one of pointers.
            let least = if Arc::as_ptr(&self.settings) < Arc::as_ptr(&backend.settings) {
                &self.settings
            } else {
                &backend.settings
            };
            let least = Arc::clone(least);
            backend.settings = Arc::clone(&least);
            self.settings = least;
            return;
        }
        if self.settings.is_of_another_release(&backend.initial) {
            let translated = |settings: &Settings| Arc::new(settings.translated(&backend.initial));
            (self.settings, self.startup) = (translated(&self.settings), translated(&self.startup));
        }
        match backend.settings.query_to(&self.settings) {
            Some(query) => {
                frontend::put_query(to_server, &or_nothing(&query));
                self.unnamed.is_here = false;
                self.expected.push_back(Expect::Setup);
            }
            None => self.put_news(backend, to_client),
        }
    }

    /// Tells the client what is different about this server.
    fn put_news(&self, backend: &Backend, to_client: &mut BytesMut) {
        for (name, value) in backend.settings.news_for(&self.settings) {
            put_parameter_status(to_client, name, value);
        }
    }

    /// Whether what the session needs before its first message is still under way to the server.
    pub fn in_setup(&self) -> bool {
        // Before a BEGIN there is its Parse.
        matches!(self.expected.front(), Some(Expect::Setup))
            || self.expected.iter().take(2).any(|expect| matches!(expect, Expect::Run(Run::Begin)))
    }

    /// Whether the server sets the session's settings, before anything else.
    pub fn is_in_settings(&self) -> bool {
        matches!(self.expected.front(), Some(Expect::Setup))
    }

    /// Whether a BEGIN is under way that the client has had its answer to.
    pub fn is_beginning(&self) -> bool {
        self.expected.iter().take(3).any(|expect| matches!(expect, Expect::Run(Run::Begin)))
    }

    /// What the client has asked for of a setting that servers do not report, in lower case.
    pub fn asked(&self, name: &str) -> Option<&str> {
        self.settings.asked(name)
    }

    /// Whether what the server says now is for us alone.
    fn hears_alone(&self) -> bool {
        matches!(self.expected.front(), Some(Expect::Setup | Expect::Aside { .. } | Expect::Run(_)))
    }

    /// Whether the server is at rest, and its connection may go to another session, or something has to be done
    /// about what this one has left on it.
    pub fn is_free(&self) -> bool {
        self.expected.is_empty()
            && self.status == Status::Idle
            && !self.batch_open
            && !self.skipping
            && !self.copying_in
            && self.client_left == 0
            && self.server_left == 0
            && (!self.keeps_server() || self.has_business())
    }

    /// Whether the server is idle, whatever the mode: nothing is owed and no transaction is open.
    pub fn server_is_idle(&self) -> bool {
        self.expected.is_empty() && self.status == Status::Idle && !self.batch_open && !self.copying_in
    }

    /// Whether a query of this session is running, or may be.
    pub fn is_busy(&self) -> bool {
        !self.expected.is_empty() || self.batch_open || self.copying_in
    }

    /// Whether more may be read from the client: not after its goodbye, nor while so much is owed that none of it
    /// would be taken in.
    pub fn takes_more(&self) -> bool {
        !self.terminated && self.expected.len() < EXPECTED_MAX
    }

    /// Whether the client said goodbye, and the server will do nothing more by itself.
    pub fn may_leave(&self) -> bool {
        self.terminated && (!self.is_busy() || self.batch_open || self.copying_in)
    }

    /// Whether all that the client has sent so far ends with a whole message.
    pub fn is_between_messages(&self) -> bool {
        self.client_left == 0
    }

    /// Where the server stood at its last ReadyForQuery.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether the server has told the client that the session is over.
    pub fn was_told_fatal(&self) -> bool {
        self.told_fatal
    }

    /// Queries, executions and function calls since the last time.
    pub fn take_queries(&mut self) -> u64 {
        std::mem::take(&mut self.queries)
    }

    /// Ends for the client what it has begun and cannot end any more: its batch, its COPY.
    pub fn abandon(&mut self, to_server: &mut BytesMut) {
        debug_assert!(self.is_between_messages(), "nobody can end a message but its sender");
        if std::mem::take(&mut self.copying_in) {
            frontend::put_copy_fail(to_server, "the client left");
            self.expected.push_back(Expect::CopyEnd);
        }
        if std::mem::take(&mut self.batch_open) {
            self.skipping = false;
            frontend::put_sync(to_server);
            self.expected.push_back(Expect::Sync);
        }
    }

    /// Hands the machine over to whoever brings the server connection to rest.
    pub fn take(&mut self) -> Machine {
        let (statements, settings) = (Arc::clone(&self.statements), Arc::clone(&self.settings));
        let mut fresh = Machine::new(self.mode, self.bounds, statements, settings);
        // That is between the session and its pool.
        fresh.listening = self.listening.take();
        std::mem::replace(self, fresh)
    }

    fn is_shared(&self) -> bool {
        self.mode != Mode::Session
    }

    /// Says what is ours to say and has come to the front.
    fn say_local(&mut self, to_client: &mut BytesMut) {
        loop {
            match self.expected.front() {
                Some(Expect::CopyEnd | Expect::Local(Local::Dropped { .. })) => {}
                Some(Expect::Local(Local::ParseComplete { .. })) => put_parse_complete(to_client),
                Some(Expect::Local(Local::CloseComplete { .. })) => put_close_complete(to_client),
                Some(Expect::Local(Local::Deallocated)) => {
                    put_command_complete(to_client, "DEALLOCATE");
                    put_ready(to_client, self.status);
                }
                Some(
                    Expect::Parse(_)
                    | Expect::Bind
                    | Expect::Describe
                    | Expect::Execute
                    | Expect::Close(_)
                    | Expect::Sync
                    | Expect::Query { .. }
                    | Expect::Setup
                    | Expect::Aside { .. }
                    | Expect::Run(_),
                )
                | None => return,
            }
            self.expected.pop_front();
        }
    }

    /// Holds after each entry, or the machine is wrong.
    fn check_invariants(&self) {
        debug_assert!(self.expected.len() <= EXPECTED_MAX + OWN_MAX, "bounded");
        debug_assert!(!(self.skipping && self.copying_in), "a server that skips copies nothing");
        self.names.check_invariants(self.bounds.statements);
        self.check_notes();
    }
}
