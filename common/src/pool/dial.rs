//! Making connections: whose turn it is, for how long, and what went wrong.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::inventory::TakenSeat;
use super::lease::Lease;
use super::{LeaseError, Manager, Shared, until};
use crate::admission::Permit;
use crate::balance::Dice;
use crate::discovery::fresh_dice;
use crate::health::{Backoff, Redial, Turn};

/// A connection lives for a random share of the longest lifetime, from this to all of it.
const LIFETIME_SHARE_MIN: f64 = 0.8;

/// Keeps all who want to dial one server from doing so at once when it is down.
pub(super) struct Dialer {
    state: Mutex<State>,
    /// Dialling or waiting to.
    busy: AtomicUsize,
    /// The state changed, or a connection came back: look again.
    changed: Notify,
    origin: Instant,
}

struct State {
    redial: Redial,
    dice: Dice,
    last_error: Option<String>,
}

impl Dialer {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            state: Mutex::new(State { redial: Redial::new(backoff), dice: fresh_dice(), last_error: None }),
            busy: AtomicUsize::new(0),
            changed: Notify::new(),
            origin: Instant::now(),
        }
    }

    pub(super) fn set_backoff(&self, backoff: Backoff) {
        self.state.lock().redial.set_backoff(backoff);
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.state.lock().last_error.clone()
    }

    /// Whether anybody dials, or waits to, and would take an idle connection instead.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Wakes those who would rather have an idle connection than dial.
    pub(super) fn connection_came_back(&self) {
        if self.is_busy() {
            self.changed.notify_waiters();
        }
    }

    /// A number in `low..1.0` from this pool's dice.
    pub(super) fn jitter(&self, low: f64) -> f64 {
        low + self.state.lock().dice.unit() * (1.0 - low)
    }

    /// The right to dial if it can be had without waiting.
    fn turn_now(&self) -> Option<Attempt<'_>> {
        let turn = self.state.lock().redial.ask(self.origin.elapsed());
        match turn {
            Turn::Dial => Some(Attempt { dialer: self, reported: false }),
            Turn::Wait(_) | Turn::Watch => None,
        }
    }

    /// The right to dial now; `None` when it is worth looking for an idle connection again.
    async fn turn(&self) -> Option<Attempt<'_>> {
        let mut changed = pin!(self.changed.notified());
        changed.as_mut().enable();
        let turn = self.state.lock().redial.ask(self.origin.elapsed());
        match turn {
            Turn::Dial => return Some(Attempt { dialer: self, reported: false }),
            Turn::Wait(pause) => tokio::select! {
                () = sleep(pause) => {}
                () = changed => {}
            },
            Turn::Watch => changed.await,
        }
        None
    }
}

/// One dial under way. Dropped without a report (its caller was cancelled) it passes the turn on.
struct Attempt<'a> {
    dialer: &'a Dialer,
    reported: bool,
}

impl Attempt<'_> {
    /// Whether the dial before this one had failed.
    fn succeeded(mut self) -> bool {
        let mut state = self.dialer.state.lock();
        state.redial.succeeded();
        self.reported = true;
        state.last_error.take().is_some()
    }

    /// The server is well, but this connection it does not want.
    fn answered(mut self, reason: &str) {
        let mut state = self.dialer.state.lock();
        state.redial.succeeded();
        state.last_error = Some(reason.to_owned());
        self.reported = true;
    }

    /// Nobody answers, or nothing that makes sense.
    fn failed(mut self, reason: &str) {
        let state = &mut *self.dialer.state.lock();
        state.redial.failed(self.dialer.origin.elapsed(), state.dice.unit());
        state.last_error = Some(reason.to_owned());
        self.reported = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.reported {
            self.dialer.state.lock().redial.gave_up(self.dialer.origin.elapsed());
        }
        self.dialer.changed.notify_waiters();
    }
}

/// Counts somebody among the busy for as long as it lives.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The rest of a lease for a holder of a permit who found nothing idle.
pub(super) async fn lease_by_dialling<M: Manager>(
    pool: &Arc<Shared<M>>,
    permit: Permit<TakenSeat<M>>,
    deadline: Option<Instant>,
) -> Result<Lease<M>, LeaseError<M::Error>> {
    let _busy = Busy::enter(&pool.dialer.busy);
    let patience = async {
        loop {
            if let Some(seat) = pool.take() {
                return Ok(seat);
            }
            let Some(attempt) = pool.dialer.turn().await else { continue };
            match dial(pool, attempt).await {
                Ok(()) => {}
                Err(DialError::Refused(error))
                    if deadline.is_some() && pool.inventory.manager.retry(&error) => {}
                Err(DialError::Refused(error)) => return Err(LeaseError::Connect(error)),
                Err(DialError::TooSlow) if deadline.is_some() => {}
                Err(DialError::TooSlow) => return Err(pool.unreachable()),
            }
        }
    };
    let seat = tokio::select! {
        biased;
        seat = patience => seat?,
        () = until(deadline) => return Err(pool.unreachable()),
    };
    Ok(Lease::new(seat, permit))
}

/// Opens one connection and leaves it idle, if that is possible at this instant: a permit is
/// free, and the server is not being left alone.
pub(super) async fn warm_one<M: Manager>(pool: &Shared<M>) -> bool {
    let Some(_permit) = pool.gate.try_acquire() else { return false };
    let Some(attempt) = pool.dialer.turn_now() else { return false };
    dial(pool, attempt).await.is_ok()
}

enum DialError<E> {
    Refused(E),
    TooSlow,
}

impl<M: Manager> Shared<M> {
    /// How long a connection lives that is made now.
    pub(super) fn lifetime(&self) -> Option<Duration> {
        let max = self.config.lock().max_lifetime;
        max.map(|lifetime| lifetime.mul_f64(self.dialer.jitter(LIFETIME_SHARE_MIN)))
    }
}

/// Dials once; the connection lies among the idle afterwards.
async fn dial<M: Manager>(pool: &Shared<M>, attempt: Attempt<'_>) -> Result<(), DialError<M::Error>> {
    let connect_timeout = pool.config.lock().connect_timeout;
    let manager = &pool.inventory.manager;
    let error = match timeout(connect_timeout, manager.connect()).await {
        Ok(Ok(conn)) => {
            pool.inventory.add(conn, Instant::now(), pool.lifetime());
            if pool.is_oversized() {
                // It was on its way when the bound was lowered.
                pool.shrinking.store(true, Ordering::Relaxed);
            }
            pool.counts.opened.fetch_add(1, Ordering::Relaxed);
            if attempt.succeeded() {
                info!(pool = pool.name, "connected again");
            }
            return Ok(());
        }
        Ok(Err(error)) => DialError::Refused(error),
        Err(_) => DialError::TooSlow,
    };
    pool.counts.dial_failures.fetch_add(1, Ordering::Relaxed);
    let reason = match &error {
        DialError::Refused(error) => error.to_string(),
        DialError::TooSlow => format!("no connection within {connect_timeout:?}"),
    };
    // Once a failure, not once a try: a server that is away for an hour fills no log.
    if pool.dialer.last_error().as_ref() != Some(&reason) {
        warn!(pool = pool.name, reason, "cannot connect");
    }
    match &error {
        // The server is there and says no to this one: no reason to leave it alone.
        DialError::Refused(error) if !manager.retry(error) => attempt.answered(&reason),
        DialError::Refused(_) | DialError::TooSlow => attempt.failed(&reason),
    }
    Err(error)
}
