//! `POST /api/v1/tap`: lines of JSON for as long as the watcher reads them and the proxy does not drain.

use std::sync::Arc;
use std::time::Duration;

use groove_common::admin::{Request, Response, Routes, plain};
use groove_common::net::Drain;
use groove_common::tap::{Pace, Tell, answer};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::slow::millis;
use super::summary::{Report, Summary};
use super::{Filter, Seen};
use crate::Shared;
use crate::config::Config;
use crate::session::state::How;

/// What a watcher wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wish {
    /// In this database only, as clients name it.
    pub database: Option<String>,
    /// Of this user only.
    pub user: Option<String>,
    /// The share that is looked at, above 0 and up to 1.
    pub sample: f64,
    /// A summary of so many lines, instead of each statement.
    pub top: Option<usize>,
    /// How often there is a summary.
    pub every_ms: u64,
}

impl Default for Wish {
    fn default() -> Self {
        Self { database: None, user: None, sample: 0.01, top: None, every_ms: 2000 }
    }
}

/// What a watcher is told: one a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// One statement.
    Statement(Statement),
    /// An interval.
    Summary(Report),
    /// What there was no room for.
    Dropped {
        /// Since the last line of this kind.
        statements: u64,
    },
}

/// One statement, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// When it ended, as in RFC 3339.
    pub at: String,
    /// The database, as its client names it.
    pub database: String,
    /// The user, as the client names it.
    pub user: String,
    /// Where the client is.
    pub peer: String,
    /// What the client calls itself.
    pub application_name: String,
    /// Where it ran.
    pub server: String,
    /// `simple` or `extended`.
    pub protocol: String,
    /// The same for statements that differ in literals only.
    pub fingerprint: String,
    /// What it says, without its literals.
    pub query: String,
    /// Rows, by the server's own count.
    pub rows: u64,
    /// How long the server was at it.
    pub took_ms: f64,
    /// How long it had waited for a server connection before.
    pub wait_ms: f64,
    /// `done`, `failed` or `unfinished`.
    pub outcome: String,
    /// If it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// Statements that were answered in one piece: the time of all of them is the first one's.
    pub together: usize,
}

impl From<&Seen> for Statement {
    fn from(seen: &Seen) -> Self {
        Self {
            at: humantime::format_rfc3339_micros(seen.at).to_string(),
            database: seen.database.clone(),
            user: seen.user.clone(),
            peer: seen.peer.to_string(),
            application_name: seen.application_name.clone(),
            server: seen.server.clone(),
            protocol: match seen.how {
                How::Simple => "simple".to_owned(),
                How::Extended => "extended".to_owned(),
            },
            fingerprint: seen.statement.fingerprint(),
            query: seen.statement.text.to_string(),
            rows: seen.rows,
            took_ms: millis(seen.took),
            wait_ms: millis(seen.waited),
            outcome: seen.outcome().to_owned(),
            sqlstate: seen.sqlstate(),
            together: seen.together,
        }
    }
}

/// The route.
pub fn routes(shared: &Arc<Shared>, drain: &Drain) -> Routes {
    let (shared, drain) = (Arc::clone(shared), drain.clone());
    let about = "what goes through, line by line: `{database, user, sample, top, every_ms}`";
    Routes::new().post("/api/v1/tap", about, move |request| {
        let answer = watch(&shared, &drain, &request);
        async move { answer }
    })
}

fn watch(shared: &Shared, drain: &Drain, request: &Request) -> Response {
    let body: &[u8] = if request.body().is_empty() { b"{}" } else { request.body() };
    let wish: Wish = match serde_json::from_slice(body) {
        Ok(wish) => wish,
        Err(error) => return plain(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if let Err(message) = wish.check(&shared.directory.config()) {
        return plain(StatusCode::UNPROCESSABLE_ENTITY, message);
    }
    let filter = Filter { database: wish.database.clone(), user: wish.user.clone() };
    let Some(watch) = shared.tap.hub.watch(filter, wish.sample) else {
        return plain(StatusCode::TOO_MANY_REQUESTS, "as many watch as may");
    };
    answer::<Summary, _>(watch, wish.pace(), drain.clone())
}

impl Wish {
    fn pace(&self) -> Pace {
        Pace { sample: self.sample, top: self.top, every_ms: self.every_ms }
    }

    /// A user may be one that only the servers know; a database is one of ours.
    fn check(&self, config: &Config) -> Result<(), String> {
        self.pace().check()?;
        match &self.database {
            Some(name) if !config.databases.contains_key(name) => {
                let known: Vec<_> = config.databases.keys().map(String::as_str).collect();
                Err(format!("there is no database `{name}`; there are `{}`", known.join("`, `")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Tell for Summary {
    type Seen = Seen;
    type Line = Line;

    fn new(top: usize) -> Self {
        Self::new(top)
    }

    fn add(&mut self, seen: &Seen) {
        self.add(seen);
    }

    fn summary(&self, took: Duration, sample: f64, dropped: u64) -> Line {
        Line::Summary(self.report(took, sample, dropped))
    }

    fn exchange(seen: &Seen) -> Line {
        Line::Statement(seen.into())
    }

    fn dropped(exchanges: u64) -> Line {
        Line::Dropped { statements: exchanges }
    }
}
