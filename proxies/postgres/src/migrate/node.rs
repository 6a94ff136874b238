//! One of the two servers, spoken to as a superuser. Everything is asked by simple queries and answered in texts.

use std::time::Duration;

use groove_common::config::Secret;
use groove_common::ids::Address;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::fault::{Fault, Outcome};
use super::policy::phase::Side;
use super::policy::sql::{NAME, SESSION, literal};
use crate::config::Migration;

/// A connection, login included, takes at most so long.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// As much of a statement is told when it fails.
const TOLD_MAX: usize = 200;

/// A connection to one of the servers.
pub(super) struct Node {
    name: &'static str,
    client: Client,
    driven: tokio::task::JoinHandle<()>,
}

/// The fields of a row; none is a null.
pub(super) type Row = Vec<Option<String>>;

/// As whom, and where.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) side: Side,
    pub(super) address: Address,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
}

impl Login {
    /// On one side, as the configuration says.
    pub(super) fn of(config: &Migration, side: Side, address: &Address) -> Login {
        let (user, password) = match side {
            Side::Source => (&config.user, config.password.as_ref()),
            Side::Target => (
                config.target_user.as_ref().unwrap_or(&config.user),
                config.target_password.as_ref().or(config.password.as_ref()),
            ),
        };
        Login { side, address: address.clone(), user: user.clone(), password: password.cloned() }
    }

    /// Host and port as libpq has them: a unix socket by its folder.
    pub(super) fn host_and_port(&self) -> (String, u16) {
        host_and_port(&self.address)
    }

    /// Connects to a database of this server.
    pub(super) async fn connect(&self, dbname: &str) -> Outcome<Node> {
        let name = self.side.name();
        let (host, port) = self.host_and_port();
        let mut config = tokio_postgres::Config::new();
        config.host(&host).port(port).user(&self.user).dbname(dbname).application_name(NAME);
        config.connect_timeout(CONNECT_MAX);
        if let Some(password) = &self.password {
            config.password(password.expose());
        }
        let failed = |reason: String| Fault::Sql {
            node: name,
            what: format!("connecting to {dbname} on {} as {}", self.address, self.user),
            reason,
        };
        let connected = tokio::time::timeout(CONNECT_MAX, config.connect(NoTls)).await;
        let connected = connected.map_err(|_| failed(format!("no answer within {CONNECT_MAX:?}")))?;
        let (client, connection) = connected.map_err(|error| failed(said(&error)))?;
        let driven = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of a migration ended");
            }
        });
        let node = Node { name, client, driven };
        node.run(SESSION).await?;
        Ok(node)
    }

    /// How the other server reaches this one.
    pub(super) fn conninfo(&self, seen_as: Option<&Address>, dbname: &str) -> String {
        let (host, port) = host_and_port(seen_as.unwrap_or(&self.address));
        let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
        let mut text = format!(
            "host={} port={port} user={} dbname={} application_name={}",
            quoted(&host),
            quoted(&self.user),
            quoted(dbname),
            quoted(NAME)
        );
        if let Some(password) = &self.password {
            text.push_str(&format!(" password={}", quoted(password.expose())));
        }
        text
    }
}

fn host_and_port(address: &Address) -> (String, u16) {
    match address {
        Address::Tcp { host, port } => (host.clone(), *port),
        Address::Unix(path) => {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let port = name.rsplit('.').next().and_then(|port| port.parse().ok()).unwrap_or(5432);
            (path.parent().map(|folder| folder.display().to_string()).unwrap_or_default(), port)
        }
    }
}

impl Node {
    /// Runs statements whose rows nobody wants; several at once are one transaction.
    pub(super) async fn run(&self, sql: &str) -> Outcome<()> {
        self.client.batch_execute(sql).await.map_err(|error| self.fault(sql, &error))
    }

    /// The rows of all statements.
    pub(super) async fn rows(&self, sql: &str) -> Outcome<Vec<Row>> {
        let messages = self.client.simple_query(sql).await.map_err(|error| self.fault(sql, &error))?;
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
        }
        Ok(rows)
    }

    /// The first column of all rows, without nulls.
    pub(super) async fn column(&self, sql: &str) -> Outcome<Vec<String>> {
        Ok(self.rows(sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    /// The first column of the first row; nothing if there is none.
    pub(super) async fn value(&self, sql: &str) -> Outcome<Option<String>> {
        Ok(self.column(sql).await?.into_iter().next())
    }

    /// That, as a number.
    pub(super) async fn number(&self, sql: &str) -> Outcome<i64> {
        let value = self.value(sql).await?.unwrap_or_default();
        value.parse().map_err(|_| Fault::Sql {
            node: self.name,
            what: shortened(sql),
            reason: format!("`{value}` is no number"),
        })
    }

    /// Two columns.
    pub(super) async fn pairs(&self, sql: &str) -> Outcome<Vec<(String, String)>> {
        let rows = self.rows(sql).await?.into_iter();
        let pairs = rows.filter_map(|row| {
            let mut row = row.into_iter();
            Some((row.next()??, row.next()??))
        });
        Ok(pairs.collect())
    }

    /// Whether there is a row.
    pub(super) async fn has(&self, sql: &str) -> Outcome<bool> {
        Ok(!self.rows(sql).await?.is_empty())
    }

    /// Whether this server has such a database.
    pub(super) async fn has_database(&self, dbname: &str) -> Outcome<bool> {
        self.has(&format!("SELECT 1 FROM pg_database WHERE datname = {}", literal(dbname))).await
    }

    /// Its release, as 150020.
    pub(super) async fn version(&self) -> Outcome<i64> {
        self.number("SELECT current_setting('server_version_num')").await
    }

    fn fault(&self, sql: &str, error: &tokio_postgres::Error) -> Fault {
        Fault::Sql { node: self.name, what: shortened(sql), reason: said(error) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.driven.abort();
    }
}

/// What a server said, with its hints: the driver's own words leave them out.
fn said(error: &tokio_postgres::Error) -> String {
    let Some(said) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(reason) = source {
            text.push_str(&format!(": {reason}"));
            source = reason.source();
        }
        return text;
    };
    let more = [said.detail(), said.hint()].into_iter().flatten();
    more.fold(format!("{} ({})", said.message(), said.code().code()), |text, more| format!("{text}. {more}"))
}

fn shortened(sql: &str) -> String {
    // Connection strings hold passwords.
    let sql = match sql.find(" CONNECTION '").or_else(|| sql.find(" CONNECTION E'")) {
        Some(at) => sql.get(..at).unwrap_or_default(),
        None => sql,
    };
    match sql.char_indices().nth(TOLD_MAX) {
        Some((at, _)) => format!("{}…", sql.get(..at).unwrap_or_default()),
        None => sql.to_owned(),
    }
}
