//! Logs that pgbadger reads: who came and went and how much went through, as PgBouncer logs it, and what was slow, as
//! PostgreSQL does. Whoever ran PgBouncer keeps the reports.
//!
//! | file | what |
//! |---|---|
//! | here | [`Pgbadger`]: the files that are open, and what is told to which |
//! | `pgbouncer.rs` | lines of PgBouncer's |
//! | `postgresql.rs` | lines of PostgreSQL's |
//! | `stats.rs` | how much went through, once a period |

mod pgbouncer;
mod postgresql;
mod stats;

use std::fmt::{self, Display, Formatter, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use groove_common::app::StartError;
use groove_common::net::Peer;
use groove_common::telemetry::{Counter, LogFile, Registry};

use crate::config;
use crate::error::Error;
use crate::live::Client;
use crate::metrics::Totals;
use crate::tap::Seen;

pub use stats::tell_stats;

/// The files, and who may write there.
pub struct Pgbadger {
    open: ArcSwap<Files>,
    lost: Counter,
}

/// What a configuration wants, opened.
pub struct Files {
    sessions: Option<LogFile>,
    statements: Option<LogFile>,
    /// How often it is said how much went through.
    stats: Duration,
}

impl Pgbadger {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn new(config: &config::Pgbadger, registry: &Registry) -> Result<Pgbadger, StartError> {
        let help = "Lines of the logs for pgbadger that were lost: the disk took them too slowly";
        let lost = registry.counter("groove_postgres_pgbadger_lost", help, &[]);
        let files = open(config, &lost)?;
        Ok(Pgbadger { open: ArcSwap::from_pointee(files), lost })
    }

    /// Opens the files of a new configuration, or the same ones anew: those of before may have been moved away.
    ///
    /// # Errors
    /// When one cannot be opened; nothing has changed then.
    pub fn open(&self, config: &config::Pgbadger) -> Result<Files, StartError> {
        open(config, &self.lost)
    }

    /// Writes there from now on.
    pub fn take(&self, files: Files) {
        self.open.store(Arc::new(files));
    }

    /// A client has logged in.
    pub fn entered(&self, client: &Client) {
        if let Some(log) = &self.open.load().sessions {
            let attempt = pgbouncer::attempt(&client.pool.database, &client.pool.user, client.is_tls);
            log.put(&pgbouncer::line(SystemTime::now(), "LOG", &Who::of(client), &attempt));
        }
    }

    /// A client was not let in, whatever it asked for.
    pub fn refused(&self, who: Who<'_>, is_tls: bool, error: &Error) {
        if let Some(log) = &self.open.load().sessions {
            let now = SystemTime::now();
            let attempt = pgbouncer::attempt(who.database, who.user, is_tls);
            log.put(&pgbouncer::line(now, "LOG", &who, &attempt));
            let closing = pgbouncer::closing(&error.to_string(), Duration::ZERO);
            log.put(&pgbouncer::line(now, "LOG", &who, &closing));
            log.put(&pgbouncer::line(now, "WARNING", &who, &pgbouncer::problem(error)));
        }
    }

    /// A client did not get what it asked for, from us.
    pub fn failed(&self, client: &Client, error: &Error) {
        if let Some(log) = &self.open.load().sessions {
            let problem = pgbouncer::problem(error);
            log.put(&pgbouncer::line(SystemTime::now(), "WARNING", &Who::of(client), &problem));
        }
    }

    /// A client is gone: of its own accord, or for an error.
    pub fn left(&self, client: &Client, error: Option<&Error>) {
        let files = self.open.load();
        let Some(log) = &files.sessions else { return };
        let reason = match error {
            None => "client close request".to_owned(),
            Some(Error::Client(_)) => "client unexpected eof".to_owned(),
            Some(error) => {
                self.failed(client, error);
                error.to_string()
            }
        };
        let now = SystemTime::now();
        let closing = pgbouncer::closing(&reason, now.duration_since(client.connected()).unwrap_or_default());
        log.put(&pgbouncer::line(now, "LOG", &Who::of(client), &closing));
    }

    /// A slow statement.
    pub fn statement(&self, seen: &Seen) {
        if let Some(log) = &self.open.load().statements {
            log.put(&postgresql::line(seen));
        }
    }

    /// How much went through, on average.
    fn stats(&self, average: Totals) {
        if let Some(log) = &self.open.load().sessions {
            log.put(&pgbouncer::stats(SystemTime::now(), average));
        }
    }
}

fn open(config: &config::Pgbadger, lost: &Counter) -> Result<Files, StartError> {
    let open = |path: &Option<std::path::PathBuf>, notice: fn(u64) -> String| match path {
        None => Ok(None),
        Some(path) => LogFile::open(path, notice, lost.clone())
            .map(Some)
            .map_err(|error| StartError::from(format!("cannot write to {}: {error}", path.display()))),
    };
    Ok(Files {
        sessions: open(&config.sessions, pgbouncer::lost)?,
        statements: open(&config.statements, postgresql::lost)?,
        stats: config.stats.get(),
    })
}

/// Whom a line is about.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// What tells it from others who are there at the same time; 0 for who is not let in.
    pub number: u64,
    /// The database, as the client names it.
    pub database: &'a str,
    /// The user, as the client names it.
    pub user: &'a str,
    /// Where it comes from.
    pub peer: Peer,
}

impl Who<'_> {
    fn of(client: &Client) -> Who<'_> {
        Who {
            number: client.number,
            database: &client.pool.database,
            user: &client.pool.user,
            peer: client.peer,
        }
    }
}

/// A name that whoever is not let in may have made up: what could end it, or its line, is not in it.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ends = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | '@' | ',' | '=');
        self.0.chars().try_for_each(|c| f.write_char(if ends(c) { '_' } else { c }))
    }
}

/// A text in one line.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
    }
}

/// As both programs write it.
struct Time(SystemTime);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let time = humantime::format_rfc3339_millis(self.0).to_string();
        let time = time.trim_end_matches('Z');
        let (day, clock) = time.split_once('T').unwrap_or((time, ""));
        write!(f, "{day} {clock} UTC")
    }
}
