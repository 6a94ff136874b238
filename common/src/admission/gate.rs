//! The async shell around [`Line`]: a lock, a wake-up, and permits that give
//! themselves back.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use serde::Serialize;
use slab::Slab;
use tokio::sync::Notify;

use super::line::{Entry, Line, Priority, Ticket};

/// A fair, bounded gate. Clones share it. `T` is what the holder of a permit may leave to the next.
///
/// A permit that is released while somebody waits is handed to the first in line
/// directly, so a newcomer cannot snatch it. A waiter whose future is dropped
/// leaves the line at once, and a permit that was already on its way to it goes on
/// to the next. A permit costs two short locks, four with a wait, and no allocation.
#[derive(Debug)]
pub struct Gate<T = ()>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    /// Woken when the last permit of a shut gate comes back.
    empty: Notify,
}

#[derive(Debug)]
struct State<T> {
    /// Who waits, by its key among the places.
    line: Line<usize>,
    /// One for each who waits, or has not yet looked what it waited for.
    places: Slab<Place<T>>,
}

/// What somebody in line will find when it looks.
#[derive(Debug)]
enum Place<T> {
    /// Nothing yet.
    Waiting(Waker),
    /// A permit is out in its name, and what was left with it.
    Served(Option<T>),
    /// It went home with all others.
    Closed,
}

/// The right to run one exchange. Dropping it lets the next one in.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once admits nobody"]
pub struct Permit<T = ()>(
    /// None once it was passed on.
    Option<Arc<Shared<T>>>,
);

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
        let state = State { line: Line::new(limit, waiting_max), places: Slab::new() };
        Self(Arc::new(Shared { state: Mutex::new(state), empty: Notify::new() }))
    }

    /// A permit if one is free and nobody waits for it.
    pub fn try_acquire(&self) -> Option<Permit<T>> {
        let free = self.0.state.lock().line.try_enter();
        free.then(|| self.permit())
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
        let mut caller = Caller { gate: self, priority, place: None };
        let mut deadline = pin!(deadline);
        poll_fn(|cx| match caller.poll(cx) {
            Poll::Pending => {
                ready!(deadline.as_mut().poll(cx));
                match caller.poll(cx) {
                    Poll::Pending => Poll::Ready(Err(Refused::TimedOut)),
                    admitted => admitted,
                }
            }
            admitted => admitted,
        })
        .await
    }

    /// Changes the number of permits and of places in line.
    ///
    /// Growing lets those in who now fit; shrinking throws nobody out.
    pub fn resize(&self, limit: usize, waiting_max: usize) {
        let wakers: Vec<_> = {
            let state = &mut *self.0.state.lock();
            let admitted = state.line.resize(limit, waiting_max);
            admitted.into_iter().filter_map(|key| state.settle(key, Place::Served(None))).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
        self.0.empty.notify_waiters();
    }

    /// Refuses everybody from now on, those in line included; permits that are out stay valid.
    pub fn close(&self) {
        let wakers: Vec<_> = {
            let state = &mut *self.0.state.lock();
            let sent_home = state.line.close();
            sent_home.into_iter().filter_map(|key| state.settle(key, Place::Closed)).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
        self.0.empty.notify_waiters();
    }

    /// Waits until nobody is let in (closed, or a limit of 0) and every permit is back.
    pub async fn quiet(&self) {
        loop {
            let mut change = pin!(self.0.empty.notified());
            change.as_mut().enable();
            if self.0.state.lock().line.is_quiet() {
                return;
            }
            change.await;
        }
    }

    /// Limits and counts at this instant.
    pub fn status(&self) -> GateStatus {
        let line = &self.0.state.lock().line;
        GateStatus {
            limit: line.limit(),
            in_use: line.in_use(),
            waiting: line.waiting(),
            waiting_max: line.waiting_max(),
            closed: line.is_closed(),
        }
    }

    /// One that is counted as out already.
    fn permit(&self) -> Permit<T> {
        Permit(Some(Arc::clone(&self.0)))
    }
}

impl<T> State<T> {
    /// Leaves at a place what its holder waits for. `Some` is to be woken, outside of the lock.
    fn settle(&mut self, key: usize, outcome: Place<T>) -> Option<Waker> {
        let place = self.places.get_mut(key)?;
        match std::mem::replace(place, outcome) {
            Place::Waiting(waker) => Some(waker),
            Place::Served(_) | Place::Closed => None,
        }
    }
}

impl<T> Permit<T> {
    /// Whoever is next in line gets the permit, and `legacy` with it. Both come back when nobody waits, or when
    /// there are more permits out than there should be.
    pub fn pass_on(mut self, legacy: T) -> Result<(), Admission<T>> {
        let Some(shared) = self.0.take() else { return Ok(()) };
        let mut state = shared.state.lock();
        let Some(key) = state.line.pass_on() else {
            drop(state);
            return Err(Admission { legacy: Some(legacy), permit: Permit(Some(shared)) });
        };
        let heir = state.settle(key, Place::Served(Some(legacy)));
        drop(state);
        heir.into_iter().for_each(Waker::wake);
        Ok(())
    }
}

impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        let Some(shared) = &self.0 else { return };
        let mut state = shared.state.lock();
        let heir = state.line.release().and_then(|key| state.settle(key, Place::Served(None)));
        let last = state.line.is_quiet();
        drop(state);
        heir.into_iter().for_each(Waker::wake);
        if last {
            shared.empty.notify_waiters();
        }
    }
}

/// Somebody who comes to the gate. Its place in line, if it has one, is given up when this is dropped.
struct Caller<'a, T> {
    gate: &'a Gate<T>,
    priority: Priority,
    place: Option<(Ticket, usize)>,
}

impl<T> Caller<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Admission<T>, Refused>> {
        let mut state = self.gate.0.state.lock();
        let State { line, places } = &mut *state;
        let Some((_, key)) = self.place else {
            let mut key = 0;
            let entry = line.enter(self.priority, || {
                key = places.insert(Place::Waiting(cx.waker().clone()));
                key
            });
            return match entry {
                Entry::Admitted => Poll::Ready(Ok(Admission { legacy: None, permit: self.gate.permit() })),
                Entry::Full => Poll::Ready(Err(Refused::QueueFull)),
                Entry::Closed => Poll::Ready(Err(Refused::Closed)),
                Entry::Queued(ticket) => {
                    self.place = Some((ticket, key));
                    Poll::Pending
                }
            };
        };
        if let Some(Place::Waiting(waker)) = places.get_mut(key) {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        self.place = None;
        Poll::Ready(match places.try_remove(key) {
            Some(Place::Served(legacy)) => Ok(Admission { legacy, permit: self.gate.permit() }),
            Some(Place::Waiting(_) | Place::Closed) | None => Err(Refused::Closed),
        })
    }
}

impl<T> Drop for Caller<'_, T> {
    fn drop(&mut self) {
        let Some((ticket, key)) = self.place else { return };
        let mut state = self.gate.0.state.lock();
        let place = state.places.try_remove(key);
        if let Some(Place::Waiting(_)) = place {
            state.line.cancel(ticket);
        }
        drop(state);
        if let Some(Place::Served(legacy)) = place {
            // It was on its way: it goes on to the next.
            drop(Admission { legacy, permit: self.gate.permit() });
        }
    }
}
