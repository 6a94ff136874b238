//! The server connection a session holds.

use std::ops::{Deref, DerefMut};

use crate::upstream::{Leased, Server};

/// A server connection that is one session's at this moment.
pub enum Lease {
    /// It goes back to its pool.
    Pooled(Leased),
    /// It ends with the session.
    Own(Box<Server>),
}

impl Lease {
    /// From here on the connection is closed when dropped, until it is [redeemed](Lease::redeem).
    pub fn condemn(&mut self) {
        match self {
            Lease::Pooled(lease) => lease.condemn(),
            Lease::Own(_) => {}
        }
    }

    /// The connection is clean.
    pub fn redeem(&mut self) {
        match self {
            Lease::Pooled(lease) => lease.redeem(),
            Lease::Own(_) => {}
        }
    }
}

impl Deref for Lease {
    type Target = Server;

    fn deref(&self) -> &Server {
        match self {
            Lease::Pooled(lease) => lease,
            Lease::Own(server) => server,
        }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Server {
        match self {
            Lease::Pooled(lease) => lease,
            Lease::Own(server) => server,
        }
    }
}
