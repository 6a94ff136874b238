//! The async shell around [`Line`]: a lock, a wake-up, and permits that give
//! themselves back.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, oneshot};

use super::line::{Entry, Line, Priority, Ticket};

/// A fair, bounded gate. Clones share it. `T` is what the holder of a permit may leave to the next.
///
/// A permit that is released while somebody waits is handed to the first in line
/// directly, so a newcomer cannot snatch it. A waiter whose future is dropped
/// leaves the line at once, and a permit that was already on its way to it goes on
/// to the next. Uncontended, a permit costs two short locks and no allocation.
#[derive(Debug)]
pub struct Gate<T = ()>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    line: Mutex<Line<oneshot::Sender<Admission<T>>>>,
    /// Woken when the last permit of a shut gate comes back.
    empty: Notify,
}

/// The right to run one exchange. Dropping it lets the next one in.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once admits nobody"]
pub struct Permit<T = ()>(Arc<Shared<T>>);

/// A permit, and what the one who had it before left with it.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once admits nobody"]
pub struct Admission<T = ()> {
    // Dropped in this order: what was left is back in its place before the next one comes.
    /// See [`Permit::pass_on`].
    pub legacy: Option<T>,
    /// The right to run one exchange.
    pub permit: Permit<T>,
}

/// Why the gate said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many wait already as may.
    #[error("too many are waiting already")]
    QueueFull,
    /// The caller's deadline came before its turn.
    #[error("timed out while waiting in line")]
    TimedOut,
    /// The gate is draining.
    #[error("closed")]
    Closed,
}

/// What a gate looks like from outside, for the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GateStatus {
    /// Permits there are.
    pub limit: usize,
    /// Permits that are out; more than `limit` for a while after it was lowered.
    pub in_use: usize,
    /// Callers in line.
    pub waiting: usize,
    /// Callers that may be in line.
    pub waiting_max: usize,
    /// Whether nobody is let in any more.
    pub closed: bool,
}

impl<T> Clone for Gate<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Gate<T> {
    /// A gate of `limit` permits before which at most `waiting_max` callers wait.
    pub fn new(limit: usize, waiting_max: usize) -> Self {
        Self(Arc::new(Shared { line: Mutex::new(Line::new(limit, waiting_max)), empty: Notify::new() }))
    }

    /// A permit if one is free and nobody waits for it.
    pub fn try_acquire(&self) -> Option<Permit<T>> {
        let free = self.0.line.lock().try_enter();
        free.then(|| Permit(Arc::clone(&self.0)))
    }

    /// A permit now, or in turn, or [`Refused::TimedOut`] once `deadline` resolves.
    ///
    /// `deadline` is polled only by those who have to wait; `sleep_until(..)` is the
    /// usual one, `pending()` means never. If a permit arrives together with the
    /// deadline, the permit wins.
    pub async fn acquire<D>(&self, priority: Priority, deadline: D) -> Result<Admission<T>, Refused>
    where
        D: Future,
    {
        let mut arrival = None;
        let entry = self.0.line.lock().enter(priority, || {
            let (waker, turn) = oneshot::channel();
            arrival = Some(turn);
            waker
        });
        let ticket = match entry {
            Entry::Admitted => return Ok(Admission::bare(&self.0)),
            Entry::Full => return Err(Refused::QueueFull),
            Entry::Closed => return Err(Refused::Closed),
            Entry::Queued(ticket) => ticket,
        };
        let Some(turn) = arrival else { return Err(Refused::Closed) };
        Place { gate: self, ticket, turn, is_in_line: true }.wait(deadline).await
    }

    /// Changes the number of permits and of places in line.
    ///
    /// Growing lets those in who now fit; shrinking throws nobody out.
    pub fn resize(&self, limit: usize, waiting_max: usize) {
        let admitted = self.0.line.lock().resize(limit, waiting_max);
        for waiter in admitted {
            hand_over(Admission::bare(&self.0), waiter);
        }
        self.0.empty.notify_waiters();
    }

    /// Refuses everybody from now on, those in line included; permits that are out stay valid.
    pub fn close(&self) {
        drop(self.0.line.lock().close());
        self.0.empty.notify_waiters();
    }

    /// Waits until nobody is let in (closed, or a limit of 0) and every permit is back.
    pub async fn quiet(&self) {
        loop {
            let mut change = pin!(self.0.empty.notified());
            change.as_mut().enable();
            if self.0.line.lock().is_quiet() {
                return;
            }
            change.await;
        }
    }

    /// Limits and counts at this instant.
    pub fn status(&self) -> GateStatus {
        let line = self.0.line.lock();
        GateStatus {
            limit: line.limit(),
            in_use: line.in_use(),
            waiting: line.waiting(),
            waiting_max: line.waiting_max(),
            closed: line.is_closed(),
        }
    }
}

impl<T> Admission<T> {
    fn bare(gate: &Arc<Shared<T>>) -> Self {
        Self { legacy: None, permit: Permit(Arc::clone(gate)) }
    }
}

impl<T> Permit<T> {
    /// Whoever is next in line gets the permit, and `legacy` with it. Both come back when nobody waits, or when
    /// there are more permits out than there should be.
    pub fn pass_on(self, legacy: T) -> Result<(), Admission<T>> {
        let heir = self.0.line.lock().pass_on();
        let admission = Admission { legacy: Some(legacy), permit: self };
        match heir {
            Some(waiter) => hand_over(admission, waiter),
            None => return Err(admission),
        }
        Ok(())
    }
}

impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        let mut line = self.0.line.lock();
        let heir = line.release();
        let last = line.is_quiet();
        drop(line);
        if let Some(waiter) = heir {
            hand_over(Admission::bare(&self.0), waiter);
        }
        if last {
            self.0.empty.notify_waiters();
        }
    }
}

/// A waiter that is gone gives the permit back by dropping it, which serves the next one.
fn hand_over<T>(admission: Admission<T>, waiter: oneshot::Sender<Admission<T>>) {
    drop(waiter.send(admission));
}

/// A place in line, given up when dropped.
struct Place<'a, T> {
    gate: &'a Gate<T>,
    ticket: Ticket,
    turn: oneshot::Receiver<Admission<T>>,
    /// As far as is known here.
    is_in_line: bool,
}

impl<T> Place<'_, T> {
    async fn wait<D: Future>(mut self, deadline: D) -> Result<Admission<T>, Refused> {
        let timed_out = {
            let turn = pin!(&mut self.turn);
            match select(turn, pin!(deadline)).await {
                Either::Left((admission, _)) => {
                    self.is_in_line = false;
                    return admission.map_err(|_| Refused::Closed);
                }
                Either::Right(_) => self.gate.0.line.lock().cancel(self.ticket).is_some(),
            }
        };
        self.is_in_line = false;
        if timed_out {
            return Err(Refused::TimedOut);
        }
        // Somebody took us out of the line just now: a permit (or the news that the
        // gate closed) is already on its way.
        (&mut self.turn).await.map_err(|_| Refused::Closed)
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        // A permit that was sent meanwhile sits in `turn` and is released with it.
        if self.is_in_line {
            drop(self.gate.0.line.lock().cancel(self.ticket));
        }
    }
}
