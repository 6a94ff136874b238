//! The threads that serve connections, and which of them gets the next.
//!
//! ```text
//!                        ┌─► worker 0: runtime, sessions, service   (PerCore: one thread each,
//!  acceptor ─ least ─────┼─► worker 1: runtime, sessions, service    nothing shared)
//!             loaded     └─► worker 2: ...
//!
//!                        ┌─► worker 0: runtime, sessions ─┐
//!  acceptor ─ least ─────┤                    ▲ │         ├─ one service   (Shared: sessions are
//!             loaded of  │                    │ ▼         │                 kept together)
//!             the awake  └─► worker 1: runtime, sessions ─┘
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
use super::gather::{self, Founding, Gathering};
use super::service::{Flavour, LocalSink, Service, WorkerId};
use crate::telemetry;

/// Where accepted connections go.
pub(super) struct Workers {
    workers: Vec<Worker>,
    /// Where the search for the least loaded begins, so that ties go round.
    turn: AtomicUsize,
    /// Who of them has sessions, if those are kept together.
    pub(super) gathering: Option<Arc<Gathering>>,
}

struct Worker {
    open: Arc<Open>,
    /// Bounded by the process's descriptors, of which each connection holds one (a listener's cap is below that), and a
    /// worker empties it every turn.
    queue: UnboundedSender<Handed>,
    runtime: Handle,
    /// Its death has been logged.
    is_mourned: AtomicBool,
}

impl Workers {
    /// Starts `count` threads: for a service of its own each, or for one that they share. `runtime` is where their
    /// loads are looked at, and where a shared service runs that has no threads.
    pub(super) fn start(service: &Service, count: usize, runtime: &Handle) -> io::Result<Self> {
        if let (Flavour::Shared(service), 0) = (&service.flavour, count) {
            return Ok(Self::within(runtime, Arc::clone(service)));
        }
        let workers = Self::unwatched(service, count)?;
        if let Some(gathering) = &workers.gathering {
            runtime.spawn(gather::watch(Arc::downgrade(gathering)));
        }
        Ok(workers)
    }

    /// The same, with nobody who looks at their loads: all sessions are on the first.
    pub(super) fn unwatched(service: &Service, count: usize) -> io::Result<Self> {
        let count = count.max(1);
        let (workers, gathering) = match &service.flavour {
            Flavour::PerCore(make) => {
                let start = |index| Ok(Worker::start(WorkerId(index), Arc::clone(make))?.0);
                ((0..count).map(start).collect::<io::Result<_>>()?, None)
            }
            Flavour::Shared(service) => {
                let (workers, gathering) = start_shared(service, count)?;
                (workers, Some(gathering))
            }
        };
        Ok(Self { workers, turn: AtomicUsize::new(0), gathering })
    }

    /// One worker, which is a task of `runtime`.
    fn within(runtime: &Handle, service: Arc<dyn Fn(Handed) + Send + Sync>) -> Self {
        let (queue, mut handed) = unbounded_channel();
        runtime.spawn(async move {
            while let Some(handed) = handed.recv().await {
                service(handed);
            }
        });
        let worker = Worker {
            open: Arc::default(),
            queue,
            runtime: runtime.clone(),
            is_mourned: AtomicBool::new(false),
        };
        Self { workers: vec![worker], turn: AtomicUsize::new(0), gathering: None }
    }

    /// Gives the connection to the worker with the fewest. `handed` gets that worker's count for its permit.
    pub(super) fn hand(&self, handed: impl FnOnce(&Arc<Open>) -> Handed) {
        let Some(worker) = self.least_loaded() else { return };
        // A thread that dies in this very moment takes no more: the connection closes with it.
        drop(worker.queue.send(handed(&worker.open)));
    }

    /// The one with the fewest connections among the awake, if one of them lives: a dead one has none at all.
    fn least_loaded(&self) -> Option<&Worker> {
        let awake = self.gathering.as_ref().and_then(|gathering| self.workers.get(..gathering.awake()));
        awake.and_then(|awake| self.least_loaded_of(awake)).or_else(|| self.least_loaded_of(&self.workers))
    }

    fn least_loaded_of<'a>(&self, workers: &'a [Worker]) -> Option<&'a Worker> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let (before, after) = workers.split_at(start % workers.len().max(1));
        after.iter().chain(before).filter(|worker| worker.lives()).min_by_key(|worker| worker.open.count())
    }

    /// Where a connection goes that comes from another process, and its count: only a shared service takes any.
    pub(super) fn for_resumed(&self) -> Option<(&Handle, Arc<Open>)> {
        self.gathering.as_ref()?;
        self.least_loaded().map(|worker| (&worker.runtime, Arc::clone(&worker.open)))
    }

    /// Open connections of each worker.
    pub(super) fn open(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.open.count()).collect()
    }
}

/// The workers of one service, and what keeps their sessions together.
fn start_shared(
    service: &Arc<dyn Fn(Handed) + Send + Sync>,
    count: usize,
) -> io::Result<(Vec<Worker>, Arc<Gathering>)> {
    let mut workers = Vec::new();
    let mut founding = Vec::new();
    for index in 0..count {
        let service = Arc::clone(service);
        let make = move |_| {
            let service = Arc::clone(&service);
            let sink: LocalSink = Box::new(move |handed| service(handed));
            sink
        };
        let (worker, thread) = Worker::start(WorkerId(index), Arc::new(make))?;
        founding.push(Founding { runtime: worker.runtime.clone(), thread, open: Arc::clone(&worker.open) });
        workers.push(worker);
    }
    let gathering = Arc::new(Gathering::new(founding));
    for (index, worker) in workers.iter().enumerate() {
        let gathering = Arc::clone(&gathering);
        worker.runtime.spawn(async move { gather::settle_here(WorkerId(index), gathering) });
    }
    Ok((workers, gathering))
}

impl Worker {
    /// A worker and its thread's id. Runtime and service are made on their own thread; whether that went well is the
    /// caller's to report.
    fn start(
        id: WorkerId,
        make: Arc<dyn Fn(WorkerId) -> LocalSink + Send + Sync>,
    ) -> io::Result<(Self, rustix::thread::Pid)> {
        let (queue, handed) = unbounded_channel();
        let (ready, started) = mpsc::channel();
        thread::Builder::new().name(format!("worker-{}", id.0)).spawn(move || {
            telemetry::become_worker(id.0);
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let (handle, thread) = (runtime.handle().clone(), rustix::thread::gettid());
                    runtime.block_on(async {
                        // The service is made where it lives.
                        let sink = make(id);
                        drop(ready.send(Ok((handle, thread))));
                        take(handed, sink).await;
                    });
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let (runtime, thread) = started.recv().map_err(io::Error::other)??;
        Ok((Self { open: Arc::default(), queue, runtime, is_mourned: AtomicBool::new(false) }, thread))
    }

    /// Whether its thread takes connections. That it does not is said once.
    fn lives(&self) -> bool {
        let lives = !self.queue.is_closed();
        if !lives && !self.is_mourned.swap(true, Ordering::Relaxed) {
            error!("a worker thread has died; the others take its share until a restart");
        }
        lives
    }
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
    fn a_dead_worker_is_passed_over() -> io::Result<()> {
        let make = || Worker::start(WorkerId(0), Arc::new(|_| Box::new(drop)));
        let mut workers = (0..3).map(|_| Ok(make()?.0)).collect::<io::Result<Vec<_>>>()?;
        let kill = |workers: &mut Vec<Worker>, index: usize| {
            if let Some(worker) = workers.get_mut(index) {
                worker.queue = unbounded_channel().0;
            }
        };
        let chosen = |workers: Vec<Worker>| {
            let workers = Workers { workers, turn: AtomicUsize::new(0), gathering: None };
            let chosen = [(); 3].map(|()| {
                let found = workers.least_loaded()?;
                workers.workers.iter().position(|worker| std::ptr::eq(worker, found))
            });
            (workers.workers, chosen)
        };
        kill(&mut workers, 1);
        let (mut workers, among_two) = chosen(workers);
        assert_eq!(among_two, [Some(0), Some(2), Some(2)]);
        (0..3).for_each(|index| kill(&mut workers, index));
        assert_eq!(chosen(workers).1, [None; 3]);
        Ok(())
    }
}
