//! What is known of a server connection beyond its socket, and what sessions leave on it.

use std::collections::HashMap;
use std::sync::Arc;

use super::by_sql::ByText;
use crate::session::prepared::Parsed;
use crate::session::settings::Settings;
use crate::sql::Kinds;

/// What is known of a server connection beyond its socket. It stays with the connection.
#[derive(Debug)]
pub struct Backend {
    /// Its settings.
    pub settings: Arc<Settings>,
    /// Those it came with.
    pub initial: Arc<Settings>,
    /// The pool's statements it has parsed.
    pub parsed: Parsed,
    /// What is prepared on it by a name of a client's.
    pub by_sql: HashMap<Box<str>, ByText>,
    /// What sessions may have left on it.
    pub dirt: Kinds,
    /// The server has said goodbye.
    pub is_over: bool,
    /// Its server has become a primary, or refused to write: it may not be what it was.
    pub has_turned: bool,
}

impl Backend {
    /// A connection as it comes from its startup.
    pub fn new(settings: Settings, statements_max: usize) -> Backend {
        let settings = Arc::new(settings);
        Backend {
            initial: Arc::clone(&settings),
            settings,
            parsed: Parsed::new(statements_max),
            by_sql: HashMap::new(),
            dirt: Kinds::empty(),
            is_over: false,
            has_turned: false,
        }
    }

    /// Notes what a command, by its tag, has done to the connection beyond its transaction.
    pub fn completed(&mut self, tag: &[u8]) {
        match tag {
            b"DEALLOCATE ALL" => self.forget_statements(),
            b"DISCARD ALL" => {
                self.forget_statements();
                Arc::make_mut(&mut self.settings).reset();
                self.dirt &= Kinds::LIBRARIES;
            }
            _ => {}
        }
    }

    fn forget_statements(&mut self) {
        self.parsed.clear();
        self.by_sql.clear();
        self.dirt -= Kinds::PREPARED;
    }

    /// The query that washes off what sessions may have left; `None` if there is nothing to wash.
    pub fn wash_query(&self) -> Option<String> {
        let parts = [
            (Kinds::SETTINGS, "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;"),
            (Kinds::PREPARED, "DEALLOCATE ALL;"),
            (Kinds::CURSORS, "CLOSE ALL;"),
            (Kinds::LISTENS, "UNLISTEN *;"),
            (Kinds::LOCKS, "SELECT pg_catalog.pg_advisory_unlock_all();"),
            (Kinds::TEMPORARY, "DISCARD TEMP;"),
        ];
        let query: String =
            parts.iter().filter(|(kind, _)| self.dirt.contains(*kind)).map(|(_, sql)| *sql).collect();
        (!query.is_empty()).then_some(query)
    }

    /// Notes that the query has been run.
    pub fn washed(&mut self) {
        if self.dirt.contains(Kinds::SETTINGS) {
            Arc::make_mut(&mut self.settings).reset();
        }
        if self.dirt.contains(Kinds::PREPARED) {
            self.forget_statements();
        }
        self.dirt &= Kinds::LIBRARIES;
    }
}
