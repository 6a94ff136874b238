//! The configuration document, and what its types cannot say. docs/postgres.md explains each option.

mod console;
mod login;
mod migration;
mod pgbadger;
mod replicate;
mod roles;

use std::collections::BTreeMap;

use groove_common::config::{
    Admin, Basics, ClientTls, Document, Duration, Endpoints, Health, Issues, Listener, Log, Size,
    default_drain,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::session::names::NameBounds;
use crate::session::state::{Bounds, Mode};

pub use console::Console;
pub use login::{Auth, AuthQuery, User};
pub use migration::Migration;
pub use pgbadger::Pgbadger;
pub use replicate::{Replicate, ReplicateMode};
pub use roles::{Monitor, Replicas, Role, Split};

/// groove-postgres.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// The admin server; none if left out.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// What is logged, and how.
    #[serde(default)]
    pub log: Log,
    /// Statements that take longer are logged, without their literals; none if left out.
    #[serde(default)]
    pub slow_query: Option<Duration>,
    /// Logs that pgbadger reads.
    #[serde(default)]
    pub pgbadger: Pgbadger,
    /// How long a drain may take before what is left is cut.
    #[serde(default = "default_drain")]
    pub drain: Duration,
    /// Worker threads; one a core if left out.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<usize>,
    /// A unix socket at which the next process asks for the listeners and the clients; none hands nothing over.
    #[serde(default)]
    pub handover: Option<std::path::PathBuf>,
    /// The databases that clients may name, and where they are.
    #[schemars(length(min = 1))]
    pub databases: BTreeMap<String, Database>,
    /// Who may log in. Left out only with `auth: trust`.
    #[serde(default)]
    pub users: BTreeMap<String, User>,
    /// How clients prove who they are.
    #[serde(default)]
    pub auth: Auth,
    /// Ask the servers about those who are not in `users`.
    #[serde(default)]
    pub auth_query: Option<AuthQuery>,
    /// Who may use the console.
    #[serde(default)]
    pub console: Console,
    /// What one client may take.
    #[serde(default)]
    pub limits: Limits,
    /// For moving databases to other servers; none moves nothing.
    #[serde(default)]
    pub migration: Option<Migration>,
}

/// A database as clients know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The PostgreSQL servers.
    pub endpoints: Endpoints,
    /// What connections are wanted to, where the servers are copies of each other.
    #[serde(default)]
    pub role: Role,
    /// How the servers are asked what they are.
    #[serde(default)]
    pub monitor: Monitor,
    /// Which replicas are read from.
    #[serde(default)]
    pub replicas: Replicas,
    /// How reads and writes are told apart, for `role: split`.
    #[serde(default)]
    pub split: Split,
    /// Every write on every server.
    #[serde(default)]
    pub replicate: Option<Box<Replicate>>,
    /// What the servers call it; the same name if left out.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub dbname: Option<String>,
    /// Connections to the servers, for each user of this database.
    #[serde(default)]
    pub pool: Pool,
    /// Speak TLS to the servers; `{}` is TLS with the system's authorities.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// Whether a SCRAM login on a server is bound to the server's certificate.
    #[serde(default)]
    pub channel_binding: ChannelBinding,
    /// How the health of servers is known.
    #[serde(default)]
    pub health: Health,
    /// How long a connection to a server may take, login included.
    #[serde(default = "default_connect")]
    pub connect: Duration,
}

fn default_connect() -> Duration {
    Duration::from_secs(5)
}

/// Whether a login is bound to the TLS connection it is on, as libpq's `channel_binding`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelBinding {
    /// Where the server offers it.
    #[default]
    Prefer,
    /// A server that does not is an error.
    Require,
    /// Never.
    Disable,
}

/// A pool of server connections, one for each pair of database and user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// When a server connection goes back: after each transaction, statement, or session.
    pub mode: PoolMode,
    /// Server connections at most.
    #[schemars(range(min = 1, max = 100_000))]
    pub size: u32,
    /// Server connections that are kept even when idle.
    pub min: u32,
    /// Server connections more, once clients have waited for `reserve_after`.
    #[schemars(range(max = 100_000))]
    pub reserve: u32,
    /// How long there has to be a line before the reserve is opened.
    pub reserve_after: Duration,
    /// How long a client waits for a server connection.
    pub max_wait: Duration,
    /// How many clients may wait.
    #[schemars(range(min = 1))]
    pub max_waiters: u32,
    /// An idle server connection is closed after this.
    pub idle: Duration,
    /// A server connection is closed after this, as soon as it is idle.
    pub lifetime: Duration,
    /// Prepared statements kept on a server connection; over it the least recently used leaves.
    #[schemars(range(min = 1, max = 100_000))]
    pub statements: u32,
    /// Whether a server connection serves another session after its own, in session mode.
    pub reuse: bool,
    /// Cleans a server connection after a session, in session mode.
    #[schemars(length(min = 1))]
    pub reset_query: String,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            mode: PoolMode::Transaction,
            size: 20,
            min: 0,
            reserve: 0,
            reserve_after: Duration::from_secs(5),
            max_wait: Duration::from_secs(30),
            max_waiters: 10_000,
            idle: Duration::from_secs(600),
            lifetime: Duration::from_secs(3600),
            statements: 200,
            reuse: true,
            reset_query: "DISCARD ALL".to_owned(),
        }
    }
}

/// When a server connection goes back to its pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// When the client leaves: everything PostgreSQL can do works.
    Session,
    /// After each transaction.
    #[default]
    Transaction,
    /// After each statement; transaction blocks are refused.
    Statement,
}

impl From<PoolMode> for Mode {
    fn from(mode: PoolMode) -> Mode {
        match mode {
            PoolMode::Session => Mode::Session,
            PoolMode::Transaction => Mode::Transaction,
            PoolMode::Statement => Mode::Statement,
        }
    }
}

/// What one client may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From the first byte to the end of authentication.
    pub login: Duration,
    /// Clients that are logging in at once.
    #[schemars(range(min = 1))]
    pub logins: u32,
    /// A message that the proxy has to hold whole: a named prepared statement.
    pub message: Size,
    /// Named prepared statements of one client, where server connections are shared.
    #[schemars(range(min = 1))]
    pub statements: u32,
    /// Bytes of these statements, names included. A statement counts for each client that has it.
    pub statement_bytes: Size,
    /// Pairs of database and user with server connections.
    #[schemars(range(min = 1))]
    pub pools: u32,
    /// Server connections of all pools together, shared by demand. Without it each pool has its size.
    #[schemars(range(min = 1))]
    pub server_connections: Option<u32>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            login: Duration::from_secs(15),
            logins: 1000,
            message: Size::mib(1),
            statements: 5000,
            statement_bytes: Size::mib(16),
            pools: 1000,
            server_connections: None,
        }
    }
}

impl Limits {
    /// What one session may have.
    pub fn bounds(&self) -> Bounds {
        let statements = NameBounds {
            count: self.statements,
            // No client needs more than that.
            bytes: u32::try_from(self.statement_bytes.bytes()).unwrap_or(u32::MAX),
        };
        Bounds { message: self.message.bytes(), statements }
    }
}

impl Document for Config {
    fn basics(&self) -> Basics<'_> {
        Basics {
            listeners: &self.listeners,
            admin: self.admin.as_ref(),
            log: &self.log,
            drain: self.drain,
            workers: self.workers,
            handover: self.handover.as_deref(),
        }
    }

    fn validate(&self, issues: &mut Issues) {
        for (name, database) in &self.databases {
            database.validate(name, issues);
        }
        if self.databases.is_empty() {
            let help = "write `databases: {shop: {endpoints: [127.0.0.1:5432]}}`";
            issues.at(&["databases"], "there is no database", Some(help));
        }
        self.validate_auth(issues);
        if let Some(query) = &self.auth_query {
            query.validate(self, issues);
        }
        for (name, user) in &self.users {
            user.validate(name, self, issues);
        }
        self.console.validate(self, issues);
        self.pgbadger.validate(self, issues);
        self.validate_replicate(issues);
        self.limits.validate(issues);
        self.migration.iter().for_each(|migration| migration.validate(issues));
    }
}

impl Database {
    fn validate(&self, name: &str, issues: &mut Issues) {
        let at = ["databases", name];
        self.endpoints.check_copies(&[&at[..], &["endpoints"]].concat(), issues);
        self.validate_roles(&at, issues);
        self.health.check(&[&at[..], &["health"]].concat(), issues);
        if let Some(tls) = &self.tls {
            tls.check(&[&at[..], &["tls"]].concat(), issues);
        }
        if self.channel_binding == ChannelBinding::Require && self.tls.is_none() {
            let help = Some("add `tls: {}`, or leave it out");
            issues.at(&[&at[..], &["channel_binding"]].concat(), "there is no TLS to bind to", help);
        }
        if self.connect.is_zero() {
            let help = Some("write a length of time, like `5s`");
            issues.at(&[&at[..], &["connect"]].concat(), "a connection takes time", help);
        }
        let pool = &self.pool;
        if pool.min > pool.size {
            let message = format!("more connections are kept than there may be ({})", pool.size);
            let help = format!("write at most `{}`, or a larger `size`", pool.size);
            issues.at(&[&at[..], &["pool", "min"]].concat(), message, Some(&help));
        }
        if !pool.reuse && pool.mode != PoolMode::Session {
            let help = Some("write `mode: session`, or leave it out");
            let message = "only in session mode a connection has a session to end with";
            issues.at(&[&at[..], &["pool", "reuse"]].concat(), message, help);
        }
        for (key, value) in [("max_wait", pool.max_wait), ("idle", pool.idle), ("lifetime", pool.lifetime)] {
            if value.is_zero() {
                let help = Some("write a length of time, like `30s`");
                issues.at(&[&at[..], &["pool", key]].concat(), "no time at all", help);
            }
        }
        if name == ADMIN_DATABASE {
            let help = Some("give it another name, and this one as `dbname`");
            issues.at_key(&at, "this name is kept for the console", help);
        }
    }
}

/// The database whose clients talk to the proxy itself.
pub const ADMIN_DATABASE: &str = "groove";

impl Limits {
    fn validate(&self, issues: &mut Issues) {
        if self.login.is_zero() {
            let help = Some("write a length of time, like `15s`");
            issues.at(&["limits", "login"], "nobody can log in in no time", help);
        }
        if self.message.bytes() < 16 << 10 || self.message.bytes() > 1 << 30 {
            let help = Some("write `16KiB` to `1GiB`");
            issues.at(&["limits", "message"], "outside of what makes sense", help);
        }
        if self.statement_bytes.bytes() < self.message.bytes() {
            let help = format!("write at least `{}`, which is `message`", self.message);
            issues.at(&["limits", "statement_bytes"], "less than one statement may have", Some(&help));
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
