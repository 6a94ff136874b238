//! A connection lent to one caller.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Manager;
use super::inventory::TakenSeat;
use crate::admission::{Admission, Permit};

/// A connection for one caller alone. Dropping it (or [`Lease::release`]) gives it back
/// for the next one; [`Lease::close`] ends it.
///
/// Whoever drops a lease must have left the connection clean: nothing unread, no
/// transaction open. When in doubt, close it.
pub struct Lease<M: Manager> {
    /// Gone only once the lease is being dropped.
    held: Option<Held<M>>,
    /// Only looked at: how long it idles goes on counting.
    inspected: bool,
}

struct Held<M: Manager> {
    seat: TakenSeat<M>,
    permit: Permit<TakenSeat<M>>,
}

impl<M: Manager> Lease<M> {
    pub(super) fn new(seat: TakenSeat<M>, permit: Permit<TakenSeat<M>>) -> Self {
        Self { held: Some(Held { seat, permit }), inspected: false }
    }

    /// For the keeper, who does not use it.
    pub(super) fn for_inspection(seat: TakenSeat<M>, permit: Permit<TakenSeat<M>>) -> Self {
        let mut lease = Self::new(seat, permit);
        lease.inspected = true;
        lease
    }

    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.seat().idle_since)
    }

    /// Gives the connection back.
    pub fn release(self) {}

    /// Ends the connection; its place is free for another.
    pub fn close(mut self) {
        self.seat_mut().doomed = true;
    }

    /// Makes sure that dropping the lease closes the connection. Undone by [`Lease::redeem`]:
    /// set it before an exchange and a cancelled one can never leak a connection in an
    /// unknown state.
    pub fn condemn(&mut self) {
        self.seat_mut().doomed = true;
    }

    /// The connection is clean again after a [`Lease::condemn`].
    pub fn redeem(&mut self) {
        self.seat_mut().doomed = false;
    }

    fn seat(&self) -> &TakenSeat<M> {
        match &self.held {
            Some(held) => &held.seat,
            None => unreachable!("only a lease that is being dropped holds nothing"),
        }
    }

    fn seat_mut(&mut self) -> &mut TakenSeat<M> {
        match &mut self.held {
            Some(held) => &mut held.seat,
            None => unreachable!("only a lease that is being dropped holds nothing"),
        }
    }
}

impl<M: Manager> Deref for Lease<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        &self.seat().conn
    }
}

impl<M: Manager> DerefMut for Lease<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.seat_mut().conn
    }
}

impl<M: Manager> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("pool", &self.seat().pool.name).finish_non_exhaustive()
    }
}

impl<M: Manager> Drop for Lease<M> {
    fn drop(&mut self) {
        let Some(Held { mut seat, permit }) = self.held.take() else { return };
        let now = Instant::now();
        if !self.inspected {
            seat.idle_since = now;
        }
        let pool = &seat.pool;
        if seat.is_expired(now) || (pool.shrinking.load(Ordering::Relaxed) && pool.is_oversized()) {
            seat.doomed = true;
        }
        // Whoever has a permit and would rather not dial came before those in line.
        let left = if seat.doomed || seat.pool.dialer.is_busy() {
            Err(Admission { legacy: Some(seat), permit })
        } else {
            permit.pass_on(seat)
        };
        if let Err(Admission { legacy, permit }) = left {
            // The connection must lie on the shelf before anybody comes to look.
            drop(legacy);
            drop(permit);
        }
    }
}
