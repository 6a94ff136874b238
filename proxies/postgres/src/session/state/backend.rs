//! What is known of a server connection beyond its socket, and what sessions leave on it.

use std::sync::Arc;

use crate::session::prepared::Parsed;
use crate::session::settings::Settings;

/// What is known of a server connection beyond its socket. It stays with the connection.
#[derive(Debug)]
pub struct Backend {
    /// Its settings.
    pub settings: Arc<Settings>,
    /// The pool's statements it has parsed.
    pub parsed: Parsed,
    /// What sessions have left on it.
    pub dirt: Dirt,
}

impl Backend {
    /// A connection as it comes from its startup.
    pub fn new(settings: Settings, statements_max: usize) -> Backend {
        let parsed = Parsed::new(statements_max);
        Backend { settings: Arc::new(settings), parsed, dirt: Dirt::default() }
    }
}

impl Backend {
    /// Notes what a command, by its tag, has done to the connection beyond its transaction.
    pub fn completed(&mut self, tag: &[u8]) {
        match tag {
            b"RESET" => self.dirt.settings = true,
            // What was deallocated by SQL may be the pool's, and what was made for the purpose may be left.
            b"PREPARE" | b"DEALLOCATE" => self.dirt.prepared = true,
            b"DECLARE CURSOR" => self.dirt.cursors = true,
            b"LISTEN" => self.dirt.listens = true,
            b"DEALLOCATE ALL" => self.forget_statements(),
            b"DISCARD ALL" => {
                self.forget_statements();
                Arc::make_mut(&mut self.settings).reset();
                self.dirt = Dirt::default();
            }
            _ => {}
        }
    }

    fn forget_statements(&mut self) {
        self.parsed.clear();
        self.dirt.prepared = false;
    }
}

/// State of a server session that would leak into the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dirt {
    /// Settings that the server does not report.
    pub settings: bool,
    /// SQL-level PREPARE.
    pub prepared: bool,
    /// Cursors that may outlive their transaction.
    pub cursors: bool,
    /// LISTEN.
    pub listens: bool,
}

impl Dirt {
    /// The query that washes it off; `None` if there is nothing to wash.
    pub fn query(self) -> Option<String> {
        let parts = [
            (self.settings, "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;"),
            (self.prepared, "DEALLOCATE ALL;"),
            (self.cursors, "CLOSE ALL;"),
            (self.listens, "UNLISTEN *;"),
        ];
        let query: String = parts.iter().filter(|(dirty, _)| *dirty).map(|(_, sql)| *sql).collect();
        (!query.is_empty()).then_some(query)
    }
}
