//! Who is connected at this instant: what the console shows of clients and servers, and how it ends a client.
//!
//! Each client and each server connection has one place here, taken at its login and given up when it is dropped, which
//! are the only times that a lock is taken. In between it writes to atomics of its own; whoever looks reads them one by
//! one, so that a row may show a client that has just got its server connection and one that does not know it yet.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use groove_common::net::{Downstream, ListenerInfo, Peer};
use parking_lot::Mutex;
use slab::Slab;

use crate::metrics::{Totals, micros};
use crate::upstream::{CancelTarget, UserPool};

/// Everybody who is connected.
pub struct Live {
    /// Where times in microseconds count from.
    origin: Instant,
    clients: Mutex<Slab<Arc<Client>>>,
    servers: Mutex<Slab<Arc<Server>>>,
    /// What pools have counted that are gone, by database: totals must not go back.
    retired: Mutex<HashMap<String, Totals>>,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has no server connection and wants none.
    Idle,
    /// It waits for a server connection.
    Waiting,
    /// It has one.
    Active,
}

/// What a server connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It lies in its pool.
    Idle,
    /// Queries of ours run on it: settings, clean-up.
    Ours,
    /// It hears for the sessions of its pool that listen.
    Listening,
    /// The client with this number has it.
    Client(u64),
}

/// A client, as it is seen from outside.
pub struct Client {
    live: Arc<Live>,
    /// Not 0, and no other client's as long as this one lives.
    pub number: u64,
    /// Where it gets its server connections from.
    pub pool: Arc<UserPool>,
    /// Where it comes from.
    pub peer: Peer,
    /// Where it came in.
    pub listener: Arc<ListenerInfo>,
    /// Whether it speaks TLS.
    pub is_tls: bool,
    /// As it was at the login.
    pub application_name: Box<str>,
    /// Below 0 if that was in the process before.
    connected_us: i64,
    state: AtomicU8,
    asked_us: AtomicU64,
    started_us: AtomicU64,
    /// Since when nothing runs on its server connection; 0 while something does.
    resting_us: AtomicU64,
    /// Time outside of transactions in which it kept its server connection.
    away_us: AtomicU64,
    /// Since when its server connection works for it without a rest, or does not yet ([`NOT_YET`]).
    worked_us: AtomicU64,
    link: AtomicU64,
    killed: AtomicBool,
    /// Whom to wake.
    task: Mutex<Option<Waker>>,
    is_task_known: AtomicBool,
}

/// A server connection, as it is seen from outside.
pub struct Server {
    live: Arc<Live>,
    /// Not 0, and no other server connection's as long as this one lives.
    pub number: u64,
    /// The database, as clients name it.
    pub database: Arc<str>,
    /// The user, as clients name it.
    pub user: Arc<str>,
    /// Where it leads, and the server's process.
    pub target: Arc<CancelTarget>,
    connected_us: u64,
    asked_us: AtomicU64,
    link: AtomicU64,
}

/// The place of a client, for as long as it lives.
pub struct ClientSeat(Arc<Client>);

/// The place of a server connection, for as long as it lives.
pub struct ServerSeat(Arc<Server>);

/// Set in a time when nothing has been asked for since.
const NOT_YET: u64 = 1 << 63;

/// Stands for us among the numbers of clients.
const OURS: u64 = u64::MAX;
/// The same of a connection that is not lent.
const LISTENING: u64 = u64::MAX - 1;

impl Default for Live {
    fn default() -> Live {
        Live {
            origin: Instant::now(),
            clients: Mutex::default(),
            servers: Mutex::default(),
            retired: Mutex::default(),
        }
    }
}

impl Live {
    /// Notes a client that is logged in, since `connected`.
    pub fn client(
        self: &Arc<Live>,
        pool: &Arc<UserPool>,
        conn: &Downstream,
        application_name: &str,
        connected: SystemTime,
    ) -> ClientSeat {
        let now_us = self.now_us();
        let age = SystemTime::now().duration_since(connected).unwrap_or_default();
        let mut clients = self.clients.lock();
        let place = clients.vacant_entry();
        let client = Arc::new(Client {
            live: Arc::clone(self),
            number: place.key() as u64 + 1,
            pool: Arc::clone(pool),
            peer: conn.peer,
            listener: Arc::clone(&conn.listener),
            is_tls: conn.stream.is_tls(),
            application_name: application_name.into(),
            connected_us: signed(now_us) - signed(micros(age)),
            state: AtomicU8::new(State::Idle as u8),
            asked_us: AtomicU64::new(now_us),
            started_us: AtomicU64::new(now_us),
            resting_us: AtomicU64::new(0),
            away_us: AtomicU64::new(0),
            worked_us: AtomicU64::new(now_us),
            link: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            task: Mutex::default(),
            is_task_known: AtomicBool::new(false),
        });
        place.insert(Arc::clone(&client));
        ClientSeat(client)
    }

    /// Notes a server connection that is logged in.
    pub fn server(
        self: &Arc<Live>,
        database: &Arc<str>,
        user: &Arc<str>,
        target: &Arc<CancelTarget>,
    ) -> ServerSeat {
        let now_us = self.now_us();
        let mut servers = self.servers.lock();
        let place = servers.vacant_entry();
        let server = Arc::new(Server {
            live: Arc::clone(self),
            number: place.key() as u64 + 1,
            database: Arc::clone(database),
            user: Arc::clone(user),
            target: Arc::clone(target),
            connected_us: now_us,
            asked_us: AtomicU64::new(now_us),
            link: AtomicU64::new(0),
        });
        place.insert(Arc::clone(&server));
        ServerSeat(server)
    }

    /// Everybody who is logged in.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.clients.lock().iter().map(|(_, client)| Arc::clone(client)).collect()
    }

    /// Every server connection of a pool.
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.servers.lock().iter().map(|(_, server)| Arc::clone(server)).collect()
    }

    /// Keeps what a pool has counted that ends.
    pub fn retire(&self, database: &str, totals: Totals) {
        *self.retired.lock().entry(database.to_owned()).or_default() += totals;
    }

    /// What the pools of a database have counted that are gone.
    pub fn retired(&self, database: &str) -> Totals {
        self.retired.lock().get(database).copied().unwrap_or_default()
    }

    /// Never 0, which stands for no time at all.
    fn now_us(&self) -> u64 {
        self.us_of(Instant::now())
    }

    fn us_of(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.origin)).max(1)
    }

    fn clock_of(&self, at_us: u64) -> SystemTime {
        SystemTime::now() - Duration::from_micros(self.now_us().saturating_sub(at_us))
    }
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

impl Client {
    /// What it does.
    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            1 => State::Waiting,
            2 => State::Active,
            _ => State::Idle,
        }
    }

    /// When it logged in.
    pub fn connected(&self) -> SystemTime {
        let age_us = signed(self.live.now_us()) - self.connected_us;
        SystemTime::now() - Duration::from_micros(age_us.unsigned_abs())
    }

    /// When it last wanted a server connection.
    pub fn asked(&self) -> SystemTime {
        self.live.clock_of(self.asked_us.load(Relaxed))
    }

    /// For how long it has waited for a server connection.
    pub fn waits(&self) -> Duration {
        match self.state() {
            State::Waiting => {
                Duration::from_micros(self.live.now_us().saturating_sub(self.asked_us.load(Relaxed)))
            }
            State::Idle | State::Active => Duration::ZERO,
        }
    }

    /// The number of its server connection; 0 if it has none.
    pub fn link(&self) -> u64 {
        self.link.load(Relaxed)
    }

    /// Ends it, whatever it does.
    pub fn kill(&self) {
        self.killed.store(true, Relaxed);
        self.wake();
    }

    /// Lets it look whether what was changed before is of its concern.
    pub fn wake(&self) {
        // One of the two sees what the other has done.
        fence(SeqCst);
        if let Some(task) = &*self.task.lock() {
            task.wake_by_ref();
        }
    }

    /// Polls the client's session unless it was killed (`None`). It has to be the task's own future: the task's waker is
    /// taken once in each, so that nothing is paid for later.
    pub fn poll_alive<T>(
        &self,
        cx: &mut Context<'_>,
        session: Pin<&mut impl Future<Output = T>>,
    ) -> Poll<Option<T>> {
        if !self.is_task_known.load(Relaxed) {
            *self.task.lock() = Some(cx.waker().clone());
            self.is_task_known.store(true, Relaxed);
            fence(SeqCst);
        }
        match self.killed.load(Relaxed) {
            true => Poll::Ready(None),
            false => session.poll(cx).map(Some),
        }
    }
}

impl std::ops::Deref for ClientSeat {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl ClientSeat {
    /// Its session goes on as another task, when it is polled again.
    pub fn changes_task(&self) {
        self.is_task_known.store(false, Relaxed);
    }

    /// To look at it while its session is busy.
    pub fn share(&self) -> Arc<Client> {
        Arc::clone(&self.0)
    }

    /// It was given a server connection at its login, at `now`, and has asked for nothing yet.
    pub fn holds(&self, server: Option<&ServerSeat>, now: Instant) {
        self.leased(server, now);
        self.parts();
    }

    /// It wants a server connection since `now`.
    pub fn asks(&self, now: Instant) {
        self.asked_us.store(self.live.us_of(now), Relaxed);
        self.state.store(State::Waiting as u8, Relaxed);
    }

    /// It has got one, at `now`.
    pub fn leased(&self, server: Option<&ServerSeat>, now: Instant) {
        let now_us = self.live.us_of(now);
        self.started_us.store(now_us, Relaxed);
        self.worked_us.store(now_us, Relaxed);
        self.state.store(State::Active as u8, Relaxed);
        if let Some(ServerSeat(server)) = server {
            self.link.store(server.number, Relaxed);
            server.link.store(self.number, Relaxed);
            server.asked_us.store(self.asked_us.load(Relaxed), Relaxed);
        }
    }

    /// It has none any more, and wants none.
    pub fn released(&self) {
        self.state.store(State::Idle as u8, Relaxed);
        self.link.store(0, Relaxed);
        self.resting_us.store(0, Relaxed);
    }

    /// Nothing runs on its server connection, within a transaction or outside of one.
    pub fn rests(&self) {
        if self.resting_us.load(Relaxed) == 0 {
            let now_us = self.live.now_us();
            self.resting_us.store(now_us, Relaxed);
            self.worked_until(now_us);
        }
    }

    /// What the client sent at once is done, if it sent something.
    fn worked_until(&self, now_us: u64) {
        let since_us = self.worked_us.load(Relaxed);
        if since_us & NOT_YET == 0 {
            let worked = Duration::from_micros(now_us.saturating_sub(since_us));
            self.pool.metrics.query_seconds.record(worked);
        }
    }

    /// The client asks for something: the time, if nothing ran before. `was_idle` if it rested outside of a transaction.
    pub fn works(&self, was_idle: bool) -> Option<u64> {
        let since = take(&self.resting_us);
        if since == 0 {
            let since_us = self.worked_us.load(Relaxed);
            if since_us & NOT_YET != 0 {
                self.worked_us.store(since_us & !NOT_YET, Relaxed);
            }
            return None;
        }
        let now_us = self.live.now_us();
        if was_idle {
            self.away_us.store(self.away_us.load(Relaxed) + now_us.saturating_sub(since), Relaxed);
        }
        self.worked_us.store(now_us, Relaxed);
        Some(now_us)
    }

    /// What the client has said last asks for nothing: a goodbye.
    pub fn parts(&self) {
        self.worked_us.store(self.worked_us.load(Relaxed) | NOT_YET, Relaxed);
    }

    /// How long the transaction took that ends now.
    pub fn spent(&self, was_idle: bool) -> Duration {
        let now_us = match self.resting_us.load(Relaxed) {
            0 => {
                let now_us = self.live.now_us();
                self.worked_until(now_us);
                now_us
            }
            _ => self.works(was_idle).unwrap_or_else(|| self.live.now_us()),
        };
        self.worked_us.store(now_us | NOT_YET, Relaxed);
        let held = now_us.saturating_sub(self.started_us.load(Relaxed));
        self.started_us.store(now_us, Relaxed);
        Duration::from_micros(held.saturating_sub(take(&self.away_us)))
    }
}

impl Drop for ClientSeat {
    fn drop(&mut self) {
        let place = usize::try_from(self.number).unwrap_or_default().wrapping_sub(1);
        drop(self.live.clients.lock().try_remove(place));
    }
}

impl Server {
    /// What it is used for.
    pub fn used_for(&self) -> Use {
        match self.link.load(Relaxed) {
            0 => Use::Idle,
            OURS => Use::Ours,
            LISTENING => Use::Listening,
            client => Use::Client(client),
        }
    }

    /// When it logged in.
    pub fn connected(&self) -> SystemTime {
        self.live.clock_of(self.connected_us)
    }

    /// When a client last wanted what runs or ran here.
    pub fn asked(&self) -> SystemTime {
        self.live.clock_of(self.asked_us.load(Relaxed))
    }
}

impl ServerSeat {
    /// It lies in its pool.
    pub fn idle(&self) {
        self.0.link.store(0, Relaxed);
    }

    /// Queries of ours run on it.
    pub fn ours(&self) {
        self.0.link.store(OURS, Relaxed);
    }

    /// It hears for the sessions of its pool.
    pub fn listens(&self) {
        self.0.link.store(LISTENING, Relaxed);
    }
}

impl Drop for ServerSeat {
    fn drop(&mut self) {
        let place = usize::try_from(self.0.number).unwrap_or_default().wrapping_sub(1);
        drop(self.0.live.servers.lock().try_remove(place));
    }
}

/// Empties a number that nobody else writes: two plain instructions where a swap would lock the line.
fn take(number: &AtomicU64) -> u64 {
    let taken = number.load(Relaxed);
    if taken != 0 {
        number.store(0, Relaxed);
    }
    taken
}
