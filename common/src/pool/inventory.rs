//! The stack of idle connections, and the count of all.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Manager, Shared};

/// A connection, and what decides when it ends.
pub(super) struct Seat<C> {
    pub(super) conn: C,
    generation: u64,
    expires: Option<Instant>,
    pub(super) idle_since: Instant,
    /// Not to be used again, whoever said so.
    pub(super) doomed: bool,
}

impl<C> Seat<C> {
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }
}

/// A seat taken out of the inventory; dropping it puts it back, or closes it if it is done for.
pub(super) struct TakenSeat<M: Manager> {
    /// Gone only once this is being dropped. Boxed: it changes hands often.
    seat: Option<Box<Seat<M::Connection>>>,
    pub(super) pool: Arc<Shared<M>>,
}

impl<M: Manager> TakenSeat<M> {
    /// A seat whose connection still works; another is closed.
    pub(super) fn vetted(mut self) -> Option<Self> {
        self.doomed = self.pool.inventory.is_done_for(self.seat.as_mut()?);
        (!self.doomed).then_some(self)
    }
}

impl<M: Manager> Deref for TakenSeat<M> {
    type Target = Seat<M::Connection>;

    fn deref(&self) -> &Self::Target {
        match &self.seat {
            Some(seat) => seat,
            None => unreachable!("only a seat that is being dropped holds nothing"),
        }
    }
}

impl<M: Manager> DerefMut for TakenSeat<M> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match &mut self.seat {
            Some(seat) => seat,
            None => unreachable!("only a seat that is being dropped holds nothing"),
        }
    }
}

impl<M: Manager> Drop for TakenSeat<M> {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            self.pool.inventory.put(seat);
            self.pool.dialer.connection_came_back();
        }
    }
}

pub(super) struct Inventory<M: Manager> {
    pub(super) manager: M,
    /// Connections of an older generation are closed when next seen.
    generation: AtomicU64,
    /// The warmest on top. Connections are closed, and judged, outside of the lock.
    idle: Mutex<Vec<Box<Seat<M::Connection>>>>,
    /// Idle and taken.
    total: AtomicUsize,
}

impl<M: Manager> Inventory<M> {
    pub(super) fn new(manager: M) -> Self {
        Self {
            manager,
            generation: AtomicU64::new(0),
            idle: Mutex::new(Vec::new()),
            total: AtomicUsize::new(0),
        }
    }

    /// Puts a connection just made among the idle.
    pub(super) fn add(&self, conn: M::Connection, now: Instant, lifetime: Option<Duration>) {
        self.total.fetch_add(1, Ordering::Relaxed);
        // Should it have broken in this instant it is closed here; its caller finds nothing to take, and dials again.
        self.put(Box::new(Seat {
            conn,
            generation: self.generation.load(Ordering::Relaxed),
            expires: lifetime.map(|lifetime| now + lifetime),
            idle_since: now,
            doomed: false,
        }));
    }

    /// Ends every connection there is: idle ones now, leased ones as they come back.
    pub(super) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        for seat in std::mem::take(&mut *self.idle.lock()) {
            self.put(seat);
        }
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.lock().len()
    }

    /// Connections there are, idle and leased.
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn put(&self, mut seat: Box<Seat<M::Connection>>) {
        if self.is_done_for(&mut seat) {
            drop(seat);
            self.total.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.idle.lock().push(seat);
        }
    }

    fn is_done_for(&self, seat: &mut Seat<M::Connection>) -> bool {
        seat.doomed
            || seat.generation != self.generation.load(Ordering::Relaxed)
            || self.manager.has_broken(&mut seat.conn)
    }
}

impl<M: Manager> Shared<M> {
    /// The idle connection used last that still works; those found broken are closed.
    pub(super) fn take(self: &Arc<Self>) -> Option<TakenSeat<M>> {
        loop {
            let seat = self.inventory.idle.lock().pop()?;
            if let Some(seat) = (TakenSeat { seat: Some(seat), pool: Arc::clone(self) }).vetted() {
                return Some(seat);
            }
        }
    }
}
