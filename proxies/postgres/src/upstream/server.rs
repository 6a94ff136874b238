//! One connection to a server, logged in.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use groove_common::discovery::Exchange;
use groove_common::net::{self, Stream, WorkerId};

use super::{CancelTarget, Heard};
use crate::error::Error;
use crate::live::ServerSeat;
use crate::roles::Tie;
use crate::session::state::Backend;
use crate::session::survey::{Found, Survey};
use crate::wire::backend::{Status, data_row, parameter_status};
use crate::wire::{Frame, HEADER, Limits, decode, frontend};

/// A message of a server that is held whole outside of exchanges.
pub(super) const LIMITS: Limits = Limits { message: 1 << 20 };

/// One connection to a server, logged in.
pub struct Server {
    /// The bytes.
    pub stream: Stream,
    /// The worker whose runtime watches it, if it is one's.
    pub(super) home: Option<WorkerId>,
    /// What is known of the session at the other end.
    pub backend: Backend,
    /// How to cancel what it runs.
    pub cancel: Arc<CancelTarget>,
    /// Counts it among its endpoint's connections.
    pub(super) counted: Option<Exchange>,
    pub(super) vouched_for: bool,
    /// Whether its server still is what was wanted, where that is known.
    pub(super) tie: Option<Tie>,
    /// Its place in the console, if it is a pool's.
    pub seen: Option<ServerSeat>,
}

impl Server {
    /// Has the calling worker's runtime watch it: another's would have to wake this one for each answer. Where that
    /// cannot be, the other does.
    pub fn settle(&mut self) {
        let here = net::here();
        if here != self.home && self.stream.register_here().is_ok() {
            self.home = here;
        }
    }

    /// Whether the server has hung up, or said something nobody asked for (a farewell).
    pub fn is_stale(&mut self) -> bool {
        self.stream.has_news() && self.stream.is_stale(&mut Context::from_waker(Waker::noop()))
    }

    /// Whoever gives it back has just heard from it: the pool need not look on its way in.
    pub fn vouch(&mut self) {
        self.vouched_for = true;
    }

    pub(super) fn take_voucher(&mut self) -> bool {
        std::mem::take(&mut self.vouched_for)
    }

    /// Whether it is to be used for the next lease, as far as its server has said farewell or its role says.
    pub(super) fn is_wanted(&mut self) -> bool {
        if self.backend.is_over {
            return false;
        }
        let Some(tie) = &mut self.tie else { return true };
        let has_turned = std::mem::take(&mut self.backend.has_turned);
        tie.is_admitted() && !(has_turned && tie.has_turned())
    }

    /// Whether nothing more may be sent on it or waited for: another server is the primary.
    pub fn is_deposed(&mut self) -> bool {
        self.tie.as_mut().is_some_and(Tie::is_deposed)
    }

    /// Whether its server takes writes, as far as that is known.
    pub fn is_on_primary(&self) -> bool {
        self.tie.as_ref().is_none_or(Tie::is_on_primary)
    }

    /// Whether its server has everything up to this position of the WAL, as far as that is known.
    pub fn is_at(&self, position: u64) -> bool {
        self.tie.as_ref().is_some_and(|tie| tie.is_at(position))
    }

    /// Whether its server has a role, and another one may take it over.
    pub fn is_followed(&self) -> bool {
        self.tie.is_some()
    }

    /// Runs a query of ours, and gives its first row.
    pub(crate) async fn first_simple_row(&mut self, query: &str) -> Result<Vec<Option<Bytes>>, Error> {
        let mut row = None;
        self.ask(query, |frame| {
            if frame.tag == b'D' {
                row.get_or_insert(frame);
            }
        })
        .await?;
        let row = row.map(|frame| data_row(&frame.raw.slice(HEADER..))).transpose();
        Ok(row.map_err(Error::Upstream)?.unwrap_or_default())
    }

    /// Runs a query of ours, whose results nobody wants. The connection has to be idle.
    pub async fn run(&mut self, query: &str) -> Result<Status, Error> {
        self.ask(query, |_| {}).await
    }

    /// Runs a query of ours; `on` gets what it gives that is neither its end nor known here: rows, notifications.
    async fn ask(&mut self, query: &str, mut on: impl FnMut(Frame)) -> Result<Status, Error> {
        let mut out = BytesMut::new();
        frontend::put_query(&mut out, query);
        self.stream.send(&mut out).await.map_err(Error::Lost)?;
        let mut input = BytesMut::new();
        let mut failure: Option<Bytes> = None;
        let mut ended = None;
        loop {
            while let Some(frame) = decode(&mut input, &LIMITS).map_err(Error::Upstream)? {
                match frame.tag {
                    b'S' => {
                        let (name, value) = parameter_status(frame.body()).map_err(Error::Upstream)?;
                        Arc::make_mut(&mut self.backend.settings).report(name, value);
                    }
                    b'C' => {
                        let tag = frame.body();
                        self.backend.completed(tag.strip_suffix(b"\0").unwrap_or(tag));
                    }
                    b'E' if ended.is_none() => failure = Some(frame.raw.slice(HEADER..)),
                    b'Z' => ended = Some(Status::read(frame.body()).map_err(Error::Upstream)?),
                    _ => on(frame),
                }
            }
            // A notification may follow in the same read.
            if let Some(status) = ended
                && input.is_empty()
            {
                return failure.map_or(Ok(status), |error| Err(Error::Refused(error)));
            }
            fill(&mut self.stream, &mut input).await.map_err(Error::Lost)?;
        }
    }

    /// Reads to the end of what the server has answered with an error, from what is there of it. The server has to be idle
    /// then.
    pub async fn rest(&mut self, input: &mut BytesMut) -> Result<(), Error> {
        loop {
            while let Some(frame) = decode(input, &LIMITS).map_err(Error::Upstream)? {
                if frame.tag == b'Z' {
                    let is_idle = Status::read(frame.body()).map_err(Error::Upstream)? == Status::Idle;
                    return if is_idle && input.is_empty() { Ok(()) } else { Err(Error::Setup) };
                }
            }
            fill(&mut self.stream, input).await.map_err(Error::Lost)?;
        }
    }

    /// Runs a query of ours on a session's connection; `heard` gets the notifications that come meanwhile, which are the
    /// session's.
    pub async fn hear(&mut self, query: &str, heard: &mut Heard<'_>) -> Result<Status, Error> {
        let on = |frame: Frame| {
            if frame.tag == b'A' {
                heard.push(frame);
            }
        };
        self.ask(query, on).await
    }

    /// What there is of what a session may have left; `None` if the server does not say. Notifications that come
    /// meanwhile are the session's.
    pub async fn survey(&mut self, survey: &Survey, heard: &mut Heard<'_>) -> Result<Option<Found>, Error> {
        let (query, mut rows) = (survey.query(), Vec::new());
        let answered = self.ask(&query, |frame| match frame.tag {
            b'D' => rows.push(frame),
            b'A' => heard.push(frame),
            _ => {}
        });
        match answered.await {
            Ok(Status::Idle) => {}
            Ok(Status::Transaction | Status::Failed) => return Err(Error::Setup),
            // A statement_timeout that is too short, perhaps.
            Err(Error::Refused(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        let rows: Option<Vec<_>> =
            rows.iter().map(|frame| data_row(&frame.raw.slice(HEADER..)).ok()).collect();
        Ok(rows.and_then(|rows| Found::read(&rows)))
    }

    /// Makes the connection clean for another session, as far as `query` does: what it resets is known by what
    /// the server says of it.
    pub async fn reset(&mut self, query: &str) -> Result<(), Error> {
        let status = self.run(query).await?;
        if status == Status::Idle { Ok(()) } else { Err(Error::Setup) }
    }

    /// Washes off what the last session left, if it left anything.
    pub async fn wash(&mut self) -> Result<(), Error> {
        if let Some(query) = self.backend.wash_query() {
            self.run(&query).await?;
            self.backend.washed();
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A farewell if it can be said at once; without it the server notices all the same.
        let mut farewell = BytesMut::new();
        frontend::put_terminate(&mut farewell);
        let _ = self.stream.poll_send(&mut Context::from_waker(Waker::noop()), &mut farewell);
    }
}

/// Reads on; the end of the stream is an error.
pub(super) async fn fill(stream: &mut Stream, input: &mut BytesMut) -> io::Result<()> {
    match poll_fn(|cx| stream.poll_fill(cx, input)).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
