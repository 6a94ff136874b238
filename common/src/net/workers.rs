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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

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
                vec![Worker { open: Arc::default(), sink }]
            }
        };
        Ok(Self { workers, turn: AtomicUsize::new(0) })
    }

    /// Gives the connection to the worker with the fewest. `handed` gets that worker's count for its permit.
    pub(super) fn hand(&self, handed: impl FnOnce(&Arc<Open>) -> Handed) {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let (before, after) = self.workers.split_at(start % self.workers.len().max(1));
        let Some(worker) = after.iter().chain(before).min_by_key(|worker| worker.open.count()) else {
            return;
        };
        let handed = handed(&worker.open);
        match &worker.sink {
            // A worker whose thread has died takes no more: the connection closes with `handed`.
            Sink::Thread(queue) => drop(queue.send(handed)),
            Sink::Shared { service, runtime } => {
                let _entered = runtime.enter();
                service(handed);
            }
        }
    }

    /// Open connections of each worker.
    pub(super) fn open(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.open.count()).collect()
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
    Ok(Worker { open: Arc::default(), sink: Sink::Thread(queue) })
}

/// A worker's life: every connection becomes a task of this thread.
async fn take(mut queue: UnboundedReceiver<Handed>, sink: LocalSink) {
    while let Some(handed) = queue.recv().await {
        sink(handed);
    }
}
