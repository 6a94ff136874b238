//! The connection that hears for the sessions of a pool: made for the first that listens, closed after the last.
//!
//! It tells the server what the [board](Board) finds stale, one text at a time, and hands out what it hears. Whoever waits
//! for it waits for the end of the next text: what was committed before that text was sent has been handed out by then.
//! When it is lost nobody knows what was missed, so those that listen are ended, as a server's own clients would be.

use std::future::poll_fn;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::board::{Board, Channel, SeatId};
use super::mailbox::{Ended, Mailbox};
use crate::error::Error;
use crate::metrics::PoolMetrics;
use crate::upstream::{CancelTarget, Dial, Server};
use crate::wire::backend::notification;
use crate::wire::{Frame, HEADER, Limits, decode, frontend};

/// A notification is much smaller (8000 bytes, and two names).
const LIMITS: Limits = Limits { message: 64 << 10 };
/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A connection that hears nothing may be one that can hear nothing any more: it is asked.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long the connection outlives its last session.
const LINGER: Duration = Duration::from_secs(2);
/// How long a mark may take from one connection to the other.
const MARK_MAX: Duration = Duration::from_secs(5);

/// Told at login. Names of channels and what is sent come in the session's encoding: in ours it has to be the same.
const SETUP: &str = "SELECT pg_catalog.set_config(name,'0',false) FROM pg_catalog.pg_settings \
     WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY['idle_session_timeout','statement_timeout','lock_timeout'])";

/// What hears for the sessions of a pool.
pub struct Hub {
    state: Mutex<State>,
    changed: Notify,
    dial: Dial,
    metrics: Arc<PoolMetrics>,
    /// Where marks are put.
    marks: String,
}

#[derive(Default)]
struct State {
    board: Board,
    /// For the end of the next text.
    waiting: Vec<oneshot::Sender<()>>,
    /// For a mark.
    marking: Vec<(u64, oneshot::Sender<()>)>,
    is_running: bool,
    is_replaced: bool,
    /// Where it is connected.
    server: Option<Arc<CancelTarget>>,
}

/// A session that has joined channels, and has yet to have its mark put.
pub struct Joined {
    /// The text that puts it, on the session's own connection.
    pub query: String,
    /// What it says.
    pub mark: u64,
    seen: oneshot::Receiver<()>,
}

impl Joined {
    /// Returns once the hub's connection has come to the mark; false if it does not.
    pub async fn seen(&mut self) -> bool {
        matches!(timeout(MARK_MAX, &mut self.seen).await, Ok(Ok(())))
    }
}

/// A session's place; it is given up when dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    seat: SeatId,
    /// What it hears.
    pub mailbox: Arc<Mailbox>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl Hub {
    /// Nothing is connected before somebody listens.
    pub fn new(dial: Dial, metrics: Arc<PoolMetrics>) -> Arc<Hub> {
        // No other pool's, nor any other proxy's.
        let marks = format!("groove_{:016x}", RandomState::new().build_hasher().finish());
        Arc::new(Hub { state: Mutex::default(), changed: Notify::new(), dial, metrics, marks })
    }

    /// A place for a session.
    pub fn sit(self: &Arc<Hub>) -> Subscription {
        let mailbox = Arc::<Mailbox>::default();
        let seat = self.state.lock().board.sit(Arc::clone(&mailbox));
        self.metrics.listening.inc();
        Subscription { hub: Arc::clone(self), seat, mailbox }
    }

    /// The channel where marks are put, which is nobody's to hear.
    pub fn marks(&self) -> &str {
        &self.marks
    }

    /// Whether it is connected to the same server as somebody else: notifications do not go from one to another.
    pub fn is_beside(&self, other: &CancelTarget) -> bool {
        self.state.lock().server.as_ref().is_some_and(|server| server.address == other.address)
    }

    /// Has the connection looked at: its server may not be what it was.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// Ends those that listen, and the connection: their servers are others now.
    pub fn replace(&self) {
        let mut state = self.state.lock();
        state.is_replaced = state.is_running;
        drop(state);
        self.changed.notify_one();
    }

    /// Returns at the end of the next text; an error if there is none.
    async fn told(self: &Arc<Hub>) -> Result<(), Error> {
        let (told, end) = oneshot::channel();
        {
            let mut state = self.state.lock();
            state.waiting.push(told);
            if !std::mem::replace(&mut state.is_running, true) {
                tokio::spawn(run(Arc::clone(self)));
            }
        }
        self.changed.notify_one();
        end.await.map_err(|_| Error::ListenerLost)
    }

    fn show(&self, state: &State) {
        self.metrics.channels.set(i64::try_from(state.board.channels()).unwrap_or(i64::MAX));
    }

    fn dispatch(&self, frame: &Frame) -> Result<(), Error> {
        let (channel, payload) = notification(frame.body()).map_err(Error::Upstream)?;
        let mut state = self.state.lock();
        if channel != self.marks.as_bytes() {
            let count = state.board.dispatch(channel, &frame.raw);
            self.metrics.notifications.add(count as u64);
            self.metrics.sent.add((count * frame.raw.len()) as u64);
            return Ok(());
        }
        let mark = std::str::from_utf8(payload).ok().and_then(|mark| mark.parse().ok());
        if let Some(mark) = mark.filter(|mark| state.board.marked(*mark))
            && let Some(at) = state.marking.iter().position(|(waiting, _)| *waiting == mark)
        {
            // Who has left meanwhile need not be told.
            let _ = state.marking.swap_remove(at).1.send(());
        }
        Ok(())
    }

    /// Nobody is left to hear for: true if so, and whoever comes makes a new connection.
    fn is_done(&self) -> bool {
        let mut state = self.state.lock();
        let is_done = state.board.is_empty() && state.waiting.is_empty();
        if is_done {
            state.board.end(Ended::Lost);
            *state = State { board: std::mem::take(&mut state.board), ..State::default() };
        }
        is_done
    }

    fn end(&self, why: Ended) {
        let mut state = self.state.lock();
        state.board.end(why);
        self.show(&state);
        let board = std::mem::take(&mut state.board);
        // Those who wait see that nobody will answer.
        *state = State { board, ..State::default() };
    }
}

impl Subscription {
    /// Joins channels. Returns once the hub's connection listens to them.
    pub async fn join(&self, channels: &[Channel]) -> Result<Joined, Error> {
        let (seen, receiver) = oneshot::channel();
        let mark = {
            let mut state = self.hub.state.lock();
            let mark = state.board.join(self.seat, channels).ok_or(Error::ListenerLost)?;
            state.marking.retain(|(_, waiting)| !waiting.is_closed());
            state.marking.push((mark, seen));
            self.hub.show(&state);
            mark
        };
        self.hub.told().await.map_err(|_| self.mailbox.why())?;
        let channel = &self.hub.marks;
        let query = format!("LISTEN \"{channel}\";NOTIFY \"{channel}\",'{mark}'");
        Ok(Joined { query, mark, seen: receiver })
    }

    /// Returns once what was committed before is in the mailbox.
    pub async fn catch_up(&self) -> Result<(), Error> {
        if !self.hub.state.lock().board.has(self.seat) {
            return Err(self.mailbox.why());
        }
        self.hub.told().await.map_err(|_| self.mailbox.why())
    }

    /// Leaves channels.
    pub fn leave(&self, channels: &[Channel]) {
        let mut state = self.hub.state.lock();
        state.board.leave(self.seat, channels);
        self.hub.show(&state);
        drop(state);
        self.hub.changed.notify_one();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        state.board.part(self.seat);
        self.hub.show(&state);
        drop(state);
        self.hub.metrics.listening.dec();
        self.hub.changed.notify_one();
    }
}

/// Hears for a pool's sessions until there are none, or nothing is to be heard any more.
async fn run(hub: Arc<Hub>) {
    let ended = match Ear::open(&hub).await {
        Ok(ear) => Box::pin(ear.serve()).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(None) => {}
        Ok(Some(why)) => hub.end(why),
        Err(error) => {
            hub.metrics.failed(&error);
            tracing::info!(pool = hub.dial.name(), %error, "the connection that listens is lost");
            hub.end(Ended::Lost);
        }
    }
}

/// The connection, and what has come of an incomplete message.
struct Ear<'a> {
    hub: &'a Hub,
    server: Server,
    input: BytesMut,
    output: BytesMut,
}

impl Ear<'_> {
    async fn open(hub: &Hub) -> Result<Ear<'_>, Error> {
        let mut server = hub.dial.listener().await?;
        let settings = &server.backend.settings;
        let encoding =
            if settings.get("server_encoding") == Some("SQL_ASCII") { "SQL_ASCII" } else { "UTF8" };
        let setup = format!("SET client_encoding = '{encoding}';{SETUP};LISTEN \"{}\"", hub.marks);
        let said = timeout(ANSWER_MAX, server.run(&setup)).await;
        said.map_err(|_| Error::Lost(io::ErrorKind::TimedOut.into()))??;
        hub.state.lock().server = Some(Arc::clone(&server.cancel));
        Ok(Ear { hub, server, input: BytesMut::new(), output: BytesMut::new() })
    }

    /// Why it ends; `None` if nobody listens any more.
    async fn serve(mut self) -> Result<Option<Ended>, Error> {
        let mut is_doubtful = false;
        loop {
            let (orders, waiting, is_needed) = {
                let mut state = self.hub.state.lock();
                // A server that was replaced hears of nothing that is sent to the next.
                if state.is_replaced || self.server.is_deposed() {
                    return Ok(Some(Ended::Replaced));
                }
                let is_needed = !state.board.is_empty();
                (state.board.take_orders(), std::mem::take(&mut state.waiting), is_needed)
            };
            if !orders.is_empty() || !waiting.is_empty() || std::mem::take(&mut is_doubtful) {
                let told = timeout(ANSWER_MAX, self.tell(&orders)).await;
                told.map_err(|_| Error::Lost(io::ErrorKind::TimedOut.into()))??;
                // Who has left meanwhile need not be told.
                for waiting in waiting {
                    let _ = waiting.send(());
                }
                continue;
            }
            let patience = if is_needed { HEARTBEAT } else { LINGER };
            let heard = async {
                tokio::select! {
                    () = self.hub.changed.notified() => Ok(()),
                    heard = self.hear_more() => heard,
                }
            };
            match timeout(patience, heard).await {
                Ok(heard) => heard?,
                Err(_) if self.hub.is_done() => return Ok(None),
                Err(_) => is_doubtful = true,
            }
        }
    }

    /// Has the server carry out a text, and hands out what it says meanwhile.
    async fn tell(&mut self, orders: &[u8]) -> Result<(), Error> {
        frontend::put_query_bytes(&mut self.output, orders);
        while !self.hand_out()? {
            self.step().await.map_err(Error::Lost)?;
        }
        Ok(())
    }

    async fn hear_more(&mut self) -> Result<(), Error> {
        self.step().await.map_err(Error::Lost)?;
        self.hand_out().map(drop)
    }

    /// Sends what there is to send and reads; both at once, so that neither side waits for the other.
    async fn step(&mut self) -> io::Result<()> {
        let Ear { server, input, output, .. } = self;
        poll_fn(|cx| {
            if !output.is_empty()
                && let Poll::Ready(Err(error)) = server.stream.poll_send(cx, output)
            {
                return Poll::Ready(Err(error));
            }
            server.stream.poll_fill(cx, input).map(|filled| match filled? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            })
        })
        .await
    }

    /// Takes in what has come; true at the end of a text.
    fn hand_out(&mut self) -> Result<bool, Error> {
        while let Some(frame) = decode(&mut self.input, &LIMITS).map_err(Error::Upstream)? {
            match frame.tag {
                b'A' => self.hub.dispatch(&frame)?,
                b'E' => return Err(Error::Refused(frame.raw.slice(HEADER..))),
                b'Z' => return Ok(true),
                // Completions, notices, settings that were changed in a file.
                _ => {}
            }
        }
        Ok(false)
    }
}
