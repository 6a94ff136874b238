//! Operations that take several steps on several servers, written as what they are: one step after the other.
//!
//! Most requests are one question to one server and never come here. A key that is moving, that lives in
//! tiers, in chunks or in copies takes a *program*: an `async fn` over [`Nodes`], which knows no socket, no
//! clock and no chance, so that the same lines run on real connections and in a simulation that plays every
//! order of events.

pub mod chunks;
pub mod flush;
mod found;
#[cfg(feature = "mutants")]
pub(crate) mod lag;
#[cfg(any(test, feature = "mutants"))]
mod mutants;
pub mod replicas;
pub mod resize;
#[cfg(test)]
mod sim;
mod steps;
pub mod tiers;

use std::future::ready;

use crate::error::Failure;
use crate::wire::meta::{Reply, Request};

/// A server, told by its part in the operation on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// Where the key lives before a resize.
    Old,
    /// Where it lives after it.
    New,
    /// The tier in memory.
    Front,
    /// The tier behind it.
    Overflow,
    /// One of several copies, counted from 0.
    Replica(u8),
    /// The key's own, where only the value is in parts.
    Home,
    /// Whichever has this part of a value.
    Part,
}

/// What is worth counting in a program, besides its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A value was stored in parts.
    WholeStored,
    /// A value was put together.
    WholeRead,
    /// A value was lost, because one of its parts was.
    WholeLost,
    /// A part could not be deleted, and stays until it expires.
    PartLeft,
    /// What was written is not in the tier behind.
    SpillLost,
    /// A key that moves was copied to its new server, for the client that asked for it.
    Copied,
    /// Somebody else was quicker with a key that moves: it begins again.
    Again,
}

/// The connection that told something, and no other: a CAS value means nothing on another connection, as a
/// server that was restarted in between counts from the beginning again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Link(pub u64);

/// A reply, and the connection it came on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What the server said.
    pub reply: Reply,
    /// On which connection.
    pub link: Link,
}

/// A CAS value, and the connection it may be used on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin {
    /// As the server told it, without an epoch.
    pub cas: u64,
    /// Whose it is.
    pub link: Link,
}

/// What an operation of several steps came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The reply that one server would have given to the client's request: its status, what `wants` asked
    /// for, a server's own words if one refused. The key in it is the one that servers know.
    pub reply: Reply,
    /// Whose CAS value the `c` in the reply is. Without it that value is 0, and the client's token must be one
    /// that never matches.
    pub origin: Option<Origin>,
}

/// The server, and the connection to it, that a CAS value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Which server.
    pub node: Node,
    /// The connection.
    pub link: Link,
}

/// The servers of one key, as a program sees them.
pub trait Nodes {
    /// Asks one server and waits for its reply. With `pinned` the request goes out on that very connection.
    ///
    /// # Errors
    ///
    /// Why there is no reply. [`Failure::Lost`] and nothing sent if the pinned connection is gone; any other
    /// request that failed may still have been carried out, unless it is [`Failure::Down`] or
    /// [`Failure::NoServer`].
    fn ask(
        &self,
        node: Node,
        request: &Request<'_>,
        pinned: Option<Link>,
    ) -> impl Future<Output = Result<Told, Failure>>;

    /// Waits until the program may hold so many bytes more than its request.
    fn room(&self, _len: usize) -> impl Future<Output = ()> {
        ready(())
    }

    /// Counts what has happened.
    fn note(&self, _event: Event) {}
}
