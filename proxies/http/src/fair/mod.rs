//! The proxy's own bound of exchanges under way, and who goes first when it is reached: apps and their tenants by turns.

mod line;

use crate::error::Error;
use crate::metrics::FairMetrics;
use groove_common::net::Stream;
use line::{Entry, FairLine, Ticket};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// How much, and who may wait how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Exchanges under way.
    pub limit: usize,
    /// Requests in one queue; a flow has six.
    pub length_max: usize,
    /// How long one waits.
    pub age_max: Duration,
}

/// The bound, for all workers. It outlives reloads.
#[derive(Debug)]
pub struct Fair {
    line: Mutex<FairLine<oneshot::Sender<Permit>>>,
    age_max: Mutex<Duration>,
    metrics: FairMetrics,
}

/// The right to have one exchange under way. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Permit(Arc<Fair>);

impl Fair {
    /// A bound that nobody uses yet.
    pub fn new(bounds: Bounds, metrics: FairMetrics) -> Self {
        let line = FairLine::new(bounds.limit, bounds.length_max);
        Self { line: Mutex::new(line), age_max: Mutex::new(bounds.age_max), metrics }
    }

    /// Other bounds.
    pub fn set(self: &Arc<Self>, bounds: Bounds) {
        *self.age_max.lock() = bounds.age_max;
        let admitted = self.line.lock().resize(bounds.limit, bounds.length_max);
        for waiter in admitted {
            self.hand_over(waiter);
        }
    }

    /// A permit, at once or in turn, for as long as the client is there.
    ///
    /// # Errors
    ///
    /// When the flow's queues are full, its turn does not come in time, or the client leaves.
    pub async fn enter(self: &Arc<Self>, flow: u64, client: &Stream) -> Result<Permit, Error> {
        let mut arrival = None;
        let entry = self.line.lock().enter(flow, || {
            let (turn, comes) = oneshot::channel();
            arrival = Some(comes);
            turn
        });
        match (entry, arrival) {
            (Entry::Admitted, _) => Ok(self.permit()),
            (Entry::Queued(ticket), Some(arrival)) => {
                self.metrics.waiting.inc();
                // Boxed, as most never wait.
                Box::pin(self.wait(Place { fair: Arc::clone(self), ticket, arrival }, client)).await
            }
            (Entry::Full | Entry::Queued(_), _) => {
                self.metrics.full.inc();
                Err(Error::Overloaded)
            }
        }
    }

    async fn wait(&self, mut place: Place, client: &Stream) -> Result<Permit, Error> {
        let (since, age_max) = (Instant::now(), *self.age_max.lock());
        tokio::select! {
            biased;
            permit = &mut place.arrival => {
                self.metrics.seconds.record(since.elapsed());
                permit.map_err(|_| Error::Overloaded)
            }
            () = client.closed() => Err(Error::ClientGone),
            () = sleep(age_max) => {
                self.metrics.timed_out.inc();
                Err(Error::Overloaded)
            }
        }
    }

    fn permit(self: &Arc<Self>) -> Permit {
        self.metrics.in_flight.inc();
        Permit(Arc::clone(self))
    }

    /// One that is gone gives its permit back by dropping it, which serves the next.
    fn hand_over(self: &Arc<Self>, waiter: oneshot::Sender<Permit>) {
        drop(waiter.send(self.permit()));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
        let heir = self.0.line.lock().release();
        if let Some(waiter) = heir {
            self.0.hand_over(waiter);
        }
    }
}

/// A place in line, given up when dropped.
#[derive(Debug)]
struct Place {
    fair: Arc<Fair>,
    ticket: Ticket,
    arrival: oneshot::Receiver<Permit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.fair.metrics.waiting.dec();
        // A permit that has come meanwhile is dropped after this, without the lock.
        let left = self.fair.line.lock().cancel(self.ticket);
        drop(left);
    }
}
