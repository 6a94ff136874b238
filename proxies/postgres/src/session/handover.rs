//! A session's way from one process to the next, at an instant when it has no server connection.
//!
//! What goes with the socket: who the client is, its cancel key, what its machine knows, what it has sent and nobody has
//! read yet. Not what is on a server: a session that keeps a server connection stays, and so does one with TLS, whose
//! keys rustls does not give out.

use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use groove_common::lifecycle::Phase;
use groove_common::lifecycle::handover::{Client, Given, STATE_BYTES_MAX};
use groove_common::net::{Downstream, Transport};
use serde::{Deserialize, Serialize};

use super::cancel::Registered;
use super::driver::{Parts, Session, Splitting};
use super::state::{Machine, Portable};
use crate::Shared;
use crate::split::Wrote;
use crate::upstream::{Proofs, UserPool};
use crate::wire::startup::{CANCEL_KEY_BYTES, CancelKey};

/// Changes whenever `State` does, or anything in it.
pub const VERSION: u32 = 2;

/// Where a session is at home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// Here, and it may move.
    Here,
    /// Here, and the next process does not want it.
    ForGood,
    /// It is under way, or gone: its socket is not to be touched.
    Elsewhere,
}

/// A session.
#[derive(Serialize, Deserialize)]
struct State {
    database: String,
    user: String,
    proofs: Proofs,
    pid: i32,
    secret: Vec<u8>,
    application_name: String,
    /// Since the beginning of 1970.
    connected_us: u64,
    machine: Portable,
    /// What it has written, where reads are split from writes: up to a position, or nobody knows yet up to where.
    wrote: Option<Option<u64>>,
    input: Vec<u8>,
}

impl Session {
    /// Whether the next process should have it, now.
    pub(super) fn may_move(&self) -> bool {
        self.conn.drain.phase() == Phase::HandingOver
            && self.home == Home::Here
            && self.lease.is_none()
            // What it hears comes to this process.
            && self.machine.listening().is_none()
            && self.to_client.is_empty()
            && !self.conn.stream.is_tls()
    }

    /// Ready when an idle session has to do something about the end of the program: move, or leave.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Phase> {
        loop {
            if self.may_move() {
                return Poll::Ready(Phase::HandingOver);
            }
            ready!(Pin::new(&mut self.draining).poll(cx));
            let phase = self.conn.drain.phase();
            if phase != Phase::HandingOver {
                return Poll::Ready(phase);
            }
            if !self.may_move() {
                // Until its exchange has ended, or for good.
                self.draining = self.conn.drain.draining();
            }
        }
    }

    /// Gives the session to the next process; false if it stays.
    pub(super) async fn hand_over(&mut self) -> bool {
        let Some(client) = self.pack() else {
            self.home = Home::ForGood;
            return false;
        };
        // Should this be given up half way, the client may be another process's.
        self.home = Home::Elsewhere;
        match self.shared.handover.give(client).await {
            Given::Taken => true,
            Given::Kept(why) => {
                tracing::debug!(peer = %self.conn.peer, why, "a session stays");
                self.home = Home::ForGood;
                false
            }
        }
    }

    fn pack(&mut self) -> Option<Client> {
        // A request that comes from here on finds nothing to cancel, or the session where it is then.
        self.registered.canceller.released();
        let state = State {
            database: self.pool.database.clone(),
            user: self.pool.user.clone(),
            proofs: self.shared.directory.proofs(&self.pool)?,
            pid: self.registered.key.pid,
            secret: self.registered.key.secret.to_vec(),
            application_name: self.seen.application_name.to_string(),
            connected_us: micros(self.seen.connected()),
            machine: self.machine.portable()?,
            wrote: self.splitting.as_ref().and_then(|splitting| splitting.wrote).map(|wrote| match wrote {
                Wrote::Upto(position) => Some(position),
                Wrote::Before(_) => None,
            }),
            input: self.from_client.to_vec(),
        };
        let socket = match self.conn.stream.transport() {
            Transport::Tcp(tcp) => tcp.as_fd().try_clone_to_owned(),
            Transport::Unix(unix) => unix.as_fd().try_clone_to_owned(),
            Transport::Pipe(_) => return None,
        };
        Some(Client {
            address: self.conn.listener.address.clone(),
            peer: self.conn.peer,
            socket: socket.ok()?,
            state: postcard::to_stdvec(&state).ok()?,
        })
    }
}

/// A session of the process before, before it has its socket.
pub struct Resumable {
    shared: Arc<Shared>,
    pool: Arc<UserPool>,
    machine: Machine,
    registered: Registered,
    wrote: Option<Option<u64>>,
    input: BytesMut,
    application_name: String,
    connected: SystemTime,
}

impl Resumable {
    /// Reads a session's state, and finds its place here; or says why there is none.
    pub fn read(shared: &Arc<Shared>, state: &[u8]) -> Result<Resumable, String> {
        let absurd = || "its state cannot be read".to_owned();
        if state.len() > STATE_BYTES_MAX {
            return Err(absurd());
        }
        let (state, rest) = postcard::take_from_bytes::<State>(state).map_err(|_| absurd())?;
        if !rest.is_empty() || !CANCEL_KEY_BYTES.contains(&state.secret.len()) {
            return Err(absurd());
        }
        let pool = shared.directory.inherit(&state.database, &state.user, state.proofs);
        let pool = pool.map_err(|error| error.to_string())?;
        let bounds = shared.directory.config().limits.bounds();
        let machine = Machine::resumed(state.machine, pool.mode(), bounds, Arc::clone(&pool.statements));
        let machine = machine.map_err(|error| error.to_string())?;
        let key = CancelKey { pid: state.pid, secret: Bytes::from(state.secret) };
        Ok(Resumable {
            registered: shared.cancels.restore(key).ok_or("its cancel key is another's here")?,
            shared: Arc::clone(shared),
            pool,
            machine,
            wrote: state.wrote,
            input: state.input.as_slice().into(),
            application_name: state.application_name,
            connected: UNIX_EPOCH + Duration::from_micros(state.connected_us),
        })
    }

    /// The session, which goes on at its socket.
    pub fn session(self, conn: Downstream) -> Box<Session> {
        let Resumable { shared, pool, machine, registered, wrote, input, application_name, connected } = self;
        let seen = shared.live.client(&pool, &conn, &application_name, connected);
        let mut session =
            Session::new(Parts { shared, conn, input, pool, machine, registered, lease: None, seen });
        // All times here are later than those there.
        let wrote = wrote.map(|position| position.map_or(Wrote::Before(Instant::now()), Wrote::Upto));
        session.splitting = wrote.map(|wrote| Box::new(Splitting::new(Some(wrote))));
        session
    }
}

fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
