//! What bb8 is used for: the stack of idle connections, and the count of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Manager;

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
pub(super) type TakenSeat<M> = bb8::PooledConnection<'static, Shelf<M>>;

/// Who says whether a connection may be used again.
struct Judge<M> {
    manager: M,
    /// Connections of an older generation are closed when next seen.
    generation: AtomicU64,
}

impl<M: Manager> Judge<M> {
    fn is_done_for(&self, seat: &mut Seat<M::Connection>) -> bool {
        seat.doomed
            || seat.generation != self.generation.load(Ordering::Relaxed)
            || self.manager.has_broken(&mut seat.conn)
    }
}

/// bb8's view of a proxy's manager: it judges connections and never makes one.
pub(super) struct Shelf<M>(Arc<Judge<M>>);

/// bb8 asked for a connection. Dialling is not its business here.
#[derive(Debug)]
pub(super) struct NothingIdle;

impl<M: Manager> bb8::ManageConnection for Shelf<M> {
    type Connection = Seat<M::Connection>;
    type Error = NothingIdle;

    async fn connect(&self) -> Result<Self::Connection, NothingIdle> {
        Err(NothingIdle)
    }

    async fn is_valid(&self, _seat: &mut Self::Connection) -> Result<(), NothingIdle> {
        Ok(())
    }

    fn has_broken(&self, seat: &mut Self::Connection) -> bool {
        self.0.is_done_for(seat)
    }
}

pub(super) struct Inventory<M: Manager> {
    seats: bb8::Pool<Shelf<M>>,
    judge: Arc<Judge<M>>,
}

impl<M: Manager> Inventory<M> {
    pub(super) fn new(manager: M, runtime: &Handle) -> Self {
        let judge = Arc::new(Judge { manager, generation: AtomicU64::new(0) });
        let _context = runtime.enter();
        let seats = bb8::Pool::builder()
            // The gate is the bound; this only says that bb8 is none.
            .max_size(u32::MAX)
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .test_on_check_out(false)
            .retry_connection(false)
            // Ages are the keeper's business: bb8 would close the warm ones too.
            .max_lifetime(None)
            .idle_timeout(None)
            .build_unchecked(Shelf(Arc::clone(&judge)));
        Self { seats, judge }
    }

    pub(super) fn manager(&self) -> &M {
        &self.judge.manager
    }

    /// The idle connection used last that still works; those found broken are closed.
    pub(super) fn take(&self) -> Option<TakenSeat<M>> {
        loop {
            // bb8 answers at the first poll when something is idle; we do not wait in it.
            let seat = self.seats.get_owned().now_or_never()?.ok()?;
            if let Some(seat) = self.vetted(seat) {
                return Some(seat);
            }
        }
    }

    /// A seat whose connection still works; another is closed.
    pub(super) fn vetted(&self, mut seat: TakenSeat<M>) -> Option<TakenSeat<M>> {
        seat.doomed = self.judge.is_done_for(&mut seat);
        (!seat.doomed).then_some(seat)
    }

    /// Puts a connection just made among the idle.
    pub(super) fn add(&self, conn: M::Connection, now: Instant, lifetime: Option<Duration>) {
        let seat = Seat {
            conn,
            generation: self.judge.generation.load(Ordering::Relaxed),
            expires: lifetime.map(|lifetime| now + lifetime),
            idle_since: now,
            doomed: false,
        };
        // Refused only when it broke in this instant; then it is closed here and the
        // caller finds nothing to take, and dials again.
        drop(self.seats.add(seat));
    }

    /// Ends every connection there is: idle ones now, leased ones as they come back.
    pub(super) fn renew(&self) {
        self.judge.generation.fetch_add(1, Ordering::Relaxed);
        // Taking closes what is done for until it meets one made since; that goes back.
        drop(self.take());
    }

    pub(super) fn idle(&self) -> usize {
        self.seats.state().idle_connections as usize
    }

    /// Connections there are, idle and leased.
    pub(super) fn total(&self) -> usize {
        self.seats.state().connections as usize
    }
}
