//! A client's session on a replicated database: { read, execute, answer }, to its end.
//!
//! A path of its own: each message is understood, carried out and answered before the next. A statement runs on the
//! leader first; what it gives is held back until every other member has done the same.

mod commit;
mod execute;
mod messages;
mod reading;
mod transaction;
mod writing;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use groove_common::net::{Downstream, Reached};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::group::Group;
use super::statement::{self, Statement};
use super::trouble::Trouble;
use crate::Shared;
use crate::error::Error;
use crate::reply;
use crate::session::cancel::Registered;
use crate::session::settings::of_startup;
use crate::upstream::Target;
use crate::wire::backend::{self, Status};
use crate::wire::{DecodeError, Frame, HEADER, Limits, cstr, decode, frontend};

use messages::{Portal, Prepared};
use transaction::{Connections, GOODBYE_MAX};

/// No more is held for a client before it is sent.
const UNSENT_MAX: usize = 64 << 10;

/// What a login ends with.
pub struct Welcome {
    connections: Connections,
    /// What the client is told of the server's settings.
    pub reported: Vec<(String, String)>,
    registered: Registered,
    permit: OwnedSemaphorePermit,
}

impl Welcome {
    /// The client's cancel key.
    pub fn registered(&self) -> &Registered {
        &self.registered
    }

    /// Logs a client in on the leader.
    pub async fn new(
        shared: &Shared,
        group: Arc<Group>,
        target: Target,
        startup: &[(String, String)],
        long_key: bool,
    ) -> Result<Welcome, Error> {
        let permit = Arc::clone(&group.sessions).try_acquire_owned().map_err(|_| Error::TooManyClients)?;
        let mut connections = Connections::new(group, target);
        let login = |trouble| match trouble {
            Trouble::Said(body) => Error::Refused(body),
            Trouble::Fatal(error) => error,
            Trouble::Refused(refusal) => Error::Group { code: "0A000", message: refusal.message },
            Trouble::Own { code, message, .. } => Error::Group { code, message },
        };
        let asked = of_startup(startup);
        if let Some((name, _)) = asked.iter().find(|(name, value)| {
            statement::is_kept(name) && !(name.eq_ignore_ascii_case("client_encoding") && is_utf8(value))
        }) {
            let message = format!("the setting \"{name}\" is the proxy's on this database");
            return Err(Error::Group { code: "0A000", message });
        }
        let asked = asked.into_iter().filter(|(name, _)| !statement::is_kept(name)).collect();
        connections.settings = asked;
        let leader = connections.leader().map_err(login)?;
        // What a member's configuration says is not what another's says: each connection gets the leader's.
        let same = "SELECT name, setting FROM pg_catalog.pg_settings WHERE lower(name) IN ('datestyle', 'intervalstyle', \
            'timezone', 'extra_float_digits', 'bytea_output', 'lc_monetary', 'lc_numeric', 'lc_time', 'search_path', \
            'default_text_search_config', 'xmlbinary', 'xmloption', 'array_nulls', 'transform_null_equals')";
        let rows = connections
            .on_leader(leader, |mut link| async move {
                let done = link.rows(same).await;
                (link, done)
            })
            .await
            .map_err(login)?;
        for row in rows {
            if let [Some(name), Some(value)] = &row[..]
                && !connections.settings.keys().any(|asked| asked.eq_ignore_ascii_case(name))
            {
                connections.settings.insert(name.clone(), value.clone());
            }
        }
        let mut told = connections
            .on_leader(leader, |link| async move {
                let told = reported(&link);
                (link, Ok(told))
            })
            .await
            .map_err(login)?;
        for (name, value) in &mut told {
            let asked = connections.settings.iter().find(|(asked, _)| asked.eq_ignore_ascii_case(name));
            asked.into_iter().for_each(|(_, asked)| value.clone_from(asked));
        }
        let registered = shared.cancels.register(None, long_key).map_err(Error::Client)?;
        Ok(Welcome { connections, reported: told, registered, permit })
    }
}

fn is_utf8(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().trim_matches('\'').replace(['-', '_'], "").as_str(),
        "utf8" | "unicode"
    )
}

fn reported(link: &super::link::Link) -> Vec<(String, String)> {
    let settings = &link.server().backend.settings;
    let all = settings.reported().map(|(name, value)| (name.to_owned(), value.to_owned()));
    all.collect()
}

/// A client of a replicated database.
pub struct Session {
    conn: Downstream,
    draining: Reached,
    registered: Registered,
    input: BytesMut,
    out: BytesMut,
    limits: Limits,
    statements_max: usize,
    connections: Connections,
    statements: HashMap<Bytes, Arc<Prepared>>,
    portals: HashMap<Bytes, Portal>,
    /// After an error in the extended protocol, until the Sync.
    skipping: bool,
    /// Where what may turn out to be untrue begins in `out`: acknowledgements of what is not committed yet.
    doubtful: Option<usize>,
    _permit: OwnedSemaphorePermit,
}

impl Session {
    /// A session whose client has been greeted.
    pub fn new(shared: &Shared, conn: Downstream, input: BytesMut, welcome: Welcome) -> Box<Session> {
        let limits = &shared.directory.config().limits;
        let (message, statements_max) = (limits.message.bytes().max(8 << 20), limits.statements as usize);
        let Welcome { connections, registered, permit, .. } = welcome;
        Box::new(Session {
            draining: conn.drain.draining(),
            conn,
            registered,
            input,
            out: BytesMut::new(),
            limits: Limits { message },
            statements_max,
            connections,
            statements: HashMap::new(),
            portals: HashMap::new(),
            skipping: false,
            doubtful: None,
            _permit: permit,
        })
    }

    /// Serves the client to its end.
    pub async fn run(mut self: Box<Session>) {
        let outcome = Box::pin(self.serve()).await;
        self.connections.undo().await;
        let Err(error) = outcome else { return };
        tracing::debug!(peer = %self.conn.peer, %error, "a session on a replicated database ends");
        if !matches!(error, Error::Client(_)) {
            reply::put_session_error(&mut self.out, &error);
            // Told in time or not: the session ends here.
            let _ = timeout(GOODBYE_MAX, self.conn.stream.send(&mut self.out)).await;
        }
    }

    async fn serve(&mut self) -> Result<(), Error> {
        loop {
            while let Some(frame) = decode(&mut self.input, &self.limits)? {
                if frame.tag == b'X' {
                    return Ok(());
                }
                frontend::header(&frame.raw)?;
                Box::pin(self.on(&frame)).await?;
            }
            self.flush().await?;
            if self.read().await? == 0 {
                return Ok(());
            }
        }
    }

    async fn on(&mut self, frame: &Frame) -> Result<(), Error> {
        match frame.tag {
            b'S' => {
                let was_skipping = std::mem::take(&mut self.skipping);
                self.finish(was_skipping).await?;
            }
            b'Q' if self.skipping => {}
            b'Q' => {
                let Some((text, b"")) = cstr(frame.body()) else { return Err(DecodeError::Format.into()) };
                let done = self.query(text).await;
                let has_failed = done.is_err();
                if let Err(trouble) = done {
                    self.fail(trouble)?;
                }
                self.finish(has_failed).await?;
            }
            b'P' | b'B' | b'D' | b'E' | b'C' if self.skipping => {}
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                let done = match frame.tag {
                    b'P' => self.parse(frame).await,
                    b'B' => self.bind(frame),
                    b'D' => self.describe(frame),
                    b'E' => self.execute_portal(frame).await,
                    _ => self.close(frame),
                };
                if let Err(trouble) = done {
                    self.fail(trouble)?;
                    self.skipping = true;
                }
            }
            b'H' if self.doubtful.is_none() => self.flush().await?,
            // COPY data of a client that has not heard of an error is dropped, as PostgreSQL does.
            b'H' | b'd' | b'c' | b'f' => {}
            b'F' => {
                let message = "function calls by the protocol are not replicated";
                self.fail(Trouble::own("0A000", message, "Use SELECT."))?;
                self.finish(true).await?;
            }
            tag => return Err(DecodeError::FrontendType(tag).into()),
        }
        Ok(())
    }

    /// A simple query, which may be several statements: all of them are one transaction, unless they say otherwise.
    async fn query(&mut self, text: &[u8]) -> Result<(), Trouble> {
        let text = std::str::from_utf8(text).map_err(|_| {
            Trouble::own("22021", "invalid byte sequence for encoding \"UTF8\"", "Send UTF-8.")
        })?;
        let statements = statement::split(text)?;
        if statements.is_empty() {
            backend::put_empty_query(&mut self.out);
        }
        for text in statements {
            let understood =
                statement::understand(text).inspect_err(|_| self.connections.group.metrics.refused.inc())?;
            let prepared = Prepared::plain(text, understood);
            Box::pin(self.execute(&prepared, &[], &[], 0, true)).await?;
        }
        Ok(())
    }

    /// A statement has failed: so has its transaction.
    fn fail(&mut self, trouble: Trouble) -> Result<(), Error> {
        if let Trouble::Fatal(error) = trouble {
            return Err(error);
        }
        if matches!(trouble, Trouble::Refused(_)) {
            self.connections.group.metrics.refused.inc();
        }
        trouble.put(&mut self.out);
        if let Some(open) = &mut self.connections.transaction {
            open.has_failed = true;
        }
        Ok(())
    }

    /// The end of what a client has sent at once: a transaction that nobody has begun is committed, or rolled back after
    /// an error. What was said of it before is taken back if it is not committed.
    async fn finish(&mut self, has_failed: bool) -> Result<(), Error> {
        let is_implicit = self.connections.transaction.as_ref().is_some_and(|open| open.is_implicit);
        let doubtful = self.doubtful.take();
        if is_implicit {
            if has_failed {
                self.connections.rollback().await;
            } else if let Err(trouble) = self.connections.commit().await {
                if let Trouble::Fatal(error) = trouble {
                    return Err(error);
                }
                self.out.truncate(doubtful.unwrap_or(self.out.len()));
                trouble.put(&mut self.out);
            }
        }
        let status = match &self.connections.transaction {
            None => Status::Idle,
            Some(open) if open.has_failed => Status::Failed,
            Some(_) => Status::Transaction,
        };
        if status == Status::Idle {
            self.portals.clear();
        }
        backend::put_ready(&mut self.out, status);
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.conn.stream.send(&mut self.out).await.map_err(Error::Client)
    }

    async fn read(&mut self) -> Result<usize, Error> {
        let is_idle = self.connections.transaction.is_none() && self.input.is_empty();
        poll_fn(|cx| {
            if let Poll::Ready(filled) = self.conn.stream.poll_fill(cx, &mut self.input) {
                return Poll::Ready(filled.map_err(Error::Client));
            }
            match is_idle {
                true => Pin::new(&mut self.draining).poll(cx).map(|_| Err(Error::Draining)),
                false => Poll::Pending,
            }
        })
        .await
    }
}

/// Writes what a server has said, without the column that is ours.
fn put_description(out: &mut BytesMut, frame: &Frame, formats: &[i16], drops_last: bool) {
    use bytes::BufMut;
    let body = frame.raw.slice(HEADER..);
    let count = body.first_chunk::<2>().map_or(0, |count| u16::from_be_bytes(*count));
    let kept = if drops_last { count.saturating_sub(1) } else { count };
    crate::wire::put(out, b'T', |out| {
        out.put_u16(kept);
        let mut rest = body.get(2..).unwrap_or_default();
        for index in 0..kept {
            let Some((name, tail)) = cstr(rest) else { return };
            let Some((fixed, tail)) = tail.split_first_chunk::<18>() else { return };
            crate::wire::put_cstr(out, name);
            out.put_slice(fixed.get(..16).unwrap_or_default());
            let format = match formats {
                [] => 0,
                [only] => *only,
                all => all.get(usize::from(index)).copied().unwrap_or(0),
            };
            out.put_i16(format);
            rest = tail;
        }
    });
}

/// Whether a statement is about the transaction, and so runs in a failed one.
fn ends(statement: &Statement) -> bool {
    matches!(statement, Statement::Commit | Statement::Rollback | Statement::RollbackTo)
}
