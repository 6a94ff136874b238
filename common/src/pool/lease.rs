//! A connection lent to one caller.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::inventory::TakenSeat;
use super::{Manager, Shared};
use crate::admission::Permit;

/// A connection for one caller alone. Dropping it (or [`Lease::release`]) gives it back
/// for the next one; [`Lease::close`] ends it.
///
/// Whoever drops a lease must have left the connection clean: nothing unread, no
/// transaction open. When in doubt, close it.
pub struct Lease<M: Manager> {
    // Dropped in this order: the connection must lie on the shelf before the permit
    // brings the next caller there.
    seat: TakenSeat<M>,
    /// Only looked at: how long it idles goes on counting.
    inspected: bool,
    shelf: ShelfWatch<M>,
    _permit: Permit,
}

impl<M: Manager> Lease<M> {
    pub(super) fn new(pool: &Arc<Shared<M>>, seat: TakenSeat<M>, permit: Permit) -> Self {
        Self { seat, inspected: false, shelf: ShelfWatch(Arc::clone(pool)), _permit: permit }
    }

    /// For the keeper, who does not use it.
    pub(super) fn for_inspection(pool: &Arc<Shared<M>>, seat: TakenSeat<M>, permit: Permit) -> Self {
        let mut lease = Self::new(pool, seat, permit);
        lease.inspected = true;
        lease
    }

    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.seat.idle_since)
    }

    /// Gives the connection back.
    pub fn release(self) {}

    /// Ends the connection; its place is free for another.
    pub fn close(mut self) {
        self.seat.doomed = true;
    }

    /// Makes sure that dropping the lease closes the connection. Undone by [`Lease::redeem`]:
    /// set it before an exchange and a cancelled one can never leak a connection in an
    /// unknown state.
    pub fn condemn(&mut self) {
        self.seat.doomed = true;
    }

    /// The connection is clean again after a [`Lease::condemn`].
    pub fn redeem(&mut self) {
        self.seat.doomed = false;
    }
}

impl<M: Manager> Deref for Lease<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        &self.seat.conn
    }
}

impl<M: Manager> DerefMut for Lease<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.seat.conn
    }
}

impl<M: Manager> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("pool", &self.shelf.0.name).finish_non_exhaustive()
    }
}

impl<M: Manager> Drop for Lease<M> {
    fn drop(&mut self) {
        let now = Instant::now();
        let pool = &self.shelf.0;
        if !self.inspected {
            self.seat.idle_since = now;
        }
        if self.seat.is_expired(now) || (pool.shrinking.load(Ordering::Relaxed) && pool.is_oversized()) {
            self.seat.doomed = true;
        }
    }
}

/// Tells those who wait to dial, after the connection was put back, that one may be there.
struct ShelfWatch<M: Manager>(Arc<Shared<M>>);

impl<M: Manager> Drop for ShelfWatch<M> {
    fn drop(&mut self) {
        self.0.dialer.connection_came_back();
    }
}
