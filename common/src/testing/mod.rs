//! Helpers for the tests of all crates: seeded dice, streams without a network, a peer that follows a script.
//!
//! Streams are real sockets within this process, so that a driver is tested with the very type it serves. They
//! work under paused time (`#[tokio::test(start_paused = true)]`): tokio moves its clock only when no socket
//! has anything to say.

mod dice;
mod peer;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UnixStream;

use crate::net::{Downstream, Drain, Peer, Stream};

pub use dice::{Dice, simulate};
pub use peer::ScriptedPeer;

/// Two ends of one connection. To be called within a runtime.
pub fn stream_pair() -> io::Result<(Stream, Stream)> {
    let (a, b) = UnixStream::pair()?;
    Ok((a.into(), b.into()))
}

/// A connection as a service gets it, the client at the other end of it, and the drain it looks at.
pub fn downstream() -> io::Result<(Downstream, ScriptedPeer, Drain)> {
    let (ours, theirs) = stream_pair()?;
    let drain = Drain::new();
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
    let conn = Downstream::detached(ours, Peer::Ip(client), drain.clone());
    Ok((conn, ScriptedPeer::new(theirs), drain))
}
