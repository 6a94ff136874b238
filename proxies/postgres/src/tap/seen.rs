//! One statement as it was seen.

use std::time::{Duration, SystemTime};

use groove_common::net::Peer;

use super::{Whose, dialect};
use crate::session::state::{Finished, How, Outcome, Text};
use crate::sql::{Masked, mask};
use crate::wire::cstr;

/// One statement.
#[derive(Debug)]
pub struct Seen {
    /// When it ended.
    pub at: SystemTime,
    /// The database, as its client names it.
    pub database: String,
    /// The user, as the client names it.
    pub user: String,
    /// Where the client is.
    pub peer: Peer,
    /// What the client calls itself.
    pub application_name: String,
    /// Where it ran.
    pub server: String,
    /// What it says, without its literals.
    pub statement: Masked,
    /// By which protocol it came.
    pub how: How,
    /// Rows, by the server's own count.
    pub rows: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// How long the server was at it.
    pub took: Duration,
    /// How long it had waited for a server connection before.
    pub waited: Duration,
    /// Statements that were answered in one piece: the time of all of them is the first one's.
    pub together: usize,
}

impl Seen {
    pub(super) fn new(
        finished: &Finished,
        whose: Whose<'_>,
        took: Duration,
        waited: Duration,
        together: usize,
    ) -> Seen {
        let (client, settings) = (whose.client, &whose.server.backend.settings);
        let application_name = settings.get("application_name").unwrap_or(&client.application_name);
        Seen {
            at: SystemTime::now(),
            database: client.pool.database.clone(),
            user: client.pool.user.clone(),
            peer: client.peer,
            application_name: application_name.to_owned(),
            server: whose.server.cancel.address.to_string(),
            statement: masked(&finished.text, dialect(settings)),
            how: finished.how,
            rows: finished.rows,
            outcome: finished.outcome,
            took,
            waited,
            together,
        }
    }

    /// SQLSTATE, if it failed.
    pub fn sqlstate(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Failed(code) => Some(code.escape_ascii().to_string()),
            Outcome::Done | Outcome::Unfinished => None,
        }
    }

    /// How it ended, in a word.
    pub fn outcome(&self) -> &'static str {
        match self.outcome {
            Outcome::Done => "done",
            Outcome::Failed(_) => "failed",
            Outcome::Unfinished => "unfinished",
        }
    }
}

fn masked(text: &Text, (escapes, is_readable): (bool, bool)) -> Masked {
    match text {
        Text::Sql(_) if !is_readable => Masked::named("(in an encoding that is not read)"),
        Text::Sql(content) => mask(cstr(content).map_or(content, |(text, _)| text), escapes),
        Text::Call => Masked::named("(function call)"),
        Text::Unknown => Masked::named("(text not kept)"),
    }
}
