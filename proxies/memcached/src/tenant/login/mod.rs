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
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use groove_common::net::Downstream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::vault::{Grant, Vault};
use crate::tenant::counters::LoginMetrics;

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

/// A client that is let in.
#[derive(Debug)]
pub struct LoggedIn {
    /// As the vault has it.
    pub grant: Grant,
    /// The name it gave.
    pub user: Bytes,
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
    /// Whose credentials are whose.
    pub vault: &'a Vault,
    /// How long they may take.
    pub time_max: std::time::Duration,
    /// How many of them a worker may have.
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
) -> Result<LoggedIn, LoginError> {
    let place = porch.enter(door.places);
    let draining = conn.drain.draining();
    let heard = timeout(door.time_max, hear(&door, conn, input));
    tokio::select! {
        heard = heard => heard.unwrap_or(Err(LoginError::TimedOut)),
        () = place.evicted.notified() => Err(LoginError::Evicted),
        () = draining => Err(LoginError::Draining),
    }
}

async fn hear(door: &Door<'_>, conn: &mut Downstream, input: &mut BytesMut) -> Result<LoggedIn, LoginError> {
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
            Some(Heard::Credentials(Credentials { user, password })) => {
                let granted = door.vault.verify(conn.peer.ip(), &user, &password).await;
                door.metrics.count(granted.is_some());
                let answer = match (&sasl, &granted) {
                    (None, Some(_)) => ascii::RIGHT,
                    (None, None) => ascii::WRONG,
                    (Some(sasl), Some(_)) => sasl.right(),
                    (Some(sasl), None) => sasl.wrong(),
                };
                conn.stream.send(&mut &*answer).await?;
                if let Some(grant) = granted {
                    return Ok(LoggedIn { grant, user });
                }
            }
        }
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
