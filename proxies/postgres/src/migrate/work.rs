//! What every step of the command has at hand.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::fault::Outcome;
use super::files::{Folder, Kept};
use super::node::{Login, Node};
use super::policy::phase::{Journal, Side};
use super::proxies::Proxies;
use super::recover;
use crate::config::Migration;

/// The command at work.
pub(super) struct Work<'a> {
    pub(super) migration: &'a Migration,
    pub(super) folder: Folder,
    pub(super) proxies: Proxies,
    pub(super) begun: Instant,
}

/// How a cutover may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// The gate is closed for no longer.
    pub(super) max_pause: Duration,
    /// Sessions that come past the proxy may be ended.
    pub(super) ends_others: bool,
    /// Rows are compared.
    pub(super) verifies: bool,
}

impl Work<'_> {
    /// A line for whoever watches, with the time since the beginning.
    pub(super) fn say(&self, line: impl std::fmt::Display) {
        let seconds = self.begun.elapsed().as_secs_f64();
        // Nobody may be listening there; the exit code says how it ended.
        let mut out = io::stdout();
        writeln!(out, "{seconds:9.3}s  {line}").unwrap_or_default();
        out.flush().unwrap_or_default();
    }

    /// A connection to a side's database.
    pub(super) async fn connect(&self, journal: &Journal, side: Side) -> Outcome<Node> {
        recover::connect(journal, self.migration, side).await
    }

    /// As whom a side is spoken to.
    pub(super) fn login(&self, journal: &Journal, side: Side) -> Login {
        Login::of(self.migration, side, journal.address(side))
    }

    /// A file of the migration's own.
    pub(super) fn file(&self, journal: &Journal, kind: &str) -> PathBuf {
        self.migration.folder.join(format!("{}.{kind}", journal.id))
    }

    /// The journal as it is now.
    pub(super) async fn again(&self, kept: &Kept) -> Outcome<Option<Kept>> {
        self.folder.journal(&kept.journal.database).await
    }
}
