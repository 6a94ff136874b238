//! A server connection's part in it: whether it may still be used for what it was made for.

use std::sync::Arc;

use groove_common::ids::EndpointId;

use super::{Roles, Wish};

/// Ties a connection to the standing of its server.
pub struct Tie {
    roles: Arc<Roles>,
    wish: Wish,
    endpoint: EndpointId,
    /// Of the view in which the other two were last looked up.
    generation: u64,
    is_admitted: bool,
    is_deposed: bool,
}

impl Tie {
    /// A connection to `endpoint`, for those who want this of it.
    pub fn new(roles: Arc<Roles>, wish: Wish, endpoint: EndpointId) -> Tie {
        let mut tie = Tie { roles, wish, endpoint, generation: 0, is_admitted: false, is_deposed: false };
        tie.look();
        tie
    }

    /// Whether a lease that wants what this one wanted may be served here. One atomic load while nothing changes.
    pub fn is_admitted(&mut self) -> bool {
        self.look();
        self.is_admitted
    }

    /// Whether nothing more may be sent there, not even a COMMIT, nor anything be waited for: another server is the
    /// primary. What this one acknowledges is lost, and it may be gone without a word.
    pub fn is_deposed(&mut self) -> bool {
        self.look();
        self.is_deposed
    }

    /// Something about the connection says that its server is not what it was: they are asked again. Whether that is
    /// reason enough to use it no more: where writes are wanted, one that refused a write.
    pub fn has_turned(&self) -> bool {
        self.roles.nudge();
        self.wish == Wish::Primary
    }

    /// Whether its server is the primary, as far as is known.
    pub fn is_on_primary(&self) -> bool {
        self.roles.is_primary(self.endpoint)
    }

    /// Whether its server has everything up to this position of the WAL.
    pub fn is_at(&self, position: u64) -> bool {
        self.roles.is_at(self.endpoint, position)
    }

    fn look(&mut self) {
        let generation = self.roles.generation();
        if generation != self.generation {
            let view = self.roles.view();
            self.generation = generation;
            self.is_admitted = view.admits(self.wish, self.endpoint);
            self.is_deposed = view.is_deposed(self.wish, self.endpoint);
        }
    }
}
