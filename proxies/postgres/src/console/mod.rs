//! The console: an operator's session with the proxy itself, in PgBouncer's words.
//!
//! Whoever runs PgBouncer has exporters, dashboards and runbooks that speak to its console. They speak to this one as
//! well: the same commands, the same columns of the same types in the same order. It is a database that no server has,
//! over the same listeners and the same login.
//!
//! `command` reads what is asked, `show` answers what only looks, `act` does the rest, `session` moves the bytes.

mod act;
mod command;
mod history;
mod session;
mod show;
mod table;
#[cfg(test)]
mod tests;

use bytes::BytesMut;

use crate::config::{ADMIN_DATABASE, Auth, Config};
use crate::error::Error;
use crate::route::Route;
use crate::wire::backend::{self, Authentication, Status};
use crate::wire::startup::CancelKey;

pub use history::{History, keep_history, totals};
pub use session::Console;

/// What PgBouncer calls its console: exporters know no other name.
const PGBOUNCER: &str = "pgbouncer";
/// The PgBouncer whose console this is.
const VERSION: &str = "1.18.0";

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Admin,
    /// Look.
    Stats,
}

/// Whether a client asks for the console (`None`: for a database), and what it may do there.
pub fn access(config: &Config, route: &Route) -> Result<Option<Access>, Error> {
    let is_console = route.database == ADMIN_DATABASE
        || (route.database == PGBOUNCER && !config.databases.contains_key(PGBOUNCER));
    if !is_console {
        return Ok(None);
    }
    let names = |names: &[String]| names.contains(&route.user);
    match config.auth {
        Auth::Trust => Ok(Some(Access::Admin)),
        Auth::Password | Auth::Passthrough if names(&config.console.admins) => Ok(Some(Access::Admin)),
        Auth::Password | Auth::Passthrough if names(&config.console.stats) => Ok(Some(Access::Stats)),
        Auth::Password | Auth::Passthrough => Err(Error::NotOperator(route.user.clone())),
    }
}

/// What a client hears at its login, which is what PgBouncer says.
pub fn greet(out: &mut BytesMut, key: &CancelKey) {
    backend::put_authentication(out, &Authentication::Ok);
    let version = format!("{VERSION}/groove");
    for (name, value) in [
        ("server_version", version.as_str()),
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "GMT"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "on"),
    ] {
        backend::put_parameter_status(out, name, value);
    }
    backend::put_key(out, key.pid, &key.secret);
    backend::put_ready(out, Status::Idle);
}

/// Why a command is not carried out; the session goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// SQLSTATE.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<&'static str>,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: &'static str) -> Refusal {
        self.hint = Some(hint);
        self
    }
}
