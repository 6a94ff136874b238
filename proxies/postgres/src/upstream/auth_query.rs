//! Users that the servers know and the configuration does not: `auth_query`.
//!
//! The look-up runs on connections of its own, as a role of its own, and with a `search_path` that it sets itself:
//! nothing that a client asks for at startup, and no default of the role's or the database's, decides whose `pg_authid`
//! or `now()` is read (CVE-2025-12819). What was found is kept for `ttl`, those who were not found included; who fails
//! to prove it makes the next one ask again, so that a new password need not wait. A server that cannot be asked is an
//! error of its own: nobody is told that a password is wrong because of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use groove_common::app::Context;
use groove_common::health::Backoff;
use groove_common::pool::{Manager, Pool, PoolConfig, PoolStatus, Waiter};
use groove_common::telemetry::Counter;
use moka::future::Cache;
use tokio::time::timeout;

use super::Server;
use super::dial::{Target, may_pass};
use super::login::Login;
use super::pool::refused;
use super::server::{LIMITS, fill};
use crate::auth::Stored;
use crate::config;
use crate::error::Error;
use crate::wire::backend::data_row;
use crate::wire::{HEADER, decode, frontend};

/// What the query's names mean. `pg_temp` last, or it would come first.
const SEARCH_PATH: &str = "pg_catalog, pg_temp";
/// Connections to ask on.
const CONNECTIONS: usize = 2;
/// Clients that may wait for an answer, or to ask; those for the same name count once.
const WAITING_MAX: usize = 1000;
/// Bytes of names and what is kept with them, in memory.
const CACHE_BYTES_MAX: u64 = 8 << 20;
/// What an entry takes beside its name: a login and the cache's own.
const ENTRY_BYTES: u32 = 1024;
/// After a failed proof what is known is not asked for again sooner than this, whoever guesses.
const DOUBT_MIN: Duration = Duration::from_secs(1);
/// A connection that nobody has asked on for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Looks users up, and remembers them for a while.
pub(super) struct AuthQuery {
    query: String,
    /// For a connection, and again for an answer.
    patience: Duration,
    connections: Pool<Asker>,
    questions: Counter,
    known: Cache<Arc<str>, Answer>,
}

/// What the servers said of a name, and when.
#[derive(Clone)]
struct Answer {
    /// `None` for one who may not log in, whatever he proves.
    login: Option<Arc<Login>>,
    at: Instant,
}

impl AuthQuery {
    /// Looks up on the servers of `target`, as whom it says.
    pub(super) fn start(options: &config::AuthQuery, target: Target, cx: &Context) -> AuthQuery {
        let bounds = PoolConfig {
            size: CONNECTIONS,
            waiting_max: WAITING_MAX,
            warm: 0,
            idle_timeout: Some(IDLE_MAX),
            max_lifetime: Some(Duration::from_secs(3600)),
            connect_timeout: target.connect,
            backoff: Backoff::default(),
        };
        let patience = target.connect;
        let weigh = |name: &Arc<str>, _: &Answer| {
            u32::try_from(name.len()).unwrap_or(u32::MAX).saturating_add(ENTRY_BYTES)
        };
        AuthQuery {
            query: options.query.clone(),
            patience,
            connections: Pool::start("auth_query", Asker { target }, bounds, &cx.runtime),
            questions: cx.registry.counter(
                "groove_postgres_auth_queries",
                "Look-ups of users on the servers",
                &[],
            ),
            known: Cache::builder()
                .weigher(weigh)
                .max_capacity(CACHE_BYTES_MAX)
                .time_to_live(options.ttl.get())
                .build(),
        }
    }

    /// The one of this name, if there is one who may log in. Clients that ask for the same name at once are answered
    /// by one question.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Arc<Login>>, Error> {
        let key: Arc<str> = Arc::from(name);
        let answer = self.known.try_get_with(key, self.ask(name));
        // An error is not remembered: whoever comes next asks again.
        let answer = answer.await.map_err(|error: Arc<Error>| Error::AuthQuery(error.to_string()))?;
        Ok(answer.login)
    }

    /// Forgets what is known of a name for which a proof has failed, unless it was asked for just now. Whether it was
    /// forgotten.
    pub(super) async fn doubt(&self, name: &str) -> bool {
        let is_old = |answer: &Answer| answer.at.elapsed() >= DOUBT_MIN;
        let is_doubted = self.known.get(name).await.as_ref().is_some_and(is_old);
        if is_doubted {
            self.known.invalidate(name).await;
        }
        is_doubted
    }

    /// Forgets everybody.
    pub(super) fn forget(&self) {
        self.known.invalidate_all();
    }

    /// Counts at this instant.
    pub(super) fn status(&self) -> PoolStatus {
        self.connections.status()
    }

    async fn ask(&self, name: &str) -> Result<Answer, Error> {
        self.questions.inc();
        let deadline = Some(tokio::time::Instant::now() + self.patience);
        let lease = self.connections.lease(Waiter { deadline, ..Waiter::default() });
        let mut server = Box::pin(lease).await.map_err(refused)?;
        server.condemn();
        let answer = timeout(self.patience, server.first_row(&self.query, name)).await;
        let answer = answer.map_err(|_| Error::Lost(std::io::ErrorKind::TimedOut.into()))?;
        if matches!(answer, Ok(_) | Err(Error::Refused(_))) {
            server.redeem();
        }
        let login = answer?.and_then(|row| login(name, &row)).map(Arc::new);
        Ok(Answer { login, at: Instant::now() })
    }
}

/// The login in a row of name and password. A row of another name is a query that compares loosely: it proves nothing
/// about this one.
fn login(name: &str, row: &[Option<Bytes>]) -> Option<Login> {
    let [Some(found), Some(password), ..] = row else { return None };
    let password = std::str::from_utf8(password).ok().filter(|password| !password.is_empty())?;
    let password = Stored::read(password).ok()?;
    (&found[..] == name.as_bytes()).then(|| Login::found(name, password))
}

/// Makes the connections that are asked on.
struct Asker {
    target: Target,
}

impl Manager for Asker {
    type Connection = Box<Server>;
    type Error = Error;

    async fn connect(&self) -> Result<Box<Server>, Error> {
        let pinned = [
            ("search_path".to_owned(), SEARCH_PATH.to_owned()),
            ("client_encoding".to_owned(), "UTF8".to_owned()),
            ("application_name".to_owned(), "groove auth_query".to_owned()),
        ];
        self.target.dial(&pinned).await.map(Box::new)
    }

    fn has_broken(&self, server: &mut Box<Server>) -> bool {
        server.is_stale()
    }

    fn retry(&self, error: &Error) -> bool {
        may_pass(error)
    }
}

impl Server {
    /// Runs a query of ours with one parameter, by the extended protocol: no value is ever part of a text. Gives the
    /// first row.
    async fn first_row(&mut self, query: &str, parameter: &str) -> Result<Option<Vec<Option<Bytes>>>, Error> {
        let mut out = BytesMut::new();
        frontend::put_parse(&mut out, b"", &[query.as_bytes(), b"\0\0\0"].concat());
        frontend::put_bind_text(&mut out, &[parameter]);
        frontend::put_execute(&mut out, 1);
        frontend::put_sync(&mut out);
        self.stream.send(&mut out).await.map_err(Error::Lost)?;
        let (mut input, mut row, mut failure) = (BytesMut::new(), None, None);
        loop {
            while let Some(frame) = decode(&mut input, &LIMITS).map_err(Error::Upstream)? {
                let body = frame.raw.slice(HEADER..);
                match frame.tag {
                    b'D' => row = Some(data_row(&body).map_err(Error::Upstream)?),
                    b'E' => failure = Some(body),
                    b'Z' => return failure.map_or(Ok(row), |error| Err(Error::Refused(error))),
                    // The steps on the way, and what is not asked for: notices, settings.
                    _ => {}
                }
            }
            fill(&mut self.stream, &mut input).await.map_err(Error::Lost)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_of_its_own_name_only() {
        let row = |name: &'static str, password: Option<&'static str>| {
            vec![Some(Bytes::from(name)), password.map(Bytes::from)]
        };
        assert!(login("app", &row("app", Some("secret"))).is_some());
        assert!(login("app", &row("App", Some("secret"))).is_none());
        assert!(login("app", &row("app", None)).is_none(), "who has no password may not log in");
        assert!(login("app", &row("app", Some(""))).is_none());
        assert!(login("app", &row("app", Some("SCRAM-SHA-256$nonsense"))).is_none());
        assert!(login("app", &row("app", None)[..1]).is_none());
    }
}
