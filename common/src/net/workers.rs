//! The threads that serve connections, and which of them gets the next.
//!
//! ```text
//!                        ┌─► worker 0: runtime, sessions, service   (PerCore: one thread each,
//!  acceptor ─ least ─────┼─► worker 1: runtime, sessions, service    nothing shared)
//!             loaded     └─► worker 2: ...
//!
//!  acceptor ─────────────► one service, its sessions on the multi-thread runtime   (Shared)
//! ```
//!
//! SO_REUSEPORT would save the hand-off, but the kernel spreads by a hash of the addresses: with few
//! connections some workers idle while others queue.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::error;

use super::downstream::{Handed, Open};
use super::service::{Flavour, LocalSink, Service, WorkerId};
use crate::telemetry;

/// Where accepted connections go.
pub(super) struct Workers {
    workers: Vec<Worker>,
    /// Where the search for the least loaded begins, so that ties go round.
    turn: AtomicUsize,
}

struct Worker {
    open: Arc<Open>,
    sink: Sink,
    /// Its death has been logged.
    is_mourned: AtomicBool,
}

enum Sink {
    /// The queue is bounded by the process's descriptors, of which each connection holds one (a listener's cap
    /// is below that), and a worker empties it every turn.
    Thread(UnboundedSender<Handed>),
    Shared {
        service: Arc<dyn Fn(Handed) + Send + Sync>,
        runtime: Handle,
    },
}

impl Workers {
    /// Starts `count` threads for a service of its own each; a shared one runs on `runtime`.
    pub(super) fn start(service: &Service, count: usize, runtime: &Handle) -> io::Result<Self> {
        let workers = match &service.flavour {
            Flavour::PerCore(make) => (0..count.max(1))
                .map(|index| start_thread(WorkerId(index), Arc::clone(make)))
                .collect::<io::Result<_>>()?,
            Flavour::Shared(service) => {
                let sink = Sink::Shared { service: Arc::clone(service), runtime: runtime.clone() };
                vec![Worker::new(sink)]
            }
        };
        Ok(Self { workers, turn: AtomicUsize::new(0) })
    }

    /// Gives the connection to the worker with the fewest. `handed` gets that worker's count for its permit.
    pub(super) fn hand(&self, handed: impl FnOnce(&Arc<Open>) -> Handed) {
        let Some(worker) = self.least_loaded() else { return };
        let handed = handed(&worker.open);
        match &worker.sink {
            // A thread that dies in this very moment takes no more: the connection closes with `handed`.
            Sink::Thread(queue) => drop(queue.send(handed)),
            Sink::Shared { service, runtime } => {
                let _entered = runtime.enter();
                service(handed);
            }
        }
    }

    /// The one with the fewest connections among those that live: a dead one has none at all.
    fn least_loaded(&self) -> Option<&Worker> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let (before, after) = self.workers.split_at(start % self.workers.len().max(1));
        after.iter().chain(before).filter(|worker| worker.lives()).min_by_key(|worker| worker.open.count())
    }

    /// The count for a connection that comes from another process: only a shared service takes any.
    pub(super) fn of_resumed(&self) -> Arc<Open> {
        self.workers.first().map(|worker| Arc::clone(&worker.open)).unwrap_or_default()
    }

    /// Open connections of each worker.
    pub(super) fn open(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.open.count()).collect()
    }
}

impl Worker {
    fn new(sink: Sink) -> Self {
        Self { open: Arc::default(), sink, is_mourned: AtomicBool::new(false) }
    }

    /// Whether its thread takes connections. That it does not is said once.
    fn lives(&self) -> bool {
        let lives = match &self.sink {
            Sink::Thread(queue) => !queue.is_closed(),
            Sink::Shared { .. } => true,
        };
        if !lives && !self.is_mourned.swap(true, Ordering::Relaxed) {
            error!("a worker thread has died; the others take its share until a restart");
        }
        lives
    }
}

fn start_thread(id: WorkerId, make: Arc<dyn Fn(WorkerId) -> LocalSink + Send + Sync>) -> io::Result<Worker> {
    let (queue, handed) = unbounded_channel();
    // Runtime and service must be made on their own thread; whether that went well is the caller's to report.
    let (ready, started) = mpsc::channel();
    thread::Builder::new().name(format!("worker-{}", id.0)).spawn(move || {
        telemetry::become_worker(id.0);
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                runtime.block_on(async {
                    // The service is made where it lives.
                    let sink = make(id);
                    drop(ready.send(Ok(())));
                    take(handed, sink).await;
                });
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    started.recv().map_err(io::Error::other)??;
    Ok(Worker::new(Sink::Thread(queue)))
}

/// A worker's life: every connection becomes a task of this thread.
async fn take(mut queue: UnboundedReceiver<Handed>, sink: LocalSink) {
    while let Some(handed) = queue.recv().await {
        sink(handed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_worker_is_passed_over() {
        let (queues, mut takers): (Vec<_>, Vec<_>) = (0..3).map(|_| unbounded_channel()).unzip();
        let workers = queues.into_iter().map(|queue| Worker::new(Sink::Thread(queue))).collect();
        let workers = Workers { workers, turn: AtomicUsize::new(0) };
        let chosen = || {
            let found = workers.least_loaded()?;
            workers.workers.iter().position(|worker| std::ptr::eq(worker, found))
        };
        drop(takers.remove(1));
        assert_eq!([chosen(), chosen(), chosen()], [Some(0), Some(2), Some(2)]);
        takers.clear();
        assert_eq!(chosen(), None);
    }
}
