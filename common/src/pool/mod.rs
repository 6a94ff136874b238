//! Exclusive connections behind a fair gate.
//!
//! ```text
//!            permit              idle one, or dial            put back, permit on
//!  lease ──► Gate (admission) ──► inventory ──► Lease ──► inventory ──► Gate
//!              fair, bounded   LIFO: warmest first │
//!                    ▲                             │
//!                    └── somebody waits: both go on┘
//! ```
//!
//! Nobody waits in the inventory. A permit comes first, and whoever holds one and finds
//! nothing idle dials by itself and gets the server's own answer. Since only holders of
//! permits dial, and connections go back before permits do, there are never more
//! connections than permits.
//!
//! [`IdleList`] is the smaller sibling for thread-per-core workers.

mod dial;
mod idle;
mod inventory;
mod keeper;
mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::{Admission, Gate, Priority, Refused};
use crate::health::Backoff;

pub use idle::IdleList;
pub use lease::Lease;

use dial::Dialer;
use inventory::{Inventory, TakenSeat};

#[cfg(test)]
mod tests;

/// How a proxy makes connections.
pub trait Manager: Send + Sync + Sized + 'static {
    /// What is lent.
    type Connection: Send + 'static;
    /// Why there is none.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes one, handshake included.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Whether a connection is of no use any more. Asked on every way out of and back into the pool: it must be cheap.
    fn has_broken(&self, conn: &mut Self::Connection) -> bool;

    /// Whether dialling again may help. A refused password will be refused again; a
    /// refused connection may not. What may not be retried goes to the caller at once.
    fn retry(&self, error: &Self::Error) -> bool {
        let _ = error;
        true
    }
}

/// Bounds of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Connections at most.
    pub size: usize,
    /// Callers that may wait for one.
    pub waiting_max: usize,
    /// Connections kept open even when nobody asks.
    pub warm: usize,
    /// Idle longer than this and above `warm`: closed.
    pub idle_timeout: Option<Duration>,
    /// Older than this, less a random share of up to a fifth so that connections opened
    /// together do not all end together: closed when next idle.
    pub max_lifetime: Option<Duration>,
    /// For one connection to be made, handshake included.
    pub connect_timeout: Duration,
    /// Between failed dials.
    pub backoff: Backoff,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            size: 20,
            waiting_max: 10_000,
            warm: 0,
            idle_timeout: Some(Duration::from_secs(600)),
            max_lifetime: Some(Duration::from_secs(3600)),
            connect_timeout: Duration::from_secs(5),
            backoff: Backoff::default(),
        }
    }
}

/// What a caller brings to [`Pool::lease`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Waiter {
    /// Its place among those who wait.
    pub priority: Priority,
    /// When it will have no use for a connection any more. Without a deadline a failed
    /// dial is reported at once; with one it is retried until then.
    pub deadline: Option<Instant>,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError<E> {
    /// The line was full, too slow, or is closed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The server (or the way to it) said no, and trying again is of no use or was not asked for.
    #[error("cannot connect: {0}")]
    Connect(E),
    /// The deadline passed while the server could not be reached.
    #[error("no connection before the deadline: {reason}")]
    Unreachable {
        /// The last dial's error, whoever dialled.
        reason: String,
    },
}

/// A pool of exclusive connections to one endpoint (and, for PostgreSQL, one user and
/// database). Clones share it; when the last one goes, so does its keeper.
pub struct Pool<M: Manager>(Arc<Shared<M>>);

impl<M: Manager> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<M: Manager> {
    name: String,
    gate: Gate<TakenSeat<M>>,
    inventory: Inventory<M>,
    dialer: Dialer,
    config: Mutex<PoolConfig>,
    /// The pool was shrunk and still has connections too many.
    shrinking: AtomicBool,
    paused: AtomicBool,
    /// Tells the keeper to look now rather than at its next round.
    wake_keeper: Arc<Notify>,
    counts: Counts,
}

/// Totals since the pool began.
#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    dial_failures: AtomicU64,
}

/// What a pool looks like from outside, for the admin API and the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// As configured.
    pub name: String,
    /// Connections at most.
    pub size: usize,
    /// Connections at work, those being dialled included.
    pub leased: usize,
    /// Connections at rest.
    pub idle: usize,
    /// Callers in line.
    pub waiting: usize,
    /// Callers that may be in line.
    pub waiting_max: usize,
    /// Leases are held back until `resume`.
    pub paused: bool,
    /// Leases are refused for good.
    pub closed: bool,
    /// Connections opened so far.
    pub opened: u64,
    /// Dials that failed so far.
    pub dial_failures: u64,
    /// Why the last dial failed, until one succeeds.
    pub last_error: Option<String>,
}

impl<M: Manager> Pool<M> {
    /// An empty pool; its keeper runs on `runtime` and opens the warm connections.
    pub fn start(name: impl Into<String>, manager: M, config: PoolConfig, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared {
            name: name.into(),
            gate: Gate::new(config.size, config.waiting_max),
            inventory: Inventory::new(manager),
            dialer: Dialer::new(config.backoff),
            config: Mutex::new(config),
            shrinking: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            wake_keeper: Arc::default(),
            counts: Counts::default(),
        });
        runtime.spawn(keeper::run(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// A connection for the caller alone: an idle one, a new one, or one in turn.
    ///
    /// Dropping the future at any point is safe: permits and connections find their way back.
    pub async fn lease(&self, waiter: Waiter) -> Result<Lease<M>, LeaseError<M::Error>> {
        self.lease_timed(waiter, until(waiter.deadline)).await
    }

    /// As [`Pool::lease`], for a caller with a timer of its own: `timer` resolves at the deadline.
    pub async fn lease_timed(
        &self,
        waiter: Waiter,
        timer: impl Future<Output = ()>,
    ) -> Result<Lease<M>, LeaseError<M::Error>> {
        let Admission { legacy, permit } = self.0.gate.acquire(waiter.priority, timer).await?;
        match legacy.and_then(TakenSeat::vetted).or_else(|| self.0.take()) {
            Some(seat) => Ok(Lease::new(seat, permit)),
            None => Box::pin(dial::lease_by_dialling(&self.0, permit, waiter.deadline)).await,
        }
    }

    /// Takes new bounds on. Growing serves those who wait at once; when it shrinks, the
    /// coldest connections are closed and busy ones as they come back.
    pub fn reconfigure(&self, config: PoolConfig) {
        self.0.dialer.set_backoff(config.backoff);
        let limit = if self.0.paused.load(Ordering::Relaxed) { 0 } else { config.size };
        let waiting_max = config.waiting_max;
        *self.0.config.lock() = config;
        self.0.shrinking.store(true, Ordering::Relaxed);
        // While there is still a permit for each idle one to be looked at with.
        keeper::sweep(&self.0);
        self.0.gate.resize(limit, waiting_max);
        self.0.wake_keeper.notify_one();
    }

    /// Replaces every connection: idle ones now, busy ones as they come back.
    pub fn reconnect(&self) {
        self.0.inventory.renew();
        self.0.wake_keeper.notify_one();
    }

    /// Puts connections in that were made ahead, as far as there is room for them: it is known that they will be wanted.
    pub fn stock(&self, connections: impl IntoIterator<Item = M::Connection>) {
        let now = Instant::now();
        for connection in connections {
            let size = self.0.config.lock().size;
            if self.0.inventory.total() >= size {
                return;
            }
            let lifetime = self.0.lifetime();
            self.0.counts.opened.fetch_add(1, Ordering::Relaxed);
            self.0.inventory.add(connection, now, lifetime);
        }
    }

    /// Looks at the idle connections now, and closes those that [`Manager::has_broken`] calls broken:
    /// something has changed that the manager knows of.
    pub fn tend(&self) {
        self.0.wake_keeper.notify_one();
    }

    /// Holds new leases back until [`Pool::resume`]: callers wait in line, to their deadlines. Those that are out stay.
    pub fn hold(&self) {
        self.0.paused.store(true, Ordering::Relaxed);
        let waiting_max = self.0.config.lock().waiting_max;
        self.0.gate.resize(0, waiting_max);
    }

    /// Holds new leases back, returns once none is out, and leaves no connection open.
    ///
    /// A pause that is given up (its future dropped) has closed nothing, but still holds: resume the pool.
    pub async fn pause(&self) {
        self.hold();
        self.empty().await;
    }

    /// The rest of a [`Pool::pause`] that began with a [`Pool::hold`]. Should the pool be resumed meanwhile, it holds
    /// nobody back again, and may never return.
    pub async fn empty(&self) {
        self.0.gate.quiet().await;
        self.0.inventory.renew();
    }

    /// Ends a [`Pool::hold`] or [`Pool::pause`], also one that is still waiting for leases to come back.
    pub fn resume(&self) {
        self.0.paused.store(false, Ordering::Relaxed);
        let (size, waiting_max) = {
            let config = self.0.config.lock();
            (config.size, config.waiting_max)
        };
        self.0.gate.resize(size, waiting_max);
    }

    /// Refuses new leases, waits for those that are out, and closes everything.
    pub async fn drain(&self) {
        self.0.gate.close();
        self.0.gate.quiet().await;
        self.0.inventory.renew();
    }

    /// Counts at this instant.
    pub fn status(&self) -> PoolStatus {
        let gate = self.0.gate.status();
        PoolStatus {
            name: self.0.name.clone(),
            size: self.0.config.lock().size,
            leased: gate.in_use,
            idle: self.0.inventory.idle(),
            waiting: gate.waiting,
            waiting_max: gate.waiting_max,
            paused: self.0.paused.load(Ordering::Relaxed),
            closed: gate.closed,
            opened: self.0.counts.opened.load(Ordering::Relaxed),
            dial_failures: self.0.counts.dial_failures.load(Ordering::Relaxed),
            last_error: self.0.dialer.last_error(),
        }
    }
}

impl<M: Manager> Shared<M> {
    fn unreachable(&self) -> LeaseError<M::Error> {
        let reason = self.dialer.last_error();
        LeaseError::Unreachable { reason: reason.unwrap_or_else(|| "no answer yet".to_owned()) }
    }
}

/// Resolves at the deadline, or never.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
