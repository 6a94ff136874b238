//! From one process to the next without a refused connection: listening sockets and clients go over a unix socket.
//!
//! ```text
//!  old: serves                                        new: configuration read and checked
//!   │ ◄──────────── Hello: who, which version ──────────┤ connects to `handover: PATH`
//!   ├────────────── Welcome, listening sockets ───────► │
//!   │ (both could accept)                               │ starts; whatever fails up to here ends the new one,
//!   │                                                   │ and the old one goes on as if nothing had been
//!   │ ◄──────────── Ready ──────────────────────────────┤ accepts, and listens on PATH itself
//!   │ accepts no more                                   │
//!   ├────────────── Client: its socket and state ─────► │ each when it is idle
//!   │ ◄──────────── Taken, or Kept ─────────────────────┤ Taken: from here on the new one serves it
//!   │ ◄──────────── Word: a cancel request ─────────────┤ for a session that is still with the old one
//!   └ ends when it has no client left, or its time is over
//! ```
//!
//! A client is served by one process at each instant: by the old one until it reads Taken, by the new one from when it
//! has written it. If the link breaks in between, the old one serves on what it has not read Taken of: what was written
//! before the end is read before it.
//!
//! Only processes of the same user (or root) speak here: who may read this program's memory learns nothing new.

mod door;
mod giver;
mod link;
mod message;
mod taker;

pub use door::{Door, Taker};
pub use giver::{Client, Given, HandOver};
pub use message::STATE_BYTES_MAX;
pub use taker::{Inheritance, TakeOverError, Taken, take_over};

#[cfg(test)]
mod tests;

/// A listening socket, and which of the two kinds of listeners it is.
#[derive(Debug)]
pub struct Socket {
    /// The socket, and its address as configured.
    pub listener: crate::net::Inherited,
    /// It is the admin server's.
    pub is_admin: bool,
}

/// Which program this is, and what it can take.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The binary's name: nobody else's clients are taken.
    pub name: &'static str,
    /// For the log.
    pub version: &'static str,
    /// The version of what its sessions leave behind; `None` if they are not handed over.
    pub sessions: Option<u32>,
}
