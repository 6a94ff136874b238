//! Clients that have to say who they are before they are served.
//!
//! ```text
//!   first byte 0x80 ─► sasl   ─┐
//!   any other       ─► ascii  ─┴─► credentials ─► vault ─► a tenant's session, or another try
//! ```
//!
//! Whoever is here is bounded: in time, in bytes, and in number, where the oldest gives way to the next.

mod ascii;
mod sasl;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use groove_common::net::Downstream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::reply;
use crate::tenant::counters::LoginMetrics;
use crate::tenant::directory::{Directory, Member, Proof};

/// Told to clients that nobody knows and that cannot say who they are.
pub const UNAUTHENTICATED: &[u8] = ascii::UNAUTHENTICATED;

/// What a client sent to tell who it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: Bytes,
    /// The password.
    pub password: Bytes,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What somebody who has not logged in has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    /// To be let in.
    Credentials(Credentials),
    /// Something with this answer.
    Told(Bytes),
    /// Something after which there is nothing more to say.
    Hangup(Bytes),
}

/// Why nobody logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The socket failed, or the client left.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// It took too long.
    #[error("the client did not log in in time")]
    TimedOut,
    /// Too many others came.
    #[error("the client did not log in and gave way to others")]
    Evicted,
    /// The proxy ends.
    #[error("the proxy drains")]
    Draining,
    /// The client left, or was told to.
    #[error("the client did not log in")]
    HungUp,
}

/// Those of a worker that have not logged in yet.
#[derive(Debug, Default)]
pub struct Porch {
    waiting: RefCell<VecDeque<(u64, Rc<Notify>)>>,
    next: Cell<u64>,
}

/// A place on the porch, for as long as it is held.
struct Place {
    porch: Rc<Porch>,
    number: u64,
    evicted: Rc<Notify>,
}

impl Porch {
    fn enter(self: &Rc<Self>, places: usize) -> Place {
        let number = self.next.replace(self.next.get() + 1);
        let evicted = Rc::new(Notify::new());
        let mut waiting = self.waiting.borrow_mut();
        while waiting.len() >= places.max(1) {
            let Some((_, oldest)) = waiting.pop_front() else { break };
            oldest.notify_one();
        }
        waiting.push_back((number, Rc::clone(&evicted)));
        Place { porch: Rc::clone(self), number, evicted }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.porch.waiting.borrow_mut().retain(|(number, _)| *number != self.number);
    }
}

/// What clients that log in meet.
pub struct Door<'a> {
    /// Who is who.
    pub directory: &'a Directory,
    /// How many of them this worker may have.
    pub places: usize,
    /// What is counted.
    pub metrics: &'a LoginMetrics,
}

/// Hears a client until it has proved who it is. What it sent beyond that stays in `input`.
///
/// # Errors
///
/// See [`LoginError`]; what was to be told has been told then.
pub async fn log_in(
    door: Door<'_>,
    porch: &Rc<Porch>,
    conn: &mut Downstream,
    input: &mut BytesMut,
) -> Result<Member, LoginError> {
    let place = porch.enter(door.places);
    let draining = conn.drain.draining();
    let heard = timeout(door.directory.authentication().timeout.get(), hear(&door, conn, input));
    tokio::select! {
        heard = heard => heard.unwrap_or(Err(LoginError::TimedOut)),
        () = place.evicted.notified() => Err(LoginError::Evicted),
        () = draining => Err(LoginError::Draining),
    }
}

async fn hear(door: &Door<'_>, conn: &mut Downstream, input: &mut BytesMut) -> Result<Member, LoginError> {
    fill_to(1, conn, input).await?;
    let mut sasl = (input.first() == Some(&sasl::MAGIC)).then(sasl::Decoder::default);
    loop {
        let heard = match &mut sasl {
            Some(sasl) => sasl.decode(input),
            None => ascii::decode(input),
        };
        match heard {
            None => fill_to(input.len() + 1, conn, input).await?,
            Some(Heard::Told(answer)) => conn.stream.send(&mut &*answer).await?,
            Some(Heard::Hangup(answer)) => {
                conn.stream.send(&mut &*answer).await?;
                return Err(LoginError::HungUp);
            }
            Some(Heard::Credentials(credentials)) => {
                let let_in = let_in(door, conn.peer.ip(), credentials).await;
                let answer = match (&sasl, &let_in) {
                    (None, LetIn::Yes(_)) => ascii::RIGHT,
                    (None, LetIn::No) => ascii::WRONG,
                    (None, LetIn::Full) => Bytes::from_static(reply::TOO_MANY_CONNECTIONS),
                    (Some(sasl), LetIn::Yes(_)) => sasl.right(),
                    (Some(sasl), LetIn::No | LetIn::Full) => sasl.wrong(),
                };
                conn.stream.send(&mut &*answer).await?;
                match let_in {
                    LetIn::Yes(member) => return Ok(member),
                    LetIn::No => (),
                    LetIn::Full => return Err(LoginError::HungUp),
                }
            }
        }
    }
}

/// Whether somebody with these credentials may come in.
enum LetIn {
    Yes(Member),
    No,
    /// He may, and there is no room for him.
    Full,
}

async fn let_in(door: &Door<'_>, address: Option<IpAddr>, credentials: Credentials) -> LetIn {
    let Credentials { user, password } = credentials;
    let grant = door.directory.vault().verify(address, &user, &password).await;
    door.metrics.count(grant.is_some());
    let granted = grant.and_then(|grant| Some((door.directory.granted(&grant)?, grant.entry)));
    let Some((tenant, entry)) = granted else { return LetIn::No };
    tenant.counters().logins.inc();
    match Member::enter(Arc::clone(tenant), Proof::Credential { user, entry }) {
        Ok(member) => LetIn::Yes(member),
        Err(_) => LetIn::Full,
    }
}

/// Reads until there are so many bytes. A client that says more than it must is not read further.
async fn fill_to(len: usize, conn: &mut Downstream, input: &mut BytesMut) -> Result<(), LoginError> {
    while input.len() < len {
        if conn.stream.fill(input).await? == 0 {
            return Err(LoginError::HungUp);
        }
    }
    Ok(())
}

/// Does a client that need not log in want to? Known once it has said something: waits for that.
///
/// # Errors
///
/// When the client leaves, or the proxy ends, before that.
pub async fn wants_to(conn: &mut Downstream, input: &mut BytesMut) -> Result<bool, LoginError> {
    let draining = conn.drain.draining();
    let first = async {
        fill_to(1, conn, input).await?;
        if input.first() == Some(&sasl::MAGIC) {
            fill_to(2, conn, input).await?;
        }
        Ok(sasl::is_login(input))
    };
    tokio::select! {
        first = first => first,
        () = draining => Err(LoginError::Draining),
    }
}
