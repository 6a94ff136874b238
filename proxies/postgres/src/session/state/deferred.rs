//! A transaction that was begun and has done nothing needs no server. The client has its answer at once; the server
//! hears of it with the first statement.

use std::sync::Arc;

use bytes::BytesMut;

use super::{Backend, Expect, Machine, Mode, ParseRole, Run, Unnamed};
use crate::sql::{self, Block};
use crate::wire::backend::{Status, put_command_complete, put_ready};
use crate::wire::frontend;

/// As long as any BEGIN is that anybody writes.
const TEXT_MAX: usize = 160;

/// A transaction that no server knows of.
#[derive(Debug, Clone)]
pub(super) enum Deferred {
    /// Begun by this text.
    Begun(Box<[u8]>),
    /// The same, and its first statement got no server: nothing but its end is left to do.
    Failed,
}

/// Fails whatever the session's settings are.
const FAILS: &str = "SELECT pg_catalog.int4div(1,0)";

/// Whether a text may be a transaction command: most texts tell by their first two letters that they are not.
fn may_be_block(text: &[u8]) -> bool {
    let start = text.trim_ascii_start().first_chunk::<2>().map(|start| start.map(|b| b.to_ascii_lowercase()));
    matches!(start.as_ref(), Some(b"be" | b"st" | b"co" | b"en" | b"ro" | b"ab" | b"--" | b"/*"))
}

impl Machine {
    /// Answers a Query that begins a transaction, or ends one that no server knows of. `None` if more of it must be
    /// there first; false if it is for a server.
    pub(super) fn answer_block(
        &mut self,
        total: usize,
        input: &mut BytesMut,
        to_client: &mut BytesMut,
    ) -> Option<bool> {
        if self.mode != Mode::Transaction || total > TEXT_MAX {
            return Some(false);
        }
        let text = frontend::query_text(input.get(..total)?);
        if !may_be_block(text) {
            return Some(false);
        }
        let (tag, status, deferred) = match (sql::read(text).block, &self.deferred) {
            (Some(Block::Begin), None) => ("BEGIN", Status::Transaction, Some(Deferred::Begun(text.into()))),
            (Some(Block::Start), None) => {
                ("START TRANSACTION", Status::Transaction, Some(Deferred::Begun(text.into())))
            }
            (Some(Block::Commit), Some(Deferred::Begun(_))) => ("COMMIT", Status::Idle, None),
            (Some(Block::Rollback), Some(_)) | (Some(Block::Commit), Some(Deferred::Failed)) => {
                ("ROLLBACK", Status::Idle, None)
            }
            (Some(Block::Begin | Block::Start), Some(_))
            | (Some(Block::Commit | Block::Rollback), None)
            | (None, _) => {
                return Some(false);
            }
        };
        let _ = input.split_to(total);
        self.deferred = deferred;
        // As any simple query does.
        self.unnamed = Unnamed::default();
        self.status = status;
        put_command_complete(to_client, tag);
        put_ready(to_client, status);
        Some(true)
    }

    /// Begins on a server what was begun without one. It is no query of its own but part of what follows: if it
    /// fails, the server runs nothing up to a Sync, and the session ends.
    pub(super) fn begin_deferred(&mut self, to_server: &mut BytesMut) {
        match self.deferred.take() {
            None => {}
            Some(Deferred::Begun(text)) => self.put_begin(&text, to_server),
            Some(Deferred::Failed) => {
                self.put_begin(b"BEGIN", to_server);
                frontend::put_query(to_server, FAILS);
                self.expected.push_back(Expect::Aside { name: "".into() });
            }
        }
    }

    fn put_begin(&mut self, text: &[u8], to_server: &mut BytesMut) {
        // Unnamed: nothing of it is to be seen in pg_prepared_statements, nor takes it another's place.
        frontend::put_parse(to_server, b"", &[text, &[0, 0, 0]].concat());
        self.expected.push_back(Expect::Parse(ParseRole::Injected { statement: None }));
        self.unnamed.is_here = false;
        frontend::put_run(to_server, b"", b"");
        self.expected.push_back(Expect::Run(Run::Begin));
    }

    /// Writes what runs a text of ours without parameters within a batch, and parses it if that has not been done.
    pub(super) fn put_run(
        &mut self,
        text: &[u8],
        portal: &[u8],
        backend: &mut Backend,
        to_server: &mut BytesMut,
    ) {
        let statement = self.statements.intern(&[text, &[0, 0, 0]].concat());
        if backend.parsed.touch(statement.id).is_none() {
            self.put_parse(&statement, to_server, backend);
            self.expected
                .push_back(Expect::Parse(ParseRole::Injected { statement: Some(Arc::clone(&statement)) }));
        }
        frontend::put_run(to_server, portal, statement.name.as_bytes());
    }

    /// The transaction that no server knows of has failed, if there is one.
    pub(super) fn fail_deferred(&mut self) {
        if self.deferred.is_some() {
            self.deferred = Some(Deferred::Failed);
            self.status = Status::Failed;
        }
    }
}
